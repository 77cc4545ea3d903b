"""ZooKeeper absent, killed, frozen, emptied; sessions that expire."""

from __future__ import annotations

import socket
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent

from metamorphosis.cluster import registry
from metamorphosis.cluster.kazoobridge import CONNECT_SECONDS
from metamorphosis.cluster.model import SessionEvent, SessionState
from metamorphosis.cluster.registration import RegistrationStatus
from metamorphosis.cluster.registry import STOP_SECONDS
from metamorphosis.errors import RegistryUnavailable
from tests.integration.registering import MASTER, RegisteringCase
from tests.support import zookeeper

NEW = SessionEvent(SessionState.CONNECTED, new_session=True)
SAME = SessionEvent(SessionState.CONNECTED, new_session=False)
SUSPENDED = SessionEvent(SessionState.SUSPENDED)
LOST = SessionEvent(SessionState.LOST)


class OutageTests(RegisteringCase):
    """A server for each test, with sessions of a second."""

    def setUp(self) -> None:
        """The server is made and not started."""
        super().setUp()
        self.server = zookeeper.ZooKeeperServer(self.mktemp(), tick_time=100)
        self.addCleanup(self.server.stop)
        self.connect = self.server.connect_string
        self.make()

    async def running(self) -> None:
        """A server with our broker registered in it."""
        self.server.start()
        self.start()
        await self.registered()

    async def test_absent_at_start(self) -> None:
        """One log line while it is absent, one when it is there; then everything is registered."""
        with capturedLogs() as events:
            self.start()
            await deferLater(reactor, 1.5)
            self.assertIs(self.registration.status, RegistrationStatus.WAITING)
            await self.assertFailure(self.registry.get("/"), RegistryUnavailable)
            self.server.start()
            await self.registered()
        self.assert_owned()
        warnings = [formatEvent(e) for e in events if e["log_level"] is LogLevel.warn]
        self.assertEqual(len(warnings), 1, warnings)
        self.assertIn(self.connect, warnings[0])
        self.assertIn("refused", warnings[0])
        self.assertEqual([e for e in events if e["log_level"] > LogLevel.warn], [])

    def patient(self) -> None:
        """Sessions of 20 seconds, which do not expire because of load on the machine."""
        self.session_timeout = 20000
        self.server.tick_time = 1000
        self.make()

    async def test_killed_and_restarted(self) -> None:
        """kill -9 and a restart with its data: the same session, the nodes stay."""
        self.patient()
        await self.running()
        before = self.server.tree()
        self.server.kill()
        await self.until(lambda: self.registration.status is RegistrationStatus.WAITING)
        self.server.start()
        await self.registered()
        self.assertEqual(self.events, [NEW, SUSPENDED, SAME])
        self.assertEqual(self.server.tree(), before)

    async def test_accepts_before_it_serves(self) -> None:
        """A connection that a starting server never answers is left; the session is resumed."""
        self.patch(registry, "CONNECT_SECONDS", 0.5)
        self.patch(registry, "ANSWER_SHARE", 0.0)
        self.patient()
        await self.running()
        self.server.kill()
        with socket.create_server(("127.0.0.1", self.server.port)) as listener:
            silent, _ = await deferToThread(listener.accept)
            self.addCleanup(silent.close)
        self.server.start()
        began = time.monotonic()
        await self.until(lambda: SAME in self.events)
        self.assertLess(time.monotonic() - began, 10)  # kazoo itself waits for a session, 20 s
        await self.registered()
        self.assertEqual(self.events, [NEW, SUSPENDED, SAME])

    async def test_topic_and_reload_during_outage(self) -> None:
        """Changes during the outage are registered when ZooKeeper is back."""
        await self.running()
        self.server.kill()
        await self.until(lambda: self.registration.status is RegistrationStatus.WAITING)
        self.registration.set_checksum(7)
        self.server.start()
        await self.registered()
        self.assertEqual(self.brokers()[f"{MASTER}_config_checksum"], ("7", True))

    async def test_forced_expiry(self) -> None:
        """The server ends our session: everything is registered in a new one."""
        await self.running()
        first = self.registry.session_id()
        self.server.expire(first)
        await self.until(lambda: self.registry.session_id() not in (0, first))
        await self.registered()
        self.assertEqual(self.events, [NEW, SUSPENDED, LOST, NEW])
        self.assert_owned()

    async def test_frozen_shorter_than_the_session(self) -> None:
        """SIGSTOP for less than the session timeout: nothing is lost."""
        self.patient()
        await self.running()
        before = self.server.tree()
        self.server.pause()
        await deferLater(reactor, 0.3)
        self.server.resume()
        await deferLater(reactor, 0.3)
        await self.registered()
        self.assertEqual(self.server.tree(), before)

    async def test_frozen_longer_than_the_session(self) -> None:
        """
        SIGSTOP for several session timeouts: the session expires and the next one has all nodes.
        """
        await self.running()
        self.server.pause()
        await self.until(lambda: SUSPENDED in self.events)
        await deferLater(reactor, 2.5)
        self.server.resume()
        await self.until(lambda: self.events[-1] in (NEW, SAME) and len(self.events) > 2)
        await self.registered()
        self.assert_owned()

    async def test_returns_empty(self) -> None:
        """All data are lost, and the server's zxid is below the client's: a new session and all
        nodes again."""
        await self.running()
        before = self.brokers()
        self.server.kill()
        self.server.wipe()
        self.server.start()
        await self.until(lambda: self.events[-1] == NEW and len(self.events) > 1)
        await self.registered()
        self.assertEqual(self.brokers(), before)
        self.assert_owned()

    async def test_returns_empty_with_more_history(self) -> None:
        """An emptied server whose zxid is above the client's answers that the session has
        expired."""
        await self.running()
        self.server.kill()
        self.server.wipe()
        self.server.start()
        client = self.server.client()
        for n in range(60):
            client.create(f"/n{n}", b"")
        client.stop()
        client.close()
        await self.until(lambda: self.events[-1] == NEW and len(self.events) > 1)
        await self.registered()
        self.assert_owned()

    async def test_client_thread_dies(self) -> None:
        """kazoo's loop ends after an unexpected answer: another client replaces it."""
        await self.running()
        with capturedLogs() as events:
            self.registry._client._pending.appendleft((None, Deferred(), -99))
            self.registry.exists("/").addErrback(lambda failure: None)
            await self.until(lambda: self.events[-1] == NEW and len(self.events) > 1)
        errors = [formatEvent(e) for e in events if e["log_level"] is LogLevel.error]
        self.assertTrue([text for text in errors if "ended: " in text], errors)
        await self.registered()
        self.assert_owned()

    async def test_something_else_listens(self) -> None:
        """Another program has the port of ZooKeeper: one warning, and broker and client can
        stop."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.connect = f"127.0.0.1:{listener.getsockname()[1]}"
        self.make()
        with capturedLogs() as events:
            self.start()
            accepted, _ = await deferToThread(listener.accept)
            accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            accepted.close()
            await deferLater(reactor, 1.2)
        self.assertEqual(len([e for e in events if e["log_level"] >= LogLevel.warn]), 1)
        self.assertIs(self.registration.status, RegistrationStatus.WAITING)

    async def test_stop_while_connecting_hangs(self) -> None:
        """The connection attempt gets no answer: stop ends at its own time limit, not that of a
        session."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(listener.close)
        for _ in range(3):  # fills the queue; further attempts get no answer at all
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            self.addCleanup(filler.close)
        self.session_timeout = 60000
        self.connect = f"127.0.0.1:{listener.getsockname()[1]}"
        self.make()
        self.start()
        await deferLater(reactor, 0.5)
        began = time.monotonic()
        await self.registration.stop()
        await self.registry.stop()
        self.assertLess(time.monotonic() - began, CONNECT_SECONDS + 15)  # a session has 60 s

    async def test_stop_while_absent(self) -> None:
        """Both stops are quick when there is no server."""
        self.start()
        await deferLater(reactor, 0.2)
        began = time.monotonic()
        await self.registration.stop()
        await self.registry.stop()
        self.assertLess(time.monotonic() - began, 15)

    async def test_stop_while_frozen(self) -> None:
        """Both stops end in time when the server does not answer; the sessions end when it
        continues."""
        self.patient()
        await self.running()
        self.server.pause()
        began = time.monotonic()
        await self.registration.stop()
        await self.registry.stop()
        self.assertLess(time.monotonic() - began, STOP_SECONDS + 10)  # a session has 20 s
        self.server.resume()

    async def test_operation_has_a_time_limit(self) -> None:
        """A server that accepts and does not answer: the Deferred fails at its time limit."""
        self.patient()
        self.registry._operation_seconds = 0.3
        await self.running()
        self.server.pause()
        began = time.monotonic()
        await self.assertFailure(self.registry.get("/meta"), RegistryUnavailable)
        self.assertLess(time.monotonic() - began, 10)
        self.server.resume()
        self.assertEqual((await self.registry.get("/meta"))[0], None)
