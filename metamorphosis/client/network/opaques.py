"""
Request numbers. Pure.

Source: ``OpaqueGenerator``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice, repeat
from typing import Final

FIRST: Final = -(1 << 31)
BEYOND: Final = (1 << 31) - 11
"""The first number that is not used; 2147483647 stands for a missing one."""

_numbers = chain.from_iterable(repeat(range(FIRST, BEYOND)))

next_opaque: Final[Callable[[], int]] = _numbers.__next__
"""The next number; one counter a process, whatever the number of loops and threads. Thread: any."""


def next_opaques(count: int) -> list[int]:
    """So many of the next numbers; not always in one stretch. Thread: any."""
    return list(islice(_numbers, count))
