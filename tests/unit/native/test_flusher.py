"""``Flusher`` of the native part: threads that flush, and nothing of them that stays."""

from __future__ import annotations

import errno
import gc
import os
import select
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from metamorphosis.native import compiled
from tests.support.lanes import is_readable
from tests.unit.native.test_puts import NativeCase

LONGEST = 60_000
"""Milliseconds after which a flush that has not ended counts as lost."""

FAR = 1 << 40
"""A token that is an object of its own."""


def flush_threads() -> list[str]:
    """The states of the threads of flushers in this process."""
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/status", encoding="ascii") as file:
                status = file.read()
        except (FileNotFoundError, ProcessLookupError):  # it has ended since
            continue
        if status.startswith("Name:\tflush\n"):
            found.append(status)
    return found


def open_descriptors() -> int:
    """How many there are."""
    return len(os.listdir("/proc/self/fd"))


class FlusherCase(NativeCase):
    """Flushers of two threads."""

    def setUp(self) -> None:
        super().setUp()
        if not hasattr(compiled, "Flusher"):
            self.skipTest("no flusher on this system")
        self.fd = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, self.fd)

    def make(self, threads: int = 2) -> Any:
        """One; its threads end with the test."""
        assert compiled is not None
        flusher = compiled.Flusher(threads)
        self.addCleanup(flusher.end)
        return flusher

    def take(self, flusher: Any, count: int) -> list[tuple[int, int, float]]:
        """Wait for this number of flushes."""
        poll = select.poll()
        poll.register(flusher.fileno(), select.POLLIN)
        taken: list[tuple[int, int, float]] = []
        while len(taken) < count:
            self.assertTrue(poll.poll(LONGEST), f"{len(taken)} of {count} have ended")
            taken += flusher.take()
        return taken


class FlushTests(FlusherCase):
    """What is told of a flush."""

    def test_one(self) -> None:
        """Its token, no error, and its seconds; nothing before it, nothing after it."""
        flusher = self.make()
        self.assertEqual([], flusher.take())
        os.write(self.fd, b"x" * 10_000)
        flusher.submit(self.fd, 1 << 40)
        ((token, number, seconds),) = self.take(flusher, 1)
        self.assertEqual((1 << 40, 0), (token, number))
        self.assertGreater(seconds, 0)
        self.assertEqual([], flusher.take())
        self.assertFalse(is_readable(flusher.fileno()))

    def test_errors(self) -> None:
        """The errno of the call."""
        flusher = self.make()
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        flusher.submit(writing, 1)
        flusher.submit(-1, 2)
        found = sorted(each[:2] for each in self.take(flusher, 2))
        self.assertEqual([(1, errno.EINVAL), (2, errno.EBADF)], found)

    def test_many(self) -> None:
        """More than threads: each is told once; with one thread in their order."""
        for threads in (1, 2, 7):
            flusher = self.make(threads)
            for token in range(300):
                flusher.submit(self.fd if token % 3 else -1, token)
            taken = self.take(flusher, 300)
            expected = [(token, 0 if token % 3 else errno.EBADF) for token in range(300)]
            found = [each[:2] for each in taken]
            self.assertEqual(expected, found if threads == 1 else sorted(found))
            self.assertLessEqual(len(flush_threads()), 1 + 2 + 7)

    def test_no_memory(self) -> None:
        """A flush that cannot be told for want of memory is told later, once, in its order."""
        if find_spec("_testcapi") is None:
            self.skipTest("this Python cannot let its memory fail")
        testcapi: Any = import_module("_testcapi")
        for number in range(12):
            flusher = self.make(1)
            self.submit_all(flusher, 5)
            testcapi.set_nomemory(number, number + 1)
            try:
                first = flusher.take()
            except MemoryError:
                first = []
            finally:
                testcapi.remove_mem_hooks()
            taken = first + self.take(flusher, 5 - len(first))
            self.assertEqual([FAR + token for token in range(5)], [each[0] for each in taken])
            self.assertEqual([], flusher.take())

    def submit_all(self, flusher: Any, count: int) -> None:
        """Submit flushes, and wait until some have ended."""
        for token in range(count):
            flusher.submit(self.fd, FAR + token)
        poll = select.poll()
        poll.register(flusher.fileno(), select.POLLIN)
        self.assertTrue(poll.poll(LONGEST))

    def test_several_flushers(self) -> None:
        """Nothing of one is told to another."""
        flushers = [self.make() for _ in range(5)]
        for number, flusher in enumerate(flushers):
            for token in range(20):
                flusher.submit(self.fd, 100 * number + token)
        for number, flusher in enumerate(flushers):
            found = sorted(token for token, _, _ in self.take(flusher, 20))
            self.assertEqual([100 * number + token for token in range(20)], found)

    def test_bad_arguments(self) -> None:
        """Are refused."""
        assert compiled is not None
        for bad in (-1, 0, 5000):
            self.assertRaises(ValueError, compiled.Flusher, bad)
        self.assertRaises(TypeError, compiled.Flusher)
        with self.assertRaises(TypeError):
            compiled.Flusher(2, threads=3)  # type: ignore[call-arg]
        flusher = self.make()
        self.assertRaises(TypeError, flusher.submit, self.fd)
        self.assertRaises(TypeError, flusher.submit, "file", 1)
        self.assertRaises(OverflowError, flusher.submit, self.fd, 1 << 70)
        self.assertEqual([], flush_threads())


class ThreadTests(FlusherCase):
    """Threads and descriptors."""

    def await_no_threads(self) -> None:
        """The kernel forgets a thread a moment after it was joined."""
        for _ in range(1_000_000):
            if not flush_threads():
                return
            os.sched_yield()
        self.fail(f"still there: {flush_threads()}")

    def test_started_with_the_first_flush(self) -> None:
        """One, without signals: those are for the interpreter."""
        flusher = self.make()
        self.assertEqual([], flush_threads())
        flusher.submit(self.fd, 1)
        self.take(flusher, 1)
        (status,) = flush_threads()
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        for signal in (2, 15, 17):  # INT, TERM, CHLD
            self.assertTrue(blocked >> signal - 1 & 1, signal)

    def test_end(self) -> None:
        """Its threads are gone, its descriptor as well, and it takes nothing."""
        descriptors = open_descriptors()
        flusher = self.make()
        for token in range(10):
            flusher.submit(self.fd, token)
        self.take(flusher, 10)
        flusher.end()
        self.await_no_threads()
        self.assertEqual(descriptors, open_descriptors())
        flusher.end()
        for call in (flusher.take, flusher.fileno, lambda: flusher.submit(self.fd, 1)):
            self.assertRaises(ValueError, call)

    def test_dropped(self) -> None:
        """A dropped flusher with running, waiting and untaken flushes leaves no thread and
        descriptor."""
        assert compiled is not None
        gc.collect()  # what other tests have left
        descriptors = open_descriptors()
        for number in range(200):
            flusher = compiled.Flusher(2)
            for token in range(number % 7):
                flusher.submit(self.fd, token)
            del flusher
        gc.collect()
        self.await_no_threads()
        self.assertEqual(descriptors, open_descriptors())
