"""The scripted peers of replication do what the original does, and see every fault of ours."""

from __future__ import annotations

import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import iterate_records
from tests.support.scriptedpeers import (
    Copying,
    Fault,
    ScriptedFollower,
    ScriptedGregor,
    ScriptedSamsa,
    Step,
    record,
)
from tests.support.scriptedwire import (
    Complaint,
    Line,
    MemoryWire,
    ScriptedPeer,
    SocketWire,
)
from tests.support.serving import Broker


class Collecting(ScriptedPeer):
    """Says what a test says, and keeps what it hears."""

    lengths = {"result": 2, "value": 1}

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[list[str], bytes]] = []

    def frame(self, line: Line, frame: Any) -> None:
        """See ``ScriptedPeer``."""
        self.heard.append((frame.words, frame.body))


class Joined:
    """Two scripted peers and what is on its way between them."""

    def __init__(self, one: ScriptedPeer, other: ScriptedPeer) -> None:
        self.way: list[tuple[str, bytes]] = []
        self.one = one.open(lambda data: self.way.append(("other", data)), lambda: self._end("one"))
        self.other = other.open(
            lambda data: self.way.append(("one", data)), lambda: self._end("other")
        )

    def _end(self, closing: str) -> None:
        """What was said before arrives before."""
        self.way.append(("one" if closing == "other" else "other", b""))

    def pump(self) -> None:
        """Until nothing is on its way."""
        while self.way:
            side, data = self.way.pop(0)
            line = self.one if side == "one" else self.other
            line.receive(data) if data else line.lost()


class PairTests(SynchronousTestCase):
    """A scripted samsa and a scripted gregor are the original's pair."""

    def setUp(self) -> None:
        self.samsa = ScriptedSamsa(threshold=3)
        self.gregor = ScriptedGregor({"t": 2})
        self.join()

    def join(self) -> None:
        """Connect them."""
        self.wire = Joined(self.samsa, self.gregor)

    def put(self, body: bytes, partition: int = 0, **options: Any) -> Any:
        """A put and its answer."""
        sent = self.samsa.put("t", partition, body, **options)
        self.wire.pump()
        return sent

    def logs(self) -> tuple[bytes, bytes]:
        """Of both, partition 0."""
        return bytes(self.samsa.logs["t", 0].data), bytes(self.gregor.log("t", 0).data)

    def test_both_have_it(self) -> None:
        """Every form of a put; equal logs, the offsets of both agree."""
        self.put(b"one")
        self.put(b"two", checksum=-1)
        self.put(b"three", before_1_4_4=True)
        last = self.put(b"four", flag=5)
        self.assertEqual((200, last.offset), (last.status, last.told))
        one, other = self.logs()
        self.assertEqual(one, other)
        self.assertEqual(
            [b"one", b"two", b"three", b"four"], [each.body for each in iterate_records(one)]
        )
        self.assertEqual([], self.samsa.parted)
        self.verify()

    def verify(self) -> None:
        """Neither has a complaint."""
        self.samsa.verify()
        self.gregor.verify()

    def test_bytes(self) -> None:
        """Those of section 8.2."""
        self.samsa = ScriptedSamsa()
        self.join()
        self.put(b"hello", checksum=907060870)
        self.assertEqual(
            b"sync t 0 5 0 -5468920081952014336 907060870 -2147483648\r\nhello",
            bytes(self.wire.one.said),
        )
        self.assertEqual(
            b"result 200 24 -2147483648\r\n-5468920081952014336 0 0", bytes(self.wire.other.said)
        )

    def test_divergence(self) -> None:
        """A refused record stays on the master only, and the different offset of the next one is
        not noticed [BUG-19]."""
        self.gregor.faults[1] = Fault.REFUSE
        refused = self.put(b"first")
        self.assertEqual(500, refused.status)
        second = self.put(b"second")
        self.assertEqual((200, 25, 0), (second.status, second.offset, second.told))
        self.assertEqual([second], self.samsa.parted)

    def test_refusals(self) -> None:
        """Texts of section 5."""
        prefix = "Put message to [broker 'meta://gregor:8123'] [partition 't-{}'] failed."
        self.gregor.closed_partitions.add(("t", 1))
        for options, status, text in (
            ({"partition": 2}, 500, prefix.format(2) + "Detail:wrong partition 2"),
            ({"partition": 1}, 403, prefix.format(1) + "Detail:Partition[0-1] has been closed"),
            ({"checksum": 5}, 500, prefix.format(0) + "Detail:Checksum failure,message may be"),
        ):
            sent = self.put(b"x", **options)
            self.assertEqual(status, sent.status)
            self.assertTrue(sent.text.startswith(text), sent.text)
        strange = self.samsa.put("u", 0, b"x")
        self.wire.pump()
        assert strange is not None
        self.assertIn("Detail:The server do not accept topic u", strange.text)
        self.assertEqual(b"", bytes(self.gregor.log("t", 0).data))

    def test_probe_is_stored(self) -> None:
        """In a partition of its own [BUG-20], and it ends the probing."""
        self.samsa.probing = True
        probe = self.samsa.probe()
        self.wire.pump()
        self.assertEqual(
            (200, b"test"),
            (probe.status, bytes(self.gregor.log("_metaq_slave_status_test", 0).data)[20:]),
        )

    def test_withdrawal(self) -> None:
        """Failures in a row count, a success ends the row."""
        self.gregor.faults = {1: Fault.REFUSE, 2: Fault.FAIL, 4: Fault.REFUSE, 5: Fault.SILENT}
        for body in (b"1", b"2", b"3"):
            self.put(body)
        self.assertEqual((0, 0), (self.samsa.failures, self.samsa.withdrawals))
        self.put(b"4")
        self.samsa.time_out(self.put(b"5"))
        self.samsa.put("t", 0, b"6")
        self.gregor.kill()
        self.wire.pump()
        self.assertEqual(
            (0, 1, True), (self.samsa.failures, self.samsa.withdrawals, self.samsa.probing)
        )

    def test_faults(self) -> None:
        """What each leaves in the log, and what the master hears."""
        for fault, stored, status, offset in (
            (Fault.REFUSE, False, 500, None),
            (Fault.FAIL, False, 500, None),
            (Fault.WRONG_OFFSET, True, 200, 7),
            (Fault.SILENT, True, None, None),
            (Fault.LATE, True, None, None),
            (Fault.DEAF, False, None, None),
            (Fault.CUT, True, None, None),
            (Fault.CLOSE, True, None, None),
            (Fault.CLOSE_FIRST, False, None, None),
        ):
            self.setUp()
            self.gregor.faults[1] = fault
            sent = self.put(b"x")
            self.assertEqual((status, offset), (sent.status, sent.told), fault)
            self.assertEqual(stored, bool(self.gregor.log("t", 0).data), fault)
            self.assertEqual(
                fault not in (Fault.CUT, Fault.CLOSE, Fault.CLOSE_FIRST), self.wire.one.is_open
            )

    def test_faults_that_are_noticed(self) -> None:
        """A strict master complains of these."""
        for fault in (Fault.WRONG_ID, Fault.STRANGE_OPAQUE, Fault.GARBAGE):
            self.setUp()
            self.gregor.faults[1] = fault
            self.put(b"x")
            self.assertRaises(Complaint, self.samsa.verify)
        self.setUp()
        self.gregor.faults[1] = Fault.TOO_LONG
        self.put(b"x")
        self.put(b"y")
        self.assertRaises(Complaint, self.samsa.verify)

    def test_late_and_frozen(self) -> None:
        """Late answers come at release, a frozen gregor does at thaw what came meanwhile."""
        self.gregor.faults[1] = Fault.LATE
        late = self.put(b"late")
        self.gregor.release()
        self.wire.pump()
        self.assertEqual(200, late.status)
        self.gregor.freeze()
        frozen = self.put(b"frozen")
        self.assertEqual((None, 1), (frozen.status, self.samsa.unanswered))
        self.gregor.thaw()
        self.wire.pump()
        self.assertEqual((200, 0), (frozen.status, self.samsa.unanswered))

    def test_overtaking(self) -> None:
        """Answers of two partitions may come the other way round; of one they may not."""
        self.gregor.overtake = True
        self.samsa.put("t", 0, b"0")
        self.samsa.put("t", 0, b"1")
        self.samsa.put("t", 1, b"2")
        self.wire.pump()
        said = bytes(self.wire.other.said)
        self.assertTrue(said.startswith(b"result 200 24 -2147483646\r\n"), said)
        self.assertLess(said.index(b"-2147483648"), said.index(b"-2147483647"))
        self.verify()

    def test_hidden_partitions(self) -> None:
        """After a restart it may say 404 for what it has, until something is stored [BUG-26]."""
        self.put(b"x")
        self.gregor.restart(hides=True)
        asking = Collecting()
        self.wire = Joined(asking, self.gregor)
        for request in (
            b"offset t g 0 0 1\r\n",
            b"sync t 0 1 0 -5 -1 3\r\nx",
            b"offset t g 0 0 2\r\n",
        ):
            self.wire.one.write(request)
        self.wire.pump()
        self.assertEqual(["404", "200", "200"], [words[1] for words, _ in asking.heard])
        self.assertEqual(b"-5 0 21", asking.heard[1][1])

    def test_unflushed(self) -> None:
        """What is not flushed is not seen by offset and get."""
        self.put(b"x")
        self.gregor.flushes = False
        self.put(b"y")
        asking = Collecting()
        self.wire = Joined(asking, self.gregor)
        end = b"offset t g 0 9223372036854775807 1\r\n"
        requests = (end, b"get t g 0 21 99 2\r\n", b"get t g 0 9223372036854775807 9 3\r\n")
        for request in requests:
            self.wire.one.write(request)
        self.gregor.flush()
        self.wire.pump()
        self.gregor.flush()
        self.wire.one.write(end)
        self.wire.pump()
        self.assertEqual([b"42"], [asking.heard[-1][1]])

    def test_strictness(self) -> None:
        """No byte may be other than the original writes it."""
        for wrong in (
            b"sync t 0 1 0 5\r\nx",
            b"sync t 00 1 0 5 7 3\r\nx",
            b"sync t 0 1 0 +5 7 3\r\nx",
            b"sync t 0 1 0 9223372036854775808 7 3\r\nx",
            b"sync t 0 1 0 5 -7 -3 3\r\nx",
            b"sync  0 1 0 5 7 3\r\nx",
            b"get t g 0 0 1\r\n",
            b"offset t g 0 0\r\n",
            b"hello\r\n",
        ):
            gregor = ScriptedGregor({"t": 1})
            said: list[bytes] = []
            line = gregor.open(said.append, lambda: None)
            line.receive(wrong)
            self.assertRaises(Complaint, gregor.verify)
            self.assertFalse(line.is_open)

    def test_topic_nodes(self) -> None:
        """Started second it deletes what its master has registered [BUG-17]."""
        deleted: list[str] = []
        self.gregor.delete_topic_nodes(deleted.append)
        self.assertIn("/meta/brokers/topics-sub/t/0-m", deleted)
        self.assertEqual(6, len(deleted))


class FollowerTests(SynchronousTestCase):
    """A scripted follower under a broker of ours in memory."""

    def setUp(self) -> None:
        self.broker = Broker(
            self.mktemp(), {"t1": {"num_partitions": 1}, "t2": {"num_partitions": 1}}
        )

    def follow(self, follower: ScriptedFollower) -> MemoryWire:
        """Connect it."""
        connection = self.broker.factory.buildProtocol(None)
        assert connection is not None
        return MemoryWire(follower, connection, turn=lambda: self.broker.clock.advance(0.5))

    def put(self, topic: str, body: bytes) -> None:
        """A message for the master."""
        checksum = zlib.crc32(body) & 0x7FFFFFFF
        reply = self.broker.client().send(
            b"put %b 0 %d 0 %d 5\r\n%b" % (topic.encode(), len(body), checksum, body)
        )
        self.assertTrue(reply.startswith(b"result 200"), reply)

    def test_trace(self) -> None:
        """What section 3.13 shows, for a partition with records and one without."""
        self.put("t1", b"one")
        follower = ScriptedFollower([("t1", 0), ("t2", 0)])
        wire = self.follow(follower)
        wire.pump()
        self.assertEqual(
            [
                "offset t1 meta-slave-group 0 0",
                "offset t2 meta-slave-group 0 0",
                "offset t1 meta-slave-group 0 0",
                "offset t2 meta-slave-group 0 0",
                "get t1 meta-slave-group 0 0 1048576",
                "get t2 meta-slave-group 0 0 1048576",
                "get t1 meta-slave-group 0 23 1048576",
            ],
            follower.asked,
        )
        self.put("t1", b"two")
        self.put("t2", b"three")
        follower.poll()
        wire.pump()
        for topic, bodies in (("t1", [b"one", b"two"]), ("t2", [b"three"])):
            data = bytes(follower.log(topic, 0).data)
            self.assertEqual(bodies, [each.body for each in iterate_records(data)])
        follower.verify()

    def test_restart(self) -> None:
        """It continues where its log ends."""
        self.put("t1", b"one")
        follower = ScriptedFollower([("t1", 0)])
        self.follow(follower).pump()
        follower.kill()
        self.put("t1", b"two")
        follower.asked.clear()
        self.follow(follower).pump()
        self.assertEqual("get t1 meta-slave-group 0 23 1048576", follower.asked[0])
        self.assertEqual(2, len(follower.log("t1", 0).ids()))
        follower.verify()

    def scripted(self, *answers: bytes) -> tuple[ScriptedFollower, list[str]]:
        """A follower of one partition, and a master that answers these, whatever is asked."""
        follower = ScriptedFollower([("t", 0)])
        line = follower.open(lambda data: None, lambda: None)
        for number, answer in enumerate(answers):
            head, _, body = answer.partition(b"\r\n")
            line.receive(b"%b %d\r\n%b" % (head, number - (1 << 31), body))
        return follower, follower.asked

    def test_gap(self) -> None:
        """It continues at the new offset, after its own end [BUG-6]."""
        one = record(1, 0, b"")
        follower, asked = self.scripted(
            b"result 200 1\r\n0",
            b"result 200 1\r\n0",
            b"value 20\r\n" + one,
            b"result 301 3\r\n500",
            b"value 20\r\n" + record(2, 0, b""),
        )
        follower.verify()
        self.assertEqual((40, 520), (follower.log("t", 0).end, follower.copies["t", 0].position))
        self.assertEqual("get t meta-slave-group 0 520 1048576", asked[-1])

    def test_first_offset(self) -> None:
        """A log that begins above 0 begins there on the slave, too."""
        follower, asked = self.scripted(b"result 200 4\r\n1000")
        self.assertEqual(
            (1000, "get t meta-slave-group 0 1000 1048576"), (follower.log("t", 0).first, asked[-1])
        )

    def test_repeated_id(self) -> None:
        """It is left out, and what follows has wrong offsets [BUG-1]."""
        data = record(1, 0, b"") + record(1, 0, b"xy") + record(2, 0, b"")
        follower, _ = self.scripted(
            b"result 404 0\r\n", b"result 404 0\r\n", b"value 62\r\n" + data
        )
        self.assertEqual([1, 2], follower.log("t", 0).ids())

    def test_bad_record(self) -> None:
        """It asks for an offset, and continues there [BUG-4]."""
        follower, asked = self.scripted(
            b"result 404 0\r\n",
            b"result 404 0\r\n",
            b"value 41\r\n" + record(1, 0, b"") + record(2, 0, b"")[:7] + b"?" * 14,
        )
        self.assertEqual(Step.SEEKING, follower.copies["t", 0].step)
        self.assertEqual("offset t meta-slave-group 0 20", asked[-1])

    def test_long_records(self) -> None:
        """Six replies without a whole record double what it asks for, up to 4 MiB."""
        piece = b"value 24\r\n" + record(1, 0, bytes(100))[:24]
        answers = [b"result 404 0\r\n"] * 2 + [piece] * 8
        follower, asked = self.scripted(*answers)
        self.assertEqual("get t meta-slave-group 0 0 4194304", asked[-1])
        follower.verify()

    def test_strictness(self) -> None:
        """Answers that no master gives."""
        for answer in (
            b"value 1\r\nx",
            b"result 500 0\r\n",
            b"result 200 2\r\n-0",
            b"result 200 1 9\r\n0",
        ):
            follower, _ = self.scripted(answer)
            self.assertRaises(Complaint, follower.verify)
        follower, _ = self.scripted(b"result 404 0\r\n", b"result 404 0\r\n", b"value 0\r\n")
        self.assertRaises(Complaint, follower.verify)

    def test_copying_starts_with_a_question(self) -> None:
        """Nothing is known before."""
        self.assertEqual(Step.MINIMUM, Copying(("t", 0)).step)


class SocketTests(SynchronousTestCase):
    """The same peers over sockets."""

    def test_pair(self) -> None:
        """A samsa dials a gregor, which dies and comes back."""
        gregor, samsa = ScriptedGregor({"t": 1}), ScriptedSamsa()
        listening, dialling = SocketWire(gregor), SocketWire(samsa, None)
        self.addCleanup(listening.end)
        self.addCleanup(dialling.end)
        line = dialling.dial(listening.port)
        sent = [samsa.put("t", 0, b"%d" % number) for number in range(50)]
        dialling.until(lambda: not samsa.unanswered)
        self.assertEqual({200}, {each.status for each in sent if each})
        gregor.restart()
        dialling.until(lambda: not line.is_open)
        dialling.dial(listening.port)
        samsa.put("t", 0, b"more")
        dialling.until(lambda: not samsa.unanswered)
        self.assertEqual(samsa.logs["t", 0].data, gregor.log("t", 0).data)
        samsa.verify()
        gregor.verify()

    def test_frozen(self) -> None:
        """Nothing is read until it thaws."""
        gregor, samsa = ScriptedGregor({"t": 1}), ScriptedSamsa()
        listening, dialling = SocketWire(gregor), SocketWire(samsa, None)
        self.addCleanup(listening.end)
        self.addCleanup(dialling.end)
        dialling.dial(listening.port)
        listening.until(lambda: len(gregor.lines) == 1)
        gregor.freeze()
        samsa.put("t", 0, b"x")
        self.assertEqual(1, samsa.unanswered)
        gregor.thaw()
        dialling.until(lambda: not samsa.unanswered)
