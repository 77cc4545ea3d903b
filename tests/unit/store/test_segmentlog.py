"""Reading over several segments, and taking the oldest away."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import OffsetTooSmall, StoreError
from tests.support.partitions import M1, M2, M3, N0, N50, Partition, stored

N25 = "00000000000000000025.meta"


class SegmentLogTests(SynchronousTestCase):
    """Three segments: 0 (M1), 25 (M2), 50 (M3)."""

    def setUp(self) -> None:
        """Open them."""
        self.partition = Partition(self.mktemp())
        os.mkdir(self.partition.path)
        self.partition.fill(n0=M1, n25=M2, n50=M3)
        self.store = self.partition.open()
        self.segments = self.store.immutable_segments()

    def test_old_segments_are_opened_when_read(self) -> None:
        """A directory of many segments costs one descriptor."""
        self.assertEqual([segment.fd for segment in self.segments], [-1, -1])
        self.assertEqual(stored(self.store, 30), M2[5:])
        self.assertEqual(self.segments[0].fd, -1)
        self.assertNotEqual(self.segments[1].fd, -1)

    def test_idle_descriptors_are_closed(self) -> None:
        """One sweep forgives, the second closes; a reader that still sends is left alone."""
        self.store.slice(0, 10)
        self.store.slice(25, 10)
        self.segments[1].retain()
        self.store.close_idle_segments()
        self.assertNotEqual(self.segments[0].fd, -1)
        self.store.close_idle_segments()
        self.assertEqual(self.segments[0].fd, -1)
        self.assertNotEqual(self.segments[1].fd, -1)
        self.assertEqual(stored(self.store, 0), M1)

    def test_max_size(self) -> None:
        """A slice is as long as asked for, at most; anywhere, also inside a record."""
        self.assertEqual(stored(self.store, 3, 5), M1[3:8])
        self.assertEqual(stored(self.store, 53, 5), M3[3:8])

    def test_remove_and_restore(self) -> None:
        """Without the oldest segment the log begins later; it can come back."""
        oldest = self.segments[0]
        self.store.remove_segment(oldest)
        self.assertEqual((self.store.min_offset, self.store.size_bytes), (25, 56))
        error = self.assertRaises(OffsetTooSmall, self.store.slice, 24, 100)
        self.assertEqual(error.min_offset, 25)
        self.assertEqual(self.store.nearest_offset(0), 25)
        self.store.restore_segment(oldest)
        self.assertEqual((self.store.min_offset, stored(self.store, 0)), (0, M1))

    def test_only_the_oldest_can_be_removed(self) -> None:
        """Never a hole, never the segment that is appended to."""
        self.assertRaises(ValueError, self.store.remove_segment, self.segments[1])
        for segment in self.segments:
            self.store.remove_segment(segment)
        last = self.store.slice(50, 1)
        assert last is not None
        self.assertRaises(ValueError, self.store.remove_segment, last.segment)
        self.assertRaises(ValueError, self.store.restore_segment, self.segments[0])

    def test_removed_segment_closes_in_a_worker_after_its_last_reader(self) -> None:
        """Closing a big deleted file takes long, and a reader's range must stay valid."""
        found = self.store.slice(0, 25)
        assert found is not None
        segment = found.segment
        segment.retain()
        segment.retain()
        self.partition.threads.hold()
        self.store.remove_segment(segment)
        os.unlink(segment.path)
        self.assertEqual(os.pread(segment.fd, 25, 0), M1)
        segment.release()
        self.assertEqual((self.partition.threads.held, segment.fd >= 0), (0, True))
        segment.release()
        self.assertEqual((self.partition.threads.held, segment.fd), (1, -1))
        self.partition.threads.release()
        self.assertEqual(self.partition.disk.calls, ["close"])

    def test_restored_while_read(self) -> None:
        """A segment that came back stays open when its reader is done."""
        found = self.store.slice(0, 25)
        assert found is not None
        found.segment.retain()
        self.store.remove_segment(found.segment)
        self.store.restore_segment(found.segment)
        found.segment.release()
        self.assertNotEqual(found.segment.fd, -1)
        self.assertEqual(stored(self.store, 0), M1)

    def test_vanished_file(self) -> None:
        """A segment file that was deleted by hand is an error that names it."""
        os.unlink(os.path.join(self.partition.directory, N0))
        error = self.assertRaises(StoreError, self.store.slice, 0, 25)
        self.assertIn(os.path.join(self.partition.directory, N0), str(error))
        self.assertEqual(stored(self.store, 25), M2)

    def test_hole(self) -> None:
        """Should there ever be a hole, it reads as nothing and its nearest offset is the end."""
        del self.store._segments[1]
        self.assertIsNone(self.store.slice(30, 100))
        self.assertEqual(self.store.nearest_offset(30), 81)

    def test_shown(self) -> None:
        """A store and its segments name themselves in logs."""
        self.assertEqual(repr(self.store), "<MessageStore t-0 0-81>")
        self.assertIn(N25, repr(self.segments[1]))
        self.assertNotIn(N50, repr(self.segments[1]))
