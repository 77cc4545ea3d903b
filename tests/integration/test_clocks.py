"""Broker, embedded ZooKeeper and clients as processes whose clock is set back and forward."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState
from kazoo.security import OPEN_ACL_UNSAFE, make_acl
from twisted.trial.unittest import SynchronousTestCase

from tests.integration import setclock
from tests.integration.clockclient import FACES
from tests.integration.setclock import DAY, SetBroker, SetClock, SetZooKeeper
from tests.integration.test_longpoll import Peer

MASTER = "/meta/brokers/ids/0/master"
SOON = 30.0
"""Seconds within which everything that is waited for happens, with room for a busy machine."""
LIMIT = 15.0
"""Seconds within which the broker answers, less than it would take without the change."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = SOON) -> None:
    """Block until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


class ClientProcess:
    """
    A ``clockclient``.

    :param face: also the name of its topic and group.
    :ivar lines: what it has printed.
    """

    def __init__(self, face: str, clock: SetClock, connect: str) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.clockclient", face, connect],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=clock.environment(),
            text=True,
            start_new_session=True,
        )
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.strip())

    @property
    def owned(self) -> int:
        """The number of its partitions."""
        counts = [line for line in self.lines if line.startswith("owns ")]
        return int(counts[-1].split()[1]) if counts else 0

    @property
    def messages(self) -> int:
        """The number of received messages."""
        return self.lines.count("got")

    @property
    def errors(self) -> int:
        """The number of failed sends."""
        return sum(line.startswith("error") for line in self.lines)

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()


class ServerClockTests(SynchronousTestCase):
    """Broker and embedded ZooKeeper."""

    skip = setclock.missing()

    def setUp(self) -> None:
        """Both, not started."""
        self.clock = SetClock(self.mktemp())
        self.zookeeper = SetZooKeeper(self.clock, self.mktemp())
        self.addCleanup(self.zookeeper.kill)
        self.broker = self.make_broker(1000)

    def make_broker(self, threshold: int, **settings: Any) -> SetBroker:
        """A broker that registers there."""
        broker = SetBroker(
            self.clock,
            self.mktemp(),
            system={"unflushThreshold": threshold},
            zookeeper=self.zookeeper,
            settings={"network": settings} if settings else None,
        )
        self.addCleanup(broker.kill)
        return broker

    def peer(self, broker: SetBroker) -> Peer:
        """A connection."""
        peer = Peer(broker)
        self.addCleanup(peer.close)
        return peer

    def observer(self) -> Any:
        """A client of ZooKeeper whose clock is not set."""
        client = KazooClient(self.zookeeper.connect_string, timeout=4)
        client.start(SOON)
        self.addCleanup(client.close)
        self.addCleanup(client.stop)
        return client

    def test_registration(self) -> None:
        """A broker that ZooKeeper refuses tries again, and registers after the session of its
        crashed predecessor ends."""
        self.zookeeper.start()
        observer = self.observer()
        observer.ensure_path("/meta/brokers")
        for step in (-DAY, DAY):
            observer.set_acls("/meta/brokers", [make_acl("world", "anyone", read=True, admin=True)])
            self.broker.start()
            self.broker.wait_for_log("NoAuthError")
            self.clock.step(step)
            observer.set_acls("/meta/brokers", OPEN_ACL_UNSAFE)
            wait_until(lambda: observer.exists(MASTER), "registered")
            crashed = observer.exists(MASTER).ephemeralOwner
            self.broker.kill()
            self.broker.start()
            self.clock.step(step)
            wait_until(
                lambda: (stat := observer.exists(MASTER)) and stat.ephemeralOwner != crashed,
                "registered again",
            )
            self.assertEqual(0, self.broker.stop())
            observer.delete("/meta", recursive=True)
            observer.ensure_path("/meta/brokers")
            os.remove(self.broker.log)

    def test_sessions(self) -> None:
        """Silent sessions end in time and others do not, whatever the clock is set to."""
        self.zookeeper.start()
        observer = self.observer()
        states: list[str] = []
        observer.add_listener(states.append)
        for number, step in enumerate((-DAY, DAY, DAY)):
            silent = KazooClient(self.zookeeper.connect_string, timeout=2)
            silent.start(SOON)
            silent.create(f"/silent{number}", ephemeral=True)
            self.clock.step(step)
            self.assertTrue(observer.exists(f"/silent{number}"))
            began = time.monotonic()
            silent._connection._socket.shutdown(socket.SHUT_RDWR)
            silent._stopped.set()
            wait_until(lambda: not observer.exists(f"/silent{number}"), "the end of the session")
            self.assertGreater(time.monotonic() - began, 1.0)
            silent.stop()
            silent.close()
        self.assertNotIn(KazooState.LOST, states)
        self.assertNotIn(KazooState.SUSPENDED, states)

    def test_messages_become_readable(self) -> None:
        """An acknowledged message is readable soon, in both modes, after a clock step at any
        moment."""
        for threshold in (1000, 0):
            broker = self.make_broker(threshold)
            broker.start()
            producer, consumer = self.peer(broker), self.peer(broker)
            for number, step in enumerate((-DAY, DAY, DAY, -DAY)):
                for offset in range(number * 10, number * 10 + 10):
                    if offset % 10 == 5:
                        self.clock.step(step)
                    producer.send(b"put test 0 5 0 1\r\n%05d" % offset)
                    self.assertEqual(b"200", producer.reply()[0][1])
                    began = time.monotonic()
                    consumer.send(b"get test g 0 %d 1000 1\r\n" % (offset * 25))
                    while (reply := consumer.reply())[0][0] != b"value":
                        self.assertLess(time.monotonic() - began, LIMIT)
                        consumer.send(b"get test g 0 %d 1000 1\r\n" % (offset * 25))
                    self.assertEqual(b"%05d" % offset, reply[1][20:25])

    def test_long_poll(self) -> None:
        """A held get ends at its time limit, or when a message arrives."""
        self.broker.start()
        producer, consumer = self.peer(self.broker), self.peer(self.broker)
        for offset, step in enumerate((-DAY, DAY)):
            consumer.send(b"get test g 0 %d 1000 1 1000\r\n" % (offset * 25))
            self.clock.step(step)
            began = time.monotonic()
            self.assertEqual(b"404", consumer.reply()[0][1])
            self.assertGreater(time.monotonic() - began, 0.8)
            self.assertLess(time.monotonic() - began, LIMIT)
            consumer.send(b"get test g 0 %d 1000 1 20000\r\n" % (offset * 25))
            self.clock.step(step)
            producer.send(b"put test 0 5 0 1\r\nhello")
            began = time.monotonic()
            self.assertEqual(b"value", consumer.reply()[0][0])
            self.assertLess(time.monotonic() - began, LIMIT)
            producer.reply()

    def test_idle_connections(self) -> None:
        """Idle connections are closed in time."""
        broker = self.make_broker(1000, **{"idle-seconds": 1})
        broker.start()
        for step in (-DAY, DAY):
            idle = self.peer(broker)
            self.clock.step(step)
            began = time.monotonic()
            with self.assertRaises(ConnectionResetError):
                idle.file.read(1)
            self.assertGreater(time.monotonic() - began, 0.8)
            self.assertLess(time.monotonic() - began, LIMIT)


class ClientClockTests(SynchronousTestCase):
    """Each face, with a group of two, against servers that live by the same clock. The faces run at
    the same time, because most of it is waiting."""

    skip = setclock.missing()

    def clients(self) -> list[ClientProcess]:
        """One more member for the group of each face."""
        connect = self.zookeeper.connect_string
        clients = [ClientProcess(face, self.clock, connect) for face in FACES]
        for client in clients:
            self.addCleanup(client.kill)
        return clients

    def check(self, step: int) -> None:
        """Messages flow; requests to a frozen broker fail in time; members join and leave; a broker
        that was away is found again."""
        self.clock = SetClock(self.mktemp())
        self.zookeeper = SetZooKeeper(self.clock, self.mktemp())
        self.addCleanup(self.zookeeper.kill)
        self.zookeeper.start()
        topics = {face: {"numPartitions": 2} for face in FACES}
        broker = SetBroker(self.clock, self.mktemp(), topics=topics, zookeeper=self.zookeeper)
        self.addCleanup(broker.kill)
        broker.start()
        broker.wait_for_log("registered in ZooKeeper")

        first = self.clients()
        got(first)
        self.clock.step(step)
        got(first)
        self.assertEqual([2] * len(FACES), [each.owned for each in first])

        broker.signal(signal.SIGSTOP)
        time.sleep(0.3)  # the last answer has come, and a request waits
        before = [each.errors for each in first]
        self.clock.step(step)
        fail(first, before)
        broker.signal(signal.SIGCONT)
        got(first)

        second = self.clients()
        wait_until(lambda: {each.owned for each in first + second} == {1}, "a partition for each")
        self.clock.step(step)
        got(first + second)
        for each in second:
            each.kill()
        wait_until(
            lambda: {each.owned for each in first} == {2},
            "both partitions for the one that is left",
            2 * SOON,
        )

        before = [each.errors for each in first]
        broker.kill()
        fail(first, before)
        self.clock.step(step)
        broker.start()
        got(first)
        self.assertEqual(0, broker.stop())

    def test_back(self) -> None:
        """The clock is set back by a day, four times."""
        self.check(-DAY)

    def test_forward(self) -> None:
        """The clock is set forward."""
        self.check(DAY)


def got(clients: list[ClientProcess], count: int = 10) -> None:
    """Block until each has received that number of further messages."""
    before = [client.messages for client in clients]
    wait_until(
        lambda: all(c.messages >= old + count for c, old in zip(clients, before, strict=True)),
        f"{count} messages for each: {[client.lines[-3:] for client in clients]}",
    )


def fail(clients: list[ClientProcess], before: list[int]) -> None:
    """Block until each has more failed sends than before."""
    wait_until(
        lambda: all(c.errors > old for c, old in zip(clients, before, strict=True)),
        f"an error for each: {[client.lines[-3:] for client in clients]}",
    )
