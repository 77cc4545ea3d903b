"""
Timeouts of transactions: many, armed and disarmed often, exact to half a second.

Source: ``HashedWheelTimer`` in ``TransactionProcessor``'s use; section 5.5 of the specification of
transactions.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from metamorphosis.errors import InternalServerError
from metamorphosis.transactions.transaction import Transaction

TICK = 0.5
"""Transactions whose time ends within the same interval of this length, in seconds, share one
timer."""


class Timeouts:
    """
    Calls ``expired`` for a transaction when its time is over. Thread: reactor.

    :param clock: the timers' clock.
    :param capacity: timeouts that may be armed at the same time (``maxTxTimeoutTimerCapacity``).
    """

    def __init__(
        self, clock: IReactorTime, capacity: int, expired: Callable[[Transaction], None]
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._expired = expired
        self._ticks: dict[int, tuple[IDelayedCall, dict[Transaction, None]]] = {}
        self._armed: dict[Transaction, int] = {}

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, transaction: Transaction) -> None:
        """
        Start the timeout of a transaction that has one.

        :raises InternalServerError: too many are armed; the text is the original's.
        """
        if transaction.timeout <= 0:
            return
        if len(self._armed) >= self._capacity:
            raise InternalServerError(
                f"Timer size {len(self._armed)} is great than maxTimerCapacity {self._capacity}"
            )
        tick = int((self._clock.seconds() + transaction.timeout) / TICK) + 1
        if tick not in self._ticks:
            delay = tick * TICK - self._clock.seconds()
            self._ticks[tick] = (self._clock.callLater(delay, self._time_over, tick), {})
        self._ticks[tick][1][transaction] = None
        self._armed[transaction] = tick

    def disarm(self, transaction: Transaction) -> None:
        """The transaction is finished or prepared; no effect if it has no timeout."""
        tick = self._armed.pop(transaction, None)
        if tick is None:
            return
        call, waiting = self._ticks[tick]
        del waiting[transaction]
        if not waiting:
            del self._ticks[tick]
            if call.active():
                call.cancel()

    def _time_over(self, tick: int) -> None:
        for transaction in tuple(self._ticks[tick][1]):
            self.disarm(transaction)
            self._expired(transaction)

    def stop(self) -> None:
        """Cancel all timeouts."""
        for call, _ in self._ticks.values():
            if call.active():
                call.cancel()
        self._ticks.clear()
        self._armed.clear()
