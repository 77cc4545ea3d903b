"""
The client when brokers, connections and ZooKeeper fail: real sockets and processes, both faces.

At the end of each scenario the ledger is judged: every acknowledged message is in the log and was
given to every group, nothing is there that was not sent, nothing twice but what was sent twice, in
order, and no commit runs ahead of the listeners.
"""

from __future__ import annotations

import signal
from typing import Any

from metamorphosis.client.model import Partition
from metamorphosis.errors import ConnectionLost, NoPartition, NotConnected, SendTimeout
from tests.faults import wire
from tests.faults.faces import OnAsyncio, OnTwisted, Stage, scenario
from tests.faults.ledger import Ledger, read_logs
from tests.faults.world import Cluster, Direct
from tests.support.zookeeper import free_port


def named(word: str, count: int = 3) -> list[bytes]:
    """Values of messages."""
    return [b"%s-%d" % (word.encode(), number) for number in range(count)]


class WireFaults:
    """Wrong or missing bytes on the wire."""

    async def suffer(self, stage: Stage, fault: str, expected: Any, *words: str) -> None:
        """
        Messages before, during and after a fault; all arrive.

        :param expected: types of errors, one of which every send meets during the fault.
        :param words: in a line of the log.
        """
        async with Direct(stage, send_timeout_ms=500) as world:
            await world.reader()
            await world.send(*named("before"))
            await world.until_read()
            world.wire.fault = fault
            for value in named("during"):
                outcome = await world.ledger.try_to_send(world.producer, world.topic, value)
                stage.case.assertIsInstance(outcome, expected)
            await stage.until_logged(world.wire.address, *words)
            world.wire.fault = wire.PASS
            await world.send(*named("during"), *named("after"))
            await world.until_read()

    @scenario
    async def test_silent(self, stage: Stage) -> None:
        """A broker that accepts and never answers: sends time out, heartbeats end the
        connection."""
        expected = (SendTimeout, ConnectionLost, NotConnected)
        await self.suffer(stage, wire.SILENT, expected, "heartbeats without an answer")

    @scenario
    async def test_deaf(self, stage: Stage) -> None:
        """A broker that accepts and reads nothing: sends time out, and no message is stored."""
        expected = (SendTimeout, ConnectionLost, NotConnected)
        await self.suffer(stage, wire.DEAF, expected, "heartbeats without an answer")

    @scenario
    async def test_garbage(self, stage: Stage) -> None:
        """A broker that answers garbage: the connection is closed with a log line that quotes
        it."""
        expected = (ConnectionLost, NotConnected)
        await self.suffer(stage, wire.GARBAGE, expected, "no reply of a broker", "HTTP/1.1 400")

    @scenario
    async def test_half_an_answer(self, stage: Stage) -> None:
        """Half a reply, then silence: the same as no reply."""
        expected = (SendTimeout, ConnectionLost, NotConnected)
        await self.suffer(stage, wire.HALF, expected, "heartbeats without an answer")

    @scenario
    async def test_closed_in_place_of_an_answer(self, stage: Stage) -> None:
        """The connection closes with the request pending: the outcome is unknown."""
        await self.suffer(stage, wire.LOSE, (ConnectionLost, NotConnected), "Broker meta://")

    @scenario
    async def test_closes_after_each_answer(self, stage: Stage) -> None:
        """A client that repeats its requests works with a broker that closes after every reply."""
        async with Direct(stage) as world:
            await world.reader()
            world.wire.fault = wire.CLOSE
            await world.send(*named("slow"))
            await world.until_read()
            stage.case.assertGreater(world.wire.accepted, 3)


class BrokerFaults:
    """The broker's process dies, returns, or hangs."""

    @scenario
    async def test_killed_and_restarted(self, stage: Stage) -> None:
        """kill -9 with sends pending; after a restart at the same port everything continues."""
        async with Cluster(stage) as world:
            await world.reader()
            await world.send(*named("before"))
            await world.until_read()
            flying = [
                world.ledger.try_to_send(world.producer, world.topic, value)
                for value in named("flying", 20)
            ]
            started = [world.factory.runtime.start(each) for each in flying]
            world.broker.kill()
            for each in started:
                await each
            outcome = await world.ledger.try_to_send(world.producer, world.topic, b"down")
            stage.case.assertIsInstance(outcome, (NotConnected, ConnectionLost, NoPartition))
            await stage.blocking(world.broker.start)
            await world.send(b"down", *named("flying", 20), *named("after"))
            await world.until_read()

    @scenario
    async def test_another_address(self, stage: Stage) -> None:
        """Killed, and started at another port: producer and consumer find it by ZooKeeper."""
        async with Cluster(stage) as world:
            await world.reader()
            await world.send(*named("before"))
            await world.until_read()
            world.broker.kill()
            world.broker.port = free_port()
            world.broker.system = {**world.broker.system, "serverPort": world.broker.port}
            await stage.blocking(world.broker.start)
            await world.send(*named("after"))
            await world.until_read()
            address = f"meta://localhost:{world.broker.port}"
            connected = world.factory.connections.connected_urls
            await stage.until(lambda: connected() == [address], "end of the old connection")

    @scenario
    async def test_hangs(self, stage: Stage) -> None:
        """SIGSTOP: the socket stays open without replies; the client continues when the broker
        does."""
        async with Cluster(stage) as world:
            await world.reader()
            await world.send(*named("before"))
            await world.until_read()
            world.broker.signal(signal.SIGSTOP)
            try:
                for value in named("during"):
                    outcome = await world.ledger.try_to_send(world.producer, world.topic, value)
                    expected = (SendTimeout, ConnectionLost, NotConnected, NoPartition)
                    stage.case.assertIsInstance(outcome, expected)
                await stage.until_logged("heartbeats without an answer")
            finally:
                world.broker.signal(signal.SIGCONT)
            await world.send(*named("during"), *named("after"))
            await world.until_read()

    @scenario
    async def test_ordered_producer(self, stage: Stage) -> None:
        """Messages that cannot be sent while the broker is down are kept, and sent in order before
        later ones."""
        case: Any = stage.case
        world = Cluster(stage, ordered_save_to_local_when_failed=True)
        world.settings["partitions_info"] = {world.topic: "0:2"}
        async with world:
            await world.reader()
            producer = await world.factory.create_ordered_producer(world.topic)

            async def send(values: list[bytes]) -> set[bool]:
                world.ledger.sent.update(dict.fromkeys(values, 2))
                results = [await producer.send(world.topic, each, key="k") for each in values]
                return {each.is_stored for each in results}

            await send(named("before"))  # kept, too, while the broker's last session ends
            world.broker.kill()
            case.assertEqual({False}, await send(named("down", 10)))
            await stage.blocking(world.broker.start)
            await send(named("after"))
            while producer.local_count(world.topic, Partition(0, 0)) or producer.local_count(
                world.topic, Partition(0, 1)
            ):
                await producer.recover()
                await stage.sleep(0.1)
            logs = await stage.blocking(read_logs, world.broker, 0, [world.topic], 2)
            (stored,) = [[value for _, value in log] for log in logs.values() if log]
            expected = named("before") + named("down", 10) + named("after")
            case.assertEqual(expected, list(dict.fromkeys(stored)))
            await stage.until(lambda: set(expected) <= set(world.ledger.values["g"]), "delivery")


class ZooKeeperFaults:
    """ZooKeeper dies, freezes, or loses its data."""

    @scenario
    async def test_away(self, stage: Stage) -> None:
        """Without ZooKeeper messages still flow; positions are committed when it is back."""
        async with Cluster(stage) as world:
            reader = await world.reader()
            await world.send(*named("before"))
            await world.until_read()
            await stage.blocking(world.zookeeper.stop)
            await world.send(*named("during"))
            await world.until_read()
            await stage.until_logged(
                "offsets are not stored and will be tried again", f"{world.topic} 0-"
            )
            await stage.blocking(world.zookeeper.start)
            await stage.until_logged("offsets are stored again")
            await world.send(*named("after"))
            await world.until_read()
            await self.check_stored(stage, world, reader)

    @scenario
    async def test_frozen(self, stage: Stage) -> None:
        """Frozen for longer than the session: partitions are claimed again, at the old
        positions."""
        async with Cluster(stage) as world:
            reader = await world.reader()
            await world.send(*named("before"))
            await world.until_read()
            await stage.blocking(world.zookeeper.pause)
            await world.send(*named("during"))
            await stage.sleep(2.5)
            await stage.blocking(world.zookeeper.resume)
            await stage.until(lambda: len(reader.consumer.assignment) == 2, "assignment")
            await world.send(*named("after"))
            await world.until_read()
            await self.check_stored(stage, world, reader)

    @scenario
    async def test_empty(self, stage: Stage) -> None:
        """ZooKeeper returns without data: brokers and members register again."""
        async with Cluster(stage) as world:
            reader = await world.reader()
            await world.send(*named("before"))
            await world.until_read()
            session = world.factory.registry.session_id()
            await stage.blocking(world.zookeeper.stop)
            world.zookeeper.wipe()
            await stage.blocking(world.zookeeper.start)
            await world.send(*named("after"))
            await world.until_read()
            await self.new_session(stage, world, session)
            await stage.until(lambda: len(reader.consumer.assignment) == 2, "assignment")
            await world.send(*named("later"))
            await world.until_read()
            await self.check_stored(stage, world, reader)

    @scenario
    async def test_expired(self, stage: Stage) -> None:
        """The server ends the session: partitions are claimed again, no message is delivered
        twice."""
        async with Cluster(stage) as world:
            reader = await world.reader()
            await world.send(*named("before"))
            await world.until_read()
            session = world.factory.registry.session_id()
            await stage.blocking(world.zookeeper.expire, session)
            await self.new_session(stage, world, session)
            await stage.until_logged("the ZooKeeper session of", "are claimed anew")
            await world.send(*named("after"))
            await world.until_read()
            await stage.until(lambda: len(reader.consumer.assignment) == 2, "assignment")
            stage.case.assertEqual({1}, set(world.ledger.values["g"].values()))
            await self.check_stored(stage, world, reader)

    @scenario
    async def test_away_from_the_beginning(self, stage: Stage) -> None:
        """A consumer without ZooKeeper at its start logs that, and reads as soon as ZooKeeper is
        there."""
        async with Cluster(stage, zookeeper_connection_timeout_ms=300) as world:
            await world.send(*named("value"))
            await stage.blocking(world.zookeeper.stop)
            await world.factory.close()
            world.factory = stage.factory(
                zookeeper=world.zookeeper.connect_string, **world.settings
            )
            with stage.case.assertRaises(NotConnected):
                await world.reader()
            with stage.case.assertRaises(NotConnected):
                await world.factory.create_producer(world.topic)
            await stage.blocking(world.zookeeper.start)
            await world.until_read()

    async def new_session(self, stage: Stage, world: Cluster, old: int) -> None:
        """Wait until the client has a new session."""
        registry = world.factory.registry
        await stage.until(lambda: registry.session_id() not in (0, old), "a new session")

    async def check_stored(self, stage: Stage, world: Cluster, reader: Any) -> None:
        """ZooKeeper has the position after the last processed message."""
        consumer, ledger = reader.consumer, world.ledger
        await stage.until(lambda: len(consumer.assignment) == 2, "assignment")
        while not await consumer.commit():  # the trial's time limit ends this
            await stage.sleep(0.05)
        nodes = await stage.blocking(world.zookeeper.tree, "/meta/consumers/g/offsets")
        last = last_offsets(ledger)
        for (_, partition), position in consumer.assignment.items():
            path = f"/meta/consumers/g/offsets/{world.topic}/{partition}"
            if str(partition) in last:
                stage.case.assertFalse(position.modified)
                stored = int(nodes[path].data.rpartition(b"-")[2])
                stage.case.assertEqual(position.offset, stored)
                stage.case.assertGreater(stored, last[str(partition)])


def last_offsets(ledger: Ledger) -> dict[str, int]:
    """Partition -> offset of the last message that was acknowledged there."""
    last: dict[str, int] = {}
    for (_, partition), offset in ledger.acknowledged.values():
        last[str(partition)] = max(offset, last.get(str(partition), 0))
    return last


class WireTwistedTests(WireFaults, OnTwisted):
    """Under Twisted."""


class WireAsyncioTests(WireFaults, OnAsyncio):
    """Under asyncio."""


class BrokerTwistedTests(BrokerFaults, OnTwisted):
    """Under Twisted."""


class BrokerAsyncioTests(BrokerFaults, OnAsyncio):
    """Under asyncio."""


class ZooKeeperTwistedTests(ZooKeeperFaults, OnTwisted):
    """Under Twisted."""


class ZooKeeperAsyncioTests(ZooKeeperFaults, OnAsyncio):
    """Under asyncio."""
