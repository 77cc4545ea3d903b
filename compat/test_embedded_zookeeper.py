"""
The original Java client on our broker and our ZooKeeper, both in one process: ``twistd metaq
--local``. A restart is one of the whole process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from compat import behaviour
from compat.clientcase import name, wait_until
from compat.samples import Sample, outcome, samples
from tests.support import javabuild, peers, zookeeper
from tests.support.embedded import EmbeddedZooKeeper


class LocalBroker(peers.OurBroker):
    """``twistd -n metaq --local -f server.ini``; its ZooKeeper runs in the same process."""

    kind = "local"

    def command(self, options: Sequence[str] = ()) -> list[str]:
        """The same with one more option."""
        return [*super().command(options), "--local"]

    def start(self, wait: bool = True) -> None:
        """Return when it serves and is registered."""
        super().start(wait)
        self.wait_for_registration()


class EmbeddedZooKeeperTests(behaviour.OffsetBehaviour, behaviour.RebalanceBehaviour):
    """The client works as with a separate ZooKeeper, also when the process ends and starts
    again."""

    skip = javabuild.missing()
    kind = LocalBroker

    def zookeeper_server(self) -> zookeeper.ZooKeeperServer:
        """An address; the broker's process listens there."""
        return EmbeddedZooKeeper(self.mktemp())

    def wait_for_commit(self, broker: peers.Broker, ends: dict[str, int]) -> None:
        """Until the group's offsets in ZooKeeper are the ends of the partitions."""

        def committed() -> dict[str, int]:
            stored = self.stored_offsets(broker, "g", "t")
            return {name: int(text.rpartition("-")[2]) for name, text in stored.items()}

        wait_until(lambda: committed() == ends, f"offsets become {ends}")

    def test_offsets_survive_restart_of_the_process(self) -> None:
        """After an orderly end and after a ``kill -9`` a new consumer of the group receives only
        the messages sent after the start. The producer is the same all the time."""
        broker = self.own_broker()
        factory, ends = self.factory(broker), {}
        producer = self.producer(factory, "t")
        for number, end in enumerate((broker.stop, broker.kill, None)):
            sent = samples(f"round-{number}", 20)
            events = self.send_until_accepted(producer, "t", sent)
            self.assertSent(events, 20)
            for event, message in zip(events, sent):
                ends[event["partition"]] = event["offset"] + length(message)
            consumer, call = self.consume(factory, "t", "g")
            self.assertReceived(call, sent)
            self.wait_for_commit(broker, ends)
            peers.driver().call("stop-consumer", consumer=consumer)
            if end is not None:
                end()
                broker.start()
                self.wait_for_commit(broker, ends)

    def test_group_survives_restart_of_the_process(self) -> None:
        """Two consumers share the partitions before and after ``kill -9``; their sessions resume,
        and every later message arrives exactly once."""
        broker = self.kind(
            self.mktemp(), self.zookeeper_server(), f"/{name('group')}", {"t": {"numPartitions": 4}}
        )
        broker.start()
        self.addCleanup(broker.kill)
        factory, other = self.factory(broker), self.factory(broker, peers.driver(1))
        producer = self.producer(factory, "t")
        calls = [
            self.consume(factory, "t", "g")[1],
            self.consume(other, "t", "g", peers.driver(1))[1],
        ]
        wait_until(lambda: sorted(self.owners(broker).values()) == [2, 2], "each owns two")
        before = self.owners(broker)
        broker.kill()
        broker.start()
        sent = samples("after", 40)
        self.assertSent(self.send_until_accepted(producer, "t", sent), 40)

        def received() -> Counter[Any]:
            return Counter(outcome(e) for call in calls for e in call.named("message"))

        expected = Counter(message.outcome for message in sent)
        wait_until(lambda: received().keys() >= expected.keys(), "all arrive")
        self.assertEqual(received(), expected)
        self.assertEqual(self.owners(broker), before)
        self.assertGreater(min(len(call.named("message")) for call in calls), 10)


def length(message: Sample) -> int:
    """Of its record in the log."""
    attribute = 0 if message.attribute is None else 4 + len(message.attribute.encode())
    return 20 + attribute + len(message.body)
