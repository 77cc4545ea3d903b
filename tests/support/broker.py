"""
Our broker as a real process, ``twistd -n metaq``, on a free loopback port, all its files in a
directory of the test.

A test says::

    broker = BrokerProcess(self.mktemp(), topics={"test": {"numPartitions": 2}})
    self.addCleanup(broker.kill)
    broker.start()                      # blocks until it serves, 0.4 s

Without a ZooKeeper server the configuration says ``zk.zkEnable=false``. Every method blocks for a
bounded time; nothing here needs a reactor.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from tests.support.zookeeper import ZooKeeperServer, free_port

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
START_SECONDS = 30.0
STOP_SECONDS = 30.0

Keys = Mapping[str, object]

SYSTEM: Keys = {
    "brokerId": 0,
    "hostName": "localhost",
    "numPartitions": 1,
    "unflushThreshold": 1000,
    "unflushInterval": 10000,
    "maxSegmentSize": 1024 * 1024 * 1024,
    "maxTransferSize": 1024 * 1024,
}

ZOOKEEPER: Keys = {
    "zk.zkConnect": "127.0.0.1:1",
    "zk.zkEnable": "false",
    "zk.zkSessionTimeoutMs": 6000,
    "zk.zkSyncTimeMs": 100,
}


def ini(sections: Mapping[str, Keys]) -> str:
    """The text of a configuration file."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
        for name, keys in sections.items()
    )


class BrokerProcess:
    """
    One broker process. ``start`` again after ``stop`` or ``kill`` finds the same port and data.

    :param directory: made if missing; holds ``server.ini``, ``metamorphosis.ini``, data and log.
    :param topics: keys of the topic sections by topic.
    :param system: keys of ``[system]`` besides or instead of ``SYSTEM``.
    :param zookeeper: the server to register with.
    :param zookeeper_keys: keys of ``[zookeeper]`` besides or instead of ``ZOOKEEPER``.
    :param settings: sections of ``metamorphosis.ini``.
    :param port: another process's, for a conflict.
    """

    def __init__(
        self,
        directory: str,
        topics: Mapping[str, Keys] | None = None,
        system: Keys | None = None,
        zookeeper: ZooKeeperServer | None = None,
        zookeeper_keys: Keys | None = None,
        settings: Mapping[str, Keys] | None = None,
        port: int | None = None,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.data = os.path.join(self.directory, "data")
        self.server_ini = os.path.join(self.directory, "server.ini")
        self.log = os.path.join(self.directory, "log")
        self.port = free_port() if port is None else port
        self.topics: dict[str, Keys] = dict({"test": {}} if topics is None else topics)
        self.system = {**SYSTEM, "serverPort": self.port, "dataPath": self.data, **(system or {})}
        self.zookeeper_keys = {**ZOOKEEPER, **(zookeeper_keys or {})}
        if zookeeper is not None:
            connect = {"zk.zkConnect": zookeeper.connect_string, "zk.zkEnable": "true"}
            self.zookeeper_keys = {**self.zookeeper_keys, **connect, **(zookeeper_keys or {})}
        self.settings = dict(settings or {})
        self.twistd_options: tuple[str, ...] = ("--pidfile=",)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None, "not started"
        return self.process.pid

    def write_configuration(self) -> None:
        """Write both files as the attributes say now."""
        os.makedirs(self.directory, exist_ok=True)
        sections: dict[str, Keys] = {"system": self.system, "zookeeper": self.zookeeper_keys}
        sections.update((f"topic={name}", keys) for name, keys in self.topics.items())
        self._write(self.server_ini, ini(sections))
        if self.settings:
            self._write(os.path.join(self.directory, "metamorphosis.ini"), ini(self.settings))

    @staticmethod
    def _write(path: str, text: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def command(self, options: Sequence[str] = ()) -> list[str]:
        """The command line; ``options`` go to ``twistd``."""
        twistd = [sys.executable, "-c", TWISTD, "-n", *self.twistd_options, *options]
        return [*twistd, "metaq", "-f", self.server_ini]

    def environment(self) -> dict[str, str]:
        """Of the process."""
        return environment()

    def start(self, wait: bool = True) -> None:
        """Write the configuration and start; return when it serves, or at once without ``wait``."""
        self.write_configuration()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment(),
                start_new_session=True,  # a Ctrl-C for trial is not one for the broker
            )
        atexit.register(self.kill)
        if wait:
            self.wait_until(self.serves, "serve")

    def run_to_end(self) -> int:
        """Start, wait for the end and return its status."""
        self.start(wait=False)
        return self.wait()

    def serves(self) -> bool:
        """Whether it answers ``version``."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(2)
                connection.sendall(b"version 1\r\n")
                return connection.recv(100).startswith(b"result 200 ")
        except OSError:
            return False

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Block until ``condition`` holds while the process runs."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the broker ended before it did {what}:\n{self.output()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the broker did not {what}:\n{self.output()}")
            time.sleep(0.02)

    def wait_for_log(self, text: str) -> None:
        """Block until ``text`` is in the log."""
        self.wait_until(lambda: text in self.output(), f"log {text!r}")

    def output(self) -> str:
        """Everything that all runs have printed so far."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def signal(self, number: int) -> None:
        """Send a signal to the running process."""
        assert self.process is not None, "not started"
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end of the process; its exit status."""
        assert self.process is not None, "not started"
        process = self.process
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"the broker did not end:\n{self.output()}") from None
        atexit.unregister(self.kill)
        self.process = None
        return status

    def stop(self) -> int:
        """End it in order (SIGTERM); its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it with SIGKILL; nothing happens when none runs."""
        atexit.unregister(self.kill)
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()


def environment() -> dict[str, str]:
    """The checkout is importable whatever directory the process runs in."""
    paths = [CHECKOUT, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
