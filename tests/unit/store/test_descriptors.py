"""The bound of open segment files, over stores of both modes and a seeded life of them."""

from __future__ import annotations

import errno
import os
import random

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import StoreError
from metamorphosis.store.batch import Outcome
from metamorphosis.store.descriptors import TRIES, Descriptors, DescriptorsTaken
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import MessageStores
from metamorphosis.store.segment import Segment
from metamorphosis.threads import SynchronousThreads
from tests.support.partitions import M1, N0, BreakableDisk, record, stored

BOUND = 5


class DescriptorsTests(SynchronousTestCase):
    """More partitions than descriptors."""

    def setUp(self) -> None:
        """A data path with group commit (topic ``g``) and the default mode (``d``)."""
        self.path = os.path.abspath(self.mktemp())
        os.mkdir(self.path)
        self.topics = {
            "g": TopicConfig("g", unflush_threshold=0, num_partitions=99),
            "d": TopicConfig("d", unflush_threshold=1000, num_partitions=99),
        }
        self.clock = Clock()
        self.threads = SynchronousThreads()
        self.disk = BreakableDisk()
        self.stores = self.load()

    def load(self, max_segment_size: int = 200, apart: bool = False) -> MessageStores:
        """The stores of the data path."""
        environment = StoreEnvironment(
            self.threads,
            self.clock,
            FlushSchedule(self.clock),
            max_segment_size=max_segment_size,
            disk=self.disk,
            descriptors=Descriptors(BOUND),
            apart=apart,
        )
        config = BrokerConfig(0, data_path=self.path, topics=self.topics)
        stores = MessageStores(config, environment)
        self.successResultOf(stores.load())
        self.addCleanup(stores.close)
        return stores

    def test_table_of_its_own(self) -> None:
        """Two brokers of one process have separate tables: neither keeps the stores of the other
        alive."""
        one, other = [
            StoreEnvironment(self.threads, self.clock, FlushSchedule(self.clock)) for _ in range(2)
        ]
        self.assertIsNot(one.descriptors, other.descriptors)

    def store(self, topic: str, partition: int) -> MessageStore:
        """Made if it is new."""
        return self.stores.get_or_create(self.topics[topic], partition)

    def put(self, store: MessageStore, data: bytes) -> None:
        """One record, as the slow path does."""
        batch = store.batch or store.open_batch()
        batch.pieces += (data[:20], data[20:])
        store.next_offset += len(data)
        store.commit()

    def open_files(self) -> int:
        """Segments with a descriptor."""
        return sum(segment.fd >= 0 for store in self.stores for segment in store._segments)

    def test_load_opens_none(self) -> None:
        """After a start no descriptor is held; each partition can be read and written."""
        for number in range(20):
            directory = os.path.join(self.path, f"d-{number}")
            os.mkdir(directory)
            with open(os.path.join(directory, N0), "wb") as file:
                file.write(M1)
        self.stores = self.load()
        self.assertEqual(self.open_files(), 0)
        for store in self.stores:
            self.assertEqual(stored(store), M1)
            self.put(store, M1)
            self.clock.advance(1)
            self.assertEqual(stored(store), M1 + M1)
            self.assertLessEqual(self.open_files(), BOUND)

    def test_random_life(self) -> None:
        """Seeded puts, gets, rolls and restarts of 40 partitions: all is stored and readable, and
        never more than the bound is open."""
        generator = random.Random(3)
        wanted: dict[tuple[str, int], bytes] = {}
        for number in range(3000):
            key = (generator.choice("gd"), generator.randrange(20))
            store = self.store(*key)
            if generator.random() < 0.5:
                data = record(20 + generator.randrange(80), number + 1)
                self.put(store, data)
                wanted[key] = wanted.get(key, b"") + data
            else:
                self.clock.advance(0.1)
                log = wanted.get(key, b"")
                at = generator.randrange(len(log) + 1)
                found = stored(store, at)
                self.assertEqual(found or b"", log[at : at + len(found or b"")])
            if number % 500 == 499:
                self.successResultOf(self.stores.close())
                self.stores = self.load()
            self.clock.advance(0.1)
            self.assertLessEqual(self.open_files(), BOUND)
        for key, log in wanted.items():
            found = b""
            while len(found) < len(log):
                found += stored(self.store(*key), len(found)) or b"?"
            self.assertEqual(found, log)

    def test_needed_ones_stay_open(self) -> None:
        """What a worker or a reader has keeps its descriptor, beyond the bound if need be; workers
        that come then open files for themselves."""
        full = self.store("d", 30)
        self.put(full, M1)
        self.clock.advance(1)
        self.threads.hold()
        busy = [self.store("g", number) for number in range(3)]
        for store in busy:
            self.put(store, M1)
        read = []
        for number in range(2):
            read.append(self.store("d", number))
            read[-1].last.retain()
        late = [self.store("g", number) for number in range(10, 20)]
        for store in late:
            self.put(store, M1)
        self.assertEqual([store for store in busy + read if store.last.fd < 0], [])
        self.assertLessEqual(self.open_files(), 7)
        self.assertRaises(DescriptorsTaken, full.slice, 0, 99)
        self.assertIsNotNone(full.slice(0, 99, at_once=True))
        for store in read:
            store.last.release()
        self.threads.release()
        self.assertEqual([stored(store) for store in busy + late], [M1] * 13)
        self.assertLessEqual(self.open_files(), BOUND)

    def test_room_for_a_new_partition(self) -> None:
        """A segment is closed before a worker opens the file of a new partition, so that the bound
        holds at any time; who asks for the partition meanwhile closes no further one."""
        self.stores = self.load(apart=True)
        for number in range(BOUND):
            self.put(self.store("d", number), M1)
            self.clock.advance(1)
        self.assertEqual(self.open_files(), BOUND)
        self.threads.hold()
        for _ in range(2):
            created = self.stores.create(self.topics["d"], BOUND)
            assert created is not None
            self.assertEqual(self.open_files(), BOUND - 1)
        self.threads.release()
        self.successResultOf(created)
        self.assertEqual(self.open_files(), BOUND)

    def test_search_for_one_to_close(self) -> None:
        """As many as ``TRIES`` are looked at; the next search goes on from there."""
        store = self.store("d", 0)
        self.put(store, M1)
        path = store.last.path
        for read, closed in ((TRIES - 1, (True, True)), (TRIES, (False, True))):
            table = Descriptors(read + 1)
            segments = [Segment(0, path) for _ in range(read + 3)]
            for segment in segments[: read + 1]:
                table.open(store, segment)
                segment.retain()
            idle = segments[read]
            idle.release()
            found = []
            for segment in segments[read + 1 :]:
                table.open(store, segment)
                segment.retain()
                found.append(idle.fd < 0)
            for segment in segments:
                segment.close()
            self.assertEqual(tuple(found), closed)

    def test_burst(self) -> None:
        """One turn collects for more partitions than can be open; all is stored."""
        for topic in "gd":
            collecting = [self.store(topic, number) for number in range(30)]
            for store in collecting:
                store.add(1, 0, 907060870, b"hello")
            for store in collecting:
                store.commit()
                self.assertLessEqual(self.open_files(), BOUND)
            self.clock.advance(1)
            self.assertEqual([stored(store) for store in collecting], [M1] * 30)

    def test_failed_flush_of_a_closed_file(self) -> None:
        """With group commit a batch that could not be flushed is cut off again."""
        store = self.store("g", 0)
        self.put(store, M1)
        for number in range(1, 10):
            self.store("g", number)
        self.disk.broken.add("sync")
        self.put(store, M1)
        self.disk.broken.clear()
        self.assertEqual((store.last.size, os.path.getsize(store.last.path)), (25, 25))
        self.put(store, M1)
        self.assertEqual(stored(store), M1 + M1)

    def test_no_descriptor_left(self) -> None:
        """A put or get that gets none is refused; the next is tried."""
        store = self.store("d", 0)
        self.put(store, M1)
        self.clock.advance(1)
        store.last.close()
        real = os.open

        def refuse(*args: object, **kwargs: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.patch(os, "open", refuse)
        error = self.assertRaises(StoreError, store.slice, 0, 100)
        self.assertIn("d-0", str(error))
        self.assertIn("Too many open files", str(error))
        batch = store.open_batch()
        with capturedLogs() as lines:
            self.put(store, M1)
            self.put(store, M1)
        (line,) = map(formatEvent, lines)  # the begin, not each refusal
        self.assertIn("messages are refused until it works again", line)
        self.assertEqual(batch.state, Outcome.FAILED)
        self.assertIsInstance(batch.error, OSError)
        self.assertEqual((batch.stored_end, batch.stored_count), (len(M1), 0))
        self.patch(os, "open", real)
        self.put(store, M1)
        self.clock.advance(1)
        self.assertEqual(stored(store), M1 + M1)

    def test_directory_of_a_partition_that_cannot_be_made(self) -> None:
        """It goes again, so that the next start does not find it; one with files in it stays."""
        self.disk.broken.add("create")
        self.assertRaises(StoreError, self.store, "d", 0)
        self.assertEqual(os.listdir(self.path), [])
        os.mkdir(os.path.join(self.path, "d-0"))
        with open(os.path.join(self.path, "d-0", "note"), "w", encoding="ascii"):
            pass
        self.assertRaises(StoreError, self.store, "d", 0)
        self.assertEqual(os.listdir(self.path), ["d-0"])
        self.disk.broken.clear()
        self.put(self.store("d", 0), M1)
