"""The same work for many items, a few of them at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults

T = TypeVar("T")


async def in_parallel(items: Iterable[T], one: Callable[[T], Awaitable[None]], most: int) -> None:
    """
    Call ``one`` for each item, at most ``most`` at a time. Thread: reactor.

    An item is taken from ``items`` when its turn comes: a generator may end early.

    :raises Exception: the first error; the other calls end by themselves.
    """
    rest = iter(items)

    async def lane() -> None:
        for item in rest:
            await one(item)

    running = [Deferred.fromCoroutine(lane()) for _ in range(most)]
    try:
        await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
