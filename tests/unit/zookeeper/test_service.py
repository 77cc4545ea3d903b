"""The service: its files, its port, its end, and a disk that fails and recovers."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis import lone
from metamorphosis.daemon.directorylock import DirectoryLock
from metamorphosis.daemon.process import StartRefused
from metamorphosis.threads import SynchronousThreads
from metamorphosis.zookeeper.factory import ZooKeeperFactory
from metamorphosis.zookeeper.service import RETRY_SECONDS, ZooKeeperService, ZooKeeperSettings
from metamorphosis.zookeeper.storage import FILE_NAME, Storage
from tests.support.turnclock import TurnClock
from tests.support.zookeeperpeer import handshake
from tests.support.zookeeperserved import Wire, frame


class Port:
    """A port in memory, which can be closed."""

    def __init__(
        self, port: int, factory: ZooKeeperFactory, backlog: int, interface: str, reactor: Reactor
    ) -> None:
        self.reactor = reactor
        self.factory = factory
        self.port = port

    def startListening(self) -> None:
        """Bind."""
        if self.reactor.taken:
            raise CannotListenError("", self.port, OSError(98, "Address already in use"))
        self.reactor.open.append(self)

    def getHost(self) -> Port:
        """Has a ``port``."""
        return self

    def stopListening(self) -> None:
        """No more connections."""
        self.reactor.open.remove(self)


class Reactor(TurnClock, MemoryReactorClock):
    """A clock, and ports that remember whether they are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Port] = []
        self.taken = False


class BreakingStorage(Storage):
    """A database whose disk is full when the test says so."""

    broken = False

    def commit(self) -> float:
        """Fail instead."""
        if self.broken:
            self._database.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")
        return super().commit()


class ServiceTests(SynchronousTestCase):
    """One service in a directory of its own."""

    def setUp(self) -> None:
        self.directory = os.path.join(os.path.abspath(self.mktemp()), "deep", "er")
        self.reactor = Reactor()
        self.threads = SynchronousThreads()
        self.wires: list[Wire] = []
        self.logged: list[tuple[LogLevel, str]] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        self.patch(
            lone, "QUICK_SECONDS", 0.0
        )  # the threads commit, whatever this machine's disk does
        self.patch(BreakingStorage, "broken", False)
        self.patch_storage(BreakingStorage)

    def patch_storage(self, storage: Callable[[str, bool], Storage]) -> None:
        """What the service takes for ``Storage``."""
        from metamorphosis.zookeeper import reserve

        self.patch(reserve, "Storage", storage)

    def observe(self, event: Any) -> None:
        """Keep what our own code logs."""
        if str(event.get("log_namespace", "")).startswith("metamorphosis"):
            self.logged.append((event["log_level"], event["log_format"].format_map(event)))

    def texts(self, level: LogLevel) -> list[str]:
        """What was logged on a level."""
        return [text for found, text in self.logged if found is level]

    def make(self, accept_loss: bool = False) -> ZooKeeperService:
        """A service that has not started."""
        return ZooKeeperService(
            self.reactor,
            ZooKeeperSettings(self.directory, 2181, accept_loss=accept_loss),
            make_threads=lambda reactor, count, name: self.threads,
            make_port=Port,
            monotonic=self.reactor.seconds,
        )

    def start(self, accept_loss: bool = False) -> ZooKeeperService:
        """A service that runs."""
        service = self.make(accept_loss)
        service.startService()
        self.addCleanup(self.stop, service)
        return service

    def stop(self, service: ZooKeeperService) -> None:
        """Stop, with connections that end when they are told to."""
        if service.running:
            stopped = service.stopService()
            for wire in self.wires:
                wire.lose()
            self.reactor.pump([0.02] * 300)
            self.successResultOf(stopped)

    def wire(self) -> Wire:
        """A connection to the open port."""
        self.factory, self.clock = self.reactor.open[0].factory, self.reactor
        wire = Wire(self)  # type: ignore[arg-type]  # has what it needs
        self.wires.append(wire)
        return wire

    def turn(self) -> None:
        """The end of a turn of the reactor."""
        self.reactor.advance(0)

    def client(self) -> Wire:
        """A connection with a session."""
        return self.wire().shake_hands()

    # Start

    def test_start(self) -> None:
        """The directory is made and locked, the port opened, and one line logged."""
        self.start()
        self.assertEqual([port.port for port in self.reactor.open], [2181])
        self.assertEqual(
            self.texts(LogLevel.info),
            [
                "ZooKeeper serves at 127.0.0.1:2181: 3 nodes, 0 sessions in "
                + os.path.join(self.directory, FILE_NAME)
            ],
        )
        error = self.assertRaises(StartRefused, self.make().startService)
        self.assertIn(f"in use by another ZooKeeper, process {os.getpid()}", str(error))

    def refused(self) -> str:
        """The one line with which a start is refused; no file or lock is left."""
        error = self.assertRaises(StartRefused, self.make().startService)
        self.assertEqual(self.texts(LogLevel.critical), [f"Cannot start: {error}"])
        self.assertEqual(self.reactor.open, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return str(error)

    def test_port_in_use(self) -> None:
        """A taken port is named, and the option to change; the directory is free again."""
        self.reactor.taken = True
        self.assertEqual(
            self.refused(),
            "ZooKeeper cannot listen on 127.0.0.1:2181 (--port): Address already in use",
        )
        lock = DirectoryLock(self.directory)
        lock.acquire()
        lock.release()

    def test_damaged_database(self) -> None:
        """The file is named."""
        os.makedirs(self.directory)
        path = os.path.join(self.directory, FILE_NAME)
        with open(path, "wb") as file:
            file.write(b"nonsense" * 1000)
        self.assertIn(path, self.refused())

    def lose(self) -> str:
        """The database of a service that ran and stopped is gone; its path."""
        service = self.start()
        wire = self.client()
        wire.deliver(wire.create("/a"))
        self.turn()
        self.stop(service)
        self.threads = SynchronousThreads()
        self.logged.clear()
        path = os.path.join(self.directory, FILE_NAME)
        os.remove(path)
        return path

    def test_loss(self) -> None:
        """A start with less than was acknowledged is refused in one line that says how to
        continue."""
        path = self.lose()
        text = self.refused()
        for each in (path, "it is gone", "--accept-loss"):
            self.assertIn(each, text)
        self.assertFalse(os.path.exists(path))

    def test_accepted_loss(self) -> None:
        """It is said once more; the next start needs no option."""
        path = self.lose()
        service = self.start(accept_loss=True)
        (text,) = self.texts(LogLevel.warn)
        self.assertIn(f"less than was acknowledged (--accept-loss): {path}: it is gone", text)
        self.stop(service)
        self.threads = SynchronousThreads()
        self.start()
        self.assertEqual(self.texts(LogLevel.warn), [text])

    def test_loss_accepted_for_nothing(self) -> None:
        """An option that was left in the command line is said."""
        self.start(accept_loss=True)
        (text,) = self.texts(LogLevel.warn)
        self.assertIn("nothing is missing", text)

    def test_directory_cannot_be_made(self) -> None:
        """So is the directory."""
        self.directory = "/proc/no/such"
        self.assertIn("/proc/no", self.refused())

    def test_restart(self) -> None:
        """Nodes and sessions are there again; every session has its whole timeout before it."""
        service = self.start()
        wire = self.client()
        session = wire.protocol.session
        assert session is not None
        wire.deliver(wire.create("/a", b"kept") + wire.create("/e", b"", 1))
        self.turn()
        self.stop(service)
        self.threads = SynchronousThreads()
        self.start()
        tree = self.reactor.open[0].factory.server.tree
        self.assertEqual((tree.nodes["/a"].data, tree.nodes["/e"].owner), (b"kept", session.id))
        self.reactor.pump([0.25] * 15)
        self.assertIn("/e", tree.nodes)
        again = self.wire()
        again.deliver(frame(handshake(session_id=session.id, password=session.password)))
        self.turn()
        self.assertEqual(len(again.packets()), 1)

    def test_expiry(self) -> None:
        """A silent session of 4 s goes after 4 to 5, with its ephemerals."""
        self.start()
        wire = self.client()
        wire.deliver(wire.create("/e", b"", 1))
        self.turn()
        tree = self.reactor.open[0].factory.server.tree
        self.reactor.pump([0.25] * 16)
        self.assertIn("/e", tree.nodes)
        self.reactor.pump([0.25] * 4)
        self.assertNotIn("/e", tree.nodes)
        self.assertTrue(wire.transport.disconnecting)

    def test_stopped_process(self) -> None:
        """Time in which the process was stopped does not count, because no client could be heard.
        The rest of each timeout is kept."""
        self.start()
        wire = self.client()
        wire.deliver(wire.create("/e", b"", 1))
        self.turn()
        tree = self.reactor.open[0].factory.server.tree
        self.reactor.pump([0.25] * 8)
        self.reactor.advance(60)
        self.assertIn("/e", tree.nodes)
        self.assertIn("stood still for 60.0 s", self.texts(LogLevel.info)[-1])
        self.reactor.pump([0.25] * 7)
        self.assertIn("/e", tree.nodes)
        self.reactor.pump([0.25] * 4)
        self.assertNotIn("/e", tree.nodes)

    def test_conf(self) -> None:
        """The word gives the settings of this service."""
        self.start()
        wire = self.wire()
        wire.deliver(b"conf")
        lines = wire.transport.value().decode().splitlines()
        expected = ["clientPort=2181", f"dataDir={self.directory}", f"dataLogDir={self.directory}"]
        self.assertEqual(
            [*expected, "tickTime=2000", "maxClientCnxns=1000", "minSessionTimeout=4000"], lines[:6]
        )

    def test_short_stop(self) -> None:
        """A busy second is charged, more is not."""
        self.start()
        self.client()
        self.reactor.pump([0.25] * 4)
        self.reactor.advance(1.0)
        self.assertNotIn("stood still", "".join(self.texts(LogLevel.info)))
        self.reactor.advance(1.25)
        self.assertIn("stood still for 1.2 s", self.texts(LogLevel.info)[-1])

    def test_heard_after_a_stop(self) -> None:
        """A client heard before the first check after it has its timeout from then, not more."""
        self.start()
        wire = self.client()
        wire.deliver(wire.create("/e", b"", 1))
        self.turn()
        tree = self.reactor.open[0].factory.server.tree
        self.reactor.rightNow += 60
        wire.deliver(wire.get("/e"))
        self.turn()
        self.reactor.pump([0.25] * 18)
        self.assertNotIn("/e", tree.nodes)

    def test_hanging_disk(self) -> None:
        """During a long commit no session expires: connections with much that waits for it are not
        read. Afterwards time counts again."""
        self.start()
        wire, other = self.client(), self.client()
        wire.deliver(wire.create("/e", b"", 1))
        self.turn()
        tree = self.reactor.open[0].factory.server.tree
        self.threads.hold()
        other.deliver(other.create("/f"))
        self.reactor.pump([0.25] * 100)
        self.assertIn("/e", tree.nodes)
        self.threads.release()
        self.reactor.pump([0.25] * 10)
        self.assertIn("/e", tree.nodes)
        self.reactor.pump([0.25] * 10)
        self.assertNotIn("/e", tree.nodes)

    def test_slow_disk(self) -> None:
        """Commits that take half a second each do not delay the expiry of sessions."""
        self.start()
        wire, other = self.client(), self.client()
        wire.deliver(wire.create("/e", b"", 1))
        self.turn()
        tree = self.reactor.open[0].factory.server.tree
        for number in range(16):
            self.threads.hold()
            other.deliver(other.create(f"/{number}"))
            self.reactor.pump([0.25] * 2)
            self.threads.release()
        self.assertNotIn("/e", tree.nodes)
        self.assertNotIn("stood still", self.texts(LogLevel.info)[-1])

    def test_fault_of_ours(self) -> None:
        """Failing checks are logged once, and repeated; a failure after a success is logged
        again."""
        self.start()
        self.client()
        server = self.reactor.open[0].factory.server
        looks: list[bool] = []

        def expire() -> None:
            looks.append(len(looks) != 3)
            if looks[-1]:
                raise KeyError("a fault of ours")

        self.patch(server, "expire", expire)
        self.reactor.pump([0.25] * 3)
        self.assertEqual(len(looks), 3)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.reactor.pump([0.25] * 3)
        self.assertEqual(looks, [True, True, True, False, True, True])
        self.assertEqual(self.texts(LogLevel.critical), ["Sessions could not be ended"] * 2)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_lock_of_another_process(self) -> None:
        """No client is disconnected while it lasts; then waiting requests are answered."""
        self.start()
        wire = self.client()
        other = sqlite3.connect(os.path.join(self.directory, FILE_NAME), isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.threads.hold()
        wire.deliver(wire.create("/a"))
        self.turn()
        self.reactor.pump([0.25] * 20)
        self.assertEqual((wire.xids(), self.threads.held), ([], 1))
        other.execute("COMMIT")
        self.threads.release()
        self.assertEqual(wire.xids(), [1])
        self.assertFalse(wire.transport.disconnected)
        self.assertEqual(self.texts(LogLevel.error), [])

    def test_tidy(self) -> None:
        """A second after a change what was put off is done, between batches, and once."""
        tidied: list[Storage] = []
        self.patch(Storage, "tidy", lambda storage: tidied.append(storage))
        self.start()
        wire = self.client()
        wire.deliver(wire.create("/a"))
        self.turn()
        self.reactor.pump([0.25] * 3)
        self.assertEqual(tidied, [])
        self.reactor.pump([0.25] * 2)
        self.assertEqual(len(tidied), 1)

    # Stop

    def test_stop(self) -> None:
        """Replies that wait for the disk leave before their connection is closed; then the file
        is closed and the directory free."""
        service = self.start()
        wire = self.client()
        self.threads.hold()
        wire.deliver(wire.create("/a"))
        self.turn()
        stopped = service.stopService()
        self.assertEqual(self.reactor.open, [])
        self.assertFalse(wire.transport.disconnecting)
        self.threads.release()
        self.assertEqual(wire.xids(), [1])
        self.assertTrue(wire.transport.disconnecting)
        wire.lose()
        self.assertNoResult(stopped)
        self.reactor.advance(0.05)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertNotIn(f"{FILE_NAME}-wal", os.listdir(self.directory))
        lock = DirectoryLock(self.directory)
        lock.acquire()
        lock.release()

    def test_stop_with_a_client_that_does_not_read(self) -> None:
        """It is cut off after a while."""
        service = self.start()
        wire = self.client()
        stopped = service.stopService()
        self.reactor.pump([0.02] * 240)
        self.assertFalse(wire.transport.disconnected)
        self.reactor.pump([0.02] * 20)
        self.assertTrue(wire.transport.disconnected)
        wire.lose()
        self.successResultOf(stopped)

    def test_stop_with_a_disk_that_hangs(self) -> None:
        """The stop waits for a while, logs that and ends without a kill or a second signal. The
        file is not closed, because the worker has it."""

        class HangingThreads(SynchronousThreads):
            """A worker that does not come back."""

            def stop(self) -> Deferred[None]:
                """See ``IWorkerThreads``."""
                return Deferred()

        self.threads = HangingThreads()
        service = self.start()
        wire = self.client()
        self.threads.hold()
        wire.deliver(wire.create("/a"))
        self.turn()
        stopped = service.stopService()
        wire.lose()
        self.reactor.pump([0.1] * 60)
        self.assertNoResult(stopped)
        self.reactor.pump([0.1] * 60)
        self.successResultOf(stopped)
        (text,) = self.texts(LogLevel.error)
        self.assertIn("has not answered for 10 s", text)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        storage = service._storage
        assert storage is not None
        storage.close()
        service._lock.release()

    # A disk that fails

    def break_disk(self) -> Wire:
        """A client whose create meets a full disk."""
        wire = self.client()
        wire.deliver(wire.create("/kept"))
        self.turn()
        self.assertEqual(wire.xids(), [1])
        self.patch(BreakingStorage, "broken", True)
        wire.deliver(wire.create("/lost"))
        self.turn()
        return wire

    def test_full_disk(self) -> None:
        """The change is not answered, every client is cut off, the port is closed, and the log
        says it once."""
        self.start()
        other = self.client()
        wire = self.break_disk()
        self.assertEqual(wire.xids(), [])
        self.assertTrue(wire.transport.disconnected)
        self.assertTrue(other.transport.disconnected)
        self.assertEqual(self.reactor.open, [])
        self.reactor.pump([RETRY_SECONDS] * 10)
        (text,) = self.texts(LogLevel.error)
        self.assertIn("database or disk is full", text)
        self.assertIn(self.directory, text)

    def test_disk_recovers(self) -> None:
        """The service continues with the contents of the disk, above every given-out zxid."""
        self.start()
        wire = self.break_disk()
        session = wire.protocol.session
        zxid = wire.protocol._server.tree.zxid
        wire.lose()
        self.reactor.pump([RETRY_SECONDS] * 3)
        self.patch(BreakingStorage, "broken", False)
        self.reactor.pump([RETRY_SECONDS] * 2)
        tree = self.reactor.open[0].factory.server.tree
        self.assertIn("/kept", tree.nodes)
        self.assertNotIn("/lost", tree.nodes)
        self.assertEqual(tree.zxid, zxid)
        assert session is not None
        again = self.wire()
        again.deliver(frame(handshake(session_id=session.id, password=session.password)))
        again.deliver(again.create("/lost"))
        self.turn()
        self.assertEqual(len(again.packets()), 2)
        self.assertIn("The disk works again: ZooKeeper serves", self.texts(LogLevel.info))
        self.stop_and_look(["kept", "lost", "zookeeper"])

    def stop_and_look(self, names: list[str]) -> None:
        """What the disk holds in the end."""
        self.doCleanups()
        storage = Storage(self.directory)
        self.addCleanup(storage.close)
        self.assertEqual(sorted(storage.load(2000)[0].nodes["/"].children), names)

    def test_port_taken_meanwhile(self) -> None:
        """While another program has the port, it is tried again."""
        self.start()
        self.break_disk()
        self.patch(BreakingStorage, "broken", False)
        self.reactor.taken = True
        self.reactor.pump([RETRY_SECONDS] * 2)
        self.assertEqual(self.reactor.open, [])
        self.reactor.taken = False
        self.reactor.pump([RETRY_SECONDS] * 2)
        self.assertEqual(len(self.reactor.open), 1)

    def test_stop_while_the_disk_fails(self) -> None:
        """It stops nevertheless, and does not try again."""
        service = self.start()
        self.break_disk().lose()
        self.stop(service)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.stop(service)  # harmless

    def test_stop_during_a_try(self) -> None:
        """A try that succeeds when the service has been stopped opens no port."""
        service = self.start()
        self.break_disk().lose()
        self.patch(BreakingStorage, "broken", False)
        self.threads.hold()
        self.reactor.advance(RETRY_SECONDS)
        self.assertEqual(self.threads.held, 1)
        self.stop(service)
        self.assertEqual(self.reactor.open, [])

    def test_last_commit_fails(self) -> None:
        """A failure during the stop is logged, and the stop continues."""
        service = self.start()
        wire = self.client()
        self.threads.hold()
        wire.deliver(wire.create("/a"))
        self.turn()
        stopped = service.stopService()
        self.patch(BreakingStorage, "broken", True)
        self.threads.release()
        self.reactor.pump([0.02] * 260)
        wire.lose()
        self.successResultOf(stopped)
        self.assertEqual(wire.xids(), [])
        self.assertEqual(len(self.texts(LogLevel.error)), 1)
