"""The journal's files: what is written when, what is forced for whom, what a broken disk does."""

from __future__ import annotations

import errno
import itertools
import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import JournalError
from metamorphosis.store.batch import FAILED, PENDING, STORED
from metamorphosis.store.disk import Disk
from metamorphosis.threads import SynchronousThreads
from metamorphosis.transactions.redofile import RedoFile, Written
from metamorphosis.transactions.redolog import FlushMode, JournalEnvironment, RedoLog


class BreakingDisk(Disk):
    """A disk whose calls fail when told to, and that counts them."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}  # call: how often it still fails
        self.error = errno.EIO  # why
        self.shortest = 0  # bytes that a write takes before it fails
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.failing.get(name, 0) > 0:
            self.failing[name] -= 1
            raise OSError(self.error, os.strerror(self.error))

    def create(self, path: str) -> int:
        """See ``Disk``."""
        self._call("create")
        return super().create(path)

    def overwrite(self, path: str) -> int:
        """See ``Disk``."""
        self._call("overwrite")
        return super().overwrite(path)

    def replace(self, path: str, by: str) -> None:
        """See ``Disk``."""
        self._call("replace")
        super().replace(path, by)

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """See ``Disk``; what fails was written in part."""
        if self.failing.get("write") and self.shortest:
            super().write(fd, data[: self.shortest], position)
        self._call("write")
        return super().write(fd, data, position)

    def truncate(self, fd: int, size: int) -> None:
        """See ``Disk``."""
        self._call("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        """See ``Disk``."""
        self._call("sync")
        super().sync(fd)

    def sync_directory(self, path: str) -> None:
        """See ``Disk``."""
        self._call("sync_directory")
        super().sync_directory(path)


class RedoLogTestCase(SynchronousTestCase):
    """A journal on a real directory with a disk that can break."""

    mode = FlushMode.AT_COMMIT

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.disk = BreakingDisk()
        self.threads = SynchronousThreads()
        self.clock = Clock()
        self.dirty: list[RedoLog] = []
        self.numbers = itertools.count()
        self.broken: list[BaseException] = []
        self.log = self.open()

    def open(self, limit: int = 100) -> RedoLog:
        """A journal without files."""
        environment = JournalEnvironment(
            self.threads, self.clock, self.dirty.append, self.broken.append, self.disk
        )
        return RedoLog(self.directory, environment, self.mode, limit=limit)

    def end_turn(self) -> None:
        """What the broker's turn does."""
        while self.dirty:
            self.dirty.pop().commit()

    def content(self, number: int = 1) -> bytes:
        """What is in a redo file."""
        with open(os.path.join(self.directory, f"redo.{number}"), "rb") as file:
            return file.read()

    def names(self) -> list[str]:
        """The redo files there are."""
        return sorted(os.listdir(self.directory))

    def key(self) -> str:
        """Of another transaction each time."""
        return f"TX:s:{next(self.numbers)}"

    def take(self, record: bytes, force: bool = False) -> tuple[RedoFile, Written]:
        """The only record of a transaction."""
        file = self.log.begin(self.key())
        return file, self.append(file, record, force)

    def append(self, file: RedoFile, record: bytes, force: bool = False) -> Written:
        """One more record."""
        written = self.log.append(file, (record,))
        return self.log.force(file, written) if force else written


class WriteTests(RedoLogTestCase):
    """Records of a turn."""

    def test_one_write_a_turn(self) -> None:
        """Records have their positions at once and are written together, without a force."""
        file = self.log.begin(self.key())
        first = self.append(file, b"first")
        self.assertEqual(5, file.end)
        self.assertIs(first, self.append(file, b"second"))
        self.assertEqual((1, b"", PENDING), (len(self.dirty), self.content(), first.state))
        self.end_turn()
        self.assertEqual((b"firstsecond", STORED), (self.content(), first.state))
        self.assertEqual(["create", "write"], self.disk.calls)

    def test_waiters(self) -> None:
        """Are called once."""
        _, written = self.take(b"x")
        called: list[str] = []
        written.waiters.append(lambda: called.append("written"))
        self.end_turn()
        self.end_turn()
        self.assertEqual(["written"], called)

    def test_short_writes(self) -> None:
        """Are continued."""
        self.patch(Disk, "write", lambda disk, fd, data, at: os.pwrite(fd, data[:3], at))
        self.take(b"0123456789")
        self.end_turn()
        self.assertEqual(b"0123456789", self.content())

    def test_wrote_nothing(self) -> None:
        """Ends, as an error."""
        self.patch(Disk, "write", lambda disk, fd, data, at: 0)
        _, written = self.take(b"x")
        self.end_turn()
        self.assertIs(FAILED, written.state)

    def test_failed(self) -> None:
        """The file is cut, the records are refused, the next ones are written in their place."""
        self.take(b"kept")
        self.end_turn()
        self.disk.failing["write"] = 1
        self.disk.shortest = 2
        _, lost = self.take(b"lost")
        forced = self.append(self.log.files[0], b"too", force=True)
        self.end_turn()
        self.assertEqual((FAILED, FAILED), (lost.state, forced.state))
        self.assertIsInstance(lost.error, OSError)
        self.assertEqual(b"kept", self.content())
        self.assertEqual(4, self.log.files[0].end)
        written = self.append(self.log.files[0], b"next")
        self.end_turn()
        self.assertEqual((b"keptnext", STORED), (self.content(), written.state))

    def test_cut_fails_too(self) -> None:
        """Nothing is written until the file could be cut."""
        self.disk.failing.update(write=1, truncate=2)
        self.disk.shortest = 2
        outcomes = []
        for _ in range(3):
            _, written = self.take(b"record")
            self.end_turn()
            outcomes.append(written.state)
        self.assertEqual([FAILED, FAILED, STORED], outcomes)
        self.assertEqual(b"record", self.content())

    def test_cut_fails_after_a_whole_record(self) -> None:
        """The next start may find it: no client gets an error, and the journal is given up."""
        self.take(b"kept")
        self.end_turn()
        self.disk.failing.update(write=1, truncate=1)
        self.disk.shortest = 7
        file, lost = self.take(b"lost")
        forced = self.append(file, b"too", force=True)
        self.end_turn()
        self.assertEqual((PENDING, PENDING), (lost.state, forced.state))
        self.assertEqual(b"keptlosttoo", self.content())
        self.assertEqual(1, len(self.broken))
        self.assertRaises(JournalError, self.append, file, b"more")
        self.assertRaises(JournalError, self.log.begin, "key")

    def test_cut_fails_and_nothing_was_written(self) -> None:
        """A disk that has become read-only: refused, however often."""
        self.disk.failing.update(write=1, truncate=3)
        states = []
        for record in (b"a long record", b"a", b"b", b"c"):
            _, written = self.take(record)
            self.end_turn()
            states.append(written.state)
        self.assertEqual([FAILED, FAILED, FAILED, STORED], states)
        self.assertEqual((b"c", []), (self.content(), self.broken))

    def test_rest_is_longer_than_the_next_record(self) -> None:
        """The rest of a refused long record is not a whole short one."""
        self.disk.failing.update(write=1, truncate=2)
        self.disk.shortest = 8
        for record in (b"a long record", b"short"):
            _, written = self.take(record)
            self.end_turn()
            self.assertIs(FAILED, written.state)
        self.assertEqual([], self.broken)


class ForceTests(RedoLogTestCase):
    """Flush mode 1: one force for all waiting records."""

    def test_forced(self) -> None:
        """A force comes after the write; the first one of a file covers its directory entry."""
        _, forced = self.take(b"x", force=True)
        self.threads.hold()
        self.end_turn()
        self.assertIs(PENDING, forced.state)
        self.threads.release()
        self.assertIs(STORED, forced.state)
        self.assertEqual(["create", "write", "sync", "sync_directory"], self.disk.calls)
        self.take(b"y", force=True)
        self.end_turn()
        self.assertEqual(["write", "sync"], self.disk.calls[4:])

    def test_group(self) -> None:
        """What is written while a force runs waits for the next one, all together."""
        self.threads.hold()
        _, first = self.take(b"1", force=True)
        self.end_turn()
        later = []
        for record in (b"2", b"3", b"4"):
            later.append(self.take(record, force=True)[1])
            self.end_turn()
        self.threads.release()
        self.assertEqual([STORED] * 4, [each.state for each in (first, *later)])
        self.assertEqual(2, self.log.forces)

    def test_failed(self) -> None:
        """The journal is broken: it answers and accepts nothing, and tells the broker once."""
        self.disk.failing["sync"] = 1
        file, forced = self.take(b"x", force=True)
        self.end_turn()
        self.assertIs(PENDING, forced.state)
        self.assertEqual(1, len(self.broken))
        self.assertRaises(JournalError, self.log.begin, "key")
        self.assertRaises(JournalError, self.append, file, b"y")

    def test_append_is_not_forced(self) -> None:
        """A put in a transaction waits for the write only."""
        self.take(b"x")
        self.end_turn()
        self.assertNotIn("sync", self.disk.calls)


class EverySecondTests(RedoLogTestCase):
    """Flush mode 2."""

    mode = FlushMode.EVERY_SECOND

    def test_every_second(self) -> None:
        """The reply waits for the write; the force follows within a second, once."""
        _, written = self.take(b"x", force=True)
        self.take(b"y", force=True)
        self.end_turn()
        self.assertIs(STORED, written.state)
        self.assertNotIn("sync", self.disk.calls)
        self.clock.advance(1)
        self.assertEqual(1, self.disk.calls.count("sync"))
        self.clock.advance(10)
        self.assertEqual(1, self.disk.calls.count("sync"))
        self.log.close()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_close_ends_the_timer(self) -> None:
        """Nothing is left."""
        self.take(b"x", force=True)
        self.end_turn()
        self.log.close()
        self.assertEqual([], self.clock.getDelayedCalls())


class NeverTests(RedoLogTestCase):
    """Flush mode 0."""

    mode = FlushMode.NEVER

    def test_never(self) -> None:
        """Nothing is forced."""
        _, written = self.take(b"x", force=True)
        self.end_turn()
        self.clock.advance(100)
        self.assertIs(STORED, written.state)
        self.assertNotIn("sync", self.disk.calls)


class FileTests(RedoLogTestCase):
    """Which file takes what, and when it goes."""

    def test_new_file_when_full(self) -> None:
        """A transaction begins in a new file when the current one is over the limit; its records
        stay in the file of its first one."""
        first = self.log.begin(self.key())
        self.append(first, b"x" * 101)
        second = self.log.begin(self.key())
        self.assertEqual((1, 2), (first.number, second.number))
        self.append(first, b"more")
        self.end_turn()
        self.assertEqual(b"x" * 101 + b"more", self.content(1))

    def test_new_file_for_the_same_key(self) -> None:
        """While the first one has no outcome; an unneeded file is removed."""
        first = self.log.begin("key")
        second = self.log.begin("key")
        self.assertEqual((1, 2), (first.number, second.number))
        self.assertEqual(2, self.log.begin("other").number)
        self.log.release(second, "key")
        third = self.log.begin("key")
        self.assertIs(second, third)
        self.log.release(third, None)
        self.assertEqual(3, self.log.begin("key").number)
        self.assertEqual(["redo.1", "redo.2", "redo.3"], self.names())
        self.log.release(first, "key")
        self.assertEqual(["redo.2", "redo.3"], self.names())

    def test_finished_file_goes(self) -> None:
        """When it is over the limit and no transaction of it is open."""
        first = self.log.begin(self.key())
        self.append(first, b"x" * 101)
        self.log.begin(self.key())
        self.end_turn()
        self.assertEqual(["redo.1", "redo.2"], self.names())
        self.log.release(first, None)
        self.assertEqual(["redo.2"], self.names())

    def test_finished_current_file_goes(self) -> None:
        """The next one is made first; numbers never come again."""
        first = self.log.begin(self.key())
        self.append(first, b"x" * 101)
        self.end_turn()
        self.log.release(first, None)
        self.assertEqual(["redo.2"], self.names())
        self.assertEqual(2, self.log.begin(self.key()).number)

    def test_file_stays_while_it_is_forced(self) -> None:
        """It goes when the force is done."""
        first = self.log.begin(self.key())
        self.append(first, b"x" * 101, force=True)
        self.threads.hold()
        self.end_turn()
        self.log.release(first, None)
        self.assertEqual(["redo.1"], self.names())
        self.threads.release()
        self.assertEqual(["redo.2"], self.names())

    def test_small_finished_file(self) -> None:
        """It stays until the next checkpoint; then its records are removed, once."""
        file, _ = self.take(b"x")
        self.assertFalse(self.log.roll_if_finished())
        self.end_turn()
        self.assertFalse(self.log.roll_if_finished())
        self.log.release(file, None)
        self.assertTrue(self.log.roll_if_finished())
        self.assertFalse(self.log.roll_if_finished())
        self.assertEqual(["redo.2"], self.names())

    def test_new_file_cannot_be_made(self) -> None:
        """The transaction is refused with the file's name; the next one is tried again."""
        self.append(self.log.begin(self.key()), b"x" * 101)
        self.end_turn()
        self.disk.failing["create"] = 1
        error = self.assertRaises(JournalError, self.log.begin, "key")
        self.assertIn("redo.2", str(error))
        self.assertEqual(2, self.log.begin(self.key()).number)

    def test_continues(self) -> None:
        """With the last file of the run before if it is not full, with a new number if it is."""
        for size, number in ((100, 7), (101, 9)):
            path = os.path.join(self.directory, "redo.7")
            with open(path, "wb") as made:
                made.write(b"x" * size)
            environment = JournalEnvironment(
                self.threads, self.clock, self.dirty.append, self.broken.append, self.disk
            )
            fd = self.disk.open(path, writable=True)
            file = RedoFile(self.disk, 7, path, fd, size, unsynced=False)
            log = RedoLog(self.directory, environment, self.mode, [file], 9, 100)
            self.assertEqual(number, log.begin("key").number)
            log.close()
