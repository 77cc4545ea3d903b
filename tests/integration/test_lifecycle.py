"""The life of a real ``twistd metaq`` process: starts that fail, signals, reload, restarts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.peer import Peer, get, put
from tests.support import zookeeper
from tests.support.broker import BrokerProcess, Keys, environment

GROUP_COMMIT: dict[str, Keys] = {"test": {"unflushThreshold": 0}}


class FailedStartTests(SynchronousTestCase):
    """Starts that must end with status 1 and one line that says why."""

    def broker(self, **arguments: object) -> BrokerProcess:
        """A broker that is not started yet."""
        broker = BrokerProcess(self.mktemp(), **arguments)  # type: ignore[arg-type]
        self.addCleanup(broker.kill)
        return broker

    def refusal(self, broker: BrokerProcess) -> str:
        """The line of a refused start; it is the only one beside twistd's own two."""
        self.assertEqual(broker.run_to_end(), 1)
        usual = ("UnixAppLogger#info]", " starts broker ")
        lines = broker.output().splitlines()
        ours = [line for line in lines if not any(each in line for each in usual)]
        self.assertEqual(len(ours), 1, broker.output())
        return ours[0]

    def test_no_configuration(self) -> None:
        """Without -f one line names the option."""
        broker = self.broker()
        broker.write_configuration()
        done = subprocess.run(
            broker.command()[:-2], env=environment(), capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout, "")
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn("Please tell me the configuration file path by -f option", done.stderr)

    def test_faulty_configuration(self) -> None:
        """Every fault has its line, without twistd's help text."""
        broker = self.broker(system={"brokerId": 4096, "numPartions": 1})
        self.assertEqual(broker.run_to_end(), 1)
        lines = broker.output().splitlines()
        self.assertIn(f"Parse configuration failed,path={broker.server_ini}: 2 faults", lines)
        self.assertEqual(len(lines), 3, lines)

    def test_port_in_use(self) -> None:
        """The error names a port that is in use."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            broker = self.broker(port=other.getsockname()[1])
            line = self.refusal(broker)
        self.assertIn(f"Cannot start: cannot listen on *:{broker.port}", line)

    def test_locked_data_directory(self) -> None:
        """A second broker on the same data is refused, the first is not disturbed."""
        first = self.broker()
        first.start()
        second = self.broker(system={"dataPath": first.data})
        line = self.refusal(second)
        self.assertIn(f"{first.data} is in use by another broker, process {first.pid}", line)
        self.assertTrue(first.serves())
        self.assertEqual(first.stop(), 0)

    def test_locked_journal(self) -> None:
        """A second broker with other data and the same journal is refused as well."""
        first = self.broker()
        journal = os.path.join(first.directory, "journal")
        os.makedirs(journal)
        first.system = {**first.system, "dataLogPath": journal}
        first.start()
        line = self.refusal(self.broker(system={"dataLogPath": journal}))
        self.assertIn(f"{journal}/transactions is in use by another broker", line)
        self.assertTrue(first.serves())
        self.assertEqual(first.stop(), 0)

    def test_unusable_data_path(self) -> None:
        """The error names a data path that cannot be created."""
        line = self.refusal(self.broker(system={"dataPath": "/proc/no/such"}))
        self.assertIn("/proc/no/such", line)

    def test_invalid_segments(self) -> None:
        """A partition that cannot be opened is found after the start of the reactor; the status is
        1 nevertheless."""
        broker = self.broker()
        directory = os.path.join(broker.data, "test-0")
        os.makedirs(directory)
        with open(os.path.join(directory, "nonsense.meta"), "wb"):
            pass
        self.assertEqual(broker.run_to_end(), 1)
        critical = [line for line in broker.output().splitlines() if "#critical]" in line]
        self.assertEqual(len(critical), 1)
        self.assertIn("nonsense.meta", critical[0])
        self.assertNotIn("Traceback", broker.output())

    def test_failed_start_of_a_daemon(self) -> None:
        """The start of a daemon prints the reason and ends with status 1; no pid file stays."""
        broker = self.broker(system={"dataPath": "/proc/no/such"})
        broker.write_configuration()
        pid_file = os.path.join(broker.directory, "pid")
        command = broker.command()
        command[3:5] = [f"--pidfile={pid_file}", f"--logfile={broker.log}"]
        done = subprocess.run(
            command,
            env=environment(),
            cwd=broker.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn("/proc/no/such", done.stderr)
        self.assertIn("Cannot start", broker.output())
        deadline = time.monotonic() + 20  # the daemon removes it after it has told why
        while os.path.exists(pid_file):
            self.assertLess(time.monotonic(), deadline, "the pid file stays")
            time.sleep(0.05)


class StrangePathBroker(BrokerProcess):
    """Its files are in Latin-1."""

    @staticmethod
    def _write(path: str, text: str) -> None:
        with open(path, "w", encoding="latin-1") as file:
            file.write(text)


class StrangePathTests(SynchronousTestCase):
    """A configuration that is not UTF-8."""

    def test_data_path(self) -> None:
        """The start says that the directory is another one, with section, line and remedy."""
        directory = os.path.abspath(self.mktemp())
        system: Keys = {"dataPath": os.path.join(directory, "donn\xe9es")}
        broker = StrangePathBroker(directory, system=system)
        self.addCleanup(broker.kill)
        broker.start()
        [line] = [each for each in broker.output().splitlines() if "is not UTF-8" in each]
        self.assertIn("#warn]", line)
        self.assertRegex(line, r"line \d+, \[system\] dataPath: the path is not UTF-8")
        self.assertIn("save the file as UTF-8", line)
        self.assertIn("donn\ufffdes", os.listdir(directory))


class PidFileTests(SynchronousTestCase):
    """A pid file that an earlier process of the broker has left."""

    def test_foreground(self) -> None:
        """In the foreground the default pid file is neither read nor written."""
        broker = BrokerProcess(self.mktemp())
        self.addCleanup(broker.kill)
        broker.write_configuration()
        path = os.path.join(broker.directory, "twistd.pid")
        with open(path, "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        broker.twistd_options = ()
        broker.start()
        with open(path, encoding="ascii") as file:
            self.assertEqual(file.read(), str(os.getpid()))

    def test_stale(self) -> None:
        """An empty pid file, and one whose process is younger than the file, do not prevent a
        start."""
        broker = BrokerProcess(self.mktemp())
        self.addCleanup(broker.kill)
        broker.write_configuration()
        path = os.path.join(broker.directory, "own.pid")
        broker.twistd_options = (f"--pidfile={path}",)
        for content, written in (("", None), (str(os.getpid()), (1, 1))):
            with open(path, "w", encoding="ascii") as file:
                file.write(content)
            os.utime(path, written)
            broker.start()
            with open(path, encoding="ascii") as file:
                self.assertNotIn(file.read(), ("", str(os.getpid())))
            broker.signal(signal.SIGTERM)
            self.assertEqual(broker.wait(), 0)


class SignalTests(SynchronousTestCase):
    """Signals to a running broker."""

    def start(self, **arguments: object) -> BrokerProcess:
        """A broker that serves."""
        broker = BrokerProcess(self.mktemp(), **arguments)  # type: ignore[arg-type]
        self.addCleanup(broker.kill)
        broker.start()
        return broker

    def test_endings(self) -> None:
        """SIGTERM and SIGINT both end it with status 0, and it can be started again."""
        broker = self.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            broker.signal(number)
            self.assertEqual(broker.wait(), 0)
            broker.start()
        self.assertNotIn("#error]", broker.output())
        self.assertNotIn("#critical]", broker.output())

    def test_sigterm_answers_what_is_in_flight(self) -> None:
        """SIGTERM in the middle of a pipeline: every put is stored and acknowledged, or refused."""
        broker = self.start(topics=GROUP_COMMIT)
        count = 2000
        with Peer(broker.port) as peer:
            peer.send(b"".join(put("test", 0, b"%08d" % n, n) for n in range(count)))
            first = peer.reply()
            broker.signal(signal.SIGTERM)
            replies = [first, *(peer.reply() for _ in range(count - 1))]
        self.assertEqual(broker.wait(), 0)
        self.assertEqual([reply.opaque for reply in replies], list(range(count)))
        self.assertEqual({reply.status for reply in replies} - {200, 503}, set())
        acknowledged = [reply.opaque for reply in replies if reply.status == 200]
        broker.start()
        with Peer(broker.port) as peer:
            data = peer.ask(get("test", 0, 0, 1 << 20, 1)).body
        self.assertEqual(len(data), 28 * len(acknowledged))
        stored = [int(data[at + 20 : at + 28]) for at in range(0, len(data), 28)]
        self.assertEqual(stored, acknowledged)

    def test_stopped_broker_serves_until_clients_have_left(self) -> None:
        """After SIGTERM the nodes are gone at once, and puts are stored for zkSyncTimeMs more."""
        if reason := zookeeper.missing():
            self.skipTest(reason)
        server = zookeeper.shared()
        keys = {"zk.zkRoot": "/stop", "zk.zkSyncTimeMs": 1500}
        broker = self.start(zookeeper=server, zookeeper_keys=keys)
        broker.wait_for_log("registered in ZooKeeper")
        with Peer(broker.port) as peer:
            broker.signal(signal.SIGTERM)
            broker.wait_for_log("clients have 1500 ms to leave")
            self.assertFalse([n for n in server.tree("/stop").values() if n.owner])
            self.assertEqual(peer.ask(put("test", 0, b"late", 1)).status, 200)
        with Peer(broker.port) as peer:  # also a new connection
            self.assertEqual(peer.ask(put("test", 0, b"later", 2)).status, 200)
        self.assertEqual(broker.wait(), 0)

    def test_second_signal_does_not_wait(self) -> None:
        """A second SIGTERM ends the wait for clients."""
        if reason := zookeeper.missing():
            self.skipTest(reason)
        keys = {"zk.zkRoot": "/hurry", "zk.zkSyncTimeMs": 60000}
        broker = self.start(zookeeper=zookeeper.shared(), zookeeper_keys=keys)
        broker.wait_for_log("registered in ZooKeeper")
        broker.signal(signal.SIGTERM)
        broker.wait_for_log("clients have 60000 ms to leave")
        began = time.monotonic()
        broker.signal(signal.SIGTERM)
        self.assertEqual(broker.wait(), 0)
        self.assertLess(time.monotonic() - began, 20)

    def test_peer_that_reads_nothing(self) -> None:
        """A client that does not read its replies delays the end only by seconds."""
        broker = self.start()
        with Peer(broker.port) as peer:
            body = bytes(1 << 20)
            self.assertEqual(peer.ask(put("test", 0, body, 1)).status, 200)
            deadline = time.monotonic() + 10
            while peer.ask(get("test", 0, 0, 100, 2)).status and time.monotonic() < deadline:
                time.sleep(0.02)
            peer.send(b"".join(get("test", 0, 0, 1 << 20, n) for n in range(50)))
            began = time.monotonic()
            self.assertEqual(broker.stop(), 0)
        self.assertLess(time.monotonic() - began, 20)

    def test_hangup_reloads(self) -> None:
        """SIGHUP applies new topics and closed partitions without closing connections."""
        broker = self.start()
        with Peer(broker.port) as peer:
            self.assertEqual(peer.ask(put("more", 0, b"x", 1)).status, 500)
            broker.topics["more"] = {}
            broker.settings["closed-partitions"] = {"test": 0}
            broker.write_configuration()
            broker.signal(signal.SIGHUP)
            broker.wait_for_log(f"Reloaded {broker.server_ini}: topics added: more; closed")
            self.assertEqual(peer.ask(put("more", 0, b"x", 2)).status, 200)
            self.assertEqual(peer.ask(put("test", 0, b"x", 3)).status, 403)
            broker.topics["more"] = {"numPartitions": "many"}
            broker.write_configuration()
            broker.signal(signal.SIGHUP)
            broker.wait_for_log("Reload failed, everything stays as it was")
            self.assertEqual(peer.ask(put("more", 0, b"x", 4)).status, 200)


class RestartTests(SynchronousTestCase):
    """Restarts while ZooKeeper still holds the nodes of the session before."""

    skip = zookeeper.missing()

    def test_restart_after_a_kill(self) -> None:
        """The old session's nodes do not refuse the restart, and are replaced by the new one's."""
        server = zookeeper.shared()
        keys = {"zk.zkRoot": "/restart", "zk.zkSessionTimeoutMs": 10000}
        broker = BrokerProcess(self.mktemp(), zookeeper=server, zookeeper_keys=keys)
        self.addCleanup(broker.kill)
        broker.start()
        broker.wait_for_log("registered in ZooKeeper")
        with Peer(broker.port) as peer:
            self.assertEqual(peer.ask(put("test", 0, b"before", 1)).status, 200)
        before = server.tree("/restart")
        broker.kill()
        broker.start()
        with Peer(broker.port) as peer:
            self.assertEqual(peer.ask(put("test", 0, b"after", 2)).status, 200)
        broker.wait_until(
            lambda: broker.output().count("registered in ZooKeeper") == 2, "register again"
        )
        after = server.tree("/restart")
        self.assertEqual(set(after), set(before))
        ephemeral = [path for path, node in before.items() if node.owner]
        self.assertTrue(ephemeral)
        for path in ephemeral:
            self.assertEqual(after[path].data, before[path].data)
            self.assertNotEqual(after[path].owner, before[path].owner)
        self.assertEqual(broker.stop(), 0)

    def test_ids_increase_over_a_kill(self) -> None:
        """A message put after a restart has a greater id than any before."""
        broker = BrokerProcess(self.mktemp())
        self.addCleanup(broker.kill)
        ids = []
        for _ in range(3):
            broker.start()
            with Peer(broker.port) as peer:
                ids.append(int(peer.ask(put("test", 0, b"x", 1)).body.split()[0]))
            broker.kill()
        self.assertEqual(ids, sorted(set(ids)))
