"""Transactions of our client against the original broker, and against ours: the same outcomes."""

from __future__ import annotations

from compat import transactionbehaviour
from tests.support import peers


class OriginalBrokerTests(transactionbehaviour.TransactionBehaviour):
    """The original broker."""

    skip = peers.missing()
    kind = peers.JavaBroker


class OurBrokerTests(transactionbehaviour.TransactionBehaviour):
    """Ours."""

    skip = peers.missing()
    kind = peers.OurBroker
