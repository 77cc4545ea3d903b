"""
Repeated attempts to send a message: whether another one is made, and when.

The pause before an attempt grows from ``RETRY_SECONDS`` to ``RETRY_SECONDS_MOST``. Messages that
failed together are tried again together, in the same order, by one timer.

Differs: the original makes one attempt. Ours tries for two minutes unless a number of attempts is
asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from metamorphosis.client.producer.puts import Put
from metamorphosis.errors import MetaQError, RequestTimeout
from metamorphosis.interfaces import IRuntime, Timer

RETRY_SECONDS: Final = 0.1
"""Before the first repeated attempt; doubled for each further one."""
RETRY_SECONDS_MOST: Final = 1.0
DOUBLINGS: Final = 8


class Retrying:
    """
    Messages that wait for their next attempt. Thread: the loop's.

    :param retries: further attempts after the first; None: as many as there is time for.
    :param budget: seconds after which a message is given up, whatever the number of attempts.
    :param attempt: makes the next attempt of a message.
    """

    def __init__(
        self,
        runtime: IRuntime,
        retries: int | None,
        budget: float,
        attempt: Callable[[Put], None],
    ) -> None:
        self._runtime = runtime
        self._retries = retries
        self._budget = budget
        self._attempt = attempt
        self._paused: dict[Put, Exception] = {}  # the error of the last attempt
        self._due: dict[float, tuple[Timer, list[Put]]] = {}  # when, to 10 ms: timer, attempts

    def has_time(self, put: Put, error: Exception) -> bool:
        """Whether a message whose attempt failed with this error may have another attempt."""
        if self._retries is not None and put.attempts >= self._retries:
            return False
        now = self._runtime.seconds()
        if not put.deadline:
            # From the call of ``send`` on. Its time is reconstructed: to note it for each message
            # costs more than it is worth.
            began = put.since or now - (put.timeout if isinstance(error, RequestTimeout) else 0.0)
            put.deadline = began + self._budget
        return bool(now + pause_before(put) < put.deadline)

    def patience(self, put: Put) -> float:
        """How long a message may wait for others to be answered, seconds."""
        return self._budget if self._retries is None else put.timeout

    def later(self, put: Put, error: Exception) -> None:
        """Make another attempt after the pause."""
        delay = pause_before(put)
        put.attempts += 1
        self._paused[put] = error
        when = round(self._runtime.seconds() + delay, 2)
        due = self._due.get(when)
        if due is None:
            timer = self._runtime.call_later(delay, self._pause_over, when)
            due = self._due[when] = timer, []
        due[1].append(put)

    def _pause_over(self, when: float) -> None:
        for put in self._due.pop(when)[1]:
            del self._paused[put]
            self._attempt(put)

    def end(self) -> dict[Put, Exception]:
        """Make none of the planned attempts: their messages, each with its last error."""
        for timer, _ in self._due.values():
            timer.cancel()
        paused, self._paused, self._due = self._paused, {}, {}
        return paused


def pause_before(put: Put) -> float:
    """The pause before the next attempt, seconds."""
    return min(RETRY_SECONDS * 2.0 ** min(put.attempts, DOUBLINGS), RETRY_SECONDS_MOST)


def say_attempts(put: Put, error: MetaQError) -> None:
    """Add the number of attempts to the last error, and whether one of them may have stored the
    message."""
    error.args = (f"{error}; given up after {put.attempts + 1} attempts",)
    if put.unsure and error.outcome_known:
        error.args = (f"{error}, of which an earlier one may have stored the message",)
        error.outcome_known = False
