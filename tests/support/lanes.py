"""
A broker whose clients come over real sockets that a ``BrokerSockets`` watches: with the turn in C,
or all in Python. The reactor is a ``Clock``; a test plays its turns.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
from collections.abc import Iterator
from typing import Any, Protocol
from unittest import mock

from metamorphosis.broker import connection
from metamorphosis.broker.hotpath import native, pure, scan_syncs, syncs
from metamorphosis.broker.lanes import LaneSet
from metamorphosis.broker.sockets import BrokerSockets
from metamorphosis.broker.transport import BrokerTransport
from metamorphosis.replication.pairslave import takeover
from tests.support.serving import Broker

MOST_TURNS = 50
"""A transport that waits to be closed keeps the set ready."""


def is_readable(file: Any) -> bool:
    """Whether it is now; ``select`` would refuse a descriptor above 1023."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


def alarms() -> list[str]:
    """The times of the timers of this process: what the kernel shows."""
    gc.collect()
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the list itself
            if os.readlink(f"/proc/self/fd/{descriptor}") == "anon_inode:[timerfd]":
                with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
                    found += [line for line in file if line.startswith("it_value:")]
    return found


def no_calls() -> None:
    """In place of a reactor's ``timeout``: it has no delayed calls."""


class Reactor:
    """As much of one as a set of sockets needs."""

    def __init__(self, clock: Any) -> None:
        self.callLater = clock.callLater

    def addReader(self, reader: Any) -> None:
        """The test reads."""

    def removeReader(self, reader: Any) -> None:
        """No more."""

    def getReaders(self) -> list[Any]:
        """It watches nothing."""
        return []

    getWriters = getReaders


class Serving(Protocol):
    """What a peer connects to."""

    @property
    def broker(self) -> Broker:
        """The broker."""

    @property
    def sockets(self) -> BrokerSockets:
        """The set that watches its sockets."""


class Peer:
    """
    A client.

    :ivar socket: its end.
    :ivar transport: that of the broker.
    """

    def __init__(self, served: Serving) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.socket = socket.create_connection(listener.getsockname())
            accepted, address = listener.accept()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setblocking(False)
        self.connection = served.broker.factory.buildProtocol(None)
        watcher: Any = served.sockets
        self.transport = BrokerTransport(accepted, self.connection, address, None, 1, watcher)
        self.connection.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Send all of it; the kernel takes it, or the test is wrong."""
        view = memoryview(data)
        while view:
            view = view[self.socket.send(view) :]

    def received(self) -> bytes:
        """Everything that has come."""
        data = bytearray()
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while piece := self.socket.recv(1 << 20):
                data += piece
        return bytes(data)


class Served:
    """
    A broker and its set of sockets.

    :param in_c: with the turn in C; else nothing in C is used.
    :param kind: the broker; another one is a ``SlaveBroker``.
    :param options: see ``Broker``.
    """

    def __init__(
        self, directory: str, in_c: bool, kind: type[Broker] = Broker, **options: Any
    ) -> None:
        self.in_c = in_c
        self.broker = kind(directory, **options)
        shared = self.broker.factory.shared
        reactor: Any = Reactor(self.broker.clock)
        self.sockets = LaneSet(reactor, shared) if in_c else BrokerSockets(reactor)
        self.sockets.open()
        self.broker.factory._sockets = self.sockets
        self.peers: list[Peer] = []

    def connect(self) -> Peer:
        """One more client."""
        peer = Peer(self)
        self.peers.append(peer)
        return peer

    @property
    def lanes(self) -> LaneSet:
        """The set of a side with the turn in C."""
        assert isinstance(self.sockets, LaneSet)
        return self.sockets

    @contextlib.contextmanager
    def implementation(self) -> Iterator[None]:
        """The hot path that belongs to this side."""
        scan = native.scan if self.in_c else pure.scan
        take_syncs = scan_syncs if self.in_c else syncs.scan
        with (
            mock.patch.object(connection, "ordinary_scan", scan),
            mock.patch.object(takeover, "scan_syncs", take_syncs),
        ):
            yield

    def turn(self) -> None:
        """Turns of the reactor until nothing is left to do, or a peer has to read."""
        with self.implementation():
            self._turn()
            for _ in range(MOST_TURNS):
                if not self._busy:
                    break
                self._turn()

    def serve(self) -> None:
        """Serve the sockets that are ready, once, and what follows from it."""
        with self.implementation():
            self._turn()

    def _turn(self) -> None:
        self.sockets.doRead()
        self.broker.clock.advance(0)

    @property
    def _busy(self) -> bool:
        calls = self.broker.clock.getDelayedCalls()
        now = self.broker.clock.seconds()
        due = any(call.getTime() <= now for call in calls)
        return due or is_readable(self.sockets)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self.implementation():
            self.broker.clock.advance(seconds)

    def close(self) -> None:
        """The end; once."""
        if self.sockets.fileno() < 0:
            return
        for peer in self.peers:
            peer.socket.close()
        self.turn()
        for peer in self.peers:
            if peer.transport.connected:
                peer.transport.abortConnection()
        self.turn()
        self.sockets.close()
        self.broker.stores.close()

    def files(self) -> dict[str, bytes]:
        """The bytes of every segment."""
        found = {}
        for store in self.broker.stores:
            for segment in store.segments:
                with open(segment.path, "rb") as file:
                    name = f"{store.topic}-{store.partition}/{segment.start}"
                    found[name] = file.read()
        return found

    @property
    def plain(self) -> int:
        """How many connections the turn in C answers."""
        return len(self.sockets.plain) if isinstance(self.sockets, LaneSet) else 0
