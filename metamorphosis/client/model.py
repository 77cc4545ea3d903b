"""
The values of the client: messages to be sent and their results, received messages, positions. Pure.

Source: ``SendResult``, ``TopicPartitionRegInfo``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from metamorphosis.errors import ClientError, MetaQError
from metamorphosis.message import ATTRIBUTE_FLAG, HEADER_BYTES, split_body
from metamorphosis.partitions import Partition as Partition
from metamorphosis.partitions import StoredOffset as StoredOffset

ANY_PARTITION = Partition(-1, -1)
"""The broker chooses: the partition in the sends of a producer without ZooKeeper."""


class OutgoingMessage(NamedTuple):
    """
    A message to be sent, as selectors and policies see it.

    :ivar attribute: None sends none, which is not the same as an empty one.
    :ivar key: for selectors, which may hash it; it is not sent.
    """

    topic: str
    data: bytes
    attribute: str | None = None
    key: str | bytes | None = None


class LostMessage(NamedTuple):
    """
    A message that a one-way producer has lost.

    :ivar partition: where it should go; ``ANY_PARTITION`` if none was chosen.
    :ivar reason: as in the log.
    """

    message: OutgoingMessage
    partition: Partition
    reason: str


class SendResult(NamedTuple):
    """
    Where a message was stored.

    :ivar message_id: given by the broker; negative from Java brokers of 1.4.5 and later.
    :ivar offset: bytes from the start of the partition; -1 inside a transaction.
    """

    message_id: int
    partition: Partition
    offset: int

    @property
    def is_stored(self) -> bool:
        """
        Whether a broker has confirmed it; the others are one-way, or kept on this machine's disk to
        be sent later.
        """
        return self.message_id != -1 or self.offset != -1


class MessagesFailed(ClientError):
    """
    Not all messages of a ``send_many`` were stored. Not ``retriable``: the same list would store
    those again that were.

    :ivar outcomes: of each message, in their order: its ``SendResult``, or the error that ``send``
        would have given. It says by ``outcome_known`` whether this message may have been stored.
    :ivar failed: index in the list -> error, of those that failed.
    :ivar outcome_known: False where one of those that failed may have been stored.
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

    :ivar offset: bytes from the start of the partition, where the next fetch begins.
    :ivar message_id: of the last message in front of it, -1 when unknown.
    :ivar modified: not committed yet.
    """

    topic: str
    partition: Partition
    offset: int
    message_id: int = -1
    modified: bool = False


class Lag(NamedTuple):
    """
    How far a group is in a partition, by its offset store and by the broker. All offsets are bytes
    from the start of the partition.

    :ivar committed: where the group goes on; None: no position is stored.
    :ivar message_id: of the last message in front of that, -1 when unknown.
    :ivar begin: the first readable offset; None: see ``fault``.
    :ivar end: where the next message will begin; None: see ``fault``.
    :ivar fault: the reason why the broker did not tell begin and end; None if it did.
    """

    committed: int | None
    message_id: int
    begin: int | None
    end: int | None
    fault: MetaQError | None = None

    @property
    def bytes(self) -> int | None:
        """
        Bytes of the log that the group has still to read; what was deleted unread does not count.
        Without a stored position: all there is. None: the broker did not tell.
        """
        if self.begin is None or self.end is None:
            return None
        return max(self.end - max(self.committed or 0, self.begin), 0)


class FetchTarget(NamedTuple):
    """
    A partition to read, and where.

    :ivar url: ``meta://host:port``; None while no broker has the partition.
    """

    position: Position
    url: str | None


class PassedOver(NamedTuple):
    """
    A message that a consumer does not deliver, because it cannot.

    :ivar offset: where its record begins.
    :ivar next_offset: where reading goes on.
    :ivar too_long: it is whole, and longer than this consumer accepts; otherwise it is damaged.
    :ivar reason: as in the log.
    """

    topic: str
    partition: Partition
    offset: int
    next_offset: int
    too_long: bool
    reason: str


class ReceivedMessage:
    """
    A message as a consumer gets it. Not to be changed.

    It shares the fetched piece of the log with its neighbours and cuts its body out when asked for
    it: a message that is kept for long keeps its whole piece in memory; keep ``data`` instead.

    :ivar offset: of its record, bytes from the start of the partition.
    :ivar id: given by the broker; negative from Java brokers of 1.4.5 and later.
    :ivar flag: as stored; bit 0 says that the body starts with an attribute.

    Source: ``Message``, ``MessageAccessor``.
    """

    # A million a second are made: no dataclass, no body until it is read (1.1 us instead of 0.6,
    # most of it the memory).
    __slots__ = ("_end", "_piece", "_start", "flag", "id", "offset", "partition", "topic")

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
        :param piece: bytes of the log, or just the body.
        :param start: where the body begins in it.
        :param end: where the body ends in it; None: with the piece.
        """
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.id = id
        self.flag = flag
        self._piece = piece
        self._start = start
        self._end = end

    @property
    def body(self) -> bytes:
        """The body of the record, attribute part included."""
        return self._piece[self._start : self._end]

    @property
    def data(self) -> bytes:
        """The message's data as the producer gave it."""
        if not self.flag & ATTRIBUTE_FLAG:
            return self._piece[self._start : self._end]
        return split_body(self.flag, self.body)[1]

    @property
    def attribute(self) -> str | None:
        """The attribute, or None; malformed UTF-8 turns into U+FFFD."""
        if not self.flag & ATTRIBUTE_FLAG:
            return None
        attribute, _ = split_body(self.flag, self.body)
        return None if attribute is None else attribute.decode("utf-8", "replace")

    @property
    def next_offset(self) -> int:
        """Where the next record begins."""
        end = len(self._piece) if self._end is None else self._end
        return self.offset + HEADER_BYTES + end - self._start

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
