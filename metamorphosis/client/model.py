"""
The values of the client: messages to be sent and their results, received messages, positions. Pure.

Source: ``SendResult``, ``TopicPartitionRegInfo``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from metamorphosis.client.messagefields import FieldsInPython
from metamorphosis.errors import ClientError, MetaQError
from metamorphosis.message import ATTRIBUTE_FLAG, split_body
from metamorphosis.native import compiled
from metamorphosis.partitions import Partition as Partition
from metamorphosis.partitions import StoredOffset as StoredOffset

ANY_PARTITION = Partition(-1, -1)
"""The partition in sends without ZooKeeper: the broker chooses."""


class OutgoingMessage(NamedTuple):
    """
    A message to be sent, as selectors and policies see it.

    :ivar attribute: None: without an attribute, which differs from an empty one.
    :ivar key: for selectors, which may hash it; it is not sent.
    """

    topic: str
    data: bytes
    attribute: str | None = None
    key: str | bytes | None = None


class LostMessage(NamedTuple):
    """
    A message that a one-way producer has lost.

    :ivar partition: its partition; ``ANY_PARTITION`` if none was chosen.
    :ivar reason: as in the log.
    """

    message: OutgoingMessage
    partition: Partition
    reason: str


class SendResult(NamedTuple):
    """
    The place of a stored message.

    :ivar message_id: given by the broker; negative from Java brokers of 1.4.5 and later.
    :ivar offset: bytes from the start of the partition; -1 inside a transaction.
    """

    message_id: int
    partition: Partition
    offset: int

    @property
    def is_stored(self) -> bool:
        """
        Whether a broker has acknowledged the message; otherwise it was sent one-way, or is kept on
        the local disk to be sent later.
        """
        return self.message_id != -1 or self.offset != -1


class MessagesFailed(ClientError):
    """
    Not all messages of a ``send_many`` were stored. Not ``retriable``: the same list would store
    some messages twice.

    :ivar outcomes: of each message, in order: its ``SendResult``, or the error that ``send`` would
        have had; its ``outcome_known`` shows whether this message may have been stored.
    :ivar failed: index in the list -> error, of the failed messages.
    :ivar outcome_known: False if a failed message may have been stored.
    """

    def __init__(self, outcomes: Sequence[SendResult | Exception]) -> None:
        self.outcomes = outcomes
        self.failed = {n: each for n, each in enumerate(outcomes) if isinstance(each, Exception)}
        unsure = [each for each in self.failed.values() if not getattr(each, "outcome_known", True)]
        self.outcome_known = not unsure
        first = min(self.failed)
        may = f", {len(unsure)} of which may have been stored" if unsure else ""
        super().__init__(
            f"{len(self.failed)} of {len(outcomes)} messages failed{may}; the first is"
            f" messages[{first}]: {self.failed[first]}"
        )
        self.__cause__ = self.failed[first]


@dataclass(slots=True)
class Position:
    """
    The position of a group in a partition; shared by the code that claims, delivers and commits.

    :ivar offset: of the next fetch, bytes from the start of the partition.
    :ivar message_id: of the last message before it; -1: unknown.
    :ivar modified: not committed yet.
    """

    topic: str
    partition: Partition
    offset: int
    message_id: int = -1
    modified: bool = False


class Lag(NamedTuple):
    """
    The lag of a group in a partition, by its offset store and by the broker. All offsets are bytes
    from the start of the partition.

    :ivar committed: the position of the group; None: not stored.
    :ivar message_id: of the last message before it; -1: unknown.
    :ivar begin: the first readable offset; None: see ``fault``.
    :ivar end: the offset of the next message; None: see ``fault``.
    :ivar fault: the reason why begin and end are unknown; None if they are known.
    """

    committed: int | None
    message_id: int
    begin: int | None
    end: int | None
    fault: MetaQError | None = None

    @property
    def bytes(self) -> int | None:
        """
        Unread bytes of the log, without messages that were deleted unread. Without a stored
        position: all bytes of the log. None: unknown.
        """
        if self.begin is None or self.end is None:
            return None
        return max(self.end - max(self.committed or 0, self.begin), 0)


class ConsumerCounts(NamedTuple):
    """
    What a consumer has done since it was made, for metrics.

    :ivar delivered: messages that listener, loop or ``poll`` got; again when one comes again.
    :ivar delivered_bytes: of the log, from the first to the last message of each piece.
    :ivar failed: failures of listeners and rollbacks.
    :ivar rejected: messages that failed too often and were put aside.
    :ivar repeated: messages that came again and were left out, because they had been processed.
    :ivar damaged: messages passed over because they could not be read.
    :ivar too_long: messages passed over because of their length.
    :ivar commits: writes of positions to the offset store.
    :ivar failed_commits: those of them that failed; they are repeated.
    """

    delivered: int
    delivered_bytes: int
    failed: int
    rejected: int
    repeated: int
    damaged: int
    too_long: int
    commits: int
    failed_commits: int


class FetchTarget(NamedTuple):
    """
    A partition to read, and its broker.

    :ivar url: ``meta://host:port``; None while no broker has the partition.
    """

    position: Position
    url: str | None


class PassedOver(NamedTuple):
    """
    A message that a consumer cannot deliver.

    :ivar offset: of its record.
    :ivar next_offset: of the next record.
    :ivar too_long: it is whole, but longer than this consumer accepts; otherwise it is damaged.
    :ivar reason: as in the log.
    """

    topic: str
    partition: Partition
    offset: int
    next_offset: int
    too_long: bool
    reason: str


if TYPE_CHECKING or compiled is None:
    MessageFields = FieldsInPython
else:
    MessageFields = compiled.MessageFields


class ReceivedMessage(MessageFields):
    """
    A received message. Immutable by convention.

    It shares the fetched piece of the log with its neighbours and copies its body only on access: a
    message that is kept for long keeps its whole piece in memory; keep ``data`` instead.

    :ivar offset: of its record, bytes from the start of the partition.
    :ivar id: given by the broker; negative from Java brokers of 1.4.5 and later.
    :ivar flag: as stored; bit 0: the body starts with an attribute.
    :ivar body: of the record, including the attribute.
    :ivar next_offset: of the next record.

    Source: ``Message``, ``MessageAccessor``.
    """

    __slots__ = ()

    def __init__(
        self,
        topic: str,
        partition: Partition,
        offset: int,
        id: int,
        flag: int,
        piece: bytes,
        start: int = 0,
        end: int | None = None,
    ) -> None:
        """
        :param piece: bytes of the log, or only the body.
        :param start: of the body in ``piece``.
        :param end: of the body in ``piece``; None: that of the piece.
        """
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.id = id
        self.flag = flag
        self._piece = piece
        self._start = start
        self._end = len(piece) if end is None else end

    @property
    def data(self) -> bytes:
        """The producer's data of the message."""
        if not self.flag & ATTRIBUTE_FLAG:
            return self.body
        return split_body(self.flag, self.body)[1]

    @property
    def attribute(self) -> str | None:
        """The attribute, or None; malformed UTF-8 turns into U+FFFD."""
        if not self.flag & ATTRIBUTE_FLAG:
            return None
        attribute, _ = split_body(self.flag, self.body)
        return None if attribute is None else attribute.decode("utf-8", "replace")

    def __reduce__(self) -> tuple[type[ReceivedMessage], tuple[object, ...]]:
        """Copies, and those in other processes, hold the body and not its whole piece."""
        return type(self), self._fields()

    def _fields(self) -> tuple[object, ...]:
        return (self.topic, self.partition, self.offset, self.id, self.flag, self.body)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ReceivedMessage):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((self.topic, self.partition, self.offset, self.id))

    def __repr__(self) -> str:
        body = self.body
        shown = f"{body[:32]!r}{'...' if len(body) > 32 else ''}"
        return (
            f"ReceivedMessage(topic={self.topic!r}, partition={str(self.partition)!r},"
            f" offset={self.offset}, id={self.id}, flag={self.flag}, body={shown})"
        )
