"""
The rows C1 to C34 of the storage specification's conformance table, each a test named after its
row. Ours refuses and keeps what the original refuses and keeps, with the same text.
"""

from __future__ import annotations

import os
import sys

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import OffsetTooSmall, SegmentsInvalid, StoreClosed, StoreError
from metamorphosis.store.batch import STORED
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.messagestores import MessageStores
from metamorphosis.threads import SynchronousThreads
from tests.support.partitions import (
    M0,
    M1,
    M2,
    M3,
    N0,
    N50,
    Partition,
    put,
    record,
    stored,
)


class OpeningTests(SynchronousTestCase):
    """C1 to C21: the content of a partition directory, and the result of opening it."""

    def partition(self) -> Partition:
        """An empty data path."""
        path = self.mktemp()
        os.mkdir(path)
        return Partition(path)

    def check(self, partition: Partition, low: int, high: int, count: int) -> None:
        """Open it and compare offsets and message count."""
        store = partition.open()
        self.assertEqual(
            (store.min_offset, store.max_offset, store.message_count), (low, high, count)
        )
        self.successResultOf(store.close())

    def invalid(self, partition: Partition, one: str, two: str) -> None:
        """Opening fails and names both files."""
        error = self.assertRaises(SegmentsInvalid, partition.open)
        paths = [os.path.join(partition.directory, name) for name in (one, two)]
        self.assertEqual(str(error), "The following segments don't validate: " + ", ".join(paths))

    def test_c1_no_directory(self) -> None:
        """A new partition gets its directory and an empty first segment."""
        partition = self.partition()
        self.check(partition, 0, 0, 0)
        self.assertEqual(partition.files(), {N0: b""})

    def test_c2_nothing_that_is_a_segment(self) -> None:
        """Other files and a directory with the suffix are left alone."""
        partition = self.partition().put("00000000000000000000.arc", M1).put("x.txt", b"x")
        os.mkdir(os.path.join(partition.directory, "99.meta"))
        self.check(partition, 0, 0, 0)
        self.assertEqual(partition.read(), b"")
        self.assertEqual(partition.read("x.txt"), b"x")

    def test_c2_empty_directory(self) -> None:
        """An existing directory without files is a new partition."""
        partition = self.partition().fill()
        self.check(partition, 0, 0, 0)

    def test_c3_three_messages(self) -> None:
        """Whole messages are counted and kept."""
        self.check(self.partition().fill(n0=M1 + M2 + M3), 0, 81, 3)

    def test_c4_incomplete_last_message(self) -> None:
        """A cut header, a header without body and a cut body are cut off."""
        for length in (19, 20, 24):
            partition = self.partition().fill(n0=M1 + M2[:length])
            self.check(partition, 0, 25, 1)
            self.assertEqual(partition.read(), M1)

    def test_c5_flipped_payload_bit(self) -> None:
        """A bad message at the end is cut off. Differs: what valid ones follow stays."""
        bad = M2[:22] + bytes([M2[22] ^ 1]) + M2[23:]
        partition = self.partition().fill(n0=M1 + bad)
        self.check(partition, 0, 25, 1)
        self.assertEqual(partition.read(), M1)
        partition = self.partition().fill(n0=M1 + bad + M3)
        self.check(partition, 0, 81, 2)
        self.assertEqual(partition.read(), M1 + bad + M3)

    def test_c6_changed_id_or_flag(self) -> None:
        """The checksum covers the body only."""
        for position in (10, 17):
            changed = M2[:position] + b"\x77" + M2[position + 1 :]
            self.check(self.partition().fill(n0=M1 + changed + M3), 0, 81, 3)

    def test_c7_checksum_with_top_bit(self) -> None:
        """All 32 bits of the checksum are compared."""
        bad = M2[:4] + bytes([M2[4] | 0x80]) + M2[5:]
        self.check(self.partition().fill(n0=M1 + bad), 0, 25, 1)
        self.check(self.partition().fill(n0=M1 + bad + M3), 0, 81, 2)

    def test_c8_negative_or_huge_length(self) -> None:
        """A length below 0 or beyond the file is that of a bad message."""
        for byte in (b"\xff", b"\x7f"):
            self.check(self.partition().fill(n0=M1 + byte + M2[1:]), 0, 25, 1)
            self.check(self.partition().fill(n0=M1 + byte + M2[1:] + M3), 0, 81, 2)

    def test_c9_zero_bytes(self) -> None:
        """Zeros are valid empty messages, 20 bytes each (D-6)."""
        partition = self.partition().fill(n0=M1 + M2 + bytes(50))
        self.check(partition, 0, 90, 4)
        self.assertEqual(len(partition.read()), 90)

    def test_c10_two_segments(self) -> None:
        """Messages of segments that are immutable at start are not counted (D-15)."""
        self.check(self.partition().fill(n0=M1 + M2, n50=M3), 0, 81, 1)

    def test_c11_corrupt_immutable_segment(self) -> None:
        """Only the last segment is checked (D-7)."""
        bad = M2[:22] + bytes([M2[22] ^ 1]) + M2[23:]
        partition = self.partition().fill(n0=M1 + bad, n50=M3)
        self.check(partition, 0, 81, 1)
        self.assertEqual(partition.read(), M1 + bad)

    def test_c12_gap(self) -> None:
        """A gap between segments is refused."""
        self.invalid(self.partition().fill(n0=M1, n50=M3), N0, N50)

    def test_c13_overlap(self) -> None:
        """Overlapping segments are refused."""
        self.invalid(self.partition().fill(n0=M1 + M2 + M3, n50=M3), N0, N50)

    def test_c14_empty_first_segment(self) -> None:
        """An empty file is only allowed at the end."""
        self.invalid(self.partition().fill(n0=b"", n50=M1), N0, N50)

    def test_c15_empty_last_segment(self) -> None:
        """An empty last file is normal after a roll."""
        partition = self.partition().fill(n0=M1 + M2, n50=b"")
        store = partition.open()
        self.assertEqual((store.max_offset, store.message_count), (50, 0))
        self.assertIsNone(store.slice(50, 1000))
        self.assertEqual(store.append([M3]).offset, 50)

    def test_c16_log_that_starts_later(self) -> None:
        """The first segment need not start at 0, and any number of digits is read."""
        for name in ("100.meta", "00000000000000000100.meta"):
            self.check(self.partition().put(name, M1), 100, 125, 1)

    def test_c17_same_start_twice(self) -> None:
        """Two files for the same offset are refused."""
        self.invalid(self.partition().put("0.meta", M1).fill(n0=M1), "0.meta", N0)

    def test_c18_name_that_is_no_number(self) -> None:
        """A name that is not an offset is refused with the original's words and the path."""
        for name, text in (("abc.meta", '"abc"'), (".meta", '""')):
            partition = self.partition().put(name, b"")
            error = self.assertRaises(SegmentsInvalid, partition.open)
            self.assertIn(f"For input string: {text}", str(error))
            self.assertIn(os.path.join(partition.directory, name), str(error))

    def test_c19_file_in_place_of_the_directory(self) -> None:
        """A regular file with the partition's name is refused."""
        partition = self.partition()
        with open(partition.directory, "wb"):
            pass
        error = self.assertRaises(StoreError, partition.open)
        self.assertEqual(str(error), f"Path is not a directory:{partition.directory}")

    def test_c20_missing_parents(self) -> None:
        """Only one level of directories is created."""
        partition = Partition(os.path.join(self.mktemp(), "data"))
        error = self.assertRaises(StoreError, partition.open)
        self.assertTrue(str(error).startswith(f"Create directory failed:{partition.path}"))

    def test_c21_fast_boot(self) -> None:
        """Fast boot takes the last file as it is and counts nothing."""
        partition = self.partition().fill(n0=M1 + b"abc")
        store = partition.open(fast_boot=True)
        self.assertEqual((store.max_offset, store.message_count), (28, 0))
        self.assertEqual(len(partition.read()), 28)


class ScanningTests(SynchronousTestCase):
    """C22 to C26: the content of a data path."""

    def setUp(self) -> None:
        """An empty data path."""
        self.path = os.path.abspath(self.mktemp())
        os.mkdir(self.path)

    def load(self) -> MessageStores:
        """The stores, after a load that must succeed."""
        clock = Clock()
        environment = StoreEnvironment(SynchronousThreads(), clock, FlushSchedule(clock))
        topics = {"t": TopicConfig("t", num_partitions=5)}
        stores = MessageStores(BrokerConfig(0, data_path=self.path, topics=topics), environment)
        self.addCleanup(stores.close)
        self.loading = stores.load()
        return stores

    def make(self, *names: str) -> None:
        """Create these directories."""
        for name in names:
            os.mkdir(os.path.join(self.path, name))

    def test_c22_everything_is_loaded(self) -> None:
        """All partition directories are loaded (D-1); other directories are named in a warning."""
        self.make("t-0", "t-1", "t-2", "t-3", "t-4", "transactions", "zzz")
        with open(os.path.join(self.path, "x"), "wb"):
            pass
        events: list[str] = []

        def observe(event: dict) -> None:
            if "path" in event:
                events.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        stores = self.load()
        self.successResultOf(self.loading)
        self.assertEqual([store.partition for store in stores], [0, 1, 2, 3, 4])
        self.assertEqual(
            sorted(events),
            [
                f"Ignore invlaid directory:{self.path}/zzz",
                f"Ignore not directory path:{self.path}/x",
            ],
        )

    def test_c23_partition_that_is_no_number(self) -> None:
        """A directory with a bad partition number stops the start and is named."""
        for name, text in (("t-x", '"x"'), ("t-", '""')):
            self.make(name)
            self.load()
            error = self.failureResultOf(self.loading, SegmentsInvalid).value
            self.assertIn(f"For input string: {text}", str(error))
            self.assertIn(os.path.join(self.path, name), str(error))
            os.rmdir(os.path.join(self.path, name))

    def test_c24_leading_zero(self) -> None:
        """``t-01`` is partition 1, which lives in ``t-1``."""
        self.make("t-01")
        with open(os.path.join(self.path, "t-01", N0), "wb") as file:
            file.write(M1)
        stores = self.load()
        self.successResultOf(self.loading)
        store = stores.get("t", 1)
        assert store is not None
        self.assertEqual(store.max_offset, 0)
        self.assertEqual(os.listdir(os.path.join(self.path, "t-1")), [N0])

    def test_c25_unknown_topic(self) -> None:
        """A partition of a topic that is not configured is loaded and can be read."""
        self.make("other-7")
        with open(os.path.join(self.path, "other-7", N0), "wb") as file:
            file.write(M1)
        stores = self.load()
        store = stores.get("other", 7)
        assert store is not None
        self.assertEqual(stored(store), M1)

    def test_c26_topic_that_ends_in_a_dash(self) -> None:
        """Topic and partition are split at the last dash."""
        self.make("t--1")
        stores = self.load()
        self.assertEqual([(s.topic, s.partition) for s in stores], [("t-", 1)])


class AppendingTests(SynchronousTestCase):
    """C27 to C34: append, roll, read and flush."""

    def partition(self, **parameters: int) -> Partition:
        """An empty partition."""
        return Partition(self.mktemp(), **parameters)

    def test_c27_worked_example(self) -> None:
        """The sequence of section 2.7 leaves exactly its files."""
        partition = self.partition(max_segment_size=50, unflush_threshold=0)
        store = partition.open()
        self.assertEqual([store.append([m]).offset for m in (M1, M2, M3)], [0, 25, 50])
        self.assertEqual(partition.files(), {N0: M1 + M2, N50: M3})
        self.assertEqual((store.min_offset, store.max_offset), (0, 81))

    def test_c28_slices_and_nearest_offsets(self) -> None:
        """The table of section 4.1."""
        store = self.partition().fill(n100=M1 + M2, n150=M3).open()
        for offset in (-1, 0, 99):
            self.assertRaises(OffsetTooSmall, store.slice, offset, 1000)
            self.assertEqual(store.nearest_offset(offset), 100)
        expected = {100: (50, 100), 124: (26, 100), 149: (1, 100), 150: (31, 150)}
        for offset, (length, nearest) in expected.items():
            data = stored(store, offset, 1000)
            self.assertEqual(data, (M1 + M2)[offset - 100 :] if offset < 150 else M3)
            self.assertEqual((len(data or b""), store.nearest_offset(offset)), (length, nearest))
        for offset in (181, 182, sys.maxsize):
            self.assertIsNone(store.slice(offset, 1000))
            self.assertEqual(store.nearest_offset(offset), 181)

    def test_c29_threshold(self) -> None:
        """
        A flush at every fourth append with threshold 3; a slice also covers what is unflushed.
        """
        store = self.partition(unflush_threshold=3).open()
        ends = []
        for number in range(9):
            store.append([record(30, number)])
            ends.append(store.max_offset)
        self.assertEqual(ends, [0, 0, 0, 120, 120, 120, 120, 240, 240])
        self.assertEqual(len(stored(store, 0, 100000) or b""), 270)

    def test_c30_group_commit(self) -> None:
        """With threshold 0 the answer comes after the flush."""
        partition = self.partition(unflush_threshold=0)
        store = partition.open()
        partition.threads.hold()
        ends: list[int] = []
        batch = put(store, M1)
        batch.waiters.append(lambda: ends.append(store.max_offset))
        store.commit()
        self.assertEqual((ends, store.max_offset), ([], 0))
        partition.threads.release()
        self.assertEqual((ends, batch.state), ([25], STORED))

    def test_c31_group_commit_of_a_big_message(self) -> None:
        """A big message takes the same path: flushed before it is answered, and readable (D-4)."""
        partition = self.partition(unflush_threshold=0)
        store = partition.open()
        store.append([M1])
        batch = put(store, record(600_000))
        ends: list[int] = []
        batch.waiters.append(lambda: ends.append(store.max_offset))
        store.commit()
        self.assertEqual((batch.offset, ends, partition.disk.calls[-1]), (25, [600_025], "sync"))

    def test_c32_group_commit_of_many(self) -> None:
        """
        A thousand puts during flushes: answered in order, no gaps, all readable when answered.
        """
        partition = self.partition(unflush_threshold=0)
        store = partition.open()
        partition.threads.hold()
        answered: list[int] = []
        expected = []
        for number in range(1000):
            expected.append(store.next_offset)
            offset = store.next_offset

            def answer(offset: int = offset) -> None:
                self.assertGreaterEqual(store.max_offset, offset + 30)
                answered.append(offset)

            put(store, record(30, number)).waiters.append(answer)
            store.commit()
            if number % 7 == 6:
                partition.threads.release_one()
        partition.threads.release()
        self.assertEqual(answered, expected)
        self.assertEqual(expected, list(range(0, 30_000, 30)))
        self.assertEqual(stored(store), b"".join(record(30, n) for n in range(1000)))

    def test_c33_append_after_close(self) -> None:
        """A closed store refuses with the original's words."""
        store = self.partition().open()
        self.successResultOf(store.close())
        error = self.assertRaises(StoreClosed, store.append, [M1])
        self.assertEqual(str(error), "Closed MessageStore.")

    def test_c34_block_of_a_transaction(self) -> None:
        """A block is contiguous, counts as one message, and rolls only after its end."""
        for threshold in (0, 1000):
            partition = self.partition(max_segment_size=30, unflush_threshold=threshold)
            store = partition.open()
            batch = store.append([M1, M2])
            self.assertEqual((batch.state, batch.offset, batch.size), (STORED, 0, 50))
            self.assertEqual(partition.files(), {N0: M1 + M2, N50: b""})
            self.assertEqual(store.message_count, 1)

    def test_m0_is_an_empty_message(self) -> None:
        """The vector of an empty message is stored and recovered like any other."""
        partition = self.partition()
        partition.open().append([M0])
        self.assertEqual(partition.open().message_count, 1)
