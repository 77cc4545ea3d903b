"""``metamorphosis.client.topics.absence``: reasons why a topic has no partitions."""

from __future__ import annotations

from metamorphosis.client.topics.absence import Absence, not_published
from metamorphosis.cluster.model import ConnectionFault
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NoNode, NoPartition, UnknownTopic, WrongRoot
from tests.support.producing import PUB, ProducingCase


class ReasonTests(ProducingCase):
    """Each cause has its text, with what was looked at and where."""

    def reason(self, root: str = "/meta", connect: str = "zk:2181") -> NoPartition:
        """Of topic ``test``."""
        absence = Absence(self.registry, Paths(root), connect)
        found: NoPartition = self.runtime.run(absence.reason("test"))
        self.assertTrue(str(found).startswith("topic test: "))
        return found

    def assertReason(
        self, found: NoPartition, kind: type[NoPartition], retriable: bool, *parts: str
    ) -> None:
        """Its class, whether it may pass, and what stands in the text."""
        self.assertIs(kind, type(found))
        self.assertIs(retriable, found.retriable)
        self.assertNotIn("maybe you don't publish", str(found))
        for part in parts:
            self.assertIn(part, str(found))

    def test_no_broker_ever(self) -> None:
        """An empty ZooKeeper: brokers may still come."""
        parts = "no broker has ever registered", "no /meta/brokers/ids in ZooKeeper at zk:2181"
        self.assertReason(self.reason(), NoPartition, True, *parts)

    def test_wrong_root(self) -> None:
        """Those that brokers use are named."""
        self.register(0)
        parts = "no /metaa/brokers/ids in", "root is /metaa", "registered below /meta"
        self.assertReason(self.reason("/metaa"), WrongRoot, False, *parts)

    def test_no_prefix(self) -> None:
        """The root / is one, too, both ways."""
        self.register(0)
        parts = "there is no /brokers/ids in", "root is /,", "registered below /meta"
        self.assertReason(self.reason("/"), WrongRoot, False, *parts)
        self.tree.create("/brokers/topics-pub/test/0-m", b"{}", 1)
        self.assertReason(self.reason("/x"), WrongRoot, False, "registered below /, /meta")

    def test_no_chroot(self) -> None:
        """A mistyped chroot is named, and not made."""

        def fault(operation: str, path: str) -> Exception | None:
            return NoNode(path) if (operation, path) == ("children", "/") else None

        self.registry.faults = fault
        found = self.reason(connect="zk:2181/mtea")
        self.assertReason(found, WrongRoot, False, "zk:2181/mtea has no /mtea, the chroot")

    def test_unknown_topic(self) -> None:
        """Brokers are there, and named, but the topic never was."""
        self.register(0, "other")
        self.register(12, "other")
        self.tree.create("/meta/brokers/ids/strange", b"", 1)
        parts = f"no {PUB}/test in ZooKeeper at zk:2181", "ids of the registered brokers: 0, 12"
        self.assertReason(self.reason(), UnknownTopic, False, *parts)

    def test_only_for_consumers(self) -> None:
        """``acceptPublish=false``."""
        self.register(0, "other")
        self.tree.create("/meta/brokers/topics-sub/test/0-m", b"", 1)
        self.assertReason(self.reason(), UnknownTopic, False, "acceptPublish=false", ": 0")

    def test_only_a_consumer_made_it(self) -> None:
        """A consumer of a mistyped topic leaves its node, which no broker is below."""
        self.register(0, "other")
        self.tree.create("/meta/brokers/topics-sub/test", b"", 1)
        self.assertReason(self.reason(), UnknownTopic, False, "no broker has ever had it")

    def test_brokers_away(self) -> None:
        """The topic was there: its broker may come back, whether others are there or not."""
        self.register(0)
        self.unregister(0)
        parts = "no broker is registered at present", "/meta/brokers/ids in ZooKeeper at zk:2181"
        self.assertReason(self.reason(), NoPartition, True, *parts)
        self.register(3, "other")
        parts = "no broker takes its messages at present", f"{PUB}/test in", "brokers: 3"
        self.assertReason(self.reason(), NoPartition, True, *parts)

    def test_many_topics(self) -> None:
        """Twenty are named, and the number of the others."""
        names = [f"t{number:02}" for number in range(22)]
        for count, end in ((0, ": nothing"), (20, ", t19"), (22, ", t19 and 2 more")):
            text = str(not_published("test", names[:count]))
            self.assertTrue(text.endswith(end), text)

    def test_not_read_yet(self) -> None:
        """ZooKeeper is away, for a reason."""
        absence = Absence(self.registry, Paths(), "zk:2181")
        self.registry.outage = ConnectionFault("Connection refused", True)
        self.registry.suspend()
        parts = "not known yet", "zk:2181 has not told them (Connection refused)"
        self.assertReason(absence.not_read("test"), NoPartition, True, *parts)


class LookTests(ProducingCase):
    """When the directory looks for the reason."""

    def test_told_once_and_renewed(self) -> None:
        """One line in the log for each reason; sends renew it when it is old."""
        producer = self.producer("test", retries=0)
        self.runtime.advance(10)
        for _ in range(3):
            self.assertRaises(NoPartition, self.runtime.result, producer.send("test", b"x"))
        self.assertEqual(1, len(self.runtime.log.texts("warn")))
        self.register(0, "other")
        self.runtime.advance(6)
        self.assertRaises(NoPartition, self.runtime.result, producer.send("test", b"x"))
        self.assertRaises(UnknownTopic, self.runtime.result, producer.send("test", b"x"))
        self.assertEqual(2, len(self.runtime.log.texts("warn")))
