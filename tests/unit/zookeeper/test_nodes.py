"""The Stat of a node, and which paths are good."""

from __future__ import annotations

from itertools import product

from kazoo.protocol.serialization import stat_struct
from kazoo.protocol.states import ZnodeStat
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.acl import OPEN
from metamorphosis.zookeeper.nodes import Node, int32, is_valid, parent_of


def stat_of(node: Node) -> ZnodeStat:
    """As kazoo reads it."""
    return ZnodeStat(*stat_struct.unpack(node.stat()))


class StatTests(SynchronousTestCase):
    """All eleven fields."""

    def test_every_field_in_its_place(self) -> None:
        """A different number in each."""
        node = Node(b"12345", OPEN, 1, 2, 3, 4, 5, 6, 7, 8, 9)
        node.children = {"a": None, "b": None, "c": None}
        stat = stat_of(node)
        self.assertEqual((stat.czxid, stat.mzxid, stat.pzxid), (1, 3, 5))
        self.assertEqual((stat.ctime, stat.mtime), (2, 4))
        self.assertEqual((stat.version, stat.aversion), (6, 8))
        self.assertEqual((stat.ephemeralOwner, stat.dataLength, stat.numChildren), (9, 5, 3))

    def test_visible_cversion(self) -> None:
        """Twice the creates less the children: one for each create, one for each delete."""
        node = Node(b"", OPEN, 0, 0, 0, 0, 0, creates=5)
        self.assertEqual(stat_of(node).cversion, 10)
        node.children = {"a": None, "b": None}
        self.assertEqual(stat_of(node).cversion, 8)

    def test_null_has_no_length(self) -> None:
        """Null and empty data have the same Stat."""
        self.assertEqual(stat_of(Node(None, OPEN, 0, 0, 0, 0, 0)).dataLength, 0)
        self.assertEqual(stat_of(Node(b"", OPEN, 0, 0, 0, 0, 0)).dataLength, 0)

    def test_counts_beyond_32_bits_go_on_below_zero(self) -> None:
        """A node that is set a thousand times a second for 25 days does not break its readers."""
        node = Node(None, OPEN, 1, 2, 3, 4, 5, 1 << 31, 1 << 30, (1 << 32) + 1, 9)
        self.assertEqual(stat_of(node).cversion, -(1 << 31))
        node.children = {"a": None}
        node.creates += 1
        stat = stat_of(node)
        self.assertEqual(stat.version, -(1 << 31))
        self.assertEqual((stat.cversion, stat.numChildren), (1 - (1 << 31), 1))
        self.assertEqual((stat.aversion, stat.ephemeralOwner, stat.pzxid), (1, 9, 5))

    def test_int32(self) -> None:
        """The ends of the range."""
        for number, kept in (
            (0, 0),
            (-1, -1),
            (0x7FFFFFFF, 0x7FFFFFFF),
            (0x80000000, -0x80000000),
            (0xFFFFFFFF, -1),
            (1 << 32, 0),
        ):
            self.assertEqual(int32(number), kept)


class PathTests(SynchronousTestCase):
    """The rules of ``PathUtils``, as 3.8 answered."""

    def test_good(self) -> None:
        """What nodes are called, and characters next to the forbidden ones."""
        for path in ("/", "/a", "/a/b", "/.a", "/a.", "/...", "/a/.../b", "/ ", "/grün", "/木"):
            self.assertTrue(is_valid(path), path)
        for character in " ~\xa0\ud7ff\uf900\uffef":
            self.assertTrue(is_valid(f"/a{character}"), hex(ord(character)))

    def test_bad_form(self) -> None:
        """Relative, a slash at the end, empty names, dots."""
        for path in ("", "a", "a/b", "/a/", "//", "//a", "/a//b", "/.", "/..", "/./a", "/a/../b"):
            self.assertFalse(is_valid(path), path)
        self.assertFalse(is_valid("/a/."))
        self.assertFalse(is_valid("/a\n"))

    def test_all_short_ones(self) -> None:
        """Names are neither empty nor "." nor "..", and have no control characters."""
        for length in range(7):
            for characters in product("/.a\x1f", repeat=length):
                path = "".join(characters)
                names = path[1:].split("/")
                good = path == "/" or not {"", ".", ".."}.intersection(names)
                expected = path.startswith("/") and good and "\x1f" not in path
                self.assertEqual(is_valid(path), expected, repr(path))

    def test_bad_characters(self) -> None:
        """Control characters, surrogates, private use, specials, and what Java has as two."""
        for character in "\0\1\x1f\x7f\x9f\ud800\udfff\ue000\uf8ff\ufff0\uffff\U00010000\U0010ffff":
            self.assertFalse(is_valid(f"/a{character}"), hex(ord(character)))

    def test_parent(self) -> None:
        """The root is the parent of the first level."""
        self.assertEqual(parent_of("/a/b/c"), "/a/b")
        self.assertEqual(parent_of("/a"), "/")
