"""Paths in ZooKeeper (zookeeper.md 1, 2.3)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cluster.paths import Paths, normalise_root


class RootTests(SynchronousTestCase):
    """zk.zkRoot as prefix."""

    def test_default_is_meta(self) -> None:
        """Without a root everything lies below /meta."""
        self.assertEqual(Paths().broker_ids, "/meta/brokers/ids")

    def test_leading_slash_is_added(self) -> None:
        """A root without leading slash gets one."""
        self.assertEqual(normalise_root("a/b"), "/a/b")

    def test_one_trailing_slash_is_removed(self) -> None:
        """One slash at the end goes, only one."""
        self.assertEqual(normalise_root("/a/"), "/a")
        self.assertEqual(normalise_root("/a//"), "/a/")

    def test_slash_is_the_empty_prefix(self) -> None:
        """The root / puts the nodes at the top."""
        self.assertEqual(Paths("/").master(0), "/brokers/ids/0/master")

    def test_empty_root_is_refused(self) -> None:
        """An empty root would give paths no server accepts."""
        self.assertIn("zk.zkRoot", str(self.assertRaises(ValueError, normalise_root, "")))


class PathTests(SynchronousTestCase):
    """Every path of the layout."""

    def test_layout(self) -> None:
        """All paths of zookeeper.md 1."""
        paths = Paths("/meta")
        expected = {
            paths.broker(7): "/meta/brokers/ids/7",
            paths.master(7): "/meta/brokers/ids/7/master",
            paths.slave(7, 1): "/meta/brokers/ids/7/slave1",
            paths.checksum(7): "/meta/brokers/ids/7/master_config_checksum",
            paths.topics("t"): "/meta/brokers/topics/t",
            paths.topics_pub("t"): "/meta/brokers/topics-pub/t",
            paths.topics_sub("t"): "/meta/brokers/topics-sub/t",
            paths.consumer_ids("g"): "/meta/consumers/g/ids",
            paths.owner("g", "t", "7-0"): "/meta/consumers/g/owners/t/7-0",
            paths.offset("g", "t", "7-0"): "/meta/consumers/g/offsets/t/7-0",
        }
        for path, text in expected.items():
            self.assertEqual(path, text)
