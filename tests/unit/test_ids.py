"""Message ids: layout, uniqueness, order over clock steps and restarts, and the ceiling on disk."""

from __future__ import annotations

import errno
import os
import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreError
from metamorphosis.ids import (
    AHEAD,
    END,
    EPOCH_MS,
    LATEST,
    MILLISECOND,
    RETRY_SECONDS,
    IdCeiling,
    MessageIds,
)
from metamorphosis.threads import SynchronousThreads

NOW = 1385000000.0


class IdsCase(SynchronousTestCase):
    """A clock that the test sets, and a ceiling file."""

    def setUp(self) -> None:
        """Broker 7 in November 2013."""
        self.now = NOW
        self.threads = SynchronousThreads()
        self.path = os.path.abspath(self.mktemp())
        self.faults: list[str] = []
        self.ends: list[str] = []

    def ids(self, broker_id: int = 7) -> MessageIds:
        """Ids of a broker that starts now."""
        ceiling = IdCeiling(self.path)
        return MessageIds(
            broker_id,
            ceiling,
            self.threads,
            lambda: self.now,
            self.faults.append,
            self.ends.append,
        )

    def ceiling(self) -> int:
        """The content of the file."""
        return IdCeiling(self.path).read()


class LayoutTests(IdsCase):
    """Milliseconds, broker, sequence."""

    def test_vector(self) -> None:
        """The example of the wire specification: broker 7, sequence 5."""
        ids = self.ids()
        taken = [ids.take() for _ in range(6)]
        self.assertEqual(taken[5], 340176255569653765)

    def test_fields(self) -> None:
        """42 bits of milliseconds since the epoch, 10 of the broker, 12 of the sequence."""
        one = self.ids(1023).take()
        self.assertEqual(one >> 22, int(NOW * 1000) - EPOCH_MS)
        self.assertEqual((one >> 12 & 0x3FF, one & 0xFFF), (1023, 0))

    def test_sequence_overflow(self) -> None:
        """
        After 4096 ids of a millisecond the next is counted on; the broker's bits never change.
        """
        for broker_id in (0, 7, 1023):
            ids = MessageIds(broker_id, None, self.threads, lambda: self.now)
            taken = [ids.take() for _ in range(3 * 4096)]
            self.assertEqual(sorted(set(taken)), taken)
            self.assertEqual({one >> 12 & 0x3FF for one in taken}, {broker_id})
            self.assertEqual(taken[-1] >> 22, (taken[0] >> 22) + 2)

    def test_hot_path(self) -> None:
        """Read ``next_id``, count, carry, write back: the same ids as one by one."""
        expected = self.ids()
        ids = MessageIds(7, None, self.threads, lambda: self.now)
        found = []
        next_id = ids.start_chunk()
        for _ in range(5000):
            found.append(next_id)
            next_id += 1
            if not next_id & 0xFFF:
                next_id = ids.carry(next_id)
        ids.next_id = next_id
        self.assertEqual(found, [expected.take() for _ in range(5000)])
        self.assertEqual(ids.take(), expected.take())

    def test_broker_id_out_of_range(self) -> None:
        """Refused with the original's words."""
        for broker_id in (-1, 1024):
            error = self.assertRaises(ValueError, self.ids, broker_id)
            self.assertEqual(str(error), "worker Id can't be greater than 1023 or less than 0")


class ClockTests(IdsCase):
    """Ids increase whatever the clock does."""

    def test_clock_moves_on(self) -> None:
        """A chunk in a later millisecond starts with sequence 0 of that millisecond."""
        ids = self.ids()
        first = ids.take()
        self.now += 0.5
        self.assertEqual(ids.take() - first, 500 * MILLISECOND)

    def test_clock_goes_back(self) -> None:
        """Ids are counted on from the last one; nothing is refused, nothing waits."""
        ids = self.ids()
        last = ids.take()
        self.now -= 3600
        self.assertEqual([ids.take() for _ in range(3)], [last + 1, last + 2, last + 3])

    def test_clock_of_1970(self) -> None:
        """Without a battery-backed clock ids are still positive, and increasing over restarts."""
        self.now = 0
        first = self.ids().take()
        second = self.ids().take()
        self.assertGreater(first, 0)
        self.assertGreater(second, first)

    def test_clock_beyond_the_end_of_ids(self) -> None:
        """A clock that cannot be right is not believed: ids stay storable, continue increasing, and
        follow the clock again when it is put right; also over a restart in between."""
        for restart in (False, True):
            self.now = NOW
            ids = self.ids()
            last = ids.take()
            for self.now in (2**31 * 1.0, 3.5e9, 3.53e9, 4e9, 1e11):
                if restart:
                    ids = self.ids()
                one = ids.take()
                self.assertLess(last, one)
                self.assertLess(one, END - 100 * AHEAD)
                self.assertLess(self.ceiling(), END)
                last = one
            self.now = NOW + 60
            if restart:
                ids = self.ids()
            self.assertLess(last, ids.take())
            os.remove(self.path)

    def test_start_beyond_the_end_of_ids(self) -> None:
        """A first start with such a clock, which is then put right."""
        self.now = 1e11
        ids = self.ids()
        self.assertLess(0, ids.take())
        self.now = NOW
        ids.take()
        self.assertEqual(ids.take() >> 22, int(NOW * 1000) - EPOCH_MS)

    def test_the_year_before_the_end_of_ids(self) -> None:
        """A clock is believed up to the last millisecond before that year, and not in its first;
        at a start and while the broker runs."""
        first = (LATEST // MILLISECOND + EPOCH_MS) / 1000
        for seconds, believed in ((first - 0.001, True), (first, False)):
            self.now = NOW
            ids = self.ids(0)
            last = ids.take()
            self.now = seconds
            ids.take()  # its ceiling is written first
            running = ids.take() >> 22
            os.remove(self.path)
            started = self.ids(0).take() >> 22
            os.remove(self.path)
            wanted = (LATEST // MILLISECOND - 1,) * 2 if believed else (last >> 22, 1)
            self.assertEqual(wanted, (running, started))

    def test_ceiling_beyond_the_end_of_ids(self) -> None:
        """What an earlier release wrote with such a clock is not believed either."""
        for ceiling in (END, END + AHEAD, 10**30):
            with open(self.path, "w", encoding="ascii") as file:
                file.write(f"{ceiling}\n")
            self.assertEqual(self.ids().take() >> 22, int(NOW * 1000) - EPOCH_MS)

    def test_random_steps_and_restarts(self) -> None:
        """Seeded steps, bursts, crashes and orderly stops: every id is above every earlier one."""
        generator = random.Random(1)
        ids = self.ids()
        last = -1
        for _ in range(300):
            self.now += generator.choice((0, 0.001, 1, 40, -1, -5000, 90000))
            if generator.random() < 0.2:
                if generator.random() < 0.5:
                    ids.stop()
                ids = self.ids()
            for _ in range(generator.choice((1, 1, 5, 5000))):
                one = ids.take()
                self.assertGreater(one, last)
                last = one


class CeilingTests(IdsCase):
    """The file that outlives the process."""

    def test_restart_after_a_crash(self) -> None:
        """With the clock set back an hour a new start continues above everything given out."""
        last = self.ids().take()
        self.now -= 3600
        self.assertGreater(self.ids().take(), last + AHEAD - MILLISECOND)

    def test_restart_after_an_orderly_stop(self) -> None:
        """The stop leaves the exact id, so that ids do not run ahead of the clock."""
        ids = self.ids()
        last = ids.take()
        ids.stop()
        self.assertEqual(self.ids().take(), (last >> 22) + 1 << 22 | 7 << 12)

    def test_raised_in_time(self) -> None:
        """
        Before the clock reaches the ceiling it is raised in a worker, every half minute at most.
        """
        ids = self.ids()
        first = self.ceiling()
        self.now += 29
        ids.take()
        self.assertEqual(self.ceiling(), first)
        self.now += 2
        taken = ids.take()
        self.assertEqual(self.ceiling(), taken + AHEAD)
        self.assertEqual(([], []), (self.faults, self.ends))  # nothing to tell of

    def test_raised_by_a_burst(self) -> None:
        """Ids that run ahead of a clock that stands still raise it as well."""
        ids = self.ids()
        ids.next_id += AHEAD // 2
        ids.carry((ids.next_id | 0xFFF) + 1)
        self.assertEqual(self.ceiling(), ids.next_id + AHEAD)

    def test_never_passed_while_it_is_being_raised(self) -> None:
        """Until the new ceiling is on the disk ids stay below the old one."""
        ids = self.ids()
        before = self.ceiling()
        self.threads.hold()
        last = ids.take()
        self.now += 90
        taken = [ids.take() for _ in range(10)]
        self.assertEqual((taken[0], taken[-1] < before), (last + 1, True))
        self.assertEqual(self.threads.held, 1)
        self.threads.release()
        self.now += 1
        self.assertEqual(ids.take() >> 22, int(self.now * 1000) - EPOCH_MS)

    def test_cannot_be_raised(self) -> None:
        """On a full disk ids continue below the ceiling; the fault is told when it begins and
        ends."""
        ids = self.ids()
        ceiling = self.ceiling()
        os.mkdir(self.path + ".new")
        self.now += 90
        for _ in range(75):
            self.assertLess(ids.take(), ceiling)
            self.now += 1
        self.assertEqual((len(self.faults), self.ends), (1, []))
        self.assertIn(self.path, self.faults[0])
        os.rmdir(self.path + ".new")
        self.now += 1
        ids.take()
        self.assertGreater(ids.take(), ceiling)
        self.assertEqual((len(self.faults), len(self.ends)), (1, 1))
        self.assertIn(self.path, self.ends[0])

    def test_each_fault_has_a_beginning_and_an_end(self) -> None:
        """A disk that is full again is told again; meanwhile it is tried once in a while."""
        ids = self.ids()
        real, tries = IdCeiling.write, []

        def write(file: IdCeiling, ceiling: int) -> None:
            tries.append(self.now)
            real(file, ceiling)

        self.patch(IdCeiling, "write", write)
        for number in (1, 2):
            os.mkdir(self.path + ".new")
            self.now += 90
            tries.clear()
            for _ in range(20):
                ids.take()
                ids.take()  # at the same time of the clock
                self.now += 0.01
            self.assertEqual(
                (len(self.faults), len(self.ends), len(tries)), (number, number - 1, 1)
            )
            os.rmdir(self.path + ".new")
            self.now += RETRY_SECONDS
            ids.take()
            self.assertEqual((len(self.faults), len(self.ends)), (number, number))

    def test_stop_that_cannot_write(self) -> None:
        """The higher ceiling stays in the file; the reason is reported."""
        ids = self.ids()
        ceiling = self.ceiling()
        os.mkdir(self.path + ".new")
        ids.stop()
        self.assertEqual(self.ceiling(), ceiling)
        self.assertEqual(len(self.faults), 1)

    def test_cannot_be_written_at_start(self) -> None:
        """A start that cannot promise increasing ids gives none until it can."""
        os.mkdir(self.path + ".new")
        ids = self.ids()
        self.assertIn(self.path, self.faults[0])
        for _ in range(5):
            self.now += 1
            ids.prepare()
            self.assertFalse(ids.ready)
        self.assertEqual((len(self.faults), self.ends), (1, []))
        os.rmdir(self.path + ".new")
        self.now += 1
        ids.prepare()
        self.assertTrue(ids.ready)
        self.assertEqual(self.ceiling(), ids.next_id + AHEAD)
        self.assertEqual(len(self.ends), 1)
        self.assertLess(ids.take(), self.ceiling())
        self.now += 1
        self.assertEqual(ids.take() >> 22, int(self.now * 1000) - EPOCH_MS)

    def test_clock_that_stands_still_at_start(self) -> None:
        """Each try of a broker without ids is one, whatever its clock does: puts are taken as soon
        as the disk has room."""
        os.mkdir(self.path + ".new")
        ids = self.ids()
        ids.prepare()
        self.assertFalse(ids.ready)
        os.rmdir(self.path + ".new")
        ids.prepare()
        self.assertTrue(ids.ready)

    def test_not_ready_for_long(self) -> None:
        """While the first ceiling is being written, however long that takes, none is passed."""
        os.mkdir(self.path + ".new")
        ids = self.ids()
        os.rmdir(self.path + ".new")
        self.threads.hold()
        self.now += RETRY_SECONDS
        ids.prepare()
        self.now += 600
        ids.start_chunk()
        self.threads.release_one()
        self.assertTrue(ids.ready)
        self.assertLess(ids.next_id, self.ceiling())

    def test_survives_a_power_cut(self) -> None:
        """The number is on the disk before it has its name, and so is the name in the end."""
        calls: list[str] = []
        real_sync, real_replace = os.fsync, os.replace

        def sync(fd: int) -> None:
            calls.append("directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
            real_sync(fd)

        def replace(old: str, new: str) -> None:
            calls.append("name")
            real_replace(old, new)

        self.patch(os, "fsync", sync)
        self.patch(os, "replace", replace)
        IdCeiling(self.path).write(1)
        self.assertEqual(["file", "name", "directory"], calls)

    def test_short_write(self) -> None:
        """On a disk with room for a part of it the old ceiling stays."""
        file = IdCeiling(self.path)
        file.write(123456789)
        write = os.write
        self.patch(os, "write", lambda fd, data: write(fd, data[:4]))
        error = self.assertRaises(OSError, file.write, 987654321)
        self.assertEqual(error.errno, errno.ENOSPC)
        self.assertEqual(file.read(), 123456789)

    def test_writes_leave_nothing_open(self) -> None:
        """Whether they succeed or not."""
        file = IdCeiling(self.path)
        file.write(1)
        opened, closed = self.count_descriptors()
        file.write(2)
        self.patch(os, "fsync", self.failing_sync)
        self.assertRaises(OSError, file.write, 3)
        self.assertEqual(len(opened), 3)
        self.assertEqual(opened, closed)

    def failing_sync(self, fd: int) -> None:
        """The disk is broken."""
        raise OSError(errno.EIO, "broken")

    def count_descriptors(self) -> tuple[list[int], list[int]]:
        """What is opened and closed from now on."""
        opened: list[int] = []
        closed: list[int] = []
        real_open, real_close = os.open, os.close

        def noting_open(*arguments: Any) -> int:
            opened.append(real_open(*arguments))
            return opened[-1]

        def noting_close(fd: int) -> None:
            closed.append(fd)
            real_close(fd)

        self.patch(os, "open", noting_open)
        self.patch(os, "close", noting_close)
        return opened, closed

    def test_corrupt_file(self) -> None:
        """A file that holds no number is an error that says what to do."""
        for content in (b"", b"abc\n", b"-5\n", b"\xff\xfe", b"1 2\n", b"\x00" * 8):
            with open(self.path, "wb") as file:
                file.write(content)
            error = self.assertRaises(StoreError, self.ids)
            self.assertIn(self.path, str(error))
            self.assertIn("remove the file", str(error))

    def test_unreadable_file(self) -> None:
        """So is a file that cannot be read."""
        os.mkdir(self.path)
        self.assertIn(self.path, str(self.assertRaises(StoreError, self.ids)))

    def test_plain_text(self) -> None:
        """An operator can read and write it."""
        ids = self.ids()
        ids.stop()
        with open(self.path, encoding="ascii") as file:
            self.assertEqual(file.read(), f"{ids.next_id}\n")
        self.assertFalse(os.path.exists(self.path + ".new"))

    def test_without_a_file(self) -> None:
        """Without a ceiling only the clock counts, and stopping does nothing."""
        ids = MessageIds(7, None, self.threads, lambda: self.now)
        self.now += 10**6
        self.assertEqual(ids.take() >> 22, int(self.now * 1000) - EPOCH_MS)
        ids.stop()
