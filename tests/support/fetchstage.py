"""A consumer's fetch loops with the test as the broker."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.delivery.assigning import AssignmentNews
from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.delivery.subscription import DeliveryRules, Subscription
from metamorphosis.client.fetch.fetching import Fetching
from metamorphosis.client.fetch.passing import PassedOverMessages
from metamorphosis.client.model import FetchTarget, Partition, Position, ReceivedMessage
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.settings import ClientConfig, ConsumerConfig
from metamorphosis.message import encode_record
from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime

URL = "meta://b:1"


class Asked(NamedTuple):
    """A request of the core's."""

    words: list[str]

    @property
    def opaque(self) -> int:
        """Its number."""
        return int(self.words[-1] if self.words[0] != "get" else self.words[6])

    @property
    def offset(self) -> int:
        """The offset of the request."""
        return int(self.words[4])

    @property
    def size(self) -> int:
        """The size, of a get."""
        return int(self.words[5])

    @property
    def wait_ms(self) -> int | None:
        """The time for which the broker may hold a get; None if not given."""
        return int(self.words[7]) if len(self.words) > 7 else None


def requests(data: bytes) -> list[Asked]:
    """The requests, without heartbeats."""
    lines = data.decode().split("\r\n")
    return [Asked(line.split(" ")) for line in lines if line and not line.startswith("version")]


def records(*bodies: bytes, first_id: int = 1) -> bytes:
    """A piece of a log."""
    return b"".join(encode_record(first_id + n, 0, body) for n, body in enumerate(bodies))


class FetchCase(SynchronousTestCase):
    """
    One consumer.

    :ivar got: ids in the order of their delivery.
    """

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.got: list[Any] = []
        self.kept: list[ReceivedMessage] = []
        self.link: MemoryLink = None  # type: ignore[assignment]
        self.fetching: Fetching = None  # type: ignore[assignment]
        self.asked: list[Asked] = []

    def listen(self, message: ReceivedMessage) -> object:
        """A plain listener."""
        self.got.append(message.id)
        self.kept.append(message)
        return None

    def begin(
        self,
        *targets: FetchTarget,
        listener: Any = None,
        max_size: int = 1000,
        max_body: int = 5000,
        subscription: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Start fetching, by default ``t 0-1`` at offset 0; the broker is there."""
        config = ConsumerConfig(group="g", **settings)
        client = ClientConfig(broker="b:1", heartbeat_idle_ms=10**9)
        self.connections = Connections(self.runtime, client, self.runtime.log)
        self.rules = DeliveryRules(
            self.runtime,
            "g",
            self.runtime.log,
            config.max_fetch_retries,
            DuplicateCache(),
            lambda message: self.got.append(-message.id),
        )
        self.passed_over = PassedOverMessages(self.runtime, self.runtime.log)
        wanted = Subscription("t", max_size, listener or self.listen, **(subscription or {}))
        self.fetching = Fetching(
            self.runtime,
            self.connections,
            config,
            max_body,
            lambda position: PartitionDelivery(self.rules, wanted, position),
            self.runtime.log,
            self.passed_over,
            AssignmentNews(self.runtime, self.runtime.log, config, self.rules.calls),
        )
        self.position = Position("t", Partition(0, 1), 0)
        self.fetching.start(targets or [FetchTarget(self.position, URL)])
        self.link = self.runtime.accept("b:1")

    def requests(self) -> list[Asked]:
        """The requests since the last call."""
        return requests(self.link.take())

    def request(self) -> Asked:
        """The only request since the last call."""
        found = self.requests()
        self.assertEqual(1, len(found), found)
        return found[0]

    def value(self, asked: Asked, data: bytes) -> None:
        """Answer with a piece of the log."""
        self.link.receive(b"value %d %d\r\n%b" % (len(data), asked.opaque, data))
        self.runtime.advance(0)

    def result(self, asked: Asked, status: int, text: bytes = b"") -> None:
        """Answer with a status."""
        self.link.receive(b"result %d %d %d\r\n%b" % (status, len(text), asked.opaque, text))

    def pause(self) -> tuple[float, Asked]:
        """The seconds until the next request, to a tenth, and that request."""
        for step in range(640):
            found = self.requests()
            if found:
                self.assertEqual(1, len(found), found)
                return round(step / 64, 1), found[0]
            self.runtime.advance(1 / 64)
        raise AssertionError("nothing is asked for 10 s")

    def assertLogged(self, level: str, pattern: str) -> None:
        """Assert that a log line contains the text."""
        lines = self.runtime.log.texts(level)
        self.assertTrue(any(re.search(pattern, line) for line in lines), (pattern, lines))

    def assertNotLogged(self, *levels: str) -> None:
        """Assert that no line of these levels was logged."""
        self.assertEqual([], self.runtime.log.texts(*levels))
