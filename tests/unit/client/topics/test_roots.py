"""``metamorphosis.client.topics.roots``: where brokers have registered."""

from __future__ import annotations

from metamorphosis.client.topics.roots import MOST_LOOKS, check_root, known_roots
from metamorphosis.errors import MetaQError, NoNode
from tests.support.producing import ProducingCase


class RootTests(ProducingCase):
    """A ZooKeeper with other users."""

    def check(self, root: str) -> str:
        """The error's text, or none."""
        config = self.config(zookeeper="zk:2181/chroot", zookeeper_root=root)
        try:
            self.runtime.run(check_root(self.registry, config))
        except MetaQError as error:
            return str(error)
        return ""

    def test_texts(self) -> None:
        """Where to look, and what is there."""
        where = "root /meta of ZooKeeper zk:2181/chroot"
        ever = f"no broker has ever registered below {where}"
        self.assertEqual(f"{ever}; nor below any other root of it", self.check("/meta"))
        for root in ("/b", "/a/c", ""):
            self.tree.create(f"{root}/brokers/topics-pub/test/0-m", b"{}", 1)
        self.assertEqual(f"{ever}; roots there are: /, /b, /a/c", self.check("/meta"))
        self.tree.create("/meta/brokers/ids/0/master", b"", 1)
        self.assertEqual("", self.check("/meta"))

    def test_no_chroot(self) -> None:
        """It is said, and nothing is looked for."""
        self.registry.faults = lambda operation, path: NoNode(path)
        text = "root /meta of ZooKeeper zk:2181/chroot: the chroot after the host does not exist"
        self.assertEqual(text, self.check("/meta"))

    def test_deep_roots(self) -> None:
        """Three levels are searched."""
        for root in ("/a/b/c", "/a/b/d/e"):
            self.tree.create(f"{root}/brokers/topics-pub/test/0-m", b"{}", 1)
        self.assertEqual(["/a/b/c"], self.runtime.run(known_roots(self.registry)))

    def test_large_tree(self) -> None:
        """The number of nodes that are looked at is limited."""
        for number in range(2 * MOST_LOOKS):
            self.tree.create(f"/n{number}", b"", 1)
        self.tree.create("/a/brokers/topics-pub/test/0-m", b"{}", 1)
        self.registry.calls.clear()
        self.assertEqual(["/a"], self.runtime.run(known_roots(self.registry)))
        looks = [path for _, path in self.registry.calls if path.endswith("/topics-pub")]
        self.assertEqual(MOST_LOOKS, len(looks))
