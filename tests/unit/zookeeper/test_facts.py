"""
What ZooKeeper 3.4.3 and 3.8.0 were seen to do, frame by frame, each fact as a test; where the two
differ, the safer one.
"""

from __future__ import annotations

import struct

from kazoo.protocol.serialization import Create, SetACL
from kazoo.security import ACL, OPEN_ACL_UNSAFE, Id
from twisted.trial.unittest import SynchronousTestCase

from tests.support.zookeeperpeer import (
    CHILDREN_CHANGED,
    CREATED,
    DATA_CHANGED,
    DELETED,
    Answer,
    Peer,
    World,
    handshake,
    integers,
    text,
)
from tests.unit.zookeeper.test_multi import END, errors
from tests.unit.zookeeper.test_requests import create_body

ANYONE = Id("world", "anyone")
READ, WRITE, CREATE, ADMIN = 1, 2, 4, 16


class Case(SynchronousTestCase):
    """One server and two clients."""

    def setUp(self) -> None:
        self.world = World()
        self.one, self.two = self.world.peer(), self.world.peer()

    @property
    def zxid(self) -> int:
        """The last one handed out."""
        return self.world.tree.zxid


class ZxidTests(Case):
    """Watches that are set, and the events that they get."""

    def test_a_failed_write_takes_one(self) -> None:
        """The header of its reply has it."""
        before = self.zxid
        for opcode, body in (
            (1, create_body("/zookeeper")),
            (2, text("/x") + integers(-1)),
            (5, text("/x") + text(b"") + integers(-1)),
            (7, text("/x") + integers(0, -1)),
            (13, text("/x") + integers(-1)),
        ):
            before += 1
            self.assertEqual(self.one.raw(opcode, body).zxid, before)

    def test_an_empty_and_a_failed_multi_take_one(self) -> None:
        """One, however many operations there are."""
        before = self.zxid
        self.assertEqual(self.one.multi().zxid, before + 1)
        reply = self.one.multi(*[(13, text("/x") + integers(-1))] * 5)
        self.assertEqual(reply.zxid, before + 2)

    def test_a_new_session_takes_one(self) -> None:
        """A resumed one does not."""
        before = self.zxid
        peer = self.world.peer()
        assert peer.session is not None
        self.world.back(peer.session)
        self.assertEqual(self.zxid, before + 1)

    def test_reads_and_sync_take_none(self) -> None:
        """Their headers carry the last one, as do those of pings."""
        self.one.create("/a")
        before = self.zxid
        for opcode, body in (
            (3, text("/a") + b"\1"),
            (4, text("/a") + b"\1"),
            (6, text("/a")),
            (8, text("/a") + b"\1"),
            (9, text("/a")),
            (12, text("/a") + b"\1"),
            (4, text("/x") + b"\1"),
            (11, b""),
            (101, struct.pack(">qiii", 0, 0, 0, 0)),
        ):
            self.assertEqual(self.two.raw(opcode, body).zxid, before)

    def test_header_of_an_event(self) -> None:
        """zxid -1, xid -1, error 0."""
        self.one.stat("/a", True)
        self.two.create("/a")
        event = integers(-1, -1, -1, 0, CREATED, 3) + text("/a")
        self.assertEqual(self.one.received, [event])

    def test_a_restart_goes_on_above_everything_handed_out(self) -> None:
        """Failed writes included."""
        self.one.create("/a")
        self.one.delete("/x")
        before = self.zxid
        self.world.restart()
        self.assertEqual(self.world.tree.zxid, before)
        peer = self.world.peer()
        peer.create("/b")
        stat = peer.stat("/b")
        assert stat is not None
        self.assertEqual(stat.czxid, before + 2)

    def test_a_client_ahead_is_cut(self) -> None:
        """Without an answer."""
        ahead = Peer(self.world)
        self.assertIsNone(ahead.connect(handshake(self.zxid + 1)))
        self.assertTrue(ahead.closed)
        self.assertIsNotNone(Peer(self.world).connect(handshake(self.zxid)))

    def test_a_session_ahead_is_refused(self) -> None:
        """Differs: a backup was put back, and the client is to begin anew, not to try for ever; its
        session, if there is one of the kind, is not harmed."""
        session = self.one.session
        assert session is not None
        for session_id, password in ((session.id, session.password), (99, bytes(16))):
            peer = Peer(self.world)
            answer = peer.connect(handshake(self.zxid + 1, 4000, session_id, password))
            assert answer is not None
            self.assertEqual((answer.timeout, answer.session_id), (0, 0))
            self.assertTrue(peer.closed)
        self.assertFalse(self.one.closed)


class MultiTests(Case):
    """A failed one."""

    def test_reply(self) -> None:
        """Header 0; 0 for the operations before the fault, its code, -2 after it."""
        good, bad = (13, text("/") + integers(-1)), (13, text("/") + integers(9))
        reply = self.one.multi(good, good, bad, good, bad)
        self.assertEqual((reply.code, reply.body), (0, errors(0, 0, -103, -2, -2)))
        self.assertEqual(self.one.multi(good).body, struct.pack(">i?i", 13, False, 0) + END)


class SequenceTests(Case):
    """Numbers of sequential nodes."""

    def test_every_create_counts(self) -> None:
        """Plain ones too, and the count survives the deletion of all children, and a restart."""
        self.one.create("/a")
        self.one.create("/a/plain")
        self.assertEqual(self.one.create("/a/n", b"", 2), "/a/n0000000001")
        self.one.delete("/a/plain")
        self.one.delete("/a/n0000000001")
        self.assertEqual(self.one.create("/a/n", b"", 2), "/a/n0000000002")
        self.one.delete("/a/n0000000002")
        self.world.restart()
        self.assertEqual(self.world.peer().create("/a/n", b"", 2), "/a/n0000000003")

    def test_failed_creates_do_not_count(self) -> None:
        """Nor do those of a multi that was taken back."""
        self.one.create("/a")
        self.one.multi((1, create_body("/a/x")), (13, text("/no") + integers(-1)))
        self.assertEqual(self.one.create("/a/n", b"", 2), "/a/n0000000000")

    def test_sequential_root(self) -> None:
        """``/0000000000``."""
        self.assertEqual(self.one.create("/", b"", 2), "/0000000000")

    def test_visible_cversion(self) -> None:
        """Counts creates and deletes; that of the root begins at -1."""
        root = self.one.stat("/")
        assert root is not None
        self.assertEqual((root.cversion, root.numChildren), (-1, 1))
        self.one.create("/a")
        for step, change in enumerate(
            (lambda: self.one.create("/a/b"), lambda: self.one.delete("/a/b")), 1
        ):
            change()
            stat = self.one.stat("/a")
            assert stat is not None
            self.assertEqual((stat.cversion, stat.pzxid), (step, self.zxid))


class OrderTests(Case):
    """Events and replies."""

    def test_events_before_the_reply_on_the_same_connection(self) -> None:
        """Every change that has both."""
        self.one.create("/a")
        for request, watch in (
            (lambda: self.one.set("/a"), lambda: self.one.get("/a", True)),
            (lambda: self.one.create("/a/b"), lambda: self.one.children("/a", True)),
            (lambda: self.one.delete("/a/b"), lambda: self.one.get("/a/b", True)),
            (lambda: self.one.create("/c"), lambda: self.one.stat("/c", True)),
        ):
            watch()
            self.world.order()
            request()
            packets = [packet for who, packet in self.world.order() if who is self.one]
            self.assertEqual([packet[:4] for packet in packets[:-1]], [b"\xff" * 4], packets)
            self.assertEqual(packets[-1][:4], integers(self.one.xid))
            self.one.received.clear()

    def test_event_before_the_new_data(self) -> None:
        """A watcher that reads as early as it can has been told."""
        self.one.create("/a", b"old")
        self.two.get("/a", True)
        self.one.set("/a", b"new")
        self.world.server.receive(self.two, integers(77, 4) + text("/a") + b"\0")
        event, reply = self.two.received
        self.assertEqual((event[:4], reply[:4]), (integers(-1), integers(77)))
        self.assertIn(b"new", reply)

    def test_pipelined_behind_a_set_acl(self) -> None:
        """One order, the wire's: every request after it is judged by the new list."""
        self.one.create("/a")
        self.one.result(SetACL("/a", [ACL(READ | ADMIN, ANYONE)], -1))
        self.assertEqual(self.one.raw(5, text("/a") + text(b"") + integers(-1)).code, -102)
        self.one.result(SetACL("/a", OPEN_ACL_UNSAFE, -1))
        self.one.set("/a")


class DataTests(Case):
    """Null and empty."""

    def test_null_and_empty_are_distinct(self) -> None:
        """Over a restart too."""
        self.one.create("/null", None)
        self.one.create("/empty", b"")
        self.one.create("/set", b"x")
        self.one.set("/set", None)
        for _ in range(2):
            peer = self.world.peer()
            values = [peer.get(path)[0] for path in ("/null", "/empty", "/set")]
            self.assertEqual(values, [None, b"", None])
            self.world.restart()

    def test_the_empty_path_reads_as_the_root(self) -> None:
        """By every read."""
        for opcode, rest in ((3, b"\0"), (4, b"\0"), (6, b""), (8, b"\0"), (12, b"\0")):
            empty, root = (self.one.raw(opcode, text(path) + rest) for path in ("", "/"))
            self.assertEqual((empty.code, empty.body), (0, root.body))


class SessionTests(Case):
    """Reconnect, restart, expiry."""

    def test_a_reconnect_closes_the_old_connection(self) -> None:
        """The session continues, with its nodes and without its watches."""
        self.one.create("/e", b"", 1)
        self.one.get("/e", True)
        session = self.one.session
        assert session is not None
        again = self.world.back(session)
        self.assertEqual((self.one.closed, self.one.session), (True, None))
        self.assertIs(again.session, session)
        again.set("/e")
        self.assertEqual((again.events(), self.one.events()), ([], []))

    def test_a_refused_reconnect(self) -> None:
        """Timeout 0, id 0, a zero password, as long as the client expects; then closed."""
        for rest in (b"", b"\0"):
            peer = Peer(self.world)
            answer = peer.connect(handshake(0, 4000, 12345, b"p" * 16, rest))
            self.assertEqual(answer, Answer(0, 0, 0, bytes(16), rest))
            self.assertTrue(peer.closed)

    def test_a_restart_gives_a_fresh_timeout(self) -> None:
        """However long the server was away; the session and its nodes wait for it that long."""
        self.one.create("/e", b"", 1)
        session = self.one.session
        assert session is not None
        self.world.now += 3600
        self.world.restart()
        self.world.now += 3.9
        self.world.server.expire()
        again = self.world.back(session)
        assert again.session is not None
        self.assertEqual(again.session.id, session.id)
        stat = again.stat("/e")
        assert stat is not None
        self.assertEqual(stat.ephemeralOwner, session.id)

    def test_who_does_not_return_after_a_restart_expires(self) -> None:
        """And its ephemerals go."""
        self.one.create("/e", b"", 1)
        self.world.restart()
        self.world.now += 4.1
        self.world.server.expire()
        self.assertEqual(self.world.sessions.by_id, {})
        self.assertIsNone(self.world.peer().stat("/e"))

    def test_a_silent_session_of_4_s(self) -> None:
        """Is there after 4.0 s and gone at the next tick."""
        self.world.now += 4.0
        self.world.server.expire()
        self.assertFalse(self.one.closed)
        self.world.now += 0.1
        self.world.server.expire()
        self.assertTrue(self.one.closed)

    def test_ends_survive_a_restart(self) -> None:
        """A closed session is refused afterwards."""
        session = self.one.session
        assert session is not None
        self.one.raw(-11)
        self.world.restart()
        self.assertIsNone(self.world.back(session).session)


class EitherTests(Case):
    """Rows where 3.4.3 and 3.8.0 differ: 3.8.0, which says more or tells less to strangers."""

    def test_unknown_operation(self) -> None:
        """-6, then closed: otherwise the client would wait for ever."""
        self.assertEqual(self.one.raw(42).code, -6)
        self.assertTrue(self.one.closed)

    def test_set_watches_of_data(self) -> None:
        """A newer node is NodeDataChanged."""
        seen = self.zxid
        self.one.create("/a")
        self.two.set_watches(seen, data=["/a"])
        self.assertEqual(self.two.events(), [(DATA_CHANGED, "/a")])

    def test_set_watches_of_existence(self) -> None:
        """A node that is there is NodeCreated."""
        self.one.create("/a")
        self.two.set_watches(self.zxid, exist=["/a"])
        self.assertEqual(self.two.events(), [(CREATED, "/a")])

    def test_set_watches_of_children(self) -> None:
        """A changed list, and a node that is gone."""
        seen = self.zxid
        self.one.create("/a")
        self.two.set_watches(seen, children=["/", "/gone", "/a"])
        changed = [(CHILDREN_CHANGED, "/"), (DELETED, "/gone"), (CHILDREN_CHANGED, "/a")]
        self.assertEqual(self.two.events(), changed)

    def test_get_acl_without_read(self) -> None:
        """NoAuth, unless one may administer."""
        self.one.result(Create("/c", b"", [ACL(CREATE | WRITE, ANYONE)], 0))
        self.one.result(Create("/adm", b"", [ACL(ADMIN, ANYONE)], 0))
        self.assertEqual(self.one.raw(6, text("/c")).code, -102)
        self.assertEqual(self.one.raw(6, text("/adm")).code, 0)

    def test_get_acl_without_admin(self) -> None:
        """The name of the user and no digest."""
        entries = [ACL(READ, ANYONE), ACL(31, Id("digest", "user:hash"))]
        self.one.result(Create("/d", b"", entries, 0))
        self.assertEqual(self.two.acl("/d"), [(1, "world", "anyone"), (31, "digest", "user:x")])

    def test_delete_of_a_missing_node_without_permission(self) -> None:
        """NoAuth: a stranger does not learn what there is."""
        self.one.result(Create("/c", b"", [ACL(CREATE, ANYONE)], 0))
        self.assertEqual(self.one.delete("/c/nope"), -102)

    def test_acl_of_length_minus_one(self) -> None:
        """InvalidACL."""
        self.assertEqual(self.one.raw(1, create_body("/a", 0, integers(-1))).code, -114)

    def test_set_data_on_a_malformed_path(self) -> None:
        """BadArguments."""
        self.assertEqual(self.one.raw(5, text("/a/") + text(b"") + integers(-1)).code, -8)

    def test_event_on_a_node_that_may_not_be_read(self) -> None:
        """Withheld."""
        self.one.create("/a")
        self.two.get("/a", True)
        self.one.authenticate("digest", b"u:p")
        self.one.result(SetACL("/a", [ACL(31, Id("auth", ""))], -1))
        self.one.set("/a")
        self.one.delete("/a")
        self.assertEqual(self.two.events(), [])


class FaultTests(Case):
    """What real servers do wrong."""

    def test_wrong_password(self) -> None:
        """The rightful client keeps its connection, its watches and its timeout."""
        session = self.one.session
        assert session is not None
        self.one.get("/", True)
        for password in (bytes(16), b"", None, session.password[:-1], session.password + b"\0"):
            thief = Peer(self.world)
            answer = thief.connect(handshake(0, 40000, session.id, password))
            self.assertEqual(answer, Answer(0, 0, 0, bytes(16), b"\0"))
            self.assertEqual((thief.closed, thief.session), (True, None))
        self.assertFalse(self.one.closed)
        self.assertEqual((session.timeout, len(self.one.watching)), (4000, 1))
        self.one.get("/")

    def test_a_string_of_2_to_the_30(self) -> None:
        """Marshalling; the next request is served."""
        self.assertEqual(self.one.raw(4, integers(1 << 30) + b"/a").code, -5)
        self.one.get("/")

    def test_set_watches_with_counts_of_2_to_the_30(self) -> None:
        """Marshalling; the next request is served, and no watch was set."""
        head = struct.pack(">q", 0)
        lists = integers(1) + text("/a"), integers(1 << 30)
        for body in (lists[1], lists[0] + lists[1], lists[0] * 2 + lists[1]):
            self.assertEqual(self.one.raw(101, head + body).code, -5)
        self.assertEqual(self.one.watching, set())

    def test_set_data_with_an_empty_path(self) -> None:
        """BadArguments."""
        self.assertEqual(self.one.raw(5, text("") + text(b"") + integers(-1)).code, -8)
        self.assertEqual(self.one.get("/")[0], b"")
