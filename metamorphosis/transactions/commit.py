"""
One commit, in an order that is safe against a crash at any step.

1. Space for one block per partition is reserved, so that the offsets are known.
2. The commit record with these offsets is written and, in flush mode 1, forced.
3. The blocks are written; batches of other puts have collected after them meanwhile.
4. The reply leaves.

A crash before step 2 has no effect, one after it is repaired by recovery. When the record cannot be
written, the blocks are cancelled and the transaction is unchanged. When a block cannot be stored
although its record is written, "rolled back" would be a wrong answer: the broker stops, and
recovery stores the block at the next start.

Differs: the original appends first and records the commit after that, so that a crash in between
doubles messages; and it reports "rolled back" for messages that may be visible.

Source: ``JournalTransactionStore``; section 9.2 of the specification of transactions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from metamorphosis.errors import MetaQError
from metamorphosis.message import crc32
from metamorphosis.store.batch import PENDING, STORED
from metamorphosis.transactions import refusals
from metamorphosis.transactions.locations import Location, encode_locations
from metamorphosis.transactions.records import Operation, OperationType, encode_operation
from metamorphosis.transactions.redofile import Written
from metamorphosis.transactions.transaction import Partition, State, Transaction

if TYPE_CHECKING:
    from metamorphosis.store.batch import Block
    from metamorphosis.store.messagestore import MessageStore
    from metamorphosis.transactions.recording import Recording
    from metamorphosis.transactions.room import CheckRoom


class Commit(Written):
    """
    The outcome that the reply to a commit waits for. Thread: reactor.

    :ivar transaction: ``ENDING`` until it is decided, then ``FINISHED`` or in its former state.
    :param open_store: the store of a partition, created if it is new.
    :param on_lost: called when a block cannot be stored although its record is written.
    """

    __slots__ = (
        "_blocks",
        "_check_room",
        "_lost",
        "_on_lost",
        "_open_store",
        "_recording",
        "_size",
        "_waiting",
        "transaction",
    )

    def __init__(
        self,
        transaction: Transaction,
        recording: Recording,
        open_store: Callable[[Partition], MessageStore],
        on_lost: Callable[[Transaction, BaseException | None], None],
    ) -> None:
        super().__init__()
        self.transaction = transaction
        self._recording = recording
        self._open_store = open_store
        self._on_lost = on_lost
        self._blocks: list[tuple[MessageStore, Block]] = []
        self._waiting = 0
        self._lost = False

    def begin(self, check_room: CheckRoom, size: int) -> None:
        """
        Reserve the blocks, and write the commit record.

        :param check_room: raises if the disk of a store has no space for this number of bytes.
        :param size: bytes of all commits in progress, including this one.
        :raises BrokerError: the commit cannot begin; the transaction is unchanged.
        """
        transaction = self.transaction
        self._check_room, self._size = check_room, size
        transaction.end()
        try:
            locations = [self._reserve(*block) for block in transaction.blocks()]
        except (MetaQError, OSError) as error:
            self._cancel(error)
            raise refusals.not_stored(transaction.id, error) from error
        kind = OperationType.XA_COMMIT if transaction.is_xa else OperationType.LOCAL_COMMIT
        operation = Operation(kind, transaction.key, transaction.was_prepared)
        record = encode_operation(operation, encode_locations(locations))
        try:
            recorded = self._recording.end(transaction, record)
        except MetaQError as error:
            self._cancel(error)
            raise refusals.not_journaled(transaction.id, error) from error
        recorded.waiters.append(lambda: self._recorded(recorded))

    def _reserve(self, partition: Partition, pieces: list[bytes]) -> Location:
        store = self._open_store(partition)
        self._check_room(store, self._size)
        block = store.reserve(pieces)
        self._blocks.append((store, block))
        topic, number = partition
        checksum = crc32(block.pieces[0]) & 0x7FFFFFFF
        return Location(f"{topic}-{number}", block.offset, block.size, checksum)

    def _cancel(self, error: BaseException) -> None:
        """The commit was not recorded: cancel the reserved blocks."""
        self.transaction.end_failed()
        blocks, self._blocks = self._blocks, []
        for store, block in blocks:
            store.cancel_block(block, error)

    def _recorded(self, recorded: Written) -> None:
        if recorded.state is not STORED:
            error = recorded.error or MetaQError("the record was not written")
            self._cancel(error)
            self.complete(error)
            return
        self._waiting = len(self._blocks)
        for store, block in self._blocks:
            block.waiters.append(self._decided)
            try:
                store.commit_block(block)
            except MetaQError as error:
                self._lose(error)
                return

    def _decided(self) -> None:
        """One of the blocks is stored, or has failed."""
        self._waiting -= 1
        if self._waiting:
            return
        for _, block in self._blocks:
            if block.state is not STORED:
                self._lose(block.error)
                return
        file = self.transaction.file
        assert file is not None  # it has a record
        for store, block in self._blocks:
            file.stands_in(store, block.offset + block.size)
        self.transaction.state = State.FINISHED
        self.complete()

    def _lose(self, error: BaseException | None) -> None:
        """The commit is recorded and cannot be stored: leave that to the next start."""
        if not self._lost:
            self._lost = True
            self._on_lost(self.transaction, error)
            self.abandon(error or MetaQError("its block could not be stored"))

    def abandon(self, error: BaseException) -> None:
        """
        The broker stops, and the commit stays undecided: its stores must not wait for it. Recovery
        finds the record, or does not.
        """
        for store, block in self._blocks:
            if block.state is PENDING and not block.decided:
                store.cancel_block(block, error)
