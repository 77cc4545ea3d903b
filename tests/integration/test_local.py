"""
The embedded ZooKeeper as real processes, alone and with a broker, with kazoo as the client:
acknowledged changes survive kill -9, sessions resume, and a fault of one connection, or of the
disk, stays limited.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.retry import KazooRetry
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.hostname import own_address
from tests.faults.peer import Peer, get, put
from tests.support import zookeeper
from tests.support.broker import TWISTD, BrokerProcess, environment
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.rawzookeeper import CREATE, EPHEMERAL, RawClient, create

SECONDS = 20.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Block until the condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.02)


class Configured(EmbeddedZooKeeper):
    """A process with more options."""

    options: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """As configured."""
        return [*super().command(), *self.options]

    def output(self) -> str:
        """Its whole log."""
        with open(os.path.join(self.directory, "log"), encoding="utf-8") as log:
            return log.read()


class EmbeddedTestCase(SynchronousTestCase):
    """One process, ticks of half a second: sessions of 1 to 10 s."""

    timeout = 120
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.server = Configured(self.mktemp())
        self.server.options = self.options
        self.addCleanup(self.server.stop)
        self.server.start()

    def client(self, timeout: float = 4.0) -> KazooClient:
        """A client that reconnects at once."""
        retry = KazooRetry(max_tries=-1, delay=0.05, backoff=2, max_delay=0.2, max_jitter=0.1)
        silent = logging.Logger("test", logging.CRITICAL)
        client = KazooClient(
            self.server.connect_string, timeout, connection_retry=retry, logger=silent
        )
        client.start(10)
        self.addCleanup(client.close)
        self.addCleanup(client.stop)
        return client


class ProcessTests(EmbeddedTestCase):
    """``twistd -n metaq-zookeeper``."""

    def test_nodes_and_watches(self) -> None:
        """kazoo creates, reads, watches and deletes; the event comes before the new data."""
        one, two = self.client(), self.client()
        one.create("/a", b"1")
        seen: list[str] = []
        told = threading.Event()

        def watch(event: object) -> None:
            seen.append(f"{event.type} {event.path}")  # type: ignore[attr-defined]
            told.set()

        self.assertEqual(two.get("/a", watch=watch)[0], b"1")
        one.set("/a", b"2")
        self.assertEqual(two.get("/a")[0], b"2")
        self.assertTrue(told.wait(5))
        self.assertEqual(seen, ["CHANGED /a"])
        one.delete("/a")
        self.assertIsNone(two.exists("/a"))
        self.assertEqual(len(seen), 1, "once only")

    def test_kill_under_load(self) -> None:
        """After kill -9 every acknowledged create is there, and the sequence continues."""
        client = self.client()
        client.create("/load")
        acknowledged: list[str] = []
        answers = [
            client.create_async("/load/n", b"%d" % number, sequence=True) for number in range(3000)
        ]
        for answer in answers:
            answer.rawlink(lambda done: acknowledged.append(done.value) if done.successful() else 0)
        wait_for(lambda: len(acknowledged) > 500, "500 creates")
        self.server.kill()
        count = len(acknowledged)
        self.server.start()
        other = self.client()
        children = {f"/load/{name}" for name in other.get_children("/load")}
        self.assertEqual(set(acknowledged[:count]) - children, set())
        created = other.create("/load/n", sequence=True)
        self.assertGreater(created, max(children))

    def test_session_resumes(self) -> None:
        """After kill -9 and a restart in time a client keeps its session and ephemerals; a client
        that does not return loses them after its timeout, not before."""
        stays = self.client()
        stays.create("/stays", b"", ephemeral=True)
        session = stays.client_id
        goes = RawClient(self.server.port, timeout=4000)
        self.addCleanup(goes.close)
        goes.connect()
        goes.call(CREATE, create("/goes", b"", flags=EPHEMERAL))
        self.server.kill()
        self.server.start()
        started = time.monotonic()
        wait_for(lambda: stays.connected, "the reconnect")
        self.assertEqual(stays.client_id, session)
        self.assertIsNotNone(stays.exists("/stays"))
        self.assertIsNotNone(stays.exists("/goes"))
        wait_for(lambda: stays.exists("/goes") is None, "the expiry")
        self.assertGreater(time.monotonic() - started, 3.9)
        self.assertIsNotNone(stays.exists("/stays"))

    def test_stop_and_start(self) -> None:
        """SIGTERM and SIGINT end it in order with status 0; data and sessions stay."""
        client = self.client()
        client.create("/kept", b"data", ephemeral=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            process = self.server.process
            assert process is not None
            process.send_signal(number)
            self.assertEqual(process.wait(10), 0)
            self.server.kill()
            self.assertEqual(self.server.four_letter_word(b"ruok"), b"")
            self.server.start()
            wait_for(lambda: client.connected, "the reconnect")
            self.assertEqual(client.get("/kept")[0], b"data")
        for level in ("#error]", "#critical]", "#warn]", "Traceback"):
            self.assertNotIn(level, self.server.output())

    def test_garbage(self) -> None:
        """Bytes that are not a frame end their own connection, at once."""
        client = self.client()
        client.create("/a")
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\x00\x10\x00\x00", bytes(2000)):
            with socket.create_connection(("127.0.0.1", self.server.port), 5) as connection:
                connection.settimeout(5)
                connection.sendall(garbage)
                try:
                    received = connection.recv(100)
                except ConnectionResetError:
                    received = b""
                self.assertEqual(received, b"", garbage)
        self.assertTrue(client.connected)
        self.assertIsNotNone(client.exists("/a"))
        self.assertNotIn("Traceback", self.server.output())

    def test_full_disk(self) -> None:
        """A limit of the file's size acts as a full disk: the write is not acknowledged, and no
        client is served; with room again every acknowledged change is there, and the service
        continues."""
        client = self.client(10.0)
        process = self.server.process
        assert process is not None
        client.create("/small", b"kept", ephemeral=True)
        unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2 << 20, unlimited[1]))
        kept = []
        with self.assertRaises(KazooException):
            for number in range(20):
                client.create(f"/large{number}", bytes(900_000))
                kept.append(f"large{number}")
        wait_for(lambda: "serves no client" in self.server.output(), "the log line")
        self.assertEqual(self.server.four_letter_word(b"ruok"), b"", "nobody is served")
        time.sleep(2.5)  # a try that fails
        self.assertEqual(self.server.output().count("#error]"), 1, "said once")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
        wait_for(lambda: "The disk works again" in self.server.output(), "the recovery")
        wait_for(lambda: client.connected, "the reconnect")
        self.assertEqual(client.get("/small")[0], b"kept")
        self.assertEqual(sorted(client.get_children("/")), sorted([*kept, "small", "zookeeper"]))
        client.create("/again", bytes(900_000))
        self.server.kill()
        self.server.start()
        wait_for(lambda: client.connected, "the reconnect")
        self.assertIsNotNone(client.exists("/again"))

    def test_port_in_use(self) -> None:
        """One clear line, status 1."""
        other = Configured(self.mktemp(), port=self.server.port)
        other.start(wait=False)
        assert other.process is not None
        self.assertEqual(other.process.wait(SECONDS), 1)
        other.kill()
        where = f"127.0.0.1:{self.server.port} (--port): Address already in use"
        self.assertIn(f"Cannot start: ZooKeeper cannot listen on {where}", other.output())
        self.assertNotIn("Traceback", other.output())

    def test_directory_in_use(self) -> None:
        """The error names the other process."""
        first = self.server.process
        assert first is not None
        other = Configured(self.mktemp())
        os.makedirs(other.directory)
        os.symlink(self.server.data, other.data)
        other.start(wait=False)
        assert other.process is not None
        self.assertEqual(other.process.wait(SECONDS), 1)
        other.kill()
        self.assertIn(f"in use by another ZooKeeper, process {first.pid}", other.output())

    def test_copytree(self) -> None:
        """The documented command copies the tree, with ACLs and null data."""
        other = Configured(self.mktemp())
        self.addCleanup(other.stop)
        other.start()
        client = self.client()
        client.create("/meta/a", b"1", makepath=True)
        client.create("/meta/gone", b"", ephemeral=True)
        target = f"{other.connect_string}/new"
        done = subprocess.run(
            [sys.executable, "-m", "metamorphosis.zookeeper.copytree"]
            + [self.server.connect_string, target],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("Left out: 1 ephemeral nodes", done.stdout)
        self.assertEqual(sorted(other.tree("/new")), ["/new", "/new/meta", "/new/meta/a"])

    def test_copytree_from_nowhere(self) -> None:
        """One line, status 1."""
        nowhere = f"127.0.0.1:{zookeeper.free_port()}"
        done = subprocess.run(
            [sys.executable, "-m", "metamorphosis.zookeeper.copytree"]
            + [nowhere, self.server.connect_string],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 1), done.stderr)
        self.assertIn(f"No ZooKeeper answers at {nowhere}", done.stderr)


class ManyConnectionsTests(EmbeddedTestCase):
    """More clients than allowed."""

    options = ("--max-connections", "5")

    def test_too_many(self) -> None:
        """Further connections are closed; the existing ones continue, and make room when they
        end."""
        client = self.client()
        client.create("/a")
        address = "127.0.0.1", self.server.port
        held = [socket.create_connection(address, 5) for _ in range(10)]
        for connection in held:
            self.addCleanup(connection.close)
            connection.settimeout(5)
        cut = 0
        for connection in held[4:]:
            try:
                cut += connection.recv(10) == b""
            except ConnectionResetError:
                cut += 1
        self.assertEqual(cut, 6)
        self.assertIsNotNone(client.exists("/a"))
        held[0].close()
        wait_for(lambda: self.server.four_letter_word(b"ruok") == b"imok", "room")


class LocalBroker(BrokerProcess):
    """``twistd metaq --local -f server.ini``: a broker with its own ZooKeeper."""

    def __init__(self, directory: str) -> None:
        self.zookeeper = zookeeper.ZooKeeperServer(directory)
        keys = {"zk.zkConnect": f"localhost:{self.zookeeper.port}", "zk.zkEnable": "true"}
        super().__init__(directory, zookeeper_keys=keys)

    def command(self, options: object = ()) -> list[str]:
        """With ``--local``."""
        return [*super().command(), "--local"]

    def registered(self) -> bool:
        """Whether clients find it."""
        try:
            return "/meta/brokers/ids/0/master" in self.zookeeper.tree("/meta")
        except Exception:
            return False


class LocalTests(SynchronousTestCase):
    """Broker and service in one process."""

    timeout = 120

    def setUp(self) -> None:
        self.broker = LocalBroker(self.mktemp())
        self.addCleanup(self.broker.kill)

    def test_kill_and_restart(self) -> None:
        """After kill -9 messages, offsets and registration are there again; after an orderly stop
        the registration is not."""
        broker = self.broker
        broker.start()
        broker.wait_until(broker.registered, "register")
        with Peer(broker.port) as peer:
            self.assertEqual(peer.ask(put("test", 0, b"hello", 1)).status, 200)
        client = broker.zookeeper.client()
        client.create("/meta/consumers/g/offsets/test/0-0", b"1-25", makepath=True)
        client.stop()
        client.close()
        broker.kill()
        broker.start()
        broker.wait_until(broker.registered, "register again")
        tree = broker.zookeeper.tree("/meta")
        self.assertEqual(tree["/meta/consumers/g/offsets/test/0-0"].data, b"1-25")
        with Peer(broker.port) as peer:
            self.assertIn(b"hello", peer.ask(get("test", 0, 0, 1000, 2)).body)
        self.assertEqual(broker.stop(), 0)
        self.assertNotIn("#error]", broker.output())
        self.assertNotIn("Traceback", broker.output())
        alone = Configured(self.mktemp(), port=broker.zookeeper.port)
        self.addCleanup(alone.stop)
        os.makedirs(alone.directory)
        os.symlink(os.path.join(broker.directory, "zookeeper"), alone.data)
        alone.start()
        tree = alone.tree("/meta")
        self.assertIn("/meta/consumers/g/offsets/test/0-0", tree)
        self.assertEqual([path for path, node in tree.items() if node.owner], [])

    def refusal(self) -> str:
        """The only line of a start that ends with status 1."""
        self.assertEqual(self.broker.run_to_end(), 1)
        ours = [
            line
            for line in self.broker.output().splitlines()
            if "UnixAppLogger#info]" not in line and "[-]" not in line
        ]
        self.assertNotIn("Traceback", self.broker.output())
        return ours[-1]

    def test_zookeeper_port_in_use(self) -> None:
        """The error names the key to change."""
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", self.broker.zookeeper.port))
            other.listen()
            line = self.refusal()
        self.assertIn(f"127.0.0.1:{self.broker.zookeeper.port} (zk.zkConnect)", line)

    def test_broker_port_in_use(self) -> None:
        """The ZooKeeper service stops as well."""
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("0.0.0.0", self.broker.port))
            other.listen()
            line = self.refusal()
        self.assertIn(f"cannot listen on 127.0.0.1:{self.broker.port} (serverPort)", line)

    def test_not_loopback(self) -> None:
        """A zk.zkConnect with other machines is refused with the right form."""
        self.broker.zookeeper_keys["zk.zkConnect"] = "zk1:2181,zk2:2181"
        line = self.refusal()
        self.assertIn("zk.zkConnect=zk1:2181,zk2:2181", line)
        self.assertIn("such as localhost:2181", line)

    def test_empty_directory(self) -> None:
        """Without -f everything is created under --data, and used again by the next start."""
        directory = os.path.abspath(self.mktemp())
        port, zookeeper_port = zookeeper.free_port(), zookeeper.free_port()
        twistd = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "metaq", "-l"]
        ports = ["--port", str(port), "--zookeeper-port", str(zookeeper_port)]
        for options in (ports, []):
            process = subprocess.Popen(
                [*twistd, "--data", directory, *options],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            assert process.stdout is not None
            said = ""
            while "Ctrl-C" not in said:
                line = process.stdout.readline()
                self.assertNotEqual(line, "", said)
                said += line
            for text in ("The broker serves.", f"localhost:{port}", f"localhost:{zookeeper_port}"):
                self.assertIn(text, said)
            with Peer(port) as peer:
                self.assertEqual(peer.ask(put("meta-test", 0, b"hello", 1)).status, 200)
            address = own_address()
            if not address.startswith("127."):
                self.assertRaises(OSError, socket.create_connection, (address, port), 5)
            process.terminate()
            rest = process.stdout.read()
            process.stdout.close()
            self.assertEqual(process.wait(SECONDS), 0)
            self.assertNotIn("Traceback", rest)
        self.assertEqual(sorted(os.listdir(directory)), ["messages", "server.ini", "zookeeper"])
