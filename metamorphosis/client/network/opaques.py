"""
Request numbers. Pure.

Source: ``OpaqueGenerator``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat
from typing import Final

FIRST: Final = -(1 << 31)
BEYOND: Final = (1 << 31) - 11
"""The first number that is not used; 2147483647 stands for a missing one."""

next_opaque: Final[Callable[[], int]] = chain.from_iterable(repeat(range(FIRST, BEYOND))).__next__
"""The next number; one counter a process, whatever the number of loops and threads. Thread: any."""
