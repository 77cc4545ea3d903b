"""Records, memory and directories of a slave."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreError
from metamorphosis.message import HEADER
from metamorphosis.replication.follower.aside import move_aside
from metamorphosis.replication.follower.budget import Budget
from metamorphosis.replication.follower.records import Whole, complete_first, whole_records
from tests.support.partitions import M0, M1, M2, M3

LONGEST = 1000


class RecordsTests(SynchronousTestCase):
    """Which whole records bytes begin with."""

    def test_every_cut(self) -> None:
        """Of three records, at each byte."""
        data = M1 + M0 + M3
        ends = [0, len(M1), len(M1 + M0), len(data)]
        for size in range(len(data) + 1):
            whole = max(end for end in ends if end <= size)
            found = whole_records(data[:size], LONGEST)
            self.assertEqual(
                (ends.index(whole), whole, None), (found.records, found.size, found.fault)
            )
            begun = size - whole
            record = ends[ends.index(whole) + 1] - whole if begun else 0
            self.assertEqual(record if begun >= 20 else 0, found.needed, size)

    def test_damage(self) -> None:
        """A byte of a body, of a length, of a checksum."""
        for place in (0, 5, 24):
            broken = bytearray(M2)
            broken[place] ^= 0x80
            found = whole_records(M1 + bytes(broken) + M1, LONGEST)
            self.assertEqual((1, len(M1)), (found.records, found.size))
            self.assertIsNotNone(found.fault)

    def test_first_record_is_completed(self) -> None:
        """Of three records that are cut anywhere, twice."""
        data = M1 + M0 + M3
        for cut in range(1, len(M1)):
            for end in range(cut, len(data) + 1):
                first, rest = complete_first(data[:cut], data[cut:end])
                self.assertEqual(data[:end], first + rest)
                expected = len(M1) if end >= 20 else end
                self.assertEqual(min(expected, end), len(first), (cut, end))

    def test_first_record_that_is_none(self) -> None:
        """A length that cannot be: what shows it is taken."""
        for length in (-1, -(1 << 31), (1 << 31) - 1):
            data = HEADER.pack(length, 0, 1, 0) + M1
            first, _ = complete_first(data[:7], data[7:])
            self.assertIsNotNone(whole_records(first, LONGEST).fault)

    def test_lengths(self) -> None:
        """The longest one is whole, one more is a fault."""
        self.assertEqual(1020, whole_records(HEADER.pack(1000, 0, 1, 0), LONGEST).needed)
        self.assertIn("1001", str(whole_records(HEADER.pack(1001, 0, 1, 0), LONGEST).fault))
        self.assertEqual(Whole(0, 0), whole_records(b"", LONGEST))


class BudgetTests(SynchronousTestCase):
    """Memory is taken and given back."""

    def setUp(self) -> None:
        self.budget = Budget(100)
        self.granted: list[int] = []

    def wait(self, size: int) -> object:
        """Ask for memory."""
        return self.budget.wait(size, lambda: self.granted.append(size))

    def test_first_come_first_served(self) -> None:
        """A small request does not overtake a large one."""
        self.assertTrue(self.budget.try_take(60))
        self.assertFalse(self.budget.try_take(50))
        self.wait(50)
        self.assertFalse(self.budget.try_take(1))
        self.wait(10)
        self.budget.give_back(20)
        self.assertEqual([50, 10], self.granted)
        self.assertEqual(100, self.budget.taken)

    def test_more_than_there_is(self) -> None:
        """It is granted alone."""
        self.budget.try_take(10)
        self.wait(500)
        self.budget.give_back(9)
        self.assertEqual([], self.granted)
        self.budget.give_back(1)
        self.assertEqual([500], self.granted)
        self.assertFalse(self.budget.try_take(1))

    def test_cancelled(self) -> None:
        """A cancelled request does not delay others."""
        self.budget.try_take(100)
        wish = self.budget.wait(100, lambda: self.granted.append(0))
        self.wait(10)
        wish.cancel()
        self.budget.give_back(10)
        self.assertEqual([10], self.granted)
        self.assertFalse(self.budget.is_short)


class AsideTests(SynchronousTestCase):
    """Directories leave the data path."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        os.makedirs(f"{self.path}/t-0")

    def test_moved(self) -> None:
        """Beside the data path, with the time in the name."""
        moved = move_aside(f"{self.path}/t-0", lambda: 1385000000.5)
        self.assertEqual(f"{self.path}.aside/t-0.20131121T021320Z", moved)
        self.assertEqual([], os.listdir(self.path))

    def test_same_second(self) -> None:
        """Nothing is overwritten."""
        names = []
        for _ in range(3):
            names.append(os.path.basename(move_aside(f"{self.path}/t-0", lambda: 0.0)))
            os.mkdir(f"{self.path}/t-0")
        stamp = "t-0.19700101T000000Z"
        self.assertEqual([stamp, f"{stamp}-2", f"{stamp}-3"], names)

    def test_impossible(self) -> None:
        """The directory stays, and the text says what would help."""
        with open(f"{self.path}.aside", "w", encoding="ascii"):
            pass
        error = self.assertRaises(StoreError, move_aside, f"{self.path}/t-0")
        self.assertIn(f"make room there, or make {self.path}.aside a directory", str(error))
        self.assertEqual(["t-0"], os.listdir(self.path))

    def test_data_path_is_a_mount(self) -> None:
        """Beside it is another file system: copied, removed here, and said; what an earlier copy
        has left when the process was killed goes."""
        self.mount()
        os.makedirs(f"{self.path}.aside/t-0.19700101T000000Z.unfinished")
        with capturedLogs() as events:
            moved = move_aside(f"{self.path}/t-0", lambda: 0.0)
        self.assertEqual(f"{self.path}.aside/t-0.19700101T000000Z", moved)
        self.assertEqual([], os.listdir(self.path))
        self.assertEqual([os.path.basename(moved)], os.listdir(f"{self.path}.aside"))
        self.assertEqual(self.content, self.read(moved))
        (line,) = [formatEvent(event) for event in events]
        self.assertIn("is copied to", line)
        self.assertIn("another file system: 11 bytes", line)

    def test_no_room_beside_a_mount(self) -> None:
        """Nothing is copied and nothing removed; likewise when the room ends meanwhile."""
        self.mount()
        usage = shutil.disk_usage(self.path)
        self.patch(shutil, "disk_usage", lambda path: usage._replace(free=10))
        error = self.assertRaises(StoreError, move_aside, f"{self.path}/t-0")
        self.assertIn("it has 11 bytes, and that other file system has room for 10", str(error))
        self.patch(shutil, "disk_usage", lambda path: usage)
        self.patch(shutil, "copytree", self.full)
        error = self.assertRaises(StoreError, move_aside, f"{self.path}/t-0")
        self.assertIn("No space left", str(error))
        self.assertEqual(self.content, self.read(f"{self.path}/t-0"))
        self.assertEqual([], os.listdir(f"{self.path}.aside"))

    content = {"00000000000000000000.meta": b"hello", "00000000000000000005.meta": b"worlds"}

    def mount(self) -> None:
        """The data path is a file system of its own, and the partition has two segments."""
        for name, data in self.content.items():
            with open(f"{self.path}/t-0/{name}", "wb") as file:
                file.write(data)
        rename = os.rename

        def crossing(source: str, target: str) -> None:
            if os.path.dirname(source) != os.path.dirname(target):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            rename(source, target)

        self.patch(os, "rename", crossing)

    @staticmethod
    def read(directory: str) -> dict[str, bytes]:
        """What is in it."""
        return {each.name: each.read_bytes() for each in Path(directory).iterdir()}

    @staticmethod
    def full(source: str, target: str) -> None:
        """Of ``copytree``."""
        os.mkdir(target)
        Path(target, "part").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")
