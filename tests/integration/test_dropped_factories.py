"""Session factories that were not closed: a warning, and no leftovers. Real ZooKeeper sessions."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from metamorphosis.client import aio, blocking, tx
from tests.support.embedded import EmbeddedZooKeeper

COUNT = 8
SECONDS = 30.0


def descriptors() -> int:
    """The open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


class DroppedTests(TestCase):
    """On each face, a few factories with a producer each."""

    timeout = 60

    def setUp(self) -> None:
        """ZooKeeper, and the threads and descriptors before the test."""
        zookeeper = EmbeddedZooKeeper(self.mktemp())
        zookeeper.start()
        self.addCleanup(zookeeper.kill)
        self.connect = zookeeper.connect_string
        gc.collect()
        self.before = threading.active_count(), descriptors()

    def is_clean(self) -> bool:
        """Whether no thread and descriptor is left."""
        now = threading.active_count(), descriptors()
        return now[0] <= self.before[0] and now[1] <= self.before[1]

    async def drop(self, face: Any, sleep: Callable[[float], Any]) -> None:
        """Use some factories and drop the references."""
        await sleep(0.01)
        self.before = threading.active_count(), descriptors()  # the loop has its own by now
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(COUNT):
                factory = face.MessageSessionFactory(zookeeper=self.connect)
                producer = await factory.create_producer("test")
                del factory, producer
            await sleep(0.05)
            gc.collect()
        told = [each for each in caught if "session factory" in str(each.message)]
        self.assertEqual([ResourceWarning] * COUNT, [each.category for each in told])
        deadline = time.monotonic() + SECONDS
        while not self.is_clean() and time.monotonic() < deadline:
            await sleep(0.05)
        self.assertTrue(self.is_clean(), (self.before, threading.enumerate(), descriptors()))

    def test_twisted(self) -> Deferred[None]:
        """On trial's reactor."""

        def pause(seconds: float) -> Deferred[None]:
            done: Deferred[None] = Deferred()
            reactor.callLater(seconds, done.callback, None)  # type: ignore[attr-defined]
            return done

        return Deferred.fromCoroutine(self.drop(tx, pause))

    def test_asyncio(self) -> None:
        """On a loop of its own."""
        asyncio.run(self.drop(aio, asyncio.sleep))

    def test_asyncio_loop_that_has_ended(self) -> None:
        """The program closed its loop before."""

        async def use() -> Any:
            factory = aio.MessageSessionFactory(zookeeper=self.connect)
            await factory.start()
            return factory

        factory = asyncio.run(use())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del factory
            gc.collect()
        self.assertTrue([each for each in caught if "session factory" in str(each.message)])
        deadline = time.monotonic() + SECONDS
        while not self.is_clean() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertTrue(self.is_clean(), (self.before, threading.enumerate(), descriptors()))

    def test_blocking(self) -> None:
        """Loops and listeners' threads end as well."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(COUNT):
                factory = blocking.MessageSessionFactory(zookeeper=self.connect)
                factory.create_producer("test")
                del factory
            gc.collect()
        told = [each for each in caught if "session factory" in str(each.message)]
        self.assertEqual(COUNT, len(told))
        deadline = time.monotonic() + SECONDS
        while not self.is_clean() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertTrue(self.is_clean(), (self.before, threading.enumerate(), descriptors()))
