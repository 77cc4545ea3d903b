"""The checks of the client's fault tests detect every fault."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.model import Partition
from tests.faults.ledger import Event, Given, Key, Ledger

KEY: Key = ("t", Partition(0, 0))
OTHER: Key = ("t", Partition(0, 1))


class LedgerTests(SynchronousTestCase):
    """Three messages that were sent, stored, delivered and committed; then each test adds a
    fault."""

    def setUp(self) -> None:
        self.ledger = ledger = Ledger()
        self.log = [(0, b"a"), (21, b"b"), (42, b"c")]
        ledger.sent = dict.fromkeys((b"a", b"b", b"c"), 1)
        ledger.acknowledged = {value: (KEY, offset) for offset, value in self.log}
        ledger.values["g"] = Counter((b"a", b"b", b"c"))
        ledger.given["r"] = [Given(1, KEY, offset) for offset, _ in self.log]
        ledger.events = [Event("processed", "g", KEY, offset) for offset, _ in self.log]
        ledger.events.append(Event("committed", "g", KEY, 63))

    def refuses(self, word: str, **more: list[tuple[int, bytes]]) -> None:
        """The check fails with this word."""
        logs = {KEY: self.log, OTHER: more.get("other", [])}
        error = self.assertRaises(AssertionError, self.ledger.judge, logs)
        self.assertIn(word, str(error))

    def test_good(self) -> None:
        """The ledger is accepted; also with failed listeners and repeated deliveries."""
        self.ledger.judge({KEY: self.log})
        self.ledger.given["r"].insert(1, Given(1, KEY, 0))
        self.ledger._failed.add(("r", KEY, 0))
        self.ledger.given["r"] += [Given(2, KEY, 0), Given(2, OTHER, 0)]
        self.ledger.judge({KEY: self.log})

    def test_lost(self) -> None:
        """An acknowledged message is missing, or at another place."""
        del self.log[2]
        self.refuses("b'c' is lost")
        self.refuses("b'c' is lost", other=[(42, b"c")])

    def test_made_up(self) -> None:
        """A message that was not sent is in the log, or was delivered to a group."""
        self.ledger.values["g"][b"d"] = 1
        self.refuses("what is not stored")
        self.log.append((63, b"d"))
        self.refuses("never sent")

    def test_twice(self) -> None:
        """A message that was sent once is at two places; one that was sent twice may be."""
        self.refuses("sent 1 times at most", other=[(0, b"b")])
        self.ledger.sent[b"b"] = 2
        self.ledger.events = []
        self.ledger.judge({KEY: self.log, OTHER: [(0, b"b")]})

    def test_not_delivered(self) -> None:
        """One group did not get a message."""
        self.ledger.values["h"] = Counter((b"a", b"c"))
        self.refuses("group h never got 1")
        self.ledger.passed_over.add(b"b")
        self.ledger.judge({KEY: self.log})

    def test_order(self) -> None:
        """A reader goes back, or gets a message twice without a failure."""
        self.ledger.given["r"].append(Given(1, KEY, 21))
        self.refuses("21 after 42")
        self.ledger.given["r"][-1] = Given(1, KEY, 42)
        self.refuses("42 after 42")

    def test_commit_too_early(self) -> None:
        """A commit before the listener has processed all earlier messages."""
        self.ledger.events.insert(2, self.ledger.events.pop())
        self.refuses("42 had not been processed")
        self.ledger.events[2] = Event("committed", "h", KEY, 21)
        self.refuses("0 had not been processed")
