"""
A cluster for tests of producers: brokers that register in a ZooKeeper in memory, and a session
factory whose connections end in the test.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.producer.producer import Producer
from metamorphosis.client.producer.publisher import Publisher
from metamorphosis.client.settings import ClientConfig
from metamorphosis.cluster.model import TopicBroker
from metamorphosis.testing.registry import MemoryRegistry
from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime
from metamorphosis.wire.commands import PutCommand, StatsCommand
from metamorphosis.wire.decoding import CommandDecoder

PUB = "/meta/brokers/topics-pub"


class ProducingCase(SynchronousTestCase):
    """
    No broker, ZooKeeper reachable, a session factory that has been started.

    Broker n listens at ``host<n>:8123``.
    """

    direct = False

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.futures: list[Deferred[Any]] = []  # of sends
        self.tree = self.runtime.tree
        self.registry = MemoryRegistry(self.tree)
        self.registry.resume()
        if self.direct:
            config = self.config(zookeeper=None, broker="host0:8123")
            self.session = SessionFactory(self.runtime, config)
        else:
            self.session = SessionFactory(self.runtime, self.config(), self.registry)
            self.registry.start()
        self.addCleanup(self.close)

    def config(self, **settings: Any) -> ClientConfig:
        """Of the session factory; idle connections are left in peace."""
        paths = {
            name: self.mktemp()
            for name in ("recover_path", "local_message_path", "async_storage_path")
        }
        usual = {"zookeeper": "zk:2181", "heartbeat_idle_ms": 1_000_000_000}
        return ClientConfig(**{**usual, **paths, **settings})

    def close(self) -> None:
        """
        End the factory; nothing may be left that the clock would call. Sends that a test does not
        look at may fail now.
        """
        for future in self.futures:
            future.addErrback(lambda _: None)
        for link in self.runtime.links:
            link.lose()
        closed = self.session.close()
        self.runtime.advance(10)
        self.runtime.result(closed)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    # -- brokers

    def register(self, broker_id: int, topic: str = "test", partitions: int = 1) -> None:
        """Register a master, or a further topic of it."""
        master = f"/meta/brokers/ids/{broker_id}/master"
        if master not in self.tree.nodes:
            self.tree.create(master, f"meta://host{broker_id}:8123".encode(), 1)
        node = f"{broker_id}-m"
        self.tree.create(f"{PUB}/{topic}/{node}", TopicBroker(partitions, node).encode(), 1)
        self.runtime.turn()

    def unregister(self, broker_id: int, *topics: str) -> None:
        """Unregister a master, as in a clean stop."""
        self.tree.delete(f"/meta/brokers/ids/{broker_id}/master")
        for topic in topics or ("test",):
            self.tree.delete(f"{PUB}/{topic}/{broker_id}-m")
        self.runtime.turn()

    def end(self, broker_id: int, *topics: str) -> None:
        """Unregister a master and close its connections."""
        self.unregister(broker_id, *topics)
        self.link(broker_id).lose()

    def link(self, broker_id: int = 0) -> MemoryLink:
        """The latest connection to a broker, accepted if need be."""
        address = f"host{broker_id}:8123"
        if any(repr(attempt) == address for attempt in self.runtime.attempts):
            return self.runtime.accept(address)
        return self.runtime.link_to(address)

    # -- producers

    def producer(self, *topics: str, **options: Any) -> Producer:
        """One that has published the topics; connections to their brokers are accepted."""
        producer = Producer(self.session, **options)
        producer._create_future = self._noted
        self.publish(producer, *topics)
        return producer

    def publish(self, producer: Publisher, *topics: str) -> None:
        """Publish, with every broker accepting connections."""
        for topic in topics:
            published = producer.publish(topic)
            while self.runtime.attempts:
                self.runtime.accept()
            self.runtime.result(published)

    def _noted(self) -> Deferred[Any]:
        self.futures.append(Deferred())
        return self.futures[-1]

    def puts(self, broker_id: int = 0) -> list[PutCommand]:
        """The puts that a broker has got since."""
        return [each for each in self.commands(broker_id) if isinstance(each, PutCommand)]

    def commands(self, broker_id: int = 0) -> list[object]:
        """All commands that a broker has received since the last call."""
        return list(CommandDecoder(1 << 12, 1 << 30).receive(self.link(broker_id).take()))

    def say_order(self, command: object, at: int = 0) -> None:
        """Answer, as a broker of ours does, whether requests are executed in their order."""
        if isinstance(command, StatsCommand):
            body = b"STATS\r\nrole master\r\nstate running\r\nEND\r\n"
            self.link(at).receive(b"result 200 %d %d\r\n%b" % (len(body), command.opaque, body))

    def answer(
        self, put: PutCommand, status: int = 200, text: str | None = None, at: int = 0
    ) -> None:
        """Answer one; successes get the partition that was asked for, id 1 and offset 0."""
        if text is None:
            text = f"1 {max(put.partition, 0)} 0"
        body = text.encode()
        self.link(at).receive(b"result %d %d %d\r\n%b" % (status, len(body), put.opaque, body))
