"""Every operation, through the server, asked and read by kazoo."""

from __future__ import annotations

import struct

from kazoo.protocol.serialization import Create, Create2, GetACL, SetACL, Sync, read_acl
from kazoo.protocol.states import ZnodeStat
from kazoo.security import ACL, OPEN_ACL_UNSAFE, Id, make_digest_acl
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.codes import Code, ZooKeeperError
from tests.support.zookeeperpeer import (
    CHILDREN_CHANGED,
    CREATED,
    DATA_CHANGED,
    DELETED,
    START,
    Peer,
    World,
    acl,
    integers,
    text,
)

OPEN = acl((31, "world", "anyone"))
MALFORMED, BAD_ARGUMENTS, NO_NODE, NO_AUTH = -5, -8, -101, -102
BAD_VERSION, NODE_EXISTS, NOT_EMPTY, INVALID_ACL = -103, -110, -111, -114


def create_body(path: str | None, flags: int = 0, entries: bytes = OPEN) -> bytes:
    """A create that kazoo would not send."""
    return text(path) + text(b"x") + entries + integers(flags)


class TextTests(SynchronousTestCase):
    """Errors as they stand in the log."""

    def test_error(self) -> None:
        """Name and number."""
        self.assertEqual("NO_AUTH (-102)", str(ZooKeeperError(Code.NO_AUTH)))


class Case(SynchronousTestCase):
    """One server, two clients, ``/a`` with data and a child."""

    def setUp(self) -> None:
        self.world = World()
        self.one, self.two = self.world.peer(), self.world.peer()
        self.one.create("/a", b"data")
        self.one.create("/a/b")

    def assert_code(self, code: int, opcode: int, body: bytes, peer: Peer | None = None) -> None:
        """The request is answered with a code and nothing else, and the connection stays."""
        peer = peer or self.one
        reply = peer.raw(opcode, body)
        self.assertEqual((reply.code, reply.body), (code, b""), body)
        self.assertFalse(peer.closed)


class CreateTests(Case):
    """create, create2."""

    def test_modes(self) -> None:
        """Persistent, ephemeral, sequential, both; the reply names the node."""
        session = self.one.session
        assert session is not None
        for flags, name, owner in (
            (0, "/a/n", 0),
            (1, "/a/e", session.id),
            (2, "/a/s0000000003", 0),
            (3, "/a/x0000000004", session.id),
        ):
            path = name[:4]
            self.assertEqual(self.one.create(path, b"", flags), name)
            stat = self.one.stat(name)
            assert stat is not None
            self.assertEqual(stat.ephemeralOwner, owner)

    def test_stat_of_a_new_node(self) -> None:
        """Its own and, by create2, without another question."""
        self.world.wall = START + 5
        path, stat = self.one.result(Create2("/n", b"123", OPEN_ACL_UNSAFE, 0))
        zxid, now = self.world.tree.zxid, int((START + 5) * 1000)
        self.assertEqual(path, "/n")
        self.assertEqual(stat, ZnodeStat(zxid, zxid, now, now, 0, 0, 0, 0, 3, 0, zxid))
        self.assertEqual(self.one.stat("/n"), stat)

    def test_refused(self) -> None:
        """The codes, in the order in which the reasons are looked at."""
        self.one.create("/e", b"", 1)
        for code, path, flags in (
            (BAD_ARGUMENTS, "", 0),
            (BAD_ARGUMENTS, "a", 0),
            (BAD_ARGUMENTS, "/\0", 0),
            (BAD_ARGUMENTS, "/a/", 0),
            (BAD_ARGUMENTS, "/a/..", 0),
            (BAD_ARGUMENTS, "/a/\x7f", 0),
            (BAD_ARGUMENTS, "/n", 4),
            (BAD_ARGUMENTS, "/n", 7),
            (BAD_ARGUMENTS, "/n", -1),
            (NO_NODE, "x/y", 0),
            (NO_NODE, "/a//b", 0),
            (NO_NODE, "/x/..", 0),
            (NODE_EXISTS, "/a", 0),
            (NODE_EXISTS, "/a", 1),
            (NODE_EXISTS, "/", 0),
            (-108, "/e/x", 0),
            (-108, "/e/x", 2),
            (MALFORMED, None, 0),
        ):
            self.assert_code(code, 1, create_body(path, flags))
            self.assert_code(code, 15, create_body(path, flags))

    def test_acl_before_parent(self) -> None:
        """A faulty ACL is reported before a missing parent."""
        self.assert_code(INVALID_ACL, 1, create_body("/x/y", 0, acl()))
        self.assert_code(INVALID_ACL, 1, create_body("/x/y", 0, integers(-1)))
        self.assert_code(BAD_ARGUMENTS, 1, create_body("x", 0, acl()))

    def test_permission(self) -> None:
        """CREATE on the parent, asked before whether the node exists."""
        self.one.result(Create("/r", b"", [ACL(27, Id("world", "anyone"))], 0))
        self.assert_code(NO_AUTH, 1, create_body("/r/x"))
        self.assert_code(NO_AUTH, 15, create_body("/r/.."))


class DeleteTests(Case):
    """delete."""

    def test_delete(self) -> None:
        """With the right version or without one."""
        self.one.set("/a/b")
        self.assertEqual(self.one.delete("/a/b", 1), 0)
        self.assertEqual(self.one.delete("/a"), 0)
        self.assertIsNone(self.one.stat("/a"))

    def test_refused(self) -> None:
        """And what belongs to ZooKeeper stays."""
        for code, path, version in (
            (NO_NODE, "/x", -1),
            (NO_NODE, "/x/y", -1),
            (NO_NODE, "//", -1),
            (BAD_VERSION, "/a", 1),
            (NOT_EMPTY, "/a", 0),
            (BAD_ARGUMENTS, "/", -1),
            (BAD_ARGUMENTS, "", -1),
            (BAD_ARGUMENTS, "a", -1),
            (BAD_ARGUMENTS, "/a\0", -1),
            (BAD_ARGUMENTS, "/zookeeper", -1),
            (BAD_ARGUMENTS, "/zookeeper/quota", -1),
            (MALFORMED, None, -1),
        ):
            self.assert_code(code, 2, text(path) + integers(version))

    def test_permission(self) -> None:
        """DELETE on the parent; the node's own list does not matter."""
        self.one.result(Create("/r", b"", [ACL(23, Id("world", "anyone"))], 0))
        self.one.create("/r/x")
        self.assert_code(NO_AUTH, 2, text("/r/x") + integers(-1))
        self.one.result(Create("/a/none", b"", [ACL(0, Id("world", "anyone"))], 0))
        self.assertEqual(self.one.delete("/a/none"), 0)


class DataTests(Case):
    """exists, getData, setData."""

    def test_get(self) -> None:
        """Data and Stat; the empty path is the root's."""
        data, stat = self.one.get("/a")
        self.assertEqual((data, stat.dataLength, stat.numChildren), (b"data", 4, 1))
        root = self.one.raw(4, text("/") + b"\0").body
        self.assertEqual(self.one.raw(4, text("") + b"\0").body, root)

    def test_set(self) -> None:
        """A new version at a new time; only with the version that it has."""
        self.world.wall += 7
        before = self.one.stat("/a")
        assert before is not None
        stat = self.two.set("/a", b"longer", 0)
        self.assertEqual(
            stat,
            before._replace(
                mzxid=self.world.tree.zxid, mtime=int((START + 7) * 1000), version=1, dataLength=6
            ),
        )
        self.assertEqual(self.one.get("/a"), (b"longer", stat))
        self.assert_code(BAD_VERSION, 5, text("/a") + text(b"") + integers(0))

    def test_missing_nodes(self) -> None:
        """NO_NODE for whatever path; a change of a malformed path is BAD_ARGUMENTS."""
        for path in ("/x", "x", "/a/", "/a\x01"):
            self.assert_code(NO_NODE, 3, text(path) + b"\0")
            self.assert_code(NO_NODE, 4, text(path) + b"\0")
        self.assert_code(BAD_ARGUMENTS, 3, text("/a\0") + b"\0")
        self.assert_code(NO_NODE, 5, text("/x") + text(b"") + integers(-1))
        for path in ("x", "/a/", "", "/a\x01"):
            self.assert_code(BAD_ARGUMENTS, 5, text(path) + text(b"") + integers(-1))

    def test_permissions(self) -> None:
        """READ to get, WRITE to set, none to learn that a node exists."""
        self.one.result(Create("/w", b"", [ACL(2, Id("world", "anyone"))], 0))
        self.one.result(Create("/r", b"", [ACL(1, Id("world", "anyone"))], 0))
        self.assert_code(NO_AUTH, 4, text("/w") + b"\1")
        self.assert_code(NO_AUTH, 5, text("/r") + text(b"") + integers(99))
        self.assertIsNotNone(self.one.stat("/w"))
        self.one.set("/w")
        self.one.get("/r")
        self.assertEqual(self.one.watching, set())


class ChildrenTests(Case):
    """getChildren, getChildren2."""

    def test_names(self) -> None:
        """Of the children only; with the Stat if asked so."""
        self.one.create("/a/c")
        self.one.create("/a/c/d")
        self.assertEqual(self.one.children("/a"), ["b", "c"])
        self.assertEqual(self.one.children2("/a"), (["b", "c"], self.one.stat("/a")))
        self.assertEqual(self.one.children("/"), ["a", "zookeeper"])
        self.assertEqual(self.one.children("/a/b"), [])
        self.assertEqual(self.one.children2("/zookeeper/quota")[0], [])

    def test_refused(self) -> None:
        """Missing nodes, and those that may not be read."""
        self.one.result(Create("/w", b"", [ACL(30, Id("world", "anyone"))], 0))
        for opcode in (8, 12):
            self.assert_code(NO_NODE, opcode, text("/x") + b"\1")
            self.assert_code(NO_AUTH, opcode, text("/w") + b"\1")
        self.assertEqual(self.one.watching, set())


class AclTests(Case):
    """getACL, setACL, auth."""

    def test_get_and_set(self) -> None:
        """The list, its version, nothing else changes."""
        before = self.one.stat("/a")
        assert before is not None
        stat = self.one.result(SetACL("/a", [ACL(31, Id("ip", "127.0.0.1"))], 0))
        self.assertEqual(stat, before._replace(aversion=1))
        self.assertEqual(self.one.acl("/a"), [(31, "ip", "127.0.0.1")])
        self.assertEqual(self.one.result(GetACL("/a"))[1], stat)
        self.assert_code(BAD_VERSION, 7, text("/a") + OPEN + integers(0))

    def test_set_refused(self) -> None:
        """The path's form, the list, the node, in this order."""
        self.assert_code(BAD_ARGUMENTS, 7, text("/a/") + acl() + integers(-1))
        self.assert_code(BAD_ARGUMENTS, 7, text("") + OPEN + integers(-1))
        self.assert_code(INVALID_ACL, 7, text("/x") + acl() + integers(-1))
        self.assert_code(NO_NODE, 7, text("/x") + OPEN + integers(-1))
        self.assert_code(NO_NODE, 6, text("/x"))

    def test_owner_only(self) -> None:
        """An ACL of the creator excludes all other clients, but not the creator."""
        self.assertEqual(self.one.authenticate("digest", b"user:pass").code, 0)
        self.one.result(Create("/own", b"mine", [ACL(31, Id("auth", ""))], 0))
        self.assertEqual(
            self.one.acl("/own"), [(31, "digest", make_digest_acl("user", "pass").id.id)]
        )
        for opcode, body in (
            (4, b"\0"),
            (5, text(b"") + integers(-1)),
            (6, b""),
            (7, OPEN + integers(-1)),
            (8, b"\0"),
            (13, integers(-1)),
        ):
            self.assert_code(NO_AUTH, opcode, text("/own") + body, self.two)
        self.two.authenticate("digest", b"user:pass")
        self.assertEqual(self.two.get("/own")[0], b"mine")

    def test_auth_answers_without_a_zxid(self) -> None:
        """As both versions do; a refused one ends the connection and not the session."""
        self.assertEqual(self.one.authenticate("digest", b"u:p"), (-4, 0, 0, b""))
        self.assertEqual(self.one.authenticate("ip", b""), (-4, 0, 0, b""))
        self.assertEqual(self.one.authenticate("unknown", b"x"), (-4, 0, -115, b""))
        self.assertTrue(self.one.closed)
        self.assertEqual(len(self.world.sessions.by_id), 2)

    def test_auth_is_the_connections(self) -> None:
        """Another connection of the session has to say it again."""
        session = self.one.session
        assert session is not None
        self.one.authenticate("digest", b"user:pass")
        self.one.result(Create("/own", b"", [ACL(31, Id("auth", ""))], 0))
        again = self.world.back(session)
        self.assert_code(NO_AUTH, 4, text("/own") + b"\0", again)

    def test_digests_are_for_administrators(self) -> None:
        """A client with read permission sees the names."""
        entries = [ACL(1, Id("world", "anyone")), ACL(31, Id("digest", "u:hash"))]
        self.one.result(Create("/d", b"", entries, 0))
        reply = self.one.raw(6, text("/d"))
        first, offset = read_acl(reply.body, 4)
        second, _ = read_acl(reply.body, offset)
        self.assertEqual((first.id.id, second.id.id), ("anyone", "u:x"))


class CheckTests(Case):
    """check, sync, ping."""

    def test_check(self) -> None:
        """The version is right or it is not."""
        self.assert_code(0, 13, text("/a") + integers(0))
        self.assert_code(0, 13, text("/a") + integers(-1))
        self.assert_code(BAD_VERSION, 13, text("/a") + integers(1))
        self.assert_code(NO_NODE, 13, text("/x") + integers(-1))
        self.assert_code(BAD_ARGUMENTS, 13, text("x") + integers(-1))

    def test_sync(self) -> None:
        """Says the path again, whether there is a node or not."""
        for path in ("/a", "/x"):
            self.assertEqual(self.one.result(Sync(path)), path)

    def test_ping(self) -> None:
        """Nothing but a header with the last zxid."""
        self.assertEqual(self.one.raw(11, b"", -2), (-2, self.world.tree.zxid, 0, b""))


class WatchTests(Case):
    """Watches that requests set."""

    def test_each_read_sets_its_own(self) -> None:
        """exists and getData on the node, getChildren on the list."""
        self.two.stat("/a", True)
        self.two.children("/a", True)
        self.two.get("/a/b", True)
        self.one.create("/a/c")
        self.assertEqual(self.two.events(), [(CHILDREN_CHANGED, "/a")])
        self.one.set("/a")
        self.assertEqual(self.two.events(), [(DATA_CHANGED, "/a")])
        self.one.delete("/a/b")
        self.assertEqual(self.two.events(), [(DELETED, "/a/b")])
        self.assertEqual(self.two.watching, set())

    def test_existence_of_what_is_not_there(self) -> None:
        """exists watches for a creation; getData and getChildren of a missing node do not."""
        self.assertIsNone(self.two.stat("/n", True))
        self.assert_code(NO_NODE, 4, text("/m") + b"\1", self.two)
        self.assert_code(NO_NODE, 8, text("/m") + b"\1", self.two)
        self.one.create("/n")
        self.one.create("/m")
        self.assertEqual(self.two.events(), [(CREATED, "/n")])

    def test_failed_changes_tell_nobody(self) -> None:
        """The watches stay for the next one."""
        self.two.get("/a", True)
        self.two.children("/a", True)
        self.assert_code(BAD_VERSION, 5, text("/a") + text(b"") + integers(7))
        self.assert_code(NOT_EMPTY, 2, text("/a") + integers(-1))
        self.one.result(SetACL("/a", OPEN_ACL_UNSAFE, -1))
        self.assertEqual(self.two.events(), [])
        self.assertEqual(len(self.two.watching), 2)

    def test_set_watches_of_what_was_seen(self) -> None:
        """A change with the very zxid that the client names was seen by it."""
        self.one.create("/a/new")
        self.two.set_watches(self.world.tree.zxid, ["/a/new"], [], ["/a"])
        self.assertEqual(self.two.events(), [])
        self.assertEqual(len(self.two.watching), 2)

    def test_set_watches_tells_what_was_missed(self) -> None:
        """And watches what did not change since the zxid."""
        seen = self.world.tree.zxid
        self.one.create("/new")
        self.one.set("/a")
        self.one.delete("/a/b")
        reply = self.two.set_watches(
            seen, ["/a", "/a/b", "/zookeeper"], ["/new", "/later"], ["/a", "/a/b", "/zookeeper"]
        )
        self.assertEqual(reply, (-8, self.world.tree.zxid, 0, b""))
        self.assertEqual(
            self.two.events(),
            [
                (DATA_CHANGED, "/a"),
                (DELETED, "/a/b"),
                (CREATED, "/new"),
                (CHILDREN_CHANGED, "/a"),
                (DELETED, "/a/b"),
            ],
        )
        self.one.set("/zookeeper")
        self.one.create("/zookeeper/x")
        self.one.create("/later")
        self.assertEqual(
            self.two.events(),
            [(DATA_CHANGED, "/zookeeper"), (CHILDREN_CHANGED, "/zookeeper"), (CREATED, "/later")],
        )


class MalformedTests(Case):
    """Requests that cannot be read: answered, and the connection continues."""

    def test_every_operation_cut_at_every_byte(self) -> None:
        """MARSHALLING_ERROR, whatever is missing; a change takes its zxid, a read none."""
        path = text("/a")
        multi = struct.pack(">i?i", 5, False, -1) + path + text(b"x") + integers(-1)
        for opcode, body in (
            (1, create_body("/n")),
            (2, path + integers(-1)),
            (3, path + b"\0"),
            (4, path + b"\0"),
            (5, path + text(b"x") + integers(-1)),
            (6, path),
            (7, path + OPEN + integers(-1)),
            (8, path + b"\0"),
            (9, path),
            (12, path + b"\0"),
            (13, path + integers(-1)),
            (14, multi + struct.pack(">i?i", -1, True, -1)),
            (15, create_body("/n")),
            (101, struct.pack(">q", 0) + (integers(1) + path) * 3),
        ):
            for end in range(len(body)):
                before = self.world.tree.zxid
                self.assert_code(MALFORMED, opcode, body[:end])
                taken = self.world.tree.zxid - before
                self.assertEqual(taken, opcode in (1, 2, 5, 7, 13, 14, 15), opcode)
        self.assertEqual(self.one.children("/"), ["a", "zookeeper"])
        self.assertEqual(self.one.watching, set())

    def test_more_than_is_needed(self) -> None:
        """Bytes after a request do not matter."""
        self.assertEqual(self.one.raw(6, text("/a") + b"junk").code, 0)
