"""
The client when users' parts fail: selectors, filters, reject strategies, offset stores, MySQL,
disks. Real sockets and processes, both faces; see ``test_client_faults``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from metamorphosis.client.model import Partition, ReceivedMessage, StoredOffset
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.offsets.mysql import MySQLOffsetStore
from metamorphosis.errors import OffsetStoreError
from tests.faults import wire
from tests.faults.faces import OnAsyncio, OnTwisted, Stage, scenario
from tests.faults.test_client_faults import last_offsets, named
from tests.faults.test_client_messages import Broken, Failing
from tests.faults.world import Cluster, Direct
from tests.support import mariadb


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
    """Users' functions raise, and disks are full."""

    @scenario
    async def test_selector(self, stage: Stage) -> None:
        """The send fails with the selector's own error; the producer continues."""
        case: Any = self

        async with Cluster(stage) as world:

            def choose(topic: str, partitions: Any, message: Any) -> Any:
                if message.data == b"bad":
                    raise Broken("no choice")
                return partitions[0]

            world.producer = await world.factory.create_producer(world.topic, choose, retries=0)
            with case.assertRaises(Broken):
                await world.producer.send(world.topic, b"bad")
            await world.reader()
            await world.send(*named("good"))
            await world.until_read()

    @scenario
    async def test_callback(self, stage: Stage) -> None:
        """A callback that raises is logged, and does not affect other sends."""
        async with Direct(stage) as world:
            await world.reader()

            def fail(result: Any, error: Any) -> None:
                raise Broken("callback")

            world.ledger.sent[b"called"] = 1
            world.producer.send_with_callback(fail, world.topic, b"called")
            await stage.until_logged(f"The callback of a message of topic {world.topic} failed")
            await world.send(*named("after"))
            await world.until_read(b"called", *named("after"))

    @scenario
    async def test_filter(self, stage: Stage) -> None:
        """A message for which the filter fails is not delivered, with a log line that names its
        place; others are."""
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
        """No message is read before the store returns the position; a failed commit is repeated."""
        case: Any = self
        store = FailingStore()
        async with Cluster(stage) as world:
            await world.send(*named("value", 4))
            try:
                await world.reader(store=store)
            except OffsetStoreError:
                pass
            else:  # on a busy machine the broker's session may have ended: nothing to read at first
                case.assertTrue(stage.logged(f"no broker has topic {world.topic}"))
            await stage.until_logged("is not balanced yet", "the store is broken")
            case.assertEqual({}, world.ledger.values)
            store.works = True
            await world.until_read()
            store.works = False
            await world.send(*named("more", 4))
            await world.until_read()
            await stage.until_logged(
                "offsets are not stored and will be tried again", f"{world.topic} 0-"
            )
            store.works = True
            await stage.until_logged("offsets are stored again")
            stored = {str(key[2]): each.offset for key, each in store.offsets.items()}
            for partition, offset in last_offsets(world.ledger).items():
                case.assertGreater(stored[partition], offset)

    @scenario
    async def test_reject_strategy(self, stage: Stage) -> None:
        """A message whose rejection fails is tried again, not lost."""
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
            case.assertEqual(1, len(lines), "the second time is counted")
            world.ledger.passed_over.add(b"value-1")

    @scenario
    async def test_full_disk(self, stage: Stage) -> None:
        """Without room for a rejected message it is tried again until there is room, and then
        kept."""
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
        """One-way messages are kept on disk while the broker is away, and sent when it returns."""
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


def bring_back(server: mariadb.MariaDBServer) -> None:
    """Make the shared server work again: other tests use it."""
    if server.process is None:
        server.start()
    server.resume()


class DatabaseFaults:
    """MySQL dies, hangs and returns."""

    @scenario
    async def test_mysql(self, stage: Stage) -> None:
        """Messages still flow; positions are stored when the server is back, and the next consumer
        continues there."""
        case: Any = self
        server = mariadb.shared()
        case.addCleanup(bring_back, server)
        database = server.new_database()

        def store() -> MySQLOffsetStore:
            runtime = world.factory.runtime
            return MySQLOffsetStore(runtime, read_timeout=1, **server.arguments(database))

        def stored() -> int:
            table = "meta_topic_partition_group_offset"
            return int(server.execute(f"select `offset` from {table}", database)[0][0])

        async with Direct(stage) as world:
            first = store()
            await first.create_table()
            await world.send(*named("before"))
            reader = await world.reader(group="g", store=first)
            await world.until_read()
            for outage, again in ((server.kill, server.start), (server.pause, server.resume)):
                stage.lines.clear()
                await stage.blocking(outage)
                await world.send(*named(outage.__name__))
                await world.until_read()
                await stage.until_logged(
                    "offsets are not stored and will be tried again", f"{world.topic} 0-0 at"
                )
                await stage.blocking(again)
                await stage.until_logged("offsets are stored again")
            case.assertGreater(stored(), last_offsets(world.ledger)["0-0"])
            await reader.consumer.close()
            await first.close()
            second = store()
            await world.reader(group="g", store=second)
            await world.send(b"after")
            await world.until_read()
            case.assertEqual({1}, set(world.ledger.values["g"].values()))
            world.closing(second.close)


class UserTwistedTests(UserFaults, OnTwisted):
    """Under Twisted."""


class UserAsyncioTests(UserFaults, OnAsyncio):
    """Under asyncio."""


class DatabaseTwistedTests(DatabaseFaults, OnTwisted):
    """Under Twisted."""

    skip = mariadb.missing()


class DatabaseAsyncioTests(DatabaseFaults, OnAsyncio):
    """Under asyncio."""

    skip = mariadb.missing()
