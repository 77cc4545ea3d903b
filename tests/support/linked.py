"""
A client and brokers with journals, linked in memory: the requests of the client go to real brokers
without network, and their replies come back. A test may keep replies, or answer in their place.
"""

from __future__ import annotations

from typing import Any

from metamorphosis.message import HEADER_BYTES
from metamorphosis.testing.runtime import MemoryLink, opaques_of
from tests.support.producing import ProducingCase
from tests.support.serving import Client
from tests.support.transactional import TransactionalBroker


class LinkedBroker:
    """
    A broker and the client's links to it.

    :ivar lines: the first lines of all requests, without opaques.
    :ivar mute: the broker executes requests, and its replies are lost.
    :ivar deaf: no request reaches the broker.
    :ivar answers: (word in a request's line, status, text): the reply, without the broker.
    """

    def __init__(self, case: LinkedCase, number: int) -> None:
        self.case = case
        self.number = number
        self.broker = TransactionalBroker(case.mktemp())
        self.lines: list[str] = []
        self.mute = False
        self.deaf = False
        self.answers: dict[str, tuple[int, bytes]] = {}
        self._clients: dict[MemoryLink, Client] = {}

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"host{self.number}:8123"

    @property
    def steps(self) -> list[str]:
        """The types of the ``transaction`` commands, and ``put``."""
        words = [line.split(" ") for line in self.lines]
        return [each[3] if each[0] == "transaction" else each[0] for each in words]

    def links(self) -> list[MemoryLink]:
        """To this broker, ended ones too."""
        return [each for each in self.case.runtime.links if each.host == f"host{self.number}"]

    def serve(self) -> bool:
        """Pass on what the client has written, and the replies; whether there was anything."""
        busy = False
        for attempt in list(self.case.runtime.attempts):
            if repr(attempt) == self.address:
                self.case.runtime.accept(self.address)
        for link in self.links():
            client = self._clients.get(link)
            if client is None:
                client = self._clients[link] = self.broker.client()
            written = link.take()
            if not link.open:
                self._lost(link, client)
                continue
            if written:
                busy = True
                self._pass(link, client, written)
            self.broker.clock.advance(0.5)
            replies = client.received()
            if replies and not self.mute:
                busy = True
                link.receive(replies)
        return busy

    def _pass(self, link: MemoryLink, client: Client, written: bytes) -> None:
        while written:
            line, _, rest = written.partition(b"\r\n")
            words = line.decode().split(" ")
            size = int(words[3]) if words[0] == "put" else 0
            frame = line + b"\r\n" + rest[:size]
            written = rest[size:]
            self.lines.append(" ".join(words[:-1]))
            found = [answer for word, answer in self.answers.items() if word in words]
            if found:
                status, text = found[0]
                (opaque,) = opaques_of(frame)
                link.receive(b"result %d %d %d\r\n%b" % (status, len(text), opaque, text))
            elif not self.deaf:
                client.connection.dataReceived(frame)

    def _lost(self, link: MemoryLink, client: Client) -> None:
        if client.connection in self.broker.factory.connections:
            client.connection.connectionLost()
            self.broker.clock.advance(0)

    def lose(self) -> None:
        """Lose every connection."""
        for link in self.links():
            link.lose()

    def stored(self, topic: str = "test", partition: int = 0) -> list[bytes]:
        """The bodies that consumers can see."""
        self.broker.clock.advance(1)
        reply = self.broker.client().send(f"get {topic} g {partition} 0 1048576 1\r\n".encode())
        if reply.startswith(b"result 404"):
            return []
        log, found = reply.partition(b"\r\n")[2], []
        while log:
            size = int.from_bytes(log[:4], "big")
            found.append(log[HEADER_BYTES : HEADER_BYTES + size])
            log = log[HEADER_BYTES + size :]
        return found


class LinkedCase(ProducingCase):
    """Two brokers, each with partitions 0 and 1 of ``test``."""

    count = 2

    def setUp(self) -> None:
        super().setUp()
        self.brokers = [LinkedBroker(self, number) for number in range(self.count)]
        for number in range(self.count):
            if not self.direct:
                self.register(number, partitions=2)

    def serve(self, seconds: float = 0.0) -> None:
        """Serve until no request is pending, and then for a number of seconds."""
        for _ in range(2):
            for _ in range(1000):
                busy = [each.serve() for each in self.brokers]
                if not any(busy):
                    break
            else:
                raise AssertionError("it never ends")
            self.runtime.advance(seconds)
            seconds = 0.0

    def outcome(self, future: Any, seconds: float = 0.0) -> Any:
        """The outcome of a future after the brokers' replies; its error is raised."""
        self.serve(seconds)
        return self.runtime.result(future)
