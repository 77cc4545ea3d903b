"""The partitions from which a transaction's first message chooses."""

from __future__ import annotations

from collections.abc import Sequence

from metamorphosis.client.model import OutgoingMessage, Partition
from metamorphosis.client.topics.selectors import KeyHashSelector, Selector
from metamorphosis.client.transactions.local import Transaction
from metamorphosis.errors import InvalidArgument
from tests.support.linked import LinkedCase

ALL = [Partition(broker, number) for broker in (0, 1) for number in (0, 1)]
NEAR = ALL[:2]


class CandidateTests(LinkedCase):
    """Two brokers, of which the second is not connected."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[list[Partition]] = []

    def choose(self, topic: str, some: Sequence[Partition], message: OutgoingMessage) -> Partition:
        """The first partition."""
        self.assertEqual(("test", b"x"), (topic, message.data))
        self.seen.append(list(some))
        return some[0]

    def begin(self, selector: Selector) -> Transaction:
        """A transaction that chooses by it."""
        transaction = self.producer("test", selector=selector).transaction()
        self.brokers[1].lose()
        return transaction

    def test_keys(self) -> None:
        """A key chooses from all of them, so that it does not move; any other message from those of
        connected brokers."""
        transactions = [self.begin(self.choose)]
        self.serve(1.0)
        transactions.append(self.begin(self.choose))
        for transaction, key in zip(transactions, (None, "k"), strict=True):
            self.outcome(transaction.send("test", b"x", key=key))
        self.assertEqual([NEAR, ALL], self.seen)

    def test_derived_keys(self) -> None:
        """The same for keys that a selector makes."""

        class Derived(KeyHashSelector):
            __call__ = self.choose

        self.outcome(self.begin(Derived(lambda message: message.data)).send("test", b"x"))
        self.assertEqual([ALL], self.seen)

    def test_selector_that_is_wrong(self) -> None:
        """Its choice is named."""
        sent = self.begin(lambda *_: "0-1").send("test", b"x")  # type: ignore[arg-type,return-value]
        error = self.assertRaises(InvalidArgument, self.outcome, sent)
        self.assertIn("partition is '0-1'", str(error))
