"""
Tasks that know whether their result has come to who awaits it.

A task that is cancelled between the end of what it awaits and its own next step gets the
cancellation, and never sees the result. ``asyncio.timeout`` does that when its time is over in the
same round of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")


class HandedOut(asyncio.Task[T]):
    """
    Thread: the loop's.

    :ivar is_taken: the result was given to somebody.
    """

    is_taken = False
    _awaited = 0  # by so many tasks; a task that wakes up asks for ``result`` and forgets it

    def __await__(self) -> Generator[Any, None, T]:
        self._awaited += 1
        try:
            found = yield from super().__await__()
        finally:
            self._awaited -= 1
        self.is_taken = True
        return found

    def result(self) -> T:
        """See ``asyncio.Task``."""
        found = super().result()
        if not self._awaited:
            self.is_taken = True
        return found
