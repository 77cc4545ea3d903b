"""``metamorphosis.client.topics.selectors``: which partition a message goes to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.model import OutgoingMessage, Partition
from metamorphosis.client.topics.selectors import (
    KeyHashSelector,
    OrderedSelector,
    RandomSelector,
    RoundRobinSelector,
    partition_of_key,
)
from metamorphosis.errors import NoPartition, PartitionNotWritable

THREE = [Partition(0, 0), Partition(0, 1), Partition(1, 0)]
MESSAGE = OutgoingMessage("test", b"hello")


def parts(*texts: str) -> list[Partition]:
    """Partitions from their texts."""
    return [Partition.parse(text) for text in texts]


class RoundRobinTests(SynchronousTestCase):
    """``RoundRobinPartitionSelector``."""

    def test_row_1_index_sequence(self) -> None:
        """Row 1: three partitions give the indexes 1, 2, 0, 1, 2, 0."""
        select = RoundRobinSelector()
        chosen = [THREE.index(select("test", THREE, MESSAGE)) for _ in range(6)]
        self.assertEqual([1, 2, 0, 1, 2, 0], chosen)

    def test_one_partition(self) -> None:
        """With one partition it is always that."""
        select = RoundRobinSelector()
        self.assertEqual({THREE[0]}, {select("test", THREE[:1], MESSAGE) for _ in range(3)})

    def test_one_counter_for_all_topics(self) -> None:
        """Another topic continues where the last one was."""
        select = RoundRobinSelector()
        select("a", THREE, MESSAGE)
        self.assertEqual(THREE[2], select("b", THREE, MESSAGE))

    def test_wraps_at_31_bits(self) -> None:
        """The counter never gets negative: after 2147483647 comes 0."""
        select = RoundRobinSelector()
        select._counter = 0x7FFFFFFE
        chosen = [select("test", THREE, MESSAGE) for _ in range(2)]
        self.assertEqual([THREE[0x7FFFFFFF % 3], THREE[0]], chosen)

    def test_key_decides_and_does_not_count(self) -> None:
        """A message with a key goes where its key says."""
        select = RoundRobinSelector()
        keyed = MESSAGE._replace(key="a")
        self.assertEqual(partition_of_key("a", THREE), select("test", THREE, keyed))
        self.assertEqual(THREE[1], select("test", THREE, MESSAGE))


class KeyTests(SynchronousTestCase):
    """Hashing keys."""

    def test_documented_hash(self) -> None:
        """CRC-32 without its highest bit, modulo the number: vectors of other implementations."""
        hundred = [Partition(0, number) for number in range(100)]
        for key, expected in (("hello", 907060870), ("a", 1756872259), ("", 0)):
            self.assertEqual(Partition(0, expected % 100), partition_of_key(key, hundred))

    def test_text_and_bytes(self) -> None:
        """A text is hashed as its UTF-8."""
        hundred = [Partition(0, number) for number in range(100)]
        self.assertEqual(
            partition_of_key("\u00fc", hundred), partition_of_key(b"\xc3\xbc", hundred)
        )

    def test_key_of_the_message(self) -> None:
        """The function finds the key; one given to ``send`` comes first."""
        select = KeyHashSelector(lambda message: message.attribute or "")
        message = OutgoingMessage("test", b"", "customer 7")
        self.assertEqual(partition_of_key("customer 7", THREE), select("test", THREE, message))
        self.assertEqual(
            partition_of_key("b", THREE), select("test", THREE, message._replace(key="b"))
        )


class RandomTests(SynchronousTestCase):
    """``RandomPartitionSelector``."""

    def test_all_are_chosen(self) -> None:
        """Every partition gets about its share."""
        select = RandomSelector(random.Random(1))
        counts = Counter(select("test", THREE, MESSAGE) for _ in range(3000))
        self.assertEqual(set(THREE), set(counts))
        self.assertTrue(all(800 < number < 1200 for number in counts.values()), counts)

    def test_key_decides(self) -> None:
        """A message with a key goes where its key says, every time."""
        select = RandomSelector()
        keyed = MESSAGE._replace(key=b"a")
        chosen = {select("test", THREE, keyed) for _ in range(20)}
        self.assertEqual({partition_of_key(b"a", THREE)}, chosen)


class OrderedSelectorTests(SynchronousTestCase):
    """Row 77: the ten cases of section 16. The user always chooses 0-0."""

    configured: Mapping[str, Sequence[Partition]] = {"test": parts("0-0", "0-1", "1-0")}

    def choose(self, *available: str) -> Partition:
        """What comes of it with these partitions available."""
        chosen = Partition(0, 0)
        select = OrderedSelector(self.configured, lambda topic, partitions, message: chosen)
        return select("test", parts(*available), MESSAGE)

    def refuse(self, *available: str) -> None:
        """It is not writable at present, and the text names it in brackets."""
        with self.assertRaisesRegex(PartitionNotWritable, r"\[0-0\]") as caught:
            self.choose(*available)
        self.assertEqual(Partition(0, 0), caught.exception.partition)

    def test_case_1_normal(self) -> None:
        """Configured and available are the same."""
        self.assertEqual(Partition(0, 0), self.choose("0-0", "0-1", "1-0"))

    def test_case_2_nothing_configured(self) -> None:
        """No configuration at all."""
        self.configured = {}
        with self.assertRaisesRegex(NoPartition, "no config partitions for topic test"):
            self.choose("0-0", "0-1", "1-0")

    def test_case_3_configured_empty(self) -> None:
        """The topic is configured without partitions."""
        self.configured = {"test": []}
        with self.assertRaisesRegex(NoPartition, "no config partitions for topic test"):
            self.choose("0-0", "0-1", "1-0")

    def test_case_4_and_5_none_available(self) -> None:
        """No broker has the topic; the original tells null from empty, ours has only empty."""
        self.refuse()

    def test_case_6_available_changed_chosen_is_there(self) -> None:
        """Some others are available, the chosen one too."""
        self.assertEqual(Partition(0, 0), self.choose("0-0", "1-0", "2-0"))

    def test_case_7_available_changed_chosen_is_not(self) -> None:
        """As many are available, but not the chosen one."""
        self.refuse("1-0", "2-0", "3-0")

    def test_case_8_configured_changed(self) -> None:
        """The chosen one is available and not configured."""
        self.configured = {"test": parts("1-0", "1-1", "2-0")}
        self.refuse("0-0", "1-0", "2-0")

    def test_case_9_fewer_available_chosen_is_there(self) -> None:
        """A broker is gone that does not matter."""
        self.assertEqual(Partition(0, 0), self.choose("0-0", "0-1"))

    def test_case_10_fewer_available_chosen_is_not(self) -> None:
        """The broker of the chosen one is gone."""
        self.refuse("0-1", "1-0")

    def test_in_neither(self) -> None:
        """A choice that is neither configured nor available is the user's mistake."""
        self.configured = {"test": parts("1-0", "1-1")}
        with self.assertRaises(NoPartition) as caught:
            self.choose("1-0", "1-1")
        self.assertNotIsInstance(caught.exception, PartitionNotWritable)

    def test_none_chosen(self) -> None:
        """A choice of None fails."""
        select = OrderedSelector(self.configured, lambda topic, partitions, message: None)
        with self.assertRaisesRegex(NoPartition, "selected null partition"):
            select("test", THREE, MESSAGE)

    def test_key_decides_among_the_configured(self) -> None:
        """Unless told otherwise, the key chooses; those available have no say in it."""
        select = OrderedSelector({"test": THREE})
        keyed = MESSAGE._replace(key="a")
        chosen = partition_of_key("a", THREE)
        self.assertEqual(chosen, select("test", [*THREE, Partition(7, 7)], keyed))
        with self.assertRaises(PartitionNotWritable):
            select("test", [each for each in THREE if each != chosen], keyed)
