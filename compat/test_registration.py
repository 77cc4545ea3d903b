"""
The nodes of the original and of ours in ZooKeeper for the same ``server.ini``, compared one by one.
"""

from __future__ import annotations

import json
import zlib
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from compat.clientcase import name, wait_until
from compat.exchange import Connection
from tests.support import peers, zookeeper

TOPICS: dict[str, dict[str, object]] = {
    "both": {"numPartitions": 3},
    "closed": {"acceptPublish": "false", "acceptSubscribe": "false"},
    "for-consumers": {"acceptPublish": "false"},
    "for-producers": {"acceptSubscribe": "false"},
    "dyn*": {"numPartitions": 7},
}


class Shown(NamedTuple):
    """The part of a node that clients see."""

    data: object
    ephemeral: bool


def content(data: bytes | None) -> object:
    """JSON as its value: the original writes the keys in an order that changes from run to run."""
    return json.loads(data) if data is not None and data.startswith(b"{") else data


class RegistrationTests(SynchronousTestCase):
    """Both brokers do the same, one after the other, on the same port and root."""

    skip = peers.missing()
    kinds: tuple[type[peers.Broker], type[peers.Broker]] = (peers.JavaBroker, peers.OurBroker)

    def setUp(self) -> None:
        """Two brokers that never run at the same time."""
        port = zookeeper.free_port()
        self.brokers = [
            kind(
                self.mktemp(),
                zookeeper.shared(),
                f"/{name('registration')}",
                TOPICS,
                broker_id=5,
                port=port,
            )
            for kind in self.kinds
        ]
        for broker in self.brokers:
            self.addCleanup(broker.kill)

    def tree(self, broker: peers.Broker) -> dict[str, Shown]:
        """The nodes below the root; the checksum is that of a file with paths of its own."""
        found = broker.zookeeper.tree(broker.root)
        shown = {
            path.removeprefix(broker.root): Shown(content(node.data), node.owner != 0)
            for path, node in found.items()
        }
        checksum = shown.get("/brokers/ids/5/master_config_checksum")
        if checksum is not None:
            with open(f"{broker.directory}/server.ini", "rb") as file:
                self.assertEqual(checksum.data, str(zlib.crc32(file.read())).encode())
            del shown["/brokers/ids/5/master_config_checksum"]
        return shown

    def live(self, broker: peers.Broker) -> list[dict[str, Shown]]:
        """The trees after the start, after the first put of a topic, and after the stop."""
        broker.start()
        path = f"{broker.root}/brokers/ids/5/master_config_checksum"
        wait_until(lambda: path in broker.zookeeper.tree(broker.root), "the checksum appears")
        trees = [self.tree(broker)]
        connection = Connection(broker.port)
        for topic in ("dynamic", "dynamite", "both"):
            reply = connection.ask(b"put %b 0 5 0 1\r\nhello" % topic.encode())
            self.assertEqual(reply.status, 200)
        connection.close()
        node = f"{broker.root}/brokers/topics-sub/dynamite/5-m"
        wait_until(lambda: node in broker.zookeeper.tree(broker.root), "the topic appears")
        trees.append(self.tree(broker))
        broker.stop()
        trees.append(self.tree(broker))
        broker.start()
        wait_until(lambda: path in broker.zookeeper.tree(broker.root), "the checksum appears")
        wait_until(lambda: node in broker.zookeeper.tree(broker.root), "the topic appears")
        trees.append(self.tree(broker))
        broker.stop()
        return trees

    def test_equal_trees(self) -> None:
        """Names, data and kind of every node, through start, first puts, stop and start."""
        first, second = (self.live(broker) for broker in self.brokers)
        moments = ("the start", "first puts", "the stop", "the second start")
        for moment, original, ours in zip(moments, first, second):
            self.maxDiff = None
            self.assertEqual(ours, original, f"after {moment}")
        self.assertEqual(first[0]["/brokers/topics/both/5-m"], Shown(b"3", True))
        self.assertNotIn("/brokers/topics-pub/closed/5-m", first[0])
        self.assertNotIn("/brokers/ids/5", first[2])
