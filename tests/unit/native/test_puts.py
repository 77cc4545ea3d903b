"""
``take_puts`` of the native part: at the edge of its memory, with objects that fail, over and over.

That it does what the hot path in Python does is compared in ``broker.test_hotpath`` and
``broker.test_twins``.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import re
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis import native
from metamorphosis.broker.hotpath.contract import VECTORS
from metamorphosis.errors import StoreError
from metamorphosis.native import compiled, way
from tests.unit.broker.test_hotpath import put

PROT_NONE = 0
ROUTE = (b"test", b"0")


class Batch:
    """As ``store.batch.Batch``."""

    def __init__(self) -> None:
        self.pieces: Any = []
        self.count: Any = 0  # where the run of a test begins


class Store:
    """As ``store.messagestore.MessageStore``, with what the hot path uses of it."""

    def __init__(self, refuses: BaseException | None = None) -> None:
        self.batch: Any = None
        self.next_offset: Any = 0
        self.refuses = refuses

    def open_batch(self) -> Any:
        """A batch, or the error."""
        if self.refuses is not None:
            raise self.refuses
        self.batch = Batch()
        return self.batch


class Routes:
    """As ``hotpath.contract.Routes``."""

    def __init__(self, *stores: Store, max_body: Any = 1 << 20) -> None:
        self.puts: Any = {(b"test", b"%d" % number): each for number, each in enumerate(stores)}
        self.refuse = print
        self.max_body = max_body
        self.checked_only = False


class Ids:
    """As ``ids.MessageIds``."""

    def __init__(self, next_id: int = 1 << 22, carries: Any = None) -> None:
        self.next_id: Any = next_id
        self.carries = carries

    def carry(self, overflowed: int) -> Any:
        """What it was made with, or an error."""
        if isinstance(self.carries, BaseException):
            raise self.carries
        return self.carries


class Group:
    """As ``broker.replies.ReplyGroup``."""

    def __init__(self) -> None:
        self.replies: Any = []
        self.runs: Any = []


def take(data: Any, routes: Any, ids: Any = None, group: Any = None, start: int = 0) -> int:
    """Take puts from ``data``, whose views are the bodies."""
    assert compiled is not None
    ids = ids or Ids()
    group = group or Group()
    taken: int = compiled.take_puts(data, data, start, len(data), routes, ids, group)
    return taken


class NativeCase(SynchronousTestCase):
    """Skips what needs the native part."""

    if compiled is None:
        skip = f"the native part is not used ({way})"

    def guarded(self) -> tuple[mmap.mmap, memoryview]:
        """Two pages, of which the second cannot be read; and a view of the first."""
        pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        view = memoryview(pages)
        libc = ctypes.CDLL(None, use_errno=True)
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        place = ctypes.c_void_p(address + mmap.PAGESIZE)
        if libc.mprotect(place, ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
        self.addCleanup(
            libc.mprotect, place, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE
        )
        return pages, view[: mmap.PAGESIZE]


class EdgeTests(NativeCase):
    """No byte beyond the end is read."""

    def test_every_prefix_at_the_end_of_a_page(self) -> None:
        """Each vector, cut at each byte, in front of memory that must not be touched."""
        _, page = self.guarded()
        store = Store()
        requests = {vector.request for vector in VECTORS}
        requests |= {put(b"x" * length) for length in (0, 15, 63, 64, 100, 2000)}
        for request in requests:
            for length in range(len(request) + 1):
                cut = request[:length]
                page[mmap.PAGESIZE - length :] = cut
                start = mmap.PAGESIZE - length
                near, far = Routes(store), Routes(Store())
                self.assertEqual(
                    take(page, near, start=start) - start, take(cut, far), (request, length)
                )

    def test_positions_outside(self) -> None:
        """They are refused, not followed."""
        assert compiled is not None
        data = put(b"hello")
        for start, end in ((-1, 5), (5, 4), (0, len(data) + 1), (len(data) + 1, len(data) + 1)):
            with self.assertRaises(ValueError):
                compiled.take_puts(data, data, start, end, Routes(Store()), Ids(), Group())


class FailingTests(NativeCase):
    """What fails in the objects of Python reaches the caller, and what was taken before counts."""

    def test_store_refuses(self) -> None:
        """A ``StoreError`` ends the puts before it; any other error is passed on."""
        good = Store()
        data = put(b"one") + put(b"two", partition=b"1")
        ids, group = Ids(), Group()
        first = len(put(b"one"))
        self.assertEqual(take(data, Routes(good, Store(StoreError("no"))), ids, group), first)
        self.assertEqual(
            (good.next_offset, ids.next_id, len(group.replies)), (23, (1 << 22) + 1, 1)
        )
        with self.assertRaisesRegex(KeyError, "no"):
            take(data, Routes(good, Store(KeyError("no"))), ids, group)
        self.assertEqual((good.next_offset, ids.next_id), (46, (1 << 22) + 2))
        self.assertEqual(len(good.batch.pieces), 4)

    def test_odd_objects(self) -> None:
        """An error, and not a crash."""
        data = put(b"one")
        odd = Store()
        odd.next_offset = "5"
        tuples = Store()
        tuples.batch = Batch()
        tuples.batch.pieces = ()
        shut = Store()
        shut.batch = 5
        for routes in (
            Routes(odd),
            Routes(tuples),
            Routes(shut),
            Routes(Store(), max_body="5"),
            Routes(Store(), max_body=1 << 70),
            object(),
        ):
            with self.assertRaises((TypeError, AttributeError, SystemError, OverflowError)):
                take(data, routes)
        for ids in (Ids(0xFFF, KeyError("k")), Ids(0xFFF, "5"), Ids(0xFFF, 1 << 70), object()):
            with self.assertRaises((TypeError, KeyError, OverflowError, AttributeError)):
                take(data, Routes(Store()), ids)
        group = Group()
        group.replies = None
        with self.assertRaises((TypeError, SystemError)):
            take(data, Routes(Store()), group=group)

    def test_carry(self) -> None:
        """The last id of a millisecond is followed by what ``carry`` says."""
        ids, group = Ids(0xFFF, 1 << 23), Group()
        take(put(b"a") * 2, Routes(Store()), ids, group)
        self.assertEqual([int(reply.split()[4]) for reply in group.replies], [0xFFF, 1 << 23])
        self.assertEqual(ids.next_id, (1 << 23) + 1)


class MemoryTests(NativeCase):
    """Nothing is kept, and nothing is released twice."""

    def test_nothing_leaks(self) -> None:
        """Taken, refused and failed puts, thousands of times: as many blocks as before."""
        data = put(b"x" * 100) * 3 + put(b"y" * 5000) + put(b"z", partition=b"1")

        def work() -> None:
            for second in (Store(), Store(StoreError("no")), Store(KeyError("no"))):
                try:
                    take(data, Routes(Store(), second))
                except KeyError:
                    pass
            try:
                take(data, Routes(Store(), Store()), Ids(0xFFE, KeyError("no")))
            except KeyError:
                pass
            take(data, Routes())

        def blocks() -> int:
            gc.collect()
            return sys.getallocatedblocks()

        for _ in range(50):
            work()
        before = blocks()
        for _ in range(2000):
            work()
        self.assertLess(blocks() - before, 1000)  # a leak would be 2000, or more

    def test_bodies(self) -> None:
        """A short body is copied, a long one is a view of the source; both are the same bytes."""
        assert compiled is not None
        data = bytearray(put(b"s" * 10) + put(b"l" * 10000))
        store = Store()
        view = memoryview(data)
        compiled.take_puts(data, view, 0, len(data), Routes(store), Ids(), Group())
        short, long = store.batch.pieces[1::2]
        self.assertEqual((type(short), type(long)), (bytes, memoryview))
        self.assertEqual((short, bytes(long)), (b"s" * 10, b"l" * 10000))


class SourceTests(SynchronousTestCase):
    """What the compiler does not see."""

    def test_no_lengths_in_formats(self) -> None:
        """
        A ``#`` in a format of the C interface means a number of another size to a module that was
        built with newer headers than those of the Python it runs under: one wheel serves all.
        """
        directory = Path(native.__file__).parent
        for path in sorted(directory.glob("*.c")):
            formats = re.findall(
                r'Py(?:Arg_ParseTuple|_BuildValue)\w*\([^"]*"([^"]*)"', path.read_text()
            )
            self.assertEqual([each for each in formats if "#" in each], [], path.name)
