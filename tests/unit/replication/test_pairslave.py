"""The slave of a pair: rows R32, R42, R44 and R46 of section 10, texts, faults, and two masters."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis import seldom
from metamorphosis.message import encode_record
from metamorphosis.replication.pairslave import unbroken
from metamorphosis.replication.pairslave.probes import FILE_NAME, DiskLook
from metamorphosis.replication.role import JOINING_GROUP, SLAVE
from metamorphosis.store.disk import Disk
from metamorphosis.threads import SynchronousThreads
from tests.support.scriptedlogs import PROBE
from tests.support.scriptedsamsa import ScriptedSamsa
from tests.support.scriptedwire import MemoryWire
from tests.support.serving import URL, Broker, Client
from tests.support.slaves import SlaveBroker, sync
from tests.unit.broker.test_hotpath import log

PLACE = f"Put message to [broker '{URL}'] [partition '{{}}'] failed."
PROBE_FRAME = b"sync %b 0 4 0 9 1484750348 -5\r\ntest" % PROBE.encode()


def reply(status: int, opaque: int, text: str) -> bytes:
    """A ``result`` frame."""
    body = text.encode()
    return b"result %d %d %d\r\n%b" % (status, len(body), opaque, body)


class SlaveTestCase(SynchronousTestCase):
    """A slave, and a master that is strict about its answers."""

    options: dict[str, Any] = {"unflush_threshold": 1000}

    def setUp(self) -> None:
        """Connect them."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.slave = SlaveBroker(self.directory, **self.options)
        self.samsa = ScriptedSamsa(threshold=3)
        self.wire = self.join(self.samsa)

    def join(self, samsa: ScriptedSamsa, host: str = "10.0.0.1") -> MemoryWire:
        """A connection of a master."""
        client = self.client(host)
        return MemoryWire(
            samsa, client.connection, client.transport, lambda: self.slave.clock.advance(0)
        )

    def client(self, host: str = "10.0.0.9") -> Client:
        """A connection from there."""
        client = Client.__new__(Client)
        client.broker = self.slave
        client.transport = StringTransport(peerAddress=IPv4Address("TCP", host, 4000))
        client.connection = self.slave.factory.buildProtocol(None)
        client.connection.makeConnection(client.transport)
        return client

    def put(self, body: bytes, partition: int = 0, **options: Any) -> Any:
        """A record of the master, and its answer."""
        sent = self.samsa.put("test", partition, body, **options)
        self.wire.pump()
        self.samsa.verify()
        return sent

    def assertSame(self) -> None:
        """Every partition is what the master has."""
        self.slave.clock.advance(1)  # what is written can be read when it is flushed
        expected = {place: bytes(each.data) for place, each in self.samsa.logs.items()}
        self.assertEqual(expected, log(self.slave))
        self.assertEqual([], [each for each in self.samsa.parted if each.offset is not None])


class RecordTests(SlaveTestCase):
    """Records of every shape."""

    def test_row_R32_both_forms(self) -> None:
        """With and without a checksum, in the form with 7 tokens, flags and ids of any kind."""
        for form in (
            {},
            {"checksum": -1},
            {"before_1_4_4": True},
            {"flag": 5},
            {"flag": -(1 << 31)},
            {"message_id": 7},
            {"message_id": 7},
            {"message_id": -(1 << 63)},
        ):
            sent = self.put(b"hello", **form)
            self.assertEqual((200, sent.offset), (sent.status, sent.told))
        self.put(b"")
        self.put(bytes(1 << 20), partition=1)
        self.assertSame()

    def test_pipelined(self) -> None:
        """In the order in which they came, over several partitions, in one chunk."""
        for number in range(3000):
            self.samsa.put("test", number % 2, b"message %d" % number)
        self.wire.pump()
        self.samsa.verify()
        self.assertEqual(0, self.samsa.unanswered)
        self.assertSame()

    def test_refusals(self) -> None:
        """To the byte; nothing is stored, and the connection continues."""
        client = self.client()
        wrong = b"sync %b 5 0 7 %b1\r\nhello"
        self.slave.close_partitions("test", (1, 1))
        where = PLACE.format("test-1")
        for place, checksum, status, text in (
            (b"test 1", b"", 403, f"{where}Detail:Partition[0-1] has been closed"),
            (b"test 2", b"", 500, PLACE.format("test-2") + "Detail:wrong partition 2"),
            (b"test -1", b"", 500, PLACE.format("test--1") + "Detail:wrong partition -1"),
            (
                b"other 0",
                b"",
                500,
                PLACE.format("other-0") + "Detail:The server do not accept topic other",
            ),
            (
                b"test 0",
                b"5 ",
                500,
                PLACE.format("test-0") + "Detail:Checksum failure,message may be corrupted when"
                " transfering on networking.",
            ),
        ):
            for _ in range(2):
                self.assertEqual(reply(status, 1, text), client.send(wrong % (place, checksum)))
        self.assertEqual(0, sum(map(len, log(self.slave).values())))
        self.assertTrue(client.send(sync(b"hello")).startswith(b"result 200 "))
        self.assertEqual(11, self.slave.responders.figures.take().statistics.cmd_put)

    def test_heartbeat_and_reads_of_the_master(self) -> None:
        """``version``, ``offset`` and ``get`` work on its connection, as joining needs them."""
        self.put(b"hello", message_id=7)
        self.samsa.heartbeat()
        self.wire.pump()
        self.samsa.verify()
        client = self.client("10.0.0.1")
        client.send(sync(b"hello"))
        self.slave.clock.advance(1)
        self.assertEqual(b"result 200 1 2\r\n0", client.send(b"offset test g 0 0 2\r\n"))
        self.assertEqual(
            b"result 301 2 3\r\n50", client.send(b"get test g 0 9223372036854775807 9 3\r\n")
        )
        record = encode_record(7, 0, b"hello")
        self.assertEqual(b"value 25 4\r\n" + record, client.send(b"get test g 0 25 1000 4\r\n"))

    def test_row_R42_transactions(self) -> None:
        """Every step but END is refused with its own text."""
        client = self.client()
        for step, text in (
            ("BEGIN", "beginTransaction"),
            ("PREPARE", "prepareTransaction"),
            ("COMMIT_ONE_PHASE", "commitTransaction"),
            ("COMMIT_TWO_PHASE", "commitTransaction"),
            ("ROLLBACK", "rollbackTransaction"),
            ("FORGET", "forgetTransaction"),
            ("RECOVER", "getPreparedTransactions"),
        ):
            answer = client.send(f"transaction XID:1:aa:bb:q s {step} 3\r\n".encode())
            self.assertEqual(reply(500, 3, f"Unsupported {text}"), answer)
        self.assertEqual(b"", client.send(b"transaction XID:1:aa:bb:q s END 3\r\n"))

    def test_row_R45_plain_broker(self) -> None:
        """A broker without the role answers with the original's text."""
        client = Broker(self.mktemp()).client()
        text = "\u672a\u6ce8\u518c\u8bf7\u6c42\u5904\u7406\u5668"
        for _ in range(2):
            answer = client.send(sync(b"hello", opaque=b"7")).decode()
            self.assertRegex(answer, rf"^result 503 \d+ 7\r\n{text}.*network\.SyncCommand$")

    def test_row_R44_direct_put(self) -> None:
        """Is refused on every connection, in every form, also the hot path's."""
        for client in (self.client(), self.client("10.0.0.1")):
            client.send(sync(b"hello"))
            for request in (b"put test 0 5 0 7\r\nhello", b"put test -1 5 0 -1 TX:s:1 7\r\nhello"):
                self.assertEqual(reply(403, 7, SLAVE), client.send(request))
        self.assertEqual({("test", 0)}, log(self.slave).keys())

    def test_stats(self) -> None:
        """``slave false``; every ``sync`` counts in ``cmd_put``, refused ones and probes too."""
        client = self.client()
        client.send(sync(b"hello") * 3 + sync(b"x", partition=b"9") + PROBE_FRAME)
        self.slave.clock.advance(0)
        lines = client.send(b"stats  8\r\n").decode().split("\r\n")
        self.assertIn("slave false", lines)
        self.assertIn("cmd_put 5", lines)

    def test_figures(self) -> None:
        """``stats replication`` says whether there is a master, and where the log ends."""
        text = self.client().send(b"stats replication 8\r\n").decode()
        self.assertIn("role synchronous slave\r\nstate alone\r\n", text)
        self.put(b"hello")
        text = self.client().send(b"stats replication 8\r\n").decode()
        self.assertIn("state paired\r\n", text)
        self.assertIn("other 10.0.0.1\r\n", text)
        self.assertIn("test part 0 min_offset 0 max_offset 25", text)

    def test_garbage(self) -> None:
        """Ends the connection that it came on; the next one continues where the log ends."""
        self.put(b"hello")
        client = self.client("10.0.0.1")
        client.send(sync(b"hello")[:-2] + b"\r\n\xff\xff garbage\r\n")
        self.assertTrue(client.closed)
        self.wire = self.join(self.samsa)
        sent = self.put(b"next", line=self.wire.line)
        self.assertEqual((200, 25), (sent.status, sent.told))


class GroupCommitTests(SlaveTestCase):
    """``unflushThreshold=0``: acknowledged is flushed."""

    options: dict[str, Any] = {"unflush_threshold": 0}

    def test_answers_after_the_flush(self) -> None:
        """One flush for all that wait, and none for each."""
        self.put(b"first")
        self.slave.threads.hold()
        for number in range(500):
            self.samsa.put("test", 0, b"message %d" % number)
            self.wire.pump()
        self.assertEqual(500, self.samsa.unanswered)
        calls: list[int] = []
        self.patch(Disk, "sync", lambda disk, fd: calls.append(fd))
        self.slave.threads.release()
        self.wire.pump()
        self.samsa.verify()
        self.assertEqual(0, self.samsa.unanswered)
        self.assertLessEqual(len(calls), 3)
        self.assertSame()


class FullDisk(Disk):
    """
    Takes ``room`` bytes of messages.

    :ivar room: None: any number.
    """

    room: int | None = None

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """Less than all, or ENOSPC."""
        if self.room is None:
            return super().write(fd, data, position)
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(fd, bytes(data)[: self.room], position)
        self.room -= written
        return written


class FullDiskCase(SlaveTestCase):
    """A disk that a test fills."""

    def setUp(self) -> None:
        """See ``SlaveTestCase``."""
        self.disk = FullDisk()
        self.options = {**self.options, "disk": self.disk}
        super().setUp()


class FullDiskTests(FullDiskCase):
    """No room for the records of the master."""

    def test_refused_without_detail(self) -> None:
        """What does not fit is refused and on no disk; what fits is acknowledged; with room again
        records are taken."""
        self.put(b"hello")
        self.disk.room = 60
        sent = [self.samsa.put("test", 0, b"hello") for _ in range(5)]
        self.wire.pump()
        self.samsa.verify()
        self.assertEqual([200, 200, 500, 500, 500], [each.status for each in sent if each])
        texts = {each.text for each in sent[2:] if each}
        self.assertEqual({PLACE.format("test-0")}, texts)
        self.slave.clock.advance(1)
        self.assertEqual([75], [len(each) for each in log(self.slave).values()])
        self.disk.room = None
        again = self.put(b"again")
        self.assertEqual((200, 75), (again.status, again.told))


class JoiningTests(FullDiskCase):
    """A master that joins sends what it has acknowledged before: no record may be left out."""

    def ask(self, client: Client, group: str, partition: int = 0) -> bytes:
        """Where the log begins."""
        return client.send(b"offset test %b %d 0 3\r\n" % (group.encode(), partition))

    def statuses(self, answers: bytes) -> list[int]:
        """Of some answers."""
        return [int(each) for each in re.findall(rb"result (\d+) ", answers)]

    def joining(self) -> Client:
        """A master that has asked, and has sent one record to each of two partitions."""
        client = self.client("10.0.0.1")
        for partition in (0, 1):
            self.ask(client, JOINING_GROUP, partition)
            answer = client.send(sync(b"first", partition=b"%d" % partition))
            self.assertEqual([200], self.statuses(answer))
        return client

    def test_behind_a_refused_record(self) -> None:
        """Everything is refused, on the hot path and off it, until the master has asked again; not
        in another partition."""
        client = self.joining()
        self.disk.room = 0
        self.assertEqual([500], self.statuses(client.send(sync(b"second"))))
        self.disk.room = None
        for opaque in (b"1", b"+1"):
            answer = client.send(sync(b"third", opaque=opaque))
            self.assertIn(unbroken.REASON.encode(), answer)
        self.assertEqual([200], self.statuses(client.send(sync(b"x", partition=b"1"))))
        self.ask(client, JOINING_GROUP)
        answer = client.send(sync(b"second") + sync(b"third"))
        self.assertEqual([200, 200], self.statuses(answer))
        self.assertTrue(answer.endswith(b" 51"), answer)

    def test_only_while_it_joins(self) -> None:
        """A master of the original never asks, and one of ours asks in another group when it has
        joined: records after a refused one are stored then."""
        client = self.joining()
        self.ask(client, "metamorphosis-pair")
        self.disk.room = 0
        self.assertEqual([500], self.statuses(client.send(sync(b"second"))))
        self.disk.room = None
        self.assertEqual([200], self.statuses(client.send(sync(b"third"))))

    def test_topic_that_is_refused(self) -> None:
        """Also for another reason than the disk: a reload comes in the middle."""
        client = self.joining()
        self.slave.close_partitions("test", (0, 0))
        self.assertEqual([403], self.statuses(client.send(sync(b"second"))))
        self.slave.close_partitions("test")
        self.assertEqual([500], self.statuses(client.send(sync(b"third"))))
        self.ask(client, JOINING_GROUP)
        self.assertEqual([200], self.statuses(client.send(sync(b"second"))))

    def test_record_that_is_refused(self) -> None:
        """Also for what it is, and not because of its partition."""
        client = self.joining()
        self.assertEqual([500], self.statuses(client.send(sync(b"second", checksum=b"5"))))
        answer = client.send(sync(b"third"))
        self.assertIn(unbroken.REASON.encode(), answer)
        self.ask(client, JOINING_GROUP)
        self.assertEqual([200], self.statuses(client.send(sync(b"second"))))

    def test_of_one_connection(self) -> None:
        """A new connection begins anew, and a question on another one has no effect."""
        client = self.joining()
        self.ask(self.client("10.0.0.7"), "metaq")
        self.disk.room = 0
        self.assertEqual([500], self.statuses(client.send(sync(b"second"))))
        self.disk.room = None
        self.assertEqual([500], self.statuses(client.send(sync(b"third"))))
        newer = self.client("10.0.0.1")
        self.assertEqual([200], self.statuses(newer.send(sync(b"second"))))
        client.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual([200], self.statuses(newer.send(sync(b"third"))))

    def test_flush_that_fails(self) -> None:
        """With group commit: what came before the refusal was known is refused with it."""
        self.disk = FullDisk()
        slave = self.slave = SlaveBroker(self.mktemp(), unflush_threshold=0, disk=self.disk)
        client = self.joining()
        slave.threads.hold()
        wrong = OSError(errno.EIO, "Input/output error")

        def fail(disk: Disk, fd: int) -> None:
            raise wrong

        answers = client.send(sync(b"second")) + client.send(sync(b"third"))
        patched = self.patch(Disk, "sync", fail)
        slave.threads.release()
        patched.restore()
        answers += client.send(sync(b"fourth"))
        slave.clock.advance(0)
        answers += client.received()
        self.assertEqual([500, 500, 500], self.statuses(answers))
        self.ask(client, JOINING_GROUP)
        self.assertTrue(client.send(sync(b"second")).endswith(b" 25"))


class ProbeTests(SlaveTestCase):
    """R46: the topic of section 4.6."""

    def test_row_R46_probe(self) -> None:
        """200, in its place among the answers, and nothing is stored or left behind."""
        sent = self.samsa.probe()
        self.put(b"hello")
        self.assertEqual(200, sent.status)
        self.assertFalse(self.samsa.probing)
        names = [name for name in os.listdir(self.directory) if PROBE in name or "probe" in name]
        self.assertEqual([], names)
        self.assertSame()

    def test_waits_for_the_look(self) -> None:
        """The answer comes when the disk has answered, and later ones after it."""
        self.slave.threads.hold()
        self.samsa.probe()
        self.samsa.put("test", 0, b"hello")
        self.wire.pump()
        self.assertEqual(2, self.samsa.unanswered)
        self.slave.threads.release()
        self.wire.pump()
        self.assertEqual(0, self.samsa.unanswered)
        self.samsa.verify()

    def test_what_a_java_slave_left(self) -> None:
        """Its directory of probes disturbs nothing and stays as it is."""
        directory = os.path.join(self.directory, f"{PROBE}-0")
        os.mkdir(directory)
        left = encode_record(1, 0, b"test")
        with open(os.path.join(directory, f"{0:020}.meta"), "wb") as file:
            file.write(left)
        self.wire.lose()
        slave = self.slave = SlaveBroker(self.directory)
        loaded: list[None] = []
        slave.stores.load().addCallback(loaded.append)
        self.assertEqual([None], loaded)
        self.wire = self.join(self.samsa)
        sent = self.samsa.probe()
        self.wire.pump()
        self.assertEqual(200, sent.status)
        self.assertEqual(left, log(slave)[PROBE, 0])

    def test_broken_disk(self) -> None:
        """The probe is refused like a record that cannot be written, which is said once; then it
        is answered again."""
        wrong = OSError(errno.EIO, "Input/output error")
        self.patch(Disk, "overwrite", lambda disk, path: self.raise_(wrong))
        client = self.client()
        with capturedLogs() as events:
            for _ in range(3):
                answer = client.send(PROBE_FRAME)
                self.assertEqual(reply(500, -5, PLACE.format(f"{PROBE}-0")), answer)
        errors = [formatEvent(e) for e in events if e["log_level"] is LogLevel.error]
        self.assertEqual(1, len(errors), errors)
        self.assertIn("A probe of the master is refused", errors[0])

    def raise_(self, error: Exception) -> Any:
        """For a lambda."""
        raise error

    def test_every_data_path(self) -> None:
        """Is looked at; one that is not there yet is none to look at."""
        written: list[str] = []

        class Noting(Disk):
            def overwrite(self, path: str) -> int:
                written.append(path)
                return super().overwrite(path)

        paths = [os.path.abspath(self.mktemp()) for _ in range(3)]
        for path in paths[:2]:
            os.mkdir(path)
        looked: list[OSError | None] = []
        look = DiskLook(SynchronousThreads(), Noting())
        look.ask(paths[0], paths, looked.append)
        self.assertEqual([None], looked)
        expected = {os.path.join(path, FILE_NAME) for path in paths[:2]}
        self.assertEqual(expected, set(written))
        self.assertEqual([[], []], [os.listdir(path) for path in paths[:2]])
        look.ask(paths[2], [], looked.append)
        self.assertIsInstance(looked[-1], FileNotFoundError)

    def test_one_look_at_a_time(self) -> None:
        """A disk that hangs has one thread, however many probes come."""
        threads = SynchronousThreads()
        threads.hold()
        look = DiskLook(threads)
        looked: list[OSError | None] = []
        submitted: list[Any] = []
        submit = threads.submit
        self.patch(
            threads,
            "submit",
            lambda work, done: (submitted.append(work), submit(work, done)),
        )
        for _ in range(5):
            look.ask(self.directory, [], looked.append)
        threads.release()
        self.assertEqual(([None] * 5, 1), (looked, len(submitted)))
        look.ask(self.directory, [], looked.append)
        self.assertEqual(6, len(looked))


class TwoMastersTests(SlaveTestCase):
    """The connection whose records are stored."""

    def test_newer_connection_from_the_same_host(self) -> None:
        """Takes over: the older is closed, and nothing that it still brings is stored."""
        self.put(b"hello")
        older = self.wire
        self.wire = self.join(self.samsa)
        sent = self.samsa.put("test", 0, b"newer", line=self.wire.line)
        self.wire.pump()
        assert sent is not None
        self.assertEqual(200, sent.status)
        self.assertTrue(older.transport.disconnected or older.transport.disconnecting)
        older.protocol.dataReceived(sync(b"late"))
        self.slave.clock.advance(0)
        self.assertNotIn(b"late", log(self.slave)["test", 0])
        self.assertSame()

    def test_frames_of_the_older_connection(self) -> None:
        """Those that it has brought and that were not taken when the newer one took over are never
        taken: the newer one has asked where the log ends, and may have had its answer."""
        older = self.client("10.0.0.1")
        unusual = sync(b"older", opaque=b"+1")  # off the hot path: a turn takes some of them
        room = older.connection.inbox.room()
        chunk = unusual * 150
        room[: len(chunk)] = chunk
        older.connection.received(len(chunk))
        taken = self.stored()
        self.assertTrue(0 < taken < 150, taken)
        newer = self.client("10.0.0.1")
        self.assertTrue(newer.send(sync(b"newer", opaque=b"2")).startswith(b"result 200 "))
        self.slave.clock.advance(1)
        self.assertEqual(taken + 1, self.stored())
        self.assertTrue(older.closed)

    def stored(self) -> int:
        """Records of the partition, written or not."""
        store = self.slave.stores.get("test", 0)
        assert store is not None
        return (store.next_offset - store.min_offset) // len(encode_record(0, 0, b"older"))

    def test_probes_take_nothing_over(self) -> None:
        """A master that has left ZooKeeper sends probes over every connection; the one with records
        stays the master's, and the probe is answered."""
        self.put(b"hello")
        for host, status in (("10.0.0.1", 200), ("10.0.0.2", 500)):
            answer = self.client(host).send(PROBE_FRAME)
            self.assertTrue(answer.startswith(b"result %d " % status), answer)
            self.assertEqual("10.0.0.1", self.slave.role.figures().other)
        self.assertEqual(200, self.put(b"more").status)
        self.assertFalse(self.wire.ended)
        self.assertSame()

    def test_probe_before_any_record(self) -> None:
        """Is answered, and the connection becomes that of the master by its first record."""
        other = self.client("10.0.0.2")
        self.assertTrue(other.send(PROBE_FRAME).startswith(b"result 200 "))
        self.assertIsNone(self.slave.role.figures().other)
        self.put(b"hello")
        self.assertEqual("10.0.0.1", self.slave.role.figures().other)

    def test_second_host_is_refused(self) -> None:
        """With a text that says why, and a line in the log, not one for each record."""
        self.put(b"hello")
        other = self.client("10.0.0.2")
        text = (
            PLACE.format("test-0")
            + "Detail:this slave has a master at 10.0.0.1; it takes another one when that is gone"
        )
        with capturedLogs() as events:
            for _ in range(100):
                self.assertEqual(reply(500, 1, text), other.send(sync(b"other")))
            self.assertEqual(2, len(other.send(PROBE_FRAME).split(b"\r\n")))
            self.slave.clock.advance(seldom.SECONDS)
            other.send(sync(b"other"))
        lines = [formatEvent(e) for e in events if "second master" in str(e.get("log_format"))]
        self.assertEqual(2, len(lines), lines)
        self.assertIn("left out: 100", lines[1])
        self.assertIn(
            "A second master at 10.0.0.2 is refused; the one of this pair is at", lines[0]
        )
        self.assertEqual(200, self.put(b"more").status)
        self.assertSame()

    def test_second_host_after_the_first(self) -> None:
        """When the first is gone, another one may be the master."""
        self.put(b"hello")
        self.wire.lose()
        other = self.client("10.0.0.2")
        self.assertTrue(other.send(sync(b"other")).startswith(b"result 200 "))
        self.assertEqual("10.0.0.2", self.slave.role.figures().other)

    def test_rules_are_asked_after_a_takeover(self) -> None:
        """A partition that was closed meanwhile stays closed."""
        self.put(b"hello")
        self.slave.close_partitions("test", (0, 0))
        self.wire = self.join(self.samsa)
        sent = self.samsa.put("test", 0, b"newer", line=self.wire.line)
        self.wire.pump()
        assert sent is not None
        self.assertEqual(403, sent.status)


class BoundTests(SlaveTestCase):
    """What waits in memory."""

    def test_unflushed_records_are_bounded(self) -> None:
        """With a disk that does not answer, no more than max-connection-bytes are taken."""
        slave = SlaveBroker(self.mktemp(), unflush_threshold=0)
        client = slave.client()
        client.send(sync(b"hello"))
        slave.threads.hold()
        frame = sync(bytes(100_000))
        sent = 0
        while client.transport.producerState == "producing":
            client.send(frame)
            sent += len(frame)
            self.assertLess(sent, 3 * slave.settings.max_connection_bytes)
        self.assertGreater(sent, slave.settings.max_connection_bytes // 2)
        slave.threads.release()
        slave.clock.advance(0)
        self.assertEqual("producing", client.transport.producerState)
