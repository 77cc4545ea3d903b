"""A cluster of the original and of ours under one ZooKeeper."""

from __future__ import annotations

from collections import Counter

from compat.clientcase import ClientCase, name, wait_until
from compat.samples import samples, send
from tests.support import peers, zookeeper

KINDS: tuple[type[peers.Broker], type[peers.Broker]] = (peers.JavaBroker, peers.OurBroker)


class MixedClusterTests(ClientCase):
    """Broker 0 is the original, broker 1 ours; each has two partitions of the topic."""

    skip = peers.missing()

    def setUp(self) -> None:
        """Both brokers, a producer and a consumer."""
        root = f"/{name('mixed')}"
        self.brokers = []
        for number, kind in enumerate(KINDS):
            broker = kind(
                self.mktemp(), zookeeper.shared(), root, {"t": {"numPartitions": 2}}, number
            )
            broker.start()
            self.addCleanup(broker.kill)
            self.brokers.append(broker)
        factory = self.factory(self.brokers[0])
        self.producing = self.producer(factory, "t")
        self.received = samples("both", 40)
        self.sent = send(peers.driver(), self.producing, "t", self.received)
        _, self.call = self.consume(factory, "t", "g")

    def used(self) -> set[str]:
        """The partitions of four successive sends; the client uses them in turn."""
        probes = samples(name("probe"), 4)
        events = self.send_until_accepted(self.producing, "t", probes)
        self.received += probes
        return {event["partition"] for event in events}

    def test_spread_and_failover(self) -> None:
        """Messages are spread over both brokers; each in turn stops and returns, and no message is
        lost."""
        self.assertSent(self.sent, 40)
        self.assertEqual(
            Counter(event["partition"] for event in self.sent),
            {"0-0": 10, "0-1": 10, "1-0": 10, "1-1": 10},
        )
        self.assertEqual(len({event["id"] for event in self.sent}), 40)
        self.assertReceived(self.call, self.received)
        for number, other in ((1, 0), (0, 1)):
            self.brokers[number].stop()
            left = {f"{other}-0", f"{other}-1"}
            wait_until(lambda: self.used() == left, f"only broker {other} is used")
            self.assertReceived(self.call, self.received)
            self.brokers[number].start()
            both = {"0-0", "0-1", "1-0", "1-1"}
            wait_until(lambda: self.used() == both, f"broker {number} is used again")
            self.assertReceived(self.call, self.received)
