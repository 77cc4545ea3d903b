"""
What the connections share: the server behind them, how many they may be, and what the four-letter
words report of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from metamorphosis.zookeeper.connection import ZooKeeperConnection

if TYPE_CHECKING:
    from metamorphosis.zookeeper.commits import Commits
    from metamorphosis.zookeeper.server import Server


class Latency:
    """
    How long chunks of requests took until their last reply left, in seconds.

    :ivar count: chunks.
    """

    __slots__ = ("count", "least", "most", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = self.least = self.most = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        if seconds > self.most:
            self.most = seconds
        if seconds < self.least or not self.count:
            self.least = seconds
        self.count += 1
        self.total += seconds


class ZooKeeperFactory(ServerFactory):
    """
    Makes and owns the connections to one ``Server``. Thread: reactor.

    :ivar connections: the open ones, in order of arrival.
    :ivar received: requests on connections that are gone.
    :ivar sent: replies and events on them.
    :param clock: ``callLater`` and ``seconds``.
    :param max_connections: a further one is closed.
    :param answer_word: the answer to a four-letter word, None if it is none.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        server: Server,
        commits: Commits,
        clock: Any,
        max_connections: int,
        answer_word: Callable[[bytes, ZooKeeperFactory], bytes | None],
    ) -> None:
        self.server = server
        self.commits = commits
        self.clock = clock
        self.max_connections = max_connections
        self.connections: dict[ZooKeeperConnection, None] = {}
        self.received = 0
        self.sent = 0
        self.latency = Latency()
        self._answer_word = answer_word
        self._complaints = 0

    def buildProtocol(  # type: ignore[override]  # Twisted wants a _ProtoWithFactory
        self, addr: IAddress | None
    ) -> ZooKeeperConnection:
        """One connection."""
        return ZooKeeperConnection(self)

    def close_connections(self) -> None:
        """Close each when everything sent has left."""
        for connection in list(self.connections):
            connection.close()

    def abort_connections(self) -> None:
        """End each now; what waits never leaves."""
        for connection in list(self.connections):
            connection.abort()

    # What connections report

    def admit(self, connection: ZooKeeperConnection) -> bool:
        """Whether there is room for one more."""
        if len(self.connections) >= self.max_connections:
            self.protocol_error(
                connection, f"there are {self.max_connections} connections (--max-connections)"
            )
            return False
        self.connections[connection] = None
        return True

    def forget(self, connection: ZooKeeperConnection) -> None:
        """It is gone."""
        if connection in self.connections:
            del self.connections[connection]
            self.received += connection.received
            self.sent += connection.sent

    def answer_word(self, word: bytes) -> bytes | None:
        """See ``words``."""
        return self._answer_word(word, self)

    def answered(self, since: float) -> None:
        """The replies to a chunk that arrived at ``since`` leave now."""
        self.latency.add(max(0.0, self.clock.seconds() - since))

    def protocol_error(self, connection: ZooKeeperConnection, text: str) -> None:
        """A connection is closed because of its peer: said in full, later only now and then, so
        that garbage cannot fill the log."""
        self._complaints += 1
        count = self._complaints
        if count <= 10 or not count & (count - 1):
            self._log.warn(
                "Closing {peer}: {text} (closed connection number {count} since the start)",
                peer=connection.transport.getPeer(),
                text=text,
                count=count,
            )
