"""``metamorphosis.client.producer.retrying``: when messages are tried again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.model import OutgoingMessage
from metamorphosis.client.producer.puts import Put
from metamorphosis.client.producer.retrying import Retrying
from metamorphosis.errors import NotConnected, SendTimeout
from metamorphosis.testing.runtime import MemoryRuntime


class RetryingTests(SynchronousTestCase):
    """The pauses of single messages."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.runtime.advance(1000)
        self.tried: list[Put] = []

    def retrying(self, budget: float = 120.0) -> Retrying:
        """Notes the attempts."""
        return Retrying(self.runtime, None, budget, self.tried.append)

    def put(self, attempts: int = 0) -> Put:
        """A message that has had further attempts already."""
        message = OutgoingMessage("test", b"x")
        put = Put(None, message, None, 3.0, None, None)  # type: ignore[arg-type]
        put.attempts = attempts
        return put

    def test_pauses_of_different_length(self) -> None:
        """Each message has its own, however they overlap."""
        retrying = self.retrying()
        early, late = self.put(3), self.put(4)  # 0.8 s and 1 s
        retrying.later(early, NotConnected("on purpose"))
        self.runtime.advance(0.2)
        retrying.later(late, NotConnected("on purpose"))
        self.runtime.advance(0.65)
        self.assertEqual([early], self.tried)
        self.runtime.advance(0.4)
        self.assertEqual([early, late], self.tried)

    def test_time_behind_others(self) -> None:
        """It is part of the budget; so is the time of an attempt that got no answer."""
        error = NotConnected("on purpose")
        for since, expected in ((950.0, True), (930.0, False)):
            put = self.put()
            put.since = since
            self.assertIs(expected, self.retrying(60.0).has_time(put, error))
        for budget, expected in ((3.2, True), (3.05, False)):
            late = SendTimeout("on purpose")
            self.assertIs(expected, self.retrying(budget).has_time(self.put(), late))

    def test_no_time_left(self) -> None:
        """A pause that ends with the budget leaves no time for an attempt."""
        error = NotConnected("on purpose")
        for budget, expected in ((0.1, False), (0.101, True)):
            self.assertIs(expected, self.retrying(budget).has_time(self.put(), error))
