"""
Events, slots and times that coroutines of the core wait for, over an ``IRuntime``.

Every wait makes a future of its own, so that any number of coroutines may wait for one event, and
cancelling one of them does not affect the others. Thread: the loop's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TypeVar

from metamorphosis.cluster.model import ConnectionFault
from metamorphosis.errors import RequestTimeout
from metamorphosis.interfaces import IRuntime, Timer

T = TypeVar("T")

CANCELLED_MOST = 100
"""Waits of an event that were cancelled and are not forgotten yet."""

REFUSED_LOOK_SECONDS = 0.25
"""Between two checks whether connections are refused."""


class Event:
    """
    A flag to wait for.

    :ivar is_set: the flag.
    :ivar is_abandoned: it will not be raised any more.
    """

    __slots__ = ("_most", "_runtime", "_waiting", "is_abandoned", "is_set")

    def __init__(self, runtime: IRuntime) -> None:
        self.is_set = False
        self.is_abandoned = False
        self._runtime = runtime
        self._waiting: dict[Awaitable[bool], Timer | None] = {}  # future: of its time limit
        self._most = CANCELLED_MOST  # waits, from which on cancelled ones are looked for

    def set(self) -> None:
        """Raise the flag: all waits get True."""
        self.is_set = True
        self._answer(True)

    def clear(self) -> None:
        """Take the flag down."""
        self.is_set = False

    def pulse(self) -> None:
        """All waits get True; the flag stays as it is."""
        self._answer(True)

    def abandon(self) -> None:
        """All waits get False."""
        self.is_abandoned = True
        self._answer(False)

    def wait(self, timeout: float | None = None) -> Awaitable[bool]:
        """True when the flag is up, False after ``timeout`` seconds."""
        api = self._runtime.api
        future: Awaitable[bool] = api.create_future()
        if self.is_set:
            api.resolve(future, True)
        elif timeout is None:
            if len(self._waiting) >= self._most:
                self._forget_cancelled()
            self._waiting[future] = None
        else:
            self._waiting[future] = self._runtime.call_later(timeout, self._late, future)
        return future

    def _forget_cancelled(self) -> None:
        is_called = self._runtime.api.is_called
        self._waiting = {each: t for each, t in self._waiting.items() if not is_called(each)}
        self._most = CANCELLED_MOST + 2 * len(self._waiting)

    def _late(self, future: Awaitable[bool]) -> None:
        if future in self._waiting:
            del self._waiting[future]
            _resolve(self._runtime, future, False)

    def _answer(self, result: bool) -> None:
        waiting, self._waiting = self._waiting, {}
        for future, timer in waiting.items():
            if timer is not None:
                timer.cancel()
            _resolve(self._runtime, future, result)


class Watchers:
    """The functions of users that are called at each change, one for each user."""

    __slots__ = ("_watching",)

    def __init__(self) -> None:
        self._watching: dict[int, Callable[[], None]] = {}  # by the user's id

    def watch(self, user: object, changed: Callable[[], None]) -> None:
        """Call ``changed`` at every change from now on."""
        self._watching[id(user)] = changed

    def unwatch(self, user: object) -> None:
        """Do not call it any more."""
        self._watching.pop(id(user), None)

    def tell(self) -> None:
        """Call all of them."""
        for changed in list(self._watching.values()):
            changed()


class Slots:
    """
    A number of places, or an amount of something, taken and given back; first come, first served.

    A wish for more than the total is granted when everything has been given back.

    :ivar free: what is left; below 0 while such a wish is granted.
    """

    __slots__ = ("_closed", "_runtime", "_total", "_waiting", "free")

    def __init__(self, runtime: IRuntime, total: int) -> None:
        self.free = total
        self._total = total
        self._runtime = runtime
        self._waiting: deque[tuple[Awaitable[bool], int]] = deque()
        self._closed = False

    def try_acquire(self, amount: int = 1) -> bool:
        """Take the amount if it is free and no earlier wish waits."""
        if self._waiting or self._closed or not self._fits(amount):
            return False
        self.free -= amount
        return True

    def acquire(self, amount: int = 1) -> Awaitable[bool]:
        """True when the amount was taken, False after ``close``."""
        api = self._runtime.api
        future: Awaitable[bool] = api.create_future()
        if self._closed:
            api.resolve(future, False)
        elif self.try_acquire(amount):
            api.resolve(future, True)
        else:
            self._waiting.append((future, amount))
        return future

    def release(self, amount: int = 1) -> None:
        """Give it back."""
        self.free += amount
        while self._waiting and self._fits(self._waiting[0][1]):
            future, wanted = self._waiting.popleft()
            if self._runtime.api.is_called(future):
                continue  # its coroutine was cancelled
            self.free -= wanted
            self._runtime.api.resolve(future, True)

    def close(self) -> None:
        """Grant nothing any more."""
        self._closed = True
        waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            _resolve(self._runtime, future, False)

    def _fits(self, amount: int) -> bool:
        return amount <= self.free or self.free == self._total


def sleep(runtime: IRuntime, seconds: float) -> Awaitable[None]:
    """Wait. A wait that has to end early takes an ``Event`` with a timeout instead."""
    future: Awaitable[None] = runtime.api.create_future()
    runtime.call_later(seconds, _resolve, runtime, future, None)
    return future


async def wait_unless_refused(
    event: Event, timeout: float, patience: float, fault: Callable[[], ConnectionFault | None]
) -> bool:
    """
    Wait for a connection; shorter while every attempt to make one is refused.

    :param event: is set when there is one.
    :param timeout: seconds at most.
    :param patience: seconds after which it ends as soon as the ``fault`` is a refusal.
    """
    waited = 0.0
    pause = min(patience, timeout)
    while not await event.wait(pause):
        waited += pause
        found = fault()
        if waited >= timeout or found is not None and found.refused or event.is_abandoned:
            return False
        pause = min(REFUSED_LOOK_SECONDS, timeout - waited)
    return True


async def within(runtime: IRuntime, awaitable: Awaitable[T], seconds: float, what: str) -> T:
    """
    The result of an operation that is under way, if it comes in time; one that is late goes on.

    :param what: its name, for the error's text.
    :raises RequestTimeout: it did not come in time.
    """
    done = Event(runtime)
    outcome: list[T] = []
    failure: list[Exception] = []

    async def relay() -> None:
        try:
            outcome.append(await awaitable)
        except Exception as error:
            failure.append(error)
        done.set()

    runtime.start(relay())
    if not await done.wait(seconds):
        raise RequestTimeout(f"{what}: not done within {seconds:g} s")
    if failure:
        raise failure[0]
    return outcome[0]


def detached(runtime: IRuntime, coroutine: Coroutine[object, None, T]) -> Awaitable[T]:
    """``IRuntime.start`` for what must come to its end: cancelling the future only ends the wait
    for it."""
    api = runtime.api
    future: Awaitable[T] = api.create_future()

    async def carry_out() -> None:
        try:
            result = await coroutine
        except Exception as error:
            if not api.is_called(future):
                api.reject(future, error)
        else:
            _resolve(runtime, future, result)

    runtime.start(carry_out())
    return future


async def settle(awaitables: Iterable[Awaitable[T]]) -> list[T | Exception]:
    """The outcomes of futures that are under way, an error as its exception, in their order."""
    outcomes: list[T | Exception] = []
    for each in awaitables:
        try:
            outcomes.append(await each)
        except Exception as error:
            outcomes.append(error)
    return outcomes


def _resolve(runtime: IRuntime, future: Awaitable[T], result: T) -> None:
    """Give a future its result, unless it was cancelled meanwhile."""
    if not runtime.api.is_called(future):
        runtime.api.resolve(future, result)
