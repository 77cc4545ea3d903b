"""
The peers of the tests with the original software: its broker, ours, and processes that drive its
client and ours.

Everything blocks for a bounded time; nothing here needs a reactor.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support import javabuild, zookeeper
from tests.support.broker import BrokerProcess, Keys, environment

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

Topics = Mapping[str, Keys]


def missing() -> str | None:
    """
    The reason why the tests with the original cannot run here, for a test's ``skip``, or ``None``.
    """
    return zookeeper.missing() or javabuild.missing()


def no_zookeeper() -> zookeeper.ZooKeeperServer:
    """An address without a ZooKeeper; our broker serves without it."""
    return zookeeper.ZooKeeperServer(os.devnull)


class Broker(BrokerProcess, ABC):
    """
    One broker of a cluster, ours or the original; it serves when its topics are in ZooKeeper.

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
        # beside other directories the original leaves some partitions closed until their first put
        own = {
            "brokerId": broker_id,
            "dataLogPath": os.path.join(os.path.abspath(directory), "log"),
        }
        if data is not None:
            own["dataPath"] = os.path.abspath(data)
        super().__init__(
            directory,
            topics,
            {**SYSTEM, **own, **(system or {})},
            zk,
            {**ZOOKEEPER, "zk.zkRoot": root},
            port=port,
        )
        self.data = str(self.system["dataPath"])
        self.log = os.path.join(self.directory, f"{self.kind}.log")
        self.zookeeper = zk
        self.root = root
        self.broker_id = broker_id

    @property
    def url(self) -> str:
        """The address in ZooKeeper and in error texts."""
        return f"meta://localhost:{self.port}"

    @abstractmethod
    def close_partition(self, topic: str, partition: int) -> None:
        """Close a partition as an operator does, for puts and gets."""

    def write_configuration(self) -> None:
        """See ``BrokerProcess``; the original makes none of its directories."""
        for directory in (self.data, os.path.join(self.directory, "log")):
            os.makedirs(directory, exist_ok=True)
        super().write_configuration()

    def start(self, wait: bool = True) -> None:
        """See ``BrokerProcess``; it also waits for the topics, if a ZooKeeper runs."""
        super().start(wait)
        if wait and self.zookeeper.process is not None:
            self.wait_for_registration()

    def wait_for_registration(self) -> None:
        """Until every node of every topic is there: ours registers several topics at a time."""
        client = self.zookeeper.client()
        try:
            for topic, keys in self.topics.items():
                trees = ["topics"]
                trees += ["topics-pub"] if keys.get("acceptPublish") != "false" else []
                trees += ["topics-sub"] if keys.get("acceptSubscribe") != "false" else []
                for tree in trees:
                    node = f"{self.root}/brokers/{tree}/{topic}/{self.broker_id}-m"
                    self.wait_until(lambda: client.exists(node) is not None, f"make {node}")
        finally:
            client.stop()
            client.close()


class JavaBroker(Broker):
    """The original, ``com.taobao.metamorphosis.server.MetamorphosisStartup``."""

    kind = "java"

    def command(self, options: Sequence[str] = ()) -> list[str]:
        """
        The path given to ``-f`` needs a directory in it, or the original dies of a null pointer.
        """
        self.jmx_port = zookeeper.free_port()
        return [
            "java",
            *JAVA_OPTIONS,
            f"-Duser.home={self.directory}",
            f"-Dcompat.log={self._java_log}",
            "-Dcompat.level=WARN",
            f"-Dcom.sun.management.jmxremote.port={self.jmx_port}",
            "-Dcom.sun.management.jmxremote.host=127.0.0.1",
            "-Dcom.sun.management.jmxremote.authenticate=false",
            "-Dcom.sun.management.jmxremote.ssl=false",
            "-Djava.rmi.server.hostname=127.0.0.1",
            "-cp",
            javabuild.classpath(),
            "com.taobao.metamorphosis.server.MetamorphosisStartup",
            "-f",
            "./server.ini",
        ]

    @property
    def _java_log(self) -> str:
        return os.path.join(self.directory, "java-log4j.log")

    def write_configuration(self) -> None:
        """See ``Broker``; its dashboard listens too."""
        self.system["dashboardHttpPort"] = zookeeper.free_port()
        super().write_configuration()

    def close_partition(self, topic: str, partition: int) -> None:
        """By JMX."""
        driver().call(
            "close-partitions", port=self.jmx_port, topic=topic, first=partition, last=partition
        )

    def output(self) -> str:
        """Standard error says nothing useful about a failed start; log4j's file does."""
        try:
            with open(self._java_log, encoding="utf-8", errors="replace") as file:
                return super().output() + file.read()[-2000:]
        except FileNotFoundError:
            return super().output()


class OurBroker(Broker):
    """Ours, as ``BrokerProcess`` starts it."""

    kind = "python"

    def close_partition(self, topic: str, partition: int) -> None:
        """In our own settings file, and a reload."""
        self.settings["closed-partitions"] = {topic: partition}
        self.write_configuration()
        self.signal(signal.SIGHUP)


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
        self._reader = threading.Thread(target=self._read, daemon=True, name="driver-output")
        self._reader.start()

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
        self._reader.join(CALL_SECONDS)  # its pipe has ended with the process
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a command that the process did not read
            self.process.stdin.close()
        if not self._reader.is_alive():
            self.process.stdout.close()


class JavaDriver(Driver):
    """A JVM with ``compat.Driver``. A start costs a second, so tests share ``driver(n)``."""

    def command(self) -> list[str]:
        """Recovery files of the client go below its home."""
        options = [f"-Duser.home={self.directory}", f"-Dcompat.log={self.log}"]
        return [
            *("java", *JAVA_OPTIONS, *options, "-Dcompat.level=WARN"),
            *("-cp", javabuild.classpath(), "compat.Driver"),
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
        return {**environment(), "HOME": self.directory}


_drivers: dict[int, JavaDriver] = {}


def driver(number: int = 0) -> JavaDriver:
    """The driver of that number, for the whole test process, started at the first call."""
    if number not in _drivers:
        _drivers[number] = JavaDriver(tempfile.mkdtemp(prefix="metamorphosis-driver-"))
    return _drivers[number]
