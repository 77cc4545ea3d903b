"""The broker as a whole, with a clock of the test, no threads and a ZooKeeper in memory."""

from __future__ import annotations

import os
import shutil
import socket
from typing import Any

from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.connection import ClientConnection
from metamorphosis.config import serverini, settings
from metamorphosis.daemon.directorylock import DirectoryLock
from metamorphosis.daemon.parts import Part
from metamorphosis.daemon.process import StartRefused
from metamorphosis.daemon.service import BrokerService
from metamorphosis.ids import AHEAD
from metamorphosis.replication.role import PLAIN, Role
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.threads import SynchronousThreads
from tests.support.broker import SYSTEM, ZOOKEEPER, Keys, ini
from tests.support.zookeeper import free_port
from tests.unit.transactions.test_replay import JOURNALS, PREPARED

SYNC_SECONDS = 5.0


class Client:
    """A client's end of a connection that never was a socket."""

    def __init__(self, service: BrokerService) -> None:
        self.transport = StringTransport()
        assert service.served is not None
        self.protocol: ClientConnection = service.served.factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def ask(self, request: bytes, reactor: MemoryReactorClock) -> bytes:
        """The reply to a request."""
        self.transport.clear()
        self.protocol.dataReceived(request)
        reactor.advance(0)
        return self.transport.value()


class BrokerServiceCase(SynchronousTestCase):
    """A service on files of the test."""

    def setUp(self) -> None:
        """A service that has not started."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.data = os.path.join(self.directory, "data")
        self.server_ini = os.path.join(self.directory, "server.ini")
        self.own_ini = os.path.join(self.directory, "metamorphosis.ini")
        self.reactor = MemoryReactorClock()
        self.tree = MemoryTree()
        self.registry = MemoryRegistry(self.tree)
        self.statuses: list[int] = []
        self.messages: list[tuple[LogLevel, str]] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        self.writes = 0
        self.port = free_port()
        self.write({"test": {"numPartitions": 2}})

    def observe(self, event: Any) -> None:
        """Keep what our own code logs."""
        if str(event.get("log_namespace", "")).startswith("metamorphosis"):
            self.messages.append((event["log_level"], event["log_format"].format_map(event)))

    def logged(self, level: LogLevel) -> list[str]:
        """The messages of a level."""
        return [text for found, text in self.messages if found is level]

    def write(
        self,
        topics: dict[str, Keys],
        system: Keys | None = None,
        zookeeper: Keys | None = None,
    ) -> None:
        """Write ``server.ini`` with a time of its own."""
        keys = {**SYSTEM, "serverPort": self.port, "dataPath": self.data, **(system or {})}
        zk = {**ZOOKEEPER, "zk.zkEnable": "true", "zk.zkSyncTimeMs": 5000, **(zookeeper or {})}
        sections: dict[str, Keys] = {"system": keys, "zookeeper": zk}
        sections.update({f"topic={name}": keys for name, keys in topics.items()})
        with open(self.server_ini, "w", encoding="utf-8") as file:
            file.write(ini(sections))
        self.writes += 1
        os.utime(self.server_ini, (1_000_000 + self.writes, 1_000_000 + self.writes))

    def make_service(self, role: Role = PLAIN) -> BrokerService:
        """A service of the files as they are."""
        config = serverini.load(self.server_ini)
        return BrokerService(
            self.reactor,
            config,
            settings.load_for(self.server_ini),
            role,
            exit_with=self.statuses.append,
            make_threads=lambda reactor, count, name: SynchronousThreads(),
            make_registry=lambda *args: self.registry,
        )

    def start(self, role: Role = PLAIN) -> BrokerService:
        """A service that runs; it is stopped after the test."""
        service = self.make_service(role)
        service.startService()
        self.run_reactor()
        self.addCleanup(self.stop_now, service)
        return service

    def run_reactor(self) -> None:
        """What is called when the reactor runs."""
        for function, args, kwargs in self.reactor.whenRunningHooks:
            function(*args, **kwargs)

    def stop_now(self, service: BrokerService) -> None:
        """Stop without waiting for clients."""
        stopped = service.stopService()
        service.hurry()
        self.reactor.pump([0.05] * 200)
        self.successResultOf(stopped)

    def nodes(self) -> set[str]:
        """Paths of the ephemeral nodes, those of registrations."""
        return {path for path, node in self.tree.nodes.items() if node.owner}


class BrokerServiceTests(BrokerServiceCase):
    """Start, stop and reload."""

    # Start

    def test_start(self) -> None:
        """A started broker logs one line, serves, and is registered."""
        service = self.start()
        lines = [text for text in self.logged(LogLevel.info) if text.startswith("Broker 0 serves")]
        self.assertEqual(len(lines), 1)
        for word in (f"meta://localhost:{self.port}", self.data, "topics test", "127.0.0.1:1/meta"):
            self.assertIn(word, lines[0])
        reply = Client(service).ask(b"put test 1 5 0 7\r\nhello", self.reactor)
        self.assertTrue(reply.startswith(b"result 200 "), reply)
        self.assertIn("/meta/brokers/ids/0/master", self.nodes())
        self.assertIn("/meta/brokers/topics-pub/test/0-m", self.nodes())
        self.assertEqual(self.statuses, [])

    def test_prepared_transactions_of_a_java_broker(self) -> None:
        """They are there from the first moment, and can be committed."""
        journal = os.path.join(self.directory, "log", "transactions")
        os.makedirs(journal)
        shutil.copy(JOURNALS / "xa-prepared", os.path.join(journal, "redo.1"))
        self.write({"test": {}}, system={"dataLogPath": os.path.dirname(journal)})
        service = self.start()
        client = Client(service)
        reply = client.ask(b"transaction null s RECOVER 1\r\n", self.reactor)
        self.assertTrue(reply.endswith(b"\r\n" + PREPARED.encode()), reply)
        commit = f"transaction {PREPARED} s COMMIT_TWO_PHASE 2\r\n".encode()
        self.assertEqual(b"result 200 0 2\r\n", client.ask(commit, self.reactor))
        self.assertEqual(["redo.2"], [n for n in os.listdir(journal) if n.startswith("redo")])

    def test_log_path_is_missing(self) -> None:
        """``dataLogPath`` is made like ``dataPath``; the disk it should be on is not."""
        path = os.path.join(self.directory, "log")
        self.write({"test": {}}, system={"dataLogPath": path})
        self.stop_now(self.start())
        self.assertTrue(os.path.isdir(os.path.join(path, "transactions")))
        missing = os.path.join(self.directory, "not-mounted")
        self.write({"test": {}}, system={"dataLogPath": os.path.join(missing, "log")})
        service = self.make_service()
        error = self.assertRaises(StartRefused, service.startService)
        self.assertIn(os.path.join(missing, "log"), str(error))
        self.assertFalse(os.path.exists(missing))

    def test_administration(self) -> None:
        """Listens while the broker runs; a socket that cannot be made keeps no broker away."""
        os.makedirs(self.data)
        blocked = os.path.join(self.data, ".metamorphosis.admin")
        service = self.start()
        self.assertEqual([0o600], [server[3] for server in self.reactor.unixServers])
        self.stop_now(service)
        with open(blocked, "w", encoding="ascii") as file:
            file.write("in the way")
        self.start()
        self.assertEqual(1, len(self.reactor.unixServers))
        self.assertIn(blocked, self.logged(LogLevel.error)[-1])
        self.assertIn("serves at", self.logged(LogLevel.info)[-1])

    def test_first_put_of_a_topic_is_answered_when_it_is_registered(self) -> None:
        """A client that then looks finds it; without ZooKeeper the reply comes after a second."""
        self.write({"wild*": {}})
        client = Client(self.start())
        reply = client.ask(b"put wild1 0 5 0 7\r\nhello", self.reactor)
        self.assertTrue(reply.startswith(b"result 200 "), reply)
        self.assertIn("/meta/brokers/topics-pub/wild1/0-m", self.nodes())
        self.registry.suspend()
        self.assertEqual(client.ask(b"put wild2 0 5 0 8\r\nhello", self.reactor), b"")
        self.reactor.advance(1)
        self.reactor.advance(0)
        self.assertTrue(client.transport.value().startswith(b"result 200 "))

    def test_full_disk_at_the_start(self) -> None:
        """While the last id cannot be written the broker serves reads and refuses puts; as soon as
        it can, puts are taken. One line says when it begins, one when it ends."""
        service = self.start()
        Client(service).ask(b"put test 0 5 0 7\r\nhello", self.reactor)
        self.stop_now(service)
        obstacle = os.path.join(self.data, ".metamorphosis.ids.new")
        os.mkdir(obstacle)
        self.reactor, self.messages = MemoryReactorClock(), []
        service = self.start()
        client = Client(service)
        self.assertIn(b"hello", client.ask(b"get test g 0 0 1000 7\r\n", self.reactor))
        for partition in (b"0", b"1", b"-1"):
            reply = client.ask(b"put test %s 5 0 7\r\nworld" % partition, self.reactor)
            self.assertTrue(reply.startswith(b"result 500 "), reply)
            self.assertIn(b"The last message id could not be written.", reply)
        self.reactor.pump([1] * 75)
        (line,) = self.logged(LogLevel.error)
        self.assertIn(os.path.dirname(obstacle), line)
        self.assertIn("puts are refused", line)
        os.rmdir(obstacle)
        self.reactor.advance(1)
        self.assertTrue(any("can be written again" in one for one in self.logged(LogLevel.info)))
        reply = client.ask(b"put test 0 5 0 7\r\nworld", self.reactor)
        self.assertTrue(reply.startswith(b"result 200 "), reply)
        self.assertEqual(len(self.logged(LogLevel.error)), 1)

    def test_stop_on_a_full_disk(self) -> None:
        """A broker that waits for room ends in order."""
        os.makedirs(os.path.join(self.data, ".metamorphosis.ids.new"))
        service = self.start()
        self.stop_now(service)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_start_without_zookeeper(self) -> None:
        """A ZooKeeper that is away delays nothing; the broker registers when it comes."""
        self.registry.reachable = False
        service = self.start()
        reply = Client(service).ask(b"put test 0 5 0 7\r\nhello", self.reactor)
        self.assertTrue(reply.startswith(b"result 200 "), reply)
        self.assertEqual(self.nodes(), set())

    def test_disabled_zookeeper_is_left_alone(self) -> None:
        """With zk.zkEnable=false no connection is made and no node touched, also by first puts."""
        self.write({"test": {}}, zookeeper={"zk.zkEnable": "false"})
        service = self.start()
        Client(service).ask(b"put test 0 5 0 7\r\nhello", self.reactor)
        self.assertEqual(self.registry.calls, [])
        self.assertEqual(self.registry.session_id(), 0)

    def test_first_put_registers_its_topic(self) -> None:
        """A topic that only a wildcard section covers is registered by its first put."""
        self.write({"log-*": {}})
        service = self.start()
        self.assertNotIn("/meta/brokers/topics-pub/log-a/0-m", self.nodes())
        Client(service).ask(b"put log-a 0 5 0 7\r\nhello", self.reactor)
        self.assertIn("/meta/brokers/topics-pub/log-a/0-m", self.nodes())

    def test_loaded_topics_are_registered(self) -> None:
        """A topic that has messages here is registered at the start, also without a section."""
        os.makedirs(os.path.join(self.data, "old-0"))
        self.start()
        self.assertIn("/meta/brokers/topics-pub/old/0-m", self.nodes())

    def refused(self, service: BrokerService) -> str:
        """The one line with which a start is refused before the reactor runs."""
        error = self.assertRaises(StartRefused, service.startService)
        lines = self.logged(LogLevel.critical)
        self.assertEqual(lines, [f"Cannot start: {error}"])
        self.assertNotIn("\n", lines[0])
        return lines[0]

    def test_port_in_use(self) -> None:
        """A taken port refuses the start at once, and nothing is locked."""
        with socket.socket() as other:
            other.bind(("0.0.0.0", 0))
            other.listen()
            self.write({"test": {}}, {"serverPort": other.getsockname()[1]})
            service = self.make_service()
            self.assertIn(f"cannot listen on *:{other.getsockname()[1]}", self.refused(service))
        self.assertFalse(os.path.exists(self.data))

    def test_locked_data_directory(self) -> None:
        """A data directory of another broker refuses the start and is named."""
        os.mkdir(self.data)
        lock = DirectoryLock(self.data)
        lock.acquire()
        self.addCleanup(lock.release)
        line = self.refused(self.make_service())
        self.assertIn(f"{self.data} is in use by another broker, process {os.getpid()}", line)

    def test_every_data_path_is_locked(self) -> None:
        """The data path of a topic is guarded as the common one; a refusal gives all up again."""
        other = os.path.join(self.directory, "other")
        os.mkdir(other)
        self.write({"test": {"dataPath": other}})
        lock = DirectoryLock(other)
        lock.acquire()
        self.assertIn(other, self.refused(self.make_service()))
        lock.release()
        first = DirectoryLock(self.data)
        first.acquire()
        first.release()

    def test_data_path_is_a_file(self) -> None:
        """A data path that cannot be a directory is named."""
        with open(self.data, "w", encoding="ascii"):
            pass
        self.assertIn(self.data, self.refused(self.make_service()))

    def test_damaged_id_file(self) -> None:
        """An id file that holds no number refuses the start: guessing could repeat ids."""
        os.mkdir(self.data)
        with open(os.path.join(self.data, ".metamorphosis.ids"), "w", encoding="ascii") as file:
            file.write("nonsense")
        self.assertIn("nonsense", self.refused(self.make_service()))

    def test_store_that_cannot_be_opened(self) -> None:
        """A fault found while the reactor runs ends the process with 1 and one line."""
        directory = os.path.join(self.data, "test-0")
        os.makedirs(directory)
        with open(os.path.join(directory, "x.meta"), "w", encoding="ascii"):
            pass
        service = self.start()
        lines = self.logged(LogLevel.critical)
        self.assertEqual(len(lines), 1)
        self.assertIn("x.meta", lines[0])
        self.assertEqual(self.statuses, [1])
        self.assertTrue(self.reactor.hasStopped)
        self.successResultOf(service.stopService())
        self.assertEqual(self.reactor.getReaders(), [])
        lock = DirectoryLock(self.data)
        lock.acquire()
        lock.release()

    def test_unexpected_failure(self) -> None:
        """A start that fails by a mistake of ours shows its traceback and ends with status 1."""
        service = self.make_service()
        service.parts.insert(1, Part("the mistake", lambda: 1 / 0))
        service.startService()
        self.run_reactor()
        self.assertEqual(self.statuses, [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.successResultOf(service.stopService())

    # Stop

    def test_stop_breaks_a_load_off(self) -> None:
        """A stop while many partitions are loaded waits for the one that is being opened, and is
        not a failed start."""
        for partition in range(3):
            os.makedirs(os.path.join(self.data, f"test-{partition}"))
        threads = SynchronousThreads()
        config = serverini.load(self.server_ini)
        service = BrokerService(
            self.reactor,
            config,
            settings.load_for(self.server_ini),
            exit_with=self.statuses.append,
            make_threads=lambda reactor, count, name: threads,
            make_registry=lambda *args: self.registry,
        )
        threads.hold()
        service.startService()
        self.run_reactor()
        threads.release_one()  # the search for partitions
        stopped = service.stopService()
        self.assertNoResult(stopped)
        threads.release()
        self.successResultOf(stopped)
        self.assertEqual(self.statuses, [])
        self.assertEqual(self.logged(LogLevel.critical), [])
        opened = [name for name in os.listdir(self.data) if name.startswith("test-")]
        made = [name for name in opened if os.listdir(os.path.join(self.data, name))]
        self.assertEqual(made, ["test-0"])

    def test_stop_waits_for_clients(self) -> None:
        """Unregistered first, the broker serves on for zkSyncTimeMs."""
        service = self.start()
        client = Client(service)
        stopped = service.stopService()
        self.assertEqual(self.nodes(), set())
        self.reactor.advance(SYNC_SECONDS - 0.1)
        reply = client.ask(b"put test 0 5 0 7\r\nhello", self.reactor)
        self.assertTrue(reply.startswith(b"result 200 "), reply)
        self.assertNoResult(stopped)
        self.reactor.pump([0.05] * 200)
        self.successResultOf(stopped)

    def test_late_requests_are_refused(self) -> None:
        """A request between the end of the service and that of the connection gets 503."""
        service = self.start()
        client = Client(service)
        service.stopService()
        self.reactor.advance(SYNC_SECONDS)
        self.reactor.advance(0.1)
        reply = client.ask(b"put test 0 5 0 7\r\nhello", self.reactor)
        self.assertTrue(reply.startswith(b"result 503 "), reply)
        self.reactor.advance(0.2)
        self.assertTrue(client.transport.disconnecting)

    def test_no_wait_if_nobody_knew_us(self) -> None:
        """Without a registration the stop does not wait for clients."""
        self.registry.reachable = False
        service = self.start()
        stopped = service.stopService()
        self.reactor.pump([0.01] * 10)
        self.successResultOf(stopped)

    def test_hurry_ends_the_wait(self) -> None:
        """A second signal ends the wait for clients, and leaves nothing behind."""
        service = self.start()
        stopped = service.stopService()
        self.reactor.advance(0.1)
        self.assertNoResult(stopped)
        service.hurry()
        self.reactor.pump([0.01] * 10)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_hurry_cuts_slow_readers(self) -> None:
        """A third signal does not wait for a peer that takes no replies."""
        service = self.start()
        client = Client(service)
        stopped = service.stopService()
        service.hurry()
        self.reactor.pump([0.01] * 10)
        self.assertNoResult(stopped)
        service.hurry()
        self.assertTrue(client.transport.disconnected)

    def test_stop_leaves_a_clean_place(self) -> None:
        """After a stop no timer, socket or lock is left, the ids file holds the last id."""
        service = self.start()
        reply = Client(service).ask(b"put test 0 5 0 7\r\nhello", self.reactor)
        stored_id = int(reply.split(b"\r\n")[1].split()[0])
        self.stop_now(service)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getReaders(), [])
        lock = DirectoryLock(self.data)
        lock.acquire()
        lock.release()
        with open(os.path.join(self.data, ".metamorphosis.ids"), encoding="ascii") as file:
            left = int(file.read())
        # the clock may have moved on between the put and the end of its chunk
        self.assertTrue(stored_id < left < stored_id + AHEAD // 2)

    # Reload

    def test_reload_of_topics(self) -> None:
        """New partitions are accepted and registered, the checksum before the topics."""
        service = self.start()
        client = Client(service)
        refused = client.ask(b"put test 3 5 0 7\r\nhello", self.reactor)
        self.assertTrue(refused.startswith(b"result 500 "), refused)
        self.write({"test": {"numPartitions": 4}, "more": {}})
        service.reload()
        reply = client.ask(b"put test 3 5 0 7\r\nhello", self.reactor)
        self.assertTrue(reply.startswith(b"result 200 "), reply)
        self.assertEqual(self.tree.nodes["/meta/brokers/topics/test/0-m"].data, b"4")
        self.assertIn("/meta/brokers/topics-pub/more/0-m", self.nodes())
        checksum = self.tree.nodes["/meta/brokers/ids/0/master_config_checksum"].data
        self.assertEqual(checksum, b"%d" % service.config.checksum)
        self.assertIn(
            f"Reloaded {self.server_ini}: topics added: more; topics changed: test",
            self.logged(LogLevel.info),
        )

    def test_reload_reaches_the_stores(self) -> None:
        """A new flush threshold makes messages readable without a restart."""
        with open(self.own_ini, "w", encoding="ascii") as file:
            file.write("[store]\nflush-delay-ms=0\n")
        service = self.start()
        client = Client(service)
        client.ask(b"put test 0 5 0 7\r\nhello", self.reactor)
        unread = client.ask(b"get test g 0 0 1000 8\r\n", self.reactor)
        self.assertTrue(unread.startswith(b"result 404 "), unread)
        self.write({"test": {"numPartitions": 2, "unflushThreshold": 1}})
        service.reload()
        client.ask(b"put test 0 5 0 9\r\nhello", self.reactor)
        client.ask(b"put test 0 5 0 10\r\nhello", self.reactor)
        read = client.ask(b"get test g 0 0 1000 11\r\n", self.reactor)
        self.assertTrue(read.startswith(b"value "), read)

    def test_reload_reaches_retention(self) -> None:
        """A second schedule of deletions has a timer of its own."""
        service = self.start()
        before = len(self.reactor.getDelayedCalls())
        self.write({"test": {"deleteWhen": "0 30 3 * * ?"}})
        service.reload()
        self.assertEqual(len(self.reactor.getDelayedCalls()), before + 1)

    def test_faulty_reload(self) -> None:
        """A faulty file changes nothing, and the log says what is wrong; the next try can work."""
        service = self.start()
        before = service.config
        self.write({"test": {"numPartitions": "many"}})
        service.reload()
        self.assertIs(service.config, before)
        lines = self.logged(LogLevel.error)
        self.assertEqual(len(lines), 1)
        self.assertIn("Reload failed, everything stays as it was", lines[0])
        self.assertIn("numPartitions", lines[0])
        self.write({"test": {"numPartitions": 3}})
        service.reload()
        self.assertEqual(service.config.topic("test").num_partitions, 3)

    def test_reload_closes_partitions(self) -> None:
        """[closed-partitions] of our settings takes effect without a restart."""
        service = self.start()
        client = Client(service)
        with open(self.own_ini, "w", encoding="ascii") as file:
            file.write("[closed-partitions]\ntest=1\n")
        service.reload()
        closed = client.ask(b"put test 1 5 0 7\r\nhello", self.reactor)
        self.assertTrue(closed.startswith(b"result 403 "), closed)
        os.unlink(self.own_ini)
        service.reload()
        opened = client.ask(b"put test 1 5 0 7\r\nhello", self.reactor)
        self.assertTrue(opened.startswith(b"result 200 "), opened)

    def test_partitions_that_nobody_is_offered(self) -> None:
        """Messages beyond ``numPartitions`` are named at a reload and at a start."""
        self.write({"test": {"numPartitions": 8}, "full": {"numPartitions": 2}})
        service = self.start()
        client = Client(service)
        for number in (1, 4, 5, 7):
            client.ask(b"put test %d 5 0 7\r\nhello" % number, self.reactor)
        client.ask(b"put full 1 5 0 7\r\nhello", self.reactor)
        self.reactor.pump([0.05] * 20)
        self.assertEqual([], self.logged(LogLevel.warn))
        self.write({"test": {"numPartitions": 4}, "full": {"numPartitions": 2}})
        service.reload()
        expected = (
            "[topic=test] numPartitions is 4, so that nobody is offered the messages in partitions"
            " 4-5, 7, 75 bytes; set it to 8 until they are read"
        )
        self.assertEqual([expected], self.logged(LogLevel.warn))
        self.stop_now(service)
        self.messages.clear()
        self.start()
        self.assertEqual([expected], self.logged(LogLevel.warn))

    def test_filters_that_cannot_be_used(self) -> None:
        """The start warns, not only the first get; so does a reload."""
        self.write({"test": {"group.g": "no_such_module:Filter"}})
        service = self.start()
        (warning,) = self.logged(LogLevel.warn)
        self.assertIn("[topic=test] group.g: filter no_such_module:Filter cannot be used", warning)
        self.assertIn("ModuleNotFoundError: No module named 'no_such_module'", warning)
        self.write({"test": {"group.g": "os:no_such_class"}})
        service.reload()
        self.assertIn("os:no_such_class cannot be used", self.logged(LogLevel.warn)[-1])

    def test_numbers_nobody_means(self) -> None:
        """Unusual numbers are used as the original does, with a warning."""
        self.write({"test": {"numPartitions": -2}})
        self.start()
        self.assertIn("numPartitions: with -2 no message", self.logged(LogLevel.warn)[0])

    def test_reload_names_what_needs_a_restart(self) -> None:
        """A setting that a running broker cannot take is named in a warning."""
        service = self.start()
        with open(self.own_ini, "w", encoding="ascii") as file:
            file.write("[network]\nidle-seconds=7\n")
        service.reload()
        self.assertIn("idle-seconds", self.logged(LogLevel.warn)[-1])

    def test_reload_with_a_locked_data_path(self) -> None:
        """A new data path that another broker uses fails the reload as a whole."""
        service = self.start()
        other = os.path.join(self.directory, "other")
        os.mkdir(other)
        lock = DirectoryLock(other)
        lock.acquire()
        self.addCleanup(lock.release)
        self.write({"test": {"numPartitions": 4}, "more": {"dataPath": other}})
        service.reload()
        self.assertEqual(service.config.topic("test").num_partitions, 2)
        self.assertIn(other, self.logged(LogLevel.error)[0])

    def test_reload_while_stopping(self) -> None:
        """A reload during the stop does nothing but say so."""
        service = self.start()
        service.stopService()
        self.write({"test": {"numPartitions": 4}})
        service.reload()
        self.assertEqual(service.config.topic("test").num_partitions, 2)
        self.assertIn("Not reloaded", self.logged(LogLevel.warn)[-1])
