"""
The slave of a pair as a process, with a scripted Java master: no ZooKeeper, orderly and violent
ends, a master that does not read, and one whose connection is cut.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import HEADER, checksum
from tests.support.broker import BrokerProcess
from tests.support.scriptedsamsa import ScriptedSamsa, Sent
from tests.support.scriptedwire import SocketWire
from tests.support.slaves import sync

MIB = 1 << 20


class PairSlaveProcess(BrokerProcess):
    """``twistd metaq -f server.ini --gregor FILE``."""

    def command(self, options: Sequence[str] = ()) -> list[str]:
        """See ``BrokerProcess``."""
        path = os.path.join(self.directory, "gregor_slave.properties")
        self._write(path, "# may be empty\n")
        return [*super().command(options), "--gregor", path]

    def log_of(self, topic: str, partition: int) -> bytes:
        """The bytes of all segments."""
        directory = os.path.join(self.data, f"{topic}-{partition}")
        found = b""
        for name in sorted(os.listdir(directory)):
            if name.endswith(".meta"):
                with open(os.path.join(directory, name), "rb") as file:
                    found += file.read()
        return found

    @property
    def resident(self) -> int:
        """Resident memory in bytes."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class PairSlaveTests(SynchronousTestCase):
    """One process for each test, because each test ends it."""

    def setUp(self) -> None:
        """A slave whose server.ini enables ZooKeeper, and a server that listens at that address."""
        self.zookeeper = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.zookeeper.close)
        self.zookeeper.setblocking(False)
        port = self.zookeeper.getsockname()[1]
        self.slave = PairSlaveProcess(
            self.mktemp(),
            topics={"test": {"numPartitions": 4}},
            zookeeper_keys={"zk.zkEnable": "true", "zk.zkConnect": f"127.0.0.1:{port}"},
        )
        self.addCleanup(self.slave.kill)
        self.slave.start()
        self.samsa = ScriptedSamsa()
        self.wire = SocketWire(self.samsa, None)
        self.addCleanup(self.wire.end)
        self.line = self.wire.dial(self.slave.port)

    def put(self, count: int, size: int = 100) -> list[Sent]:
        """Send records to all partitions; the replies are not awaited."""
        sent = []
        for number in range(count):
            each = self.samsa.put("test", number % 4, b"%d " % number + bytes(size), line=self.line)
            assert each is not None
            sent.append(each)
        return sent

    def test_row_R39_no_zookeeper(self) -> None:
        """No connection is made to ZooKeeper at the start, at a reload or at the end, so that the
        nodes of a running master stay as they are. The end is orderly, without a wait for
        clients."""
        sent = self.put(40)
        self.wire.until(lambda: not self.samsa.unanswered)
        self.samsa.verify()
        self.assertEqual({200}, {each.status for each in sent})
        self.assertEqual([], self.samsa.parted)
        self.assertIn("ZooKeeper not used", self.slave.output())
        self.assertIn("Broker 0, synchronous slave, serves", self.slave.output())
        self.slave.stop()
        self.assertRaises(BlockingIOError, self.zookeeper.accept)
        names = sorted(name for name in os.listdir(self.slave.data) if not name.startswith("."))
        self.assertEqual([f"test-{number}" for number in range(4)], names)

    def test_killed_under_load(self) -> None:
        """After a SIGKILL at any moment every acknowledged record is at its place, followed by
        whole records of the master in its order."""
        for count in (2000, 100):
            sent = self.put(count, 1000)
            self.wire.until(lambda: sum(each.status == 200 for each in sent) > count // 4)
            self.slave.kill()
            self.wire.until(lambda: not self.samsa.lines)
            self.samsa.verify()
            self.slave.start()
            for number in range(4):
                self.check_log(number)
            # A Java master appends what its slave has not: it is started anew on the slave's log.
            self.samsa.logs.clear()
            self.line = self.wire.dial(self.slave.port)

    def check_log(self, partition: int) -> None:
        """Compare the log with the sent records."""
        log = self.slave.log_of("test", partition)
        mine = [each for each in self.samsa.sent.values() if each.place == ("test", partition)]
        ids = [each.message_id for each in mine]
        found: list[int] = []
        at = 0
        ends = {}
        while at < len(log):
            length, crc, message_id, _ = HEADER.unpack_from(log, at)
            body = log[at + HEADER.size : at + HEADER.size + length]
            self.assertEqual((length, crc), (len(body), checksum(body)))
            ends[at] = message_id
            found.append(message_id)
            at += HEADER.size + length
        self.assertEqual(sorted(found, key=ids.index), found)
        for each in mine:
            if each.status == 200:
                assert each.told is not None
                self.assertEqual(each.message_id, ends[each.told])

    def test_master_that_reads_nothing(self) -> None:
        """The slave stops reading from it: its memory does not grow, others are served, and a newer
        connection takes over."""
        frame = sync(bytes(10), topic=b"test")
        with socket.create_connection(("127.0.0.1", self.slave.port)) as master:
            master.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            master.setblocking(False)
            before, sent, chunk = self.slave.resident, 0, frame * 2000
            quiet = time.monotonic() + 1
            while time.monotonic() < quiet and sent < 256 * MIB:
                try:
                    sent += master.send(chunk[sent % len(chunk) :])
                    quiet = time.monotonic() + 1
                except BlockingIOError:
                    time.sleep(0.01)
            self.assertLess(sent, 256 * MIB, "it never stopped reading")
            self.assertLess(self.slave.resident - before, 48 * MIB)
            self.assertTrue(self.slave.serves())
            self.put(8)
            self.wire.until(lambda: not self.samsa.unanswered)
        self.assertIn("A newer connection of the master at 127.0.0.1", self.slave.output())

    def test_master_that_was_cut_off(self) -> None:
        """The connection ends within a record, or with a reset; the next connection continues."""
        for cut in (5, 60, 110):
            record = sync(b"x" * 100)
            with socket.create_connection(("127.0.0.1", self.slave.port)) as master:
                master.sendall(record[: min(cut, len(record) - 1)])
                linger = struct.pack("ii", 1, 0)
                master.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.line = self.wire.dial(self.slave.port)
        self.put(4)
        self.wire.until(lambda: not self.samsa.unanswered)
        self.samsa.verify()
        self.assertEqual([], self.samsa.parted)
