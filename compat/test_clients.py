"""The original Java client through the original broker, and through ours."""

from __future__ import annotations

import itertools
import threading

from compat import behaviour
from compat.clientcase import name, wait_until
from compat.samples import outcome, samples, send
from tests.support import peers, zookeeper

KILLS = 3


class OriginalClientTests(
    behaviour.ExchangeBehaviour,
    behaviour.OffsetBehaviour,
    behaviour.ClosedPartitionBehaviour,
    behaviour.RebalanceBehaviour,
):
    """The original client with the original broker: a check of the harness."""

    skip = peers.missing()
    kind = peers.JavaBroker


class OurClientTests(
    behaviour.ExchangeBehaviour,
    behaviour.OffsetBehaviour,
    behaviour.ClosedPartitionBehaviour,
    behaviour.RebalanceBehaviour,
):
    """The original client works with our broker as with the original."""

    skip = peers.missing()
    kind = peers.OurBroker

    def test_clients_survive_kill_of_broker(self) -> None:
        """The broker is killed and restarted while ZooKeeper still has the nodes of the dead
        session. The original would stay unregistered."""
        broker = self.own_broker()
        factory, received = self.factory(broker), samples("before", 20)
        producer = self.producer(factory, "t")
        self.assertSent(send(peers.driver(), producer, "t", received), 20)
        _, call = self.consume(factory, "t", "g")
        self.assertReceived(call, received)
        nodes = broker.zookeeper.tree(f"{broker.root}/brokers")
        broker.kill()
        broker.start()

        def registered() -> bool:
            tree = broker.zookeeper.tree(f"{broker.root}/brokers")
            return set(tree) == set(nodes) and all(
                (node.owner, nodes[path].owner) == (0, 0) or node.owner != nodes[path].owner
                for path, node in tree.items()
            )

        wait_until(registered, "every node belongs to the new session")
        more = samples("after", 20)
        self.assertSent(self.send_until_accepted(producer, "t", more), 20)
        self.assertReceived(call, received + more)

    def test_default_settings_show_messages_soon(self) -> None:
        """
        With the original and ``unflushThreshold`` 1000 the consumer would wait for ten seconds.
        """
        broker = peers.OurBroker(
            self.mktemp(),
            zookeeper.shared(),
            f"/{name('soon')}",
            {"t": {"numPartitions": 2}},
            system={"unflushThreshold": 1000, "unflushInterval": 10000},
        )
        broker.start()
        self.addCleanup(broker.kill)
        factory, sent = self.factory(broker), samples("soon", 30)
        _, call = self.consume(factory, "t", "g")
        send(peers.driver(), self.producer(factory, "t"), "t", sent)
        call.wait_for("message", 30, 2.0)
        self.assertReceived(call, sent)

    def test_kills_under_load(self) -> None:
        """A Java producer sends while our broker is killed again and again: the Java consumer
        receives every confirmed message."""
        broker = self.own_broker()
        factory = self.factory(broker)
        producer = self.producer(factory, "t")
        _, call = self.consume(factory, "t", "g")
        confirmed: list[object] = []
        stop = threading.Event()

        def produce() -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                batch = samples(f"load-{number}", 20)
                for message, event in zip(
                    batch, send(peers.driver(), producer, "t", batch, "send-callback")
                ):
                    if event["success"]:
                        confirmed.append(message.outcome)

        thread = threading.Thread(target=produce, daemon=True, name="java-producer")
        thread.start()
        for _ in range(KILLS):
            before = len(confirmed)
            wait_until(lambda: len(confirmed) > before + 200, "messages flow")
            broker.kill()
            broker.start()
        before = len(confirmed)
        wait_until(lambda: len(confirmed) > before + 200, "messages flow after the last start")
        stop.set()
        thread.join(peers.CALL_SECONDS)
        self.assertFalse(thread.is_alive())
        wait_until(
            lambda: set(confirmed) <= set(map(outcome, call.named("message"))),
            "everything confirmed is received",
        )
        ids = [event["id"] for event in call.named("message")]
        self.assertEqual(len(ids), len(set(ids)))

    def test_zookeeper_outage(self) -> None:
        """ZooKeeper dies and returns, and the broker's session expires: messages flow, except while
        the clients look for the broker."""
        zk = zookeeper.ZooKeeperServer(self.mktemp())
        zk.start()
        self.addCleanup(zk.kill)
        broker = peers.OurBroker(self.mktemp(), zk, "/outage", {"t": {"numPartitions": 2}})
        broker.start()
        self.addCleanup(broker.kill)
        factory = self.factory(broker)
        producer, received = self.producer(factory, "t"), samples("before", 20)
        _, call = self.consume(factory, "t", "g")
        self.assertSent(send(peers.driver(), producer, "t", received), 20)
        zk.kill()
        received += samples("without", 20)
        self.assertSent(send(peers.driver(), producer, "t", received[20:]), 20)
        self.assertReceived(call, received)
        zk.start()
        owner = zk.tree("/outage")["/outage/brokers/ids/0/master"].owner
        zk.expire(owner)
        nodes = ["ids/0/master", "topics-pub/t/0-m", "topics-sub/t/0-m", "topics/t/0-m"]

        def registered() -> bool:
            tree = zk.tree("/outage/brokers")
            return all(
                tree.get(f"/outage/brokers/{node}", zookeeper.Node(None, owner)).owner != owner
                for node in nodes
            )

        wait_until(registered, "the broker is registered again")
        more = samples("after", 20)
        self.assertSent(self.send_until_accepted(producer, "t", more), 20)
        self.assertReceived(call, received + more)
