"""
A broker in memory. It decodes and answers the same bytes as the real one
(``tests/contract/test_broker.py`` tests both), without disk, ZooKeeper and network, and a test can
make its commands fail.

Transactions, replication and statistics are refused: such tests need ``twistd metaq``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count, cycle
from typing import Protocol

from metamorphosis.errors import (
    BadRequest,
    BrokerError,
    InternalServerError,
    Moved,
    NotFound,
    ProtocolError,
)
from metamorphosis.interfaces import Timer
from metamorphosis.message import checksum
from metamorphosis.testing.partition import MemoryPartition
from metamorphosis.wire import commands as wire
from metamorphosis.wire.decoding import CommandDecoder
from metamorphosis.wire.encoding import result, value_head

MAX_LINE_BYTES = 4096
MAX_BODY_BYTES = 64 << 20
END_OF_LOG = (1 << 63) - 1
ANY_PARTITION = -1


class Timers(Protocol):
    """The part of ``IRuntime`` for gets that wait at the end of a log."""

    def call_later(self, seconds: float, function: Callable[..., object], *args: object) -> Timer:
        """See ``IRuntime``."""


class MemoryBroker:
    """
    One broker and its messages.

    :param topics: topic -> number of partitions.
    :param url: its address, in error texts and in ZooKeeper.
    :param max_transfer_size: limit of the bytes that a get returns.
    :ivar partitions: (topic, partition) -> its log; created by the first put.
    :ivar commands: all commands of clients, in order.
    :ivar faults: called before each command; an error that it returns is the reply.
    """

    def __init__(
        self,
        topics: Mapping[str, int],
        broker_id: int = 0,
        url: str = "meta://broker0:8123",
        max_transfer_size: int = 1 << 20,
    ) -> None:
        self.topics = dict(topics)
        self.broker_id = broker_id
        self.url = url
        self.partitions: dict[tuple[str, int], MemoryPartition] = {}
        self.commands: list[wire.Command] = []
        self.faults: Callable[[wire.Command], BrokerError | None] = lambda command: None
        self._max_transfer_size = max_transfer_size
        self._ids = count(1)
        self._choice = {topic: cycle(range(number)) for topic, number in self.topics.items()}
        self._held: list[Held] = []

    # -- the test

    def append(self, topic: str, *bodies: bytes, partition: int = 0, flag: int = 0) -> None:
        """Store messages, as if from another producer; waiting consumers get them."""
        for body in bodies:
            self._store(topic, partition, flag, body)

    def bodies(self, topic: str) -> list[bytes]:
        """The bodies of all messages of a topic, by partition and offset."""
        found: list[bytes] = []
        for (name, _), partition in sorted(self.partitions.items()):
            if name == topic:
                found += partition.bodies()
        return found

    def connect(self, timers: Timers, send: Callable[[bytes], None]) -> Conversation:
        """
        A client's connection.

        :param send: takes the bytes of replies.
        """
        return Conversation(self, timers, send)

    # -- connections

    def answer(self, command: wire.Command, conversation: Conversation) -> None:
        """Answer a command, at once or when there is a message to read."""
        self.commands.append(command)
        try:
            fault = self.faults(command)
            if fault is not None:
                raise fault
            conversation.send(self._reply(command))
        except NotFound as error:
            if isinstance(command, wire.GetCommand) and _may_wait(command):
                self._held.append(Held(command, conversation, self._release))
            else:
                conversation.refuse(command, error)
        except BrokerError as error:
            conversation.refuse(command, error)

    def forget(self, conversation: Conversation) -> None:
        """Drop the waiting gets of a closed connection."""
        for held in [each for each in self._held if each.conversation is conversation]:
            held.timer.cancel()
            self._held.remove(held)

    def _release(self, held: Held) -> None:
        """Answer a held get from the present log."""
        held.timer.cancel()
        self._held.remove(held)
        try:
            held.conversation.send(self._reply(held.command))
        except BrokerError as error:
            held.conversation.refuse(held.command, error)

    def _reply(self, command: wire.Command) -> bytes:
        match command:
            case wire.PutCommand():
                return self._put(command)
            case wire.GetCommand():
                piece = self._get(command)
                return value_head(len(piece), command.opaque) + piece
            case wire.OffsetCommand():
                place = self._partition(command.topic, command.partition).nearest(command.offset)
                return result(200, command.opaque, b"%d" % place)
            case wire.VersionCommand():
                return result(200, command.opaque, b"1.4.6.2")
        raise InternalServerError(f"{type(command).__name__} needs a real broker")

    def _put(self, command: wire.PutCommand) -> bytes:
        topic, number = command.topic, command.partition
        if command.transaction_id is not None:
            raise InternalServerError("a transaction needs a real broker")
        if topic not in self.topics:
            number = 0 if number == ANY_PARTITION else number
            raise self._failed(topic, number, f"The server do not accept topic {topic}")
        if number == ANY_PARTITION:
            number = next(self._choice[topic])
        if not 0 <= number < self.topics[topic]:
            raise self._failed(topic, number, f"wrong partition {number}")
        # as with the real broker, the log exists from here on, even if the message is refused
        self.partitions.setdefault((topic, number), MemoryPartition())
        if command.checksum not in (wire.NO_CHECKSUM, checksum(command.body)):
            text = "Checksum failure,message may be corrupted when transfering on networking."
            raise self._failed(topic, number, text)
        message_id, offset = self._store(topic, number, command.flag, command.body)
        return result(200, command.opaque, b"%d %d %d" % (message_id, number, offset))

    def _store(self, topic: str, number: int, flag: int, body: bytes) -> tuple[int, int]:
        partition = self.partitions.setdefault((topic, number), MemoryPartition())
        message_id, offset = next(self._ids), partition.end
        partition.append(body, first_id=message_id, flag=flag)
        for held in list(self._held):
            if (held.command.topic, held.command.partition) == (topic, number):
                self._release(held)
        return message_id, offset

    def _get(self, command: wire.GetCommand) -> bytes:
        partition = self._partition(command.topic, command.partition)
        if command.max_size <= 0:
            raise BadRequest(f"Bad request,invalid max size:{command.max_size}")
        if command.offset == END_OF_LOG:
            raise Moved(str(partition.end))
        return partition.read(command.offset, min(command.max_size, self._max_transfer_size))

    def _partition(self, topic: str, number: int) -> MemoryPartition:
        try:
            return self.partitions[topic, number]
        except KeyError:
            text = f"The topic `{topic}` in partition `{number}` is not exists"
            raise NotFound(text) from None

    def _failed(self, topic: str, number: int, detail: str) -> BrokerError:
        place = f"[broker '{self.url}'] [partition '{topic}-{number}']"
        return InternalServerError(f"Put message to {place} failed.Detail:{detail}")


class Held:
    """A get that waits for a message."""

    def __init__(
        self,
        command: wire.GetCommand,
        conversation: Conversation,
        release: Callable[[Held], None],
    ) -> None:
        self.command = command
        self.conversation = conversation
        self.timer = conversation.timers.call_later(command.wait_ms / 1000, release, self)


def _may_wait(command: wire.GetCommand) -> bool:
    return bool(command.wait_ms) and command.offset != END_OF_LOG


class Conversation:
    """
    The broker's end of a connection.

    :ivar closed: the client has quit or sent invalid bytes, or the connection has ended.
    """

    def __init__(self, broker: MemoryBroker, timers: Timers, send: Callable[[bytes], None]) -> None:
        self.timers = timers
        self.closed = False
        self._broker = broker
        self._send = send
        self._decoder = CommandDecoder(MAX_LINE_BYTES, MAX_BODY_BYTES)

    def receive(self, data: bytes) -> None:
        """Take bytes of the client, in pieces of any size."""
        try:
            for command in self._decoder.receive(data):
                if isinstance(command, wire.QuitCommand):
                    self.close()
                    return
                self._broker.answer(command, self)
        except ProtocolError:
            self.close()

    def send(self, reply: bytes) -> None:
        """Send a reply, unless the connection is closed."""
        if not self.closed:
            self._send(reply)

    def refuse(self, command: wire.Command, error: BrokerError) -> None:
        """Reply with an error."""
        self.send(result(error.status, getattr(command, "opaque", 0), str(error)))

    def close(self) -> None:
        """End the connection; no more replies are sent."""
        self.closed = True
        self._broker.forget(self)
