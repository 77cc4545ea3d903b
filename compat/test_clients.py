"""The original Java client through the original broker, and through ours."""

from __future__ import annotations

from compat import behaviour, peers
from compat.clientcase import name, wait_until
from compat.samples import samples, send
from tests.integration import zookeeper


class OriginalClientTests(
    behaviour.ExchangeBehaviour, behaviour.OffsetBehaviour, behaviour.RebalanceBehaviour
):
    """The harness is right: original client, original broker."""

    skip = peers.missing()
    kind = peers.JavaBroker


class OurClientTests(
    behaviour.ExchangeBehaviour, behaviour.OffsetBehaviour, behaviour.RebalanceBehaviour
):
    """The original client does not notice that the broker is ours."""

    skip = peers.missing()
    kind = peers.OurBroker

    def test_clients_survive_kill_of_broker(self) -> None:
        """
        Killed, and started at once while ZooKeeper still has the nodes of the dead session; the
        original would stay unregistered.
        """
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
