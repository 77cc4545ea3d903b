"""
The memory in which the turn in C keeps small writes of a store until they are flushed: many of them
in one chunk.
"""

from __future__ import annotations

from metamorphosis.store.appender import Appender
from metamorphosis.store.unflushed import Unflushed
from tests.support.partitions import record
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_lanes import LaneCase

CHUNK = 16 << 10
HEADER = 20


class ChunkTests(LaneCase):
    """What is kept is what was written, wherever it is kept."""

    def setUp(self) -> None:
        """A broker whose partition 0 keeps one message."""
        self.served = self.serve()
        self.peer = self.plain(self.served)
        self.served.advance(1)
        self.put(b"first")

    def put(self, *bodies: bytes) -> None:
        """Store messages in partition 0, all with one write."""
        self.peer.send(b"".join(put(body) for body in bodies))
        self.served.turn()
        self.assertEqual(self.peer.received().count(b"result 200"), len(bodies))

    def kept(self, partition: int = 0) -> Unflushed:
        """What a store keeps."""
        store = self.served.broker.stores.get("test", partition)
        assert store is not None
        kept: Unflushed = store.policy._kept  # type: ignore[attr-defined]
        return kept

    def assertKept(self, partition: int = 0) -> None:
        """The kept bytes are those of the end of the file."""
        store = self.served.broker.stores.get("test", partition)
        assert store is not None
        with open(store.last.path, "rb") as file:
            written = file.read()
        kept = self.kept(partition)
        pieces = kept.pieces()
        self.assertGreater(len(pieces), 0)
        for position, data in pieces:
            self.assertEqual(written[position : position + len(data)], bytes(data))
        self.assertEqual(pieces[-1][0] + len(pieces[-1][1]), len(written))
        self.assertEqual(kept.size, sum(len(data) for _, data in pieces))

    def test_shared(self) -> None:
        """Small writes stand in one chunk, one behind the other."""
        sizes = [len(self.kept()._pieces)]
        for number in range(5):
            self.put(b"%d" % number, b"x")
        sizes.append(len(self.kept()._pieces))
        chunk = self.kept()._chunk
        assert chunk is not None
        self.assertEqual((sizes, len(chunk)), ([1, 1], CHUNK))
        self.assertEqual(self.kept()._used, 5 * (2 * HEADER + 2))
        self.assertKept()

    def test_full_chunk(self) -> None:
        """A write that finds no room begins another; the last byte of a chunk is used."""
        for _ in range(4):
            self.put(bytes(CHUNK // 4 - HEADER))
        self.assertEqual((self.kept()._used, len(self.kept()._pieces)), (CHUNK, 1))
        self.put(b"y")
        self.assertEqual((self.kept()._used, len(self.kept()._pieces)), (HEADER + 1, 2))
        for _ in range(6):
            self.put(bytes(3000))
        self.assertEqual((self.kept()._used, len(self.kept()._pieces)), (3020, 3))
        self.assertKept()

    def test_large_write(self) -> None:
        """It has memory of its own, between what is kept in chunks."""
        self.put(b"small")
        self.put(bytes(CHUNK // 4 - HEADER + 1))
        self.assertEqual((self.kept()._chunk, len(self.kept()._pieces)), (None, 3))
        self.put(b"small")
        self.assertKept()

    def test_write_of_python(self) -> None:
        """It stands behind those of the chunk."""
        self.put(b"one")
        self.store(self.served).append([record(30)])
        self.put(b"two")
        self.assertKept()

    def test_flush_amid_a_chunk(self) -> None:
        """A flush covers the first writes of a chunk; the others are kept, and go with the next."""
        self.put(b"covered")
        self.served.broker.threads.hold()
        self.served.advance(1)
        self.put(b"not covered")  # in a worker the flush of the others runs
        self.served.broker.threads.release()
        self.assertKept()
        self.assertGreater(self.kept().size, 0)
        self.served.advance(1)
        self.assertEqual((self.kept().size, self.kept()._chunk), (0, None))
        self.assertEqual(self.served.broker.schedule.unflushed, 0)

    def test_closed_meanwhile(self) -> None:
        """While a store that Python serves closes the chunk of another, records go on: they are
        kept as a piece of their own."""
        self.peer.send(put(b"x", partition=b"1"))
        self.served.turn()
        self.peer.received()
        other = self.kept(1)
        told: list[bytes] = []
        took = Appender.took

        def close(appender: Appender, data: bytes, count: int) -> None:
            told.append(data)
            if len(told) == 1:
                other.close_chunk()
            took(appender, data, count)

        self.patch(Appender, "took", close)
        self.store(self.served).on_readable = lambda store: None
        self.served.broker.threads.hold()  # no flush ends
        self.peer.send(put(b"a") + put(b"b", partition=b"1"))
        self.served.turn()
        self.assertEqual(self.peer.received().count(b"result 200"), 2)
        self.assertEqual([data[HEADER:] for data in told], [b"a", b"b"])
        self.assertKept(1)

    def test_written_in_part(self) -> None:
        """A write that the file system cuts short is continued by Python with the records alone."""
        end = self.fill(self.served)
        self.served.advance(1)
        self.put(b"whole")
        self.limit(end + 2 * HEADER + 8)
        self.peer.send(put(b"in part") + put(b"out"))
        self.served.turn()
        self.assertEqual(self.peer.received().count(b"result 500"), 2)
        self.assertKept()
