"""A broker's registration against a real ZooKeeper, for the tests of this package."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from metamorphosis.cluster.model import Broker, SessionEvent, TopicRegistration
from metamorphosis.cluster.paths import Paths
from metamorphosis.cluster.registration import BrokerRegistration, RegistrationStatus
from metamorphosis.cluster.registry import ZooKeeperRegistry
from metamorphosis.threads import WorkerThreads
from tests.support import zookeeper

BROKER = Broker(0, "127.0.0.1", 8123)
CHECKSUM = 2787953804
TOPICS = (TopicRegistration("meta-test", 1), TopicRegistration("test", 2))
MASTER = "/meta/brokers/ids/0/master"
WAIT_SECONDS = 20.0

PROCESS = """
import sys
from twisted.internet import reactor
from twisted.internet.task import LoopingCall
from metamorphosis.threads import WorkerThreads
from metamorphosis.cluster.registration import RegistrationStatus
from tests.integration import registering

threads = WorkerThreads(reactor, 1, "test")
registry, registration = registering.make(sys.argv[1], int(sys.argv[2]), threads)
def look():
    if registration.status is RegistrationStatus.REGISTERED:
        print("registered", flush=True)
        watch.stop()
watch = LoopingCall(look)
registration.start(registering.TOPICS)
registry.start()
watch.start(0.02)
reactor.run()
"""


def make(
    connect: str, session_timeout: int, threads: WorkerThreads, broker: Broker = BROKER
) -> tuple[ZooKeeperRegistry, BrokerRegistration]:
    """A registry and the registration of a broker in it, neither started."""
    registry = ZooKeeperRegistry(reactor, reactor, threads, connect, session_timeout)
    return registry, BrokerRegistration(registry, reactor, Paths(), broker, CHECKSUM)


class CrashingBroker:
    """The same broker as ours in a process of its own, registered and then killed."""

    def __init__(self, connect: str, session_timeout: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, connect, str(session_timeout)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == b"registered\n", line

    def crash(self) -> None:
        """SIGKILL."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class RegisteringCase(TestCase):
    """
    A registration, a registry and its session's events.

    A subclass sets ``server`` and ``connect`` before it calls ``make``.
    """

    skip = zookeeper.missing()
    timeout = 60
    session_timeout = 1000
    server: zookeeper.ZooKeeperServer
    connect: str

    def setUp(self) -> None:
        """Threads for closing clients, which outlive every client."""
        self.threads = WorkerThreads(reactor, 2, "test")
        self.addCleanup(self.threads.stop)

    def make(self, broker: Broker = BROKER) -> None:
        """Make the registry and the registration; they are stopped after the test."""
        self.registry, self.registration = make(
            self.connect, self.session_timeout, self.threads, broker
        )
        self.events: list[SessionEvent] = []
        self.registry.on_session(self.events.append)
        self.addCleanup(self.registry.stop)

    def start(self) -> None:
        """Start both; returns before anything happened."""
        self.registration.start(TOPICS)
        self.registry.start()

    async def until(self, condition: Callable[[], Any], what: str = "condition") -> None:
        """Wait for what the reactor brings about."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"{what} after {WAIT_SECONDS} s; status {self.registration.status}")
            await deferLater(reactor, 0.02)

    async def registered(self) -> None:
        """Wait until everything is registered in the present session."""
        await self.until(
            lambda: self.registration.status is RegistrationStatus.REGISTERED, "not registered"
        )

    def brokers(self, chroot: str = "") -> dict[str, tuple[str | None, bool]]:
        """Path -> (data, whether ephemeral) of everything below brokers, without the chroot."""
        tree = self.server.tree(chroot + "/meta/brokers")
        return {
            path.removeprefix(chroot): (
                None if node.data is None else node.data.decode("utf-8"),
                node.owner != 0,
            )
            for path, node in tree.items()
        }

    def assert_owned(self, chroot: str = "") -> None:
        """Assert that exactly our nodes are there and all belong to the present session."""
        tree = self.server.tree(chroot + "/meta/brokers")
        owners = {node.owner for node in tree.values()} - {0}
        self.assertEqual(owners, {self.registry.session_id()})
        self.assertEqual(sum(node.owner != 0 for node in tree.values()), 2 + 3 * len(TOPICS))
