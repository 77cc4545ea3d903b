"""
Sends of the blocking face that return a future at once: the futures, the limit of bytes in flight,
and the wait for all of them.

The caller's thread appends a message to a queue and wakes the loop's thread only if the queue was
empty; the loop's thread takes all queued messages at once.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, wait
from functools import partial
from threading import Condition
from typing import TYPE_CHECKING

from metamorphosis.client.model import Partition, SendResult
from metamorphosis.client.producer.puts import OVERHEAD_BYTES
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.errors import RequestTimeout

if TYPE_CHECKING:
    from metamorphosis.client.producer.producer import Producer

LOOK_SECONDS = 1.0
"""The interval at which a call that waits for room checks that the loop still runs."""

Send = tuple[
    "Future[SendResult]",
    str,
    bytes,
    str | None,
    str | bytes | None,
    Partition | None,
    float | None,
]
"""The future of a message, and the arguments of ``Producer.send``."""


class LaterSends:
    """
    The sends of one producer. Thread: any but the loop's; several may call at the same time.

    :param most_bytes: memory for messages without an outcome; a call that would exceed it waits.
    """

    def __init__(self, thread: LoopThread, core: Producer, most_bytes: int) -> None:
        self._thread = thread
        self._core = core
        self._most_bytes = most_bytes
        self._changed = Condition()  # its lock guards all fields below
        self._posted: deque[Send] = deque()  # for the loop's thread
        self._unfinished: dict[Future[SendResult], int] = {}  # their bytes of memory
        self._bytes = 0  # the sum of these values
        self._error: Exception | None = None  # the first one since the last ``flush``

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None,
        key: str | bytes | None,
        partition: Partition | None,
        timeout: float | None,
    ) -> Future[SendResult]:
        """
        See ``plainproducers.Producer.send_later``.

        :raises ClientClosed: the loop has ended.
        """
        self._thread.check()
        future = self._thread.outcome()
        future.set_running_or_notify_cancel()  # a send cannot be cancelled
        size = len(data) + OVERHEAD_BYTES
        with self._changed:
            while self._bytes and self._bytes + size > self._most_bytes:
                self._changed.wait(LOOK_SECONDS)
                self._thread.check()
            is_first = not self._posted
            self._posted.append((future, topic, bytes(data), attribute, key, partition, timeout))
            self._unfinished[future] = size
            self._bytes += size
        future.add_done_callback(self._finished)
        if is_first:
            self._thread.post(self._submit)
        return future

    def flush(self, timeout: float | None) -> None:
        """See ``plainproducers.Producer.flush``."""
        self._thread.check()
        with self._changed:
            under_way = list(self._unfinished)
        met, left = wait(under_way, timeout)
        with self._changed:
            # A future wakes those who wait for it before it calls ``_finished``.
            self._changed.wait_for(lambda: met.isdisjoint(self._unfinished))
            error, self._error = self._error, None
        if error is not None:
            raise error
        if left:
            assert timeout is not None
            raise RequestTimeout(f"{len(left)} messages have no fate yet, after {timeout:g} s")

    def _submit(self) -> None:
        """Pass the queued messages to the core. Thread: the loop's."""
        with self._changed:
            posted, self._posted = self._posted, deque()
        for future, topic, data, attribute, key, partition, timeout in posted:
            self._core.send_with_callback(
                partial(_settle, future),
                topic,
                data,
                attribute,
                key=key,
                partition=partition,
                timeout=timeout,
            )

    def _finished(self, future: Future[SendResult]) -> None:
        """A message has its outcome, or the loop has ended. Thread: the loop's."""
        error = future.exception()
        with self._changed:
            self._bytes -= self._unfinished.pop(future)
            if isinstance(error, Exception) and self._error is None:
                self._error = error
            self._changed.notify_all()


def _settle(future: Future[SendResult], result: SendResult | None, error: Exception | None) -> None:
    """The ``Callback`` of a message."""
    if result is not None:
        future.set_result(result)
    else:
        future.set_exception(error)
