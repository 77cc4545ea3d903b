"""``metaq stats``: the replies of brokers to the command of that name."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from metamorphosis.cli.cluster import BrokerPlace, Cluster
from metamorphosis.cli.console import Console
from metamorphosis.client.network.flow import settle
from metamorphosis.errors import MetaQError

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory


async def stats(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Show the replies of all brokers.

    :raises MetaQError: not all have replied.
    """
    cluster = Cluster(session)
    places = [each for each in await cluster.places() if each.url is not None]
    if not places:
        raise MetaQError(cluster.no_brokers())
    item = options.item
    replies = await settle(session.runtime.start(cluster.stats(str(p.url), item)) for p in places)
    for place, reply in zip(places, replies, strict=True):
        if isinstance(reply, Exception):
            cluster.faults.append(str(reply))
        elif options.json:
            await console.print(as_json(place, item, reply), True)
        else:
            head = f"# {place.name} {place.url}\n" if len(places) > 1 else ""
            await console.print(f"{head}{as_text(reply, item)}", False)
    for fault in cluster.faults[1:]:
        console.complain(fault)
    if cluster.faults:
        raise MetaQError(cluster.faults[0])


def as_text(reply: str, item: str) -> str:
    """The lines between ``STATS`` and ``END``; a configuration file has neither."""
    return reply if item == "config" else "\n".join(lines_of(reply))


def as_json(place: BrokerPlace, item: str, reply: str) -> dict[str, object]:
    """One broker as an object; the general figures as pairs of name and value, other items as
    lines."""
    found: dict[str, object] = {"broker": place.name, "url": place.url}
    if item == "config":
        return {**found, "config": reply}
    lines = lines_of(reply)
    pairs = [line.split(" ") for line in lines]
    if not item:
        return {**found, "stats": {pair[0]: value_of(" ".join(pair[1:])) for pair in pairs}}
    return {**found, "lines": lines}


def value_of(text: str) -> str | int | bool:
    """A value of ``stats`` as boolean, number or text."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isascii() and text.isdecimal() else text


def lines_of(reply: str) -> list[str]:
    """The lines of a reply, without its first and last."""
    return [line for line in reply.split("\r\n") if line not in ("", "STATS", "END")]
