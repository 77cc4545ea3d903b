"""The fields of a store in C beside those in Python."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from metamorphosis.native import compiled
from metamorphosis.store import fields
from metamorphosis.store.appender import Appender
from metamorphosis.store.directflush import DirectFlush
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.segment import Segment
from metamorphosis.store.segmentlog import SegmentLog
from metamorphosis.store.segmentwriter import SegmentWriter
from metamorphosis.store.unflushed import Unflushed
from tests.unit.native.test_puts import NativeCase

TYPES: dict[str, tuple[type[Any], type[Any]]] = {
    "SegmentFields": (fields.SegmentInPython, Segment),
    "LogFields": (fields.LogInPython, SegmentLog),
    "AppenderFields": (fields.AppenderInPython, Appender),
    "WriterFields": (fields.WriterInPython, SegmentWriter),
    "FlushFields": (fields.FlushInPython, DirectFlush),
    "UnflushedFields": (fields.UnflushedInPython, Unflushed),
    "TotalFields": (fields.TotalInPython, FlushSchedule),
}
"""Their twins, and the classes that are made from them."""

NUMBERS = {"SegmentFields": 4, "LogFields": 4, "FlushFields": 4, "UnflushedFields": 3}
NUMBERS["TotalFields"] = 1
"""How many fields take whole numbers only."""


class FieldsTests(NativeCase):
    """All types."""

    def test_twins(self) -> None:
        """They have the same fields, and the classes of the store are made from those in C."""
        for name, (twin, made) in TYPES.items():
            in_c = getattr(compiled, name)
            members = [each for each in vars(in_c) if each not in ("__doc__", "__module__")]
            self.assertEqual(sorted(members), sorted(twin.__slots__), name)
            self.assertTrue(issubclass(made, in_c), name)

    def test_values(self) -> None:
        """A field keeps its value; one for a number takes the largest offset, and nothing else."""
        for name, (twin, _) in TYPES.items():
            made, numbers = getattr(compiled, name)(), 0
            for field in twin.__slots__:
                for value in (object(), True, -1.5, 7, 1 << 62):
                    try:
                        setattr(made, field, value)
                    except (TypeError, OverflowError):
                        continue
                    self.assertEqual(getattr(made, field), value, field)
                try:
                    setattr(made, field, "text")
                except TypeError:
                    numbers += isinstance(getattr(made, field), int) and field not in (
                        "_asked",
                        "_failing",
                    )
                else:
                    delattr(made, field)
                    self.assertRaises(AttributeError, getattr, made, field)
            self.assertEqual(numbers, NUMBERS.get(name, 0), name)

    def test_cycles(self) -> None:
        """The collector finds cycles through the fields."""
        for name, (twin, _) in TYPES.items():
            held = type("Held", (getattr(compiled, name),), {})
            for field in twin.__slots__:
                made: Any = held()
                try:
                    setattr(made, field, made)
                except TypeError:
                    continue
                gone = weakref.ref(made)
                del made
                gc.collect()
                self.assertIsNone(gone(), field)
