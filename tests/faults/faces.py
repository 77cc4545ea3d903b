"""
One scenario for both faces of the client: a coroutine that runs on Twisted's reactor and on an
asyncio loop.

::

    class MyFaults(Scenarios):
        @scenario
        async def test_it(self, stage: Stage) -> None: ...

    class MyTwistedTests(MyFaults, OnTwisted): ...
    class MyAsyncioTests(MyFaults, OnAsyncio): ...
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import provider

from metamorphosis.client import aio, tx

LIMIT_SECONDS = 60.0
"""For anything that is waited for; it never takes so long."""

QUICK: dict[str, Any] = {
    "send_timeout_ms": 1000,
    "heartbeat_idle_ms": 300,
    "heartbeat_timeout_ms": 300,
    "heartbeat_failures": 2,
    "connect_attempt_timeout_ms": 2000,
    "zookeeper_sync_time_ms": 500,
    "zookeeper_session_timeout_ms": 1500,
}
"""Settings with which faults are noticed soon."""


class Stage:
    """
    What a scenario has: the face, time, and the log.

    :ivar lines: the client's log so far.
    """

    def __init__(self, case: Any) -> None:
        self.case = case
        self.lines: list[str] = []

    def factory(self, **settings: Any) -> Any:
        """A session factory of this face, quick, with its files in a directory of the test."""
        raise AssertionError("a face has one")

    def sleep(self, seconds: float) -> Awaitable[object]:
        """Let time pass."""
        raise AssertionError("a face has it")

    def blocking(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Call it in a thread; the client goes on meanwhile."""
        raise AssertionError("a face has it")

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something that will happen."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                log = "\n".join(self.lines[-60:])
                raise AssertionError(f"{what}: not in {LIMIT_SECONDS:g} s; the log:\n{log}")
            await self.sleep(0.02)

    def logged(self, *words: str) -> list[str]:
        """The lines that have all of these in them."""
        return [line for line in self.lines if all(word in line for word in words)]

    async def until_logged(self, *words: str) -> None:
        """Wait for such a line."""
        await self.until(lambda: self.logged(*words), f"a line with {words}")

    def settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Those of ``factory``, completed."""
        directory = self.case.mktemp()
        paths = {
            f"{name}_path": f"{directory}/{name}"
            for name in ("recover", "local_message", "async_storage")
        }
        return {**QUICK, **paths, **settings}


class TwistedStage(Stage):
    """On trial's reactor."""

    def factory(self, **settings: Any) -> Any:
        """See ``Stage``."""
        return tx.MessageSessionFactory(**self.settings(settings))

    def sleep(self, seconds: float) -> Awaitable[object]:
        """See ``Stage``."""
        return deferLater(global_reactor, seconds, lambda: None)

    def blocking(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """See ``Stage``."""
        return deferToThread(function, *args)

    def observer(self) -> Any:
        """Takes lines of the log."""

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event.get("log_namespace") == "metamorphosis.client":
                self.lines.append(formatEvent(event))

        return observe


class AsyncioStage(Stage):
    """On the running loop."""

    def factory(self, **settings: Any) -> Any:
        """See ``Stage``."""
        return aio.MessageSessionFactory(**self.settings(settings))

    def sleep(self, seconds: float) -> Awaitable[object]:
        """See ``Stage``."""
        return asyncio.sleep(seconds)

    def blocking(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """See ``Stage``."""
        return asyncio.to_thread(function, *args)


class LineHandler(logging.Handler):
    """Appends what is logged to a list."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        self._lines.append(record.getMessage())


def scenario(method: Callable[[Any, Stage], Coroutine[Any, Any, None]]) -> Callable[[Any], Any]:
    """Make a test of a coroutine method."""

    @functools.wraps(method)
    def test(case: Any) -> Any:
        return case.perform(method)

    vars(test).pop("__wrapped__")  # its coroutine would be looked at
    return test


class OnTwisted(TestCase):
    """Runs scenarios on trial's reactor."""

    timeout = 2 * LIMIT_SECONDS

    def perform(self, method: Callable[[Any, Stage], Coroutine[Any, Any, None]]) -> Any:
        """The test."""
        stage = TwistedStage(self)
        observer = stage.observer()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.addCleanup(self.flushLoggedErrors)
        return Deferred.fromCoroutine(method(self, stage))


class OnAsyncio(SynchronousTestCase):
    """Runs scenarios on an asyncio loop of their own."""

    def perform(self, method: Callable[[Any, Stage], Coroutine[Any, Any, None]]) -> None:
        """The test."""
        stage = AsyncioStage(self)
        logger = logging.getLogger("metamorphosis.client")
        handler: logging.Handler = LineHandler(stage.lines)
        level, propagate = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        self.addCleanup(self.flushLoggedErrors)
        try:
            asyncio.run(asyncio.wait_for(method(self, stage), 2 * LIMIT_SECONDS))
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
