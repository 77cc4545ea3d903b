"""The broker is killed under load."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.faults.kills import (
    Acknowledged,
    KillRun,
    PartitionJudge,
    Place,
    digest,
    is_error,
    stored_log,
)
from tests.faults.slowdisk import SlowDiskRun, missing

KILLS = 20
SLOW_KILLS = 4
SEED = 20260101


class KillTests(SynchronousTestCase):
    """``kill -9`` at random moments; ``make kills`` does this 200 times."""

    timeout = 300

    def test_kills_under_load(self) -> None:
        """No acknowledged message is lost or stored twice, and every start succeeds."""
        run = KillRun(self.mktemp(), SEED)
        self.addCleanup(run.broker.kill)
        run.broker.start()
        for _ in range(KILLS):
            run.kill_once()
        run.broker.kill()
        served = run.found
        run.judge_end()
        self.assertEqual(run.found, served)
        self.assertGreaterEqual(run.found, run.acknowledged)
        self.assertGreater(run.acknowledged, KILLS)

    def test_slow_disk(self) -> None:
        """The same while the disk is slow for one topic, which does not stall another; ``make
        slow-kills`` does this 200 times."""
        if missing():
            raise SkipTest(missing())
        run = SlowDiskRun(self.mktemp(), SEED)
        self.addCleanup(run.broker.kill)
        run.broker.start()
        for _ in range(SLOW_KILLS):
            run.kill_once()
        run.broker.kill()
        run.judge_end()
        self.assertGreaterEqual(run.found, run.acknowledged)


def record(message_id: int, body: bytes) -> bytes:
    """A stored message."""
    return struct.pack(">iiqi", len(body), zlib.crc32(body) & 0x7FFFFFFF, message_id, 0) + body


class JudgeTests(SynchronousTestCase):
    """The checks of those runs detect every fault."""

    def setUp(self) -> None:
        self.judge = PartitionJudge("t", 0)
        self.first, self.second = record(5, b"1-1 x"), record(6, b"1-2 x")

    def promise(self, offset: int, message_id: int, body: bytes) -> None:
        """Note that the broker acknowledged this."""
        self.judge.promise(Acknowledged(Place("t", 0, offset), message_id, digest(body)))

    def refuses(self, word: str, *pieces: bytes) -> None:
        """The check fails for this log, with that word."""
        error = self.assertRaises(AssertionError, self.judge.judge, iter(pieces), set())
        self.assertIn(word, str(error))

    def test_good(self) -> None:
        """A log in order is accepted, in pieces cut anywhere, in several calls, and once again."""
        self.promise(len(self.first), 6, b"1-2 x")
        keys: set[bytes] = set()
        pieces = [self.first[:7], self.first[7:] + self.second]
        self.assertEqual(self.judge.judge(iter(pieces), keys), 2)
        self.promise(self.judge.read_to, 7, b"1-3 x")
        self.assertEqual(self.judge.judge(iter([record(7, b"1-3 x")]), keys), 1)
        self.judge.start_again()
        log = self.first + self.second + record(7, b"1-3 x")
        self.assertEqual(self.judge.judge(iter([log]), set()), 3)
        self.judge.start_again()
        self.refuses("lost", self.first + self.second)

    def test_lost(self) -> None:
        """An acknowledged message is not in the log."""
        self.promise(len(self.first), 6, b"1-2 x")
        self.refuses("lost", self.first)

    def test_lost_behind_what_was_read(self) -> None:
        """An acknowledged message is missing in a part that was read already."""
        self.judge.judge(iter([self.first, self.second]), set())
        self.promise(3, 5, b"1-1 x")
        self.refuses("lost")

    def test_other_content(self) -> None:
        """The stored message has another body, or another id, than was acknowledged."""
        self.promise(0, 5, b"1-1 y")
        self.refuses("promised", self.first)
        self.judge = PartitionJudge("t", 0)
        self.promise(0, 4, b"1-1 x")
        self.refuses("promised", self.first)

    def test_twice(self) -> None:
        """The same message at two places."""
        self.refuses("twice", self.first, record(6, b"1-1 x"))

    def test_one_place_for_two(self) -> None:
        """Two acknowledgements name the same place."""
        self.promise(0, 5, b"1-1 x")
        error = self.assertRaises(AssertionError, self.promise, 0, 6, b"1-2 x")
        self.assertIn("one place", str(error))

    def test_damaged(self) -> None:
        """A checksum that does not match, a cut last record, an id that does not increase."""
        self.refuses("checksum", self.first[:-1] + b"X")
        self.refuses("behind the last record", self.first + self.second[:-1])
        self.judge = PartitionJudge("t", 0)
        self.refuses("after", self.second + self.first)

    def test_logged(self) -> None:
        """Lines of a broker's log that tell of an error, and one that does not."""
        line = "2026-01-01T00:00:00+0000 [metamorphosis.daemon.service.BrokerService#{}] Broker 0"
        self.assertFalse(is_error(line.format("info")))
        for bad in (line.format("error"), line.format("critical"), "\tTraceback (most recent call"):
            self.assertTrue(is_error(bad), bad)

    def test_gap_between_segments(self) -> None:
        """Segment files that do not follow each other."""
        directory = self.mktemp()
        os.mkdir(directory)
        for offset, data in ((0, self.first), (len(self.first) + 1, self.second)):
            with open(os.path.join(directory, f"{offset:020}.meta"), "wb") as file:
                file.write(data)

        def read() -> list[bytes]:
            log: Iterator[bytes] = stored_log(directory)
            return list(log)

        self.assertIn("should start at 25", str(self.assertRaises(AssertionError, read)))
