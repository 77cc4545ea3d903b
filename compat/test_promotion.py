"""
The procedure of ``docs/promotion.md`` that replaces a Java member, typed literally, under load: the
master is the original, and our broker has the role of the Java slave, which was never published.
"""

from __future__ import annotations

import os
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from compat.clientcase import name
from compat.exchange import Connection, Reply
from tests.support import peers, zookeeper
from tests.support.procedures import Command, Machine, Operator, procedure

TOPICS = {"orders": {"numPartitions": 1}}
SECONDS = 20.0


class Load(threading.Thread):
    """Sends messages one after the other until ``end``, whatever the master does."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[int, bytes] = {}
        self.ending = threading.Event()
        self._port = port

    def run(self) -> None:
        """Until ``ending``."""
        number = 0
        while not self.ending.is_set():
            try:
                connection = Connection(self._port)
            except OSError:
                time.sleep(0.05)
                continue
            while not self.ending.is_set():
                number += 1
                body = b"message %d" % number
                connection.send(b"put orders 0 %d 0 1\r\n%b" % (len(body), body))
                reply = connection.reply()
                if not isinstance(reply, Reply):
                    break
                if reply.status == 200:
                    self.acknowledged[int(reply.body.split(b" ")[2])] = body
                time.sleep(0.002)
            connection.close()


class ReplacementTests(SynchronousTestCase):
    """The original's master ``a``, and ``b``."""

    skip = peers.missing()
    timeout = 180

    def test_java_member_is_replaced_under_load(self) -> None:
        """Every acknowledged message is on both in the end, and both are equal."""
        root, zk = f"/{name('promotion')}", zookeeper.shared()
        directory = self.mktemp()
        a = Machine(directory, TOPICS, zk)
        java = peers.JavaBroker(directory, zk, root, TOPICS, port=a.port)
        b = Machine(self.mktemp(), TOPICS, zk, {"zk.zkRoot": root})
        operator = Operator(self.mktemp(), {"a": a, "b": b})
        self.addCleanup(operator.end)
        self.addCleanup(java.kill)
        java.start()
        with open(os.path.join(a.directory, "java.pid"), "w", encoding="ascii") as file:
            file.write(str(java.pid))
        start = "twistd --pidfile=java.pid metaq -f server.ini --slave async_slave.properties"
        operator.type(Command("b", start))
        load = Load(a.port)
        self.addCleanup(load.ending.set)
        load.start()
        self.until(lambda: len(load.acknowledged) > 50)
        for command in procedure("A Java member is replaced under load"):
            if command.line.startswith("metaq slave-status"):
                self.until(lambda: self.well(operator))
            elif command.line.startswith("metaq compare a:8123 b:8123") and command.machine == "b":
                acknowledged = len(load.acknowledged)
                self.until(lambda: len(load.acknowledged) > acknowledged + 20)
            done = operator.type(command)
            self.assertEqual(0, done.status, done)
        load.ending.set()
        load.join()
        self.until(lambda: self.ends(a) == self.ends(b))
        self.assertEqual(self.log(a), self.log(b))
        log = self.log(b)
        for offset, body in load.acknowledged.items():
            self.assertEqual(body, log[offset + 20 : offset + 20 + len(body)])

    def well(self, operator: Operator) -> bool:
        """Whether the slave follows."""
        return operator.type(Command("b", "metaq slave-status --broker b:8123")).status == 0

    def until(self, holds: object) -> None:
        """Wait for it."""
        assert callable(holds)
        deadline = time.monotonic() + SECONDS
        while not holds():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def ends(self, machine: Machine) -> bytes:
        """The end of its log."""
        connection = Connection(machine.port)
        reply = connection.ask(b"offset orders g 0 %d 7\r\n" % ((1 << 63) - 1))
        connection.close()
        return reply.body

    def log(self, machine: Machine) -> bytes:
        """The whole log of a broker."""
        data = b""
        connection = Connection(machine.port)
        while (reply := connection.ask(b"get orders g 0 %d 1048576 1\r\n" % len(data))).status == 0:
            data += reply.body
        connection.close()
        return data
