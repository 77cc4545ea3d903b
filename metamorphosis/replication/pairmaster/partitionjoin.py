"""
The joining of one partition: both logs are compared, and the missing records are copied to the
shorter one.

    the slave's log      action
    is equal             none
    is shorter           its missing records are sent with ``sync``, with their ids and flags, and
                         with their checksums as stored
    is longer            the records that only the slave has are fetched with ``get`` and written
                         here
    in other cases       none on either side: the partition has diverged

Two properties of a Java slave matter here. It answers 404 for partitions that it has not opened
since its start, so the master *knocks*: a record with a wrong checksum makes the slave open the
partition and is not stored. And it does not show unflushed records, so that its log looks shorter
than it is: no record is sent before its statistics show that all are flushed. The first record is
sent alone; the others follow only if it is stored at the expected offset.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from metamorphosis.errors import (
    LogChanged,
    MetaQError,
    PeerError,
    PeerMisbehaved,
    PeerUnreachable,
    StoreError,
)
from metamorphosis.replication.logs import (
    Comparison,
    LogEnds,
    StoreLog,
    Verdict,
    compare_tail,
)
from metamorphosis.replication.pairmaster.carving import Carved, carve
from metamorphosis.replication.pairmaster.flushed import has_unflushed
from metamorphosis.replication.pairmaster.sending import Sending, knock
from metamorphosis.replication.peer import PeerLog
from metamorphosis.replication.role import JOINING_GROUP
from metamorphosis.store.batch import PENDING, STORED

if TYPE_CHECKING:
    from collections.abc import Callable

    from metamorphosis.ids import MessageIds
    from metamorphosis.interfaces import IRuntime
    from metamorphosis.replication.pairmaster.pairedlog import PairedLog
    from metamorphosis.replication.pairmaster.syncs import Syncs
    from metamorphosis.replication.peer import Peer

GROUP: Final = "metamorphosis-pair"
"""The consumer group in requests to the slave."""

PIECE_BYTES: Final = 1 << 20
"""Size of a read; the default limit of a broker's reply to ``get``."""

FLUSH_SECONDS: Final = 0.2
"""Between two checks whether the slave has flushed."""

UNSENDABLE: Final = (
    "Nothing is changed on either side, and its puts are refused. A log that begins above 0 cannot"
    " be brought to an empty slave by sync: run the slave once with --slave until it has copied"
    " everything, then with --gregor"
)
UNTOUCHED: Final = (
    "Nothing is changed on either side, and its puts are refused; `metaq compare` shows where they"
    " differ, and docs/promotion.md how to go on"
)


class Diverged(MetaQError):
    """
    The logs cannot be made equal without deleting records.

    :ivar own: range of the log here.
    :ivar other: range of the slave's; None: it has none.
    :ivar remedy: the operator's remedy.
    """

    def __init__(self, own: LogEnds, other: LogEnds | None, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.own = own
        self.other = other
        self.remedy = remedy


class PartitionJoin:
    """
    One attempt to join a partition. Thread: reactor.

    :param runtime: for pauses.
    :param progressed: called with the numbers of sent and of fetched bytes.
    :param known: ends that the slave's logs of a topic have at least, by partition.
    :ivar sent: bytes so far.
    :ivar fetched: bytes so far.
    """

    def __init__(
        self,
        runtime: IRuntime,
        log: PairedLog,
        peer: Peer,
        syncs: Syncs,
        ids: MessageIds,
        progressed: Callable[[int, int], None],
        known: Callable[[str], dict[int, int]],
    ) -> None:
        self.sent = 0
        self.fetched = 0
        self._runtime = runtime
        self._log = log
        self._peer = peer
        self._slave = PeerLog(peer, log.topic, log.partition, GROUP)
        self._unbroken = PeerLog(peer, log.topic, log.partition, JOINING_GROUP)
        self._syncs = syncs
        self._ids = ids
        self._progressed = progressed
        self._known = known

    async def level(self, is_current: Callable[[], bool]) -> None:
        """
        Compare and copy until both logs end at the same offset.

        :param is_current: whether the connection is still that of the beginning.
        :raises PeerError: the slave does not reply, or refuses.
        :raises StoreError: the store here refuses.
        :raises Diverged: the logs cannot be made equal.
        """
        while is_current():
            found = await self.compare()
            if found.verdict is Verdict.EQUAL:
                return
            if found.verdict is Verdict.B_AHEAD and found.b is not None:
                await self.fetch(found.b.end)
                return
            shown = 0 if found.b is None else found.b.end
            topic, partition = self._log.topic, self._log.partition
            if not await has_unflushed(self._peer, topic, partition, shown, self._known(topic)):
                # Records flushed between the two requests were not in the first reply. This request
                # also makes our slave refuse all records after a refused one.
                again = await self.compare(self._unbroken)
                if again.b == found.b:
                    await self.send(shown)
                    await self._slave.ends()
                    return
                continue
            self._log.reason = "the slave has not flushed everything"
            await self._pause()
        raise PeerUnreachable("the connection was lost")

    def _pause(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._runtime.call_later(FLUSH_SECONDS, done.callback, None)
        return done

    async def compare(self, slave: PeerLog | None = None) -> Comparison:
        """
        Compare the logs.

        :param slave: the slave's log, read in another group; None: in ``GROUP``.
        :raises PeerError: no valid reply from the slave.
        :raises StoreError: it cannot be made sure that the slave has no log.
        :raises Diverged: bytes differ, or the ranges do not touch.
        """
        own = StoreLog(self._log.store)
        slave = slave or self._slave
        found = await compare_tail(own, slave)
        if found.verdict is Verdict.ABSENT_B:
            await self._knock()
            found = await compare_tail(own, slave)
        ends = found.a
        assert ends is not None
        if found.verdict is Verdict.DIFFERENT:
            reason = f"the bytes at {found.differs_at} are not the same"
            raise Diverged(ends, found.b, reason, UNTOUCHED)
        if found.verdict is Verdict.APART or (found.verdict is Verdict.ABSENT_B and ends.first):
            remedy = UNSENDABLE if found.b is None or found.b.end == 0 else UNTOUCHED
            raise Diverged(ends, found.b, "no byte is in both", remedy)
        return found

    async def _knock(self) -> None:
        """
        Make the slave open the partition; see the module.

        :raises StoreError: there is no id for it yet. A slave that has not opened the partition
            looks as if it had none, and must not be sent what it has.
        """
        if not self._ids.ready:
            raise StoreError("the slave shows no log, and there is no message id to make sure")
        await knock(self._syncs, self._log.head, self._ids.take())

    async def fetch(self, end: int) -> None:
        """
        Fetch the records that only the slave has, and write them here.

        :param end: of the slave's log.
        :raises PeerError: no valid reply from the slave.
        :raises Diverged: the bytes are not records.
        :raises StoreError: they cannot be written here, or retention of the slave deleted them.
        """
        own = self._log.store.next_offset
        held = b""
        while (at := own + len(held)) < end:
            data = await self._slave.read(at, min(PIECE_BYTES, end - at))
            if not data:
                raise PeerMisbehaved(f"the slave has nothing at {at}, though its log ends at {end}")
            held += data[: end - at]
            carved = carve(held, verify=True)
            self._check_records(carved, end)
            if carved.pieces:
                await self._write(carved, own)
                held = held[carved.size :]
                own += carved.size
            if carved.needed > end - own:  # what follows need not be fetched to see it
                break
        if held:
            self._check_records(Carved([], 0, fault="the log ends inside of it"), end)

    def _check_records(self, carved: Carved, end: int) -> None:
        if carved.fault is not None:
            store = self._log.store
            at = store.next_offset + carved.size
            reason = f"the slave's record at {at} is damaged: {carved.fault}"
            own = LogEnds(store.min_offset, store.next_offset)
            raise Diverged(own, LogEnds(own.first, end), reason, UNTOUCHED)

    async def _write(self, carved: Carved, offset: int) -> None:
        """
        Append at ``offset``, the end of the log, and wait for the write. The records do not count
        as puts: their puts were refused, or counted by an earlier process.

        :raises StoreError: they were not stored.
        """
        store = self._log.store
        if store.next_offset != offset:
            raise LogChanged(f"the log ends at {store.next_offset}, and not at {offset}")
        copy = store.append_copy(b"".join(carved.pieces), len(carved.pieces) >> 1)
        if copy.state is PENDING:
            written: Deferred[None] = Deferred()
            copy.waiters.append(lambda: written.callback(None))
            await written
        if copy.state is not STORED:
            raise StoreError(f"what the slave has could not be written: {copy.error}")
        self.fetched += carved.size
        self._progressed(0, carved.size)

    async def send(self, start: int) -> None:
        """
        Send the records that are missing on the slave.

        :param start: the end of the slave's log.
        :raises PeerError: the slave refuses, or does not reply.
        :raises StoreError: the log here has changed.
        :raises OSError: it cannot be read.
        """
        sending = Sending(self._syncs, self._log.head, start)
        try:
            await self._send_all(sending, start)
        except (PeerError, StoreError, OSError):
            with suppress(PeerError):
                await sending.finish()
            raise
        await sending.finish()

    async def _send_all(self, sending: Sending, start: int) -> None:
        store = self._log.store
        own = StoreLog(store)
        size = PIECE_BYTES
        at = start
        while at < store.next_offset:
            carved = carve(await own.read(at, size), verify=False)
            if not carved.pieces:
                if carved.fault is not None or carved.needed <= size:
                    raise LogChanged(f"there is no whole record at {at}")
                size = carved.needed
                continue
            if at == start:
                carved = Carved(carved.pieces[:2], sum(map(len, carved.pieces[:2])))
            await sending.send(carved.pieces, carved.size)
            if at == start:
                await sending.finish()
            at += carved.size
            size = PIECE_BYTES
            self.sent += carved.size
            self._progressed(carved.size, 0)
