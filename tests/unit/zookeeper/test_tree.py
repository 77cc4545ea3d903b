"""The nodes, what changed, and that a failed multi leaves no trace."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.acl import OPEN, Acl
from metamorphosis.zookeeper.codes import Code, EventType, ZooKeeperError
from metamorphosis.zookeeper.nodes import Node
from metamorphosis.zookeeper.tree import FIXED, Tree
from tests.support.zookeeperpeer import copied

PRIVATE: Acl = ((31, "digest", "a:b"),)


class SizeTests(SynchronousTestCase):
    """What the nodes cost, which ``mntr`` tells, and what an empty tree says of its own."""

    def test_data_size(self) -> None:
        """Characters of the paths and bytes of the data, from the first node on."""
        tree = Tree()
        self.assertEqual(tree.data_size, sum(map(len, FIXED)))
        self.assertEqual(tree.nodes["/zookeeper/quota"].stat(), bytes(68))
        again = Tree({**tree.nodes, "/a": Node(b"data", OPEN, 0, 0, 0, 0, 0)})
        self.assertEqual(again.data_size, tree.data_size + len("/a") + len("data"))


class TreeCase(SynchronousTestCase):
    """A tree with a request under way."""

    def setUp(self) -> None:
        self.tree = Tree()
        self.tree.begin(1000)
        self.tree.take_changes()

    def assert_code(self, code: Code, function: object, *args: object) -> None:
        """The call is refused with this code and changed nothing."""
        before = picture(self.tree)
        error = self.assertRaises(ZooKeeperError, function, *args)
        self.assertIs(error.code, code)
        self.assertEqual(picture(self.tree), before)
        self.assertEqual(self.tree.take_events(), [])


def picture(tree: Tree) -> dict[str, tuple[object, ...]]:
    """Everything about every node."""
    return {
        path: (node.data, node.acl, node.creates, node.stat(), sorted(node.children))
        for path, node in tree.nodes.items()
    }


class BeginningTests(SynchronousTestCase):
    """New and stored trees."""

    def test_a_new_tree_is_zookeepers(self) -> None:
        """The root and what ZooKeeper has for itself, with the Stats it gives them."""
        tree = Tree()
        self.assertEqual(sorted(tree.nodes), sorted(FIXED))
        self.assertEqual(
            tree.find("/").stat(), Node(b"", OPEN, 0, 0, 0, 0, 0, children={"x": None}).stat()
        )
        self.assertEqual(set(tree.take_changes()), set(FIXED))

    def test_a_stored_tree_has_its_children_and_ephemerals(self) -> None:
        """Both are found from the nodes, in whatever order they come."""
        tree = Tree()
        tree.begin(1)
        tree.create("/a", b"12", OPEN)
        tree.create("/a/e", b"3", PRIVATE, owner=7)
        stored = {path: copied(node) for path, node in reversed(tree.nodes.items())}
        loaded = Tree(stored, tree.zxid)
        self.assertEqual(picture(loaded), picture(tree))
        self.assertEqual(loaded.ephemerals, {7: {"/a/e"}})
        self.assertEqual((loaded.zxid, loaded.data_size), (1, tree.data_size))
        self.assertEqual(loaded.take_changes(), {})

    def test_the_open_acl_is_shared(self) -> None:
        """One that was read from a disk is the same object again, which makes checks quick."""
        stored = {"/": Node(b"", ((31, "world", "anyone"),), 0, 0, 0, 0, 0)}
        self.assertIs(Tree(stored).find("/").acl, OPEN)


class CreateTests(TreeCase):
    """New nodes."""

    def test_node_and_parent(self) -> None:
        """The node carries zxid and time, the parent counts it."""
        self.assertEqual(self.tree.create("/a", b"x", PRIVATE), "/a")
        node, root = self.tree.find("/a"), self.tree.find("/")
        self.assertEqual((node.czxid, node.mzxid, node.pzxid), (1, 1, 1))
        self.assertEqual((node.ctime, node.mtime, node.owner), (1000, 1000, 0))
        self.assertEqual((root.creates, root.pzxid, root.mzxid), (1, 1, 0))
        self.assertEqual(list(root.children), ["zookeeper", "a"])
        self.assertEqual(self.tree.take_changes(), {"/a": node, "/": root})
        self.assertEqual(
            self.tree.take_events(),
            [(EventType.CREATED, "/a", PRIVATE), (EventType.CHILDREN_CHANGED, "/", OPEN)],
        )

    def test_sequential(self) -> None:
        """Ten digits, counted by the parent."""
        self.tree.create("/a", b"", OPEN)
        self.assertEqual(self.tree.create("/a/n-", b"", OPEN, 0, True), "/a/n-0000000000")
        self.assertEqual(self.tree.create("/a/", b"", OPEN, 0, True), "/a/0000000001")
        self.tree.find("/a").creates = (1 << 31) - 1
        self.assertEqual(self.tree.create("/a/n", b"", OPEN, 0, True), "/a/n2147483647")
        self.assertEqual(self.tree.create("/a/n", b"", OPEN, 0, True), "/a/n-2147483648")

    def test_refused(self) -> None:
        """Each for its reason, and without a trace."""
        self.tree.create("/e", b"", OPEN, owner=7)
        self.tree.take_events()
        self.assert_code(Code.NO_NODE, self.tree.create, "/x/y", b"", OPEN)
        self.assert_code(Code.NO_NODE, self.tree.create, "x/y", b"", OPEN)
        self.assert_code(Code.NODE_EXISTS, self.tree.create, "/e", b"", OPEN)
        self.assert_code(Code.NODE_EXISTS, self.tree.create, "/", b"", OPEN)
        self.assert_code(Code.BAD_ARGUMENTS, self.tree.create, "/a b\x01", b"", OPEN)
        self.assert_code(Code.BAD_ARGUMENTS, self.tree.create, "/.", b"", OPEN)
        self.assert_code(Code.NO_CHILDREN_FOR_EPHEMERALS, self.tree.create, "/e/x", b"", OPEN)


class ChangeTests(TreeCase):
    """Other changes."""

    def setUp(self) -> None:
        super().setUp()
        self.tree.create("/a", b"x", OPEN)
        self.tree.create("/a/b", b"", PRIVATE, owner=7)
        self.tree.take_changes()
        self.tree.take_events()
        self.tree.begin(2000)

    def test_set_data(self) -> None:
        """A version more, zxid and time of the change, the rest as before."""
        node = self.tree.set_data("/a", None, 0)
        self.assertEqual((node.data, node.version, node.mzxid, node.mtime), (None, 1, 2, 2000))
        self.assertEqual((node.czxid, node.ctime, node.pzxid), (1, 1000, 1))
        self.assertEqual(self.tree.take_changes(), {"/a": node})
        self.assertEqual(self.tree.take_events(), [(EventType.DATA_CHANGED, "/a", OPEN)])

    def test_set_acl(self) -> None:
        """The ACL has its own version; no watch fires."""
        node = self.tree.set_acl("/a", PRIVATE, 0)
        self.assertEqual((node.acl, node.aversion, node.version, node.mzxid), (PRIVATE, 1, 0, 1))
        self.assertEqual(self.tree.take_changes(), {"/a": node})
        self.assertEqual(self.tree.take_events(), [])

    def test_delete(self) -> None:
        """The parent loses a child, keeps its count of creates and has the zxid."""
        self.tree.delete("/a/b", 0)
        parent = self.tree.find("/a")
        self.assertEqual((parent.creates, parent.pzxid, parent.mzxid), (1, 2, 1))
        self.assertEqual((parent.children, self.tree.ephemerals), ({}, {}))
        self.assertEqual(self.tree.take_changes(), {"/a/b": None, "/a": parent})
        self.assertEqual(
            self.tree.take_events(),
            [(EventType.DELETED, "/a/b", PRIVATE), (EventType.CHILDREN_CHANGED, "/a", OPEN)],
        )

    def test_refused(self) -> None:
        """Each for its reason, and without a trace."""
        self.assert_code(Code.NO_NODE, self.tree.delete, "/x")
        self.assert_code(Code.BAD_VERSION, self.tree.delete, "/a", 1)
        self.assert_code(Code.NOT_EMPTY, self.tree.delete, "/a")
        self.assert_code(Code.NO_NODE, self.tree.set_data, "/x", b"")
        self.assert_code(Code.BAD_VERSION, self.tree.set_data, "/a", b"", 1)
        self.assert_code(Code.NO_NODE, self.tree.set_acl, "/x", OPEN)
        self.assert_code(Code.BAD_VERSION, self.tree.set_acl, "/a", OPEN, 1)

    def test_version_beyond_32_bits(self) -> None:
        """The version a client was shown is the one it may name."""
        self.tree.find("/a").version = 1 << 31
        self.assert_code(Code.BAD_VERSION, self.tree.set_data, "/a", b"", 0)
        self.assertEqual(self.tree.set_data("/a", b"", -(1 << 31)).version, (1 << 31) + 1)

    def test_delete_ephemerals(self) -> None:
        """Those of one session, under the zxid of its end."""
        self.tree.create("/e2", b"", OPEN, owner=7)
        self.tree.create("/other", b"", OPEN, owner=8)
        self.tree.delete_ephemerals(7)
        self.tree.delete_ephemerals(9)
        self.assertEqual(self.tree.ephemerals, {8: {"/other"}})
        self.assertNotIn("/a/b", self.tree.nodes)
        self.assertEqual(self.tree.find("/a").pzxid, 2)

    def test_taken_once(self) -> None:
        """The first caller gets the changes and events."""
        self.tree.set_data("/a", b"")
        self.tree.take_changes()
        self.tree.take_events()
        self.assertEqual((self.tree.take_changes(), self.tree.take_events()), ({}, []))

    def test_find(self) -> None:
        """The empty path is the root's."""
        self.assertIs(self.tree.find(""), self.tree.find("/"))
        self.assert_code(Code.NO_NODE, self.tree.find, "a")

    def test_data_size(self) -> None:
        """Grows and shrinks with paths and data."""
        before = self.tree.data_size
        self.tree.create("/1234", b"12345", OPEN)
        self.assertEqual(self.tree.data_size, before + 10)
        self.tree.set_data("/1234", b"1")
        self.assertEqual(self.tree.data_size, before + 6)
        self.tree.set_data("/1234", None)
        self.tree.delete("/1234")
        self.assertEqual(self.tree.data_size, before)


class Story:
    """Random changes from a seed, some of them in groups that are taken back."""

    PATHS = ("/a", "/b", "/a/c", "/a/d", "/a/c/e", "/b/f", "/a/s-", "/")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tree = Tree()

    def change(self) -> None:
        """One change, which may be refused."""
        path = self.random.choice(self.PATHS)
        owner = self.random.choice((0, 0, 7, 8))
        try:
            match self.random.randrange(6):
                case 0 | 1:
                    sequential = path == "/a/s-"
                    self.tree.create(path, self.random.randbytes(3), OPEN, owner, sequential)
                case 2:
                    if path not in FIXED:
                        self.tree.delete(path, self.random.choice((-1, 0)))
                case 3 | 4:
                    self.tree.set_data(path, self.random.choice((None, b"", b"xyz")))
                case _:
                    self.tree.delete_ephemerals(7)
        except ZooKeeperError:
            pass


class StoryTests(SynchronousTestCase):
    """Properties that hold whatever happens."""

    def test_what_is_taken_back_leaves_no_trace(self) -> None:
        """After a multi that failed every node, count, owner and size is what it was."""
        for seed in range(300):
            story = Story(seed)
            tree = story.tree
            for _ in range(8):
                tree.begin(seed)
                for _ in range(4):
                    story.change()
                tree.take_events()
                before = picture(tree), tree.data_size, sizes(tree.ephemerals)
                tree.begin(seed)
                tree.all_or_nothing()
                for _ in range(6):
                    story.change()
                tree.take_back()
                after = picture(tree), tree.data_size, sizes(tree.ephemerals)
                self.assertEqual(after, before, f"seed {seed}")
                self.assertEqual(tree.take_events(), [], f"seed {seed}")

    def test_changes_rebuild_the_tree(self) -> None:
        """A disk that keeps what ``take_changes`` gives holds the tree, groups taken back too."""
        for seed in range(300):
            story = Story(seed)
            tree = story.tree
            disk: dict[str, Node] = {}
            for turn in range(12):
                tree.begin(turn)
                if turn % 3 == 2:
                    tree.all_or_nothing()
                for _ in range(5):
                    story.change()
                if turn % 3 == 2:
                    (tree.keep if turn % 2 else tree.take_back)()
                for path, node in tree.take_changes().items():
                    if node is None:
                        disk.pop(path, None)
                    else:
                        disk[path] = copied(node)
            loaded = Tree({path: copied(node) for path, node in disk.items()}, tree.zxid)
            self.assertEqual(picture(loaded), picture(tree), f"seed {seed}")
            self.assertEqual(sizes(loaded.ephemerals), sizes(tree.ephemerals))
            self.assertEqual(loaded.data_size, tree.data_size)


def sizes(ephemerals: dict[int, set[str]]) -> dict[int, list[str]]:
    """A copy to compare with."""
    return {owner: sorted(paths) for owner, paths in ephemerals.items()}
