"""
A pair master as a process, killed at any moment, and a scripted Java slave, killed and frozen:
afterwards both logs are equal, and have every acknowledged record.
"""

from __future__ import annotations

import os
import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.store.layout import find_segments
from tests.support.pairing import put
from tests.support.replicated import Member
from tests.support.scriptedpeers import ScriptedGregor
from tests.support.scriptedwire import SocketWire

PARTITIONS = 3
SECONDS = 20.0


class Producer:
    """One connection, and the acknowledgements that it has received."""

    def __init__(self, port: int, acknowledged: dict[int, tuple[int, int]]) -> None:
        self._acknowledged = acknowledged
        self._socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self._received = b""

    def push(self, count: int) -> None:
        """Send puts without waiting for their replies."""
        self._socket.sendall(b"".join(put(b"%d" % n * 50, n, n % PARTITIONS) for n in range(count)))

    def take(self, until: int | None) -> None:
        """Receive replies until that number has come; None: those that arrive within 0.2 s."""
        self._socket.settimeout(SECONDS if until is not None else 0.2)
        try:
            while until is None or self._note() < until:
                data = self._socket.recv(1 << 16)
                if not data:
                    break
                self._received += data
        except OSError:
            pass
        self._note()

    def _note(self) -> int:
        """Keep what was acknowledged; returns how many replies are complete."""
        complete = 0
        for part in self._received.split(b"result ")[1:]:
            head, _, text = part.partition(b"\r\n")
            words = head.split()
            if len(words) < 3 or len(text) != int(words[1]):
                continue
            complete += 1
            if words[0] == b"200":
                message_id, partition, offset = map(int, text.split())
                self._acknowledged[message_id] = partition, offset
        return complete

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class KillTests(SynchronousTestCase):
    """Killed, again and again."""

    def setUp(self) -> None:
        """A slave that listens, and its master."""
        self.gregor = ScriptedGregor({"test": PARTITIONS})
        self.wire = SocketWire(self.gregor)
        self.addCleanup(self.wire.end)
        self.master = Member(
            os.path.abspath(self.mktemp()),
            "samsa",
            {"slave": f"127.0.0.1:{self.wire.port}", "sendToSlaveTimeoutInMills": 300},
            topics={"test": {"numPartitions": PARTITIONS}},
        )
        self.addCleanup(self.master.kill)
        self.acknowledged: dict[int, tuple[int, int]] = {}

    def own(self, partition: int) -> bytes:
        """The bytes of the master's log."""
        directory = os.path.join(self.master.data, f"test-{partition}")
        segments = find_segments(directory) if os.path.isdir(directory) else []
        data = b""
        for segment in segments:
            with open(segment.path, "rb") as file:
                data += file.read()
        return data

    def put_until_acknowledged(self) -> None:
        """Put until every partition accepts: the pair is joined."""
        deadline = time.monotonic() + SECONDS
        before = len(self.acknowledged)
        while len(self.acknowledged) < before + PARTITIONS:
            self.assertLess(time.monotonic(), deadline, self.master.output()[-2000:])
            before = len(self.acknowledged)
            producer = Producer(self.master.port, self.acknowledged)
            producer.push(PARTITIONS)
            producer.take(PARTITIONS)
            producer.close()

    def check(self) -> None:
        """Both logs are equal, and have every acknowledged record."""
        self.put_until_acknowledged()
        logs = [self.own(partition) for partition in range(PARTITIONS)]
        for partition, log in enumerate(logs):
            self.assertEqual(bytes(self.gregor.log("test", partition).data), log)
        for message_id, (partition, offset) in self.acknowledged.items():
            found = logs[partition][offset + 8 : offset + 16]
            self.assertEqual(found, message_id.to_bytes(8, "big", signed=True))
        self.gregor.verify()

    def push(self, seconds: float) -> Producer:
        """Send puts; not all of them are answered when the call returns."""
        producer = Producer(self.master.port, self.acknowledged)
        producer.push(3000)
        time.sleep(seconds)
        return producer

    def end(self, producer: Producer) -> None:
        """Receive the remaining replies."""
        producer.take(None)
        producer.close()

    def test_either_side(self) -> None:
        """The master ends by SIGKILL; the slave is killed, restarted so that it hides partitions,
        or frozen."""
        self.master.start()
        self.check()
        for number in range(4):
            producer = self.push(0.005 * number)
            self.master.kill()
            self.end(producer)
            self.master.start()
            self.check()
            producer = self.push(0.005 * number)
            self.gregor.restart(hides=bool(number % 2))
            self.end(producer)
            self.check()
        self.gregor.freeze()
        producer = self.push(0.4)
        self.master.kill()
        self.gregor.thaw()
        self.end(producer)
        self.master.start()
        self.check()
        self.assertGreater(len(self.acknowledged), 30)
