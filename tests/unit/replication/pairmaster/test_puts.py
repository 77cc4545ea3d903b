"""Puts to a pair: what is sent, what is answered, and what is in the two logs afterwards."""

from __future__ import annotations

import errno
import os
from unittest import mock

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.replication.pairmaster import landing
from metamorphosis.replication.pairmaster.pairedlog import Standing
from metamorphosis.store.appender import UNKNOWN_END
from metamorphosis.store.segmentwriter import SegmentWriter
from tests.support.pairing import (
    DISCONNECTED,
    MASTER_FAILED,
    SLAVE_FAILED,
    Pair,
    put,
    result,
)
from tests.support.scriptedpeers import Fault


class PairCase(SynchronousTestCase):
    """A connected pair, and a producer."""

    def setUp(self) -> None:
        """Connect."""
        self.pair = self.new_pair()
        self.pair.connect()
        self.client = self.pair.client()

    def new_pair(self) -> Pair:
        """As the tests of a class need it."""
        return Pair(self.mktemp())

    def tearDown(self) -> None:
        """The master has said nothing that a slave would not understand."""
        self.pair.gregor.verify()

    def assert_identical(self, partitions: int = 2) -> None:
        """Both have the same bytes."""
        for partition in range(partitions):
            self.assertEqual(self.pair.slaves(partition), self.pair.own(partition), partition)

    def assert_counted(self, puts: int, failed: int) -> None:
        """Each put once, whatever has become of it and whenever."""
        statistics = self.pair.broker.responders.figures.take().statistics
        self.assertEqual((puts, failed), (statistics.cmd_put, statistics.put_failed))

    def statuses(self, data: bytes) -> list[bytes]:
        """Of replies, in their order."""
        return [part[:3] for part in data.split(b"result ")[1:]]


class AcceptedTests(PairCase):
    """Both have it."""

    def test_first_put(self) -> None:
        """It makes partition and topic on both sides; the reply has id, partition and offset."""
        reply = self.pair.send(self.client, put(b"hello", 7))
        message_id = self.pair.gregor.log("test", 0).ids()[0]
        self.assertEqual(reply, result(200, b"%d 0 0" % message_id, 7))
        self.assertEqual(len(self.pair.own()), 25)
        self.assert_identical()

    def test_one_write(self) -> None:
        """What a turn has received, of all connections and partitions, is sent with one write."""
        self.pair.send(self.client, put(b"a") + put(b"b", partition=1))
        others = [self.pair.client() for _ in range(3)]
        writes = self.pair.link.writes
        for number, client in enumerate(others):
            client.connection.dataReceived(put(b"x" * number) + put(b"y", partition=1))
        self.pair.settle()
        self.assertEqual(self.pair.link.writes, writes + 1)
        for client in others:
            self.assertEqual(self.statuses(client.received()), [b"200"] * 2)
        self.assert_identical()

    def test_order_of_replies(self) -> None:
        """Replies leave in the order of the requests, although the slave's overtake each other."""
        self.pair.gregor.overtake = True
        chunk = b"".join(put(b"%d" % n, n, n % 2) for n in range(20))
        replies = self.pair.send(self.client, chunk)
        opaques = [int(part.split()[2]) for part in replies.split(b"result ")[1:]]
        self.assertEqual(opaques, list(range(20)))
        self.assert_identical()

    def test_sizes(self) -> None:
        """Empty, long and longer than a receive buffer."""
        for size in (0, 1, 5000, 40_000, 700_000):
            reply = self.pair.send(self.client, put(b"x" * size))
            self.assertEqual(self.statuses(reply), [b"200"], size)
        self.assert_identical()

    def test_row_R29(self) -> None:
        """1000 puts from 10 connections over 4 partitions: identical, ids ascending."""
        pair = Pair(self.mktemp(), topics={"test": {"num_partitions": 4}})
        pair.connect()
        clients = [pair.client() for _ in range(10)]
        for round_ in range(10):
            for number, client in enumerate(clients):
                chunk = b"".join(
                    put(b"%d %d %d" % (round_, number, n), n, (n + number) % 4) for n in range(10)
                )
                client.connection.dataReceived(chunk)
            pair.settle()
            for client in clients:
                self.assertEqual(self.statuses(client.received()), [b"200"] * 10)
        total = 0
        for partition in range(4):
            self.assertEqual(pair.own(partition), pair.slaves(partition))
            ids = pair.gregor.log("test", partition).ids()
            self.assertEqual(ids, sorted(set(ids)))
            total += len(ids)
        self.assertEqual(total, 1000)

    def test_row_R30(self) -> None:
        """A put to partition -1 is answered with the partition that it went to, on both sides."""
        for _ in range(20):
            reply = self.pair.send(self.client, put(b"any", 5, -1))
            partition = int(reply.split()[-2])
            self.assertIn(partition, (0, 1))
            self.assertEqual(self.pair.gregor.syncs[-1][1], partition)
        self.assertTrue(self.pair.own(0) and self.pair.own(1))
        self.assert_identical()

    def test_row_R31(self) -> None:
        """A put without a checksum is sent with -1, also the later ones, and stored."""
        chunk = put(b"first") + b"put test 0 3 0 5\r\nold" + b"put test 0 3 0 -1 6\r\nnew"
        replies = self.pair.send(self.client, chunk)
        self.assertEqual(self.statuses(replies), [b"200"] * 3)
        self.assert_identical()
        taken: list[bytes] = []
        send = self.pair.role.syncs._line.send  # type: ignore[union-attr]
        self.pair.role.syncs._line.send = lambda data: (taken.append(data), send(data))  # type: ignore
        self.pair.send(self.client, b"put test 0 3 0 7\r\nold" + put(b"with"))
        words = [line.split() for line in b"".join(taken).split(b"\r\n") if b"sync" in line]
        self.assertEqual([word[6] == b"-1" for word in words], [True, False])

    def test_group_commit_and_direct(self) -> None:
        """In both modes of the master's log."""
        for threshold in (0, 1000):
            pair = Pair(self.mktemp(), unflush_threshold=threshold)
            pair.connect()
            client = pair.client()
            replies = pair.send(client, put(b"a") + put(b"b"))
            self.assertEqual(self.statuses(replies), [b"200"] * 2)
            self.assertEqual(pair.own(), pair.slaves())


class DirectTests(AcceptedTests):
    """The same with a log that is written as soon as the slave has answered."""

    def new_pair(self) -> Pair:
        """See ``PairCase``."""
        return Pair(self.mktemp(), unflush_threshold=1000)

    def test_account_that_fails(self) -> None:
        """What was acknowledged is not written over: the store takes no more messages until the
        next start."""
        self.pair.send(self.client, put(b"first"))
        self.client.connection.dataReceived(put(b"kept", 5))
        with mock.patch.object(SegmentWriter, "grew", side_effect=MemoryError):
            self.assertRaises(MemoryError, self.pair.settle)
        self.assertEqual(self.statuses(self.client.received()), [b"200"])
        self.assertIs(self.pair.log().store.stalled, UNKNOWN_END)
        self.assertIn(b"kept", self.pair.own())

    def test_written_at_once(self) -> None:
        """The usual case needs no batch of the store."""
        self.pair.send(self.client, put(b"first"))
        store = self.pair.log().store
        self.patch(store, "open_batch", None)
        for size in (1, 30):
            chunk = b"".join(put(b"x" * n, n) for n in range(size))
            replies = self.pair.send(self.client, chunk)
            self.assertEqual(self.statuses(replies), [b"200"] * size)
        self.assertEqual(store.put_count, 32)
        self.assert_identical()
        self.assert_counted(32, 0)

    def test_short_write(self) -> None:
        """The rest of the records is written, too."""
        self.pair.send(self.client, put(b"first"))
        self.patch(
            landing, "write_directly", lambda fd, data, at: (os.pwrite(fd, data[:30], at), 0)
        )
        replies = self.pair.send(self.client, b"".join(put(b"x" * n, n) for n in range(9)))
        self.assertEqual(self.statuses(replies), [b"200"] * 9)
        self.assert_identical()
        self.assert_counted(10, 0)

    def test_failed_write(self) -> None:
        """What the slave has is fetched afterwards; the puts get the master's text."""
        self.pair.send(self.client, put(b"first"))
        self.patch(landing, "write_directly", lambda fd, data, at: (0, errno.ENOSPC))
        replies = self.pair.send(self.client, put(b"x", 4) + put(b"y", 5))
        text = MASTER_FAILED % 0
        self.assertEqual(replies, result(500, text, 4) + result(500, text, 5))
        self.pair.advance(3, 0.5)
        self.assertEqual(self.pair.log().standing, Standing.JOINED)
        self.assertEqual(len(self.pair.own()), 25 + 21 + 21)
        self.assert_identical()


class RefusedTests(PairCase):
    """Puts that are not acknowledged."""

    def test_row_R33(self) -> None:
        """The slave answers 500: the text names it; the record is on neither, those after it are at
        the offsets that their replies say."""
        self.pair.gregor.faults = {3: Fault.REFUSE, 5: Fault.FAIL}
        bodies = [b"a", b"bb", b"ccc", b"dddd", b"eeeee", b"ffffff"]
        replies = self.pair.send(self.client, b"".join(put(b, n) for n, b in enumerate(bodies)))
        self.assertEqual(self.statuses(replies), [b"200", b"200", b"500", b"200", b"500", b"200"])
        self.assertIn(result(500, SLAVE_FAILED % 0, 2), replies)
        self.assertIn(result(500, SLAVE_FAILED % 0, 4), replies)
        parts = replies.split(b"result ")[1:]
        offsets = [int(part.split()[-1]) for part in parts if part.startswith(b"200")]
        self.assertEqual(offsets, [0, 21, 43, 67])
        self.assert_identical()
        self.assertEqual(self.pair.log().next_offset, 93)
        again = self.pair.send(self.client, put(b"again"))
        self.assertTrue(again.endswith(b" 0 93"), again)
        self.assert_identical()

    def test_refused_while_others_collect(self) -> None:
        """The refusal arrives in the turn in which more puts have come."""
        self.pair.send(self.client, put(b"first"))
        self.pair.gregor.faults = {2: Fault.REFUSE}
        self.client.connection.dataReceived(put(b"second"))
        self.pair.runtime.advance(0)
        wire = self.pair.wire
        assert wire is not None
        wire.line.receive(wire.take())
        coming = b"".join(wire.coming)
        wire.coming.clear()
        other = self.pair.client()
        other.connection.dataReceived(put(b"third", 8))  # its reply says 50
        self.pair.link.receiver.data_received(coming)
        other.connection.dataReceived(put(b"fourth", 9))
        self.pair.settle()
        self.assertEqual(self.client.received(), result(500, SLAVE_FAILED % 0))
        replies = other.received()
        self.assertEqual([int(p.split()[-1]) for p in replies.split(b"result ")[1:]], [25, 50])
        self.assert_identical()

    def test_put_that_fails_before_it_is_sent(self) -> None:
        """A defect in the registration of its topic costs that put, and no other of its turn."""
        self.pair.send(self.client, put(b"first") + put(b"first", partition=1))

        def fails(config: object) -> None:
            raise RuntimeError("no registration")

        self.patch(self.pair.broker.responders, "topic_used", fails)
        others = self.pair.client()
        self.client.connection.dataReceived(b"put test 0 3 0 5\r\nold")  # not on the hot path
        others.connection.dataReceived(put(b"second", 6, partition=1))
        self.pair.settle()
        self.assertEqual(self.statuses(others.received()), [b"200"])
        self.flushLoggedErrors(RuntimeError)
        self.assert_identical()

    def test_row_R34(self) -> None:
        """The slave is frozen: an answer after the time limit, with its text; when it continues,
        its late answer still appends."""
        self.pair.send(self.client, put(b"first"))
        self.pair.gregor.freeze()
        self.assertEqual(self.pair.send(self.client, put(b"late", 5)), b"")
        self.pair.advance(1.95)
        self.assertEqual(self.client.received(), b"")
        self.pair.advance(0.25)
        self.assertEqual(self.client.received(), result(500, SLAVE_FAILED % 0, 5))
        self.assertEqual(len(self.pair.own()), 25)
        self.pair.gregor.thaw()
        self.pair.settle()
        self.assertEqual(len(self.pair.own()), 49)
        self.assert_identical()
        self.assertTrue(self.pair.send(self.client, put(b"next")).endswith(b" 0 49"))
        self.assert_counted(3, 1)

    def test_row_R35(self) -> None:
        """No connection: refused at once, and nothing is stored."""
        self.pair.send(self.client, put(b"first"))
        self.pair.lose()
        self.assertEqual(self.pair.send(self.client, put(b"x", 3)), result(500, DISCONNECTED, 3))
        self.assertEqual(len(self.pair.own()), 25)

    def test_lost_with_puts_under_way(self) -> None:
        """They are answered with the slave's text, and what the slave has of them is fetched."""
        self.pair.send(self.client, put(b"first"))
        self.pair.gregor.faults = {3: Fault.CLOSE}
        self.client.connection.dataReceived(put(b"b", 2) + put(b"c", 3) + put(b"d", 4))
        self.pair.settle()
        replies = self.client.received()
        self.assertEqual(
            self.statuses(replies),
            [b"500"] * 3 if b"200" not in replies else [b"200", b"500", b"500"],
        )
        self.pair.connect()
        self.assertEqual(len(self.pair.slaves()), 25 + 21 + 21)
        self.assert_identical()
        self.assert_counted(4, self.statuses(replies).count(b"500"))

    def test_row_R40(self) -> None:
        """A wrong checksum: the bare text, nothing is sent, and no failure of the slave."""
        wrong = b"put test 0 5 0 1 9\r\nhello"
        text = b"Checksum failure,message may be corrupted when transfering on networking."
        self.assertEqual(self.pair.send(self.client, wrong), result(500, text, 9))
        self.pair.send(self.client, put(b"first"))
        self.assertEqual(self.pair.send(self.client, wrong), result(500, text, 9))
        self.assertEqual(len(self.pair.gregor.syncs), 1)
        self.assertEqual(self.pair.role.syncs.failures, 0)

    def test_row_R41(self) -> None:
        """An unacceptable topic or partition: the bare text, and nothing is registered."""
        reply = self.pair.send(self.client, put(b"x", 2, topic=b"nosuch"))
        self.assertEqual(reply, result(500, b"The server do not accept topic nosuch", 2))
        reply = self.pair.send(self.client, put(b"x", 2, 9))
        self.assertEqual(reply, result(500, b"wrong partition 9", 2))
        self.assertEqual(self.pair.broker.used_topics, [])
        self.assertEqual(self.pair.gregor.syncs, [])

    def test_row_R43(self) -> None:
        """A put in a transaction is refused."""
        for request in (
            b"put test 0 1 0 -1 TX:a:1 4\r\nx",
            b"put test 0 1 0 -1 XID:1:0A:0b:u 4\r\nx",
        ):
            reply = self.pair.send(self.client, request)
            self.assertEqual(reply, result(500, b"Unsupported beginTransaction", 4))
        self.assertEqual(self.pair.gregor.syncs, [])

    def test_row_R42(self) -> None:
        """Every step of a transaction is refused with the original's text; END has no reply."""
        steps = {
            b"BEGIN": b"beginTransaction",
            b"PREPARE": b"prepareTransaction",
            b"COMMIT_ONE_PHASE": b"commitTransaction",
            b"COMMIT_TWO_PHASE": b"commitTransaction",
            b"ROLLBACK": b"rollbackTransaction",
            b"FORGET": b"forgetTransaction",
            b"RECOVER": b"getPreparedTransactions",
        }
        for step, name in steps.items():
            request = b"transaction TX:a:1 a %b 4\r\n" % step
            reply = self.pair.send(self.client, request)
            self.assertEqual(reply, result(500, b"Unsupported " + name, 4), step)
        self.assertEqual(self.pair.send(self.client, b"transaction TX:a:1 a END 4\r\n"), b"")

    def test_log_says_why(self) -> None:
        """A slave that refuses everything is quoted, now and then."""
        lines: list[str] = []

        def observe(event: dict[str, object]) -> None:
            if "complaints" in str(event.get("log_namespace")):
                lines.append(str(event["log_format"]).format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.pair.gregor.faults = dict.fromkeys(range(1, 50), Fault.REFUSE)
        for _ in range(5):
            self.pair.send(self.client, put(b"x"))
        self.assertEqual(len(lines), 1)
        self.assertIn("500", lines[0])
        self.assertIn("refused by the test", lines[0])
        self.pair.gregor.freeze()
        self.pair.send(self.client, put(b"x"))
        self.pair.advance(2.2)
        self.assertEqual(lines[1:], ["The slave has not answered 1 puts within 2.0 s"])

    def test_closed_partition(self) -> None:
        """403 with the partition that was asked for; the others continue."""
        self.pair.send(self.client, put(b"first") + put(b"first", partition=1))
        self.pair.broker.close_partitions("test", (0, 0))
        reply = self.pair.send(self.client, put(b"x", 4))
        self.assertEqual(reply, result(403, b"Partition[0-0] has been closed", 4))
        self.assertEqual(self.statuses(self.pair.send(self.client, put(b"x", 4, 1))), [b"200"])
        self.pair.broker.close_partitions("test", (0, 1))
        reply = self.pair.send(self.client, put(b"x", 4, -1))
        self.assertEqual(reply, result(403, b"Partition[0--1] has been closed", 4))

    def test_last_id_cannot_be_written(self) -> None:
        """No message gets an id then, not even in a partition that was joined at the start: after
        a crash another message would get it again."""
        self.pair.send(self.client, put(b"hello"))
        self.pair.restart()
        self.pair.broker.ids.ready = False
        self.pair.connect()
        self.client = self.pair.client()
        for partition in (0, 1):
            reply = self.pair.send(self.client, put(b"x", partition=partition))
            self.assertEqual(reply, result(500, b"The last message id could not be written."))
        self.pair.broker.ids.ready = True
        self.assertEqual(self.statuses(self.pair.send(self.client, put(b"x"))), [b"200"])
        self.assert_identical()

    def test_foreign_offset(self) -> None:
        """An offset that is not ours is not an acknowledgement: the partition is joined again, by
        which everything that the slave has gets here."""
        self.pair.send(self.client, put(b"first"))
        self.pair.gregor.log("test", 0).append(-5, 0, b"put to the slave by somebody")
        replies = self.pair.send(self.client, put(b"a", 2) + put(b"b", 3) + put(b"c", 4, 1))
        self.assertEqual(self.statuses(replies), [b"500", b"500", b"200"])
        self.assertIn(result(500, SLAVE_FAILED % 0, 2), replies)
        self.assertEqual(self.pair.log().standing, Standing.JOINED)
        self.assert_identical()
        self.assertEqual(self.statuses(self.pair.send(self.client, put(b"d"))), [b"200"])
        self.assert_identical()

    def test_strange_answers(self) -> None:
        """Unknown opaques, garbage, answers that are too long, cut ones: no acknowledgement that is
        none, and identical logs in the end."""
        self.pair.send(self.client, put(b"first"))
        for fault in Fault:
            self.pair.gregor.faults = {self.pair.gregor._records + 2: fault}
            chunk = b"".join(put(b"%d" % n, n) for n in range(4))
            self.client.connection.dataReceived(chunk)
            self.pair.advance(2.5, 0.5)
            self.pair.gregor.release()
            self.pair.settle()
            replies = self.client.received()
            self.assertEqual(len(self.statuses(replies)), 4, fault)
            if fault in (Fault.SILENT, Fault.DEAF):
                self.assertIn(b"500", self.statuses(replies), fault)
                self.assertIsNotNone(self.pair.wire)
                self.pair.advance(31, 1)  # then the connection is given up
                self.assertIsNone(self.pair.wire)
            if self.pair.wire is None:
                self.pair.connect()
            self.pair.advance(1)
            self.assertEqual(self.pair.log().standing, Standing.JOINED, fault)
            self.assert_identical()
            self.assert_acknowledged(replies)

    def assert_acknowledged(self, replies: bytes) -> None:
        """Everything that was acknowledged is where the reply says."""
        log = self.pair.own()
        for part in replies.split(b"result ")[1:]:
            head, _, text = part.partition(b"\r\n")
            if head.startswith(b"200"):
                message_id, _, offset = map(int, text.split())
                self.assertEqual(
                    log[offset + 8 : offset + 16], message_id.to_bytes(8, "big", signed=True)
                )

    def test_statistics(self) -> None:
        """``slave false``; ``stats replication`` says what waits for the slave, and how many puts
        in a row it has not acknowledged."""
        self.pair.send(self.client, put(b"first"))
        self.pair.gregor.freeze()
        self.pair.send(self.client, put(b"a") + put(b"b"))
        lines = self.pair.broker.client().send(b"stats  8\r\n").split(b"\r\n")
        self.assertIn(b"slave false", lines)
        lines = self.pair.broker.client().send(b"stats replication 8\r\n").split(b"\r\n")
        self.assertIn(b"role synchronous master", lines)
        self.assertIn(b"state present", lines)
        self.assertIn(b"waiting_records 2", lines)
        self.pair.advance(2.5)
        lines = self.pair.broker.client().send(b"stats replication 8\r\n").split(b"\r\n")
        self.assertIn(b"failures 2", lines)

    def test_too_much_waits(self) -> None:
        """Above a limit no further record is sent to a slave that does not answer."""
        self.pair.send(self.client, put(b"first"))
        self.pair.gregor.freeze()
        syncs = self.pair.role.syncs
        body = bytes(1 << 20)
        for number in range(80):
            self.pair.client().connection.dataReceived(put(body, number))
            self.pair.runtime.advance(0)
        self.assertLess(syncs.waiting, 34 << 20)
        last = self.pair.client()
        last.connection.dataReceived(put(b"small", 4))
        self.pair.runtime.advance(0)
        self.assertEqual(last.received(), result(500, SLAVE_FAILED % 0, 4))
        self.pair.gregor.thaw()
        self.pair.settle()
        self.assertEqual(syncs.waiting, 0)
        self.assert_identical()


class DirectRefusedTests(RefusedTests):
    """The same with a log that is written as soon as the slave has answered."""

    def new_pair(self) -> Pair:
        """See ``PairCase``."""
        return Pair(self.mktemp(), unflush_threshold=1000)
