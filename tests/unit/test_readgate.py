"""The reasons for which a connection does not read."""

from __future__ import annotations

import random

from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from metamorphosis.readgate import ReadGate, Reason


@implementer(IPushProducer)
class Counting:
    """A transport that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        """Stop reading."""
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """Resume reading."""
        self.calls.append("resume")

    def stopProducing(self) -> None:
        """Not called by a gate."""
        self.calls.append("stop")


class ReadGateTests(SynchronousTestCase):
    """The transport is paused by the first reason and resumed when the last one goes."""

    def setUp(self) -> None:
        self.transport = Counting()
        self.gate = ReadGate(self.transport)

    def test_open_at_first(self) -> None:
        """Nothing is done to a transport that no reason concerns."""
        self.assertFalse(self.gate.paused)
        for reason in Reason:
            self.assertNotIn(reason, self.gate)
            self.gate.clear(reason)
        self.assertEqual(self.transport.calls, [])

    def test_one_reason(self) -> None:
        """It pauses once, however often it is said, and resumes once."""
        for _ in range(3):
            self.gate.stop(Reason.PEER)
        self.assertTrue(self.gate.paused)
        self.assertIn(Reason.PEER, self.gate)
        self.assertEqual(self.transport.calls, ["pause"])
        for _ in range(3):
            self.gate.clear(Reason.PEER)
        self.assertFalse(self.gate.paused)
        self.assertEqual(self.transport.calls, ["pause", "resume"])

    def test_reasons_do_not_lift_each_other(self) -> None:
        """Reading begins again only when the last of two reasons goes, in either order."""
        for first, last in (
            (Reason.PEER, Reason.REPLIES),
            (Reason.REPLIES, Reason.PEER),
        ):
            self.transport.calls.clear()
            self.gate.set(Reason.PEER, True)
            self.gate.set(Reason.REPLIES, True)
            self.gate.set(first, False)
            self.assertEqual(self.transport.calls, ["pause"])
            self.gate.set(last, False)
            self.assertEqual(self.transport.calls, ["pause", "resume"])

    def test_ended(self) -> None:
        """A connection that is closing can be paused and never resumes."""
        self.gate.stop(Reason.PEER)
        self.gate.end()
        self.gate.clear(Reason.PEER)
        self.assertFalse(self.gate.paused)
        self.gate.stop(Reason.TURN)
        self.gate.clear(Reason.TURN)
        self.assertEqual(self.transport.calls, ["pause", "pause"])

    def test_a_pause_that_calls_back(self) -> None:
        """The reason holds before the transport is told."""

        class CallingBack(Counting):
            """Adds a reason within its own pause."""

            def pauseProducing(self) -> None:
                super().pauseProducing()
                gate.stop(Reason.TURN)

        transport = CallingBack()
        gate = ReadGate(transport)
        gate.stop(Reason.PEER)
        gate.clear(Reason.PEER)
        self.assertEqual(transport.calls, ["pause"])

    def test_a_transport_of_twisted(self) -> None:
        """Reading stops and continues."""
        transport = StringTransport()
        gate = ReadGate(transport)
        gate.stop(Reason.SERVER)
        self.assertEqual(transport.producerState, "paused")
        gate.clear(Reason.SERVER)
        self.assertEqual(transport.producerState, "producing")

    def test_any_order(self) -> None:
        """Whatever comes, the transport is paused exactly while a reason holds, and pauses and
        resumes alternate."""
        chance = random.Random(7)
        holding: set[Reason] = set()
        for _ in range(2000):
            reason, holds = chance.choice(list(Reason)), chance.random() < 0.5
            self.gate.set(reason, holds)
            (holding.add if holds else holding.discard)(reason)
            self.assertEqual(self.gate.paused, bool(holding))
            calls = self.transport.calls
            self.assertEqual(calls[-1:] == ["pause"], bool(holding))
        self.assertEqual(calls[::2], ["pause"] * len(calls[::2]))
        self.assertEqual(calls[1::2], ["resume"] * len(calls[1::2]))
