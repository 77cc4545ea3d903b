"""
A cluster without network for commands of ``metaq``: ZooKeeper and time are those of
``MemoryRuntime``, brokers answer from a dictionary, producers and consumers note what they are
asked for.
"""

from __future__ import annotations

import io
import json
from argparse import Namespace
from collections import deque
from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import Deferred

from metamorphosis.broker.figures import PLAIN
from metamorphosis.cli.console import Console
from metamorphosis.cli.main import execute
from metamorphosis.cli.options import parse
from metamorphosis.client.fetch.passing import PassedOverMessages
from metamorphosis.client.model import Partition, SendResult
from metamorphosis.client.network.replies import NOT_SENT, SUCCESS, VALUE
from metamorphosis.client.settings import ClientConfig
from metamorphosis.cluster.model import ConnectionFault
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import ClientClosed, InvalidArgument, MetaQError, NotFound
from metamorphosis.testing.registry import MemoryRegistry
from metamorphosis.testing.runtime import MemoryLog, MemoryRuntime
from metamorphosis.wire.commands import GetCommand, OffsetCommand, StatsCommand


class FakeBroker:
    """
    Answers as a broker with these partitions.

    :ivar ranges: (topic, partition) -> first and last offset.
    :ivar log: what a get finds, by topic, partition and offset.
    :ivar counts: topic -> messages and bytes.
    :ivar away: does not answer.
    :ivar replication: the lines of ``stats replication``.
    :ivar figures: those of ``stats``.
    """

    def __init__(self) -> None:
        self.ranges: dict[tuple[str, int], tuple[int, int]] = {}
        self.log: dict[tuple[str, int, int], bytes] = {}
        self.counts: dict[str, tuple[int, int]] = {}
        self.away = False
        self.replication = list(PLAIN)
        self.figures = ["pid 7", "slave false", "version 1.4.6.2"]

    def reached(self, timeout: float, patience: float) -> Awaitable[bool]:
        """See ``BrokerConnection``."""
        return _done(not self.away)

    @property
    def fault(self) -> ConnectionFault | None:
        """See ``BrokerConnection``."""
        return ConnectionFault("Connection refused") if self.away else None

    def call(self, command: Any, timeout: float) -> Awaitable[tuple[int, bytes]]:
        """See ``BrokerConnection``."""
        return _done((NOT_SENT, b"") if self.away else self._answer(command))

    def _answer(self, command: Any) -> tuple[int, bytes]:
        if isinstance(command, StatsCommand):
            lines = {
                "": lambda: self.figures,
                "offsets": self._offsets,
                "topics": self._topics,
                "replication": lambda: self.replication,
            }
            return SUCCESS, "\r\n".join(["STATS", *lines[command.item or ""](), "END", ""]).encode()
        if isinstance(command, OffsetCommand):
            found = self.ranges.get((command.topic, command.partition))
            return (404, b"no store") if found is None else (SUCCESS, b"%d" % found[1])
        assert isinstance(command, GetCommand)
        return VALUE, self.log[command.topic, command.partition, command.offset]

    def _offsets(self) -> list[str]:
        return [
            f"{topic} part {part} min_offset {low} max_offset {high}"
            for (topic, part), (low, high) in self.ranges.items()
        ]

    def _topics(self) -> list[str]:
        tail = "accept_publish true accept_subscribe true"
        return [
            f"{topic} partitions 1 message_count {count} message_bytes {size} {tail}"
            for topic, (count, size) in self.counts.items()
        ] + ["empty *Empty*", "wild* *Empty*"]


class FakeProducer:
    """
    Notes what is sent; sends wait for ``answer``, unless ``auto``.

    :ivar sent: topic, body, attribute, partition.
    :ivar keys: of the same messages.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, str | None, Partition | None]] = []
        self.keys: list[str | bytes | None] = []
        self.waiting: deque[Deferred[SendResult]] = deque()
        self.auto = True
        self.options: dict[str, object] = {}
        self.fail_at: dict[int, Exception] = {}
        self.ends: list[tuple[str, list[bytes]]] = []  # of transactions
        self.commit_errors: dict[int, Exception] = {}

    def transaction(self) -> FakeTransaction:
        """See ``Producer``."""
        return FakeTransaction(self)

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
    ) -> Deferred[SendResult]:
        """See ``Producer``."""
        self.keys.append(key)
        self.sent.append((topic, data, attribute, partition))
        future: Deferred[SendResult] = Deferred()
        error = self.fail_at.get(len(self.sent))
        if error is not None:
            future.errback(error)
        elif self.auto:
            future.callback(SendResult(1, Partition(0, 0), 0))
        else:
            self.waiting.append(future)
        return future

    def answer(self, error: Exception | None = None) -> None:
        """The oldest send that waits is stored, or not."""
        future = self.waiting.popleft()
        if error is None:
            future.callback(SendResult(1, Partition(0, 0), 0))
        else:
            future.errback(error)

    @property
    def bodies(self) -> list[bytes]:
        """What was sent."""
        return [body for _, body, _, _ in self.sent]


class FakeTransaction:
    """Takes the sends of a ``FakeProducer``, which notes how it ended and what it had."""

    def __init__(self, producer: FakeProducer) -> None:
        self._producer = producer
        self._first = len(producer.sent)

    def send(self, *args: Any, **options: Any) -> Deferred[SendResult]:
        """See ``Transaction``."""
        return self._producer.send(*args, **options)

    def commit(self) -> Deferred[None]:
        """See ``Transaction``."""
        self._end("commit")
        future: Deferred[None] = Deferred()
        error = self._producer.commit_errors.get(len(self._producer.ends))
        if error is None:
            future.callback(None)
        else:
            future.errback(error)
        return future

    def close(self) -> Deferred[None]:
        """See ``Transaction``."""
        self._end("rollback")
        return _done(None)

    def _end(self, how: str) -> None:
        self._producer.ends.append((how, self._producer.bodies[self._first :]))


class FakeConsumer:
    """Gives the test the listener of its one subscription."""

    def __init__(self, group: str, store: Any) -> None:
        self.group = group
        self.store = store
        self.listener: Any = None
        self.topic = ""
        self.join_error: Exception | None = None
        self.joining: Deferred[None] | None = None
        self.closed = False
        self.asked_at: list[int] = []
        self.times: dict[Partition, int] = {}
        self.passed_over = PassedOverMessages(MemoryRuntime(), MemoryLog())
        self.assignment: dict[tuple[str, Partition], Any] = {}

    def subscribe(self, topic: str, max_size: int, listener: Any, *, batch: bool = False) -> None:
        """See ``Consumer``."""
        assert batch
        self.topic, self.listener = topic, listener

    def on_rejection(self, strategy: Any) -> None:
        """See ``Consumer``."""
        self.reject = strategy

    def complete_subscribe(self) -> Deferred[None]:
        """See ``Consumer``."""
        future: Deferred[None] = Deferred()
        if self.joining is not None:
            return self.joining
        if self.join_error is None:
            future.callback(None)
        else:
            future.errback(self.join_error)
        return future

    def offset_at(self, topic: str, partition: Partition, milliseconds: int) -> Deferred[int]:
        """See ``Consumer``."""
        self.asked_at.append(milliseconds)
        found: Deferred[int] = Deferred()
        if partition in self.times:
            found.callback(self.times[partition])
        else:
            found.errback(NotFound(404, "no store", "b:1"))
        return found

    def close(self) -> Deferred[None]:
        """See ``Consumer``."""
        joining, self.joining = self.joining, None
        if joining is not None:
            joining.errback(ClientClosed("closed"))
        self.closed = True
        return _done(None)


class FakeSession:
    """A session factory, and its own connections."""

    def __init__(self, runtime: MemoryRuntime, direct: bool) -> None:
        self.runtime = runtime
        self.registry = None if direct else MemoryRegistry(runtime.tree)
        self.paths = Paths()
        where = {"broker": "b:1"} if direct else {"zookeeper": "z:1"}
        self.config = ClientConfig(**where)  # type: ignore[arg-type]
        self.connections = self
        self.brokers = {"meta://b:1": FakeBroker()}
        self.producer = FakeProducer()
        self.consumers: list[FakeConsumer] = []
        self.join_error: Exception | None = None
        self.joining: Deferred[None] | None = None
        self.start_error: Exception | None = None
        self.starting: Deferred[None] | None = None
        self.closed = False
        if self.registry is not None:
            runtime.result(self.registry.start())
            for path in ("ids", "topics-pub", "topics-sub"):
                self.node(f"brokers/{path}")

    def acquire(self, url: str, user: object) -> FakeBroker:
        """See ``Connections``."""
        return self.brokers[url]

    def release(self, url: str, user: object) -> None:
        """See ``Connections``."""

    def start(self) -> Deferred[None]:
        """See ``SessionFactory``."""
        if self.starting is not None:
            return self.starting
        future: Deferred[None] = Deferred()
        if self.start_error is None:
            future.callback(None)
        else:
            future.errback(self.start_error)
        return future

    def close(self) -> Deferred[None]:
        """See ``SessionFactory``."""
        self.closed = True
        starting, self.starting = self.starting, None
        if starting is not None:
            starting.errback(MetaQError("closed"))
        return _done(None)

    def create_producer(self, topic: str, **options: object) -> Deferred[FakeProducer]:
        """See ``SessionFactory``."""
        self.producer.options = {"topic": topic, **options}
        return _done(self.producer)

    def create_consumer(self, group: str, store: Any = None, **settings: Any) -> FakeConsumer:
        """See ``SessionFactory``."""
        if "/" in group:
            raise InvalidArgument(f"group {group}")
        consumer = FakeConsumer(group, store)
        consumer.join_error = self.join_error
        consumer.joining = self.joining
        self.consumers.append(consumer)
        return consumer

    def get_partitions_for_topic(self, topic: str) -> Deferred[list[Partition]]:
        """See ``SessionFactory``."""
        return _done([Partition(0, 0), Partition(0, 1), Partition(1, 0)])

    def node(self, path: str, data: str = "") -> None:
        """Something stands in ZooKeeper."""
        assert self.registry is not None
        self.runtime.result(self.registry.create(f"/meta/{path}", data.encode(), False))

    def write(self, path: str, data: str) -> None:
        """Another process writes it."""
        assert self.registry is not None
        self.runtime.result(self.registry.set_data(f"/meta/{path}", data.encode()))

    def data(self, path: str) -> str:
        """What stands there now."""
        assert self.registry is not None
        data, _ = self.runtime.result(self.registry.get(f"/meta/{path}"))
        return str(data.decode())

    def master(self, broker_id: int, **partitions: int) -> FakeBroker:
        """A broker has registered, with so many partitions of each topic."""
        url = f"meta://b:{broker_id + 1}"
        self.node(f"brokers/ids/{broker_id}/master", url)
        for topic, count in partitions.items():
            value = json.dumps({"numParts": count, "broker": f"{broker_id}-m"})
            for kind in ("pub", "sub"):
                self.node(f"brokers/topics-{kind}/{topic}/{broker_id}-m", value)
        broker = self.brokers[url] = FakeBroker()
        return broker


class Run:
    """
    One run of ``metaq``.

    :param arguments: the command line but for where the cluster is.
    :param chunks: what standard input brings; an ``OSError`` is raised.
    :param interactive: standard error is a terminal.
    """

    def __init__(
        self,
        arguments: str,
        *chunks: bytes | OSError,
        direct: bool = False,
        interactive: bool = False,
    ) -> None:
        where = ["--broker", "b:1"] if direct else ["--zookeeper", "z:1"]
        self.options: Namespace = parse([*arguments.split(), *where])
        self.runtime = MemoryRuntime()
        self.session = FakeSession(self.runtime, direct)
        if self.options.command == "produce" and not direct:
            self.session.node("brokers/topics-sub/t/9-m")
        self.output = b""
        self.output_error: OSError | None = None
        self.errors = io.StringIO()
        self.chunks = deque(chunks)
        self.console = Console(
            self.runtime, self._read, self._write, self.errors, interactive=interactive
        )
        self._status: Deferred[int] | None = None

    def start(self) -> Run:
        """Begin."""
        self._status = self.runtime.start(execute(self.session, self.console, self.options))
        self.runtime.turn()
        return self

    @property
    def status(self) -> int:
        """The exit status."""
        assert self._status is not None
        status: int = self.runtime.result(self._status)
        assert self.session.closed
        return status

    @property
    def said(self) -> str:
        """Standard error."""
        return self.errors.getvalue()

    @property
    def text(self) -> str:
        """Standard output."""
        return self.output.decode()

    def _read(self) -> bytes:
        chunk = self.chunks.popleft() if self.chunks else b""
        if isinstance(chunk, OSError):
            raise chunk
        return chunk

    def _write(self, data: bytes) -> None:
        if self.output_error is not None:
            raise self.output_error
        self.output += data


def _done(value: Any) -> Deferred[Any]:
    future: Deferred[Any] = Deferred()
    future.callback(value)
    return future
