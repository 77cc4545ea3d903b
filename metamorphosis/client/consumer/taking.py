"""Messages without a listener: ``for`` and ``poll``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping

from metamorphosis.client import checks
from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.consumer.joining import Joining
from metamorphosis.client.delivery.iteration import Iteration, LimitedIteration
from metamorphosis.client.delivery.subscription import Subscription
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.errors import InvalidState
from metamorphosis.interfaces import IRuntime


class Given:
    """
    The messages of one ``poll``.

    :ivar is_taken: tells whether the caller has them.
    """

    __slots__ = ("is_taken", "messages")

    def __init__(self) -> None:
        self.is_taken: Callable[[], bool] = lambda: True
        self.messages: list[ReceivedMessage] = []


class Taking(ABC):
    """
    A part of ``Consumer``. Thread: the loop's.

    :param subscriptions: topic -> subscription; it may change.
    """

    def __init__(
        self,
        runtime: IRuntime,
        subscriptions: Mapping[str, Subscription],
        iteration: Iteration,
        joining: Joining,
    ) -> None:
        self._runtime = runtime
        self._subscriptions = subscriptions
        self._iteration = iteration
        self._joining = joining
        self._given = Given()  # by the last ``poll`` with an end

    def __aiter__(self) -> Iteration:
        """
        The messages of topics without a listener. A request for the next message acknowledges the
        one before; ``ack`` the last one before you leave the loop for good.

        :raises InvalidState: there is no such topic, or ``complete_subscribe`` was not called.
        """
        self._check_iterable()
        return self._iteration

    @checked()
    def messages(self, timeout: float | None = None) -> Iteration | LimitedIteration:
        """
        The messages of topics without a listener, as a loop over the consumer gives them, with a
        time limit. A request for the next message acknowledges the one before; ``ack`` the last one
        before you leave the loop for good. Another call goes on after the end of a loop.

        Costs nothing; the loop costs no request: messages are fetched ahead.

        :param timeout: seconds; the loop ends when no message has come for so long. None: it ends
            with ``close``.
        :returns: an iterator, asynchronous on Twisted and asyncio.
        :raises InvalidState: there is no such topic, or ``complete_subscribe`` was not called.
        """
        self._check_iterable()
        return self._iteration if timeout is None else LimitedIteration(self._iteration, timeout)

    @checked(as_future, timeout=checks.patience)
    def poll(
        self, timeout: float | None = None, max: int = 500
    ) -> Awaitable[list[ReceivedMessage]]:
        """
        The messages of topics without a listener that have come: as soon as there are any, and as
        many as there are then, of all partitions. Those of the ``poll`` before are acknowledged by
        it; ``ack`` acknowledges those up to one of them earlier, and ``rollback`` lets one of them
        and those after it come again.

        Costs no request: messages are fetched ahead, and no others of a partition while you have
        some of it.

        A call that is cancelled loses nothing: what had come for it comes with the next one.

        :param timeout: seconds to wait for the first message; 0: do not wait. None: without end.
        :param max: the most messages to give. What was fetched beyond it comes with the next call.
        :returns: in the order of each partition; empty when none has come in time.
        :raises InvalidState: there is no such topic, ``complete_subscribe`` was not called, or
            another call waits for messages.
        :raises ClientClosed: the consumer is closed, be it during the call.
        """
        given = Given()
        future, given.is_taken = self._runtime.hand_out(self._poll(timeout, max, given))
        return future

    async def _poll(self, timeout: float | None, most: int, given: Given) -> list[ReceivedMessage]:
        self._check_open()
        self._check_iterable()
        given.messages = self._lost()
        if not given.messages:
            given.messages = await self._iteration.poll(timeout, most)
        self._given = given
        return given.messages

    def _lost(self) -> list[ReceivedMessage]:
        """What the last ``poll`` has given to nobody: the next request would acknowledge it."""
        if self._given.is_taken():
            return []
        return [each for each in self._given.messages if self._iteration.holds(each)]

    @abstractmethod
    def _check_open(self) -> None:
        """:raises ClientClosed: after the end."""

    def _check_iterable(self) -> None:
        if all(each.listener is not None for each in self._subscriptions.values()):
            raise InvalidState("every subscribed topic has a listener; nothing is left to iterate")
        if self._joining.assignment is None:
            raise InvalidState("call complete_subscribe first")
