"""
The fields of a pair's objects that the turn in C reads and changes itself; as ``store.fields``,
with the types of ``pairfields.c``.

Numbers are signed integers of 64 bits, ``deadline``, ``timeout`` and ``_due`` floats, and what
begins with ``is_`` takes nothing but ``True`` and ``False``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.native import compiled


class FlightInPython:
    """See ``Flight``."""

    __slots__ = (
        "_sizes",
        "at",
        "batch",
        "count",
        "deadline",
        "done",
        "early",
        "is_late",
        "number",
        "offset",
        "run",
        "sender",
    )


class PairedLogInPython:
    """See ``PairedLog``."""

    __slots__ = ("appender", "flights", "head", "next_offset", "standing")


class PairAppenderInPython:
    """See ``PairAppender``."""

    __slots__ = (
        "_flight_type",
        "_joined",
        "_log",
        "_make_batch",
        "_opaques",
        "_store",
        "_stored",
        "_syncs",
    )


class SyncsInPython:
    """See ``Syncs``."""

    __slots__ = (
        "_due",
        "_flights",
        "_number",
        "_record_bytes",
        "failures",
        "is_connected",
        "is_heard",
        "is_planned",
        "limit",
        "now",
        "timeout",
        "waiting",
    )


class UnderWayInPython:
    """See ``UnderWay``."""

    __slots__ = ("_first", "_flights", "_many")


if TYPE_CHECKING or not hasattr(compiled, "FlightFields"):
    FlightFields = FlightInPython
    PairedLogFields = PairedLogInPython
    PairAppenderFields = PairAppenderInPython
    SyncsFields = SyncsInPython
    UnderWayFields = UnderWayInPython
else:
    FlightFields = compiled.FlightFields
    PairedLogFields = compiled.PairedLogFields
    PairAppenderFields = compiled.PairAppenderFields
    SyncsFields = compiled.SyncsFields
    UnderWayFields = compiled.UnderWayFields
