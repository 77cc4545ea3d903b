"""``poll`` on asyncio, where a task can be cancelled when its result has come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from metamorphosis.client.consumer.taking import Taking
from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.delivery.iteration import Iteration
from metamorphosis.client.delivery.progress import Progress
from metamorphosis.client.fetch.records import FetchedRecords
from metamorphosis.client.model import Partition, Position
from metamorphosis.client.runtimes.aio import AsyncioRuntime
from tests.support.fetchstage import records
from tests.unit.client.runtimes.test_aioruntime import LoopCase

PARTITION = Partition(0, 0)


class Consumer(Taking):
    """Nothing but its messages."""

    def _check_open(self) -> None:
        """See ``Taking``."""


class CancelledPollTests(LoopCase):
    """The messages of a call that is cancelled come with the next one."""

    def setUp(self) -> None:
        super().setUp()
        runtime = AsyncioRuntime(self.loop)
        self.iteration = Iteration(runtime, lambda *_: None)
        subscriptions: Any = {"t": SimpleNamespace(listener=None)}
        joining: Any = SimpleNamespace(assignment={})
        self.consumer = Consumer(runtime, subscriptions, self.iteration, joining)
        self.position = Position("t", PARTITION, 0)
        self.progress = Progress(self.position, True, DuplicateCache(0))

    async def poll(self, most: int = 2) -> list[int]:
        """The ids that are there."""
        return [each.id for each in await self.consumer.poll(0, most)]

    async def cancelled(self, wait: Callable[[Any], Awaitable[object]]) -> None:
        """Five messages come for a ``poll``, and who waits for it is cancelled before it knows."""
        polled = self.consumer.poll(None, 2)
        user = asyncio.ensure_future(wait(polled))
        await asyncio.sleep(0)
        piece = records(*[b"x"] * 5)
        messages = FetchedRecords("t", PARTITION, 0, piece, 100).read(5)
        self.taking = asyncio.ensure_future(self.iteration.take(self.progress, messages))
        while not polled.done():  # type: ignore[attr-defined]  # asyncio's
            await asyncio.sleep(0)
        user.cancel()
        await asyncio.wait([user])
        self.assertTrue(user.cancelled())

    def check(self, *expected: list[int]) -> None:
        """What the following calls give; each acknowledges the one before."""

        async def go_on() -> None:
            self.assertEqual(0, self.position.offset)
            self.assertEqual(list(expected), [await self.poll() for _ in expected])
            self.taking.cancel()

        self.result(go_on())

    def test_cancelled_when_they_have_come(self) -> None:
        """Nobody has them: they are given, and then acknowledged, once."""

        async def wait(polled: Any) -> object:
            return await polled

        self.result(self.cancelled(wait))
        self.check([1, 2], [3, 4], [5], [])

    def test_cancelled_twice(self) -> None:
        """Nothing is forgotten when the call that would bring them is cancelled as well."""

        async def wait(polled: Any) -> object:
            return await polled

        async def again() -> None:
            await self.cancelled(wait)
            polled: Any = self.consumer.poll(0, 2)
            polled.cancel()
            await asyncio.wait([polled])

        self.result(again())
        self.check([1, 2], [3, 4])

    def test_cancelled_later(self) -> None:
        """Who has had them is given the next ones."""

        async def wait(polled: Any) -> None:
            await polled
            await asyncio.sleep(3600)

        async def late() -> None:
            polled = self.consumer.poll(None, 2)
            user = asyncio.ensure_future(wait(polled))
            await asyncio.sleep(0)
            messages = FetchedRecords("t", PARTITION, 0, records(*[b"x"] * 5), 100).read(5)
            self.taking = asyncio.ensure_future(self.iteration.take(self.progress, messages))
            for _ in range(10):
                await asyncio.sleep(0)
            user.cancel()

        self.result(late())
        self.check([3, 4], [5])
