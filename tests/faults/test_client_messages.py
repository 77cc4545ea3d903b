"""
The client when messages are damaged or too large, and when listeners raise, hang or return late.
Real sockets and processes, both faces; see ``test_client_faults``.
"""

from __future__ import annotations

import os
from typing import Any

from metamorphosis.client.fetch import redirects
from metamorphosis.client.model import Partition, ReceivedMessage, StoredOffset
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.errors import MessageTooLarge
from tests.faults.faces import OnAsyncio, OnTwisted, Stage, scenario
from tests.faults.ledger import flip
from tests.faults.test_client_faults import named
from tests.faults.world import Direct
from tests.support.broker import BrokerProcess


class Broken(Exception):
    """The exception of users' functions."""


class MessageFaults:
    """Messages that cannot be read, or are too large."""

    async def damage(self, stage: Stage, position: int) -> None:
        """
        Of five messages the third is damaged on the broker's disk; the four others arrive.

        :param position: of the byte that is flipped, in the record.
        """
        case: Any = self
        broker = BrokerProcess(case.mktemp(), settings={"store": {"fast-boot": "true"}})
        case.addCleanup(broker.kill)
        await stage.blocking(broker.start)
        values = named("value", 5)
        async with Direct(stage, broker) as world:
            await world.send(*values)
            offset = world.ledger.acknowledged[values[2]][1]
            await stage.blocking(broker.stop)
            flip(os.path.join(broker.data, "test-0"), offset + position)
            world.ledger.damaged.add(values[2])
            await stage.blocking(broker.start)
            await world.reader()
            await world.until_read(*values[:2], *values[3:])
            await world.send(b"after")
            await world.until_read(b"after")
            case.assertNotIn(values[2], world.ledger.values["g0"])
            lines = stage.logged("test 0-0: the message at offset", "cannot be read")
            case.assertEqual(1, len(lines), lines)
            case.assertIn(f"at offset {offset} cannot be read", lines[0])

    @scenario
    async def test_body_damaged(self, stage: Stage) -> None:
        """A wrong checksum: the message is skipped with a log line that names its place."""
        await self.damage(stage, 22)

    @scenario
    async def test_checksum_damaged(self, stage: Stage) -> None:
        """A damaged checksum field: the same."""
        await self.damage(stage, 5)

    @scenario
    async def test_larger_than_the_buffer(self, stage: Stage) -> None:
        """A message of 300 kB for a subscription of 1000 bytes arrives, as do its neighbours."""
        async with Direct(stage) as world:
            large = b"large " * 50000
            await world.send(b"small", large, b"tiny")
            reader = world.make_reader()
            reader.subscribe([world.topic], max_size=1000)
            await reader.consumer.complete_subscribe()
            await world.until_read()

    @scenario
    async def test_larger_than_the_limit(self, stage: Stage) -> None:
        """A message above ``max_body_bytes`` and ``max_size`` is skipped with a log line that names
        its place and length; a producer with the same setting refuses it."""
        case: Any = self
        async with Direct(stage, max_body_bytes=10000) as world:
            large = b"large " * 200_000
            with case.assertRaises(MessageTooLarge):
                await world.producer.send(world.topic, large)
            others = stage.factory(broker=world.wire.address)
            world.closing(others.close)
            world.producer = await others.create_producer(world.topic, retries=0)
            await world.send(b"small", large, b"tiny")
            await world.reader()
            await world.until_read(b"small", b"tiny")
            world.ledger.passed_over.add(large)
            offset = world.ledger.acknowledged[large][1]
            await stage.until_logged(
                f"{world.topic} 0-0: the message at offset {offset} cannot be read",
                "its length is 1200000, at most 1048576 is accepted",
            )
            case.assertEqual(1, len(stage.logged("cannot be read")))

    @scenario
    async def test_nothing_there(self, stage: Stage) -> None:
        """An offset beyond the end of the log: reading continues at the offset that the broker
        names."""
        stage.case.patch(redirects, "SENT_BACK_SECONDS", 0.5)
        store = MemoryOffsetStore()
        async with Direct(stage) as world:
            await world.send(b"old")
            world.ledger.passed_over.add(b"old")
            await store.commit("g", [StoredOffset(world.topic, Partition(0, 0), 1 << 40, -1)])
            await world.reader(group="g", store=store)
            await stage.until_logged(
                "There is nothing at the next offset any more", f"0-0 at 23 instead of {1 << 40}"
            )
            await world.send(b"new")
            await world.until_read(b"new")

    @scenario
    async def test_not_flushed(self, stage: Stage) -> None:
        """A broker that hides unflushed messages does not make readers repeat messages."""
        case: Any = self
        async with Direct(stage) as world:
            await world.reader(max_delay_fetch_time_ms=10)
            await world.send(*named("value", 300))
            await world.until_read()
            case.assertEqual([], stage.logged("There is nothing at the next offset"))
            case.assertEqual([], stage.logged("were processed before"))


class Gate:
    """
    A listener that does not return before it is let.

    :ivar entered: what it was called with.
    """

    def __init__(self, stage: Stage) -> None:
        self.entered: list[bytes] = []
        self.open = False
        self._stage = stage

    async def __call__(self, message: ReceivedMessage) -> None:
        self.entered.append(message.data)
        await self._stage.until(lambda: self.open, "the gate")


class Failing:
    """
    A function that fails so many times for each message.

    :ivar left: for what it fails, and how often still.
    """

    def __init__(self, *values: bytes, times: int) -> None:
        self.left = dict.fromkeys(values, times)

    def __call__(self, message: ReceivedMessage) -> None:
        if self.left.get(message.data):
            self.left[message.data] -= 1
            raise Broken(f"not {message.data!r}")


class ListenerFaults:
    """Listeners that raise, hang, or return late."""

    @scenario
    async def test_raises(self, stage: Stage) -> None:
        """The message is delivered again, in order, with a log line that names its place; further
        failures are counted."""
        case: Any = self
        async with Direct(stage) as world:
            await world.send(*named("value", 3))
            await world.reader(Failing(b"value-1", times=2))
            await world.until_read()
            offset = world.ledger.acknowledged[b"value-1"][1]
            lines = stage.logged(f"The listener failed on {world.topic} 0-0 offset {offset}")
            case.assertEqual(1, len(lines))
            case.assertEqual([1, 3, 1], [world.ledger.values["g0"][v] for v in named("value", 3)])

    @scenario
    async def test_rejected_and_recovered(self, stage: Stage) -> None:
        """After too many failures the message is kept on disk, and delivered to the listener
        later."""
        case: Any = self
        async with Direct(stage) as world:
            await world.send(*named("value", 3))
            failing = Failing(b"value-1", times=3)
            await world.reader(failing, max_fetch_retries=1)
            await world.until_read()
            await stage.until_logged(f"{world.topic} 0-0 offset", "failed 2 times and was rejected")
            world.ledger.passed_over.add(b"value-1")
            recovery = world.factory.recovery
            await recovery.recover()
            await stage.until_logged("failed again on the kept message", world.topic)
            case.assertEqual(1, await recovery.count(world.topic, "g0"))
            await recovery.recover()
            case.assertEqual(0, await recovery.count(world.topic, "g0"))
            case.assertEqual(4, world.ledger.values["g0"][b"value-1"])

    @scenario
    async def test_kept_over_a_restart(self, stage: Stage) -> None:
        """A rejected message stays on disk for the next factory."""
        case: Any = self
        directory = case.mktemp()
        async with Direct(stage, recover_path=directory) as world:
            await world.send(*named("value", 3))
            await world.reader(Failing(b"value-1", times=9), max_fetch_retries=0)
            await world.until_read()
            await stage.until_logged("and was rejected")
            world.ledger.passed_over.add(b"value-1")
        got: list[bytes] = []
        factory = stage.factory(broker=f"127.0.0.1:{world.broker.port}", recover_path=directory)
        async with factory:
            consumer = factory.create_consumer("g0", partition="0-0", offset=1 << 40)
            consumer.subscribe(world.topic, listener=lambda message: got.append(message.data))
            await consumer.complete_subscribe()
            await factory.recovery.recover()
        case.assertEqual([b"value-1"], got)

    @scenario
    async def test_hangs_and_returns_late(self, stage: Stage) -> None:
        """``close`` stops waiting with a log line; messages that the listener finishes later are
        delivered again."""
        case: Any = self
        store = MemoryOffsetStore()
        async with Direct(stage) as world:
            await world.send(*named("value", 3))
            gate = Gate(stage)
            reader = await world.reader(gate, group="g", store=store, stop_timeout_ms=300)
            await stage.until(lambda: gate.entered, "the listener")
            await reader.consumer.close()
            offset = world.ledger.acknowledged[b"value-0"][1]
            await stage.until_logged(
                f"{world.topic} 0-0 at offset {offset} cannot be given back", "not waiting longer"
            )
            gate.open = True
            await stage.until(lambda: world.ledger.events, "the listener's return")
            case.assertEqual([b"value-0"], gate.entered)
            await world.reader(group="g", store=store)
            await world.until_read()
            case.assertEqual(2, world.ledger.values["g"][b"value-0"])

    @scenario
    async def test_slow(self, stage: Stage) -> None:
        """``close`` waits for a listener that is only slow, and stores its progress."""
        case: Any = self
        store = MemoryOffsetStore()
        async with Direct(stage) as world:
            await world.send(*named("value", 3))
            gate = Gate(stage)
            reader = await world.reader(gate, group="g", store=store)
            await stage.until(lambda: gate.entered, "the listener")
            closing = reader.consumer.close()
            gate.open = True
            await closing
            await world.reader(group="g", store=store)
            await world.until_read()
            case.assertEqual(1, world.ledger.values["g"][b"value-0"])


class MessageTwistedTests(MessageFaults, OnTwisted):
    """Under Twisted."""


class MessageAsyncioTests(MessageFaults, OnAsyncio):
    """Under asyncio."""


class ListenerTwistedTests(ListenerFaults, OnTwisted):
    """Under Twisted."""


class ListenerAsyncioTests(ListenerFaults, OnAsyncio):
    """Under asyncio."""
