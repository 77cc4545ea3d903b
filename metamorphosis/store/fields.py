"""
The fields of a store that the turn in C reads and changes itself.

The classes of the store that have such fields are made from these types. With the part in C they
are types of C (``storefields.c``), whose fields C reaches without Python; Python reads and sets
them by the same names. So a store has one state, and no copy of it that could be out of date.

The numbers of the types in C are signed integers of 64 bits, ``_flushed_at`` and ``_interval`` are
floats, ``_asked`` and ``_failing`` take nothing but ``True`` and ``False``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.native import compiled


class SegmentInPython:
    """See ``Segment``."""

    __slots__ = ("fd", "message_count", "size", "start")


class LogInPython:
    """See ``SegmentLog`` and its subclasses."""

    __slots__ = (
        "_queue",
        "appender",
        "batch",
        "last",
        "life",
        "next_offset",
        "on_readable",
        "put_bytes",
        "put_count",
        "read_end",
        "stalled",
        "worker",
    )


class AppenderInPython:
    """See ``Appender``."""

    __slots__ = ("_policy", "_store", "_writer")


class WriterInPython:
    """See ``SegmentWriter``."""

    __slots__ = ("_failing", "damage")


class FlushInPython:
    """See ``DirectFlush``."""

    __slots__ = (
        "_asked",
        "_flushed_at",
        "_interval",
        "_kept",
        "_kept_in_flight",
        "_max_segment_size",
        "_seconds",
        "_threshold",
        "_unflushed",
        "flush_error",
    )


class UnflushedInPython:
    """See ``Unflushed``."""

    __slots__ = ("_chunk", "_pieces", "_start", "_total", "_used", "size")


class TotalInPython:
    """See ``FlushSchedule``."""

    __slots__ = ("unflushed",)


if TYPE_CHECKING or not hasattr(compiled, "LogFields"):
    SegmentFields = SegmentInPython
    LogFields = LogInPython
    AppenderFields = AppenderInPython
    WriterFields = WriterInPython
    FlushFields = FlushInPython
    UnflushedFields = UnflushedInPython
    TotalFields = TotalInPython
else:
    SegmentFields = compiled.SegmentFields
    LogFields = compiled.LogFields
    AppenderFields = compiled.AppenderFields
    WriterFields = compiled.WriterFields
    FlushFields = compiled.FlushFields
    UnflushedFields = compiled.UnflushedFields
    TotalFields = compiled.TotalFields
