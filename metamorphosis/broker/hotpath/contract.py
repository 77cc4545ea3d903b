"""
The contract of the hot path: a received buffer in; consumed bytes, records and replies out.

``scan`` takes the ordinary puts and gets from the front of what was received, and stops at the
first frame that is anything else: an incomplete one, another command, a transaction, an unknown or
closed partition, a wrong checksum, an odd but legal spelling (``+7``, a trailing space). The caller
decodes that one frame with ``wire.decoding``, the oracle that every implementation is tested
against, and scans on after it. So the hot path never decides what is valid; it only handles the
common case.

These rules hold for every implementation:

* A frame is taken whole or not at all. A frame that is taken has the same effect and the same reply
  as on the slow path (``decode_frame`` and ``Dispatch``), byte for byte, ids included.
* Each put is one record in the batch that collects in its store: header and body, two pieces. Ids
  are given in the order of the puts and ``MessageIds.next_id`` ends after the last one.
  ``MessageStore.next_offset`` ends after the last record, as with ``MessageStore.add``.
* Replies are added to the group in the order of the requests. Puts that wait for the same batch
  and follow each other are one run, which begins with the number in the batch of its first record
  and has ``Routes.refuse``. A get is a ``FileReply`` in a run that waits for nothing.
* A store that refuses a batch (``StoreError``) ends the scan in front of the put.
* No reference to ``data`` is kept; of ``source`` only the bodies in the pieces.

``scan`` leaves the requests of transactions. ``Routes.steps`` (see ``ScanSteps``), set where the
broker has a journal, takes the ordinary ones. The same rules hold for it, with the slow path as its
oracle.

``VECTORS`` are single requests, each marked as ordinary or not, ``STEP_VECTORS`` the same for
transactions; the tests run each against every implementation.

The slave of a pair takes the ordinary ``sync`` frames of its master in the same way
(``syncs.scan``): a record keeps the id of its request line, so none is drawn. ``Routes.syncs`` has
the stores, ``SYNC_VECTORS`` the test requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from metamorphosis.broker.replies import Refuse, ReplyGroup
    from metamorphosis.broker.session import Session
    from metamorphosis.ids import MessageIds
    from metamorphosis.store.appender import Place
    from metamorphosis.store.batch import Batch
    from metamorphosis.store.messagestore import MessageStore


ORDINARY_LINE = 1024
"""A get, or a request of a transaction, with a longer line, in bytes, is not ordinary: it may
exceed ``max-line-bytes``, which is at least this. Other lines are short."""


class TakesRecords(Protocol):
    """Takes the records of a turn in C. Providers: ``Appender``, and ``PairAppender`` of a pair
    master, which only collects."""

    def begin(self) -> Place | None:
        """See ``Appender.begin``."""

    def collected(self, data: bytes, count: int) -> tuple[Batch, int]:
        """See ``Appender.collected``."""


class TakesPuts(Protocol):
    """
    Collects puts. Providers: ``MessageStore``, and ``PairedLog`` of a pair master.

    :ivar batch: the batch that collects now, if there is one.
    :ivar next_offset: where the next record will start.
    :ivar appender: takes puts from the turn in C, see ``turn``.
    """

    next_offset: int

    @property
    def batch(self) -> Batch | None: ...

    @property
    def appender(self) -> TakesRecords: ...

    def open_batch(self) -> Batch:
        """
        :raises StoreError: puts cannot be taken now.
        """


class Routes:
    """
    Where ordinary puts and gets go, by (topic, partition) as they are spelled on the wire.

    A store stands here only while its partition accepts plain puts (or gets without a filter), so
    that a hit needs no further check; the responders put it here, and code that changes one of
    these conditions calls ``clear``.

    :ivar places: partitions that take puts in transactions.
    :ivar steps: takes the requests of transactions; None without a journal.
    :ivar syncs: stores for the records that the master of a pair sends to its slave.
    :ivar refuse: makes the refusals of puts whose batch has failed.
    :ivar max_transfer: a get returns at most this many bytes.
    :ivar max_body: a longer body is not ordinary.
    :ivar checked_only: a put without a checksum is not ordinary: its record has to be marked.
    """

    __slots__ = (
        "checked_only",
        "max_body",
        "max_transfer",
        "places",
        "puts",
        "reads",
        "refuse",
        "steps",
        "syncs",
    )

    def __init__(self, max_transfer: int, max_body: int) -> None:
        self.puts: dict[tuple[bytes, bytes], TakesPuts] = {}
        self.reads: dict[tuple[bytes, bytes], MessageStore] = {}
        self.places: dict[tuple[bytes, bytes], tuple[str, int]] = {}
        self.steps: ScanSteps | None = None
        self.syncs: dict[tuple[bytes, bytes], MessageStore] = {}
        self.refuse: Refuse | None = None
        self.max_transfer = max_transfer
        self.max_body = max_body
        self.checked_only = False

    def clear(self) -> None:
        """Send every request to the slow path until the responders have filled the tables again."""
        self.puts.clear()
        self.reads.clear()
        self.places.clear()
        self.syncs.clear()


class Scan(Protocol):
    """Takes ordinary requests from the front of the received bytes."""

    def __call__(
        self,
        data: bytes | bytearray,
        source: bytes | memoryview,
        start: int,
        end: int,
        routes: Routes,
        ids: MessageIds,
        group: ReplyGroup,
    ) -> int:
        """
        Take ordinary requests from ``data[start:end]``.

        :param data: what was received; lines are searched here.
        :param source: the same bytes; bodies are sliced from it, so with a memoryview the pieces
            are views of the receive buffer, and the caller must commit the batches or have them
            copied before it receives again.
        :param group: gets the replies.
        :returns: the position of the first byte that was not consumed: ``end``, or the start of a
            frame that is incomplete or not ordinary.
        """


class ScanSteps(Protocol):
    """
    Takes ordinary puts and steps of transactions from the front of the bytes that ``scan`` has
    left.

    * A frame is taken whole or not at all, with the same effect, reply and record in the journal as
      on the slow path.
    * One call takes puts that follow each other in one transaction, or one step: the caller counts
      calls, because a step may cost as much as any command.
    * The replies to puts wait for the write of their records, as one run; for nothing, if the
      records are held.
    * A put for which there is no memory, or which the journal refuses, is left to the slow path.
    """

    def __call__(
        self,
        data: bytes | bytearray,
        source: bytes | memoryview,
        start: int,
        end: int,
        session: Session,
        group: ReplyGroup,
    ) -> int:
        """
        Take the ordinary requests from ``data[start:end]``, which is not empty; see ``Scan`` for
        parameters and result.

        :param session: the connection, to which local transactions belong.
        """


class Vector(NamedTuple):
    """
    A request; of ``VECTORS`` one for partition 0 of topic ``test``, which exists and holds the
    message ``hello``.

    :ivar ordinary: the hot path takes it; otherwise it leaves it to the decoder.
    :ivar reply: of a put that is taken its opaque, of a get the first line of the reply.
    """

    request: bytes
    ordinary: bool
    reply: bytes = b""


VECTORS = (
    Vector(b"put test 0 5 0 907060870 1\r\nhello", True, b"1"),
    Vector(b"put test 0 5 0 907060870 -2147483648\r\nhello", True, b"-2147483648"),
    Vector(b"put test 0 5 -7 -1 2147483647\r\nhello", True, b"2147483647"),
    Vector(b"put test 0 5 0 0\r\nhello", True, b"0"),
    Vector(b"put test 0 0 0 0 3\r\n", True, b"3"),
    Vector(b"get test g 0 0 1000 4\r\n", True, b"value 25 4\r\n"),
    Vector(b"get test g 0 20 3 4\r\n", True, b"value 3 4\r\n"),
    Vector(b"get test  0 0 1000 -5 5000\r\n", True, b"value 25 -5\r\n"),
    Vector(b"get test %b 0 0 1000 4\r\n" % (b"g" * 1002), True, b"value 25 4\r\n"),
    Vector(b"put test 0 5 0 907060871 1\r\nhello", False),  # a wrong checksum
    Vector(b"put test 0 5 0 907060870 2147483648\r\nhello", False),  # an opaque beyond int32
    Vector(b"put test 0 5 0 907060870 -2147483649\r\nhello", False),
    Vector(b"put test 0 5 0 907060870 +1\r\nhello", False),
    Vector(b"put test 0 5 0 907060870 01\r\nhello", False),
    Vector(b"put test 0 5 0 907060870 1 \r\nhello", False),
    Vector(b"put test 00 5 0 907060870 1\r\nhello", False),
    Vector(b"put test -1 5 0 907060870 1\r\nhello", False),
    Vector(b"put test 1 5 0 907060870 1\r\nhello", False),  # a partition that is not open
    Vector(b"put nosuch 0 5 0 907060870 1\r\nhello", False),
    Vector(b"put test 0 5 0 907060870 TX:n:1 1\r\nhello", False),  # in a transaction
    Vector(b"put test 0 6 0 907060870 1\r\nhello", False),  # a byte is missing
    Vector(b"put test 0 5 0 907060870 1\rhello", False),
    Vector(b"get test g 0 25 1000 4\r\n", False),  # nothing to read
    Vector(b"get test g 0 0 0 4\r\n", False),
    Vector(b"get test g 0 0 1000 2147483648\r\n", False),
    Vector(b"get test g 1 0 1000 4\r\n", False),
    Vector(b"get test g 0 -1 1000 4\r\n", False),
    Vector(b"get test g 0 0 1000 4 x\r\n", False),
    Vector(b"get test %b 0 0 1000 4\r\n" % (b"g" * 1003), False),  # a long line
    Vector(b"version 1\r\n", False),
    Vector(b"\r\n", False),
    Vector(b"p", False),
)

STEP_VECTORS = (
    Vector(b"put test 0 5 0 907060870 TX:s:1 1\r\nhello", True, b"1"),
    Vector(b"put test 0 5 -7 -1 TX:s:1 -2147483648\r\nhello", True, b"-2147483648"),
    Vector(b"put test 0 0 0 0 TX:s:1 3\r\n", True, b"3"),
    Vector(b"put test 0 5 0 -1 XID:1:aa:bb:q 4\r\nhello", True, b"4"),
    Vector(b"put test 0 5 0 TX:s:1 1\r\nhello", False),  # the journal gets a checksum
    Vector(b"put test 0 5 0 907060871 TX:s:1 1\r\nhello", False),  # a wrong checksum
    Vector(b"put test 0 5 0 4294967295 TX:s:1 1\r\nhello", False),
    Vector(b"put test 0 5 0 -2 TX:s:1 1\r\nhello", False),
    Vector(b"put test 0 5 0 0907060870 TX:s:1 1\r\nhello", False),
    Vector(b"put test 0 05 0 -1 TX:s:1 1\r\nhello", False),
    Vector(b"put test 0 5 00 -1 TX:s:1 1\r\nhello", False),
    Vector(b"put test 0 5 -0 -1 TX:s:1 1\r\nhello", False),
    Vector(b"put test 00 5 0 -1 TX:s:1 1\r\nhello", False),
    Vector(b"put test 0 5 0 -1 TX:s:1 01\r\nhello", False),
    Vector(b"put test 0 5 0 -1 TX:s:1 1 \r\nhello", False),
    Vector(b"put test 0 5 0 -1 TX:s:1 2147483648\r\nhello", False),
    Vector(b"put test 0 5 0 -1 TX:s:01 1\r\nhello", False),  # the same one, spelled oddly
    Vector(b"put test 0 5 0 -1 TX:s:1: 1\r\nhello", False),
    Vector(b"put test 0 5 0 -1 XID:1:AA:bb:q 1\r\nhello", False),
    Vector(b"put test 0 5 0 -1 TX:s:2 1\r\nhello", False),  # not begun
    Vector(b"put test 0 5 0 -1 XID:2:aa:bb:q 1\r\nhello", False),  # prepared
    Vector(b"put test 0 5 0 -1 null 1\r\nhello", False),
    Vector(b"put test 1 5 0 -1 TX:s:1 1\r\nhello", False),  # a partition not put to yet
    Vector(b"put test -1 5 0 -1 TX:s:1 1\r\nhello", False),
    Vector(b"put test 0 6 0 -1 TX:s:1 1\r\nhello", False),  # a byte is missing
    Vector(b"put test 0 5 0 907060870 1\r\nhello", False),  # in no transaction
    Vector(b"transaction TX:s:1 s BEGIN 1\r\n", True, b"1"),
    Vector(b"transaction TX:s:7 s BEGIN 30 1\r\n", True, b"1"),
    Vector(b"transaction TX:s:07 s BEGIN 1\r\n", True, b"1"),
    Vector(b"transaction TX:s:1 s COMMIT_ONE_PHASE 5\r\n", True, b"5"),
    Vector(b"transaction XID:2:aa:bb:q s ROLLBACK -5\r\n", True, b"-5"),
    Vector(b"transaction TX:s:1 s END 1\r\n", True),  # has no reply
    Vector(b"transaction TX:s:1 s BEGIN 2147483648\r\n", False),
    Vector(b"transaction TX:s:1 s BEGIN +1\r\n", False),
    Vector(b"transaction TX:s:1 s BEGIN 30 q 1\r\n", False),
    Vector(b"transaction TX:s:1 s begin 1\r\n", False),
    Vector(b"transaction TX:s:1 s NOTHING 1\r\n", False),
    Vector(b"transaction TX:s s BEGIN 1\r\n", False),  # no key
    Vector(b"transaction null s RECOVER 1\r\n", False),
    Vector(b"version 1\r\n", False),
    Vector(b"t", False),
)
"""
Requests for partition 0 of topic ``test``, to which a put in a transaction has gone. ``TX:s:1`` and
``XID:1:aa:bb:q`` are begun, ``XID:2:aa:bb:q`` is prepared. ``reply`` is the opaque.
"""

SYNC_VECTORS = (
    Vector(b"sync test 0 5 0 7 907060870 1\r\nhello", True, b"7 1"),
    Vector(b"sync test 0 5 0 7 1\r\nhello", True, b"7 1"),
    Vector(
        b"sync test 0 5 -7 -5468920081952014336 -1 -2147483648\r\nhello",
        True,
        b"-5468920081952014336 -2147483648",
    ),
    Vector(b"sync test 0 0 0 0 0 0\r\n", True, b"0 0"),
    Vector(
        b"sync test 0 5 0 -9223372036854775808 2147483647\r\nhello",
        True,
        b"-9223372036854775808 2147483647",
    ),
    Vector(b"sync test 0 5 0 9223372036854775807 1\r\nhello", True, b"9223372036854775807 1"),
    Vector(b"sync test 0 5 0 7 907060871 1\r\nhello", False),  # a wrong checksum
    Vector(b"sync test 0 5 0 9223372036854775808 1\r\nhello", False),  # an id beyond int64
    Vector(b"sync test 0 5 0 -9223372036854775809 1\r\nhello", False),
    Vector(b"sync test 0 5 0 +7 1\r\nhello", False),
    Vector(b"sync test 0 5 0 07 1\r\nhello", False),
    Vector(b"sync test 0 5 0 7 907060870 2147483648\r\nhello", False),
    Vector(b"sync test 0 5 0 7 907060870 -2147483649\r\nhello", False),
    Vector(b"sync test 0 5 0 7 907060870 +1\r\nhello", False),
    Vector(b"sync test 0 5 0 7 907060870 1 \r\nhello", False),
    Vector(b"sync test 0 5 0 7 -2 1\r\nhello", False),
    Vector(b"sync test 0 5 0 7 1 2 3\r\nhello", False),
    Vector(b"sync test 0 5 0 7\r\nhello", False),
    Vector(b"sync test 00 5 0 7 1\r\nhello", False),
    Vector(b"sync test 1 5 0 7 1\r\nhello", False),  # a partition that is not open
    Vector(b"sync nosuch 0 5 0 7 1\r\nhello", False),
    Vector(b"sync test 0 6 0 7 1\r\nhello", False),  # a byte is missing
    Vector(b"sync test 0 5 0 7 1\rhello", False),
    Vector(b"put test 0 5 0 907060870 1\r\nhello", False),
    Vector(b"get test g 0 0 1000 4\r\n", False),
    Vector(b"s", False),
)
"""Requests of ``sync``; ``reply`` is id and opaque."""
