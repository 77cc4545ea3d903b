"""The cache of recently processed messages."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.model import Partition, ReceivedMessage

ONE, OTHER = Partition(0, 1), Partition(0, 2)


def messages(*ids: int, partition: Partition = ONE, topic: str = "t") -> list[ReceivedMessage]:
    """Messages with these ids; each has its offset."""
    return [ReceivedMessage(topic, partition, 20 * each, each, 0, b"") for each in ids]


class DuplicateTests(SynchronousTestCase):
    """Messages are known by topic, partition, id and offset."""

    def test_fresh(self) -> None:
        """Unknown messages are returned unchanged."""
        cache = DuplicateCache()
        cache.add([])
        self.assertEqual([], cache.fresh([]))
        asked = messages(1, 2)
        self.assertIs(asked, cache.fresh(asked))
        cache.add(messages(7))
        self.assertIs(asked, cache.fresh(asked))

    def test_row_46_seen(self) -> None:
        """Row 46: processed messages are left out."""
        cache = DuplicateCache()
        cache.add(messages(1, 3))
        self.assertEqual([2, 4], [each.id for each in cache.fresh(messages(1, 2, 3, 4))])

    def test_other_partition(self) -> None:
        """The same id in another partition or topic is another message."""
        cache = DuplicateCache()
        cache.add(messages(1, partition=OTHER))
        cache.add(messages(1, topic="u"))
        self.assertEqual(1, len(cache.fresh(messages(1))))

    def test_same_id_elsewhere(self) -> None:
        """Ids of Java brokers repeat after a reboot: only the same place makes a duplicate."""
        cache = DuplicateCache()
        cache.add(messages(1, 2))
        again = [*messages(2), ReceivedMessage("t", ONE, 900, 1, 0, b"")]
        self.assertEqual([900], [each.offset for each in cache.fresh(again)])

    def test_places(self) -> None:
        """Messages that are known only by id and offset count as the others do; where nothing is to
        be remembered these are not either."""
        for capacity, left in ((100, [1]), (0, [1, 2, 3])):
            cache = DuplicateCache(capacity)
            cache.add_places("t", ONE, {})
            cache.add_places("t", ONE, {2: 40, 3: 60})
            self.assertEqual(left, [each.id for each in cache.fresh(messages(1, 2, 3))])

    def test_places_have_the_same_bound(self) -> None:
        """Whichever way messages come, there are never more ids than the capacity."""
        cache = DuplicateCache(100)
        for start in range(0, 2000, 7):
            ids = range(start, start + 1 + start % 60)
            cache.add_places("t", Partition(0, start % 5), {each: 20 * each for each in ids})
            self.assertLessEqual(len(cache), 100)
        self.assertGreater(len(cache), 80)

    def test_row_47_capacity(self) -> None:
        """Row 47: there are never more ids than the capacity."""
        cache = DuplicateCache(100)
        for start in range(0, 2000, 7):
            ids = range(start, start + 1 + start % 60)
            cache.add(messages(*ids, partition=Partition(0, start % 5)))
            self.assertLessEqual(len(cache), 100)
        cache.add(messages(*range(5000)))
        self.assertLessEqual(len(cache), 100)
        self.assertEqual([], cache.fresh(messages(4999)))

    def test_oldest_go_first(self) -> None:
        """Of one partition the oldest ids are forgotten, an eighth at a time."""
        cache = DuplicateCache(16)
        cache.add(messages(*range(16)))
        cache.add(messages(100))
        self.assertEqual([0, 1, 2], [each.id for each in cache.fresh(messages(*range(16), 100))])
        self.assertEqual(14, len(cache))

    def test_oldest_go_first_behind_a_look(self) -> None:
        """The same when they were looked at before."""
        cache = DuplicateCache(16)
        cache.add(messages(*range(16)))
        self.assertEqual([], cache.fresh(messages(0)))
        cache.add(messages(100))
        self.assertEqual([0, 1, 2], [each.id for each in cache.fresh(messages(*range(16), 100))])
        self.assertEqual(14, len(cache))

    def test_part_of_a_stretch(self) -> None:
        """Forgotten are the oldest of all that came in order, across stretches and in one."""
        cache = DuplicateCache(16)
        cache.add(messages(*range(2)))
        cache.add(messages(*range(2, 16)))
        cache.add(messages(16))
        self.assertEqual(14, len(cache))
        fresh = cache.fresh(messages(*range(17)))
        self.assertEqual([0, 1, 2], [each.id for each in fresh])

    def test_capacity_of_one_stretch(self) -> None:
        """Of a stretch longer than the capacity its end is kept."""
        cache = DuplicateCache(8)
        cache.add(messages(*range(20)))
        self.assertEqual(8, len(cache))
        self.assertEqual(12, len(cache.fresh(messages(*range(20)))))

    def test_idle_partitions_go_first(self) -> None:
        """Ids of the partition that was used last stay longest."""
        cache = DuplicateCache(16)
        cache.add(messages(1))
        cache.add(messages(*range(15), partition=OTHER))
        cache.add(messages(2))
        self.assertEqual([], cache.fresh(messages(1, 2)))

    def test_over_two_partitions(self) -> None:
        """What one idle partition has less than is to be forgotten, the next one forgets."""
        cache = DuplicateCache(16)
        first, second, third = (Partition(0, number) for number in (3, 4, 5))
        cache.add(messages(1, 2, partition=first))
        cache.add(messages(1, 2, partition=second))
        cache.add(messages(*range(12), partition=third))
        cache.add(messages(1))
        self.assertEqual(14, len(cache))
        self.assertEqual(2, len(cache.fresh(messages(1, 2, partition=first))))
        fresh = cache.fresh(messages(1, 2, partition=second))
        self.assertEqual([1], [each.id for each in fresh])

    def test_seen_again(self) -> None:
        """An id that is added again becomes the newest, and counts once."""
        cache = DuplicateCache(16)
        cache.add(messages(*range(16)))
        cache.add(messages(0))
        self.assertEqual(16, len(cache))
        cache.add(messages(100))
        self.assertEqual([], cache.fresh(messages(0)))

    def test_against_a_plain_one(self) -> None:
        """Stretches in the order of the log and out of it, ids that repeat; a failure names its
        seed."""
        for seed in range(20261130, 20261330):
            chance = random.Random(seed)
            cache, plain, at = DuplicateCache(1000), dict[int, int](), 0
            for _ in range(30):
                at = max(0, at + chance.choice((0, 0, 0, -3, -10)))
                some = [
                    ReceivedMessage("t", ONE, offset, chance.choice((offset, offset % 7)), 0, b"")
                    for offset in range(at, at + chance.randrange(1, 6))
                ]
                expected = [each for each in some if plain.get(each.id) != each.offset]
                self.assertEqual(expected, cache.fresh(some), f"seed {seed}")
                cache.add(some)
                plain |= {each.id: each.offset for each in some}
                at = some[-1].offset + 1
            self.assertGreaterEqual(len(cache), len(plain), f"seed {seed}")
            cache.fresh(messages(0))
            self.assertEqual(len(plain), len(cache), f"seed {seed}")

    def test_forget(self) -> None:
        """``forget`` drops the messages of a partition."""
        cache = DuplicateCache()
        cache.add(messages(1))
        cache.add(messages(1, partition=OTHER))
        cache.forget("t", ONE)
        cache.forget("t", ONE)
        self.assertEqual((1, 1), (len(cache), len(cache.fresh(messages(1)))))

    def test_nothing_is_remembered(self) -> None:
        """Capacity 0 disables the cache."""
        cache = DuplicateCache(0)
        cache.add(messages(1))
        self.assertEqual((0, 1), (len(cache), len(cache.fresh(messages(1)))))
