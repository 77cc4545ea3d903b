"""
Crashes and restarts: the rows T30 to T53 of section 18 of the specification that need no process. A
killed broker is dropped as it is; the next one opens what stands on the disk.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from metamorphosis.errors import JournalError
from metamorphosis.message import HEADER, checksum
from metamorphosis.store.disk import Disk
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.transactions import replay, stored
from metamorphosis.transactions.heuristiclog import Heuristic, encode_heuristic_log
from metamorphosis.transactions.locations import NOWHERE, Location, encode_locations
from metamorphosis.transactions.records import (
    Operation,
    OperationType,
    encode_operation,
    read_records,
)
from metamorphosis.transactions.recovery import Recovery
from metamorphosis.wire.transactionids import XATransactionId
from tests.support.crashdisk import CrashDisk, Killed, Platters
from tests.support.transactional import TransactionalBroker
from tests.unit.transactions.test_redolog import BreakingDisk
from tests.unit.transactions.test_replay import JOURNALS, PREPARED, append, commit, prepare
from tests.unit.transactions.test_steps import LOCAL, XA, XA2, StepsTestCase


class RecoveryTestCase(StepsTestCase):
    """A broker that is killed, stopped and started again."""

    def setUp(self) -> None:
        self.logs: list[tuple[LogLevel, str]] = []

        def observe(event: dict[str, Any]) -> None:
            if event.get("log_format"):
                text = str(event["log_format"]).format_map(event)
                self.logs.append((event["log_level"], text))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.directory = os.path.abspath(self.mktemp())
        self.start()

    def start(self, **settings: Any) -> None:
        """Whatever the last one has left."""
        self.broker = TransactionalBroker(self.directory, **settings)
        self.client = self.broker.client()

    @property
    def journal(self) -> str:
        """The journal's directory."""
        return os.path.join(self.directory, "transactions")

    def redo_names(self) -> list[str]:
        """The redo files there are."""
        return sorted(name for name in os.listdir(self.journal) if name.startswith("redo."))

    def write_redo(self, number: int, *records: bytes) -> None:
        """A file that another broker has left; called while none runs."""
        os.makedirs(self.journal, exist_ok=True)
        Path(self.journal, f"redo.{number}").write_bytes(b"".join(records))

    def restart(self, orderly: bool = False, **settings: Any) -> None:
        """Kill it, or stop it, and start the next one."""
        if orderly:
            self.broker.stop()
        self.start(**settings)

    def recovered(self) -> list[str]:
        """What RECOVER says."""
        status, text = self.step("null", "RECOVER")
        self.assertEqual(200, status)
        return text.split("\r\n") if text else []

    def fill(self, key: str, *bodies: bytes, partition: int = 0) -> None:
        """Begin a transaction and put these."""
        self.step(key, "BEGIN")
        for body in bodies:
            self.assertEqual(200, self.put(key, body, partition=partition)[0])

    def logged(self, level: LogLevel) -> list[str]:
        """What was logged."""
        return [text for each, text in self.logs if each is level]


class CrashTests(RecoveryTestCase):
    """T32 to T39, T46."""

    def test_t32_t33_before_the_end(self) -> None:
        """Puts without an outcome are gone, and so is the transaction."""
        self.fill(LOCAL, b"local")
        self.fill(XA, b"xa")
        self.restart()
        self.assertEqual([], self.recovered())
        self.assertEqual(500, self.step(LOCAL, "COMMIT_ONE_PHASE")[0])
        self.assertEqual(500, self.step(XA, "PREPARE")[0])
        self.assertEqual([], self.messages())

    def test_t34_t35_prepared(self) -> None:
        """Stays so over any number of restarts of both kinds, then commits exactly once."""
        self.fill(XA, b"one", b"two")
        self.step(XA, "PREPARE")
        for orderly in (False, True, False, False, True):
            self.restart(orderly)
            self.assertEqual([XA], self.recovered())
            self.assertEqual(1, len(self.redo_names()))
            self.client.send(b"put test 0 5 0 -1 7\r\nplain")
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.restart()
        self.assertEqual([b"plain"] * 5 + [b"one", b"two"], self.messages())
        self.assertEqual([], self.recovered())

    def test_prepared_is_rolled_back(self) -> None:
        """After a restart, too."""
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")
        self.restart()
        self.assertOk(self.step(XA, "ROLLBACK"))
        self.restart()
        self.assertEqual(([], []), (self.recovered(), self.messages()))

    def test_t36_record_without_block(self) -> None:
        """The block is stored at the start, where the record says, and only once."""
        self.fill(LOCAL, b"one", b"two")
        self.put(LOCAL, b"other", partition=1)
        self.client.send(b"put test 0 5 0 -1 7\r\nplain")
        self.broker.threads.hold()  # the force never ends, so that no block is written
        self.client.send(f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode())
        for _ in range(3):
            self.restart()
            self.assertEqual([b"plain", b"one", b"two"], self.messages())
            self.assertEqual([b"other"], self.messages(partition=1))
        self.assertEqual(1, sum("have been stored" in text for text in self.logged(LogLevel.info)))

    def test_t38_half_a_block(self) -> None:
        """Whatever part of it was written, torn or whole records: no message twice or torn."""
        self.client.send(b"put test 0 5 0 -1 7\r\nplain")
        self.fill(LOCAL, b"one", b"two", b"three")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        redo = self.broker.redo()
        segment = Path(self.directory, "test-0", f"{0:020}.meta")
        whole = segment.read_bytes()
        for cut in range(25, len(whole) + 1):
            shutil.rmtree(self.journal)
            self.write_redo(1, redo)
            segment.write_bytes(whole[:cut])
            self.start()
            self.assertEqual([b"plain", b"one", b"two", b"three"], self.messages(), cut)
            self.assertEqual(whole, segment.read_bytes())

    def test_t39_repeated_commit(self) -> None:
        """Finds nothing."""
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.restart()
        self.assertEqual([b"one"], self.messages())
        self.assertIn("code=-4", self.step(XA, "COMMIT_TWO_PHASE")[1])

    def test_t46_plain_puts_beside(self) -> None:
        """Offsets of a recovered transaction and of plain puts never meet."""
        self.fill(XA, b"prepared")
        self.step(XA, "PREPARE")
        self.restart()
        _, text = self.reply(self.client.send(b"put test 0 5 0 -1 7\r\nplain"))
        self.assertEqual("0", text.split(" ")[2])
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        _, text = self.reply(self.client.send(b"put test 0 5 0 -1 7\r\nplain"))
        self.assertEqual(str(25 + 28), text.split(" ")[2])
        self.assertEqual([b"plain", b"prepared", b"plain"], self.messages())


class DamageTests(RecoveryTestCase):
    """T40 to T45, T47."""

    def test_t40_torn_tail(self) -> None:
        """Cut at every byte of the last record: what stands before it counts, the rest is cut."""
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")
        self.fill(XA2, b"two")
        self.step(XA2, "PREPARE")
        data = self.broker.redo()
        *_, last = read_records(data)
        for cut in range(last.position, last.end):
            shutil.rmtree(self.journal)
            self.write_redo(4, data[:cut])
            self.logs.clear()
            self.start()
            self.assertEqual([XA], self.recovered())
            lines = [text for text in self.logged(LogLevel.warn) if "truncated" in text]
            self.assertEqual(int(cut > last.position), len(lines))
            for line in lines:
                self.assertIn(f"redo.4 at position {last.position}", line)
            self.assertEqual(["redo.5"], self.redo_names())

    def test_t41_garbage(self) -> None:
        """Zeros, a negative length, text: cut off, never obeyed."""
        for garbage in (b"\0\0", b"\0" * 5000, b"\xff" * 9, b"put test 0 1 0 7\r\nx"):
            shutil.rmtree(self.journal)
            self.write_redo(1, append(XA), prepare(XA), garbage)
            self.start()
            self.assertEqual([XA], self.recovered())

    def test_damaged_middle(self) -> None:
        """Of an older file, or much of the last one: a copy is kept and an error says what it may
        have cost."""
        damaged = append(XA) + prepare(XA) + b"\0" * 50 + append(XA2) + prepare(XA2)
        shutil.rmtree(self.journal)
        self.write_redo(1, damaged)
        self.write_redo(2, append("XID:3:aa:bb:q"), prepare("XID:3:aa:bb:q"))
        self.logs.clear()
        self.start()
        self.assertEqual([XA, "XID:3:aa:bb:q"], self.recovered())
        aside = Path(self.journal, "damaged-redo.1.1")
        self.assertEqual(damaged, aside.read_bytes())
        (line,) = [text for text in self.logged(LogLevel.error) if text.startswith("Damaged:")]
        self.assertIn(str(aside), line)
        shutil.rmtree(self.journal)
        self.write_redo(1, append(XA), prepare(XA), b"\0" * (1 << 20))
        self.start()
        self.assertTrue(Path(self.journal, "damaged-redo.1.1").exists())

    def test_harmed_commit(self) -> None:
        """
        A power cut before the force may leave a commit whole and a put before it changed: that
        transaction was not answered and is dropped, whatever byte it is. Others are stored.
        """
        self.fill(LOCAL, b"before")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        start = len(self.broker.redo())
        self.fill(LOCAL, b"0123456789")
        self.put(LOCAL, b"other", partition=1)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.fill(LOCAL, b"after")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        redo = self.broker.redo()
        places = [*range(redo.index(b"put", start), redo.index(b"0123456789") + 10)]
        dropped = ([b"before", b"after"], [])
        for at in (*places, redo.index(b"other") + 1):
            shutil.rmtree(self.directory)
            self.write_redo(1, redo[:at], bytes([redo[at] ^ 1]), redo[at + 1 :])
            for _ in range(2):
                self.start()
                found = self.messages(), self.messages(partition=1)
                if found != dropped:  # the checksum or the opaque, neither of which is stored
                    self.assertEqual(([b"before", b"0123456789", b"after"], [b"other"]), found, at)
                    self.assertIn(redo[at : at + 1], b"17")
        lines = [text for text in self.logged(LogLevel.error) if text.startswith("Damaged:")]
        self.assertIn(f"transactions/damaged-redo.1.1: {LOCAL}", lines[-1])

    def test_harmed_prepare(self) -> None:
        """A prepared one whose put cannot be read is dropped, the broker starts."""
        shutil.rmtree(self.journal)
        harmed = append(XA2).replace(b"put t 0 1", b"put t 0 2")
        self.write_redo(1, append(XA), harmed, prepare(XA2), prepare(XA))
        for _ in range(2):
            self.start()
            self.assertEqual([XA], self.recovered())
        (line,) = [text for text in self.logged(LogLevel.error) if text.startswith("Damaged:")]
        self.assertIn(XA2, line)

    def test_t42_store_is_gone(self) -> None:
        """Every committed block is stored again, once; a second restart changes nothing."""
        for number in range(3):
            self.fill(LOCAL, b"%d" % number, b"more")
            self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        shutil.rmtree(os.path.join(self.directory, "test-0"))
        for _ in range(2):
            self.restart()
            expected = [b"0", b"more", b"1", b"more", b"2", b"more"]
            self.assertEqual(expected, self.messages())

    def test_t43_expired_segment(self) -> None:
        """A block that retention has deleted is not stored again; the prepared one survives."""
        self.broker.stop()
        shutil.rmtree(self.journal)
        self.write_redo(1, append(LOCAL), commit(LOCAL), append(XA), prepare(XA))
        segment = Path(self.directory, "t-0", f"{1000:020}.meta")
        segment.parent.mkdir()
        segment.write_bytes(b"")
        self.start(topics={"t": {}})
        self.assertEqual([XA], self.recovered())
        self.assertEqual(0, segment.stat().st_size)

    def test_overwritten_by_the_original(self) -> None:
        """
        The original may put a later message where a committed block stood (BUG-13): the block is
        stored once more at the end, and the later message stays where it was acknowledged.
        """
        self.fill(XA, b"lost!", b"too!!")
        self.assertOk(self.step(XA, "COMMIT_ONE_PHASE"))
        redo = self.broker.redo()
        self.broker.stop()
        segment = Path(self.directory, "test-0", f"{0:020}.meta")
        later = HEADER.pack(5, checksum(b"later"), 7, 0) + b"later"
        segment.write_bytes(later * 2)
        shutil.rmtree(self.journal)
        self.write_redo(1, redo)
        for _ in range(2):
            self.start()
            self.assertEqual([b"later", b"later", b"lost!", b"too!!"], self.messages())

    def test_t45_unknown_topic(self) -> None:
        """Others are not affected; one line says so."""
        self.broker.stop()
        shutil.rmtree(self.journal)
        self.write_redo(1, append(LOCAL), commit(LOCAL), append(XA), prepare(XA))
        self.logs.clear()
        self.start()  # it has no topic t
        self.assertEqual([XA], self.recovered())
        self.assertEqual(1, sum("t-0" in text for text in self.logged(LogLevel.warn)))

    def test_t47_two_files(self) -> None:
        """A crash during compaction: each transaction is there once."""
        self.broker.stop()
        shutil.rmtree(self.journal)
        self.write_redo(1, append(XA), append(XA2), prepare(XA), prepare(XA2))
        self.write_redo(2, append(XA), prepare(XA), append(XA2))
        self.start(topics={"t": {}})
        self.assertEqual([XA], self.recovered())
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"x"], self.messages("t"))

    def test_t52_checkpoint(self) -> None:
        """A Java checkpoint bounds the numbers from below; a damaged one is passed over."""
        self.broker.stop()
        shutil.rmtree(self.journal)
        self.write_redo(3, append(XA), prepare(XA))
        Path(self.journal, "checkpoint.8").write_bytes(b'{"number":12,"offset":0}')
        Path(self.journal, "checkpoint.9").write_bytes(b'{"number":')
        self.start()
        self.assertEqual(([XA], ["redo.13"]), (self.recovered(), self.redo_names()))
        self.assertEqual(1, sum("checkpoint.9" in text for text in self.logged(LogLevel.warn)))

    def test_c73_names_that_are_no_numbers(self) -> None:
        """C73: such files are left alone, and the journal beside them is recovered."""
        self.broker.stop()
        shutil.rmtree(self.journal)
        self.write_redo(3, append(XA), prepare(XA))
        names = [
            "redo.x",
            "redo.",
            "redo.4.bak",
            "redo.-5",
            "checkpoint.old",
            "checkpoint.",
            "redo.\u0664",
        ]
        for name in names:
            Path(self.journal, name).write_bytes(b"not of the journal")
        self.start()
        self.assertEqual([XA], self.recovered())
        for name in names:
            self.assertEqual(b"not of the journal", Path(self.journal, name).read_bytes(), name)

    def test_recorded_journals(self) -> None:
        """Directories of the original: what it had prepared is prepared."""
        for name, keys in (
            ("xa-prepared", [PREPARED]),
            ("xa-committed", []),
            ("one-prepared-of-many", [PREPARED]),
            ("local-finished", []),
        ):
            shutil.rmtree(self.journal)
            os.makedirs(self.journal)
            shutil.copy(JOURNALS / name, os.path.join(self.journal, "redo.1"))
            self.start()
            self.assertEqual(keys, self.recovered(), name)


class LongRecoveryTests(RecoveryTestCase):
    """A recovery says every few seconds how far it is."""

    def progress(self) -> list[str]:
        """The lines that say so, without their common part."""
        head = "Recovering the transaction journal: "
        return [
            text.removeprefix(head) for text in self.logged(LogLevel.info) if text.startswith(head)
        ]

    def test_within_a_file(self) -> None:
        """Also while one file is read, compared and stored; nothing is said when it has ended."""
        self.broker.stop()
        places = encode_locations([Location("test-0", NOWHERE, 21, 0)])
        record = encode_operation(Operation(OperationType.LOCAL_COMMIT, LOCAL), places)
        transaction = append(LOCAL, "x" * 100_000, "test") + record
        shutil.rmtree(self.journal)
        self.write_redo(7, append(XA))
        self.write_redo(8, transaction * 30)
        clocks: list[Clock] = []

        def slow(step: Callable[..., Any], seconds: float) -> Callable[..., Any]:
            def stepped(*args: Any, **kwargs: Any) -> Any:
                clocks[0].advance(seconds)
                return step(*args, **kwargs)

            return stepped

        def init(recovery: Recovery, *args: Any) -> None:
            clocks.append(args[3])
            made(recovery, *args)

        made = Recovery.__init__
        self.patch(Recovery, "__init__", init)
        self.patch(replay, "read_run", slow(replay.read_run, 0.5))
        self.patch(stored, "_is_stored", slow(stored._is_stored, 0.5))
        self.patch(MessageStore, "append", slow(MessageStore.append, 0.3))
        self.start()
        lines = self.progress()
        name = os.path.join(self.journal, "redo.8")
        for text, count in (
            (f"{name}, file 2 of 2: 1 of 3 MiB are read", 2),
            (f"{name}, file 2 of 2: 18 of 30 commits are compared with the store", 1),
            (f"{name}, file 2 of 2: 15 of 30 missing blocks are stored", 1),
        ):
            self.assertEqual(count, lines.count(text), lines)
        self.broker.clock.advance(60)
        self.assertEqual(lines, self.progress())

    def test_short(self) -> None:
        """A short one says nothing."""
        self.broker.stop()
        self.write_redo(7, append(XA), prepare(XA))
        self.start()
        self.assertEqual([], self.progress())


class PlaceTests(RecoveryTestCase):
    """Commits that name no place for one of their partitions."""

    STORED_0 = HEADER.pack(1, checksum(b"x"), 9, 0) + b"x"

    def setUp(self) -> None:
        super().setUp()
        self.broker.stop()
        shutil.rmtree(self.journal)

    def commit(self, key: str, *locations: Location, prepared: bool = False) -> bytes:
        """The end of a transaction."""
        kind = OperationType.LOCAL_COMMIT if key == LOCAL else OperationType.XA_COMMIT
        return encode_operation(Operation(kind, key, prepared), encode_locations(locations))

    def write(self) -> None:
        """One whose block of partition 0 stands in the store, that of partition 1 nowhere; one
        without any place; one for a topic that is gone; one whose append has failed in the
        original; and one that is prepared."""
        shutil.rmtree(self.directory)
        os.makedirs(os.path.join(self.directory, "test-0"))
        Path(self.directory, "test-0", f"{0:020d}.meta").write_bytes(self.STORED_0)
        place = Location("test-0", 0, len(self.STORED_0), checksum(self.STORED_0))
        gone, failed = "XID:5:aa:bb:gone", "XID:6:aa:bb:failed"
        self.write_redo(
            3,
            append(LOCAL, "x", "test"),
            append(XA, "listed", "test"),
            append(LOCAL, "second", "test", 1),
            append(XA2, "third", "test"),
            append(gone, "lost", "gone"),
            append(failed, "fourth", "test"),
            self.commit(LOCAL, place),
            prepare(XA),
            prepare(XA2),
            self.commit(gone),
            self.commit(XA2, prepared=True),
            self.commit(failed, Location("test-0", NOWHERE, 7, 7)),
            append("TX:s:77", "open", "test"),
            b"\0\0torn",
        )

    def judge(self) -> None:
        """Everything is there once; zeros that a power cut has left are empty messages (D-6)."""
        self.assertEqual([b"x", b"third", b"fourth"], list(filter(None, self.messages())))
        self.assertEqual([b"second"], self.messages(partition=1))
        self.assertEqual([XA], self.recovered())

    def test_stored(self) -> None:
        """The block is stored, whatever stands around it, and once only."""
        self.write()
        self.start()
        self.judge()
        self.restart()
        self.judge()
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"x", b"third", b"fourth", b"listed"], self.messages())

    def test_recovery_dies(self) -> None:
        """At each of its calls, with the power or without: the next one stores the rest."""
        for power in (False, True):
            number = 0
            dead = True
            while dead:
                number += 1
                self.write()
                platters = Platters(self.directory, random.Random(number))
                for path, directories, names in os.walk(self.directory):
                    platters.names[path] = {*directories, *names}
                    for name in names:
                        platters.synced(os.path.join(path, name))
                disk = CrashDisk(platters, number, torn=True)
                try:
                    TransactionalBroker(self.directory, journal_disk=disk, disk=disk)
                except Killed:
                    pass
                dead = disk.dead
                disk.end()
                if power:
                    platters.cut_power()
                self.start()
                self.judge()
            self.assertGreater(number, 15)
        gc.collect()
        self.flushLoggedErrors(Killed)


class HeuristicTests(RecoveryTestCase):
    """T30, T48: outcomes that an administrator decided."""

    XID = XATransactionId(1, b"\xaa", b"\xbb", "app")

    def test_kept(self) -> None:
        """Over a kill right after the decision."""
        self.broker.transactions.heuristic[self.XID] = Heuristic.COMMITTED
        self.broker.service.outcomes.write(self.broker.transactions.heuristic)
        self.restart()
        self.assertIn("code=7", self.step(XA, "COMMIT_ONE_PHASE")[1])
        self.assertOk(self.step(XA, "FORGET"))
        self.restart()
        self.assertEqual([], self.recovered())

    def test_t30_completed_by_java(self) -> None:
        """The original leaves it prepared in the journal: it is listed once, and never visible."""
        self.broker.stop()
        self.write_redo(7, append(XA), prepare(XA))
        outcomes = {self.XID: Heuristic.COMPLETED}
        Path(self.journal, "heuristic.log").write_bytes(encode_heuristic_log(outcomes))
        self.start()
        self.assertEqual([XA], self.recovered())
        self.assertIn("code=8", self.step(XA, "COMMIT_TWO_PHASE")[1])
        self.restart()
        self.assertOk(self.step(XA, "FORGET"))
        self.restart()
        self.assertEqual([], self.recovered())

    def test_unreadable(self) -> None:
        """Is moved aside with an error; the broker starts."""
        self.broker.stop()
        Path(self.journal, "heuristic.log").write_bytes(b"\xac\xed\x00\x05 what is this")
        self.start()
        self.assertEqual([], self.recovered())
        self.assertTrue(Path(self.journal, "damaged-heuristic.log.1").exists())
        self.assertEqual(1, sum("heuristic.log" in text for text in self.logged(LogLevel.error)))


class BrokenDiskTests(RecoveryTestCase):
    """A disk that fails during the recovery."""

    def test_cannot_compact(self) -> None:
        """A full disk: the files stay, prepared transactions are there, and the next start tries
        again."""
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")
        self.fill(XA2, b"open")
        for failing in ("overwrite", "write", "replace"):
            disk = BreakingDisk()
            disk.failing[failing] = 1
            self.restart(journal_disk=disk)
            self.assertEqual([XA], self.recovered())
            self.assertEqual(["redo.1"], self.redo_names())
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.restart()
        self.assertEqual(([b"one"], []), (self.messages(), self.recovered()))

    def test_cannot_read(self) -> None:
        """The start fails and names the file."""
        self.broker.stop()
        os.mkdir(os.path.join(self.journal, "redo.77"))
        error = self.assertRaises(JournalError, self.start)
        self.assertIn("redo.77", str(error))

    def test_cannot_cut(self) -> None:
        """Likewise."""
        self.broker.stop()
        self.write_redo(9, b"garbage")
        disk = BreakingDisk()
        disk.failing["truncate"] = 1
        self.assertRaises(JournalError, self.start, journal_disk=disk)

    def test_stop_cannot_compact(self) -> None:
        """The files stay as they are, and nothing is lost."""
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")

        def refuse(disk: Disk, path: str) -> int:
            raise OSError(28, "No space left on device")

        self.patch(Disk, "overwrite", refuse)
        self.broker.stop()
        self.assertEqual(["redo.1"], self.redo_names())


class QuietTests(RecoveryTestCase):
    """What a running broker does with finished records."""

    def test_new_file_every_interval(self) -> None:
        """When nothing is open; a prepared transaction keeps the file."""
        self.fill(LOCAL, b"one")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.broker.clock.advance(3601)
        self.assertEqual(["redo.2"], self.redo_names())
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")
        self.broker.clock.advance(3601)
        self.assertEqual(["redo.2"], self.redo_names())

    def test_orderly_stop(self) -> None:
        """T50: one file with what is prepared, no file with anything else."""
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")
        self.fill(LOCAL, b"open")
        self.fill(XA2, b"open")
        self.broker.stop()
        (name,) = self.redo_names()
        data = Path(self.journal, name).read_bytes()
        self.assertEqual(2, len(list(read_records(data))))
        self.restart()
        self.assertEqual([XA], self.recovered())

    def test_nothing_open(self) -> None:
        """Stops and starts of a broker that has no transactions make no new files."""
        for _ in range(3):
            self.restart(orderly=True)
        self.assertEqual(["redo.1"], self.redo_names())
