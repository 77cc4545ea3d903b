"""
The statistics of brokers, for ``get_stats`` of a session factory.

Source: ``MetaMessageSessionFactory``, ``StatsResult``.
"""

from __future__ import annotations

from metamorphosis.client.network.connections import Connections
from metamorphosis.client.network.flow import settle
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.replies import SUCCESS, error_of
from metamorphosis.client.settings import ClientConfig, normalise_url
from metamorphosis.interfaces import IRuntime
from metamorphosis.wire.commands import StatsCommand

NO_VALUE = "NO VALUE"
"""The value of a key without a value in its line."""

Stats = dict[str, dict[str, str]]
"""url -> key -> value."""


class BrokerStats:
    """Asks brokers for their statistics. Thread: the loop's."""

    def __init__(
        self, runtime: IRuntime, connections: Connections, config: ClientConfig, log: Log
    ) -> None:
        self._runtime = runtime
        self._connections = connections
        self._limit = config.stats_timeout_ms / 1000
        self._log = log

    async def of(self, url: str, item: str | None) -> dict[str, str]:
        """
        The statistics of one broker; connects to it if necessary.

        :param item: None: of the broker itself.
        :raises ClientError: no reply.
        :raises BrokerError: it refused.
        """
        user = object()
        connection = self._connections.acquire(url, user)
        try:
            await connection.ready(self._limit)
            status, body = await connection.call(StatsCommand(item), self._limit)
        finally:
            self._connections.release(url, user)
        if status != SUCCESS:
            raise error_of(status, body, f"stats of {url}")
        return parse_stats(body)

    async def of_all(self, target: str | None, item: str | None) -> Stats:
        """
        The statistics of all connected brokers; a failing one is logged and left out.

        :param target: only of this broker, whose errors are raised; see ``of``.
        """
        if target is not None:
            url = normalise_url(target)
            return {url: await self.of(url, item)}
        urls = self._connections.connected_urls()
        asked = [self._runtime.start(self.of(url, item)) for url in urls]
        found: Stats = {}
        for url, outcome in zip(urls, await settle(asked), strict=True):
            if isinstance(outcome, Exception):
                self._log.warn("No statistics: {error}", error=outcome)
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
