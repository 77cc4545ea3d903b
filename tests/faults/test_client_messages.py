"""
The client when messages are damaged or too large, and when what users give it fails: listeners,
filters, selectors, stores, disks. Real sockets and processes, both faces; see
``test_client_faults``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from metamorphosis.client.model import Partition, ReceivedMessage, StoredOffset
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.errors import OffsetStoreError
from tests.faults import wire
from tests.faults.faces import OnAsyncio, OnTwisted, Stage, scenario
from tests.faults.ledger import flip
from tests.faults.test_client_faults import last_offsets, named
from tests.faults.world import Cluster, Direct
from tests.integration.broker import BrokerProcess


class Broken(Exception):
    """What users' functions raise."""


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
        """A wrong checksum: passed over with a line that says where."""
        await self.damage(stage, 22)

    @scenario
    async def test_checksum_damaged(self, stage: Stage) -> None:
        """The checksum itself: the same."""
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
        """More than ``max_body_bytes``: passed over with a line that says where and how long."""
        case: Any = self
        async with Direct(stage, max_body_bytes=10000) as world:
            large = b"large " * 5000
            await world.send(b"small", large, b"tiny")
            await world.reader()
            await world.until_read(b"small", b"tiny")
            world.ledger.passed_over.add(large)
            offset = world.ledger.acknowledged[large][1]
            await stage.until_logged(
                f"{world.topic} 0-0: the message at offset {offset} cannot be read",
                "its length is 30000, at most 10000 is accepted",
            )
            case.assertEqual(1, len(stage.logged("cannot be read")))


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
        """Delivered again, in order, with a line for each failure that says where."""
        case: Any = self
        async with Direct(stage) as world:
            await world.send(*named("value", 3))
            await world.reader(Failing(b"value-1", times=2))
            await world.until_read()
            offset = world.ledger.acknowledged[b"value-1"][1]
            lines = stage.logged(f"The listener failed on {world.topic} 0-0 offset {offset}")
            case.assertEqual(2, len(lines))
            case.assertEqual([1, 3, 1], [world.ledger.values["g0"][v] for v in named("value", 3)])

    @scenario
    async def test_rejected_and_recovered(self, stage: Stage) -> None:
        """After too many failures it is kept on disk, and given to the listener later."""
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
        """What was rejected waits on the disk for the next factory."""
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
        """``close`` gives up waiting with a line; what is finished later comes again."""
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
                f"{world.topic} 0-0 cannot be given back",
                f"offset {offset} for",
                "not waiting longer",
            )
            gate.open = True
            await stage.until(lambda: world.ledger.events, "the listener's return")
            case.assertEqual([b"value-0"], gate.entered)
            await world.reader(group="g", store=store)
            await world.until_read()
            case.assertEqual(2, world.ledger.values["g"][b"value-0"])

    @scenario
    async def test_slow(self, stage: Stage) -> None:
        """``close`` waits for a listener that is merely slow, and stores what it did."""
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


class FailingStore(MemoryOffsetStore):
    """
    A user's store.

    :ivar works: or raises.
    """

    works = False

    async def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """See ``IOffsetStore``."""
        self._check()
        return await super().load(topic, group, partition)

    async def commit(self, group: str, offsets: Any) -> None:
        """See ``IOffsetStore``."""
        self._check()
        await super().commit(group, offsets)

    def _check(self) -> None:
        if not self.works:
            raise Broken("the store is broken")


class UserFaults:
    """What users give to the client raises, and disks are full."""

    @scenario
    async def test_selector(self, stage: Stage) -> None:
        """The send fails with the selector's own error; the producer goes on."""
        case: Any = self

        async with Cluster(stage) as world:

            def choose(topic: str, partitions: Any, message: Any) -> Any:
                if message.data == b"bad":
                    raise Broken("no choice")
                return partitions[0]

            world.producer = await world.factory.create_producer("test", choose)
            with case.assertRaises(Broken):
                await world.producer.send("test", b"bad")
            await world.reader()
            await world.send(*named("good"))
            await world.until_read()

    @scenario
    async def test_filter(self, stage: Stage) -> None:
        """What the filter fails on is not delivered, with a line that says where; others are."""
        case: Any = self
        async with Direct(stage) as world:
            await world.send(*named("value", 3))

            def accept(group: str, message: ReceivedMessage) -> bool:
                if message.data == b"value-1":
                    raise Broken("filter")
                return True

            reader = world.make_reader()
            reader.subscribe([world.topic], filter=accept)
            await reader.consumer.complete_subscribe()
            await world.until_read(b"value-0", b"value-2")
            offset = world.ledger.acknowledged[b"value-1"][1]
            lines = stage.logged("The filter failed on", f"{world.topic} 0-0 offset {offset}")
            case.assertEqual(1, len(lines))
            world.ledger.passed_over.add(b"value-1")

    @scenario
    async def test_offset_store(self, stage: Stage) -> None:
        """Nothing is read before the store says where to begin; a failed commit is repeated."""
        case: Any = self
        store = FailingStore()
        async with Cluster(stage) as world:
            await world.send(*named("value", 4))
            with case.assertRaises(OffsetStoreError):
                await world.reader(store=store)
            case.assertEqual({}, world.ledger.values)
            case.assertTrue(stage.logged("is not balanced yet", "the store is broken"))
            store.works = True
            await world.until_read()
            store.works = False
            await world.send(*named("more", 4))
            await world.until_read()
            await stage.until_logged("offsets are not stored and will be tried again", "test 0-")
            store.works = True
            await stage.until_logged("offsets are stored again")
            stored = {str(key[2]): each.offset for key, each in store.offsets.items()}
            for partition, offset in last_offsets(world.ledger).items():
                case.assertGreater(stored[partition], offset)

    @scenario
    async def test_reject_strategy(self, stage: Stage) -> None:
        """A message that cannot even be rejected is tried again, not lost."""
        case: Any = self
        rejected: list[bytes] = []
        failing = Failing(b"value-1", times=2)

        def reject(message: ReceivedMessage) -> None:
            failing(message)
            rejected.append(message.data)

        async with Direct(stage) as world:
            await world.send(*named("value", 3))
            always = Failing(b"value-1", times=99)
            reader = world.make_reader(always, max_fetch_retries=0)
            reader.consumer.on_rejection(reject)
            reader.subscribe([world.topic])
            await reader.consumer.complete_subscribe()
            await world.until_read()
            case.assertEqual([b"value-1"], rejected)
            lines = stage.logged(f"{world.topic} 0-0 offset", "could not be rejected either")
            case.assertEqual(2, len(lines))
            world.ledger.passed_over.add(b"value-1")

    @scenario
    async def test_full_disk(self, stage: Stage) -> None:
        """No room to keep a rejected message: tried until there is; it is kept then."""
        case: Any = self
        directory = full_disk(case)
        async with Direct(stage, recover_path=directory) as world:
            await world.send(*named("value", 3))
            await world.reader(Failing(b"value-1", times=99), max_fetch_retries=0)
            await stage.until_logged("could not be rejected either", f"{world.topic} 0-0 offset")
            case.assertNotIn(b"value-2", world.ledger.values["g0"])
            os.unlink(os.path.join(directory, "filler"))
            await world.until_read()
            case.assertEqual(1, await world.factory.recovery.count(world.topic, "g0"))
            world.ledger.passed_over.add(b"value-1")

    @scenario
    async def test_one_way_while_the_broker_is_away(self, stage: Stage) -> None:
        """One-way messages are kept on disk while they cannot go, and go when they can."""
        async with Direct(stage) as world:
            await world.reader()
            producer = await world.factory.create_one_way_producer(world.topic)
            world.wire.fault = wire.LOSE
            for value in named("kept", 10):
                world.ledger.sent[value] = 2
                producer.send(world.topic, value)
            await stage.until_logged("Broker meta://")
            await stage.until(lambda: producer.free == producer.window, "the policy")
            world.wire.fault = wire.PASS
            await world.send(b"after")
            await producer.recover()
            await world.until_read(b"after", *named("kept", 10))


def full_disk(case: Any) -> str:
    """A small file system without room; the test is skipped where none can be made."""
    directory: str = os.path.abspath(case.mktemp())
    os.makedirs(directory)
    options = ["-t", "tmpfs", "-o", "size=256k", "metamorphosis-test", directory]
    if shutil.which("mount") is None:
        case.skipTest("no mount: a full disk cannot be made here")
    done = subprocess.run(["mount", *options], capture_output=True, check=False)
    if done.returncode:
        case.skipTest("a full disk cannot be made here: mount needs the right to do so")
    case.addCleanup(subprocess.run, ["umount", "--lazy", directory], check=False)
    with open(os.path.join(directory, "filler"), "wb", buffering=0) as filler:
        try:
            while filler.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return directory


class MessageTwistedTests(MessageFaults, OnTwisted):
    """Under Twisted."""


class MessageAsyncioTests(MessageFaults, OnAsyncio):
    """Under asyncio."""


class ListenerTwistedTests(ListenerFaults, OnTwisted):
    """Under Twisted."""


class ListenerAsyncioTests(ListenerFaults, OnAsyncio):
    """Under asyncio."""


class UserTwistedTests(UserFaults, OnTwisted):
    """Under Twisted."""


class UserAsyncioTests(UserFaults, OnAsyncio):
    """Under asyncio."""
