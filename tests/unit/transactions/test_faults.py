"""
Transactions when something fails beside them: a new redo file that cannot be made, a journal that
breaks while the broker must still end, a full disk, a connection that goes while a record fails.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from metamorphosis.errors import StoreError, StoreStalled
from metamorphosis.message import HEADER
from metamorphosis.store.disk import Disk
from metamorphosis.transactions import intake, rebuilding
from metamorphosis.transactions.heuristiclog import Heuristic, encode_heuristic_log
from metamorphosis.transactions.redolog import FlushMode
from metamorphosis.transactions.room import PLENTY, PLENTY_SECONDS, Room
from metamorphosis.transactions.transaction import EMPTY, Transaction
from metamorphosis.wire.transactionids import LocalTransactionId, XATransactionId
from tests.support.transactional import TransactionalBroker
from tests.unit.transactions.test_recovery import RecoveryTestCase
from tests.unit.transactions.test_redolog import BreakingDisk
from tests.unit.transactions.test_replay import append, prepare
from tests.unit.transactions.test_steps import (
    LOCAL,
    LOCAL2,
    XA,
    XA2,
    BreakingStoreDisk,
    StepsTestCase,
)


class FullDisk(Disk):
    """A disk with so much room."""

    def __init__(self, free: int) -> None:
        self.free_bytes = free

    def free(self, path: str) -> int:
        """See ``Disk``."""
        return self.free_bytes


class RetiringTests(RecoveryTestCase):
    """Redo files that are finished."""

    def test_next_file_cannot_be_made(self) -> None:
        """The commit is answered, the full file stays, and the next transaction tries again."""
        disk = BreakingDisk()
        self.restart(journal_disk=disk)
        self.broker.journal._limit = 10
        self.fill(LOCAL, b"one")
        disk.failing["create"] = 1
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"one"], self.messages())
        self.assertIn("redo.2", self.logged(LogLevel.warn)[-1])
        self.fill(LOCAL, b"two")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"one", b"two"], self.messages())

    def test_kept_until_the_block_is_flushed(self) -> None:
        """In the default mode of a store a commit is acknowledged before its block is on the disk;
        until it is the journal keeps it."""
        self.restart(unflush_threshold=1000)
        self.fill(LOCAL, b"one")
        self.broker.threads.hold()
        data = f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode()
        self.client.send(data)
        self.broker.threads.release_one()  # the force
        self.broker.clock.advance(0)
        self.assertOk(self.reply(self.client.received()))
        self.assertFalse(self.broker.service.checkpoint())
        self.assertEqual(["redo.1"], self.redo_names())
        self.broker.threads.release()
        self.broker.clock.advance(1)
        self.assertTrue(self.broker.service.checkpoint())
        self.assertEqual(["redo.2"], self.redo_names())

    def test_big_file_is_kept_until_the_block_is_flushed(self) -> None:
        """A file over the limit goes with the flush of its last block."""
        self.restart(unflush_threshold=1000)
        self.broker.journal._limit = 10
        self.fill(LOCAL, b"one")
        self.broker.threads.hold()
        self.client.send(f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode())
        self.broker.threads.release_one()
        self.broker.clock.advance(0)
        self.assertOk(self.reply(self.client.received()))
        self.assertIn("redo.1", self.redo_names())
        self.broker.threads.release()
        self.broker.clock.advance(5)
        self.assertEqual(["redo.2"], self.redo_names())


class StopTests(RecoveryTestCase):
    """An orderly stop."""

    def test_steps_while_stopping(self) -> None:
        """Nothing new is begun or put; open transactions can still be ended."""
        self.fill(LOCAL, b"one")
        self.fill(XA, b"two")
        self.broker.responders.refuse_work()
        self.assertEqual(503, self.put(LOCAL)[0])
        self.assertEqual(503, self.step(LOCAL2, "BEGIN")[0])
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertOk(self.step(XA, "PREPARE"), "0")
        self.broker.stop()
        self.start()
        self.assertEqual(([b"one"], [XA]), (self.messages(), self.recovered()))

    def test_last_flush_fails(self) -> None:
        """The journal keeps what the store has acknowledged and could not flush."""
        disk = BreakingDisk()
        self.restart(unflush_threshold=1000, disk=disk)
        self.fill(LOCAL, b"one")
        disk.failing["sync"] = 1000
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.broker.stop()
        self.broker.clock.advance(10)
        self.assertEqual(["redo.1"], self.redo_names())
        os.truncate(Path(self.directory, "test-0", f"{0:020d}.meta"), 0)  # the power fails
        self.start()
        self.assertEqual([b"one"], self.messages())

    def test_flushed(self) -> None:
        """Otherwise nothing of it stays."""
        self.restart(unflush_threshold=1000)
        self.fill(LOCAL, b"one")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.broker.stop()
        (name,) = self.redo_names()
        self.assertEqual(0, Path(self.journal, name).stat().st_size)


class EndTests(StepsTestCase):
    """A broker that stops because of a transaction comes to its end."""

    def end(self) -> Deferred[None]:
        """The orderly stop; returns the end of the stores."""
        for connection in tuple(self.broker.factory.connections):
            connection.connectionLost()
        self.broker.clock.advance(0)
        self.successResultOf(Deferred.fromCoroutine(self.broker.service.stop()))
        closed = self.broker.stores.close()
        self.broker.clock.advance(5)
        return closed

    def test_after_a_broken_force(self) -> None:
        """Blocks whose record was not forced are not waited for."""
        disk = BreakingDisk()
        self.broker = broker_with(self, journal_disk=disk)
        self.client = self.broker.client()
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        disk.failing["sync"] = 1
        self.client.send(f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode())
        self.assertEqual(1, len(self.broker.broken))
        self.successResultOf(self.end())

    def test_after_a_record_that_can_not_be_cut(self) -> None:
        """The next start may find a commit or a prepare that failed: it is not refused."""
        for begun, step, found in (
            (LOCAL, "COMMIT_ONE_PHASE", ([b"hello"], [])),
            (XA, "PREPARE", ([], [XA])),
        ):
            disk, directory = BreakingDisk(), os.path.abspath(self.mktemp())
            self.broker = TransactionalBroker(directory, journal_disk=disk)
            self.client = self.broker.client()
            self.step(begun, "BEGIN")
            self.put(begun)
            disk.failing.update(write=1, truncate=1)
            disk.shortest = 1000
            self.assertEqual(b"", self.client.send(f"transaction {begun} s {step} 7\r\n".encode()))
            self.assertIn("Input/output error", self.broker.broken[0])
            self.successResultOf(self.end())
            self.broker = TransactionalBroker(directory)
            self.client = self.broker.client()
            listed = self.step("null", "RECOVER")[1].split()
            self.assertEqual(found, (self.messages(), listed))

    def test_after_a_store_that_failed(self) -> None:
        """Nor are the other blocks of a commit of which one could not be stored."""
        disk = BreakingStoreDisk()
        self.broker = broker_with(self, disk=disk)
        self.client = self.broker.client()
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.put(LOCAL, partition=1)
        disk.failing = True
        self.client.send(f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode())
        self.assertIn(LOCAL, self.broker.broken[0])
        self.successResultOf(self.end())

    def test_after_a_disk_that_hangs(self) -> None:
        """A commit that is recorded cannot be refused: the broker stops, and the next one stores
        it."""
        directory = os.path.abspath(self.mktemp())
        self.broker = TransactionalBroker(directory)
        self.client = self.broker.client()
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.broker.threads.hold()
        self.client.send(f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode())
        self.broker.threads.release_one()  # the record is forced
        store = self.broker.stores.get("test", 0)
        assert store is not None
        store.stall(StoreStalled("it does not answer"))
        self.broker.clock.advance(0)
        self.assertEqual(b"", self.client.received())
        self.assertIn("it does not answer", self.broker.broken[0])
        self.broker = TransactionalBroker(directory)
        self.assertEqual([b"hello"], self.messages())

    def test_commit_in_flight(self) -> None:
        """A commit that is recorded and not stored when the broker stops keeps its record."""
        self.step(XA, "BEGIN")
        self.put(XA)
        disk = BreakingStoreDisk()
        for store in self.broker.stores:
            store.environment = replace(store.environment, disk=disk)
        self.broker.threads.hold()
        self.client.send(f"transaction {XA} s COMMIT_ONE_PHASE 7\r\n".encode())
        for connection in tuple(self.broker.factory.connections):
            connection.connectionLost()
        stopped = Deferred.fromCoroutine(self.broker.service.stop())
        self.broker.threads.release()
        self.broker.clock.advance(1)
        self.successResultOf(stopped)
        self.successResultOf(self.broker.stores.close())
        self.assertEqual([b"hello"], self.messages())


def broker_with(case: StepsTestCase, **settings: Any) -> TransactionalBroker:
    """A broker with this disk."""
    return TransactionalBroker(case.mktemp(), **settings)


class LostConnectionTests(RecoveryTestCase):
    """A local transaction whose connection goes while its journal cannot be written."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = BreakingDisk()
        self.restart(journal_disk=self.disk)

    def nothing_open(self) -> None:
        """Nothing is left of it, and its file can go."""
        transactions = self.broker.transactions
        self.assertEqual(([], 0), (list(transactions.open), transactions.open.bytes))
        self.assertEqual([0], [file.references for file in self.broker.journal.files])

    def test_roll_back_fails(self) -> None:
        """The transaction ends nevertheless; the next start rolls it back."""
        self.fill(LOCAL, b"one")
        self.disk.failing["write"] = 1
        self.client.connection.connectionLost()
        self.broker.clock.advance(0)
        self.nothing_open()

    def test_commit_fails(self) -> None:
        """A commit that was under way, and could not be recorded."""
        self.fill(LOCAL, b"one")
        self.disk.failing["write"] = 1
        self.client.connection.dataReceived(
            f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode()
        )
        self.client.connection.connectionLost()
        self.broker.clock.advance(0)
        self.broker.clock.advance(0)
        self.nothing_open()
        self.assertEqual([], self.messages())

    def test_expired_while_the_roll_back_fails(self) -> None:
        """A timeout ends a transaction even if that cannot be written down."""
        self.step(XA, "BEGIN", 2)
        self.put(XA)
        self.disk.failing["write"] = 1
        self.broker.clock.advance(4)
        self.nothing_open()

    def test_prepare_and_commit_in_one_piece(self) -> None:
        """Neither was written: it is not prepared."""
        self.fill(XA, b"one")
        self.disk.failing["write"] = 1
        self.client.send(
            f"transaction {XA} s PREPARE 7\r\ntransaction {XA} s COMMIT_TWO_PHASE 8\r\n".encode()
        )
        self.assertEqual([], self.recovered())
        self.assertOk(self.step(XA, "PREPARE"), "0")

    def test_timeout_during_a_failing_prepare(self) -> None:
        """It has its timeout again."""
        self.step(XA, "BEGIN", 2)
        self.put(XA)
        self.broker.client().send(b"version 1\r\n")  # so ours is not alone
        self.client.connection.dataReceived(f"transaction {XA} s PREPARE 7\r\n".encode())
        self.disk.failing["write"] = 1
        (transaction,) = self.broker.transactions.open
        endings = self.broker.transactions.endings
        endings.timeouts.disarm(transaction)
        endings._expired(transaction)
        self.broker.clock.advance(0)
        self.assertEqual(500, self.reply(self.client.received())[0])
        self.assertEqual([], self.recovered())
        self.broker.clock.advance(4)
        self.nothing_open()


class LostConnectionOfALongOneTests(LostConnectionTests):
    """The same of one that writes each record at its put."""

    def setUp(self) -> None:
        super().setUp()
        self.hold()


class FullDiskTests(StepsTestCase):
    """A store without room."""

    def test_commit_is_refused(self) -> None:
        """Before it is recorded, so that the broker need not stop; it works when there is room."""
        disk = FullDisk(1000)
        self.broker = broker_with(self, disk=disk)
        self.client = self.broker.client()
        self.step(XA, "BEGIN")
        self.put(XA)
        self.step(XA, "PREPARE")
        status, text = self.step(XA, "COMMIT_TWO_PHASE")
        self.assertEqual(500, status)
        self.assertRegex(text, r"^XAException:code=-3,msg=.*No space left")
        self.assertEqual(["APPEND", "XA_PREPARE"], self.records())
        self.assertOk(self.step("null", "RECOVER"), XA)
        disk.free_bytes = 1 << 30
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual(([b"hello"], []), (self.messages(), self.broker.broken))


class FullJournalTests(RecoveryTestCase):
    """A journal without room."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = BreakingDisk()
        self.disk.error = errno.ENOSPC
        self.disk.shortest = 5
        self.restart(journal_disk=self.disk)

    def fill_disk(self) -> None:
        """Nothing can be written any more."""
        self.disk.failing["write"] = 1 << 30

    def test_each_step(self) -> None:
        """Puts, prepares, commits and rollbacks are refused, as often as they come, and a restart
        knows nothing of them; with room the transactions continue where they stood."""
        self.hold()
        self.fill(LOCAL, b"one")
        self.fill(XA, b"two")
        self.fill(XA2, b"three")
        self.assertOk(self.step(XA2, "PREPARE"), "0")
        self.fill_disk()
        for _ in range(2):
            for reply in (
                self.put(LOCAL, b"refused"),
                self.put(XA, b"refused"),
                self.step(LOCAL, "COMMIT_ONE_PHASE"),
                self.step(LOCAL, "ROLLBACK"),
                self.step(XA, "PREPARE"),
                self.step(XA, "COMMIT_ONE_PHASE"),
                self.step(XA2, "COMMIT_TWO_PHASE"),
                self.step(XA2, "ROLLBACK"),
            ):
                self.assertEqual(500, reply[0])
                self.assertIn("cannot be journaled: [Errno 28] No space left on device", reply[1])
            self.assertEqual([XA2], self.recovered())
            self.assertEqual(200, self.reply(self.client.send(b"put test 1 5 0 7\r\nplain"))[0])
        self.disk.failing.clear()
        self.assertEqual(200, self.put(LOCAL, b"more")[0])
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertOk(self.step(XA, "PREPARE"), "0")
        self.assertOk(self.step(XA2, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"one", b"more", b"three"], self.messages())
        self.assertEqual([XA], self.recovered())

    def test_each_step_of_what_is_held(self) -> None:
        """Puts need no room, nor do rollbacks; outcomes that store something are refused."""
        self.fill(LOCAL, b"one")
        self.fill(LOCAL2, b"never")
        self.fill(XA, b"two")
        self.fill_disk()
        for number in range(2):
            self.assertEqual(200, self.put(LOCAL, b"more %d" % number)[0])
            for reply in (
                self.step(LOCAL, "COMMIT_ONE_PHASE"),
                self.step(XA, "PREPARE"),
                self.step(XA, "COMMIT_ONE_PHASE"),
            ):
                self.assertEqual(500, reply[0])
                self.assertIn("cannot be journaled: [Errno 28] No space left on device", reply[1])
            self.assertEqual([], self.recovered())
        self.assertOk(self.step(LOCAL2, "ROLLBACK"))
        self.disk.failing.clear()
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertOk(self.step(XA, "PREPARE"), "0")
        self.restart()
        self.assertEqual([b"one", b"more 0", b"more 1"], self.messages())
        self.assertEqual([XA], self.recovered())

    def test_killed_while_it_is_full(self) -> None:
        """What was refused is not there; what was prepared before is, and can be committed."""
        self.fill(XA, b"one")
        self.assertOk(self.step(XA, "PREPARE"), "0")
        self.fill(XA2, b"two")
        self.fill_disk()
        self.assertEqual(500, self.step(XA, "COMMIT_TWO_PHASE")[0])
        self.assertEqual(500, self.step(XA2, "PREPARE")[0])
        self.restart()
        self.assertEqual(([], [XA]), (self.messages(), self.recovered()))
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"one"], self.messages())

    def test_used_again(self) -> None:
        """
        A transaction whose rollback could not be written down, and then another one with the same
        key: a start does not take the messages of the first for those of the second.
        """
        self.hold()
        for _ in range(2):
            self.step(XA, "BEGIN", 2)
            self.put(XA, b"rolled back")
            self.fill_disk()
            self.broker.clock.advance(3)
            self.broker.clock.advance(0)
            self.assertEqual(500, self.put(XA)[0])
            self.step(XA, "BEGIN")
            self.assertEqual(500, self.put(XA, b"refused")[0])
            self.disk.failing.clear()
            self.assertEqual(200, self.put(XA, b"new")[0])
            self.assertEqual(200, self.put(XA, b"more")[0])
            self.assertOk(self.step(XA, "PREPARE"), "0")
            self.restart(journal_disk=self.disk)
            self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"new", b"more"] * 2, self.messages())


class SameKeyTests(RecoveryTestCase):
    """Two connections whose local transactions have the same key."""

    def test_crash_after_one_commit(self) -> None:
        """What the other one has not committed stays so, whatever the store has lost."""
        self.restart(unflush_threshold=1000)
        other = self.broker.client()
        self.step(LOCAL, "BEGIN")
        self.step(LOCAL, "BEGIN", client=other)
        self.put(LOCAL, b"mine")
        self.put(LOCAL, b"open", client=other)
        self.put(LOCAL, b"open as well", partition=1, client=other)
        self.put(LOCAL, b"mine too")
        self.broker.threads.hold()
        self.client.send(f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode())
        self.broker.threads.release_one()  # the force; the block is not flushed
        self.broker.clock.advance(0)
        self.assertOk(self.reply(self.client.received()))
        os.truncate(Path(self.directory, "test-0", f"{0:020d}.meta"), 0)
        self.restart()
        self.assertEqual([b"mine", b"mine too"], self.messages())
        self.assertEqual([], self.messages(partition=1))


class RoomTests(StepsTestCase):
    """A disk that may hang is asked in its own threads."""

    def test_apart(self) -> None:
        """The reactor never asks; the last answer counts, and is asked for again after a second."""
        disk = FullDisk(10)
        store = self.broker.stores.get_or_create(self.broker.config.topic("test"), 0)
        threads = self.broker.threads
        store.environment = replace(store.environment, disk=disk, apart=True, threads=threads)
        clock = self.broker.clock
        room = Room(clock)
        threads.hold()
        room.check(store, 1)  # nothing is known yet
        room.check(store, 1)
        self.assertEqual(1, threads.held)
        threads.release()
        self.assertRaises(StoreError, room.check, store, 1)
        disk.free_bytes = 1 << 30
        self.assertRaises(StoreError, room.check, store, 1)
        clock.advance(1)
        room.check(store, 1)
        clock.advance(1)
        room.check(store, 1)

    def test_plenty(self) -> None:
        """A disk with plenty of room is asked ten times a second; one with less, each time."""
        disk = FullDisk(PLENTY)
        store = self.broker.stores.get_or_create(self.broker.config.topic("test"), 0)
        store.environment = replace(store.environment, disk=disk)
        room = Room(self.broker.clock)
        room.check(store, 1)
        disk.free_bytes = 10
        self.broker.clock.advance(PLENTY_SECONDS * 0.9)
        room.check(store, 1)
        self.broker.clock.advance(PLENTY_SECONDS * 0.2)
        self.assertRaises(StoreError, room.check, store, 1)
        disk.free_bytes = PLENTY - 1
        room.check(store, 1)
        disk.free_bytes = 10
        self.assertRaises(StoreError, room.check, store, 1)


class RefusedPutsTests(StepsTestCase):
    """Puts that cannot be journaled."""

    def test_several_of_one_turn(self) -> None:
        """All of them are refused, and what was put before is there, in every partition."""
        self.hold()
        disk = BreakingDisk()
        self.broker = broker_with(self, journal_disk=disk)
        self.client = self.broker.client()
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL, b"first")
        disk.failing["write"] = 1
        data = b"".join(
            b"put test %d 4 0 -1 %b 7\r\nlost" % (partition, LOCAL.encode())
            for partition in (0, 1, 0, 1)
        )
        self.assertEqual(4, self.client.send(data).count(b"result 500 "))
        (transaction,) = self.broker.transactions.open
        self.assertEqual(([("test", 0)], 1), (transaction.partitions, len(transaction.records)))
        self.assertEqual(transaction.bytes, self.broker.transactions.open.bytes)
        self.put(LOCAL, b"last", partition=1)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"first"], self.messages())
        self.assertEqual([b"last"], self.messages(partition=1))

    def test_of_a_big_transaction(self) -> None:
        """The time of a refusal does not grow with what was put before."""
        transaction = Transaction(LocalTransactionId("s", 1), 0.0)
        records = [b"%d" % number for number in range(100_000)]
        for record in records:
            place = "test", len(record) % 2
            transaction.add([(place, HEADER.pack(0, 0, 0, 0), record)], [record])
        for _ in records[1:]:
            transaction.take_back(1)
        self.assertEqual([records[0]], transaction.records)
        transaction.take_back(1)
        self.assertEqual(
            ([], [], EMPTY), (transaction.partitions, transaction.records, transaction.bytes)
        )


class LongTransactionTests(StepsTestCase):
    """More messages than a commit record can name."""

    def test_put_is_refused(self) -> None:
        """What was put before can be committed."""
        self.patch(intake, "LONGEST", 2000)
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL, b"x" * 500)
        status, text = self.put(LOCAL, b"y" * 500)
        self.assertEqual((500, True), (status, "more than 2000 bytes" in text))
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"x" * 500], self.messages())


class CommittedTopicTests(RecoveryTestCase):
    """What a commit tells the rest of the broker."""

    def test_topic_is_registered(self) -> None:
        """Once its first message is committed, as after a plain put."""
        self.fill(LOCAL, b"one")
        self.assertEqual([], self.broker.used_topics)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual(["test"], [topic.name for topic in self.broker.used_topics])

    def test_waiting_get_of_a_new_partition(self) -> None:
        """Gets the committed messages."""
        other = self.broker.client()
        self.assertEqual(b"", other.send(b"get test g 1 0 1048576 1 5000\r\n"))
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL, partition=1)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.broker.clock.advance(0)
        self.assertTrue(other.received().startswith(b"value 25 1"))

    def test_recovered_transactions_are_counted(self) -> None:
        """As begun, like in the original."""
        for key in (XA, XA2):
            self.fill(key, b"one")
            self.step(key, "PREPARE")
        self.restart()
        statistics = self.broker.responders.statistics
        self.assertEqual((2, 2), (statistics.tx_begin, statistics.tx_xa_begin))


class FlushModeTests(RecoveryTestCase):
    """Modes 0 and 2 over the wire."""

    def test_never(self) -> None:
        """No force; everything works and survives a kill."""
        disk = BreakingDisk()
        self.restart(mode=0, journal_disk=disk)
        forced = disk.calls.count("sync")
        self.fill(XA, b"one")
        self.assertOk(self.step(XA, "PREPARE"), "0")
        self.fill(LOCAL, b"two")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.broker.clock.advance(10)
        self.assertEqual(forced, disk.calls.count("sync"))
        self.restart(mode=0)
        self.assertEqual([XA], self.recovered())
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"two", b"one"], self.messages())

    def test_every_second(self) -> None:
        """A prepare alone is forced too, within a second and once."""
        disk = BreakingDisk()
        self.restart(mode=2, journal_disk=disk)
        self.fill(XA, b"one")
        before = disk.calls.count("sync")
        self.assertOk(self.step(XA, "PREPARE"), "0")
        self.assertEqual(before, disk.calls.count("sync"))
        self.broker.clock.advance(1)
        self.assertEqual(before + 1, disk.calls.count("sync"))
        self.broker.clock.advance(5)
        self.assertEqual(before + 1, disk.calls.count("sync"))

    def test_slow_disk(self) -> None:
        """What is written during a force of more than a second is forced after it."""
        self.restart(mode=2)
        journal = self.broker.journal
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")
        self.broker.threads.hold()
        self.broker.clock.advance(1)
        self.assertTrue(journal._forces.busy(journal.files[0]))
        self.step(XA, "ROLLBACK")
        self.broker.clock.advance(1.5)
        forces = journal.forces
        self.broker.threads.release()
        self.broker.clock.advance(1.5)
        self.assertEqual(forces + 1, journal.forces)

    def test_modes(self) -> None:
        """The numbers are those of ``flushTxLogAtCommit``."""
        self.assertEqual([0, 1, 2], [mode.value for mode in FlushMode])


class RecoveryFaultTests(RecoveryTestCase):
    """What recovery could get wrong."""

    XID = XATransactionId(1, b"\xaa", b"\xbb", "app")

    def test_new_transaction_beside_an_outcome(self) -> None:
        """An xid whose outcome was decided by hand may be used again; it is not lost at a start."""
        for outcome, expected in ((Heuristic.COMMITTED, 2), (Heuristic.ROLLED_BACK, 2)):
            self.broker.stop()
            self.write_redo(50, append(XA), prepare(XA))
            outcomes = encode_heuristic_log({self.XID: outcome})
            Path(self.journal, "heuristic.log").write_bytes(outcomes)
            self.start()
            self.assertEqual([XA] * expected, self.recovered())
            self.assertOk(self.step(XA, "ROLLBACK"))
            self.step(XA, "FORGET")

    def test_in_flight_where_nothing_can_be_compacted(self) -> None:
        """Messages of a transaction that was in flight belong to no later one of the same key."""
        self.fill(XA, b"stale")
        disk = BreakingDisk()
        disk.failing["overwrite"] = 1
        self.restart(journal_disk=disk)
        self.assertEqual(["redo.1"], self.redo_names())
        self.fill(XA, b"fresh")
        self.step(XA, "PREPARE")
        self.restart()
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"fresh"], self.messages())

    def test_many_prepared(self) -> None:
        """Each file is read once for all transactions in it."""
        self.broker.stop()
        keys = [f"XID:{number}:aa:bb:app" for number in range(300)]
        self.write_redo(9, *(each(key) for key in keys for each in (append, prepare)))
        reads: list[str] = []
        read = rebuilding.read_file

        def count(path: str) -> bytes:
            reads.append(path)
            return read(path)

        self.patch(rebuilding, "read_file", count)
        self.start()
        self.assertEqual(keys, self.recovered())
        self.assertLessEqual(len(reads), 4)

    def test_direct_mode(self) -> None:
        """A block that is missing is stored, and flushed, in the default mode of a store too."""
        self.restart(unflush_threshold=1000)
        self.fill(LOCAL, b"one")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.broker.clock.advance(1)
        segment = Path(self.directory, "test-0", f"{0:020d}.meta")
        os.truncate(segment, 10)
        self.restart(unflush_threshold=1000)
        self.broker.clock.advance(1)
        self.assertEqual([b"one"], self.messages())

    def test_block_of_several_segments(self) -> None:
        """A block larger than a segment is one piece of one segment, and the log continues."""
        self.restart(max_segment_size=100)
        self.step(LOCAL2, "BEGIN")
        for number in range(5):
            self.put(LOCAL2, b"%d" % number * 50)
        self.assertOk(self.step(LOCAL2, "COMMIT_ONE_PHASE"))
        self.broker.clock.advance(1)
        self.client.send(b"put test 0 5 0 -1 7\r\nplain")
        store = self.broker.stores.get("test", 0)
        assert store is not None
        self.assertEqual([0, 350], [segment.start for segment in store.segments])
        self.restart(max_segment_size=100)
        self.assertEqual(5, len(self.messages()))

    def test_topic_removed_before_the_start(self) -> None:
        """Its prepared messages are listed, over two starts, and can be committed; a commit whose
        partition is there is compared with it whatever the configuration says."""
        self.fill(LOCAL, b"one")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.fill(XA, b"two")
        self.step(XA, "PREPARE")
        os.truncate(Path(self.directory, "test-0", f"{0:020d}.meta"), 0)
        self.restart(topics={"other": {}})
        self.assertEqual([b"one"], self.messages())
        self.restart(topics={"other": {}})
        self.assertEqual([XA], self.recovered())
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"one", b"two"], self.messages())

    def test_removed_topic(self) -> None:
        """Messages prepared for a topic that a reload or a restart has removed can be committed."""
        self.step(XA, "BEGIN")
        self.put(XA)
        self.step(XA, "PREPARE")
        without = replace(self.broker.config, topics={})
        self.broker.responders.rules.reconfigure(without, self.broker.settings)
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"hello"], self.messages())
