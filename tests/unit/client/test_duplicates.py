"""Which messages were processed lately."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.duplicates import DuplicateCache
from metamorphosis.client.model import Partition, ReceivedMessage

ONE, OTHER = Partition(0, 1), Partition(0, 2)


def messages(*ids: int, partition: Partition = ONE) -> list[ReceivedMessage]:
    """Messages with these ids."""
    return [ReceivedMessage("t", partition, 0, each, 0, b"") for each in ids]


class DuplicateTests(SynchronousTestCase):
    """Keyed by topic, partition and id."""

    def test_fresh(self) -> None:
        """What was not seen is given back as it is."""
        cache = DuplicateCache()
        self.assertEqual([], cache.fresh([]))
        asked = messages(1, 2)
        self.assertIs(asked, cache.fresh(asked))
        cache.add("t", ONE, [7])
        self.assertIs(asked, cache.fresh(asked))

    def test_row_46_seen(self) -> None:
        """Row 46: what was processed is left out."""
        cache = DuplicateCache()
        cache.add("t", ONE, [1, 3])
        self.assertEqual([2, 4], [each.id for each in cache.fresh(messages(1, 2, 3, 4))])

    def test_other_partition(self) -> None:
        """The same id in another partition or topic is another message."""
        cache = DuplicateCache()
        cache.add("t", OTHER, [1])
        cache.add("u", ONE, [1])
        self.assertEqual(1, len(cache.fresh(messages(1))))

    def test_row_47_capacity(self) -> None:
        """Row 47: there are never more ids than the capacity, whatever is added."""
        cache = DuplicateCache(100)
        for start in range(0, 2000, 7):
            cache.add("t", Partition(0, start % 5), list(range(start, start + 1 + start % 60)))
            self.assertLessEqual(len(cache), 100)
        cache.add("t", ONE, list(range(5000)))
        self.assertLessEqual(len(cache), 100)
        self.assertEqual([], cache.fresh(messages(4999)))

    def test_oldest_go_first(self) -> None:
        """Of one partition the oldest ids are forgotten, an eighth at a time."""
        cache = DuplicateCache(16)
        cache.add("t", ONE, list(range(16)))
        cache.add("t", ONE, [100])
        self.assertEqual([0, 1, 2], [each.id for each in cache.fresh(messages(*range(16), 100))])
        self.assertEqual(14, len(cache))

    def test_idle_partitions_go_first(self) -> None:
        """Ids of the partition that was used last stay longest."""
        cache = DuplicateCache(16)
        cache.add("t", ONE, [1])
        cache.add("t", OTHER, list(range(15)))
        cache.add("t", ONE, [2])
        self.assertEqual([], cache.fresh(messages(1, 2)))

    def test_seen_again(self) -> None:
        """An id that is added again is young again, and counted once."""
        cache = DuplicateCache(16)
        cache.add("t", ONE, list(range(16)))
        cache.add("t", ONE, [0])
        self.assertEqual(16, len(cache))
        cache.add("t", ONE, [100])
        self.assertEqual([], cache.fresh(messages(0)))

    def test_forget(self) -> None:
        """A partition's messages can be wanted again."""
        cache = DuplicateCache()
        cache.add("t", ONE, [1])
        cache.add("t", OTHER, [1])
        cache.forget("t", ONE)
        cache.forget("t", ONE)
        self.assertEqual((1, 1), (len(cache), len(cache.fresh(messages(1)))))

    def test_nothing_is_remembered(self) -> None:
        """Capacity 0 switches the cache off."""
        cache = DuplicateCache(0)
        cache.add("t", ONE, [1])
        self.assertEqual((0, 1), (len(cache), len(cache.fresh(messages(1)))))
