"""
What the scripted peers of replication share: reading of frames that excuses nothing, connections
in memory, and connections over sockets.

A peer knows no transport. It opens a ``Line`` for each connection; bytes that arrive go into
``Line.receive``, and what the peer says leaves by ``write`` and ``close``, which the wire gives it.

The few frames are written out here: an oracle must not share the codec of what it judges.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from metamorphosis.testing.runtime import MemoryLink

INT32 = range(-(1 << 31), 1 << 31)
INT64 = range(-(1 << 63), 1 << 63)
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_NAME = re.compile(r"[^\s]+")

SECONDS = 10.0
"""Every wait of a test is bounded by it."""


class Complaint(AssertionError):
    """A peer of ours said what the original would not expect."""


def integer(token: str, numbers: range = INT32) -> int:
    """
    A number as the original writes it.

    :raises Complaint: a sign, a zero or a value too much.
    """
    if not _INTEGER.fullmatch(token) or int(token) not in numbers:
        raise Complaint(f"{token!r} is no number between {numbers[0]} and {numbers[-1]}")
    return int(token)


def name(token: str) -> str:
    """A topic or group."""
    if not _NAME.fullmatch(token):
        raise Complaint(f"{token!r} is no name")
    return token


def result(status: int, opaque: int, text: str | bytes = b"") -> bytes:
    """A ``result`` frame."""
    body = text.encode() if isinstance(text, str) else text
    return b"result %d %d %d\r\n%b" % (status, len(body), opaque, body)


class Frame(NamedTuple):
    """A line, split at single blanks, and the body that follows it."""

    words: list[str]
    body: bytes


class Frames:
    """
    Cuts a stream into frames.

    :param lengths: word of a line -> index of the token that tells the length of its body.
    """

    def __init__(self, lengths: dict[str, int]) -> None:
        self._lengths = lengths
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """
        The frames that are complete now.

        :raises Complaint: a line that is none.
        """
        self._buffer += data
        frames = []
        while (end := self._buffer.find(b"\r\n")) >= 0:
            words = bytes(self._buffer[:end]).decode("utf-8").split(" ")
            if words[0] not in self._lengths:
                raise Complaint(f"nobody says {words!r}")
            index = self._lengths[words[0]]
            size = integer(words[index], range(1 << 31)) if index else 0
            if len(self._buffer) < end + 2 + size:
                break
            frames.append(Frame(words, bytes(self._buffer[end + 2 : end + 2 + size])))
            del self._buffer[: end + 2 + size]
        return frames


class ScriptedPeer(ABC):
    """
    One side of a conversation, of which a test decides what it does wrong.

    Every method may be called from any thread; ``lock`` is held meanwhile.

    :ivar complaints: what the other side did wrong; ``verify`` raises the first.
    :ivar lines: the open connections.
    :ivar frozen: it neither reads nor does anything, as after SIGSTOP.
    """

    lengths: dict[str, int]
    """See ``Frames``: what the other side may say."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.lines: list[Line] = []
        self.frozen = False
        self.lock = threading.RLock()

    def open(self, write: Callable[[bytes], None], close: Callable[[], None]) -> Line:
        """A connection, whichever side has made it."""
        with self.lock:
            line = Line(self, write, close)
            self.lines.append(line)
            self.opened(line)
            return line

    def verify(self) -> None:
        """
        Look for what the other side did wrong.

        :raises Complaint: something.
        """
        with self.lock:
            if self.complaints:
                raise Complaint("; ".join(self.complaints))

    def freeze(self) -> None:
        """As SIGSTOP: the kernel takes what comes."""
        with self.lock:
            self.frozen = True

    def thaw(self) -> None:
        """As SIGCONT: what has come is done now, in its order."""
        with self.lock:
            self.frozen = False
            for line in list(self.lines):
                line.receive(b"")

    def kill(self) -> None:
        """Close all connections; what was received and not yet done is lost."""
        with self.lock:
            for line in list(self.lines):
                line.close()

    def tick(self) -> None:  # noqa: B027  some have nothing to do
        """Time has passed; wires over sockets call it every 20 ms."""

    def opened(self, line: Line) -> None:  # noqa: B027
        """There is a connection."""

    @abstractmethod
    def frame(self, line: Line, frame: Frame) -> None:
        """
        Something was said.

        :raises Complaint: the original would not expect it.
        """

    def closed(self, line: Line) -> None:  # noqa: B027
        """The connection has ended."""


class Line:
    """
    One connection of a peer.

    :ivar is_open: whether it can be written to.
    :ivar said: every byte that was written.
    """

    def __init__(
        self, peer: ScriptedPeer, write: Callable[[bytes], None], close: Callable[[], None]
    ) -> None:
        self.peer = peer
        self.is_open = True
        self.said = bytearray()
        self._write = write
        self._close = close
        self._frames = Frames(peer.lengths)
        self._waiting = bytearray()  # received while the peer is frozen

    def write(self, data: bytes) -> None:
        """Say it, unless the connection has ended."""
        if self.is_open:
            self.said += data
            self._write(data)

    def close(self) -> None:
        """End the connection."""
        if self.is_open:
            self._close()
            self.lost()

    def receive(self, data: bytes) -> None:
        """Bytes from the other side."""
        with self.peer.lock:
            self._waiting += data
            if self.peer.frozen or not self.is_open:
                return
            data = bytes(self._waiting)
            self._waiting.clear()
            try:
                for frame in self._frames.feed(data):
                    if not self.is_open:
                        return  # a fault closed it: the rest was never read
                    self.peer.frame(self, frame)
            except Complaint as complaint:
                self.peer.complaints.append(str(complaint))
                self.close()

    def lost(self) -> None:
        """The connection has ended, on whichever side."""
        with self.peer.lock:
            if self.is_open:
                self.is_open = False
                self.peer.lines.remove(self)
                self.peer.closed(self)


class Dialled(Protocol):
    """The part of ``IProtocol`` that a wire in memory uses."""

    def makeConnection(self, transport: ITransport) -> object:
        """See ``IProtocol``."""

    def dataReceived(self, data: bytes) -> object:
        """See ``IProtocol``."""

    def connectionLost(self, reason: Failure) -> object:
        """See ``IProtocol``."""


class PumpedWire(ABC):
    """
    A peer and our side, without sockets.

    ``pump`` carries everything to the other side, until nothing moves.

    :ivar line: the peer's end.
    :ivar coming: what the peer has said and our side has not heard yet.
    """

    def __init__(self, peer: ScriptedPeer) -> None:
        self.coming: list[bytes] = []
        self.ended = False
        self._closing = False
        self.line = peer.open(self.coming.append, self._close)

    def _close(self) -> None:
        self._closing = True

    @abstractmethod
    def take(self) -> bytes:
        """What our side has written since."""

    @abstractmethod
    def give(self, data: bytes) -> None:
        """Our side receives that."""

    @abstractmethod
    def break_off(self) -> None:
        """Our side loses its connection."""

    @property
    @abstractmethod
    def closing(self) -> bool:
        """Whether our side wants to end it."""

    def pump(self) -> None:
        """Until nothing moves."""
        for _ in range(10000):
            if self.ended:
                return
            sent = self.take()
            if sent:
                self.line.receive(sent)
            coming, self.coming[:] = b"".join(self.coming), []
            if coming:
                self.give(coming)
            if self._closing or self.closing:
                self.lose()
            elif not sent and not coming:
                return
        raise AssertionError("it never ends")

    def lose(self) -> None:
        """The connection breaks, for both sides."""
        if not self.ended:
            self.ended = True
            self.line.lost()
            self.break_off()


class MemoryWire(PumpedWire):
    """
    One of our protocols on a ``StringTransport``.

    :param transport: which the protocol is connected to already; None: connect it.
    :param turn: ends the turn of the protocol's reactor.
    """

    def __init__(
        self,
        peer: ScriptedPeer,
        protocol: Dialled,
        transport: StringTransport | None = None,
        turn: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(peer)
        self.protocol = protocol
        self.transport = StringTransport() if transport is None else transport
        self._turn = turn
        if transport is None:
            protocol.makeConnection(self.transport)

    def take(self) -> bytes:
        """See ``PumpedWire``."""
        self._turn()
        sent = self.transport.value()
        self.transport.clear()
        return sent

    def give(self, data: bytes) -> None:
        """See ``PumpedWire``."""
        self.protocol.dataReceived(data)

    def break_off(self) -> None:
        """See ``PumpedWire``."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def closing(self) -> bool:
        """See ``PumpedWire``."""
        return bool(self.transport.disconnecting)


class LinkWire(PumpedWire):
    """A connection of our client's network room, on a ``MemoryRuntime``."""

    def __init__(self, peer: ScriptedPeer, link: MemoryLink) -> None:
        super().__init__(peer)
        self.link = link

    def take(self) -> bytes:
        """See ``PumpedWire``."""
        return self.link.take()

    def give(self, data: bytes) -> None:
        """See ``PumpedWire``."""
        self.link.receive(data)

    def break_off(self) -> None:
        """See ``PumpedWire``."""
        self.link.lose()

    @property
    def closing(self) -> bool:
        """See ``PumpedWire``."""
        return not self.link.open


class SocketWire:
    """
    A peer over real sockets, in a thread of its own. ``end`` closes everything.

    :param listen: port on which it waits for connections; 0: a free one; None: it waits for none.
    """

    def __init__(self, peer: ScriptedPeer, listen: int | None = 0) -> None:
        self.peer = peer
        self.port = 0
        self._selector = selectors.DefaultSelector()
        self._server: socket.socket | None = None
        if listen is not None:
            self._server = socket.create_server(("127.0.0.1", listen))
            self._server.setblocking(False)
            self.port = self._server.getsockname()[1]
            self._selector.register(self._server, selectors.EVENT_READ)
        self._ends: dict[socket.socket, Line] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="scripted-peer")
        self._thread.start()

    def dial(self, port: int) -> Line:
        """Connect to a broker here."""
        return self._add(socket.create_connection(("127.0.0.1", port), SECONDS))

    @staticmethod
    def until(condition: Callable[[], bool]) -> None:
        """
        Wait until it holds.

        :raises AssertionError: it takes longer than ``SECONDS``.
        """
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {SECONDS} s")
            time.sleep(0.002)

    def end(self) -> None:
        """Close everything."""
        self._stopping = True
        self._thread.join(SECONDS)

    def _add(self, end: socket.socket) -> Line:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.settimeout(SECONDS)

        def write(data: bytes) -> None:
            with contextlib.suppress(OSError):
                end.sendall(data)

        def close() -> None:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

        with self.peer.lock:
            self._selector.register(end, selectors.EVENT_READ)
            line = self._ends[end] = self.peer.open(write, close)
        return line

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(0.02):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                if end is self._server:
                    with contextlib.suppress(OSError):
                        self._add(end.accept()[0])
                elif not self.peer.frozen:  # else the kernel keeps it
                    self._read(end)
            with self.peer.lock:
                if not self.peer.frozen:
                    self.peer.tick()
            if self.peer.frozen:
                threading.Event().wait(0.005)
        for end in list(self._ends):
            self._drop(end)
        if self._server is not None:
            self._server.close()
        self._selector.close()

    def _read(self, end: socket.socket) -> None:
        with self.peer.lock:
            line = self._ends.get(end)
        if line is None:
            return
        try:
            data = end.recv(1 << 18)
        except OSError:
            data = b""
        if data:
            line.receive(data)
        else:
            self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        with self.peer.lock:
            line = self._ends.pop(end)
            self._selector.unregister(end)
            end.close()
            line.lost()
