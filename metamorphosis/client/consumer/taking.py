"""Messages without a listener: ``for`` and ``poll``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping

from metamorphosis.client import checks
from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.consumer.joining import Joining
from metamorphosis.client.delivery.iteration import Iteration, LimitedIteration
from metamorphosis.client.delivery.subscription import Subscription
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.errors import InvalidState
from metamorphosis.interfaces import IRuntime


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

        :param timeout: seconds to wait for the first message; 0: do not wait. None: without end.
        :param max: the most messages to give. What was fetched beyond it comes with the next call.
        :returns: in the order of each partition; empty when none has come in time.
        :raises InvalidState: there is no such topic, ``complete_subscribe`` was not called, or
            another call waits for messages.
        :raises ClientClosed: the consumer is closed, be it during the call.
        """
        return self._runtime.start(self._poll(timeout, max))

    async def _poll(self, timeout: float | None, most: int) -> list[ReceivedMessage]:
        self._check_open()
        self._check_iterable()
        return await self._iteration.poll(timeout, most)

    @abstractmethod
    def _check_open(self) -> None:
        """:raises ClientClosed: after the end."""

    def _check_iterable(self) -> None:
        if all(each.listener is not None for each in self._subscriptions.values()):
            raise InvalidState("every subscribed topic has a listener; nothing is left to iterate")
        if self._joining.assignment is None:
            raise InvalidState("call complete_subscribe first")
