"""One line of the log for a fault of many partitions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.model import Partition
from metamorphosis.client.network.complaints import (
    GATHER_SECONDS,
    SHOWN,
    Complaints,
    Gathering,
    some_of,
)
from metamorphosis.errors import NotConnected
from metamorphosis.testing.runtime import MemoryRuntime


class GatheringTests(SynchronousTestCase):
    """Places of one kind that come within a moment."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.gathering = Gathering(self.runtime)
        self.told: list[tuple[str, list[str]]] = []

    def add(self, kind: str, place: str) -> None:
        """Something happened there."""
        self.gathering.add(kind, place, lambda places: self.told.append((kind, places)))

    def test_one_line_of_each_kind(self) -> None:
        """It comes a moment after the first place, with all of them; the next one begins anew."""
        self.add("moved", "t 0-0")
        self.runtime.advance(GATHER_SECONDS / 2)
        self.add("moved", "t 0-1")
        self.add("gone", "u 0-0")
        self.assertEqual([], self.told)
        self.runtime.advance(GATHER_SECONDS / 2)
        self.assertEqual([("moved", ["t 0-0", "t 0-1"])], self.told)
        self.add("moved", "t 0-2")
        self.runtime.advance(GATHER_SECONDS)
        wanted = [("gone", ["u 0-0"]), ("moved", ["t 0-2"])]
        self.assertEqual(wanted, self.told[1:])

    def test_close(self) -> None:
        """What has come is told at once, and only once."""
        self.add("moved", "t 0-0")
        self.add("gone", "u 0-0")
        self.gathering.close()
        self.assertEqual([("moved", ["t 0-0"]), ("gone", ["u 0-0"])], self.told)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_complaints(self) -> None:
        """A line about the fetches of a broker's partitions that fail in the same way."""
        log = self.runtime.log
        complaints = Complaints(self.gathering, log)
        error = NotConnected("the broker is away")
        for topic, number in (("t", 0), ("u", 1)):
            partition = Partition(0, number)
            complaints.add("meta://a:1", NotConnected, topic, partition, 5, error)
        complaints.add("meta://b:1", NotConnected, "t", Partition(1, 0), 7, error)
        self.runtime.advance(GATHER_SECONDS)
        why = "not read: the broker is away; still trying"
        places = "t 0-0 at offset 5, u 0-1 at offset 5"
        lines = [f"{places} are {why}", f"t 1-0 at offset 7 is {why}"]
        self.assertEqual(lines, log.texts("warn"))

    def test_some_of(self) -> None:
        """A line names so many, and the number of the others."""
        places = [f"t 0-{number}" for number in range(SHOWN + 2)]
        self.assertEqual("t 0-0", some_of(places[:1]))
        self.assertEqual(", ".join(places[:SHOWN]), some_of(places[:SHOWN]))
        first = ", ".join(places[:SHOWN])
        self.assertEqual(f"{first} and 1 more", some_of(places[: SHOWN + 1]))
        self.assertEqual(f"{first} and 2 more", some_of(places))
