"""
A real ZooKeeper for tests: Debian's, one process, on a free loopback port, all its files in a
directory of the test.

A test says::

    class MyTests(TestCase):
        skip = zookeeper.missing()          # None, or the reason for the skip

        def setUp(self):
            self.server = zookeeper.ZooKeeperServer(self.mktemp())
            self.server.start()             # blocks until it serves, 0.7 s
            self.addCleanup(self.server.stop)

Tests that neither stop the server nor care for other nodes use ``shared()`` with a chroot or root
of their own. Every method blocks for a bounded time; nothing here needs a reactor.
"""

from __future__ import annotations

import atexit
import contextlib
import glob
import itertools
import logging
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from typing import NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

ZOOKEEPER_JAR = "/usr/share/java/zookeeper.jar"
SILENT_LOG_JAR = "/usr/share/java/slf4j-nop.jar"
START_SECONDS = 30.0
PROBE_SECONDS = 0.25  # a connection made too early hangs; give up on it soon

_given_ports: set[int] = set()

CONFIGURATION = """\
tickTime={tick_time}
dataDir={directory}/data
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=*
forceSync=no
"""


def missing() -> str | None:
    """The reason why no ZooKeeper can be started here, for a test's ``skip``, or ``None``."""
    if shutil.which("java") is None:
        return "no java: Debian packages default-jre-headless and zookeeper"
    for jar in (ZOOKEEPER_JAR, SILENT_LOG_JAR):
        if not os.path.exists(jar):
            return f"no {jar}: Debian package zookeeper"
    return None


def free_port() -> int:
    """
    A loopback port that is free, and is given only once: a server may be down for a while and wants
    its port back. ``TEST_PORTS`` is the range of this process, as ``tests.run`` starts several; a
    long target beside those, for instance ``make kills``, has the range below theirs.

    Below the kernel's ephemeral range (32768 up): a client that retries against a closed port of
    that range can be connected to itself, and keeps the restarted server from binding.
    """
    first, last = os.environ.get("TEST_PORTS", "12000-19999").split("-")
    while True:
        port = random.randint(int(first), int(last))
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given_ports.add(port)
        return port


class Node(NamedTuple):
    """What a test compares of a node; ``owner`` is the session of an ephemeral node, else 0."""

    data: bytes | None
    owner: int


class ZooKeeperServer:
    """
    One server process. ``start`` again after ``stop`` or ``kill`` finds the same port and data.

    :param directory: made if missing; holds configuration, data and log.
    :param tick_time: ms; the server clamps session timeouts into 2..20 ticks.
    """

    def __init__(self, directory: str, tick_time: int = 500, port: int | None = None) -> None:
        self.directory = os.path.abspath(directory)
        self.tick_time = tick_time
        self.port = free_port() if port is None else port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def connect_string(self) -> str:
        """What ``zk.zkConnect`` takes."""
        return f"127.0.0.1:{self.port}"

    def start(self, wait: bool = True) -> None:
        """Start the process; return when it serves, or at once without ``wait``."""
        os.makedirs(self.directory, exist_ok=True)
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment(),
                start_new_session=True,  # a Ctrl-C for trial is not one for the server
            )
        atexit.register(self.kill)
        if wait:
            self.wait_until_serving()

    def command(self) -> list[str]:
        """The command line of the process; its configuration is written."""
        path = os.path.join(self.directory, "zoo.cfg")
        with open(path, "w", encoding="ascii") as file:
            file.write(
                CONFIGURATION.format(
                    tick_time=self.tick_time, directory=self.directory, port=self.port
                )
            )
        java = ["java", "-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return [*java, "-cp", f"{ZOOKEEPER_JAR}:{SILENT_LOG_JAR}", main, path]

    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        return dict(os.environ)

    def password(self, session_id: int) -> bytes:
        """The password of a session."""
        return session_password(session_id)

    def wait_until_serving(self) -> None:
        """Block until the server answers ``srvr`` with a mode; ``ruok`` says ``imok`` too early."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"ZooKeeper ended at start, see {self.directory}/log")
            if b"Mode:" in self.four_letter_word(b"srvr"):
                return
            time.sleep(0.02)
        raise RuntimeError(f"ZooKeeper does not serve after {START_SECONDS} s")

    def stop(self) -> None:
        """End the server in order (SIGTERM); nothing happens when none runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server with SIGKILL; nothing happens when none runs."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        atexit.unregister(self.kill)
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers; returns when every thread stands."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + START_SECONDS
        while set(_thread_states(self.process.pid)) != {"T"}:
            if time.monotonic() > deadline:
                raise RuntimeError("ZooKeeper does not stand still")
            time.sleep(0.01)

    def resume(self) -> None:
        """SIGCONT after ``pause``."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Forget all nodes and sessions; only while no process runs."""
        assert self.process is None, "stop the server first"
        shutil.rmtree(os.path.join(self.directory, "data"), ignore_errors=True)

    def four_letter_word(self, word: bytes) -> bytes:
        """The answer to ``srvr``, ``mntr``, ``dump`` and so on, empty when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), PROBE_SECONDS) as connection:
                connection.settimeout(PROBE_SECONDS)
                connection.sendall(word)
                return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return b""

    def client(self) -> KazooClient:
        """A connected blocking client for the test's own use; the caller stops and closes it."""
        silent = logging.Logger("test", logging.CRITICAL)
        client = KazooClient(hosts=self.connect_string, timeout=10.0, logger=silent)
        client.start(10)
        return client

    def tree(self, root: str = "/") -> dict[str, Node]:
        """Every node from ``root`` down by its path, without ZooKeeper's own ``/zookeeper``."""
        client = self.client()
        try:
            return dict(_walk(client, root))
        finally:
            client.stop()
            client.close()

    def expire(self, session_id: int) -> None:
        """
        End a session at once, whoever owns it: its ephemeral nodes vanish and its client learns of
        the expiry.

        Another connection takes the session over and closes it, 40 ms. ``session_id`` is
        ``Node.owner``.
        """
        password = self.password(session_id)
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connect = (
                struct.pack(">iqiqi", 0, 0, 4000, session_id, len(password)) + password + b"\0"
            )
            connection.sendall(struct.pack(">i", len(connect)) + connect)
            answer = connection.recv(100)
            if struct.unpack_from(">i", answer, 8)[0] <= 0:
                raise RuntimeError(f"the server knows no session {session_id:#x}")
            connection.sendall(struct.pack(">iii", 8, 1, -11))
            connection.recv(100)


def _thread_states(pid: int) -> list[str]:
    """The letters of ``ps`` for the threads of a process."""
    states = []
    for path in glob.glob(f"/proc/{pid}/task/*/stat"):
        with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            states.append(file.read().rpartition(")")[2].split()[0])
    return states


def _walk(client: KazooClient, path: str) -> list[tuple[str, Node]]:
    """``path`` and everything below; nodes that vanish meanwhile are left out."""
    try:
        data, stat = client.get(path)
        names = sorted(client.get_children(path))
    except NoNodeError:
        return []
    found = [(path, Node(data, stat.ephemeralOwner))]
    children = (f"{path.rstrip('/')}/{name}" for name in names)
    return found + list(
        itertools.chain.from_iterable(_walk(client, c) for c in children if c != "/zookeeper")
    )


def session_password(session_id: int) -> bytes:
    """
    The password a ZooKeeper server made for a session: 16 bytes of ``java.util.Random`` seeded with
    the id and a constant of the server's source, the same on every server.
    """
    state = ((session_id ^ 0xB3415C00) ^ 0x5DEECE66D) & ((1 << 48) - 1)
    words = []
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        words.append(state >> 16 & 0xFFFFFFFF)
    return struct.pack("<4I", *words)


_shared: list[ZooKeeperServer] = []


def shared() -> ZooKeeperServer:
    """A server for the whole test process, started at the first call and ended with the process."""
    if not _shared:
        directory = tempfile.mkdtemp(prefix="metamorphosis-zookeeper-")
        server = ZooKeeperServer(directory)
        atexit.register(shutil.rmtree, directory, ignore_errors=True)  # runs after the kill
        server.start()
        _shared.append(server)
    return _shared[0]
