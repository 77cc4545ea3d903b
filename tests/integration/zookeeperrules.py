"""
What clients can rely on, whichever ZooKeeper it is: the rows of the observed facts, each a test
that Debian's server and ours must pass alike.

A case of a test module inherits the rules and says which server.
"""

from __future__ import annotations

import struct
import time
from contextlib import suppress

from twisted.trial.unittest import SynchronousTestCase

from tests.support import rawzookeeper as raw
from tests.support import zookeeper
from tests.support.rawzookeeper import RawClient, Session

NO_NODE, NO_AUTH, BAD_VERSION, NO_CHILDREN_OF_EPHEMERALS = -101, -102, -103, -108
NODE_EXISTS, NOT_EMPTY, INVALID_ACL, AUTH_FAILED = -110, -111, -114, -115
UNIMPLEMENTED, MARSHALLING, BAD_ARGUMENTS = -6, -5, -8
AFTER_THE_FAILED = -2

LARGEST_FRAME = 1_048_575
REFUSED = Session(0, 0, 0, bytes(16), 37)

_shared: dict[tuple[type[zookeeper.ZooKeeperServer], bool], zookeeper.ZooKeeperServer] = {}


class ServerCase(SynchronousTestCase):
    """
    Raw clients of a server that all tests share, or of one of their own.

    :cvar counts: the class counts changes, so that its server has no sessions of other classes:
        one that expires is a change.
    """

    server_kind: type[zookeeper.ZooKeeperServer]
    counts = False

    def setUp(self) -> None:
        """A server, a client and a node of the test's own."""
        self.server = self.shared_server()
        self.client = self.connected()
        self.root = "/" + self.id().rpartition(".")[2]
        self.make(self.root)

    def shared_server(self) -> zookeeper.ZooKeeperServer:
        """One for the process, on a temporary directory of trial."""
        key = self.server_kind, self.counts
        if key not in _shared:
            server = self.server_kind(self.mktemp())
            server.start()
            _shared[key] = server
        return _shared[key]

    def own_server(self) -> zookeeper.ZooKeeperServer:
        """A server that the test may stop; ``self.client`` is on it."""
        self.server = self.server_kind(self.mktemp())
        self.server.start()
        self.addCleanup(self.server.kill)
        self.client = self.connected()
        self.make(self.root)
        return self.server

    def connected(self, timeout: int = 10000, session: Session | None = None) -> RawClient:
        """A client with a session."""
        client = RawClient(self.server.port, timeout)
        self.addCleanup(client.close)
        client.connect(session)
        return client

    def make(self, path: str, data: bytes | None = b"", flags: int = 0) -> str:
        """A node; its name."""
        error, (name,) = self.client.ask(raw.CREATE, raw.create(path, data, flags=flags))
        self.assertEqual(error, 0)
        return str(name)

    def zxid(self) -> int:
        """The last one, as a ping tells it."""
        return self.client.ping().zxid

    def stat(self, path: str) -> raw.Stat:
        """Of a node that is there."""
        error, (stat,) = self.client.ask(raw.EXISTS, raw.watched(path))
        self.assertEqual(error, 0)
        assert isinstance(stat, raw.Stat)
        return stat


class ZxidRules(ServerCase):
    """Counted events, and the watches that fire."""

    counts = True

    def connected(self, timeout: int = 10000, session: Session | None = None) -> RawClient:
        """See ``ServerCase``; its session ends with the test."""
        client = super().connected(timeout, session)
        self.addCleanup(self.end, client)
        return client

    def end(self, client: RawClient) -> None:
        """End a session that has not ended."""
        with suppress(raw.Closed, OSError):
            client.end_session()

    def test_failed_write_takes_one(self) -> None:
        """Every write takes a zxid, whether it succeeds or not."""
        before = self.zxid()
        path = f"{self.root}/a"
        for body, error in ((raw.create(path, b""), 0), (raw.create(path, b""), NODE_EXISTS)):
            reply = self.client.call(raw.CREATE, body)
            before += 1
            self.assertEqual((reply.error, reply.zxid), (error, before))
        for opcode, body in (
            (raw.DELETE, raw.versioned(f"{self.root}/none")),
            (raw.SET_DATA, raw.set_data(path, b"", 7)),
            (raw.SET_ACL, raw.set_acl(path, raw.OPEN, 7)),
        ):
            reply = self.client.call(opcode, body)
            before += 1
            self.assertLess(reply.error, 0)
            self.assertEqual(reply.zxid, before)
        self.assertEqual(self.zxid(), before)

    def test_empty_and_failed_multi_take_one(self) -> None:
        """Also when they do nothing."""
        before = self.zxid()
        for operations in ([], [(raw.CHECK, raw.versioned(f"{self.root}/none"))]):
            before += 1
            self.assertEqual(self.client.call(raw.MULTI, raw.multi(operations)).zxid, before)
        self.assertEqual(self.zxid(), before)

    def test_session_takes_one_and_its_end_another(self) -> None:
        """A session's creation and its end are changes."""
        before = self.zxid()
        other = self.connected()
        self.assertEqual(self.zxid(), before + 1)
        self.assertEqual(other.end_session().zxid, before + 2)

    def test_reads_and_sync_take_none(self) -> None:
        """The header of their replies carries the last zxid."""
        before = self.zxid()
        for opcode in (raw.EXISTS, raw.GET_DATA, raw.GET_CHILDREN, raw.GET_CHILDREN2):
            self.assertEqual(self.client.call(opcode, raw.watched(self.root)).zxid, before)
        for opcode in (raw.GET_ACL, raw.SYNC):
            self.assertEqual(self.client.call(opcode, raw.text(self.root)).zxid, before)
        failed = self.client.call(raw.GET_DATA, raw.watched(f"{self.root}/none"))
        self.assertEqual((failed.error, failed.zxid), (NO_NODE, before))

    def test_event_has_none(self) -> None:
        """Its header is xid -1, zxid -1, no error."""
        self.client.ask(raw.GET_DATA, raw.watched(self.root, True))
        self.client.ask(raw.SET_DATA, raw.set_data(self.root, b"1"))
        (event,) = self.client.take_events()
        self.assertEqual(event, (raw.NODE_DATA_CHANGED, 3, self.root, (-1, -1, 0)))

    def test_restart_goes_on_above(self) -> None:
        """Failed writes count, too, before and after ``kill -9``."""
        server = self.own_server()
        for number in range(3):
            self.make(f"{self.root}/{number}")
        last = self.client.call(raw.CREATE, raw.create(f"{self.root}/0", b"")).zxid
        session = self.client.session
        server.kill()
        server.start()
        self.client = self.connected(session=session)
        self.assertEqual(self.client.session.id, session.id)
        self.assertGreaterEqual(self.zxid(), last)
        reply = self.client.call(raw.CREATE, raw.create(f"{self.root}/3", b""))
        self.assertEqual(reply.error, 0)
        self.assertGreater(reply.zxid, last)

    def test_client_that_is_ahead_is_cut(self) -> None:
        """It has seen what this server never did; it gets no answer."""
        ahead = RawClient(self.server.port)
        self.addCleanup(ahead.close)
        with self.assertRaises(raw.Closed):
            ahead.connect(last_zxid=self.zxid() + 1000)
        self.assertEqual(self.client.ping().error, 0)


class NodeRules(ServerCase):
    """Names, data, results."""

    def test_failed_multi(self) -> None:
        """
        No error in the header; one entry an operation: 0 before, the code, -2 after; nothing done.
        """
        path = f"{self.root}/a"
        reply = self.client.call(
            raw.MULTI,
            raw.multi(
                [
                    (raw.CREATE, raw.create(path, b"")),
                    (raw.SET_DATA, raw.set_data(path, b"1")),
                    (raw.CHECK, raw.versioned(path, 9)),
                    (raw.DELETE, raw.versioned(path)),
                ]
            ),
        )
        self.assertEqual(reply.error, 0)
        codes = (0, 0, BAD_VERSION, AFTER_THE_FAILED)
        expected = [("error", code, code) for code in codes]
        self.assertEqual(raw.fields(raw.MULTI, reply), (expected,))
        self.assertEqual(self.client.ask(raw.EXISTS, raw.watched(path))[0], NO_NODE)

    def test_multi_sees_its_own_changes(self) -> None:
        """
        One zxid for all of it, and each operation finds what those before it did; a create2 is
        answered as a create.
        """
        path = f"{self.root}/a"
        operations = [
            (raw.CREATE2, raw.create(path, b"1")),
            (raw.CHECK, raw.versioned(path, 0)),
            (raw.SET_DATA, raw.set_data(path, b"22", 0)),
            (raw.CREATE, raw.create(f"{path}/s", b"", flags=raw.SEQUENTIAL)),
            (raw.DELETE, raw.versioned(f"{path}/s0000000000")),
        ]
        reply = self.client.call(raw.MULTI, raw.multi(operations))
        (results,) = raw.fields(raw.MULTI, reply)
        assert isinstance(results, list)
        kinds = [entry[0] for entry in results]
        self.assertEqual(kinds, ["create", "done", "set", "create", "done"])
        self.assertEqual([entry[1] for entry in results], [0] * 5)
        stat = self.stat(path)
        self.assertEqual((stat.czxid, stat.mzxid, stat.pzxid), (reply.zxid,) * 3)
        self.assertEqual((stat.version, stat.cversion, stat.children, stat.length), (1, 2, 0, 2))

    def test_sequence_counts_every_create(self) -> None:
        """Plain ones, too; deleting all children does not begin again."""
        self.make(f"{self.root}/plain")
        names = [self.make(f"{self.root}/s", flags=raw.SEQUENTIAL) for _ in range(2)]
        self.assertEqual(names, [f"{self.root}/s000000000{number}" for number in (1, 2)])
        for name in [*names, f"{self.root}/plain"]:
            self.assertEqual(self.client.ask(raw.DELETE, raw.versioned(name)), (0, ()))
        again = self.make(f"{self.root}/", flags=raw.EPHEMERAL_SEQUENTIAL)
        self.assertEqual(again, f"{self.root}/0000000003")
        self.assertEqual(self.stat(self.root).cversion, 2 * 4 - 1)

    def test_sequence_of_the_root(self) -> None:
        """``/`` with the flag is a child of the root."""
        self.own_server()
        name = self.make("/", flags=raw.SEQUENTIAL)
        self.assertRegex(name, r"^/\d{10}$")
        following = self.make("/x", flags=raw.SEQUENTIAL)
        self.assertEqual(int(following[2:]), int(name[1:]) + 1)

    def test_null_and_empty_data(self) -> None:
        """They are two things, also after a restart."""
        server = self.own_server()
        values = {f"{self.root}/null": None, f"{self.root}/empty": b""}
        for path, value in values.items():
            self.make(path, value)
        for _ in range(2):
            for path, value in values.items():
                error, found = self.client.ask(raw.GET_DATA, raw.watched(path))
                self.assertEqual((error, found[0]), (0, value))
            server.kill()
            server.start()
            self.client = self.connected(session=self.client.session)

    def test_empty_path_reads_as_root(self) -> None:
        """For every read."""
        for opcode in (raw.EXISTS, raw.GET_DATA, raw.GET_CHILDREN, raw.GET_CHILDREN2):
            self.assertEqual(
                self.client.ask(opcode, raw.watched("")), self.client.ask(opcode, raw.watched("/"))
            )

    def test_ephemeral_node(self) -> None:
        """Its Stat names the session, it takes no children, and it goes with the session."""
        other = self.connected()
        path = f"{self.root}/e"
        other.ask(raw.CREATE, raw.create(path, b"", flags=raw.EPHEMERAL))
        self.assertEqual(self.stat(path).owner, other.session.id)
        error, _ = self.client.ask(raw.CREATE, raw.create(f"{path}/a", b""))
        self.assertEqual(error, NO_CHILDREN_OF_EPHEMERALS)
        other.end_session()
        self.assertEqual(self.client.ask(raw.EXISTS, raw.watched(path))[0], NO_NODE)

    def test_delete_of_node_with_children(self) -> None:
        """It stays."""
        self.make(f"{self.root}/a")
        self.assertEqual(self.client.ask(raw.DELETE, raw.versioned(self.root))[0], NOT_EMPTY)

    def test_largest_frame(self) -> None:
        """1,048,575 bytes are taken; one more closes the connection, not the session."""
        head = len(struct.pack(">ii", 0, 0) + raw.set_data(self.root, b""))
        room = LARGEST_FRAME - head
        body = raw.set_data(self.root, b"x" * room)
        self.assertEqual(self.client.ask(raw.SET_DATA, body)[0], 0)
        self.client.ask(raw.CREATE, raw.create(f"{self.root}/e", b"", flags=raw.EPHEMERAL))
        session = self.client.session
        try:
            self.client.send(raw.SET_DATA, raw.set_data(self.root, b"x" * (room + 1)))
        except OSError:
            pass  # it closed before it had read all
        self.assertTrue(self.client.closed_by_server())
        self.client = self.connected(session=session)
        self.assertEqual(self.client.session.id, session.id)
        self.assertEqual(self.stat(f"{self.root}/e").owner, session.id)
        self.assertEqual(self.stat(self.root).length, room)

    def test_authentication(self) -> None:
        """A digest opens a node; a scheme that is not there closes the connection."""
        path, closed = f"{self.root}/a", ((raw.ALL, "auth", ""),)
        self.assertEqual(self.client.ask(raw.CREATE, raw.create(path, b"", closed))[0], INVALID_ACL)
        self.client.call(raw.AUTH, raw.auth("digest", b"ann:1"), raw.AUTH_XID)
        self.assertEqual(self.client.ask(raw.CREATE, raw.create(path, b"", closed))[0], 0)
        other = self.connected()
        self.assertEqual(other.ask(raw.GET_DATA, raw.watched(path))[0], NO_AUTH)
        reply = other.call(raw.AUTH, raw.auth("digest", b"ann:1"), raw.AUTH_XID)
        self.assertEqual((reply.xid, reply.error), (raw.AUTH_XID, 0))
        self.assertEqual(other.ask(raw.GET_DATA, raw.watched(path))[0], 0)
        failed = other.call(raw.AUTH, raw.auth("nonsense", b""), raw.AUTH_XID)
        self.assertEqual(failed.error, AUTH_FAILED)
        self.assertTrue(other.closed_by_server())


class WatchRules(ServerCase):
    """Once, and before everything that depends on the change."""

    def test_event_before_reply(self) -> None:
        """The operation that causes an event is answered after it, on the same connection."""
        path = f"{self.root}/a"
        self.client.ask(raw.EXISTS, raw.watched(path, True))
        self.client.ask(raw.GET_CHILDREN, raw.watched(self.root, True))
        self.client.frames.clear()
        self.client.ask(raw.CREATE, raw.create(path, b""))
        kinds = [(frame.kind, frame.path) for frame in self.client.take_events()]
        expected = [(raw.NODE_CREATED, path), (raw.NODE_CHILDREN_CHANGED, self.root)]
        self.assertEqual(kinds, expected)
        self.assertIsInstance(self.client.frames[-1], raw.Reply)
        self.assertEqual(len(self.client.frames), 3)

    def test_event_before_new_data(self) -> None:
        """A watching client never reads the new value before the event."""
        other = self.connected()
        for number in range(50):
            new = b"%d" % number
            self.client.ask(raw.GET_DATA, raw.watched(self.root, True))
            self.client.frames.clear()
            other.send(raw.SET_DATA, raw.set_data(self.root, new))
            self.client.send_together([(raw.GET_DATA, raw.watched(self.root))] * 20)
            told = False
            replies = 0
            while replies < 20:
                frame = self.client.receive()
                if isinstance(frame, raw.Event):
                    told = True
                    continue
                replies += 1
                if raw.fields(raw.GET_DATA, frame)[0] == new:
                    self.assertTrue(told, "the new value came before the event")
            other.receive_reply()
            self.client.ping()
            self.assertEqual(len(self.client.take_events()), 1)

    def test_watch_fires_once(self) -> None:
        """Two changes, one event; a watch that was set twice fires once."""
        for _ in range(2):
            self.client.ask(raw.GET_DATA, raw.watched(self.root, True))
            self.client.ask(raw.EXISTS, raw.watched(self.root, True))
        for value in (b"1", b"2"):
            self.client.ask(raw.SET_DATA, raw.set_data(self.root, value))
        self.assertEqual(len(self.client.take_events()), 1)

    def test_delete_fires_each_connection_once(self) -> None:
        """Data and child watches of one connection are one event."""
        path = self.make(f"{self.root}/a")
        other = self.connected()
        for client in (self.client, other):
            client.ask(raw.GET_DATA, raw.watched(path, True))
            client.ask(raw.GET_CHILDREN, raw.watched(path, True))
            client.ask(raw.GET_CHILDREN, raw.watched(self.root, True))
        self.client.ask(raw.DELETE, raw.versioned(path))
        other.ping()
        expected = [(raw.NODE_DELETED, path), (raw.NODE_CHILDREN_CHANGED, self.root)]
        for client in (self.client, other):
            self.assertEqual([(e.kind, e.path) for e in client.take_events()], expected)

    def test_end_of_session_fires(self) -> None:
        """Its ephemeral nodes are deleted as by anybody; their order is not defined."""
        other = self.connected()
        paths = [f"{self.root}/{number}" for number in range(5)]
        for path in paths:
            other.ask(raw.CREATE, raw.create(path, b"", flags=raw.EPHEMERAL))
            self.client.ask(raw.EXISTS, raw.watched(path, True))
        other.end_session()
        self.client.ping()
        events = self.client.take_events()
        self.assertEqual(sorted(e.path for e in events), paths)
        self.assertEqual({e.kind for e in events}, {raw.NODE_DELETED})

    def test_failed_multi_fires_nothing(self) -> None:
        """What was taken back has not happened."""
        self.client.ask(raw.GET_DATA, raw.watched(self.root, True))
        operations = [
            (raw.SET_DATA, raw.set_data(self.root, b"1")),
            (raw.CHECK, raw.versioned(self.root, 77)),
        ]
        self.client.ask(raw.MULTI, raw.multi(operations))
        self.client.ping()
        self.assertEqual(self.client.take_events(), [])

    def test_watches_go_with_the_connection(self) -> None:
        """The session lives on, its watches do not, until setWatches brings them back."""
        self.client.ask(raw.GET_DATA, raw.watched(self.root, True))
        session, seen = self.client.session, self.zxid()
        self.client.close()
        self.client = self.connected(session=session)
        self.client.ask(raw.SET_DATA, raw.set_data(self.root, b"1"))
        self.assertEqual(self.client.take_events(), [])
        body = raw.set_watches(seen, [self.root], [f"{self.root}/none"], [self.root])
        reply = self.client.call(raw.SET_WATCHES, body, raw.SET_WATCHES_XID)
        self.assertEqual((reply.xid, reply.error), (raw.SET_WATCHES_XID, 0))
        self.assertEqual([event.path for event in self.client.take_events()], [self.root])
        self.make(f"{self.root}/none")
        kinds = [event.kind for event in self.client.take_events()]
        self.assertEqual(kinds, [raw.NODE_CREATED, raw.NODE_CHILDREN_CHANGED])


class OrderRules(ServerCase):
    """Several clients at once, each with many requests in flight."""

    ROUNDS = 5
    IN_FLIGHT = 60

    def test_clients_agree_on_one_history(self) -> None:
        """
        Everybody sees the same value under the same zxid, nobody ever an older one than before, and
        zxids in headers only grow.
        """
        clients = [self.connected() for _ in range(4)]
        history: dict[int, object] = {}
        seen = [0] * len(clients)
        for turn in range(self.ROUNDS):
            wanted = [self.requests(number, turn) for number in range(len(clients))]
            for client, requests in zip(clients, wanted):
                client.send_together(requests)
            for number, client in enumerate(clients):
                for opcode, _ in wanted[number]:
                    reply = client.receive_reply()
                    self.assertGreaterEqual(reply.zxid, seen[number])
                    seen[number] = reply.zxid
                    *value, stat = raw.fields(opcode, reply)
                    assert isinstance(stat, raw.Stat)
                    self.assertLessEqual(stat.mzxid, reply.zxid)
                    told = stat.version, stat.mtime, stat.length
                    self.assertEqual(history.setdefault(stat.mzxid, told), told)
                    if value:
                        self.assertEqual(len(value[0] or b""), stat.length)
        versions = [told[0] for _, told in sorted(history.items()) if isinstance(told, tuple)]
        self.assertEqual(versions, sorted(set(versions)))
        self.assertEqual(self.stat(self.root).version, 4 * self.ROUNDS * self.IN_FLIGHT // 2)

    def requests(self, number: int, turn: int) -> list[tuple[int, bytes]]:
        """Sets and gets of the same node in turn, with data of different lengths."""
        write = raw.SET_DATA, raw.set_data(self.root, b"x" * (number * 10 + turn))
        return [write, (raw.GET_DATA, raw.watched(self.root))] * (self.IN_FLIGHT // 2)

    def test_own_writes_are_read(self) -> None:
        """What follows a write on the same connection sees it."""
        requests = []
        for number in range(100):
            requests.append((raw.SET_DATA, raw.set_data(self.root, b"%d" % number)))
            requests.append((raw.GET_DATA, raw.watched(self.root)))
        self.client.send_together(requests)
        for number in range(100):
            self.assertEqual(self.client.receive_reply().error, 0)
            read = raw.fields(raw.GET_DATA, self.client.receive_reply())
            self.assertEqual(read[0], b"%d" % number)

    def test_acknowledged_write_is_read_by_everybody(self) -> None:
        """At once, without sync: there is one server."""
        other = self.connected()
        for number in range(100):
            self.client.ask(raw.SET_DATA, raw.set_data(self.root, b"%d" % number))
            _, (value, _) = other.ask(raw.GET_DATA, raw.watched(self.root))
            self.assertEqual(value, b"%d" % number)

    def test_version_decides_a_race(self) -> None:
        """Of several conditional writes to one version, one succeeds."""
        clients = [self.connected() for _ in range(4)]
        for version in range(20):
            for client in clients:
                client.send(raw.SET_DATA, raw.set_data(self.root, b"", version))
            errors = sorted(client.receive_reply().error for client in clients)
            self.assertEqual(errors, [BAD_VERSION] * 3 + [0])


class SessionRules(ServerCase):
    """Identities and lifetimes of sessions."""

    def test_timeout_is_negotiated(self) -> None:
        """2 to 20 ticks of 500 ms."""
        for asked, given in ((1, 1000), (4000, 4000), (999_999, 10000), (-5, 1000)):
            self.assertEqual(self.connected(asked).session.timeout, given)

    def test_answer_has_the_length_of_the_question(self) -> None:
        """A client that sends no read-only flag gets none."""
        for flag, length in ((True, 37), (False, 36)):
            client = RawClient(self.server.port)
            self.addCleanup(client.close)
            self.assertEqual(client.connect(read_only_flag=flag).length, length)
            self.assertEqual(client.ping().error, 0)

    def test_reconnect_closes_the_old_connection(self) -> None:
        """A session has one."""
        old = self.client
        self.client = self.connected(session=old.session)
        self.assertEqual(self.client.session[2:4], old.session[2:4])
        self.assertTrue(old.closed_by_server())
        self.assertEqual(self.client.ping().error, 0)

    def test_refused_reconnect(self) -> None:
        """Session 0, timeout 0, zeros for a password, then the connection is closed."""
        session = self.client.session
        wrong = bytes(byte ^ 1 for byte in session.password)
        for claim in (session._replace(password=wrong), session._replace(id=12345)):
            thief = RawClient(self.server.port)
            self.addCleanup(thief.close)
            self.assertEqual(thief.connect(claim), REFUSED)
            self.assertTrue(thief.closed_by_server())
        self.client = self.connected(session=session)
        self.assertEqual(self.client.session.id, session.id)

    def test_silent_session_expires(self) -> None:
        """One of 4 s goes after 4 s and before 8; one that pings stays."""
        silent, alive = self.connected(4000), self.connected(4000)
        path = f"{self.root}/e"
        silent.ask(raw.CREATE, raw.create(path, b"", flags=raw.EPHEMERAL))
        began = time.monotonic()
        while self.client.ask(raw.EXISTS, raw.watched(path))[0] == 0:
            self.assertLess(time.monotonic() - began, 20)
            alive.ping()
            time.sleep(0.1)
        self.assertGreater(time.monotonic() - began, 3.9)
        self.assertLess(time.monotonic() - began, 7.9)  # less than two of its timeouts
        self.assertTrue(silent.closed_by_server())
        again = RawClient(self.server.port)
        self.addCleanup(again.close)
        self.assertEqual(again.connect(silent.session), REFUSED)
        self.assertEqual(alive.ping().error, 0)

    def test_session_over_kill_and_restart(self) -> None:
        """Session and ephemeral node stay, with a timeout that begins anew, then they go."""
        server = self.own_server()
        self.client = self.connected(2000)
        path = self.make(f"{self.root}/e", flags=raw.EPHEMERAL)
        lost = self.connected(2000)
        self.assertEqual(
            lost.ask(raw.CREATE, raw.create(f"{self.root}/f", b"", flags=raw.EPHEMERAL))[0], 0
        )
        server.kill()
        time.sleep(2.5)
        server.start()
        self.client = self.connected(2000, session=self.client.session)
        self.assertEqual(self.stat(path).owner, self.client.session.id)
        self.assertEqual(self.stat(f"{self.root}/f").owner, lost.session.id)
        deadline = time.monotonic() + 20
        while self.client.ask(raw.EXISTS, raw.watched(f"{self.root}/f"))[0] == 0:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        self.assertEqual(self.stat(path).owner, self.client.session.id)

    def test_closed_session_is_gone(self) -> None:
        """A reconnect is refused."""
        session = self.client.session
        self.assertEqual(self.client.end_session().error, 0)
        again = RawClient(self.server.port)
        self.addCleanup(again.close)
        self.assertEqual(again.connect(session), REFUSED)

    def test_acknowledged_writes_survive_kill(self) -> None:
        """Many in flight from several clients: whatever was answered is there."""
        server = self.own_server()
        clients = [self.connected() for _ in range(4)]
        answered: set[str] = set()
        for number, client in enumerate(clients):
            names = [f"{self.root}/{number}-{count}" for count in range(200)]
            client.send_together([(raw.CREATE, raw.create(name, b"x")) for name in names])
        for client in clients:
            for _ in range(150):
                error_and_name = raw.fields(raw.CREATE, client.receive_reply())
                answered.add(str(error_and_name[0]).rpartition("/")[2])
        server.kill()
        server.start()
        self.client = self.connected()
        error, (names,) = self.client.ask(raw.GET_CHILDREN, raw.watched(self.root))
        self.assertEqual(error, 0)
        assert isinstance(names, list)
        self.assertEqual(len(answered), 600)
        self.assertEqual(answered - set(names), set())


class VersionRules(ServerCase):
    """Where the versions of ZooKeeper differ: either answer is accepted."""

    READ_ONLY = ((raw.READ, "world", "anyone"),)

    def test_unknown_operation(self) -> None:
        """No answer, or Unimplemented and the end of the connection."""
        other = self.connected()
        other.send(99)
        other.socket.settimeout(1.0)
        closed = other.closed_by_server()
        errors = [frame.error for frame in other.frames if isinstance(frame, raw.Reply)]
        self.assertIn((errors, closed), (([], False), ([UNIMPLEMENTED], True)))
        self.assertEqual(self.client.ping().error, 0)

    def test_set_watches_of_changed_node(self) -> None:
        """For a node newer than the client's zxid: created or changed."""
        seen = self.zxid()
        path = self.make(f"{self.root}/a")
        for lists in (([path], [], []), ([], [path], [])):
            body = raw.set_watches(seen, *lists)
            self.client.call(raw.SET_WATCHES, body, raw.SET_WATCHES_XID)
            (event,) = self.client.take_events()
            self.assertEqual(event.path, path)
            self.assertIn(event.kind, (raw.NODE_CREATED, raw.NODE_DATA_CHANGED))

    def closed_node(self, *lists: raw.Acl) -> str:
        """A node with a list for ann."""
        self.client.call(raw.AUTH, raw.auth("digest", b"ann:1"), raw.AUTH_XID)
        path = f"{self.root}/a"
        body = raw.create(path, b"", ((raw.ALL, "auth", ""), *lists))
        self.assertEqual(self.client.ask(raw.CREATE, body)[0], 0)
        return path

    def test_get_acl_without_read(self) -> None:
        """Answered, or NoAuth."""
        path = self.closed_node()
        self.assertIn(self.connected().ask(raw.GET_ACL, raw.text(path))[0], (0, NO_AUTH))

    def test_get_acl_without_admin(self) -> None:
        """The digest, or ``x`` in its place."""
        path = self.closed_node(*self.READ_ONLY)
        error, (acl, _) = self.connected().ask(raw.GET_ACL, raw.text(path))
        self.assertEqual(error, 0)
        assert isinstance(acl, list)
        self.assertRegex(acl[0][2], r"^ann:(x|[A-Za-z0-9+/=]{28})$")

    def test_delete_of_missing_node_without_permission(self) -> None:
        """NoNode, or NoAuth."""
        path = self.closed_node(*self.READ_ONLY)
        error, _ = self.connected().ask(raw.DELETE, raw.versioned(f"{path}/none"))
        self.assertIn(error, (NO_NODE, NO_AUTH))

    def test_acl_of_length_minus_one(self) -> None:
        """Marshalling, or InvalidACL."""
        body = raw.text(f"{self.root}/a") + raw.data(b"") + struct.pack(">ii", -1, 0)
        other = self.connected()
        other.send(raw.CREATE, body)
        self.assertIn(other.receive_reply().error, (MARSHALLING, INVALID_ACL))
        self.assertEqual(self.client.ask(raw.EXISTS, raw.watched(f"{self.root}/a"))[0], NO_NODE)

    def test_set_data_on_malformed_path(self) -> None:
        """NoNode, or BadArguments."""
        error, _ = self.client.ask(raw.SET_DATA, raw.set_data(f"{self.root}//a", b""))
        self.assertIn(error, (NO_NODE, BAD_ARGUMENTS))

    def test_event_of_unreadable_node(self) -> None:
        """Sent, or withheld from a session that may not read the node."""
        path = self.closed_node()
        other = self.connected()
        other.ask(raw.EXISTS, raw.watched(path, True))
        self.client.ask(raw.SET_DATA, raw.set_data(path, b"1"))
        other.ping()
        events = [(event.kind, event.path) for event in other.take_events()]
        self.assertIn(events, ([], [(raw.NODE_DATA_CHANGED, path)]))
