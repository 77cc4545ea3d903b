"""The ZooKeeper fixture itself, which other tests rely on."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support import zookeeper
from tests.support.embedded import EmbeddedZooKeeper


class FixturePromises:
    """Start, stop, wipe, expire."""

    server_kind: type[zookeeper.ZooKeeperServer]

    def setUp(self) -> None:
        """A server with short sessions."""
        self.server = self.server_kind(self.mktemp(), tick_time=200)
        self.server.start()
        self.addCleanup(self.server.stop)

    def test_data_survives_kill_and_not_wipe(self) -> None:
        """A killed server returns on its port with its nodes, a wiped one without."""
        client = self.server.client()
        client.create("/a", b"1")
        client.create("/a/b", None, ephemeral=True)
        self.assertEqual(
            self.server.tree("/a"),
            {
                "/a": zookeeper.Node(b"1", 0),
                "/a/b": zookeeper.Node(None, client.client_id[0]),
            },
        )
        self.server.expire(client.client_id[0])
        client.stop()
        client.close()
        self.assertEqual(list(self.server.tree("/")), ["/", "/a"])
        self.server.kill()
        self.assertEqual(self.server.four_letter_word(b"srvr"), b"")
        self.server.start()
        self.assertEqual(list(self.server.tree("/")), ["/", "/a"])
        self.server.kill()
        self.server.wipe()
        self.server.start()
        self.assertEqual(list(self.server.tree("/")), ["/"])

    def test_expire_refuses_unknown_session(self) -> None:
        """A session the server does not know is an error of the test."""
        self.assertRaises(RuntimeError, self.server.expire, 12345)


class ZooKeeperServerTests(FixturePromises, SynchronousTestCase):
    """Debian's."""

    skip = zookeeper.missing()
    server_kind = zookeeper.ZooKeeperServer


class EmbeddedZooKeeperTests(FixturePromises, SynchronousTestCase):
    """Ours, in its place."""

    server_kind = EmbeddedZooKeeper
