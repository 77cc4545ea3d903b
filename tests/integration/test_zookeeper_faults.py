"""
Faults of the original that our embedded ZooKeeper must not have, and clients that send garbage.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import struct
import time

from tests.integration import zookeepersteps as steps
from tests.integration.zookeeperrules import (
    BAD_ARGUMENTS,
    MARSHALLING,
    NO_AUTH,
    REFUSED,
    ServerCase,
)
from tests.support import rawzookeeper as raw
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.rawzookeeper import RawClient
from tests.support.tinydisk import TinyDisk

HUGE = 1 << 30
SEED = 20261121
MUTANTS = 3000
KILLS = 5
UNREAD_REQUESTS = 20_000
MEMORY_LIMIT_KIB = 32 * 1024


def resident_kib(pid: int) -> int:
    """Memory of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


class EmbeddedFaultTests(ServerCase):
    """A faulty client does not affect others."""

    server_kind = EmbeddedZooKeeper

    def pid(self) -> int:
        """The process id of the server."""
        assert self.server.process is not None
        return self.server.process.pid

    def assertServes(self) -> None:
        """The test's own client is still served."""
        self.assertEqual(self.client.ping().error, 0)

    def test_wrong_password_disturbs_nobody(self) -> None:
        """The right client's connection stays open, with its watches."""
        self.client.ask(raw.GET_DATA, raw.watched(self.root, True))
        thief = RawClient(self.server.port)
        self.addCleanup(thief.close)
        wrong = self.client.session._replace(password=b"wrong".ljust(16))
        self.assertEqual(thief.connect(wrong), REFUSED)
        self.assertTrue(thief.closed_by_server())
        self.assertServes()
        self.client.ask(raw.SET_DATA, raw.set_data(self.root, b"1"))
        self.assertEqual(len(self.client.take_events()), 1)

    def test_huge_lengths(self) -> None:
        """A string, a buffer or a list that claims to be longer than its frame is a marshalling
        error."""
        huge = struct.pack(">i", HUGE)
        for opcode, body in (
            (raw.GET_DATA, huge + b"/x"),
            (raw.SET_DATA, raw.text(self.root) + huge),
            (raw.CREATE, raw.text(f"{self.root}/a") + raw.data(b"") + huge),
            (raw.SET_WATCHES, struct.pack(">q", 0) + huge * 3),
            (raw.MULTI, struct.pack(">i?i", raw.SET_DATA, False, -1) + huge),
        ):
            other = self.connected()
            reply = other.call(opcode, body)
            self.assertEqual((opcode, reply.error), (opcode, MARSHALLING))
            other.close()
        self.assertServes()

    def test_set_data_of_no_path(self) -> None:
        """An empty path, which kills a 3.4 server."""
        self.assertEqual(self.client.ask(raw.SET_DATA, raw.set_data("", b""))[0], BAD_ARGUMENTS)
        self.assertServes()

    def test_requests_behind_set_acl(self) -> None:
        """Each request is judged by the ACL that earlier requests have set."""
        path = self.make(f"{self.root}/a")
        nobody = ((raw.ALL & ~raw.READ, "world", "anyone"),)
        everybody = raw.OPEN
        read = raw.GET_DATA, raw.watched(path)
        write = raw.SET_DATA, raw.set_data(path, b"1")
        closed = ((raw.ADMIN, "world", "anyone"),)
        wanted = [
            ((raw.SET_ACL, raw.set_acl(path, nobody)), 0),
            (read, NO_AUTH),
            (write, 0),
            ((raw.SET_ACL, raw.set_acl(path, closed)), 0),
            (write, NO_AUTH),
            ((raw.SET_ACL, raw.set_acl(path, everybody)), 0),
            (read, 0),
            (write, 0),
        ]
        self.client.send_together([request for request, _ in wanted])
        errors = [self.client.receive_reply().error for _ in wanted]
        self.assertEqual(errors, [error for _, error in wanted])

    def test_listens_when_it_serves(self) -> None:
        """The first accepted connection after a start is answered at once."""
        server = self.own_server()
        server.kill()
        server.start(wait=False)
        deadline = time.monotonic() + 20
        while True:
            try:
                first = RawClient(server.port, seconds=5.0)
                break
            except OSError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.002)
        self.addCleanup(first.close)
        self.assertGreater(first.connect().id, 0)
        self.assertEqual(first.ask(raw.EXISTS, raw.watched(self.root))[0], 0)

    def test_garbage_ends_its_connection_only(self) -> None:
        """Garbage before a handshake and after one."""
        for packet in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 8, b"\0\0\0\x01x", b"\0" * 60):
            with socket.create_connection(("127.0.0.1", self.server.port), 15) as stranger:
                stranger.sendall(packet)
                with contextlib.suppress(OSError):  # the server may have closed it already
                    stranger.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    while stranger.recv(65536):
                        pass
        for frame in (b"", b"\0", b"\0\0\0\1\0\0"):
            other = self.connected()
            other.send_frame(frame)
            self.assertTrue(other.closed_by_server())
        self.assertServes()

    def test_unread_replies_cost_little(self) -> None:
        """A client that asks for 200 MiB and reads nothing is not read from; others are served."""
        self.own_server()
        self.client.ask(raw.SET_DATA, raw.set_data(self.root, b"x" * 10_000))
        before = resident_kib(self.pid())
        deaf = self.connected()
        deaf.socket.settimeout(2.0)
        request = struct.pack(">ii", 1, raw.GET_DATA) + raw.watched(self.root)
        packet = struct.pack(">i", len(request)) + request
        try:
            for _ in range(UNREAD_REQUESTS // 100):
                deaf.socket.sendall(packet * 100)
        except TimeoutError:
            pass  # the server takes no more
        for _ in range(20):
            self.assertServes()
            time.sleep(0.01)
        self.assertLess(resident_kib(self.pid()) - before, MEMORY_LIMIT_KIB)

    def test_unread_events_cost_little(self) -> None:
        """The same for a client that sets watches and does not read the events."""
        self.own_server()
        path = self.make(f"{self.root}/{'long' * 200}")
        before = resident_kib(self.pid())
        deaf = self.connected()
        deaf.socket.settimeout(1.0)
        request = struct.pack(">ii", 1, raw.GET_DATA) + raw.watched(path, True)
        packet = struct.pack(">i", len(request)) + request
        sends = True
        for number in range(3000):
            if sends:
                try:
                    deaf.socket.sendall(packet)
                except OSError:
                    sends = False
            self.client.ask(raw.SET_DATA, raw.set_data(path, b"%d" % number * 1000))
        self.assertServes()
        self.assertLess(resident_kib(self.pid()) - before, MEMORY_LIMIT_KIB)

    def test_kills_under_load(self) -> None:
        """``kill -9`` during writes, again and again: sessions resume with their ephemeral nodes,
        and every acknowledged change is there."""
        server = self.own_server()
        chance = random.Random(SEED)
        writers = [Writer(self.connected(), f"{self.root}/{number}") for number in range(3)]
        for _ in range(KILLS):
            deadline = time.monotonic() + chance.uniform(0.05, 0.3)
            while time.monotonic() < deadline:
                for writer in writers:
                    writer.send(20)
                for writer in writers:
                    writer.read_answers(20)
            for writer in writers:
                writer.send(20)  # some of these are under way when the process dies
            time.sleep(chance.uniform(0, 0.01))
            server.kill()
            server.start()
            for writer in writers:
                writer.client.close()
                writer.client = self.connected(session=writer.client.session)
                self.assertGreater(writer.client.session.id, 0)
                writer.check(self)
        self.assertGreater(min(writer.sets for writer in writers), 100)

    def test_full_disk(self) -> None:
        """A change that cannot be stored is not acknowledged and is dropped; with room again the
        server continues, with its sessions."""
        server = self.own_server()
        path = self.make(f"{self.root}/e", b"before", raw.EPHEMERAL)
        session = self.client.session
        limits = resource.prlimit(self.pid(), resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid(), resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            self.client.frames.clear()
            self.client.send(raw.SET_DATA, raw.set_data(path, b"x" * 500_000))
            self.assertTrue(self.client.closed_by_server())
            self.assertEqual(self.client.frames, [])
            self.assertEqual(server.four_letter_word(b"ruok"), b"")
        finally:
            resource.prlimit(self.pid(), resource.RLIMIT_FSIZE, limits)
        server.wait_until_serving()
        self.client = self.connected(session=session)
        self.assertEqual(self.client.session.id, session.id)
        _, (data, stat) = self.client.ask(raw.GET_DATA, raw.watched(path))
        assert isinstance(stat, raw.Stat)
        self.assertEqual((data, stat.version, stat.owner), (b"before", 0, session.id))
        self.assertEqual(self.client.ask(raw.SET_DATA, raw.set_data(path, b"after"))[0], 0)

    def test_start_on_a_full_disk(self) -> None:
        """The server starts with the reserved room, and serves: reads, and new sessions for a
        while. Without that room the start is refused, and the line names the missing bytes."""
        server = EmbeddedZooKeeper(os.path.abspath(self.mktemp()))
        os.mkdir(server.directory)
        disk = TinyDisk(server.data, "size=8m")
        self.addCleanup(disk.unmount)
        self.addCleanup(server.kill)
        server.start()
        client = RawClient(server.port)
        client.connect()
        client.ask(raw.CREATE, raw.create("/kept", b"before"))
        client.close()
        server.stop()
        disk.fill()
        server.start()
        client = RawClient(server.port)
        self.addCleanup(client.close)
        client.connect()
        self.assertEqual(b"before", client.ask(raw.GET_DATA, raw.watched("/kept"))[1][0])
        server.stop()
        disk.fill()
        self.assertRaises(RuntimeError, server.start)
        with open(os.path.join(server.directory, "log"), encoding="utf-8") as log:
            lines = log.read().splitlines()
        self.assertEqual(1, sum("started with the 1024 KiB" in line for line in lines))
        self.assertRegex(lines[-1], "Cannot start: .* 0 bytes are free in .*, 65536 are needed")

    def test_mutated_requests(self) -> None:
        """Valid requests with changed, cut or repeated bytes: each is answered or ends its
        connection; no unexpected error is logged, and the tree on disk equals the one in memory."""
        server = self.own_server()
        chance, generator = random.Random(SEED), steps.Generator(SEED)
        self.make(steps.ROOT)
        mutant = self.connected()
        for n in range(MUTANTS):
            if n % 20 == 0:
                self.assertServes()  # and the session lasts, however slow the machine is
            opcode, body = generator.request()
            frame = mutated(chance, struct.pack(">ii", 1, opcode) + body)
            try:
                mutant.send_frame(frame)
                mutant.send(raw.PING, xid=raw.PING_XID)
                while mutant.receive_reply().xid != raw.PING_XID:
                    pass
            except (raw.Closed, OSError):
                mutant = self.again(mutant)
        self.assertServes()
        before = self.everything()
        server.kill()
        with open(f"{server.directory}/log", encoding="utf-8", errors="replace") as file:
            self.assertNotIn("Traceback", file.read())
        server.start()
        self.client = self.connected(session=self.client.session)
        self.assertEqual(self.everything(), before)
        self.assertGreater(len(before), 20)

    def again(self, old: RawClient) -> RawClient:
        """A new connection for the session, or for another one if that has been closed."""
        old.close()
        client = self.connected(session=old.session)
        return client if client.session.id else self.connected()

    def everything(self) -> dict[str, object]:
        """Data and Stat of every readable node."""
        found: dict[str, object] = {}
        waiting = ["/"]
        while waiting:
            path = waiting.pop()
            listed = self.client.ask(raw.GET_CHILDREN2, raw.watched(path))
            found[path] = listed, self.client.ask(raw.GET_DATA, raw.watched(path))
            if listed[1]:
                names = listed[1][0]
                assert isinstance(names, list)
                waiting += [f"{path.rstrip('/')}/{name}" for name in names]
        return found


class Writer:
    """
    A client that sets one ephemeral node and creates others.

    :ivar sets: how many were acknowledged.
    :ivar created: the names that were.
    """

    def __init__(self, client: RawClient, path: str) -> None:
        self.client = client
        self.path = path
        self.sets = 0
        self.created: set[str] = set()
        self.zxid = 0
        client.ask(raw.CREATE, raw.create(path, b"", flags=raw.EPHEMERAL))

    def send(self, pairs: int) -> None:
        """Send a number of sets, and the same number of creates."""
        requests = [
            (raw.SET_DATA, raw.set_data(self.path, b"x")),
            (raw.CREATE, raw.create(f"{self.path}-", b"", flags=raw.SEQUENTIAL)),
        ]
        self.client.send_together(requests * pairs)

    def read_answers(self, pairs: int) -> None:
        """Receive the answers to both kinds in turn."""
        for _ in range(pairs):
            self.sets += self.client.receive_reply().error == 0
            reply = self.client.receive_reply()
            self.created.add(str(raw.fields(raw.CREATE, reply)[0]).rpartition("/")[2])
            self.zxid = reply.zxid

    def check(self, case: ServerCase) -> None:
        """After a restart the acknowledged changes are there; others may be."""
        case.assertGreaterEqual(self.client.ping().zxid, self.zxid)
        _, (stat,) = self.client.ask(raw.EXISTS, raw.watched(self.path))
        assert isinstance(stat, raw.Stat)
        case.assertEqual(stat.owner, self.client.session.id)
        case.assertIn(stat.version - self.sets, range(21))
        self.sets = stat.version
        parent = self.path.rpartition("/")[0]
        _, (names,) = self.client.ask(raw.GET_CHILDREN, raw.watched(parent))
        assert isinstance(names, list)
        case.assertEqual(self.created - set(names), set())


def mutated(chance: random.Random, frame: bytes) -> bytes:
    """A frame with an error in it."""
    changed = bytearray(frame)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(changed))
        kind = chance.random()
        if kind < 0.6:
            changed[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind < 0.8:
            del changed[place : place + chance.randrange(1, 9)]
        else:
            changed[place:place] = changed[place : place + chance.randrange(1, 9)]
        if not changed:
            return b"\0"
    return bytes(changed)
