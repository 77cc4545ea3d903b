"""
What producers were promised and consumers were given, and the judge of both: against the log as the
brokers serve it at the end, read without the client.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from zope.interface import implementer

from metamorphosis.client.delivery.recovery import RecoveredMessage
from metamorphosis.client.model import Partition, ReceivedMessage, StoredOffset
from metamorphosis.errors import InvalidState, MetaQError
from metamorphosis.interfaces import IOffsetStore
from tests.faults.kills import HEADER, check, stored_log
from tests.faults.peer import Peer, get
from tests.support.broker import BrokerProcess

Key = tuple[str, Partition]

FLUSH_SECONDS = 20.0
"""Seconds after which a broker has flushed a put; 10 by default."""


class Event(NamedTuple):
    """
    Something that a group did.

    :ivar what: ``processed``, ``committed``.
    """

    what: str
    group: str
    key: Key
    offset: int


class Given(NamedTuple):
    """A message that a listener got; ``reading`` is the same until partitions change hands."""

    reading: object
    key: Key
    offset: int


class Ledger:
    """
    :ivar sent: value -> how often it may be stored: once, and once more for each attempt whose
        outcome nobody knows.
    :ivar acknowledged: value -> where it is, the broker said.
    :ivar events: of all groups, in order.
    :ivar given: reader -> what it got, in order.
    :ivar values: group -> what it got -> how often.
    :ivar damaged: values that the tests themselves made unreadable.
    :ivar passed_over: values that groups need not process, as the documentation says: too large,
        refused by a filter that failed, rejected.
    """

    def __init__(self) -> None:
        self.sent: dict[bytes, int] = {}
        self.acknowledged: dict[bytes, tuple[Key, int]] = {}
        self.events: list[Event] = []
        self.given: dict[str, list[Given]] = {}
        self.values: dict[str, Counter[bytes]] = {}
        self.damaged: set[bytes] = set()
        self.passed_over: set[bytes] = set()
        self.errors: Counter[str] = Counter()
        self._failed: set[tuple[str, Key, int]] = set()

    # -- producers

    async def try_to_send(self, producer: Any, topic: str, value: bytes, retries: int = 0) -> Any:
        """
        One call of ``send``: its result, or the error.

        :param retries: of the producer.
        """
        self.sent[value] = self.sent.get(value, 0) + 1 + retries
        try:
            result = await producer.send(topic, value)
        except MetaQError as error:
            self.errors[type(error).__name__] += 1
            if getattr(error, "outcome_known", False) and not retries:
                self.sent[value] -= 1
            return error
        broker_id, number = result.partition  # the id of the only broker is not known: -1
        place = topic, Partition(max(broker_id, 0), number)
        self.acknowledged[value] = place, result.offset
        return result

    async def send(
        self,
        producer: Any,
        topic: str,
        value: bytes,
        sleep: Callable[[float], Awaitable[object]],
        retries: int = 0,
    ) -> None:
        """Call ``send`` until the message is stored, as users do."""
        while True:
            result = await self.try_to_send(producer, topic, value, retries)
            if not isinstance(result, Exception):
                return
            check(getattr(result, "retriable", False), f"{value!r}: final error {result!r}")
            await sleep(0.1)

    # -- consumers

    def got(self, reader: str, group: str, reading: object, message: ReceivedMessage) -> None:
        """A listener is called."""
        key = message.topic, message.partition
        self.given.setdefault(reader, []).append(Given(reading, key, message.offset))
        self.values.setdefault(group, Counter())[message.data] += 1

    def processed(self, group: str, message: ReceivedMessage) -> None:
        """The listener finished it."""
        key = message.topic, message.partition
        self.events.append(Event("processed", group, key, message.offset))

    def failed(self, reader: str, message: ReceivedMessage) -> None:
        """The listener failed it: it may come again."""
        self._failed.add((reader, (message.topic, message.partition), message.offset))

    # -- the judgement

    def judge(self, logs: dict[Key, list[tuple[int, bytes]]]) -> None:
        """
        :raises AssertionError: something was lost, made up, or done in the wrong order.
        """
        self._judge_logs(logs)
        for group in self.values:
            self._judge_group(group, logs)
        self._judge_order()
        self._judge_commits(logs)

    def _judge_logs(self, logs: dict[Key, list[tuple[int, bytes]]]) -> None:
        places: dict[bytes, list[tuple[Key, int]]] = {}
        for key, log in logs.items():
            for offset, value in log:
                places.setdefault(value, []).append((key, offset))
        for value, found in places.items():
            check(value in self.sent, f"{value!r} was never sent, and is at {found}")
            most = max(self.sent[value], 1)
            check(len(found) <= most, f"{value!r} is at {found}, sent {most} times at most")
        for value, place in self.acknowledged.items():
            if value not in self.damaged:
                check(place in places.get(value, []), f"{value!r} is lost, promised at {place}")

    def _judge_group(self, group: str, logs: dict[Key, list[tuple[int, bytes]]]) -> None:
        got = self.values[group]
        stored = {value for log in logs.values() for _, value in log}
        lost = stored - set(got) - self.passed_over
        check(not lost, f"group {group} never got {len(lost)}: {sorted(lost)[:5]}")
        strange = set(got) - stored - self.damaged
        check(not strange, f"group {group} got what is not stored: {sorted(strange)[:5]}")

    def _judge_order(self) -> None:
        for reader, given in self.given.items():
            last: dict[tuple[object, Key], int] = {}
            for reading, key, offset in given:
                before = last.get((reading, key), -1)
                again = (reader, key, offset) in self._failed
                check(offset > before or again, f"{reader}, {key}: {offset} after {before}")
                last[reading, key] = offset

    def _judge_commits(self, logs: dict[Key, list[tuple[int, bytes]]]) -> None:
        """No commit lies after a message that no member of the group had processed by then."""
        done: dict[tuple[str, Key], set[int]] = {}
        frontier: dict[tuple[str, Key], int] = {}  # index of the first message not processed
        for event in self.events:
            place = event.group, event.key
            log = logs.get(event.key, [])
            seen = done.setdefault(place, set())
            if event.what == "processed":
                seen.add(event.offset)
                continue
            index = frontier.get(place, 0)
            while index < len(log) and (log[index][0] in seen or log[index][1] in self.passed_over):
                index += 1
            frontier[place] = index
            first = log[index][0] if index < len(log) else event.offset
            check(event.offset <= first, f"{event}, but {first} had not been processed")


@implementer(IOffsetStore)
class WatchedStore:
    """
    A store whose commits are written into the ledger.

    :param store: which does the work; its methods may be plain.
    """

    def __init__(self, ledger: Ledger, store: Any) -> None:
        self._ledger = ledger
        self._store = store

    def load(self, topic: str, group: str, partition: Partition) -> Any:
        """See ``IOffsetStore``."""
        return self._store.load(topic, group, partition)

    def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> Any:
        """See ``IOffsetStore``."""
        return self._store.initialise(topic, group, partition, offset)

    def commit(self, group: str, offsets: Sequence[StoredOffset]) -> Any:
        """See ``IOffsetStore``; a commit that fails may have been done."""
        for each in offsets:
            key = each.topic, each.partition
            self._ledger.events.append(Event("committed", group, key, each.offset))
        return self._store.commit(group, offsets)

    def close(self) -> Any:
        """See ``IOffsetStore``."""
        return self._store.close()


class Reader:
    """
    A consumer whose messages go into the ledger.

    :param behave: called with each message before it counts as processed; may raise, or return
        something to wait for.
    """

    def __init__(
        self,
        ledger: Ledger,
        consumer: Any,
        name: str,
        behave: Callable[[ReceivedMessage], Any] = lambda message: None,
    ) -> None:
        self.consumer = consumer
        self.name = name
        self._ledger = ledger
        self._behave = behave

    def subscribe(self, topics: Iterable[str], **options: Any) -> None:
        """To all of these."""
        listener = self.listen_to_batch if options.get("batch") else self.listen
        for topic in topics:
            self.consumer.subscribe(topic, listener=listener, **options)

    async def listen_to_batch(self, messages: list[ReceivedMessage]) -> None:
        """The listener for lists; a failure is one of all of them."""
        for message in messages:
            self._got(message)
        try:
            for message in messages:
                result = self._behave(message)
                if result is not None:
                    await result
        except Exception:
            for message in messages:
                self._ledger.failed(self.name, message)
            raise
        for message in messages:
            self._ledger.processed(self.consumer.group, message)

    async def iterate(self) -> None:
        """``async for`` until the consumer is closed; failing messages are rolled back."""
        async for message in self.consumer:
            self._got(message)
            try:
                result = self._behave(message)
                if result is not None:
                    await result
            except Exception:
                self._ledger.failed(self.name, message)
                with contextlib.suppress(InvalidState):  # somebody else's by now
                    self.consumer.rollback(message)
                continue
            self._ledger.processed(self.consumer.group, message)

    def _got(self, message: ReceivedMessage) -> None:
        # what the deliveries of one claim share, and those of the next do not; what was rejected
        # and kept comes outside of any order
        reading: object = message
        if not isinstance(message, RecoveredMessage):
            reading = self.consumer._delivery_of(message.topic, message.partition)
        self._ledger.got(self.name, self.consumer.group, reading, message)

    def listen(self, message: ReceivedMessage) -> Any:
        """The listener for one."""
        self._got(message)
        try:
            result = self._behave(message)
        except Exception:
            self._ledger.failed(self.name, message)
            raise
        if result is not None:
            return self._finish(message, result)
        self._ledger.processed(self.consumer.group, message)
        return None

    async def _finish(self, message: ReceivedMessage, result: Any) -> None:
        try:
            await result
        except Exception:
            self._ledger.failed(self.name, message)
            raise
        self._ledger.processed(self.consumer.group, message)


def read_logs(
    broker: BrokerProcess, broker_id: int, topics: Iterable[str], partitions: int
) -> dict[Key, list[tuple[int, bytes]]]:
    """
    Everything a broker stores, and serves from offset 0 on: offset and value of every good message,
    by partition. Nobody puts anything meanwhile.
    """
    logs: dict[Key, list[tuple[int, bytes]]] = {}
    with Peer(broker.port) as peer:
        for topic in topics:
            for number in range(partitions):
                directory = os.path.join(broker.data, f"{topic}-{number}")
                stored = b"".join(stored_log(directory)) if os.path.isdir(directory) else b""
                same = stored == served(peer, topic, number, len(stored))
                check(same, f"{directory} is not served")
                logs[topic, Partition(broker_id, number)] = list(good_messages(stored))
    return logs


def served(peer: Peer, topic: str, number: int, size: int) -> bytes:
    """So many bytes from the beginning of a partition; the last of them may not be flushed yet."""
    log = b""
    deadline = time.monotonic() + FLUSH_SECONDS
    while len(log) < size and time.monotonic() < deadline:
        reply = peer.ask(get(topic, number, len(log), 1 << 20, 7))
        if reply.status == 0:
            log += reply.body
        else:
            time.sleep(0.05)
    return log


def good_messages(log: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and value, but of those whose checksum is wrong."""
    offset = 0
    while offset < len(log):
        length, checksum, _, _ = HEADER.unpack_from(log, offset)
        body = log[offset + HEADER.size : offset + HEADER.size + length]
        check(0 <= length == len(body), f"no record at {offset}: length {length}")
        if zlib.crc32(body) & 0x7FFFFFFF == checksum:
            yield offset, body
        offset += HEADER.size + length


def flip(directory: str, offset: int) -> None:
    """Flip the bits of one byte of a partition's log. Its broker must not run."""
    starts = sorted(int(name[:-5]) for name in os.listdir(directory) if name.endswith(".meta"))
    start = max(each for each in starts if each <= offset)
    with open(os.path.join(directory, f"{start:020}.meta"), "r+b") as file:
        file.seek(offset - start)
        byte = file.read(1)
        file.seek(offset - start)
        file.write(bytes([byte[0] ^ 0xFF]))
