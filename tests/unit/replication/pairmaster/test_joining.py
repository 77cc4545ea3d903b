"""A pair is joined: afterwards both logs are the same, or the partition says why it is not."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.replication.logs import LogEnds, StoreLog
from metamorphosis.replication.pairmaster.joining import PROGRESS_SECONDS
from metamorphosis.replication.pairmaster.pairedlog import Standing
from metamorphosis.replication.pairmaster.partitionjoin import GROUP
from metamorphosis.replication.role import JOINING_GROUP
from metamorphosis.replication.status import PartitionFigures, RoleFigures, status_lines
from tests.support.pairing import DISCONNECTED, SLAVE_FAILED, Pair, put, result
from tests.support.scriptedlogs import PROBE
from tests.support.scriptedpeers import Fault, ScriptedGregor, record


class JoinCase(SynchronousTestCase):
    """A pair whose logs a test fills before they are joined."""

    def pair(self, own: int = 0, slave: int = 0, **arguments: Any) -> Pair:
        """
        Both begin with the same records, and each has so many more.

        :param own: of the master alone.
        :param slave: of the slave alone.
        """
        pair = Pair(self.mktemp(), **arguments)
        self.addCleanup(pair.gregor.verify)
        self.fill(pair, 5)
        log = pair.gregor.log("test", 0)
        for number in range(slave):
            log.append(-100 - number, number % 2, b"only the slave's %d" % number)
        self.fill(pair, own, slave=False)
        pair.restart()
        return pair

    def fill(self, pair: Pair, count: int, master: bool = True, slave: bool = True) -> None:
        """Records in the middle of the logs, as if they had been put."""
        store = pair.broker.stores.get_or_create(pair.broker.config.topic("test"), 0)
        log = pair.gregor.log("test", 0)
        for number in range(count):
            body = b"record %d" % number * (number + 1)
            data = record(-7 * number, number, body)
            if master:
                store.append([data])
            if slave:
                log.append(-7 * number, number, body)
        pair.broker.clock.advance(0)

    def assert_joined(self, pair: Pair) -> None:
        """The same, and puts are taken."""
        self.assertEqual(pair.log().standing, Standing.JOINED, pair.log().reason)
        self.assertEqual(pair.own(), pair.slaves())
        client = pair.client()
        self.assertIn(b"result 200", pair.send(client, put(b"after")))
        self.assertEqual(pair.own(), pair.slaves())

    def assert_refused(self, pair: Pair, partition: int = 0) -> None:
        """Its puts are answered with the text of the slave."""
        reply = pair.send(pair.client(), put(b"x", 4, partition))
        self.assertEqual(reply, result(500, SLAVE_FAILED % partition, 4))


class PrefixTests(JoinCase):
    """One log is a prefix of the other."""

    def test_equal(self) -> None:
        """Nothing is sent."""
        pair = self.pair()
        pair.connect()
        self.assertEqual(pair.gregor.syncs, [])
        self.assert_joined(pair)

    def test_row_R59_master_ahead(self) -> None:
        """The slave's missing records are sent under their ids and flags."""
        for count in (1, 2, 300):
            pair = self.pair(own=count)
            own = pair.own()
            pair.connect()
            self.assertEqual(pair.slaves(), own, count)
            self.assertEqual(pair.role.joining.sent, len(own) - len(self.pair().own()))
            self.assert_joined(pair)

    def test_progress(self) -> None:
        """A joining that takes long says how far it is, every few seconds, and what it was."""
        pair = self.pair(own=300)
        lines: list[str] = []

        def keep(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        pair.gregor.faults = {1: Fault.LATE}
        pair.connect()
        pair.advance(2 * PROGRESS_SECONDS + 1)
        told = [line for line in lines if line.startswith("Joining meta://gregor:8123: 0 of 0 MiB")]
        self.assertEqual(2, len(told), lines)
        pair.gregor.release()
        pair.settle()
        joined = "Pair joined: meta://gregor:8123: 1 partitions are the same"
        self.assertTrue(any(line.startswith(joined) for line in lines), lines)
        pair.advance(2 * PROGRESS_SECONDS)
        self.assertEqual(2, sum(" of 0 MiB" in line for line in lines))
        self.assert_joined(pair)

    def test_questions_around_what_is_sent(self) -> None:
        """The last question before the first record has the group that tells a slave of ours to
        take none after a refused one; one of another group ends that before the first put."""
        pair = self.pair(own=300)
        pair.connect()
        before = [group for group, syncs in pair.gregor.questions if not syncs]
        after = [group for group, syncs in pair.gregor.questions if syncs]
        self.assertEqual(JOINING_GROUP, before[-1])
        self.assertEqual([GROUP] * 2, after)
        self.assert_joined(pair)

    def test_row_R59_slave_ahead(self) -> None:
        """What only the slave has is fetched, whatever its ids are."""
        for count in (1, 2, 300):
            pair = self.pair(slave=count)
            slaves = pair.slaves()
            pair.connect()
            self.assertEqual(pair.own(), slaves, count)
            self.assert_joined(pair)

    def test_empty_slave(self) -> None:
        """It has nothing of the partition."""
        pair = self.pair()
        pair.gregor.logs.clear()
        pair.connect()
        self.assert_joined(pair)

    def test_empty_master(self) -> None:
        """A new disk: all records are fetched from the slave, also partitions that do not exist
        here."""
        pair = Pair(self.mktemp())
        for partition in (0, 1):
            pair.gregor.log("test", partition).append(5, 0, b"a")
        pair.connect()
        self.assertEqual(pair.own(1), pair.slaves(1))
        self.assertTrue(pair.own(1))
        self.assert_joined(pair)

    def test_empty_master_of_a_log_above_0(self) -> None:
        """Ours begins where the slave's does."""
        pair = Pair(self.mktemp())
        log = pair.gregor.log("test", 0)
        log.first = 1000
        log.append(5, 0, b"a")
        pair.connect()
        self.assertEqual(pair.log().store.min_offset, 1000)
        self.assert_joined(pair)

    def test_empty_master_of_a_log_that_retention_has_emptied(self) -> None:
        """A new disk: the log begins where the slave's does, although that has no record."""
        pair = Pair(self.mktemp())
        pair.gregor.log("test", 0).first = 5000
        pair.connect()
        self.assertEqual(pair.log().store.next_offset, 5000)
        self.assert_joined(pair)

    def test_long_records(self) -> None:
        """Longer than a get returns, in both directions."""
        for side in ("own", "slave"):
            pair = self.pair()
            pair.gregor.max_transfer = 50_000
            body = b"long" * 600_000
            if side == "own":
                store = pair.broker.stores.get("test", 0)
                assert store is not None
                store.append([record(9, 0, body), record(10, 0, b"short")])
                pair.broker.clock.advance(0)
                pair.restart()
            else:
                pair.gregor.log("test", 0).append(9, 0, body)
                pair.gregor.log("test", 0).append(10, 0, b"short")
            pair.connect()
            self.assert_joined(pair)

    def test_segments(self) -> None:
        """The master's log has many segments."""
        pair = self.pair(own=50, max_segment_size=100)
        pair.connect()
        self.assert_joined(pair)

    def test_lowest_offsets_differ(self) -> None:
        """Retention has taken more of one side than of the other."""
        for own, slave in ((0, 0), (3, 0), (0, 3)):
            pair = self.pair(own, slave)
            log = pair.gregor.log("test", 0)
            first = 20 + len(b"record 0")
            del log.data[:first]
            log.first += first
            pair.connect()
            self.assertEqual(pair.log().standing, Standing.JOINED, pair.log().reason)
            self.assertEqual(pair.own()[first:], pair.slaves())

    def test_puts_before_it_is_joined(self) -> None:
        """They are refused; those after it are not."""
        pair = self.pair(own=1)
        client = pair.client()
        self.assertEqual(pair.send(client, put(b"x", 3)), result(500, DISCONNECTED, 3))
        pair.gregor.freeze()
        pair.connect()
        self.assert_refused(pair)
        pair.gregor.thaw()
        pair.settle()
        self.assert_joined(pair)

    def test_java_hides_partitions(self) -> None:
        """A Java slave that was restarted says 404 for partitions that it has; it is made to open
        them, and gets nothing twice."""
        for own, slave in ((0, 0), (2, 0), (0, 2)):
            pair = self.pair(own, slave)
            pair.gregor.restart(hides=True)
            before = len(pair.slaves())
            pair.connect()
            self.assertEqual(pair.own(), pair.slaves(), (own, slave))
            self.assertGreaterEqual(len(pair.slaves()), before)
            ids = pair.gregor.log("test", 0).ids()
            self.assertEqual(len(ids), len(set(ids)) + (own > 0) * own, (own, slave))
            self.assert_joined(pair)

    def test_hidden_without_ids(self) -> None:
        """Without an id a slave cannot be made to open the partition; it gets nothing twice."""
        pair = self.pair(own=2)
        pair.gregor.restart(hides=True)
        self.patch(pair.broker.ids, "ready", False)
        pair.connect()
        pair.advance(2)
        self.assertEqual(pair.gregor.syncs, [])
        self.assertIn("no message id", pair.log().reason)
        pair.broker.ids.ready = True
        pair.advance(2)
        self.assert_joined(pair)

    def test_slave_flushes_between_two_questions(self) -> None:
        """
        Its end was told before, its statistics after the flush: nothing that it has is sent again.
        """
        pair = self.pair()
        log = pair.gregor.log("test", 0)
        log.flushed = 0
        told = pair.gregor._stats

        def flushed_by_now(*arguments: Any) -> None:
            pair.gregor.flush()
            told(*arguments)

        pair.gregor._stats = flushed_by_now  # type: ignore[method-assign]
        pair.connect()
        self.assertEqual([], pair.gregor.syncs)
        self.assert_joined(pair)

    def test_java_has_not_flushed(self) -> None:
        """What the slave has and does not show is not sent again: the joining waits for it."""
        pair = self.pair(own=2)
        log = pair.gregor.log("test", 0)
        log.flushed = len(log.data)
        log.data[:] = pair.own()
        pair.connect()
        pair.advance(1)
        self.assertEqual(pair.gregor.syncs, [])
        self.assert_refused(pair)
        self.assertIn("flushed", pair.log().reason)
        pair.gregor.flush()
        pair.advance(1)
        self.assertEqual(pair.gregor.syncs, [])
        self.assert_joined(pair)

    def busy_neighbour(self) -> Pair:
        """A pair that has joined a partition; the slave refuses what it lacks of the other one,
        and then puts arrive, which it has not flushed."""
        pair = self.pair()
        other = pair.broker.stores.get_or_create(pair.broker.config.topic("test"), 1)
        other.append([record(1, 0, b"missing")])
        pair.broker.clock.advance(0)
        pair.restart()
        pair.gregor.flushes = False
        pair.gregor.faults = {2: Fault.REFUSE, 3: Fault.REFUSE}  # the first one asks for the log
        pair.connect()
        self.assertIn(b"result 200", pair.send(pair.client(), put(b"busy")))
        self.assertEqual(pair.slaves(1), b"")
        return pair

    def test_java_has_not_flushed_other_partitions(self) -> None:
        """Puts to another partition of the topic do not keep it from being joined."""
        pair = self.busy_neighbour()
        pair.advance(2)
        self.assertEqual(pair.log(1).standing, Standing.JOINED, pair.log(1).reason)
        self.assertEqual(pair.own(1), pair.slaves(1))

    def test_slave_of_ours_has_not_flushed_other_partitions(self) -> None:
        """It tells the written end of each partition, so the others do not matter."""
        pair = self.busy_neighbour()
        log = pair.gregor.log("test", 1)
        written = [9]

        def stats(line: Any, words: list[str], body: bytes) -> None:
            self.assertEqual("replication", words[1])
            own = LogEnds(0, written[0])
            figures = RoleFigures("slave", partitions=(PartitionFigures("test", 1, own),))
            line.write(result(200, "\r\n".join(status_lines(figures)).encode(), int(words[2])))

        self.patch(pair.gregor, "_stats", stats)
        pair.advance(2)
        self.assertEqual(pair.log(1).standing, Standing.JOINING)
        self.assertIn("flushed", pair.log(1).reason)
        written[0] = log.end
        pair.advance(1)
        self.assertEqual(pair.log(1).standing, Standing.JOINED, pair.log(1).reason)
        self.assertEqual(pair.own(1), pair.slaves(1))

    def test_probe_directory_of_java(self) -> None:
        """The partition of the probes disturbs nothing."""
        pair = self.pair()
        pair.gregor.log(PROBE, 0).append(1, 0, b"test")
        pair.connect()
        self.assert_joined(pair)
        self.assertIsNone(pair.role.logs.get((PROBE, 0)))


class LookTests(JoinCase):
    """The ends of the slave's logs are looked at at intervals."""

    def test_slave_has_more(self) -> None:
        """Records that the slave has got meanwhile are fetched without a put."""
        pair = self.pair()
        pair.connect()
        pair.gregor.log("test", 0).append(-9, 0, b"late frames, or a direct put")
        self.assertNotEqual(pair.own(), pair.slaves())
        pair.advance(11, 1)
        self.assertEqual(pair.own(), pair.slaves())
        self.assert_joined(pair)

    def test_puts_meanwhile(self) -> None:
        """A look while puts are under way parts nothing."""
        pair = self.pair()
        pair.connect()
        client = pair.client()
        for number in range(25):
            self.assertIn(b"result 200", pair.send(client, put(b"%d" % number)))
            pair.advance(1, 0.5)
        self.assert_joined(pair)


class AlarmTests(JoinCase):
    """The time of the log line that the pair is joined."""

    def test_not_before_a_partition_is(self) -> None:
        """A connection that ends before any reply neither joins a partition nor registers the
        master."""
        lines: list[str] = []

        def seen(event: LogEvent) -> None:
            if event["log_namespace"] == "metamorphosis.replication.alarms":
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(seen)
        self.addCleanup(globalLogPublisher.removeObserver, seen)
        pair = self.pair()
        pair.connect()
        pair.lose()
        answer = pair.gregor._get
        pair.gregor._get = lambda line, words, body: line.close()  # type: ignore[method-assign]
        for _ in range(3):
            pair.connect()
        pair.gregor._get = answer  # type: ignore[method-assign]
        self.assertEqual(["Pair joined", "Pair broken"], [each[:11] for each in lines])
        pair.connect()
        self.assertEqual("Pair joined", lines[-1][:11])
        self.assertEqual(3, len(lines))


class DivergedTests(JoinCase):
    """The logs cannot be brought level."""

    def test_other_bytes(self) -> None:
        """That partition refuses puts, nothing is changed, the others work."""
        pair = self.pair(own=1, slave=1)
        own, slaves = pair.own(), pair.slaves()
        pair.connect()
        self.assertEqual(pair.log().standing, Standing.DIVERGED)
        self.assert_refused(pair)
        self.assertEqual((pair.own(), pair.slaves()), (own, slaves))
        self.assertIn(b"result 200", pair.send(pair.client(), put(b"x", 1, 1)))

    def test_row_R55(self) -> None:
        """An old master comes back as the slave with a longer log: noticed before a put. If ours is
        its beginning the rest is fetched; if both continued in different ways it is left alone."""
        pair = self.pair(slave=3)
        pair.connect()
        self.assert_joined(pair)
        pair = self.pair(own=1, slave=3)
        pair.connect()
        self.assertEqual(pair.log().standing, Standing.DIVERGED)
        self.assertEqual(pair.gregor.syncs, [])
        self.assert_refused(pair)

    def test_mended_by_hand(self) -> None:
        """It is looked at again from time to time."""
        pair = self.pair(own=1, slave=1)
        pair.connect()
        pair.gregor.log("test", 0).data[:] = pair.own()
        pair.advance(61, 1)
        self.assert_joined(pair)

    def test_empty_slave_of_a_log_above_0(self) -> None:
        """sync cannot bring it there; the log says what can."""
        pair = self.pair(own=50, max_segment_size=100)
        store = pair.broker.stores.get("test", 0)
        assert store is not None
        while len(store.segments) > 2:
            store.remove_segment(store.segments[0])
        pair.gregor.logs.clear()
        pair.connect()
        self.assertEqual(pair.log().standing, Standing.DIVERGED)
        self.assert_refused(pair)
        self.assertEqual(pair.slaves(), b"")

    def test_slave_refuses_the_topic(self) -> None:
        """Its server.ini lacks it: tried again until it has it."""
        pair = Pair(self.mktemp(), ScriptedGregor({}))
        self.fill(pair, 3, slave=False)
        pair.restart()
        pair.connect()
        self.assert_refused(pair)
        self.assertIn("do not accept topic", pair.log().reason)
        pair.gregor.topics["test"] = 2
        pair.advance(2.5, 0.5)
        self.assert_joined(pair)

    def test_damaged_record_of_the_slave(self) -> None:
        """It is not fetched, nor is what follows it."""
        pair = self.pair(slave=3)
        own = pair.own()
        pair.gregor.log("test", 0).data[len(own) + 25] ^= 1
        pair.connect()
        self.assertEqual(pair.log().standing, Standing.DIVERGED)
        self.assertIn("damaged", pair.log().reason)
        self.assertEqual(pair.own(), own)

    def test_damaged_length_of_the_slave(self) -> None:
        """A record that is longer than the rest of the log: that rest is not fetched, which would
        all have to be in memory."""
        pair = self.pair(slave=1)
        log = pair.gregor.log("test", 0)
        at = len(pair.own())
        log.data[at : at + 4] = (0x7FFFFFF0).to_bytes(4, "big")
        log.data += bytes(5 << 20)
        asked: list[int] = []
        get = pair.gregor._get

        def note(line: Any, words: list[str], body: bytes) -> None:
            asked.append(int(words[4]))
            get(line, words, body)

        self.patch(pair.gregor, "_get", note)
        pair.connect()
        self.assertEqual([0, at], asked)
        self.assertIn("the log ends inside of it", pair.log().reason)


class FaultTests(JoinCase):
    """Faults while it is being joined."""

    def test_retention_of_the_slave(self) -> None:
        """Records that the slave deletes while they are read: the log names the reason, and the
        partition is compared again."""
        lines: list[str] = []

        def keep(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        pair = self.pair(slave=30)
        log = pair.gregor.log("test", 0)
        get = pair.gregor._get

        def delete_then_get(line: Any, words: list[str], body: bytes) -> None:
            log.first += len(log.data)
            log.data.clear()
            get(line, words, body)

        self.patch(pair.gregor, "_get", delete_then_get)
        pair.connect()
        (line,) = [line for line in lines if "cannot be joined" in line]
        self.assertIn("retention has moved the beginning of the log", line)
        pair.advance(2.5, 0.5)
        self.assertEqual(pair.log().standing, Standing.DIVERGED)

    def test_connection_lost_at_every_answer(self) -> None:
        """It begins anew with the next connection, and ends with equal logs."""
        for own, slave in ((30, 0), (0, 30)):
            for number in range(1, 8):
                pair = self.pair(own, slave)
                pair.gregor.faults = {number: Fault.CLOSE, number + 3: Fault.CLOSE_FIRST}
                pair.gregor.max_transfer = 200
                pair.connect()
                while pair.wire is None:
                    pair.connect()
                pair.gregor.faults = {}
                self.assert_joined(pair)

    def test_refused_in_the_middle(self) -> None:
        """Nothing gets to a wrong place: what the slave has stored after it is different."""
        pair = self.pair(own=10)
        pair.gregor.faults = {4: Fault.REFUSE}
        pair.connect()
        pair.advance(3, 0.5)
        self.assertNotEqual(pair.log().standing, Standing.JOINED)
        self.assert_refused(pair)

    def test_refusal_overtakes(self) -> None:
        """A Java slave with group commit refuses before it has answered earlier records: the
        joining waits for those, and not for ever."""
        pair = self.pair(own=6)
        late = dict.fromkeys((2, 3), Fault.LATE)
        pair.gregor.faults = {**late, **dict.fromkeys((4, 5, 6), Fault.REFUSE)}
        pair.connect()
        self.assertTrue(pair.log().is_busy)
        pair.gregor.release()
        pair.settle()
        pair.advance(2)
        self.assert_joined(pair)

    def test_log_here_cannot_be_read(self) -> None:
        """What was sent before is waited for, before the logs are compared again."""
        pair = self.pair(own=6)
        own = len(pair.slaves()) + 28  # after the first of the missing records, which goes alone
        read, failed = StoreLog.read, []

        async def fail_once(log: StoreLog, offset: int, size: int) -> bytes:
            if offset == own + 36 and not failed:
                failed.append(offset)
                raise OSError("an error of the disk")
            return await read(log, offset, 36 if offset == own else size)

        self.patch(StoreLog, "read", fail_once)
        pair.gregor.faults = {2: Fault.LATE}
        pair.connect()
        self.assertEqual(([own + 36], 2), (failed, len(pair.gregor.syncs)))
        self.assertTrue(pair.log().is_busy)
        pair.gregor.release()
        pair.settle()
        pair.advance(2)
        self.assert_joined(pair)

    def test_slave_that_does_not_answer(self) -> None:
        """The connection is given up, and another one is made."""
        pair = self.pair(own=3)
        pair.gregor.faults = {1: Fault.DEAF}
        pair.connect()
        pair.advance(31, 1)
        self.assertIsNone(pair.wire)
        pair.connect()
        self.assert_joined(pair)
