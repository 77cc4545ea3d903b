"""Our tree in a real ZooKeeper, compared with the recorded trees of the original broker."""

from __future__ import annotations

import itertools
import json
import os

from metamorphosis.cluster.model import Broker
from metamorphosis.cluster.registration import RegistrationStatus
from tests.integration.registering import MASTER, TOPICS, CrashingBroker, RegisteringCase
from tests.support import zookeeper

CAPTURES = os.path.join(
    os.path.dirname(__file__),
    "../../compat/captures/sessions/00-broker-zookeeper-session/zk-tree-{}.json",
)


def recorded(moment: str) -> dict[str, tuple[str | None, bool]]:
    """Path -> (data, whether ephemeral) of the brokers' nodes; the node of ``nosuch`` is a
    producer's."""
    with open(CAPTURES.format(moment), encoding="utf-8") as file:
        nodes = json.load(file)
    return {
        node["path"]: (node["data"], node["ephemeral"])
        for node in nodes
        if node["path"].startswith("/meta/brokers") and not node["path"].endswith("/nosuch")
    }


class TreeTests(RegisteringCase):
    """The shared server, a chroot for each test."""

    session_timeout = 4000
    numbers = itertools.count()

    def setUp(self) -> None:
        """A chroot that does not exist yet."""
        super().setUp()
        self.server = zookeeper.shared()
        self.chroot = f"/tree/{next(self.numbers)}"
        self.connect = self.server.connect_string + self.chroot
        self.make()

    async def test_after_start(self) -> None:
        """The tree equals that of the original broker, path for path and byte for byte."""
        self.start()
        await self.registered()
        self.assertEqual(self.brokers(self.chroot), recorded("after-broker-start"))
        self.assert_owned(self.chroot)

    async def test_after_stop(self) -> None:
        """An orderly stop leaves the original's empty directories, before the session ends."""
        self.start()
        await self.registered()
        await self.registration.stop()
        self.assertIsNotNone(await self.registry.exists("/meta"))
        self.assertEqual(self.brokers(self.chroot), recorded("after-broker-stop"))

    async def test_after_crash_and_expiry(self) -> None:
        """After a kill all nodes stay, and after the session's end the parent with the stale
        URL."""
        broker = CrashingBroker(self.connect, self.session_timeout)
        broker.crash()
        self.assertEqual(self.brokers(self.chroot), recorded("1s-after-broker-kill"))
        self.server.expire(self.server.tree(self.chroot + MASTER)[self.chroot + MASTER].owner)
        self.assertEqual(self.brokers(self.chroot), recorded("9s-after-broker-kill"))

    async def test_quick_restart(self) -> None:
        """A killed broker takes its nodes over at once, and keeps them when the old session
        ends."""
        CrashingBroker(self.connect, self.session_timeout).crash()
        old = self.server.tree(self.chroot + MASTER)[self.chroot + MASTER].owner
        self.start()
        await self.registered()
        self.assert_owned(self.chroot)
        self.server.expire(old)
        self.assert_owned(self.chroot)

    async def test_broker_id_in_use(self) -> None:
        """A broker at another address has our id: ours waits for it, and does not touch its
        nodes."""
        other = CrashingBroker(self.connect, self.session_timeout)
        self.addCleanup(other.crash)
        before = self.server.tree(self.chroot)
        self.make(Broker(0, "127.0.0.1", 8124))
        self.start()
        await self.until(lambda: self.registration.status is RegistrationStatus.BLOCKED)
        self.assertEqual(self.server.tree(self.chroot), before)
        other.crash()
        self.server.expire(before[self.chroot + MASTER].owner)
        await self.registered()
        self.assert_owned(self.chroot)
        tree = self.brokers(self.chroot)
        self.assertEqual(tree[MASTER], ("meta://127.0.0.1:8124", True))

    async def test_reload(self) -> None:
        """A changed partition count is a new node, a changed checksum new data in the old one."""
        self.start()
        await self.registered()
        self.registration.update_topics([type(TOPICS[0])("test", 5, accept_subscribe=False)])
        self.registration.set_checksum(1)
        await self.registered()
        expected = recorded("after-broker-start")
        expected["/meta/brokers/ids/0/master_config_checksum"] = ("1", True)
        expected["/meta/brokers/topics/test/0-m"] = ("5", True)
        expected["/meta/brokers/topics-pub/test/0-m"] = ('{"numParts":5,"broker":"0-m"}', True)
        del expected["/meta/brokers/topics-sub/test/0-m"]
        self.assertEqual(self.brokers(self.chroot), expected)
