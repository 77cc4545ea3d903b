"""
A server with everything but sockets and a disk, for the tests: bytes in, bytes out, and a disk that
works when the test says so.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from metamorphosis.threads import SynchronousThreads
from metamorphosis.zookeeper.commits import Commits
from metamorphosis.zookeeper.connection import ZooKeeperConnection
from metamorphosis.zookeeper.factory import ZooKeeperFactory
from metamorphosis.zookeeper.members import Members
from metamorphosis.zookeeper.nodes import Node
from metamorphosis.zookeeper.server import Server
from metamorphosis.zookeeper.sessions import Session, Sessions
from metamorphosis.zookeeper.tree import Tree
from metamorphosis.zookeeper.words import Words, configuration
from tests.support.zookeeperpeer import acl, handshake, integers, text

CREATE, DELETE, EXISTS, GET, SET, PING, CLOSE = 1, 2, 3, 4, 5, 11, -11

OPEN = acl((31, "world", "anyone"))


class MemoryStorage:
    """
    Batches as they were committed.

    :ivar batches: paths, session ids and zxid of each.
    :ivar faults: raised by what comes next: ``begin``, ``write``, ``commit``, ``tidy``.
    :ivar locked: for how many seconds another process has a lock.
    :ivar untidy: ``tidy`` has something to do.
    :ivar tidied: how often it did.
    :ivar seconds: that a commit takes.
    :ivar slow_commits: as of ``Storage``.
    """

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], list[int], int]] = []
        self.faults: dict[str, Exception] = {}
        self.locked = 0.0
        self.path = "memory"
        self.untidy = False
        self.slow_commits = 0
        self.tidied = 0
        self.seconds = 100e-6
        self._begun = False
        self._open: tuple[list[str], list[int], int] | None = None

    def begin(self) -> bool:
        """Open a batch, unless there is a lock."""
        if self._begun:
            raise AssertionError("one batch at a time")
        self._fail("begin")
        self._begun = not self.locked
        return self._begun

    def wait_and_begin(self) -> float:
        """The lock is gone."""
        waited, self.locked = self.locked, 0.0
        self.begin()
        return waited

    def tidy(self) -> None:
        """Nothing may be open."""
        if self._begun:
            raise AssertionError("in the middle of a batch")
        self._fail("tidy")
        self.untidy = False
        self.slow_commits = 0
        self.tidied += 1

    def write(
        self, nodes: Mapping[str, Node | None], sessions: Mapping[int, Session | None], zxid: int
    ) -> None:
        """Fill the open batch."""
        if not self._begun or self._open is not None:
            raise AssertionError("no batch is open")
        self._fail("write")
        self._open = (sorted(nodes), sorted(sessions), zxid)

    def commit(self) -> float:
        """Keep it."""
        batch, self._open = self._open, None
        self._begun = False
        self._fail("commit")
        if batch is None:
            raise AssertionError("nothing to commit")
        self.batches.append(batch)
        return self.seconds

    def _fail(self, what: str) -> None:
        if what in self.faults:
            raise self.faults[what]


class Wire:
    """A client's end of a connection."""

    def __init__(self, served: Served, address: str = "127.0.0.1") -> None:
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", address, 54321))
        self.protocol: ZooKeeperConnection = served.factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        self.served = served
        self.xid = 0

    def shake_hands(self) -> Wire:
        """A new session; the answer is taken."""
        self.deliver(frame(handshake()))
        self.served.turn()
        if len(self.packets()) != 1:
            raise AssertionError("no answer")
        return self

    def deliver(self, data: bytes) -> None:
        """Bytes arrive."""
        self.protocol.dataReceived(data)

    def request(self, opcode: int, body: bytes = b"") -> bytes:
        """The frame of a request with the next xid."""
        self.xid += 1
        return frame(integers(self.xid, opcode) + body)

    def get(self, path: str, watch: bool = False) -> bytes:
        """The frame of a getData."""
        return self.request(GET, text(path) + bytes([watch]))

    def set(self, path: str, data: bytes = b"new") -> bytes:
        """The frame of a setData."""
        return self.request(SET, text(path) + text(data) + integers(-1))

    def create(self, path: str, data: bytes = b"", flags: int = 0) -> bytes:
        """The frame of a create."""
        return self.request(CREATE, text(path) + text(data) + OPEN + integers(flags))

    def packets(self) -> list[bytes]:
        """The frames that came since the last call, without their lengths."""
        data = self.transport.value()
        self.transport.clear()
        found = []
        while data:
            (size,) = struct.unpack_from(">i", data)
            found.append(data[4 : 4 + size])
            data = data[4 + size :]
        return found

    def xids(self) -> list[int]:
        """Those of the frames that came since the last call; events have -1."""
        return [struct.unpack_from(">i", packet)[0] for packet in self.packets()]

    def lose(self) -> None:
        """The connection is gone."""
        self.protocol.connectionLost()


class Served:
    """The server and what is around it."""

    def __init__(self, max_connections: int = 10) -> None:
        self.clock = Clock()
        self.storage = MemoryStorage()
        self.threads = SynchronousThreads()
        self.failures: list[BaseException] = []
        self.tree, self.sessions = Tree(), Sessions()
        self.commits = Commits(
            self.tree,
            self.sessions,
            self.storage,  # type: ignore[arg-type]  # its double
            self.threads,
            self.clock,
            self.failures.append,
        )
        seconds = self.clock.seconds
        self.server = Server(self.tree, self.sessions, self.commits.changed, seconds, seconds)
        self.members = Members(max_connections)
        conf = configuration(2181, "DIRECTORY", 2000, 60)
        self.words = Words(conf, self.server, self.commits, self.members)
        self.factory = ZooKeeperFactory(
            self.server, self.commits, self.clock, self.members, self.words.answer
        )

    def wire(self) -> Wire:
        """A connection without a session."""
        return Wire(self)

    def client(self) -> Wire:
        """A connection with one."""
        return Wire(self).shake_hands()

    def turn(self) -> None:
        """What was put off to the end of the turn happens."""
        self.clock.advance(0)


def frame(body: bytes) -> bytes:
    """With its length in front."""
    return integers(len(body)) + body
