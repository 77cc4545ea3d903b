"""One partition of an asynchronous slave: copied byte by byte, whatever the master answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.message import HEADER, encode_record
from metamorphosis.replication.follower import ownlog
from metamorphosis.replication.follower.fetched import FETCH_BYTES
from metamorphosis.replication.follower.partition import (
    AHEAD_LOOKS,
    AHEAD_SECONDS,
    DAMAGE_SECONDS,
    RETRY_SECONDS,
    Standing,
)
from metamorphosis.store.batch import FAILED
from metamorphosis.store.retention import Retention
from tests.support.following import FollowingBroker, records
from tests.support.partitions import M1, M2, M3


class PartitionCase(SynchronousTestCase):
    """One slave."""

    holds = True
    copy_again = False
    memory = 64 << 20
    threshold = 1000
    system: Mapping[str, Any] = MappingProxyType({})

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        self.follow()

    def follow(self) -> None:
        """The slave of a new process."""
        self.slave = FollowingBroker(
            self.directory,
            self.holds,
            self.copy_again,
            self.memory,
            self.threshold,
            **self.system,
        )
        self.slave.broker.stores.load()
        self.master = self.slave.master

    def files(self, number: int = 0) -> list[str]:
        """Names of the segments here."""
        return sorted(os.listdir(f"{self.directory}/test-{number}"))

    def aside(self) -> list[str]:
        """Directories that were moved away."""
        beside = f"{self.directory}.aside"
        return sorted(os.listdir(beside)) if os.path.isdir(beside) else []

    def check_same(self, number: int = 0) -> None:
        """Our log has the bytes and the range of the master's."""
        log = self.master.logs["test", number]
        store = self.slave.broker.stores.get("test", number)
        assert store is not None
        self.assertEqual((log.first, log.end), (store.min_offset, store.next_offset))
        self.assertEqual(log.data, self.slave.own_bytes(number))


class CopyTests(PartitionCase):
    """Masters without any fault."""

    def test_row_R01(self) -> None:
        """An empty slave copies a log from 0 on."""
        self.master.log("test", 0, records(1000))
        copy = self.slave.partition()
        self.master.serve()
        self.check_same()
        self.assertEqual(["00000000000000000000.meta"], self.files())
        self.assertEqual(Standing.COPYING, copy.standing)
        self.assertEqual((0, 0.0, 1000), (copy.behind, copy.seconds_behind, self.slave.copied))

    def test_row_R02(self) -> None:
        """A log that begins above 0 begins there here as well."""
        self.master.log("test", 0, records(10), 1000)
        self.slave.partition()
        self.master.serve()
        self.check_same()
        self.assertEqual(["00000000000000001000.meta"], self.files())
        first = next(each for each in self.master.asked if each.startswith("get"))
        self.assertEqual("get test meta-slave-group_0 0 1000 1048576", first)

    def test_row_R03(self) -> None:
        """A partition without data is polled at 0, and its first message arrives there."""
        self.slave.partition()
        self.master.serve(20)
        gets = {each for each in self.master.asked if each.startswith("get")}
        self.assertEqual({"get test meta-slave-group_0 0 0 1048576"}, gets)
        self.assertIsNone(self.slave.broker.stores.get("test", 0))
        self.master.log("test", 0, M1)
        self.master.serve()
        self.check_same()

    def test_row_R04(self) -> None:
        """Bodies of every shape arrive as they are."""
        shapes = [
            encode_record(1, 0, b""),
            encode_record(2, 1, b"\0\0\0\3k=vbody"),
            encode_record(3, 1, b"\0\0\0\0body"),
            encode_record(4, -1, b"\0\0\0\2\xff\xfe"),
            encode_record(5, 0x7FFFFFFE, b"x" * ((1 << 20) - 20)),
            encode_record(6, 0, bytes(1 << 20)),
        ]
        self.master.log("test", 0, b"".join(shapes))
        self.slave.partition()
        self.master.serve()
        self.check_same()
        self.assertEqual(len(shapes), self.slave.copied)

    def test_row_R28(self) -> None:
        """Ids are copied: equal, falling, negative and positive ones."""
        ids = (-100, -100, -98, 5, 5, 3, -(1 << 63), (1 << 63) - 1, 0)
        self.master.log("test", 0, b"".join(encode_record(each, 0, b"b") for each in ids))
        self.slave.partition()
        self.master.serve()
        self.check_same()

    def test_row_R05(self) -> None:
        """Blocks of a transaction are records like any other."""
        for number in (0, 1):
            self.master.log("test", number, M1)
            self.slave.partition(number)
        self.master.serve()
        for number in (0, 1):
            self.master.logs["test", number].data += records(5, first_id=100)
        self.master.serve()
        self.check_same(0)
        self.check_same(1)

    def test_follows_at_once(self) -> None:
        """What the master gets is here as soon as its held request is answered."""
        log = self.master.log("test", 0, M1)
        copy = self.slave.partition()
        self.master.serve(60)
        self.master.asked.clear()
        for _ in range(20):
            log.data += M2 + M3
            self.master.serve()
            self.check_same()
            self.assertTrue(copy.is_level)
        self.assertEqual(20, len([each for each in self.master.asked if each[:3] == "get"]))

    def test_row_R57(self) -> None:
        """A record longer than ``maxTransferSize``, and one over 2 MiB, are fetched in pieces."""
        long = encode_record(2, 0, os.urandom(5 << 20))
        for limit in (1 << 20, 700_001):
            self.master.limit = limit
            number = int(limit != 1 << 20)
            self.master.log("test", number, records(3) + long + records(3) + long + records(1))
            self.slave.partition(number)
            self.master.serve()
            self.check_same(number)
            self.assertEqual(0, self.memory_in_use())

    def memory_in_use(self) -> int:
        """Beside that of the requests that are held."""
        held = sum(self.slave.pace.poll_bytes for each in self.slave.partitions if each.is_level)
        return self.slave.pace.budget.taken - held

    def test_small_transfers(self) -> None:
        """A master that sends a few bytes at a time."""
        self.master.limit = 7
        self.master.log("test", 0, records(20))
        self.slave.partition()
        self.master.serve()
        self.check_same()

    def test_next_range_is_asked_for_before_the_last_is_stored(self) -> None:
        """When a range has come, the request for the next one has left before its append."""
        self.master.log("test", 0, records(5000, 1000))
        self.slave.partition()
        seen: list[tuple[int, int]] = []
        plain = self.slave.broker.stores.get_or_create

        def append(*arguments: object) -> object:
            seen.append((len(self.master.asked), 0))
            return plain(*arguments)  # type: ignore[arg-type]

        self.slave.broker.stores.get_or_create = append  # type: ignore[assignment]
        link = None
        self.master.serve()
        self.check_same()
        self.assertIsNone(link)
        gets = [each for each in self.master.asked if each.startswith("get")]
        places = [int(each.split(" ")[4]) for each in gets]
        self.assertEqual(sorted(places), places)
        self.assertEqual([number << 20 for number in range(5)], places[:5])

    def test_many_partitions_in_little_memory(self) -> None:
        """The memory for what was fetched is never more than its bound, and all arrive."""
        self.slave.pace.budget.total = 3 << 20
        self.slave.pace.poll_bytes = 64 << 10
        taken = 0
        for number in range(20):
            data = records(30, 70_000) + records(1, 2 << 20) + records(30, 70_000)
            self.master.log("test", number, data)
            self.slave.partition(number)
        for _ in range(1000):
            self.master._round()
            taken = max(taken, self.slave.pace.budget.taken)
        for number in range(20):
            self.check_same(number)
        self.assertLessEqual(taken, 3 << 20)

    def test_stop(self) -> None:
        """Nothing is asked after the stop, and no memory is kept."""
        self.master.log("test", 0, records(10))
        copy = self.slave.partition()
        self.master.serve()
        copy.stop()
        self.master.serve(20)
        self.assertEqual(Standing.STOPPED, copy.standing)
        self.assertEqual(0, self.slave.pace.budget.taken)
        self.slave.peer.on_change(lambda _: copy.connected())
        self.master.lose()
        self.master.serve(5)
        self.assertEqual(Standing.STOPPED, copy.standing)


class GroupCommitTests(CopyTests):
    """The same on a slave that flushes before it continues."""

    threshold = 0


class JavaPaceTests(PartitionCase):
    """A master that answers every request at once."""

    holds = False

    def test_pauses_grow(self) -> None:
        """By a tenth of the longest, up to it; after data the first is short again."""
        log = self.master.log("test", 0, M1)
        self.slave.partition()
        times: list[float] = []
        start = self.slave.runtime.seconds()
        for _ in range(400):
            before = len(self.master.asked)
            self.master.serve(0.01)
            if len(self.master.asked) > before:
                times.append(round(self.slave.runtime.seconds() - start, 2))
        pauses = [b - a for a, b in zip(times, times[1:])]
        for pause, expected in zip(pauses, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10), strict=False):
            self.assertLess(abs(0.05 * expected - pause), 0.03)
        log.data += M2
        self.master.serve(0.5)
        self.master.asked.clear()
        self.master.serve(0.2)
        self.assertTrue(self.master.asked)
        self.check_same()

    def test_closed_partition(self) -> None:
        """403 is a reason to wait."""
        self.master.log("test", 0, M1)
        self.master.refusals["get"] = 403
        self.slave.partition()
        self.master.serve(10)
        del self.master.refusals["get"]
        self.master.serve(1)
        self.check_same()


class RetentionTests(PartitionCase):
    """The slave deletes by its own ``deletePolicy``, not by its master's."""

    system = MappingProxyType({"max_segment_size": 4000, "delete_policy": "delete,1"})

    def delete(self) -> None:
        """What is older than an hour, and that is all but the last segment."""
        broker = self.slave.broker
        later = time.time() + 7200
        retention = Retention(
            broker.stores, broker.config, broker.clock, broker.threads, lambda: later
        )
        retention.run()

    def test_keeps_less_than_its_master(self) -> None:
        """What it has deleted is not copied again, neither while it follows nor after a restart;
        new messages arrive."""
        log = self.master.log("test", 0, records(400))
        self.slave.partition()
        self.master.serve(1)
        self.delete()
        store = self.slave.broker.stores.get("test", 0)
        assert store is not None
        begin = store.min_offset
        self.assertGreater(begin, 0)
        for _ in range(2):
            log.data += records(50)
            self.master.serve(5)
            self.check_rest(log.data, begin)
            self.follow()
            self.slave.master.logs["test", 0] = log
            self.slave.partition()
            self.master.serve(5)
            self.check_rest(log.data, begin)
            self.assertEqual(0, self.slave.copied)
        self.assertEqual([], self.aside())

    def check_rest(self, data: bytes, begin: int) -> None:
        """Ours has the master's bytes from there on, at the same offsets."""
        store = self.slave.broker.stores.get("test", 0)
        assert store is not None
        self.assertEqual((begin, len(data)), (store.min_offset, store.next_offset))
        self.assertEqual(data[begin:], self.slave.own_bytes())


class LossTests(PartitionCase):
    """Connections, restarts, full disks."""

    def test_row_R06_R08_R09(self) -> None:
        """A slave that was stopped or killed continues where its log ends; nothing comes twice."""
        log = self.master.log("test", 0, records(100))
        self.slave.partition()
        self.master.serve()
        for _ in range(3):
            self.slave.peer.close()
            data = log.data + records(10_000)
            self.follow()
            log = self.master.log("test", 0, data)
            self.slave.partition()
            self.master.serve()
            self.check_same()
            gets = [each for each in self.master.asked if each.startswith("get")]
            self.assertNotIn("get test meta-slave-group_0 0 0 1048576", gets)

    def test_row_R07(self) -> None:
        """A record that was half written when the slave was killed is cut off and fetched again."""
        data = records(100)
        self.master.log("test", 0, data)
        self.slave.partition()
        self.master.serve()
        self.slave.peer.close()
        with open(f"{self.directory}/test-0/00000000000000000000.meta", "ab") as file:
            file.write(M3[:27])
        self.follow()
        self.master.log("test", 0, data + M3)
        self.slave.partition()
        self.master.serve()
        self.check_same()

    def test_row_R10(self) -> None:
        """The master's connection breaks in every state, and the slave continues by itself."""
        log = self.master.log("test", 0, records(100))
        copy = self.slave.partition()
        for _ in range(20):
            self.master._round()
            self.master.lose()
            self.slave.runtime.advance(0.1)
        for _ in range(5):
            log.data += records(10)
            self.master.serve(3)
            self.check_same()
            self.master.lose()
            self.assertEqual(Standing.WAITING, copy.standing)
            self.assertEqual(0, self.slave.pace.budget.taken)

    def test_cut_in_the_middle_of_a_value(self) -> None:
        """A part of a reply is worth nothing: its record is asked for again."""
        self.master.log("test", 0, records(100))
        self.slave.partition()
        for cut in (1, 30, 200):
            for _ in range(30):
                self.slave.runtime.advance(0.1)
                while self.slave.runtime.attempts:
                    self.slave.runtime.accept()
                link = self.slave.runtime.links[-1]
                written = link.take()
                if b"get " in written:
                    opaque = int(written[written.rindex(b"get ") :].split(b" ")[6])
                    link.receive((b"value 3000 %d\r\n" % opaque + records(80))[:cut])
                    link.lose()
                    break
                for line in written.split(b"\r\n")[:-1]:
                    self.master._answer(link, line.decode().split(" "))
            else:
                raise AssertionError("no get came")
        self.master.serve(5)
        self.check_same()

    def test_answers_that_nobody_has_asked_for(self) -> None:
        """Values and refusals with unknown opaques, before and after the right reply: none of them
        is stored, and copying continues."""
        log = self.master.log("test", 0, records(100))
        self.slave.partition()
        for _ in range(5):
            log.data += records(10)
            for link in self.master.links():
                for number in (0, -7, 2147483646):
                    strange = records(3)
                    link.receive(b"value %d %d\r\n%b" % (len(strange), number, strange))
                    link.receive(b"result 404 2 %d\r\nno" % number)
            self.master.serve(1)
            self.check_same()
        self.assertEqual(1, len(self.slave.runtime.links))

    def test_full_disk(self) -> None:
        """The copy waits, logs that once, and continues when there is room; no part of a block
        stays."""
        self.master.log("test", 0, records(2000, 1000))
        copy = self.slave.partition()
        self.slave.disk.room = 500_000
        self.master.serve(20)
        self.assertEqual(Standing.RETRYING, copy.standing)
        self.assertIn("No space left", copy.reason)
        self.assertEqual(b"", self.slave.own_bytes())
        complaints = [
            each for each in self.slave.runtime.log.texts("warn") if "tried again" in each
        ]
        self.assertEqual(1, len(complaints))
        self.slave.disk.room = None
        self.master.serve(RETRY_SECONDS + 1)
        self.check_same()
        self.assertEqual(Standing.COPYING, copy.standing)

    def test_master_that_refuses(self) -> None:
        """After every status and every invalid reply the request is repeated later."""
        for status in (500, 503, 400, 200, 777):
            self.master.refusals = {"get": status}
            number = len(self.master.logs)
            self.master.log("test", number, M1)
            copy = self.slave.partition(number)
            self.master.serve(3)
            self.assertEqual(Standing.RETRYING, copy.standing, status)
            self.assertIn(str(status), copy.reason)
            self.master.refusals = {}
            self.master.serve(RETRY_SECONDS + 1)
            self.check_same(number)

    def test_offset_that_is_none(self) -> None:
        """``301`` with garbage is a refusal like any other."""
        self.master.log("test", 0, M1)
        copy = self.slave.partition()
        self.master._get = lambda link, words, until: (  # type: ignore[method-assign]
            link.receive(b"result 301 5000 %b\r\n" % words[6].encode() + b"9" * 5000) is None
        )
        self.master.serve(1)
        self.assertEqual(Standing.RETRYING, copy.standing)
        del self.master._get  # type: ignore[method-assign]
        self.master.serve(RETRY_SECONDS + 1)
        self.check_same()

    def test_unexpected_error(self) -> None:
        """A defect ends a run with its text, and the next one may work."""
        self.master.log("test", 0, M1)
        copy = self.slave.partition()
        stores = self.slave.broker.stores

        def fail(*arguments: object) -> None:
            raise ZeroDivisionError("what nobody expects")

        stores.get_or_create = fail  # type: ignore[assignment, method-assign]
        self.master.serve(1)
        self.assertEqual("ZeroDivisionError: what nobody expects", copy.reason)
        del stores.get_or_create  # type: ignore[method-assign]
        self.master.serve(RETRY_SECONDS + 1)
        self.check_same()

    def test_master_that_does_not_answer(self) -> None:
        """Requests end, the connection as well, and everything begins anew."""
        self.master.log("test", 0, M1)
        self.slave.partition()
        self.master.deaf = True
        self.master.serve(60)
        self.master.deaf = False
        self.master.serve(5)
        self.check_same()

    def test_offset_is_refused(self) -> None:
        """The comparison is tried again until it works."""
        self.master.log("test", 0, M1)
        self.master.refusals["offset"] = 500
        copy = self.slave.partition()
        self.master.serve(30)
        self.assertEqual(Standing.RETRYING, copy.standing)
        del self.master.refusals["offset"]
        self.master.serve(RETRY_SECONDS + 1)
        self.check_same()

    def test_value_longer_than_asked_for(self) -> None:
        """It is not taken."""
        log = self.master.log("test", 0, records(3))
        copy = self.slave.partition()
        self.slave.pace.poll_bytes = 50
        self.master._get = lambda link, words, until: (  # type: ignore[method-assign]
            link.receive(b"value %d %b\r\n%b" % (len(log.data), words[6].encode(), log.data))
            is None
        )
        self.master.serve(1)
        self.assertEqual(Standing.RETRYING, copy.standing)
        self.assertIsNone(self.slave.broker.stores.get("test", 0))


class DamageTests(PartitionCase):
    """R27: a record that is not a record."""

    def test_row_R27(self) -> None:
        """The copy stops with one line that names the place, looks again, and continues when the
        record is repaired."""
        good = records(50)
        broken = bytearray(M3)
        broken[-1] ^= 1
        log = self.master.log("test", 0, good + bytes(broken) + good)
        copy = self.slave.partition()
        with capturedLogs() as events:
            self.master.serve(3 * DAMAGE_SECONDS)
        alarms = [each for each in events if "Replication damaged" in str(each["log_format"])]
        self.assertEqual(1, len(alarms))
        self.assertEqual(("test-0", len(good)), (alarms[0]["partition"], alarms[0]["offset"]))
        self.assertEqual(Standing.DAMAGED, copy.standing)
        self.assertIn("checksum", copy.reason)
        self.assertEqual(good, self.slave.own_bytes())
        log.data = good + M3 + good
        self.master.serve(DAMAGE_SECONDS + 1)
        self.check_same()

    def test_lengths(self) -> None:
        """Negative, or more than any record has."""
        for number, length in enumerate((-1, (64 << 20) + 1, (1 << 31) - 1)):
            self.master.log("test", number, M1 + HEADER.pack(length, 0, 1, 0) + bytes(100))
            copy = self.slave.partition(number)
            self.master.serve(1)
            self.assertEqual(Standing.DAMAGED, copy.standing)
            self.assertEqual(M1, self.slave.own_bytes(number))

    def test_length_that_leads_beyond_the_end(self) -> None:
        """It may be a record that is still to come: no memory is kept for it, and no CPU burnt."""
        log = self.master.log("test", 0, M1 + HEADER.pack(10 << 20, 0, 1, 0) + bytes(100))
        copy = self.slave.partition()
        self.master.serve(1)
        self.master.asked.clear()
        self.master.serve(60)
        self.assertLess(len(self.master.asked), 100)
        self.assertFalse(copy.is_level)
        self.assertGreater(copy.seconds_behind, 59)
        self.assertEqual(M1, self.slave.own_bytes())
        log.data = M1 + records(3)
        self.master.serve(10)
        self.check_same()


class GapTests(PartitionCase):
    """The master has deleted what the slave needs."""

    def test_row_R19(self) -> None:
        """The old directory moves out of the data path, and the log begins anew."""
        log = self.master.log("test", 0, records(100))
        self.slave.partition()
        self.master.serve()
        before = self.slave.own_bytes()
        self.master.lose()
        log.first, log.data = 100_000, records(20)
        with capturedLogs() as events:
            self.master.serve(5)
        self.check_same()
        self.assertEqual(["00000000000000100000.meta"], self.files())
        (name,) = self.aside()
        self.assertRegex(name, r"^test-0\.\d{8}T\d{6}Z$")
        with open(f"{self.directory}.aside/{name}/00000000000000000000.meta", "rb") as file:
            self.assertEqual(before, file.read())
        gaps = [each for each in events if "Replication gap" in str(each["log_format"])]
        self.assertEqual([(len(before), 100_000)], [(each["end"], each["first"]) for each in gaps])

    def test_gap_while_connected(self) -> None:
        """301 for the next range leads to the same."""
        log = self.master.log("test", 0, records(100))
        copy = self.slave.partition()
        self.master.limit = 1000
        for _ in range(6):
            self.master._round()
        log.first, log.data = 100_000, records(20)
        self.master.serve(5)
        self.check_same()
        self.assertEqual(Standing.COPYING, copy.standing)
        self.assertEqual(1, len(self.aside()))

    def test_directory_cannot_be_moved(self) -> None:
        """The partition stands, with the remedy in words, and continues when it can be."""
        log = self.master.log("test", 0, records(100))
        copy = self.slave.partition()
        self.master.serve()
        self.master.lose()
        log.first, log.data = 100_000, records(20)
        with open(f"{self.directory}.aside", "w", encoding="ascii"):
            pass
        self.master.serve(10)
        self.assertEqual(Standing.RETRYING, copy.standing)
        self.assertIn("make room there, or make", copy.reason)
        self.assertEqual(["00000000000000000000.meta"], self.files())
        self.assertIsNone(self.slave.broker.stores.get("test", 0))
        os.unlink(f"{self.directory}.aside")
        self.master.serve(5)
        self.check_same()

    def test_connection_lost_while_it_is_moved(self) -> None:
        """To another file system that takes minutes: nothing else happens to it meanwhile."""
        held: list[tuple[Callable[[], str], Deferred[str]]] = []

        def hold(threads: IWorkerThreads, work: Callable[[], str]) -> Deferred[str]:
            held.append((work, Deferred()))
            return held[-1][1]

        self.patch(ownlog, "_in_worker", hold)
        log = self.master.log("test", 0, records(100))
        copy = self.slave.partition()
        self.master.serve()
        self.master.lose()
        log.first, log.data = 100_000, records(20)
        for _ in range(3):
            self.master.serve(5)
            self.assertEqual(1, len(held))
            self.assertEqual(Standing.COMPARING, copy.standing)
            self.master.lose()
        self.master.serve(5)
        work, moved = held.pop()
        moved.callback(work())
        self.master.serve(5)
        self.check_same()
        self.assertEqual(([], 1), (held, len(self.aside())))

    def test_deleted_before_the_first_get(self) -> None:
        """Retention runs between the question for the range and the first ``get``."""
        log = self.master.log("test", 0, records(100), 1000)
        self.slave.partition()
        while not any(each.startswith("offset") for each in self.master.asked):
            self.master._round()
        log.first, log.data = 5000, records(10)
        self.master.serve(5)
        self.check_same()
        self.assertEqual([], self.aside())


class DivergenceTests(PartitionCase):
    """Other bytes, or more of them, than the master has."""

    def diverge(self, theirs: bytes, first: int = 0) -> None:
        """Our log is of another history than the master's."""
        log = self.master.log("test", 0, records(100))
        self.copy = self.slave.partition()
        self.master.serve()
        self.ours = self.slave.own_bytes()
        self.master.lose()
        log.first, log.data = first, theirs
        with capturedLogs() as events:
            self.master.serve(2 + AHEAD_LOOKS * AHEAD_SECONDS)
        self.alarms = [each for each in events if "Replication diverged" in str(each["log_format"])]

    def check_stands(self) -> None:
        """Nothing was touched, and one line said so."""
        self.assertEqual(Standing.DIVERGED, self.copy.standing)
        self.assertEqual(self.ours, self.slave.own_bytes())
        self.assertEqual([("test", 0, False)], self.slave.shown)
        self.assertEqual(1, len(self.alarms))

    def test_row_R20(self) -> None:
        """The master has lost what the slave has."""
        self.diverge(records(98))
        self.check_stands()
        self.assertIn("longer by 80 bytes", self.copy.reason)
        self.master.logs["test", 0].data += records(50, first_id=7000)
        self.master.lose()
        self.master.serve(10)
        self.check_stands()

    def test_master_has_lost_everything(self) -> None:
        """It has a log, and nothing in it."""
        self.diverge(b"")
        self.check_stands()

    def test_master_begins_and_ends_below(self) -> None:
        """Its whole range lies below ours."""
        log = self.master.log("test", 0, records(100), 50_000)
        self.copy = self.slave.partition()
        self.master.serve()
        self.ours = self.slave.own_bytes()
        self.master.lose()
        log.first, log.data = 0, records(3)
        with capturedLogs() as events:
            self.master.serve(10)
        self.alarms = [each for each in events if "Replication diverged" in str(each["log_format"])]
        self.check_stands()

    def test_other_bytes(self) -> None:
        """The same length, more, or less: the tails are compared."""
        other = records(99) + records(1, first_id=5)
        self.assertEqual(len(records(100)), len(other))
        for theirs in (other, other + records(50)):
            with self.subTest():
                self.diverge(theirs)
                self.check_stands()
                self.assertIn("differ", self.copy.reason)
                self.slave.peer.close()
                for name in self.files():
                    os.unlink(f"{self.directory}/test-0/{name}")
                self.follow()

    def test_mended_by_hand(self) -> None:
        """The connection comes back, and the master has our bytes again: copying continues."""
        self.diverge(records(98))
        self.master.logs["test", 0].data = records(100) + M3
        self.master.lose()
        self.master.serve(5)
        self.check_same()
        self.assertEqual([("test", 0, False), ("test", 0, True)], self.slave.shown)

    def test_other_partitions_go_on(self) -> None:
        """They do not notice."""
        self.master.log("test", 1, records(10))
        self.slave.partition(1)
        self.diverge(records(98))
        self.master.logs["test", 1].data += M3
        self.master.serve(1)
        self.check_same(1)

    def test_unflushed_on_the_master(self) -> None:
        """What it has written and does not show yet is not a divergence."""
        log = self.master.log("test", 0, records(100))
        copy = self.slave.partition()
        self.master.serve()
        self.master.lose()
        plain = self.master._offset

        def shown(link: object, words: list[str], opaque: str) -> None:
            whole, log.data = log.data, log.data[:-80]
            plain(link, words, opaque)  # type: ignore[arg-type]
            log.data = whole

        self.master._offset = shown  # type: ignore[method-assign, assignment]
        self.master.serve(2)
        log.data += M3
        self.master.serve(5)
        self.check_same()
        self.assertEqual(Standing.COPYING, copy.standing)


class CopyAgainTests(PartitionCase):
    """``on-divergence=copy-again``."""

    copy_again = True

    def test_copied_again(self) -> None:
        """The old directory moves aside, and the master's log is copied from its beginning."""
        log = self.master.log("test", 0, records(100))
        copy = self.slave.partition()
        self.master.serve()
        self.master.lose()
        log.first, log.data = 40, records(90)
        with capturedLogs() as events:
            self.master.serve(2 + AHEAD_LOOKS * AHEAD_SECONDS)
        self.check_same()
        self.assertEqual(1, len(self.aside()))
        self.assertEqual(Standing.COPYING, copy.standing)
        self.assertEqual(1, sum("Replication diverged" in str(e["log_format"]) for e in events))


class HiddenTests(PartitionCase):
    """A Java master that was restarted: 404 for a partition that it has not opened."""

    holds = False

    def test_row_R56(self) -> None:
        """An empty slave polls at 0, and begins where ``301`` says."""
        log = self.master.log("test", 0, records(100), 135_904)
        log.hidden = True
        copy = self.slave.partition()
        self.master.serve(30)
        self.assertIsNone(self.slave.broker.stores.get("test", 0))
        log.hidden = False
        log.data += M3
        self.master.serve(3)
        self.check_same()
        self.assertEqual(["00000000000000135904.meta"], self.files())
        self.assertEqual([], self.aside())
        self.assertEqual(Standing.COPYING, copy.standing)

    def test_with_a_log_of_our_own(self) -> None:
        """Nothing is concluded from 404; the logs are compared when the master shows its."""
        for theirs, standing in (
            (records(120), Standing.COPYING),
            (records(90), Standing.DIVERGED),
        ):
            number = len(self.master.logs)
            log = self.master.log("test", number, records(100))
            copy = self.slave.partition(number)
            self.master.serve()
            self.master.lose()
            log.hidden = True
            self.master.serve(30)
            self.assertEqual(Standing.UNSEEN, copy.standing)
            log.hidden, log.data = False, theirs
            self.master.serve(10)
            self.assertEqual(standing, copy.standing)
        self.check_same(0)


class CountTests(PartitionCase):
    """What a copy counts as."""

    def test_messages_and_no_puts(self) -> None:
        """The store counts records as messages; puts are counted by the slave."""
        self.master.log("test", 0, records(100))
        self.slave.partition()
        self.master.serve()
        store = self.slave.broker.stores.get("test", 0)
        assert store is not None
        self.assertEqual((100, 0, 100), (store.message_count, store.put_count, self.slave.copied))

    def test_long_polls_wake(self) -> None:
        """A get that is held on the slave is answered when the copy arrives."""
        log = self.master.log("test", 0, M1)
        self.slave.partition()
        self.slave.partition(1)
        self.master.serve()
        reader = self.slave.broker.client()
        self.assertEqual(b"", reader.send(b"get test g 0 25 1000 7 30000\r\n"))
        self.assertEqual(b"", reader.send(b"get test g 1 0 1000 8 30000\r\n"))
        log.data += M2
        self.master.log("test", 1, M3)
        self.master.serve(1)
        received = reader.received()
        self.assertIn(b"value 25 7\r\n" + M2, received)
        self.assertIn(b"value 31 8\r\n" + M3, received)

    def test_failed_copy(self) -> None:
        """The state of a copy that the disk did not take."""
        self.master.log("test", 0, M1)
        self.slave.partition()
        self.master.serve()
        store = self.slave.broker.stores.get("test", 0)
        assert store is not None
        self.slave.disk.room = 5
        self.assertEqual(FAILED, store.append_copy(M2, 1).state)
        self.assertEqual(1, store.message_count)
        self.assertEqual(FETCH_BYTES, 1 << 20)
