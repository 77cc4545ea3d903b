"""``metamorphosis.client.localstore``: a queue on disk that loses nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.localstore import PAGE_BYTES, PAGE_ITEMS, LocalStore
from metamorphosis.errors import LocalStoreError

ROOT = Path(__file__).parents[3]

#: keeps one message and dies without closing anything
CRASH = """
import os, sys
from metamorphosis.client.localstore import LocalStore
store = LocalStore.open(sys.argv[1], sys.argv[2])
store.append(int(sys.argv[3]), b"kept")
os._exit(9)
"""


class StoreCase(SynchronousTestCase):
    """A directory, and stores in it that are closed at the end."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    def open(self, name: str = "test@0-0") -> LocalStore:
        """A store of that name."""
        store = LocalStore.open(self.directory, name)
        self.addCleanup(store.close)
        return store

    def values(self, store: LocalStore) -> list[bytes]:
        """The values on the first page."""
        return [item.value for item in store.items()]


class QueueTests(StoreCase):
    """Keeping and forgetting."""

    def test_first_in_first_out(self) -> None:
        """Items come in the order of arrival, whatever their keys."""
        store = self.open()
        for key, value in ((5, b"a"), (-(1 << 63), b"b"), ((1 << 63) - 1, b""), (0, b"d")):
            store.append(key, value)
        self.assertEqual([5, -(1 << 63), (1 << 63) - 1, 0], [item.key for item in store.items()])
        self.assertEqual([b"a", b"b", b"", b"d"], self.values(store))
        self.assertEqual(4, store.count())

    def test_remove(self) -> None:
        """What is removed is gone, in this process and the next; twice does no harm."""
        store = self.open()
        store.append_all([(1, b"a"), (2, b"b"), (3, b"c")])
        token = store.items()[1].token
        store.remove(token)
        store.remove(token)
        self.assertEqual(2, store.count())
        store.close()
        self.assertEqual([b"a", b"c"], self.values(self.open()))

    def test_same_id_again(self) -> None:
        """Row 75: the same id appended repeatedly is not an error; the same message is kept
        once."""
        store = self.open()
        store.append(7, b"a")
        store.append(7, b"a")
        store.append_all([(7, b"a"), (7, b"b"), (7, b"b")])
        self.assertEqual(([b"a", b"b"], 2), (self.values(store), store.count()))

    def test_hundred_messages_survive_a_restart(self) -> None:
        """Row 75: 100 messages, then another process: all there once, and then none."""
        store = self.open()
        for number in range(100):
            store.append(number, b"%d" % number)
        store.close()
        store = self.open()
        self.assertEqual(100, store.count())
        items = store.items()
        self.assertEqual([b"%d" % number for number in range(100)], [item.value for item in items])
        store.remove_all(item.token for item in items)
        store.close()
        self.assertEqual(([], 0), (self.open().items(), store.count()))

    def test_pages(self) -> None:
        """Pages end at a number of items; ``after`` continues, an empty page is the end."""
        store = self.open()
        store.append_all((number, b"x") for number in range(PAGE_ITEMS + 3))
        first = store.items()
        second = store.items(first[-1].token)
        self.assertEqual((PAGE_ITEMS, 3), (len(first), len(second)))
        self.assertEqual([], store.items(second[-1].token))

    def test_pages_of_large_messages(self) -> None:
        """A page has at most some megabytes and the message that exceeds them."""
        store = self.open()
        store.append_all((number, bytes(PAGE_BYTES // 2)) for number in range(3))
        first = store.items()
        self.assertEqual([2, 1], [len(first), len(store.items(first[-1].token))])

    def test_any_thread(self) -> None:
        """Whichever thread a pool gives the work to."""
        store = self.open()
        failures: list[Exception] = []

        def append() -> None:
            try:
                store.append(1, b"a")
            except Exception as error:
                failures.append(error)

        thread = Thread(target=append)
        thread.start()
        thread.join()
        self.assertEqual(([], [b"a"]), (failures, self.values(store)))

    def test_append_all_is_all_or_nothing(self) -> None:
        """A key that does not fit 64 bits refuses the whole batch, and the store continues."""
        store = self.open()
        with self.assertRaises(LocalStoreError) as caught:
            store.append_all([(1, b"a"), (1 << 63, b"b")])
        self.assertIn(str(store.path), str(caught.exception))
        store.append(2, b"c")
        self.assertEqual(([b"c"], 1), (self.values(store), store.count()))

    def test_an_emptied_file_shrinks(self) -> None:
        """Closed empty, a file that held megabytes is small again."""
        store = self.open()
        store.append_all((number, bytes(1 << 20)) for number in range(4))
        store.remove_all(item.token for item in store.items())
        store.close()
        self.assertLess(store.path.stat().st_size, 1 << 16)

    def test_closed(self) -> None:
        """After close every method raises an error with the file's name; a second close has no
        effect."""
        store = self.open()
        store.close()
        store.close()
        with self.assertRaisesRegex(LocalStoreError, "sqlite: append: closed"):
            store.append(1, b"")
        with self.assertRaisesRegex(LocalStoreError, "sqlite: read: closed"):
            store.items()


class NameTests(StoreCase):
    """From names to files and back."""

    def test_any_name(self) -> None:
        """Slashes, dots and tildes do not leave the directory or collide, and come back."""
        names = ["../up@0-0", "a/b@0-1", "a~2@0-0", "a@0-0", "a.sqlite", "\u4e2d@-1--1", "%2E"]
        for name in names:
            self.open(name).append(1, name.encode())
        self.assertEqual(sorted(names), LocalStore.names(self.directory))
        self.assertEqual(len(names), len(list(self.directory.glob("*.sqlite"))))

    def test_files_of_earlier_processes(self) -> None:
        """The next release must find what this one has kept."""
        self.open("a.b~c/d@0-0").append(1, b"x")
        (file,) = self.directory.glob("*.sqlite")
        self.assertEqual("a%2Eb%7Ec%2Fd@0-0.sqlite", file.name)

    def test_directories_are_made(self) -> None:
        """All that are missing."""
        self.directory = self.directory / "below" / "it"
        self.open().append(1, b"x")
        self.assertEqual(["test@0-0"], LocalStore.names(self.directory))

    def test_names_of_no_directory(self) -> None:
        """Where nothing was ever kept there are no names."""
        self.assertEqual([], LocalStore.names(self.directory))

    def test_foreign_files_are_left_alone(self) -> None:
        """The Java client's directories and other files are not stores of ours."""
        (self.directory / "test@0-0").mkdir(parents=True)
        (self.directory / "notes.txt").write_bytes(b"x")
        self.assertEqual([], LocalStore.names(self.directory))


class SharingTests(StoreCase):
    """Several openers of one name."""

    def test_second_opener_gets_its_own_file(self) -> None:
        """While the first is open, the second sees nothing of it and takes nothing."""
        first, second = self.open(), self.open()
        first.append(1, b"a")
        second.append(2, b"b")
        self.assertEqual(([b"a"], [b"b"]), (self.values(first), self.values(second)))
        self.assertEqual("test@0-0~2.sqlite", second.path.name)

    def test_second_opener_does_not_wait(self) -> None:
        """The first one may have the file for months."""
        waits: list[float] = []
        connect = sqlite3.connect

        def note(path: Path, timeout: float, **options: Any) -> sqlite3.Connection:
            waits.append(timeout)
            return connect(path, timeout=timeout, **options)

        self.patch(sqlite3, "connect", note)
        self.open()
        self.open()
        self.assertEqual({0}, set(waits))

    def test_next_opener_takes_over_what_was_left(self) -> None:
        """Unused files are emptied into the new one; those in use are not."""
        first, second, third = self.open(), self.open(), self.open()
        second.append(2, b"b")
        third.append(3, b"c")
        first.append(1, b"a")
        first.close()
        third.close()
        again = self.open()
        self.assertEqual(("test@0-0.sqlite", 2), (again.path.name, again.count()))
        self.assertEqual([b"a", b"c"], self.values(again))
        self.assertEqual([b"b"], self.values(second))

    def test_process_that_died(self) -> None:
        """What a process kept that was killed is found by the next, also from a second file."""
        held = self.open()
        for key in (1, 2):
            outcome = subprocess.run(
                [sys.executable, "-c", CRASH, str(self.directory), "test@0-0", str(key)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                timeout=60,
                check=False,
            )
            self.assertEqual(9, outcome.returncode)
        held.close()
        self.assertEqual([1, 2], [item.key for item in self.open().items()])


class FaultTests(StoreCase):
    """Unusable files and disks."""

    def test_no_database(self) -> None:
        """A file of something else is refused by name, with what to do, and left as it is."""
        self.directory.mkdir()
        path = self.directory / "test@0-0.sqlite"
        path.write_bytes(b"this is no database, but it is long enough to be looked at" * 20)
        before = path.read_bytes()
        with self.assertRaisesRegex(LocalStoreError, "test@0-0.sqlite: .*move it away"):
            self.open()
        self.assertEqual(before, path.read_bytes())

    def test_file_that_is_refused_is_closed(self) -> None:
        """At once, not when the error is forgotten."""
        self.directory.mkdir()
        path = self.directory / "test@0-0.sqlite"
        path.write_bytes(b"this is no database, but it is long enough to be looked at" * 20)
        try:
            self.open()
            self.fail("it was opened")
        except LocalStoreError:
            names = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
            opened = [os.readlink(name) for name in names if os.path.exists(name)]
            self.assertNotIn(str(path.resolve()), opened)

    def test_no_directory(self) -> None:
        """A directory that is a file is refused by name."""
        self.directory.write_bytes(b"")
        with self.assertRaisesRegex(LocalStoreError, "cannot be opened"):
            self.open()
