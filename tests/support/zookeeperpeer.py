"""
A server without sockets and the clients that talk to it, for the tests.

Requests are written and replies read by kazoo, an independent peer. Everything that leaves the
server, to whichever client, and every ``on_change`` goes into one journal, so that tests can say in
which order things happened.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from kazoo.protocol.serialization import (
    Create,
    Exists,
    GetACL,
    GetChildren,
    GetChildren2,
    GetData,
    SetData,
    Watch,
)
from kazoo.protocol.states import ZnodeStat
from kazoo.security import OPEN_ACL_UNSAFE

from metamorphosis.zookeeper.nodes import Node
from metamorphosis.zookeeper.server import Server
from metamorphosis.zookeeper.sessions import Session, Sessions
from metamorphosis.zookeeper.tree import Tree

START = 1_700_000_000.0
"""The wall clock at the beginning, seconds."""

CREATED, DELETED, DATA_CHANGED, CHILDREN_CHANGED = 1, 2, 3, 4


class Reply(NamedTuple):
    """The header of a reply and what follows it."""

    xid: int
    zxid: int
    code: int
    body: bytes


class Answer(NamedTuple):
    """The answer to a handshake."""

    version: int
    timeout: int
    session_id: int
    password: bytes
    rest: bytes


def integers(*numbers: int) -> bytes:
    """Numbers of 32 bits."""
    return struct.pack(f">{len(numbers)}i", *numbers)


def text(value: str | bytes | None) -> bytes:
    """A string or buffer with its length."""
    if value is None:
        return integers(-1)
    encoded = value.encode() if isinstance(value, str) else value
    return integers(len(encoded)) + encoded


def acl(*entries: tuple[int, str | None, str | None]) -> bytes:
    """A vector of ACL entries, null and faulty ones too."""
    parts = [integers(perms) + text(scheme) + text(name) for perms, scheme, name in entries]
    return integers(len(entries)) + b"".join(parts)


def handshake(
    zxid: int = 0,
    timeout: int = 4000,
    session_id: int = 0,
    password: bytes | None = bytes(16),
    rest: bytes = b"\0",
) -> bytes:
    """The first frame, of 45 bytes; of 44 with an empty ``rest``."""
    return struct.pack(">iqiq", 0, zxid, timeout, session_id) + text(password) + rest


class Peer:
    """One connection, both its ends: what the server has of it and what a test does with it."""

    def __init__(self, world: World, address: str = "127.0.0.1") -> None:
        self.session: Session | None = None
        self.identities = [("ip", address)]
        self.watching: set[tuple[bool, str]] = set()
        self.received: list[bytes] = []
        self.closed = False
        self.world = world
        self.xid = 0

    def send(self, packet: bytes) -> None:
        """The server says something."""
        if self.closed:
            raise AssertionError("sent to a closed connection")
        self.received.append(packet)
        self.world.journal.append((self, packet))

    def close(self) -> None:
        """The server closes."""
        self.closed = True
        self.world.journal.append((self, "close"))

    def connect(self, frame: bytes) -> Answer | None:
        """Shake hands; None when there is no answer."""
        self.world.server.connect(self, frame)
        if not self.received:
            return None
        packet = self.received.pop()
        return Answer._make((*struct.unpack_from(">iiqxxxx16s", packet), packet[36:]))

    def raw(self, opcode: int, body: bytes = b"", xid: int | None = None) -> Reply:
        """Send a request and take the reply to it, the last thing that came."""
        if xid is None:
            self.xid = xid = self.xid + 1
        self.world.server.receive(self, integers(xid, opcode) + body)
        packet = self.received.pop()
        reply = Reply._make((*struct.unpack_from(">iqi", packet), packet[16:]))
        if reply.xid != xid:
            raise AssertionError(f"{reply} is no reply to {xid}")
        return reply

    def ask(self, request: Any) -> Reply:
        """Send a request of kazoo's."""
        return self.raw(request.type, bytes(request.serialize()))

    def result(self, request: Any) -> Any:
        """Send a request of kazoo's and read the reply as kazoo does."""
        reply = self.ask(request)
        if reply.code:
            raise AssertionError(f"{request}: {reply.code}")
        return request.deserialize(reply.body, 0)

    def events(self) -> list[tuple[int, str]]:
        """Kind and path of the events that came since the last call."""
        packets, self.received = self.received, []
        events = []
        for packet in packets:
            if struct.unpack_from(">iqi", packet) != (-1, -1, 0):
                raise AssertionError(f"{packet!r} is no event")
            event, end = Watch.deserialize(packet, 16)
            if (event.state, end) != (3, len(packet)):
                raise AssertionError(f"{packet!r} is not connected")
            events.append((event.type, event.path))
        return events

    # What tests ask most

    def create(self, path: str, data: bytes | None = b"", flags: int = 0) -> str:
        """A node that everybody may use."""
        created: str = self.result(Create(path, data, OPEN_ACL_UNSAFE, flags))
        return created

    def delete(self, path: str, version: int = -1) -> int:
        """Returns the code."""
        return self.raw(2, text(path) + integers(version)).code

    def set(self, path: str, data: bytes | None = b"new", version: int = -1) -> ZnodeStat:
        """The Stat afterwards."""
        return self.result(SetData(path, data, version))

    def get(self, path: str, watch: bool = False) -> tuple[bytes | None, ZnodeStat]:
        """Data and Stat."""
        data, stat = self.result(GetData(path, watch))
        return data, stat

    def stat(self, path: str, watch: bool = False) -> ZnodeStat | None:
        """None if there is no such node."""
        reply = self.ask(Exists(path, watch))
        return None if reply.code == -101 else Exists.deserialize(reply.body, 0)

    def children(self, path: str, watch: bool = False) -> list[str]:
        """Names in order."""
        return sorted(self.result(GetChildren(path, watch)))

    def children2(self, path: str) -> tuple[list[str], ZnodeStat]:
        """Names in order, and the Stat of the node."""
        names, stat = self.result(GetChildren2(path, False))
        return sorted(names), stat

    def acl(self, path: str) -> list[tuple[int, str, str]]:
        """The entries."""
        entries, _ = self.result(GetACL(path))
        return [(entry.perms, entry.id.scheme, entry.id.id) for entry in entries]

    def authenticate(self, scheme: str, credentials: bytes) -> Reply:
        """An auth packet, whose xid is -4."""
        return self.raw(100, integers(0) + text(scheme) + text(credentials), -4)

    def set_watches(
        self,
        zxid: int,
        data: Iterable[str] = (),
        exist: Iterable[str] = (),
        children: Iterable[str] = (),
    ) -> Reply:
        """What Java's client sends when it is back."""
        lists = [list(paths) for paths in (data, exist, children)]
        body = b"".join(integers(len(paths)) + b"".join(map(text, paths)) for paths in lists)
        return self.raw(101, struct.pack(">q", zxid) + body, -8)

    def multi(self, *operations: tuple[int, bytes]) -> Reply:
        """Several operations, each an opcode and a body."""
        parts = [struct.pack(">i?i", opcode, False, -1) + body for opcode, body in operations]
        return self.raw(14, b"".join(parts) + struct.pack(">i?i", -1, True, -1))

    def hang_up(self) -> None:
        """The connection breaks."""
        self.world.server.disconnected(self)


class World:
    """
    A server, its clocks, and its disk: what ``on_change`` was told of, as storage would keep it.

    :ivar journal: who was sent what, and ``(None, "change")``.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = START
        self.journal: list[tuple[Peer | None, bytes | str]] = []
        self.disk: tuple[dict[str, Node], dict[int, Session], int] = ({}, {}, 0)
        self._serve(Tree(), Sessions())

    def _serve(self, tree: Tree, sessions: Sessions) -> None:
        self.tree, self.sessions = tree, sessions
        self.server = Server(tree, sessions, self._changed, lambda: self.now, lambda: self.wall)

    def _changed(self) -> None:
        self.journal.append((None, "change"))
        nodes, sessions, _ = self.disk
        for path, node in self.tree.take_changes().items():
            if node is None:
                nodes.pop(path, None)
            else:
                nodes[path] = copied(node)
        for session_id, session in self.sessions.take_changes().items():
            if session is None:
                sessions.pop(session_id, None)
            else:
                sessions[session_id] = Session(session.id, session.password, session.timeout)
        self.disk = nodes, sessions, self.tree.zxid

    def restart(self) -> None:
        """Kill -9 and start: what is left is what was on disk."""
        nodes, sessions, zxid = self.disk
        kept = {path: copied(node) for path, node in nodes.items()}
        self._serve(Tree(kept, zxid), Sessions(sessions.values()))

    def peer(self, timeout: int = 4000, address: str = "127.0.0.1") -> Peer:
        """A client with a new session."""
        peer = Peer(self, address)
        if peer.connect(handshake(timeout=timeout)) is None:
            raise AssertionError("refused")
        return peer

    def back(self, session: Session) -> Peer:
        """A new connection of a session."""
        peer = Peer(self)
        peer.connect(handshake(session_id=session.id, password=session.password))
        return peer

    def order(self) -> list[tuple[Peer | None, bytes | str]]:
        """The journal since the last call."""
        journal, self.journal = self.journal, []
        return journal


def copied(node: Node) -> Node:
    """What storage keeps of a node: everything but its children, which the paths say."""
    numbers = (node.czxid, node.ctime, node.mzxid, node.mtime, node.pzxid)
    counts = (node.version, node.creates, node.aversion, node.owner)
    return Node(node.data, node.acl, *numbers, *counts)
