"""
Checks that a broker of a topic can be reached, before messages are sent or awaited.

The client itself keeps trying, as a service has to; a user at a terminal gets an error at once if
no process listens there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.cli.cluster import Cluster, reached
from metamorphosis.client.model import Partition
from metamorphosis.client.network.flow import settle
from metamorphosis.errors import MetaQError, NotConnected

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory


async def check_writable(
    session: SessionFactory, cluster: Cluster, topic: str, only: Partition | None
) -> None:
    """
    Check the masters of a topic.

    :param only: the partition of all messages.
    :raises NotConnected: no broker that accepts them can be reached.
    """
    names = await cluster.children(session.paths.topics_pub(topic))
    await _check(session, cluster, _masters(names), None if only is None else only.broker_id)


async def check_readable(session: SessionFactory, cluster: Cluster, topic: str) -> None:
    """:raises NotConnected: no broker that has the topic can be reached."""
    names = await cluster.children(session.paths.topics_sub(topic))
    masters = _masters(names)
    if len(masters) == len(names):  # a registered slave serves as well
        await _check(session, cluster, masters, None)


def _masters(names: list[str]) -> set[int]:
    """The brokers of nodes like ``0-m``."""
    found = [name.partition("-") for name in names]
    return {int(number) for number, _, kind in found if kind == "m" and number.isdecimal()}


async def _check(
    session: SessionFactory, cluster: Cluster, masters: set[int], only: int | None
) -> None:
    """Check the masters; for a topic that no broker has yet, all masters of the cluster."""
    wanted = masters if only is None else {only}
    urls = {
        url
        for broker_id, url in (await cluster.brokers()).items()
        if url is not None and (not wanted or broker_id in wanted)
    }
    outcomes = await settle(session.runtime.start(_reach(session, url)) for url in urls)
    errors = [str(each) for each in outcomes if isinstance(each, MetaQError)]
    if errors and len(errors) == len(outcomes):
        raise NotConnected("; ".join(sorted(errors)))


async def _reach(session: SessionFactory, url: str) -> None:
    user = object()
    try:
        await reached(session, url, user)
    finally:
        session.connections.release(url, user)
