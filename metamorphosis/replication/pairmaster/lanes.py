"""The same for many, a few at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults

T = TypeVar("T")


async def in_lanes(items: Iterable[T], one: Callable[[T], Awaitable[None]], lanes: int) -> None:
    """
    Do it for each, so many at a time.

    :raises Exception: the first that one of them has raised; the others end by themselves.
    """
    rest = iter(items)

    async def lane() -> None:
        for item in rest:
            await one(item)

    running = [Deferred.fromCoroutine(lane()) for _ in range(lanes)]
    try:
        await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
