"""The administrative interface in memory: every route, every refusal, every bound; the socket."""

from __future__ import annotations

import json
import os
import socket
import stat
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.transactions.administration import TransactionAdministration
from metamorphosis.web.administration import Administration
from metamorphosis.web.channel import (
    CONNECTIONS,
    IDLE_SECONDS,
    LIFE_SECONDS,
    MOST_BYTES,
    AdminChannel,
    AdminFactory,
    peer_user,
)
from metamorphosis.web.site import AdminSite, api
from metamorphosis.web.unixsocket import FILE_NAME, LONGEST, reachable, socket_path
from tests.unit.transactions.test_recovery import RecoveryTestCase
from tests.unit.transactions.test_steps import LOCAL, XA, XA2

LOST = Failure(ConnectionDone())


class AdminClient:
    """One connection to the administration."""

    def __init__(self, factory: AdminFactory) -> None:
        self.transport = StringTransport()
        self.channel: AdminChannel = factory.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """What comes back at once."""
        self.channel.dataReceived(data)
        value = self.transport.value()
        self.transport.clear()
        return value

    @property
    def closed(self) -> bool:
        """Whether it was ended."""
        return bool(self.transport.disconnecting or self.transport.disconnected)


class RoutesTestCase(RecoveryTestCase):
    """A broker with one prepared transaction, and its administration."""

    def start(self, **settings: Any) -> None:
        """With the interface."""
        super().start(**settings)
        self.administration = TransactionAdministration(self.broker.service, self.broker.clock)
        site = AdminSite(api(self.administration), self.broker.clock)
        self.factory = AdminFactory(lambda: site, self.broker.clock)
        self.factory.peer_user = lambda transport: os.geteuid()

    def setUp(self) -> None:
        super().setUp()
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        """Status and value of one request."""
        client = AdminClient(self.factory)
        head = f"{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        data = client.send(head.encode() + body)
        self.broker.clock.advance(0)
        data += client.transport.value()
        client.channel.connectionLost(LOST)
        head, _, text = data.decode().partition("\r\n\r\n")
        self.assertIn("application/json", head)
        if "chunked" in head:
            text = text.split("\r\n")[1]
        return int(head.split(" ")[1]), json.loads(text)


class RoutesTests(RoutesTestCase):
    """What is answered."""

    def test_list(self) -> None:
        """All, those of a state, some."""
        self.fill(XA2, b"open")
        status, value = self.ask("GET", "/transactions")
        self.assertEqual((200, 0), (status, value["left_off"]))
        self.assertEqual([XA, XA2], [each["key"] for each in value["transactions"]])
        self.assertEqual(["test-0"], value["transactions"][0]["partitions"])
        _, value = self.ask("GET", "/transactions?state=prepared")
        self.assertEqual([XA], [each["key"] for each in value["transactions"]])
        _, value = self.ask("GET", "/transactions?limit=1")
        self.assertEqual((1, 1), (len(value["transactions"]), value["left_off"]))

    def test_one(self) -> None:
        """By its key, also where the key has to be quoted."""
        self.assertEqual("prepared", self.ask("GET", f"/transactions/{XA}")[1]["state"])
        quoted = XA.replace(":", "%3A")
        self.assertEqual(XA, self.ask("GET", f"/transactions/{quoted}")[1]["key"])

    def test_decide(self) -> None:
        """Each outcome, then forget."""
        for action, state in (
            ("commit", "heuristically committed"),
            ("rollback", "heuristically rolled back"),
            ("complete", "heuristically completed"),
        ):
            status, value = self.ask("POST", f"/transactions/{XA}/{action}")
            self.assertEqual((200, state), (status, value["state"]))
            self.assertEqual(409, self.ask("POST", f"/transactions/{XA}/{action}")[0])
            self.assertEqual((200, {"key": XA}), self.ask("POST", f"/transactions/{XA}/forget"))
            self.assertEqual(404, self.ask("POST", f"/transactions/{XA}/forget")[0])
            self.fill(XA, b"again")
            self.step(XA, "PREPARE")
        self.assertEqual([b"one"], self.messages())
        self.assertIn(f"asks: complete {XA}", " ".join(self.logged(LogLevel.info)))

    def test_journal(self) -> None:
        """Its state, and a checkpoint."""
        status, value = self.ask("GET", "/journal")
        self.assertEqual((200, 1, 1), (status, value["prepared"], value["files"][0]["number"]))
        self.assertFalse(self.ask("POST", "/journal/checkpoint")[1]["begun"])
        self.ask("POST", f"/transactions/{XA}/rollback")
        _, value = self.ask("POST", "/journal/checkpoint")
        self.assertEqual((True, 2), (value["begun"], value["journal"]["files"][0]["number"]))

    def test_refused(self) -> None:
        """With a status and one line each."""
        self.fill(XA2, b"open")
        for method, path, status, word in (
            ("GET", "/transactions?state=lost", 400, "lost"),
            ("GET", "/transactions?state=open&state=open", 400, "2 times"),
            ("GET", "/transactions?state=%ff", 400, "UTF-8"),
            ("GET", "/transactions?limit=-1", 400, "limit"),
            ("GET", "/transactions/nonsense", 400, "nonsense"),
            ("GET", f"/transactions/{LOCAL}", 404, LOCAL),
            ("GET", "/transactions/XID:9:00:00:q", 404, "XID:9"),
            ("GET", "/transactions/%ff", 404, "%ff"),
            ("POST", f"/transactions/{XA2}/commit", 409, "in use"),
            ("POST", f"/transactions/{XA2}/forget", 409, "by hand"),
            ("POST", f"/transactions/{XA2}/explode", 404, "explode"),
            ("GET", f"/transactions/{XA}/commit", 405, "POST"),
            ("DELETE", f"/transactions/{XA}", 405, "GET"),
            ("POST", "/journal", 405, "GET"),
            ("GET", "/", 404, "/api/v1/"),
            ("GET", "/../../etc/passwd", 404, "there is no"),
        ):
            got, value = self.ask(method, path)
            self.assertEqual((path, status), (path, got))
            self.assertIn(word, value["error"])

    def test_unexpected_error(self) -> None:
        """Is in the log with its traceback, and only there."""

        def fail() -> object:
            raise ZeroDivisionError("internal")

        self.patch(self.administration, "journal", fail)
        status, value = self.ask("GET", "/journal")
        self.assertEqual((500, {"error": "see the broker's log"}), (status, value))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_client_goes_away(self) -> None:
        """Its request is carried out, and no reply is written."""
        self.broker.threads.hold()
        client = AdminClient(self.factory)
        client.send(f"POST /api/v1/transactions/{XA}/commit HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.broker.clock.advance(0)
        client.channel.connectionLost(LOST)
        self.broker.threads.release()
        self.broker.clock.advance(0)
        self.assertEqual([b"one"], self.messages())
        self.assertEqual("heuristically committed", self.administration.transaction(XA).state)
        self.assertEqual(set(), self.factory.channels)


class BoundsTests(RoutesTestCase):
    """Limits for peers."""

    def test_other_user(self) -> None:
        """Is refused before it is heard, and logged; root may."""
        self.factory.peer_user = lambda transport: 4711
        client = AdminClient(self.factory)
        self.assertEqual(b"", client.send(b"GET / HTTP/1.1\r\n\r\n"))
        self.assertTrue(client.closed)
        self.assertIn("4711", self.logged(LogLevel.warn)[-1])
        self.factory.peer_user = lambda transport: None
        self.assertTrue(AdminClient(self.factory).closed)
        self.factory.peer_user = lambda transport: 0
        self.assertFalse(AdminClient(self.factory).closed)

    def test_too_many(self) -> None:
        """Connections beyond the bound are closed; one that ends makes room."""
        clients = [AdminClient(self.factory) for _ in range(CONNECTIONS)]
        self.assertTrue(AdminClient(self.factory).closed)
        clients[0].channel.connectionLost(LOST)
        self.assertFalse(AdminClient(self.factory).closed)

    def test_malformed(self) -> None:
        """400 or nothing, and the end."""
        for data in (
            b"\r\n\r\n\r\n",
            b"GET\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET /%zz HTTP/9\r\n\r\n",
            b"x" * 20000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2000 + b"\r\n",
        ):
            client = AdminClient(self.factory)
            got = client.send(data)
            if not client.closed:
                self.broker.clock.advance(LIFE_SECONDS + 1)
            self.assertTrue(client.closed, data[:40])
            self.assertIn(got[:12], (b"", b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 505"))
            client.channel.connectionLost(LOST)

    def test_huge_body(self) -> None:
        """413 as soon as it is too long, and the rest is not taken in."""
        client = AdminClient(self.factory)
        head = f"POST /api/v1/transactions/{XA}/commit HTTP/1.1\r\nHost: x\r\n"
        client.send(head.encode() + b"Content-Length: 1000000000\r\n\r\n")
        got = b""
        for _ in range(MOST_BYTES // 65536 + 1):
            got += client.send(b"x" * 65536)
        status, _, body = got.partition(b"\r\n\r\n")
        self.assertTrue(status.startswith(b"HTTP/1.1 413"))
        self.assertIn(f"Content-Length: {len(body)}".encode(), status)
        self.assertIn("error", json.loads(body))
        self.assertTrue(client.closed)
        self.assertEqual(b"", client.send(b"x" * 65536))
        self.assertEqual("prepared", self.administration.transaction(XA).state)

    def test_slow(self) -> None:
        """Silence, and bytes that trickle, both have an end."""
        silent, trickling = AdminClient(self.factory), AdminClient(self.factory)
        for _ in range(LIFE_SECONDS // 5 + 1):
            trickling.send(b"G")
            self.broker.clock.advance(5)
            if self.broker.clock.seconds() % 5 == 0 and not silent.closed:
                continue
        self.assertTrue(silent.closed)
        self.assertTrue(trickling.closed)
        self.assertLess(IDLE_SECONDS, LIFE_SECONDS)

    def test_nothing_runs_when_nobody_asks(self) -> None:
        """Without requests the interface has no timer."""
        before = len(self.broker.clock.getDelayedCalls())
        client = AdminClient(self.factory)
        client.send(b"GET /api/v1/journal HTTP/1.1\r\nHost: x\r\n\r\n")
        client.channel.connectionLost(LOST)
        self.assertEqual(before, len(self.broker.clock.getDelayedCalls()))


class SocketTests(RecoveryTestCase):
    """Where it stands."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = MemoryReactorClock()
        self.data = os.path.abspath(self.mktemp())
        os.mkdir(self.data)

    def administration(self) -> Administration:
        """The interface of a broker that has this data path."""
        transactions = TransactionAdministration(self.broker.service, self.broker.clock)
        return Administration(self.reactor, self.data, transactions)

    def test_listens(self) -> None:
        """On a hidden file of its data path that only its user can open."""
        administration = self.administration()
        administration.start()
        ((path, _, _, mode, _),) = self.reactor.unixServers
        self.assertEqual(FILE_NAME, os.path.basename(path))
        self.assertEqual(0o600, mode)
        self.assertLessEqual(len(os.fsencode(path)), LONGEST)
        self.successResultOf(Deferred.fromCoroutine(administration.stop()))

    def test_stale(self) -> None:
        """What a killed broker has left is replaced."""
        with reachable(socket_path(self.data)) as path, socket.socket(socket.AF_UNIX) as end:
            end.bind(path)
        self.administration().start()
        self.assertEqual([], os.listdir(self.data))
        self.assertEqual(1, len(self.reactor.unixServers))

    def test_in_the_way(self) -> None:
        """A file that is not a socket is left alone, and named; the broker continues."""
        with open(socket_path(self.data), "w", encoding="ascii") as file:
            file.write("precious")
        administration = self.administration()
        administration.start()
        self.assertEqual([], self.reactor.unixServers)
        self.assertIn(socket_path(self.data), self.logged(LogLevel.error)[-1])
        self.assertTrue(os.path.exists(socket_path(self.data)))
        self.successResultOf(Deferred.fromCoroutine(administration.stop()))

    def test_cannot_listen(self) -> None:
        """Likewise."""

        def refuse(*args: object) -> None:
            raise CannotListenError(None, "path", OSError("Read-only file system"))

        self.patch(self.reactor, "listenUNIX", refuse)
        self.administration().start()
        self.assertIn("Read-only file system", self.logged(LogLevel.error)[-1])


class NameTests(SynchronousTestCase):
    """Paths, and the peer of a socket."""

    def test_long_path(self) -> None:
        """A socket whose path the kernel does not take can be bound and reached."""
        directory = os.path.abspath(self.mktemp())
        while len(directory) < 300:
            directory = os.path.join(directory, "d" * 50)
        os.makedirs(directory)
        path = socket_path(directory)
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            with reachable(path) as name:
                server.bind(name)
                server.listen()
            with reachable(path) as name:
                client.connect(name)
            self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
            end, _ = server.accept()
            self.addCleanup(end.close)
            transport: Any = type("Transport", (), {"socket": end})()
            self.assertEqual(os.geteuid(), peer_user(transport))

    def test_longest_path(self) -> None:
        """The bound is the kernel's."""
        base = os.path.abspath(self.mktemp())
        os.mkdir(base)
        for more in (0, 1):
            with socket.socket(socket.AF_UNIX) as end:
                name = f"/tmp/{'x' * (LONGEST - 5 + more)}"
                if more:
                    self.assertRaises(OSError, end.connect, name)
                else:
                    self.assertRaises(FileNotFoundError, end.connect, name)

    def test_no_socket(self) -> None:
        """Then the peer is unknown."""
        self.assertIsNone(peer_user(StringTransport()))  # type: ignore[arg-type]
