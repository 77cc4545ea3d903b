"""
The peers of the tests with the original software: the original Java broker, our broker, and a process that drives the
original client.

Everything blocks for a bounded time; nothing here needs a reactor.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from compat import build
from tests.support import zookeeper
from tests.support.broker import CHECKOUT

START_SECONDS = 30.0
STOP_SECONDS = 20.0
CALL_SECONDS = 60.0

JAVA_OPTIONS = ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]

SYSTEM = {
    "hostName": "localhost",
    "numPartitions": 1,
    "unflushThreshold": 0,
    "unflushInterval": 10000,
    "maxSegmentSize": 1024 * 1024 * 1024,
    "maxTransferSize": 1024 * 1024,
    "putProcessThreadCount": 4,  # the default, 10 a core, only costs start time here
    "getProcessThreadCount": 4,
}

ZOOKEEPER = {
    "zk.zkEnable": "true",
    "zk.zkSessionTimeoutMs": 6000,
    "zk.zkConnectionTimeoutMs": 30000,
    "zk.zkSyncTimeMs": 200,  # the Java broker sleeps this long at its stop
}

Topics = Mapping[str, Mapping[str, object]]


def missing() -> str | None:
    """
    The reason why the tests with the original cannot run here, for a test's ``skip``, or ``None``.
    """
    return zookeeper.missing() or build.missing()


def no_zookeeper() -> zookeeper.ZooKeeperServer:
    """An address where no ZooKeeper is; our broker serves all the same."""
    return zookeeper.ZooKeeperServer(os.devnull)


def server_ini(system: Mapping[str, object], zk: Mapping[str, object], topics: Topics) -> str:
    """The text of a ``server.ini``."""
    sections: dict[str, Mapping[str, object]] = {"system": system, "zookeeper": zk}
    sections.update({f"topic={name}": keys for name, keys in topics.items()})
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
        for name, keys in sections.items()
    )


class Broker(ABC):
    """
    One broker process. ``start`` again after ``stop`` or ``kill`` finds the same port, data and
    configuration.

    :param directory: made if missing; holds ``server.ini``, data and log.
    :param zk: the ZooKeeper it registers with.
    :param root: ``zk.zkRoot``.
    :param topics: the topic sections.
    :param system: keys of ``[system]`` that differ from ``SYSTEM``.
    """

    kind = ""

    def __init__(
        self,
        directory: str,
        zk: zookeeper.ZooKeeperServer,
        root: str,
        topics: Topics,
        broker_id: int = 0,
        data: str | None = None,
        system: Mapping[str, object] | None = None,
        port: int | None = None,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.data = os.path.join(self.directory, "data") if data is None else os.path.abspath(data)
        self.zookeeper = zk
        self.root = root
        self.topics = topics
        self.broker_id = broker_id
        self.system = dict(system or {})
        self.port = zookeeper.free_port() if port is None else port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address in ZooKeeper and in error texts."""
        return f"meta://localhost:{self.port}"

    @property
    def log(self) -> str:
        """The file with the output of the process."""
        return os.path.join(self.directory, f"{self.kind}.log")

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the process."""

    @abstractmethod
    def close_partition(self, topic: str, partition: int) -> None:
        """What an operator does so that a partition takes no messages and gives none."""

    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        return dict(os.environ)

    def write_configuration(self) -> str:
        """Write ``server.ini``, return its path."""
        os.makedirs(self.data, exist_ok=True)
        os.makedirs(os.path.join(self.directory, "log"), exist_ok=True)
        system = {
            "brokerId": self.broker_id,
            "serverPort": self.port,
            "dashboardHttpPort": zookeeper.free_port(),
            "dataPath": self.data,
            # beside other directories the original leaves some partitions closed until their first
            # put
            "dataLogPath": os.path.join(self.directory, "log"),
            **SYSTEM,
            **self.system,
        }
        zk = {**ZOOKEEPER, "zk.zkConnect": self.zookeeper.connect_string, "zk.zkRoot": self.root}
        path = os.path.join(self.directory, "server.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write(server_ini(system, zk, self.topics))
        return path

    def start(self) -> None:
        """
        Start the process; return when it serves and its topics are in ZooKeeper, if there is one.
        """
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
        deadline = time.monotonic() + START_SECONDS
        self._wait(deadline, self._serves)
        if self.zookeeper.process is not None:
            self._wait_for_registration(deadline)

    def _wait_for_registration(self, deadline: float) -> None:
        """Until every node of every topic is there: ours registers several topics at a time."""
        client = self.zookeeper.client()
        try:
            for topic, keys in self.topics.items():
                trees = ["topics"]
                trees += ["topics-pub"] if keys.get("acceptPublish") != "false" else []
                trees += ["topics-sub"] if keys.get("acceptSubscribe") != "false" else []
                for tree in trees:
                    node = f"{self.root}/brokers/{tree}/{topic}/{self.broker_id}-m"
                    self._wait(deadline, lambda: client.exists(node) is not None)
        finally:
            client.stop()
            client.close()

    def _wait(self, deadline: float, condition: Callable[[], bool]) -> None:
        while not condition():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the {self.kind} broker ended at start: {self.tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the {self.kind} broker does not start: {self.tail()}")
            time.sleep(0.03)

    def _serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as connection:
                connection.settimeout(2)
                connection.sendall(b"version 1\r\n")
                return connection.recv(100).startswith(b"result 200 ")
        except OSError:
            return False

    def tail(self) -> str:
        """The end of the log, for an error message."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]

    def stop(self) -> None:
        """End the process in order (SIGTERM); nothing happens when none runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process with SIGKILL; nothing happens when none runs."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        atexit.unregister(self.kill)
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"the {self.kind} broker does not stop: {self.tail()}") from None


class JavaBroker(Broker):
    """The original, ``com.taobao.metamorphosis.server.MetamorphosisStartup``."""

    kind = "java"

    def command(self) -> list[str]:
        """
        The path given to ``-f`` needs a directory in it, or the original dies of a null pointer.
        """
        self.jmx_port = zookeeper.free_port()
        log = os.path.join(self.directory, "java-log4j.log")
        return [
            "java",
            *JAVA_OPTIONS,
            f"-Duser.home={self.directory}",
            f"-Dcompat.log={log}",
            "-Dcompat.level=WARN",
            f"-Dcom.sun.management.jmxremote.port={self.jmx_port}",
            "-Dcom.sun.management.jmxremote.host=127.0.0.1",
            "-Dcom.sun.management.jmxremote.authenticate=false",
            "-Dcom.sun.management.jmxremote.ssl=false",
            "-Djava.rmi.server.hostname=127.0.0.1",
            "-cp",
            build.classpath(),
            "com.taobao.metamorphosis.server.MetamorphosisStartup",
            "-f",
            "./server.ini",
        ]

    def close_partition(self, topic: str, partition: int) -> None:
        """By JMX."""
        driver().call(
            "close-partitions", port=self.jmx_port, topic=topic, first=partition, last=partition
        )

    def tail(self) -> str:
        """Standard error says nothing useful about a failed start; log4j's file does."""
        try:
            path = os.path.join(self.directory, "java-log4j.log")
            with open(path, encoding="utf-8", errors="replace") as file:
                return super().tail() + file.read()[-2000:]
        except FileNotFoundError:
            return super().tail()


class OurBroker(Broker):
    """Ours, ``twistd -n metaq -f server.ini``."""

    kind = "python"

    def command(self) -> list[str]:
        """``twistd`` as its script would run it."""
        twistd = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
        return [sys.executable, "-c", twistd, "-n", "--pidfile=", "metaq", "-f", "./server.ini"]

    def close_partition(self, topic: str, partition: int) -> None:
        """In our own settings file, and a reload."""
        with open(os.path.join(self.directory, "metamorphosis.ini"), "w", encoding="utf-8") as file:
            file.write(f"[closed-partitions]\n{topic} = {partition}\n")
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def environment(self) -> dict[str, str]:
        """The checkout is importable whatever directory the process runs in."""
        environment = dict(os.environ)
        paths = [CHECKOUT, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return environment


class CallFailed(Exception):
    """The driver's call ended in a Java exception; its text is the argument."""


class Call:
    """One command given to a driver, and the events it has produced so far."""

    def __init__(self, driver: Driver, number: int, name: str) -> None:
        self.driver = driver
        self.number = number
        self.name = name
        self.events: list[dict[str, Any]] = []
        self.changed = threading.Condition()

    def add(self, event: dict[str, Any]) -> None:
        """Called by the thread that reads the driver's output."""
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events of that name so far."""
        with self.changed:
            return [event for event in self.events if event["event"] == name]

    def wait_for(
        self, name: str, count: int, seconds: float = CALL_SECONDS
    ) -> list[dict[str, Any]]:
        """
        Wait until there are ``count`` events of that name; fewer after that time, or a failed call,
        is an error.
        """
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                found = [event for event in self.events if event["event"] == name]
                if len(found) >= count:
                    return found
                for event in self.events:
                    if event["event"] == "failed":
                        raise CallFailed(f"{self.name}: {event['error']}")
                if not self.changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(
                        f"{self.name}: {len(found)} of {count} events '{name}' after {seconds} s"
                        f"{self.driver.ended()}"
                    )


class Driver(ABC):
    """
    A process that takes commands as JSON lines, and answers with events.

    :param directory: for the log and the local stores of the client.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.log = os.path.join(directory, "driver.log")
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        with open(os.path.join(directory, "driver.err"), "ab") as errors:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=directory,
                env=self.environment(),
                start_new_session=True,
            )
        atexit.register(self.end)
        threading.Thread(target=self._read, daemon=True, name="driver-output").start()

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the process."""

    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        return dict(os.environ)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self._calls[event["call"]].add(event)

    def ended(self) -> str:
        """For an error message: how the process ended, if it has."""
        status = self.process.poll()
        if status is None:
            return ""
        return f" (the process ended with status {status}, see {self.directory})"

    def begin(self, command: str, **arguments: object) -> Call:
        """Start a command."""
        call = Call(self, next(self._numbers), command)
        self._calls[call.number] = call
        line = json.dumps({"call": call.number, "do": command, **arguments}) + "\n"
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode("utf-8"))
        self.process.stdin.flush()
        return call

    def call(self, command: str, **arguments: object) -> Call:
        """Run a command to its end."""
        call = self.begin(command, **arguments)
        call.wait_for("done", 1)
        return call

    def end(self) -> None:
        """End the process with SIGKILL."""
        atexit.unregister(self.end)
        self.process.kill()
        self.process.wait()


class JavaDriver(Driver):
    """A JVM with ``compat.Driver``. A start costs a second, so tests share ``driver(n)``."""

    def command(self) -> list[str]:
        """Recovery files of the client go below its home."""
        options = [f"-Duser.home={self.directory}", f"-Dcompat.log={self.log}"]
        return [
            *("java", *JAVA_OPTIONS, *options, "-Dcompat.level=WARN"),
            *("-cp", build.classpath(), "compat.Driver"),
        ]


class PythonDriver(Driver):
    """
    A process with our client, ``compat.member``; it knows those commands of ``compat.Driver`` that
    mixed groups need.

    :param face: ``tx`` or ``aio``.
    """

    def __init__(self, directory: str, face: str) -> None:
        self.face = face
        super().__init__(directory)

    def command(self) -> list[str]:
        """Another process of this Python."""
        return [sys.executable, "-m", "compat.member", self.face]

    def environment(self) -> dict[str, str]:
        """The checkout is importable, and recovery files go below the directory."""
        paths = [CHECKOUT, os.environ.get("PYTHONPATH", "")]
        python = os.pathsep.join(filter(None, paths))
        return {**os.environ, "PYTHONPATH": python, "HOME": self.directory}


_drivers: dict[int, JavaDriver] = {}


def driver(number: int = 0) -> JavaDriver:
    """The driver of that number, for the whole test process, started at the first call."""
    if number not in _drivers:
        _drivers[number] = JavaDriver(tempfile.mkdtemp(prefix="metamorphosis-driver-"))
    return _drivers[number]
