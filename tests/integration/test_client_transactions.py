"""Transactions of the client against a broker process, on each face, and of ``metaq produce``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from metamorphosis.client import aio, blocking, tx
from metamorphosis.client.model import Partition
from metamorphosis.client.transactions.local import TransactionState
from metamorphosis.client.transactions.xa import XA_OK, Xid
from metamorphosis.errors import TransactionLost, XAError
from tests.support.broker import BrokerProcess, environment

P0, P1 = Partition(0, 0), Partition(0, 1)
A = Xid(7, b"global", b"branch")


def broker_of(case: Any) -> BrokerProcess:
    """A broker with two partitions of ``test``; it ends with the test."""
    made = BrokerProcess(
        case.mktemp(), topics={"test": {"numPartitions": 2}}, system={"unflushThreshold": 0}
    )
    case.addCleanup(made.kill)
    made.start()
    return made


def stored(broker: BrokerProcess) -> list[bytes]:
    """The messages that consumers see."""
    with (
        blocking.MessageSessionFactory(broker=f"127.0.0.1:{broker.port}") as factory,
        factory.create_topic_browser("test") as browser,
    ):
        return [each.data for each in browser]


class BlockingTests(SynchronousTestCase):
    """Plain calls."""

    def setUp(self) -> None:
        self.broker = broker_of(self)
        self.url = f"127.0.0.1:{self.broker.port}"
        self.factory = blocking.MessageSessionFactory(broker=self.url)
        self.addCleanup(self.factory.close)

    def test_block(self) -> None:
        """Committed at its end; rolled back on an exception."""
        producer = self.factory.create_producer("test")
        with producer.transaction() as transaction:
            transaction.send("test", b"1", partition=P0)
            transaction.send("test", b"2", partition=P1)
            self.assertEqual([], stored(self.broker))
        self.assertIs(TransactionState.COMMITTED, transaction.state)
        with self.assertRaises(KeyboardInterrupt), producer.transaction() as transaction:
            transaction.send("test", b"3", partition=P0)
            raise KeyboardInterrupt
        self.assertIs(TransactionState.ROLLED_BACK, transaction.state)
        self.assertEqual([b"1", b"2"], stored(self.broker))

    def test_broker_killed(self) -> None:
        """The transaction is lost with an error that says so; the next one works when the broker is
        back."""
        producer = self.factory.create_producer("test")
        transaction = producer.transaction()
        transaction.send("test", b"1", partition=P0)
        self.broker.kill()
        self.broker.start()
        self.assertRaises(TransactionLost, transaction.commit)
        with producer.transaction() as transaction:
            transaction.send("test", b"2", partition=P0)
        self.assertEqual([b"2"], stored(self.broker))

    def test_prepared_branch_survives(self) -> None:
        """The broker is killed twice; a new client finds the branch and commits it once."""
        resource = self.factory.create_xa_producer("test").resource()
        resource.start(A)
        resource.send("test", b"1", partition=P0)
        resource.end(A)
        self.assertEqual(XA_OK, resource.prepare(A))
        self.factory.close()
        for _ in range(2):
            self.broker.kill()
            self.broker.start()
        with blocking.MessageSessionFactory(broker=self.url) as factory:
            later = factory.create_xa_producer("test").resource()
            self.assertEqual((A,), later.recover())
            later.commit(A)
            self.assertEqual((), later.recover())
            self.assertRaises(XAError, later.commit, A)
        self.assertEqual([b"1"], stored(self.broker))


class AsyncioTests(SynchronousTestCase):
    """Coroutines of asyncio."""

    def test_block(self) -> None:
        """Committed; rolled back on an exception, and when the task is cancelled."""
        broker = broker_of(self)
        asyncio.run(self._blocks(f"127.0.0.1:{broker.port}"))
        self.assertEqual([b"1"], stored(broker))

    async def _blocks(self, url: str) -> None:
        async with aio.MessageSessionFactory(broker=url) as factory:
            producer = await factory.create_producer("test")
            async with producer.transaction() as transaction:
                await transaction.send("test", b"1", partition=P0)
            with self.assertRaises(KeyError):
                async with producer.transaction() as transaction:
                    await transaction.send("test", b"2", partition=P0)
                    raise KeyError
            self.assertIs(TransactionState.ROLLED_BACK, transaction.state)
            begun = asyncio.Event()

            async def stuck() -> None:
                async with producer.transaction() as self.stuck:
                    await self.stuck.send("test", b"3", partition=P0)
                    begun.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(stuck())
            await begun.wait()
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertIs(TransactionState.ROLLED_BACK, self.stuck.state)

    def test_xa(self) -> None:
        """Two phases."""
        broker = broker_of(self)
        asyncio.run(self._phases(f"127.0.0.1:{broker.port}"))
        self.assertEqual([b"1"], stored(broker))

    async def _phases(self, url: str) -> None:
        async with aio.MessageSessionFactory(broker=url) as factory:
            resource = (await factory.create_xa_producer("test")).resource()
            await resource.start(A)
            await resource.send("test", b"1", partition=P0)
            await resource.end(A)
            self.assertEqual(XA_OK, await resource.prepare(A))
            await resource.commit(A)


class TwistedTests(TestCase):
    """Deferreds."""

    timeout = 60

    async def test_block(self) -> None:
        """Committed; rolled back on an exception, and when the block is cancelled."""
        broker = broker_of(self)
        factory = tx.MessageSessionFactory(broker=f"127.0.0.1:{broker.port}")
        async with factory:
            producer = await factory.create_producer("test")
            async with producer.transaction() as transaction:
                await transaction.send("test", b"1", partition=P0)
            with self.assertRaises(KeyError):
                async with producer.transaction() as transaction:
                    await transaction.send("test", b"2", partition=P0)
                    raise KeyError
            waiting: list[Deferred[None]] = []

            async def stuck() -> None:
                async with producer.transaction() as self.stuck:
                    await self.stuck.send("test", b"3", partition=P0)
                    waiting.append(Deferred())
                    await waiting[0]

            running = Deferred.fromCoroutine(stuck())
            while not waiting:
                await deferLater(reactor, 0.01)
            running.cancel()
            with self.assertRaises(CancelledError):
                await running
            self.assertIs(TransactionState.ROLLED_BACK, self.stuck.state)
            resource = (await factory.create_xa_producer("test")).resource()
            await resource.start(A)
            await resource.send("test", b"4", partition=P0)
            await resource.end(A)
            await resource.commit(A, one_phase=True)
        self.assertEqual([b"1", b"4"], stored(broker))


class ProduceTests(SynchronousTestCase):
    """``metaq produce --transaction``."""

    def test_lines(self) -> None:
        """All lines are stored, in order; a killed broker keeps only complete transactions."""
        broker = broker_of(self)
        where = ["--broker", f"127.0.0.1:{broker.port}", "--partition", "0"]
        command = [sys.executable, "-m", "metamorphosis.cli", "produce", "test", *where]
        lines = b"".join(b"%d\n" % n for n in range(25))
        done = subprocess.run(
            [*command, "--transaction", "10"],
            input=lines,
            env=environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((0, b""), (done.returncode, done.stderr))
        self.assertEqual(lines.split(), stored(broker))
        rated = [*command, "--transaction", "10", "--rate", "200", "--timeout", "2"]
        running = subprocess.Popen(
            rated, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        self.addCleanup(running.kill)
        assert running.stdin is not None and running.stderr is not None
        running.stdin.write(b"x\n" * 20_000)
        running.stdin.close()
        broker.wait_until(lambda: len(stored(broker)) >= 45, "store two transactions")
        broker.kill()
        said = running.stderr.read().decode()
        self.assertEqual(1, running.wait(30), said)
        broker.start()
        count = len(stored(broker)) - 25
        self.assertEqual(0, count % 10)
        self.assertRegex(said, r"lines \d+ to \d+ (not stored|may be stored or not), \d+ stored: ")
        told = int(said.partition(" stored: ")[0].rpartition(", ")[2])
        self.assertIn(count, (told, told + 10))
