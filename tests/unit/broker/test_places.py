"""
Where the turn in C writes: at the end of the store as it is in that moment, whatever has happened
to the store before, and with the same accounts as in Python.
"""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from unittest import mock
from zlib import crc32

from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from metamorphosis.broker.hotpath.turn import TurnStores
from metamorphosis.errors import StoreStalled
from metamorphosis.message import iterate_records
from metamorphosis.store import directflush
from metamorphosis.store.appender import UNKNOWN_END, Appender
from metamorphosis.store.descriptors import Descriptors
from metamorphosis.store.directflush import DirectFlush
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.segmentwriter import SegmentWriter
from metamorphosis.store.states import Worker
from tests.support.lanes import Peer, Served
from tests.support.partitions import record
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_lanes import LaneCase

SEED = 20261130
STEPS = 400


def bodies(served: Served, partition: int) -> list[bytes]:
    """Of all records of a partition, in order."""
    found = []
    for name, data in served.files().items():
        if name.startswith(f"test-{partition}/"):
            found += [bytes(each.body) for each in iterate_records(data)]
    return found


class PlaceTests(LaneCase):
    """The state of the store changes between two turns, or between two rounds."""

    def setUp(self) -> None:
        """Count the writes for which C has called Python."""
        self.told: list[int] = []
        took = Appender.took

        def count(appender: Appender, data: bytes, count: int) -> None:
            self.told.append(count)
            took(appender, data, count)

        self.patch(Appender, "took", count)

    def put(self, served: Served, peer: Peer, body: bytes) -> None:
        """Store one message in partition 0."""
        peer.send(put(body))
        served.turn()
        self.assertIn(b"result 200", peer.received())

    def test_usual_state(self) -> None:
        """Python is told once of a store, which then waits for its flush, until the flush has
        begun."""
        served = self.serve()
        peer = self.plain(served)
        self.told.clear()
        for _ in range(5):
            self.put(served, peer, b"x")
        self.assertEqual(self.told, [])
        served.advance(1)
        self.put(served, peer, b"x")
        self.put(served, peer, b"x")
        self.assertEqual(self.told, [1])

    def test_account_that_fails(self) -> None:
        """What was acknowledged is not written over, wherever it fails: the store takes no more
        messages, and the next start finds what is in the file."""
        for owner, name in ((SegmentWriter, "grew"), (DirectFlush, "appended")):
            served = self.serve()
            peer = self.plain(served)
            served.advance(1)  # Python has to be told of the next put
            with mock.patch.object(owner, name, side_effect=MemoryError):
                self.put(served, peer, b"kept")
            self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
            for body in (b"late", b"later"):
                peer.send(put(body))
                served.turn()
                self.assertIn(b"the end of its log is not known", peer.received(), name)
            served.advance(1)
            self.store(served).close()
            self.assertEqual(bodies(served, 0)[-2:], [b"hello", b"kept"], name)

    def test_no_memory(self) -> None:
        """Whichever piece of memory is missing for the account: every acknowledged message is where
        its reply says, also after the next puts."""
        if find_spec("_testcapi") is None:
            self.skipTest("this Python cannot let its memory fail")
        if sys.version_info >= (3, 12):
            self.skipTest("Python 3.12.1 and 3.13.0 free a lambda's code twice when memory fails")
        testcapi: Any = import_module("_testcapi")
        self.patch(sys, "unraisablehook", lambda error: None)
        withdrawn = 0
        for number in range(100):
            served = self.serve()
            peer = self.plain(served)
            served.advance(1)
            peer.send(put(b"kept") * 3)
            testcapi.set_nomemory(number, number + 1)
            try:
                served.sockets.doRead()
            except MemoryError:
                pass
            finally:
                testcapi.remove_mem_hooks()
            served.turn()
            peer.send(put(b"late!") * 2)
            served.turn()
            found = re.findall(rb"result 200 [^\r]*\r\n(\d+) 0 (\d+)", peer.received())
            data = b"".join(each for name, each in served.files().items() if "test-0" in name)
            for identifier, offset in found:
                there = data[int(offset) + 8 : int(offset) + 16]
                self.assertEqual(int.from_bytes(there, "big"), int(identifier), number)
            withdrawn += self.store(served).stalled is UNKNOWN_END
        self.flushLoggedErrors(MemoryError)
        self.assertGreater(withdrawn, 0)

    def test_roll(self) -> None:
        """The next segment begins where the full one ends."""
        served = self.serve(max_segment_size=200)
        peer = self.plain(served)
        sent = [b"%04d" % number for number in range(40)]
        for body in sent:
            self.put(served, peer, body)
        store = self.store(served)
        self.assertGreater(len(store.segments), 4)
        self.assertEqual(bodies(served, 0)[-40:], sent)
        ends = [segment.end for segment in store.segments]
        self.assertEqual([segment.start for segment in store.segments[1:]], ends[:-1])

    def test_roll_between_rounds(self) -> None:
        """The same with several writes to a store in one turn of the reactor."""
        served = self.serve(max_segment_size=2000)
        peers = [self.plain(served) for _ in range(3)]
        sent = []
        for number in range(60):
            body = b"%04d" % number + bytes(30_000)
            sent.append(body)
            for peer in peers:
                peer.send(put(body))
            served.turn()
        self.assertEqual(bodies(served, 0)[-180:], [body for body in sent for _ in peers])

    def test_retention(self) -> None:
        """The oldest segment is removed between two puts."""
        served = self.serve(max_segment_size=200)
        peer = self.plain(served)
        for number in range(20):
            self.put(served, peer, b"%04d" % number)
        store = self.store(served)
        store.remove_segment(store.immutable_segments()[0])
        end = store.next_offset
        self.put(served, peer, b"late")
        self.assertEqual((store.next_offset, bodies(served, 0)[-1]), (end + 24, b"late"))

    def test_other_writer(self) -> None:
        """A block that Python appends, and one whose record is not forced yet."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        self.put(served, peer, b"one")
        store.append([record(30)])
        self.put(served, peer, b"two")
        block = store.reserve([record(30)])
        peer.send(put(b"three"))
        served.turn()
        self.assertEqual(peer.received(), b"")
        store.commit_block(block)
        served.turn()
        self.assertIn(b"result 200", peer.received())
        self.put(served, peer, b"four")
        block_body = next(iterate_records(record(30))).body
        expected = [b"one", block_body, b"two", block_body, b"three", b"four"]
        self.assertEqual(bodies(served, 0)[-6:], expected)
        self.assertEqual(os.path.getsize(store.last.path), store.next_offset)

    def test_store_that_closes(self) -> None:
        """It takes no more records, neither while its last flush runs nor later."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        self.put(served, peer, b"x")
        served.broker.threads.hold()
        store.close()
        self.assertGreaterEqual(store.last.fd, 0)
        size = os.path.getsize(store.last.path)
        for _ in range(2):
            peer.send(put(b"late"))
            served.turn()
            self.assertNotIn(b"result 200", peer.received())
            self.assertEqual(os.path.getsize(store.last.path), size)
            served.broker.threads.release()

    def test_open_batch(self) -> None:
        """Records that Python has collected and not written stand before those of the turn."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        self.put(served, peer, b"one")
        store.add(1 << 62, 0, crc32(b"two") & 0x7FFFFFFF, b"two")
        self.put(served, peer, b"three")
        self.assertEqual(bodies(served, 0)[-3:], [b"one", b"two", b"three"])

    def test_write_that_failed(self) -> None:
        """The next one that works is logged, and the one after it is not."""
        served = self.serve()
        peer = self.plain(served)
        self.limit(self.fill(served) + 10)
        peer.send(put(b"x"))
        served.turn()
        self.assertIn(b"result 500", peer.received())
        self.limit(resource.RLIM_INFINITY)
        events: list[Any] = []

        @implementer(ILogObserver)
        def observe(event: Any) -> None:
            events.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for _ in range(3):
            self.put(served, peer, b"x")
        logged = [event for event in events if "works again" in (event["log_format"] or "")]
        self.assertEqual(len(logged), 1)

    def test_segment_that_was_closed(self) -> None:
        """Its number may belong to another file: the store is opened before it is written."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        served.advance(1)
        fd = store.last.fd
        store.last.close()
        other = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, other)
        self.assertEqual(other, fd)
        self.put(served, peer, b"x")
        self.assertEqual((os.fstat(other).st_size, bodies(served, 0)[-1]), (0, b"x"))

    def test_faults(self) -> None:
        """Nothing is written while the disk does not answer; a damaged file is cut first."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        store.stalled = StoreStalled("the disk does not answer")
        size = store.last.size
        peer.send(put(b"x"))
        served.turn()
        self.assertIn(b"result 500", peer.received())
        self.assertEqual(os.path.getsize(store.last.path), size)
        store.stalled = None
        store.writer.damage = OSError("cut failed")
        os.pwrite(store.last.fd, b"a part of a record", size)
        self.put(served, peer, b"y")
        self.assertEqual((store.writer.damage, store.last.size), (None, size + 21))
        self.assertEqual(os.path.getsize(store.last.path), size + 21)

    def test_few_descriptors(self) -> None:
        """With fewer of them than partitions, each record is in the file of its own partition: no
        call within a round closes a file that the round writes to."""
        topics = {"test": {"num_partitions": 4}}
        served = Served(self.mktemp(), True, topics=topics, unflush_threshold=1000)
        self.addCleanup(served.close)
        peer = served.connect()
        for number in range(4):
            peer.send(put(b"first", partition=b"%d" % number))
            served.turn()
        served.advance(1)
        descriptors = Descriptors(2)
        for store in served.broker.stores:
            store.last.close()
            patched: Any = store.environment
            object.__setattr__(patched, "descriptors", descriptors)
        rng = random.Random(SEED)
        sent: list[list[bytes]] = [[b"first"] for _ in range(4)]
        for number in range(300):
            for partition in rng.sample(range(4), rng.randrange(1, 4)):
                if rng.randrange(3):
                    sent[partition].append(b"%d" % number)
                    peer.send(put(b"%d" % number, partition=b"%d" % partition))
                else:
                    peer.send(b"get test g %d 0 25 7\r\n" % partition)
            served.turn()
            served.advance(rng.choice((0, 0, 1)))
        self.assertEqual([bodies(served, number) for number in range(4)], sent)
        self.assertNotIn(b"result 500", peer.received())

    def test_held_store(self) -> None:
        """Records collect, and follow those that were written before."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        self.put(served, peer, b"one")
        store.worker = Worker.HOLDING
        peer.send(put(b"two"))
        served.turn()
        self.assertEqual(peer.received(), b"")
        store.worker = Worker.IDLE
        store.proceed()
        served.turn()
        self.put(served, peer, b"three")
        self.assertEqual(bodies(served, 0)[-3:], [b"one", b"two", b"three"])

    def test_flush_that_fails(self) -> None:
        """What C has written is kept until a flush succeeds, and written again before it."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        for number in range(3):
            self.put(served, peer, b"%d" % number)
        at = store.max_offset

        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, "no")

        broken = self.patch(os, "fdatasync", fail)
        served.advance(1)
        self.put(served, peer, b"3")
        self.assertEqual(store.max_offset, at)
        os.pwrite(store.last.fd, bytes(store.last.size - at), at)  # the kernel has dropped them
        broken.restore()
        served.advance(10)
        self.assertEqual(bodies(served, 0)[-4:], [b"0", b"1", b"2", b"3"])
        self.assertEqual(store.max_offset, store.next_offset)

    def test_flush_that_fails_while_the_next_is_planned(self) -> None:
        """No later record is readable until a flush succeeds, and each put tries one."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        self.put(served, peer, b"0")
        at = store.max_offset
        tries: list[int] = []

        def fail(descriptor: int) -> None:
            tries.append(descriptor)
            raise OSError(errno.EIO, "no")

        self.patch(os, "fdatasync", fail)
        served.broker.threads.hold()
        served.advance(1)
        self.put(served, peer, b"1")
        served.broker.threads.release()
        for number in range(3):
            self.put(served, peer, b"2")
            self.assertEqual((store.max_offset, store.read_end), (at, at))
            self.assertEqual(len(tries), number + 2)

    def test_reload(self) -> None:
        """A new threshold holds from the next put on."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        self.put(served, peer, b"x")
        served.broker.threads.hold()
        store.reconfigure(2, 10_000)
        self.put(served, peer, b"x")
        self.put(served, peer, b"x")
        self.assertIs(store.worker, Worker.FLUSHING)
        served.broker.threads.release()

    def test_reader_that_waits(self) -> None:
        """It gets a message without the delay of a flush in the background."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        self.put(served, peer, b"x")
        served.advance(1)
        ends: list[int] = []
        store.await_flush(lambda store: ends.append(store.max_offset))
        self.put(served, peer, b"x")
        served.advance(0)
        self.assertEqual(ends, [store.next_offset])


class AccountsTests(LaneCase):
    """The accounts of a store after each turn, beside those of a store in Python."""

    def state(self, store: MessageStore) -> dict[str, object]:
        """All that a write changes."""
        policy = store.policy
        assert isinstance(policy, directflush.DirectFlush)
        names = ("put_count", "put_bytes", "next_offset", "read_end", "max_offset", "worker")
        kept = policy._kept
        return {name: getattr(store, name) for name in names} | {
            "segment": (store.last.start, store.last.size, store.last.message_count),
            "unflushed": (policy._unflushed, policy._asked, policy._kept_in_flight, kept.size),
            "pieces": [(position, bytes(data)) for position, data in kept.pieces()],
            "total": store.environment.schedule.unflushed,
            "fails": (store.writer._failing, policy.flush_error is None),
        }

    def run_plan(self, in_c: bool, seed: int) -> list[object]:
        """The states and replies of one side."""
        rng = random.Random(seed)
        served = Served(
            self.mktemp(), in_c, unflush_threshold=20, unflush_interval=500, max_segment_size=20_000
        )
        self.addCleanup(served.close)
        peer = served.connect()
        peer.send(put(b"first") + put(b"first", partition=b"1"))
        served.turn()
        seen: list[object] = []
        stores = list(served.broker.stores)
        for _ in range(STEPS):
            self.step(rng, served, peer, rng.choice(stores))
            reply = peer.received().replace(served.broker.config.data_path.encode(), b"")
            seen.append((reply, *map(self.state, stores)))
        self.broken = False
        served.broker.threads.release()
        return seen

    def step(self, rng: random.Random, served: Served, peer: Peer, store: MessageStore) -> None:
        """One event."""
        kind = rng.randrange(40)
        threads = served.broker.threads
        if kind == 0:
            threads.hold()
        elif kind in (1, 2):
            threads.release()
        elif kind == 3:
            self.broken = not self.broken
        elif kind == 4:
            store.reconfigure(rng.choice((1, 5, 50)), rng.choice((100, 10_000)))
        elif kind == 5:
            store.await_flush(lambda _: None)
        elif kind == 6:
            store.on_readable = None
        elif kind < 12:
            served.advance(rng.choice((0, 0.001, 0.03, 0.2, 1)))
        else:
            body = rng.randbytes(rng.choice((0, 5, 100, 1000)))
            peer.send(put(body, partition=b"%d" % store.partition))
        served.turn()

    broken = False

    def test_random_events(self) -> None:
        """They are the same; a failure names the seed."""

        def sync(descriptor: int) -> None:
            if self.broken:
                raise OSError(errno.EIO, "no")

        self.patch(os, "fdatasync", sync)
        self.patch(directflush, "MOST", 5000)
        self.patch(directflush, "MOST_IN_ALL", 8000)
        self.patch(TurnStores, "most", 5000)
        self.patch(TurnStores, "most_in_all", 8000)
        told = []
        took = Appender.took
        self.patch(Appender, "took", lambda *given: told.append(1) or took(*given))  # type: ignore
        for seed in range(SEED, SEED + 5):
            self.broken = False
            in_c = self.run_plan(True, seed)
            self.broken = False
            in_python = self.run_plan(False, seed)
            for number, (one, other) in enumerate(zip(in_c, in_python)):
                self.assertEqual(one, other, f"seed {seed}, step {number}")
        self.assertGreater(len(told), 0)
        self.assertLess(len(told), 5 * STEPS / 3)  # the others were accounted for in C


class TypesTests(LaneCase):
    """Objects that are not what C expects are left to Python."""

    def test_other_objects(self) -> None:
        """Anything may stand in a field, and nothing crashes."""
        self.patch(sys, "unraisablehook", lambda _: None)
        served = self.serve()
        peer = self.plain(served)
        store: Any = self.store(served)
        policy = store.policy
        for owner, name in (
            (store, "appender"),
            (store.appender, "_store"),
            (store.appender, "_policy"),
            (store.appender, "_writer"),
            (store, "last"),
            (policy, "_kept"),
            (policy._kept, "_total"),
            (policy._kept, "_pieces"),
        ):
            kept = getattr(owner, name)
            setattr(owner, name, 7)
            peer.send(put(b"x"))
            served.sockets.doRead()
            setattr(owner, name, kept)
            self.flushLoggedErrors()
            self.assertIsInstance(store.next_offset, int)
