"""``metaq brokers``: masters and slaves, with the figures of each."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, NamedTuple

from metamorphosis.cli.cluster import BrokerPlace, Cluster
from metamorphosis.cli.console import Console
from metamorphosis.cli.stats import lines_of
from metamorphosis.cli.table import table
from metamorphosis.client.network.flow import settle
from metamorphosis.errors import MetaQError

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory

HEAD = ("BROKER", "ADDRESS", "STATE", "VERSION", "UPTIME", "CONNECTIONS", "TOPICS", "MESSAGES")
AWAY, NO_ANSWER, OK = "away", "no-answer", "ok"


class Row(NamedTuple):
    """
    A broker.

    :ivar broker: ``0`` for a master, ``0/slave1`` for its asynchronous slave.
    :ivar state: ``ok``; ``no-answer``; ``away``: the broker has topics in ZooKeeper, or had, and is
        not registered.
    :ivar version: of the protocol, and in brackets of this product if the broker reports it.
    :ivar uptime: seconds since its start.
    """

    broker: str
    url: str | None
    state: str
    version: str | None = None
    uptime: int | None = None
    connections: int | None = None
    topics: int | None = None
    messages: int | None = None


async def brokers(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Show the brokers.

    :raises MetaQError: no broker is known, or one is away or does not reply.
    """
    cluster = Cluster(session)
    places = await cluster.places()
    if not places:
        raise MetaQError(cluster.no_brokers())
    replies = await settle(session.runtime.start(_ask(cluster, place)) for place in places)
    rows = []
    for place, reply in zip(places, replies, strict=True):
        if isinstance(reply, Exception):
            cluster.faults.append(str(reply))
            rows.append(Row(place.name, place.url, NO_ANSWER))
        else:
            rows.append(reply)
    if options.json:
        for row in rows:
            await console.print(row._asdict(), True)
    else:
        await console.print(table(HEAD, rows), False)
    cluster.faults += [f"broker {row.broker} is away" for row in rows if row.state == AWAY]
    for fault in cluster.faults[1:]:
        console.complain(fault)
    if cluster.faults:
        raise MetaQError(cluster.faults[0])


async def _ask(cluster: Cluster, place: BrokerPlace) -> Row:
    if place.url is None:
        return Row(place.name, None, AWAY)
    told = dict(line.partition(" ")[::2] for line in lines_of(await cluster.stats(place.url, "")))
    version, ours = told.get("version"), told.get("metamorphosis")
    if version and ours:
        version += f" ({ours})"
    return Row(
        place.name,
        place.url,
        OK,
        version,
        _number(told, "uptime"),
        _number(told, "curr_connections"),
        _number(told, "topics"),
        _number(told, "total_messages"),
    )


def _number(told: dict[str, str], key: str) -> int | None:
    text = told.get(key, "")
    return int(text) if text.isascii() and text.isdecimal() else None
