"""``Body`` of the native part: the bytes of a reply, which are received into and not copied."""

from __future__ import annotations

import gc
import sys

from metamorphosis.client.network import replies
from metamorphosis.native import compiled
from tests.unit.native.test_puts import NativeCase


class BodyTests(NativeCase):
    """A view to write to, and bytes."""

    def test_twins(self) -> None:
        """What was put in comes out, as bytes; the one in Python as well."""
        assert compiled is not None
        for made in (compiled.Body(5), replies.Body(5)):
            view = memoryview(made)
            self.assertFalse(view.readonly)
            view[:2] = b"he"
            view[2:] = b"llo"
            self.assertEqual(b"hello", made.whole())
            self.assertIs(bytes, type(made.whole()))

    def test_nothing_is_copied(self) -> None:
        """All calls give the same bytes."""
        assert compiled is not None
        body = compiled.Body(1 << 20)
        self.assertIs(body.whole(), body.whole())

    def test_empty(self) -> None:
        """A body may have no bytes."""
        assert compiled is not None
        self.assertEqual(b"", compiled.Body(0).whole())

    def test_views_keep_the_bytes(self) -> None:
        """A view can be used when everything else is gone."""
        assert compiled is not None
        body = compiled.Body(1000)
        view = memoryview(body)[500:]
        whole = body.whole()
        view[:] = bytes(250) + b"x" * 250
        self.assertEqual(view, whole[500:])
        del body, whole
        gc.collect()
        self.assertEqual(b"x" * 250, view[250:])

    def test_nothing_is_left(self) -> None:
        """What was dropped is gone."""
        assert compiled is not None

        def work() -> None:
            body = compiled.Body(100)
            memoryview(body)[:] = bytes(100)
            body.whole()

        for _ in range(20):
            work()
        before = sys.getallocatedblocks()
        for _ in range(1000):
            work()
        self.assertLess(sys.getallocatedblocks() - before, 200)

    def test_arguments(self) -> None:
        """What cannot be is an error, and not a crash."""
        assert compiled is not None
        self.assertRaises(TypeError, compiled.Body)
        self.assertRaises(TypeError, compiled.Body, "5")
        self.assertRaises(TypeError, compiled.Body, 5, length=5)
        self.assertRaises(ValueError, compiled.Body, -1)
        self.assertRaises((MemoryError, OverflowError), compiled.Body, sys.maxsize)
