"""
The statistics of brokers, as a session factory is asked for them.

Source: ``MetaMessageSessionFactory``, ``StatsResult``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.client.network.flow import settle
from metamorphosis.client.network.replies import SUCCESS, error_of
from metamorphosis.client.settings import normalise_url
from metamorphosis.wire.commands import StatsCommand

if TYPE_CHECKING:
    from metamorphosis.client.session import SessionFactory

NO_VALUE = "NO VALUE"
"""What a line of statistics without a value has."""

Stats = dict[str, dict[str, str]]
"""url -> key -> value."""


async def stats_of(session: SessionFactory, url: str, item: str | None) -> dict[str, str]:
    """
    The statistics of one broker, which is connected to if need be.

    :param item: None: of the broker itself.
    :raises ClientError: it gave no answer.
    :raises BrokerError: it refused.
    """
    user = object()
    connection = session.connections.acquire(url, user)
    limit = session.config.stats_timeout_ms / 1000
    try:
        await connection.ready(limit)
        status, body = await connection.call(StatsCommand(item), limit)
    finally:
        session.connections.release(url, user)
    if status != SUCCESS:
        raise error_of(status, body, f"stats of {url}")
    return parse_stats(body)


async def stats(session: SessionFactory, target: str | None, item: str | None) -> Stats:
    """Of ``target``, or of all brokers connected; of these, one that fails is logged and left
    out."""
    if target is not None:
        url = normalise_url(target)
        return {url: await stats_of(session, url, item)}
    urls = session.connections.connected_urls()
    asked = [session.runtime.start(stats_of(session, url, item)) for url in urls]
    found: Stats = {}
    for url, outcome in zip(urls, await settle(asked), strict=True):
        if isinstance(outcome, Exception):
            session.log.warn("No statistics: {error}", error=outcome)
        else:
            found[url] = outcome
    return found


def parse_stats(body: bytes) -> dict[str, str]:
    """Lines of key, space, value; a line without a space gets ``NO_VALUE``."""
    found = {}
    for line in body.decode("utf-8", "replace").split("\r\n"):
        if line:
            key, space, value = line.partition(" ")
            found[key] = value if space else NO_VALUE
    return found
