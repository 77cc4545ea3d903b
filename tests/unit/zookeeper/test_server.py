"""Handshake, order, expiry, close, and garbage."""

from __future__ import annotations

import random
import struct

from kazoo.protocol.serialization import Connect, Create
from kazoo.security import OPEN_ACL_UNSAFE
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper import watches
from metamorphosis.zookeeper.sessions import Session
from metamorphosis.zookeeper.watches import TooManyWatches
from tests.support.zookeeperpeer import (
    CHILDREN_CHANGED,
    CREATED,
    DATA_CHANGED,
    DELETED,
    Answer,
    Peer,
    World,
    acl,
    handshake,
    integers,
    text,
)
from tests.unit.zookeeper.test_tree import picture


def session_of(peer: Peer) -> Session:
    """The one it has."""
    session = peer.session
    if session is None:
        raise AssertionError("no session")
    return session


class HandshakeTests(SynchronousTestCase):
    """The first frame."""

    def setUp(self) -> None:
        self.world = World()
        self.peer = Peer(self.world)

    def test_new_session(self) -> None:
        """Id, password and the negotiated timeout; it is kept, and took a zxid."""
        answer = self.peer.connect(handshake(timeout=6000))
        session = session_of(self.peer)
        self.assertEqual(answer, Answer(0, 6000, session.id, session.password, b"\0"))
        self.assertIs(session.client, self.peer)
        self.assertEqual((list(self.world.disk[1]), self.world.disk[2]), ([session.id], 1))

    def test_kazoo_shakes_hands(self) -> None:
        """An independent peer writes the frame and reads the answer."""
        frame = bytes(Connect(0, 0, 10000, 0, bytes(16), False).serialize())
        self.world.server.connect(self.peer, frame)
        answer, end = Connect.deserialize(self.peer.received[0], 0)
        session = session_of(self.peer)
        self.assertEqual((answer.session_id, answer.passwd), (session.id, session.password))
        self.assertEqual((answer.time_out, answer.read_only, end), (10000, False, 37))

    def test_old_clients_get_a_shorter_answer(self) -> None:
        """36 bytes for a frame of 44, without the byte about read-only servers; 37 for 45."""
        for rest, length in ((b"", 36), (b"\0", 37), (b"\1", 37), (b"\0\0\0", 37)):
            peer = Peer(self.world)
            self.world.server.connect(peer, handshake(rest=rest))
            self.assertEqual(len(peer.received[0]), length)

    def test_timeout_is_negotiated(self) -> None:
        """Also the 5,000,000 ms of the .NET client, and invalid values."""
        for asked, given in ((5_000_000, 40000), (1, 4000), (-1, 4000)):
            answer = Peer(self.world).connect(handshake(timeout=asked))
            assert answer is not None
            self.assertEqual(answer.timeout, given)

    def test_the_password_of_a_new_session_does_not_matter(self) -> None:
        """Nor does it become the session's."""
        for password in (b"", None, b"x" * 100):
            answer = Peer(self.world).connect(handshake(password=password))
            assert answer is not None
            self.assertEqual(len(answer.password), 16)
            self.assertNotEqual(answer.password, bytes(16))

    def test_resume(self) -> None:
        """The same session on a new connection, at once with its new timeout; no zxid is taken."""
        self.peer.connect(handshake(timeout=4000))
        session = session_of(self.peer)
        self.peer.hang_up()
        self.world.now += 3
        again = Peer(self.world)
        frame = handshake(1, 8000, session.id, session.password)
        self.assertEqual(again.connect(frame), Answer(0, 8000, session.id, session.password, b"\0"))
        self.assertIs(again.session, session)
        self.assertEqual(self.world.tree.zxid, 1)
        self.assertEqual(self.world.disk[1][session.id].timeout, 8000)
        self.world.now += 7.9
        self.world.server.expire()
        self.assertIs(again.session, session)

    def test_frames_that_cannot_be_read(self) -> None:
        """Cut at every byte: closed without an answer, and without a session."""
        whole = handshake(rest=b"")
        for end in range(len(whole)):
            peer = Peer(self.world)
            self.assertIsNone(peer.connect(whole[:end]))
            self.assertTrue(peer.closed)
        for password_length in (-2, 1 << 30):
            peer = Peer(self.world)
            self.assertIsNone(peer.connect(whole[:24] + integers(password_length) + bytes(16)))
            self.assertTrue(peer.closed)
        self.assertEqual(self.world.sessions.by_id, {})
        self.assertEqual(self.world.journal, [(each, "close") for each, _ in self.world.journal])

    def test_password_of_another_session(self) -> None:
        """Is a wrong one."""
        one, two = self.world.peer(), self.world.peer()
        frame = handshake(session_id=session_of(one).id, password=session_of(two).password)
        self.assertEqual(self.peer.connect(frame), Answer(0, 0, 0, bytes(16), b"\0"))
        self.assertTrue(self.peer.closed)
        self.assertFalse(one.closed or two.closed)


class OrderTests(SynchronousTestCase):
    """What leaves before what."""

    def test_change_then_events_then_reply(self) -> None:
        """``on_change`` comes before anything that tells of the change."""
        world = World()
        one, two = world.peer(), world.peer()
        one.create("/a")
        one.get("/a", True)
        two.get("/a", True)
        world.order()
        one.set("/a")
        order = world.order()
        self.assertEqual(order[0], (None, "change"))
        self.assertEqual({who for who, _ in order[1:3]}, {one, two})
        self.assertEqual([len(bytes(what)) for _, what in order[1:3]], [30, 30])  # type: ignore
        self.assertEqual((order[3][0], len(order)), (one, 4))
        self.assertEqual((one.events(), two.events()), ([(DATA_CHANGED, "/a")],) * 2)

    def test_no_change_no_barrier(self) -> None:
        """Reads, pings and auth wait for no disk; a failed change does, for its zxid."""
        world = World()
        peer = world.peer()
        world.order()
        peer.get("/")
        peer.raw(11, xid=-2)
        peer.authenticate("digest", b"u:p")
        self.assertEqual({what for who, what in world.order() if who is None}, set())
        peer.delete("/nope")
        self.assertEqual(world.order()[0], (None, "change"))

    def test_session_comes_before_its_answer(self) -> None:
        """A session, and its end, are on disk before any packet shows them."""
        world = World()
        peer = world.peer()
        self.assertEqual([what for who, what in world.order() if who is None], ["change"])
        peer.raw(-11)
        order = world.order()
        self.assertEqual([who for who, _ in order], [None, peer, peer])
        self.assertEqual((order[0][1], order[2][1]), ("change", "close"))


class CloseTests(SynchronousTestCase):
    """The end of sessions and of connections."""

    def setUp(self) -> None:
        self.world = World()
        self.one, self.two = self.world.peer(), self.world.peer()
        self.one.create("/e", b"", 1)
        self.two.children("/", True)
        self.two.get("/e", True)

    def assert_ended(self) -> None:
        """The first session and its node are gone, in memory and on disk; the watchers know."""
        self.assertEqual(list(self.world.sessions.by_id), [session_of(self.two).id])
        self.assertEqual(list(self.world.disk[1]), [session_of(self.two).id])
        self.assertNotIn("/e", self.world.disk[0])
        self.assertEqual(self.two.events(), [(DELETED, "/e"), (CHILDREN_CHANGED, "/")])
        self.assertTrue(self.one.closed)
        self.assertIsNone(self.one.session)
        self.assertFalse(self.two.closed)

    def test_close_session(self) -> None:
        """Answered with a zxid of its own, then closed; it hears of its own nodes before that."""
        self.one.get("/e", True)
        before = self.world.tree.zxid
        reply = self.one.raw(-11)
        self.assertEqual((reply.zxid, reply.code, reply.body), (before + 1, 0, b""))
        self.assertEqual(self.one.events(), [(DELETED, "/e")])
        self.assert_ended()

    def test_expiry(self) -> None:
        """Silent for longer than the timeout; a zxid is taken."""
        before = self.world.tree.zxid
        self.world.now += 3
        self.two.raw(11, xid=-2)
        self.world.now += 1.1
        self.world.server.expire()
        self.assertEqual(self.world.tree.zxid, before + 1)
        self.assert_ended()

    def test_expiry_without_a_connection(self) -> None:
        """A client that died."""
        self.one.hang_up()
        self.one.closed = True
        self.world.now += 3
        self.two.raw(11, xid=-2)
        self.world.now += 1.1
        self.world.server.expire()
        self.assert_ended()

    def test_any_request_keeps_a_session(self) -> None:
        """Not only pings, also those that are refused."""
        for _ in range(5):
            self.world.now += 3
            self.one.raw(4, text("/x") + b"\0")
            self.two.raw(4, b"")
            self.world.server.expire()
        self.assertEqual(len(self.world.sessions.by_id), 2)

    def test_what_comes_behind_the_end_is_not_read(self) -> None:
        """Requests that were pipelined after a closeSession."""
        self.one.raw(-11)
        before = self.world.tree.zxid
        self.world.server.receive(self.one, integers(9, 4) + text("/") + b"\0")
        self.assertEqual((self.world.tree.zxid, self.one.received), (before, []))

    def test_a_broken_connection_keeps_the_session(self) -> None:
        """Its watches go, its nodes stay; it may be told twice."""
        session = session_of(self.one)
        self.one.get("/e", True)
        self.one.hang_up()
        self.one.hang_up()
        self.assertEqual(self.world.server.watches.watched.keys(), self.two.watching)
        self.assertIsNone(session.client)
        self.assertIsNotNone(self.two.stat("/e"))

    def test_a_late_goodbye_of_the_old_connection(self) -> None:
        """Its loss is noticed after the session was resumed on another connection, which is not
        affected."""
        session = session_of(self.one)
        again = self.world.back(session)
        again.get("/e", True)
        self.assertTrue(self.one.closed)
        self.one.hang_up()
        self.assertIs(session.client, again)
        self.assertEqual(len(again.watching), 1)

    def test_unknown_operation(self) -> None:
        """Answered UNIMPLEMENTED and closed, as by 3.8; the session lives on."""
        for opcode in (0, 10, 16, 19, 99, 102, -10, -1, 0x7FFFFFFF):
            peer = self.world.peer()
            reply = peer.raw(opcode)
            self.assertEqual((reply.code, reply.body, peer.closed), (-6, b"", True))
            self.assertIsNone(peer.session)
        self.assertEqual(len(self.world.sessions.by_id), 11)

    def test_a_frame_without_a_header(self) -> None:
        """Closed; the session lives on."""
        for length in range(8):
            peer = self.world.peer()
            self.world.server.receive(peer, bytes(length))
            self.assertEqual((peer.received, peer.closed), ([], True))
        self.assertEqual(len(self.world.sessions.by_id), 10)


class GarbageTests(SynchronousTestCase):
    """Bytes that no client sends."""

    def test_random_frames(self) -> None:
        """
        Mutilated and random frames: no exception, no fault in the log, every answer has the shape
        of a reply, and the tree stays whole.
        """
        whole = [
            integers(1, 1) + text("/a") + text(b"x") + acl((31, "world", "anyone")) + integers(2),
            integers(1, 5) + text("/a") + text(b"x") + integers(-1),
            integers(1, 7) + text("/a") + acl((31, "digest", "a:b"), (1, "ip", "")) + integers(0),
            integers(1, 4) + text("/a") + b"\1",
            integers(1, 100, 0) + text("digest") + text(b"a:b"),
            integers(1, 14) + struct.pack(">i?i", 2, False, -1) + text("/a") + integers(-1)
            + struct.pack(">i?i", -1, True, -1),
            integers(1, 101, 0, 0, 1) + text("/a") + integers(1) + text("/b") + integers(0),
        ]  # fmt: skip
        rng = random.Random(4)
        world = World()
        for _ in range(6000):
            peer = world.peer()
            frame = bytearray(rng.choice(whole))
            for _ in range(rng.randrange(4)):
                frame[rng.randrange(len(frame))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 47))
            if rng.random() < 0.2:
                del frame[rng.randrange(len(frame)) :]
            world.server.receive(peer, bytes(frame))
            self.assertTrue(all(len(packet) >= 16 for packet in peer.received))
            if peer.session is not None:
                world.server.receive(peer, integers(2, -11))
        before = picture(world.tree)
        world.restart()
        self.assertEqual(picture(world.tree), before)

    def test_random_handshakes(self) -> None:
        """No exception, and no session that was not asked for."""
        rng = random.Random(5)
        world = World()
        for _ in range(3000):
            frame = bytearray(handshake(rest=rng.choice((b"", b"\0"))))
            for _ in range(rng.randrange(4)):
                frame[rng.randrange(len(frame))] = rng.randrange(256)
            world.server.connect(Peer(world), bytes(frame[: rng.randrange(len(frame) + 9)]))
        for session in world.sessions.by_id.values():
            self.assertIs(session.client and session.client.session, session)

    def test_watches_without_end(self) -> None:
        """The limit disconnects the client and removes its watches; its session stays."""
        world = World()
        peer = world.peer()
        self.patch(watches, "LIMIT", 1000)
        for number in range(4):
            world.server.receive(peer, integers(number, 3) + text(f"/{number}") + b"\1")
        one_more = integers(5, 3) + text("/5") + b"\1"
        self.assertRaises(TooManyWatches, world.server.receive, peer, one_more)
        self.assertIsNone(peer.session)
        self.assertEqual(len(peer.received), 4)
        self.assertEqual((world.server.watches.watched, len(world.sessions.by_id)), ({}, 1))

    def test_a_fault_of_ours_closes_the_connection_only(self) -> None:
        """The error is raised, for the connection to log; other clients are served."""
        world = World()
        one, two = world.peer(), world.peer()
        one.result(Create("/a", b"", OPEN_ACL_UNSAFE, 0))
        two.stat("/b", True)
        one.identities = None  # type: ignore[assignment]
        one.session = session_of(one)
        frame = integers(7, 1) + text("/b") + text(b"") + acl((31, "auth", "")) + integers(0)
        self.assertRaises(TypeError, world.server.receive, one, frame)
        self.assertIsNone(one.session)
        self.assertEqual(one.received, [])
        self.assertIsNone(two.stat("/b"))
        two.create("/b")
        self.assertEqual(two.events(), [(CREATED, "/b")])
