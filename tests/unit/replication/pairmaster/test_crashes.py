"""
The crash matrix of a pair: either side, both, or the line between them ends at each step of
sending, storing, answering, appending and flushing. After the return both logs are the same without
anybody's hand, and everything that was acknowledged is on both where its reply says.

The slave is a Java one: it looks at no offset, cannot cut, and is asked nothing but what the
original answers.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.replication.pairmaster.pairedlog import Standing
from metamorphosis.store.disk import Disk
from tests.support.crashdisk import CrashDisk, Killed, Platters
from tests.support.pairing import Pair, put
from tests.support.serving import Client

STRIDE = int(os.environ.get("CRASH_STRIDE", "1"))
"""Only every so many steps; each in the usual run."""

Acknowledged = dict[int, tuple[int, int]]
"""Message id -> partition and offset."""


class Life:
    """
    One pair, a producer, and what was acknowledged to it.

    :ivar acknowledged: by id.
    """

    def __init__(self, test: SynchronousTestCase, threshold: int) -> None:
        self.test = test
        self.acknowledged: Acknowledged = {}
        self.pair = Pair(test.mktemp(), unflush_threshold=threshold, max_segment_size=200)
        self.pair.connect()
        self.client: Client = self.pair.client()
        self.note(self.pair.send(self.client, put(b"first") + put(b"first", 2, 1)))

    def note(self, replies: bytes) -> None:
        """Keep what was acknowledged."""
        for part in replies.split(b"result ")[1:]:
            head, _, text = part.partition(b"\r\n")
            if head.startswith(b"200"):
                message_id, partition, offset = map(int, text.split())
                self.test.assertNotIn(message_id, self.acknowledged)
                self.acknowledged[message_id] = partition, offset

    def steps(self) -> Iterator[None]:
        """Puts on their way, several at a time; each step is what can happen between two kills."""
        for number in range(4):
            chunk = b"".join(put(b"%d" % n * (n + 1), n, n % 2) for n in range(number + 2))
            self.client.connection.dataReceived(chunk)
            yield
            self.pair.runtime.advance(0)
            yield
            yield from self._carry_half()
        yield from self._carry_half()
        yield from self._carry_half()

    def _carry_half(self) -> Iterator[None]:
        """What is on the way arrives in halves, in both directions."""
        wire = self.pair.wire
        assert wire is not None
        sent = wire.take()
        for part in (sent[: len(sent) // 2], sent[len(sent) // 2 :]):
            wire.line.receive(part)
            yield
        coming = b"".join(wire.coming)
        wire.coming.clear()
        for part in (coming[: len(coming) // 2], coming[len(coming) // 2 :]):
            wire.link.receive(part)
            yield
            self.pair.runtime.advance(0)
            yield

    def kill_master(self, last: bool = True) -> None:
        """
        It dies; what its socket has sent reaches the slave.

        :param last: the replies that it has sent reach the producer.
        """
        if last:
            self.note(self.client.received())
        wire = self.pair.wire
        if wire is not None and not wire.ended:
            sent, wire.link.written = wire.link.written, b""
            wire.line.receive(sent)
        self.pair.kill()

    def kill_slave(self) -> None:
        """It dies; what it has not read is lost."""
        self.pair.gregor.restart()
        self.pair.settle()

    def end(self) -> None:
        """Both are there again: join, put once more, and compare."""
        pair = self.pair
        if pair.wire is None:
            pair.connect()
        pair.settle()
        pair.advance(3, 0.5)
        self.note(self.client.received())
        self.client = pair.client()
        for partition in (0, 1):
            self.test.assertEqual(pair.log(partition).standing, Standing.JOINED)
            self.test.assertEqual(pair.own(partition), pair.slaves(partition))
        self.note(pair.send(self.client, put(b"after") + put(b"after", 2, 1)))
        pair.gregor.verify()
        for partition in (0, 1):
            self.test.assertEqual(pair.own(partition), pair.slaves(partition))
        for message_id, (partition, offset) in self.acknowledged.items():
            found = pair.own(partition)[offset + 8 : offset + 16]
            self.test.assertEqual(found, message_id.to_bytes(8, "big", signed=True))


def count_steps(test: SynchronousTestCase) -> int:
    """How many there are."""
    return sum(1 for _ in Life(test, 0).steps())


class CrashMatrix(SynchronousTestCase):
    """One end at each step."""

    def run_matrix(self, end: Callable[[Life], None]) -> None:
        """
        :param end: what happens at a step.
        """
        for threshold in (0, 1000):
            for last in range(0, count_steps(self), STRIDE):
                life = Life(self, threshold)
                for number, _ in enumerate(life.steps()):
                    if number == last:
                        break
                end(life)
                life.end()

    def test_row_R49(self) -> None:
        """The master is killed between sending and its own append, and everywhere else."""

        def end(life: Life) -> None:
            life.kill_master()
            life.pair.start()

        self.run_matrix(end)

    def test_row_R50(self) -> None:
        """The master is killed after both have stored, and before its replies have left."""

        def end(life: Life) -> None:
            life.kill_master(last=False)
            life.pair.start()

        self.run_matrix(end)

    def test_rows_R47_and_R48(self) -> None:
        """The slave is killed between storing and answering, and between receiving and storing."""
        self.run_matrix(Life.kill_slave)

    def test_both(self) -> None:
        """Both are killed."""

        def end(life: Life) -> None:
            life.pair.gregor.restart()
            life.kill_master()
            life.pair.start()

        self.run_matrix(end)

    def test_the_line(self) -> None:
        """The connection breaks, what is on the way is lost in either direction."""
        self.run_matrix(lambda life: life.pair.lose() if life.pair.wire is not None else None)

    def test_frames_of_the_old_connection_arrive_late(self) -> None:
        """The slave was frozen: it does what the old connection brought after the new one was
        joined."""

        def end(life: Life) -> None:
            pair = life.pair
            wire = pair.wire
            assert wire is not None
            late = wire.take()
            wire.ended = True
            wire.link.lose()
            pair.wire = None
            pair.runtime.advance(0)
            pair.connect()
            wire.line.receive(late)
            pair.settle()
            life.note(pair.send(pair.client(), put(b"meanwhile", 9, 1)))
            wire.line.lost()
            pair.advance(11, 1)  # the next look at the slave's ends

        self.run_matrix(end)


class DiskMatrix(SynchronousTestCase):
    """The master's process ends at each of its calls of the disk, or one of them fails."""

    def run_matrix(self, make: Callable[[Platters, int], CrashDisk], threshold: int) -> int:
        """
        :param make: the disk of a run.
        :returns: how many runs there were.
        """
        number = 0
        while True:
            number += 1
            root = self.mktemp()
            disk = make(Platters(root, random.Random(number)), number)
            pair = Pair(root, unflush_threshold=threshold, max_segment_size=100, disk=disk)
            acknowledged: list[bytes] = []
            died = False
            try:
                pair.connect()
                client = pair.client()
                for count in range(3):
                    chunk = b"".join(put(b"%d" % n * 30, n) for n in range(count + 1))
                    acknowledged.append(pair.send(client, chunk))
            except Killed:
                died = True
            if len(disk.calls) < number:
                return number
            disk.end()
            self.check(pair, acknowledged, died)

    def check(self, pair: Pair, acknowledged: list[bytes], died: bool) -> None:
        """What a new process finds, or the same continues with."""
        pair.system["disk"] = Disk()
        pair.restart()
        pair.connect()
        pair.advance(2, 0.5)
        log = pair.role.logs.get(("test", 0))
        if log is not None:
            self.assertEqual(log.standing, Standing.JOINED)
        self.assertEqual(pair.own(), pair.slaves())
        for part in b"".join(acknowledged).split(b"result 200")[1:]:
            message_id, _, offset = map(int, part.partition(b"\r\n")[2].split(b"result")[0].split())
            found = pair.own()[offset + 8 : offset + 16]
            self.assertEqual(found, message_id.to_bytes(8, "big", signed=True))

    def test_dies(self) -> None:
        """At each call, also in the middle of a write."""
        for threshold in (0, 1000):
            for torn in (False, True):
                runs = self.run_matrix(
                    lambda platters, number: CrashDisk(platters, die_at=number, torn=torn),
                    threshold,
                )
                self.assertGreater(runs, 8)

    def test_fails(self) -> None:
        """One call fails, and the process continues."""
        for threshold in (0, 1000):
            self.run_matrix(lambda platters, number: CrashDisk(platters, fail_at=number), threshold)


class FullDiskTests(SynchronousTestCase):
    """The master's disk is full after the slave has acknowledged."""

    def test_row_R51(self) -> None:
        """One 500 with the master's text; the partition refuses until it has fetched what it lacks,
        and continues by itself when there is room."""
        for threshold in (0, 1000):
            disk = FullDisk()
            pair = Pair(self.mktemp(), unflush_threshold=threshold, disk=disk)
            pair.connect()
            client = pair.client()
            pair.send(client, put(b"first"))
            disk.full = True
            replies = pair.send(client, put(b"second", 2) + put(b"third", 3))
            self.assertEqual(replies.count(b"result "), 2)
            self.assertEqual(replies.count(b"[master 'meta://localhost:8123']"), 2)
            self.assertIn(b"[slave ", pair.send(client, put(b"fourth", 4)))
            pair.advance(3, 0.5)
            self.assertIn(b"[slave ", pair.send(client, put(b"fourth", 4)))
            disk.full = False
            pair.advance(3, 0.5)
            self.assertEqual(pair.own(), pair.slaves())
            self.assertIn(b"result 200", pair.send(client, put(b"fifth", 5)))
            self.assertEqual(pair.own(), pair.slaves())
            pair.gregor.verify()
            counted = pair.broker.responders.figures.take().statistics
            self.assertEqual((6, 4), (counted.cmd_put, counted.put_failed))

    def test_nobody_puts_meanwhile(self) -> None:
        """What could not be written here is fetched when there is room."""
        for threshold in (0, 1000):
            disk = FullDisk()
            pair = Pair(self.mktemp(), unflush_threshold=threshold, disk=disk)
            pair.connect()
            client = pair.client()
            pair.send(client, put(b"first"))
            disk.full = True
            self.assertIn(b"[master ", pair.send(client, put(b"second")))
            disk.full = False
            pair.advance(3, 0.5)
            self.assertEqual(pair.own(), pair.slaves())
            self.assertEqual(pair.log().standing, Standing.JOINED)


class FullDisk(Disk):
    """Takes nothing while it is full."""

    __slots__ = ("full",)

    def __init__(self) -> None:
        self.full = False

    def write(self, fd: int, data: bytes, position: int) -> int:
        """See ``Disk``."""
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(fd, data, position)
