"""
A ZooKeeper client without abstractions: it packs every request by hand, and returns every frame of
the reply with its header, in the order of arrival.

It shares no code with ``metamorphosis.zookeeper`` nor with kazoo, so that it is a third,
independent implementation of the serialisation. Everything blocks, for a bounded time.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

SECONDS = 10.0

CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_ACL, SET_ACL, GET_CHILDREN = 1, 2, 3, 4, 5, 6, 7, 8
SYNC, PING, GET_CHILDREN2, CHECK, MULTI, CREATE2 = 9, 11, 12, 13, 14, 15
AUTH, SET_WATCHES, CLOSE = 100, 101, -11

EVENT_XID, PING_XID, AUTH_XID, SET_WATCHES_XID = -1, -2, -4, -8

PERSISTENT, EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL = 0, 1, 2, 3
READ, WRITE, CREATE_CHILD, DELETE_CHILD, ADMIN, ALL = 1, 2, 4, 8, 16, 31

NODE_CREATED, NODE_DELETED, NODE_DATA_CHANGED, NODE_CHILDREN_CHANGED = 1, 2, 3, 4

Acl = tuple[int, str, str]
"""Permissions, scheme, id."""

OPEN: tuple[Acl, ...] = ((ALL, "world", "anyone"),)


class Closed(Exception):
    """The server closed the connection."""


class Stat(NamedTuple):
    """The eleven fields of a node, in the order of the wire."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    owner: int
    length: int
    children: int
    pzxid: int


class Event(NamedTuple):
    """A watch that fired; ``header`` is xid, zxid and error of its frame."""

    kind: int
    state: int
    path: str
    header: tuple[int, int, int]


class Reply(NamedTuple):
    """The answer to one request, its body not yet read."""

    xid: int
    zxid: int
    error: int
    body: bytes


class Session(NamedTuple):
    """What the server answered to a connect request."""

    protocol: int
    timeout: int
    id: int
    password: bytes
    length: int  # of the frame: 37 with the read-only flag, 36 without


def text(value: str) -> bytes:
    """A string."""
    return data(value.encode())


def data(value: bytes | None) -> bytes:
    """A buffer; ``None`` has length -1."""
    return b"\xff\xff\xff\xff" if value is None else struct.pack(">i", len(value)) + value


def vector(items: Sequence[bytes]) -> bytes:
    """Packed items behind their number."""
    return struct.pack(">i", len(items)) + b"".join(items)


def acls(value: Sequence[Acl]) -> bytes:
    """An access control list."""
    return vector([struct.pack(">i", bits) + text(kind) + text(who) for bits, kind, who in value])


def create(path: str, value: bytes | None, acl: Sequence[Acl] = OPEN, flags: int = 0) -> bytes:
    """The body of create and create2."""
    return text(path) + data(value) + acls(acl) + struct.pack(">i", flags)


def versioned(path: str, version: int = -1) -> bytes:
    """The body of delete and check."""
    return text(path) + struct.pack(">i", version)


def set_data(path: str, value: bytes | None, version: int = -1) -> bytes:
    """The body of setData."""
    return text(path) + data(value) + struct.pack(">i", version)


def set_acl(path: str, acl: Sequence[Acl], version: int = -1) -> bytes:
    """The body of setACL."""
    return text(path) + acls(acl) + struct.pack(">i", version)


def watched(path: str, watch: bool = False) -> bytes:
    """The body of exists, getData and both getChildren."""
    return text(path) + struct.pack(">?", watch)


def multi(operations: Sequence[tuple[int, bytes]]) -> bytes:
    """The body of multi."""
    parts = [struct.pack(">i?i", opcode, False, -1) + body for opcode, body in operations]
    return b"".join(parts) + struct.pack(">i?i", -1, True, -1)


def set_watches(
    zxid: int, nodes: Sequence[str], absent: Sequence[str], parents: Sequence[str]
) -> bytes:
    """The body of setWatches: data watches, exist watches, child watches."""
    lists = (vector([text(path) for path in paths]) for paths in (nodes, absent, parents))
    return struct.pack(">q", zxid) + b"".join(lists)


def auth(scheme: str, value: bytes) -> bytes:
    """The body of auth."""
    return struct.pack(">i", 0) + text(scheme) + data(value)


class Body:
    """Takes the fields of a reply's body one after the other."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.offset = 0

    def unpack(self, form: str) -> tuple[int, ...]:
        """Fixed fields, as ``struct`` names them."""
        values: tuple[int, ...] = struct.unpack_from(">" + form, self.packed, self.offset)
        self.offset += struct.calcsize(">" + form)
        return values

    def data(self) -> bytes | None:
        """A buffer."""
        (length,) = self.unpack("i")
        if length < 0:
            return None
        self.offset += length
        value = self.packed[self.offset - length : self.offset]
        if len(value) != length:
            raise AssertionError(f"a length of {length} in a body of {len(self.packed)} bytes")
        return value

    def text(self) -> str:
        """A string."""
        return (self.data() or b"").decode()

    def stat(self) -> Stat:
        """A node's fields."""
        return Stat(*self.unpack("qqqqiiiqiiq"))

    def texts(self) -> list[str]:
        """A list of strings."""
        return [self.text() for _ in range(self.unpack("i")[0])]

    def acls(self) -> list[Acl]:
        """An access control list."""
        count = self.unpack("i")[0]
        return [(self.unpack("i")[0], self.text(), self.text()) for _ in range(count)]

    def results(self) -> list[object]:
        """What became of the operations of a multi: (kind, fields) each."""
        found: list[object] = []
        while True:
            kind, done, error = self.unpack("i?i")
            if done:
                return found
            if kind == -1:
                found.append(("error", error, self.unpack("i")[0]))
            elif kind == CREATE:
                found.append(("create", error, self.text()))
            elif kind == CREATE2:
                found.append(("create2", error, self.text(), self.stat()))
            elif kind == SET_DATA:
                found.append(("set", error, self.stat()))
            else:
                found.append(("done", error, kind))

    def end(self) -> None:
        """Assert that no bytes are left."""
        if self.offset != len(self.packed):
            raise AssertionError(f"{self.packed[self.offset :]!r} follows the last field")


READERS: dict[int, Callable[[Body], tuple[object, ...]]] = {
    CREATE: lambda body: (body.text(),),
    CREATE2: lambda body: (body.text(), body.stat()),
    DELETE: lambda body: (),
    EXISTS: lambda body: (body.stat(),),
    GET_DATA: lambda body: (body.data(), body.stat()),
    SET_DATA: lambda body: (body.stat(),),
    GET_ACL: lambda body: (body.acls(), body.stat()),
    SET_ACL: lambda body: (body.stat(),),
    GET_CHILDREN: lambda body: (sorted(body.texts()),),
    GET_CHILDREN2: lambda body: (sorted(body.texts()), body.stat()),
    SYNC: lambda body: (body.text(),),
    MULTI: lambda body: (body.results(),),
}
"""The fields of a successful answer, by operation."""


def fields(opcode: int, reply: Reply) -> tuple[object, ...]:
    """What the body of an answer holds; an answer with an error has none."""
    body = Body(reply.body)
    found = READERS[opcode](body) if not reply.error and opcode in READERS else ()
    body.end()
    return found


class RawClient:
    """
    One connection. A session may outlive it: give ``session`` to the next.

    :ivar events: the watch events so far that were not taken.
    :ivar frames: everything that arrived, in order: ``Event`` and ``Reply``.
    """

    def __init__(self, port: int, timeout: int = 10000, seconds: float = SECONDS) -> None:
        self.port = port
        self.timeout = timeout
        self.session = Session(0, 0, 0, bytes(16), 0)
        self.last_zxid = 0
        self.events: list[Event] = []
        self.frames: list[Event | Reply] = []
        self._xid = 0
        self._received = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(
        self, session: Session | None = None, last_zxid: int = 0, read_only_flag: bool = True
    ) -> Session:
        """The handshake, for a new session or an old one; the server's answer."""
        known = session or self.session
        body = struct.pack(">iqiq", 0, last_zxid, self.timeout, known.id) + data(known.password)
        self.send_frame(body + (b"\0" if read_only_flag else b""))
        answer = Body(self.receive_frame())
        protocol, timeout, number = answer.unpack("iiq")
        password = answer.data() or b""
        self.session = Session(protocol, timeout, number, password, len(answer.packed))
        return self.session

    def send_frame(self, frame: bytes) -> None:
        """A frame with its length before it."""
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)

    def receive_frame(self) -> bytes:
        """The next frame; :exc:`Closed` at the end of the connection."""
        while True:
            if len(self._received) >= 4:
                end = 4 + struct.unpack_from(">i", self._received)[0]
                if len(self._received) >= end:
                    frame = bytes(self._received[4:end])
                    del self._received[:end]
                    return frame
            try:
                chunk = self.socket.recv(1 << 16)
            except (ConnectionResetError, BrokenPipeError):
                chunk = b""
            if not chunk:
                raise Closed
            self._received += chunk

    def send(self, opcode: int, body: bytes = b"", xid: int | None = None) -> int:
        """A request; nobody waits for the answer. Its xid."""
        if xid is None:
            self._xid += 1
            xid = self._xid
        self.send_frame(struct.pack(">ii", xid, opcode) + body)
        return xid

    def send_together(self, requests: Sequence[tuple[int, bytes]]) -> list[int]:
        """Several requests in one write; their xids."""
        packets, xids = [], []
        for opcode, body in requests:
            self._xid += 1
            frame = struct.pack(">ii", self._xid, opcode) + body
            packets.append(struct.pack(">i", len(frame)) + frame)
            xids.append(self._xid)
        self.socket.sendall(b"".join(packets))
        return xids

    def receive(self) -> Reply | Event:
        """The next reply or event."""
        frame = Body(self.receive_frame())
        xid, zxid, error = frame.unpack("iqi")
        packet: Reply | Event
        if xid == EVENT_XID:
            kind, state = frame.unpack("ii")
            packet = Event(kind, state, frame.text(), (xid, zxid, error))
            frame.end()
            self.events.append(packet)
        else:
            packet = Reply(xid, zxid, error, frame.packed[frame.offset :])
            if zxid > 0:
                self.last_zxid = zxid
        self.frames.append(packet)
        return packet

    def receive_reply(self) -> Reply:
        """The next reply; events before it are added to ``events``."""
        while True:
            packet = self.receive()
            if isinstance(packet, Reply):
                return packet

    def call(self, opcode: int, body: bytes = b"", xid: int | None = None) -> Reply:
        """A request and its answer."""
        sent = self.send(opcode, body, xid)
        reply = self.receive_reply()
        if reply.xid != sent:
            raise AssertionError(f"request {sent} was answered by {reply}")
        return reply

    def ask(self, opcode: int, body: bytes = b"") -> tuple[int, tuple[object, ...]]:
        """A request; error and fields of its answer."""
        reply = self.call(opcode, body)
        return reply.error, fields(opcode, reply)

    def ping(self) -> Reply:
        """A ping and its answer: whatever the server sent before has arrived."""
        return self.call(PING, xid=PING_XID)

    def take_events(self) -> list[Event]:
        """The events so far, which are forgotten."""
        events, self.events = self.events, []
        return events

    def end_session(self) -> Reply:
        """Close the session and the connection."""
        reply = self.call(CLOSE)
        self.close()
        return reply

    def close(self) -> None:
        """Close the connection; the session lives on."""
        self.socket.close()

    def closed_by_server(self) -> bool:
        """Whether the server closes the connection, within the time limit; frames are read."""
        try:
            while True:
                self.receive()
        except Closed:
            return True
        except TimeoutError:
            return False
