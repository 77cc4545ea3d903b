"""
A list of messages with one future: the checks before the first send, and the outcome of each
message.

Awaiting a future takes as much time as the rest of a send, so a list takes about half the time of
the same number of sends. Each message keeps its own attempts, time limits and place in the order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import cast

from metamorphosis.client.checks import fault, require
from metamorphosis.client.model import MessagesFailed, OutgoingMessage, Partition, SendResult
from metamorphosis.client.producer.puts import Owner, Put, too_large
from metamorphosis.errors import InvalidArgument, InvalidMessage
from metamorphosis.interfaces import IRuntime

Outcome = SendResult | Exception


class Outcomes:
    """
    The outcomes of the messages of one list; its future gets them when the last one is known.
    Thread: the loop's.

    :ivar future: of the results, in the order of the messages; or of ``MessagesFailed``.
    """

    __slots__ = ("_api", "_found", "_has_failed", "_missing", "future")

    def __init__(self, runtime: IRuntime) -> None:
        self.future: Awaitable[list[SendResult]] = runtime.api.create_future()
        self._api = runtime.api
        self._found: list[Outcome | None] = []
        self._missing = 0
        self._has_failed = False

    def refuse(self, error: Exception) -> None:
        """Fail the future; no message was sent."""
        self._api.reject(self.future, error)

    def take(
        self,
        puts: list[Put],
        submit: Callable[[Put], None],
        refused: Callable[[Exception], None] | None = None,
    ) -> None:
        """
        Submit the messages, and collect their outcomes.

        :param submit: sends one message; if it raises, that message has failed.
        :param refused: is also called with that error.
        """
        self._found = [None] * len(puts)
        self._missing = len(puts)
        if not puts:
            self._tell()
        for index, put in enumerate(puts):
            put.callback = partial(self._settle, index)
            try:
                submit(put)
            except Exception as error:  # selectors may raise anything
                if refused is not None:
                    refused(error)
                self._settle(index, None, error)

    def _settle(self, index: int, result: SendResult | None, error: Exception | None) -> None:
        """The ``Callback`` of a message."""
        if result is None:
            self._has_failed = True
            self._found[index] = error
        else:
            self._found[index] = result
        self._missing -= 1
        if not self._missing:
            self._tell()

    def _tell(self) -> None:
        if self._api.is_called(self.future):
            return  # the sender has cancelled it
        if self._has_failed:
            found = cast("list[Outcome]", self._found)
            self._api.reject(self.future, MessagesFailed(found))
        else:
            self._api.resolve(self.future, self._found)


def puts_of(
    owner: Owner,
    messages: Iterable[OutgoingMessage],
    given: Partition | None,
    timeout: float,
    most_bytes: int,
) -> list[Put]:
    """
    Check the messages of a list, and make their puts.

    :param given: the partition of all messages; None: the selector chooses.
    :param timeout: seconds.
    :param most_bytes: the longest body.
    :raises InvalidMessage: a message is invalid; the text has its index. Exceptions of the iterable
        are not caught.
    """
    require("messages", messages, InvalidMessage)
    if given is not None:
        require("partition", given, InvalidMessage)
    require("timeout", timeout, InvalidMessage)
    limit = float(timeout)
    puts: list[Put] = []
    topic: object = None
    for message in messages:
        try:
            if not isinstance(message, OutgoingMessage):
                raise InvalidMessage(fault("it", message, "an OutgoingMessage expected"))
            if message.topic is not topic:
                topic = message.topic
                require("topic", topic, InvalidMessage)
            put = Put(owner, message, None, limit, None, None)
            if len(put.body) > most_bytes:
                raise too_large(message.topic, len(put.body), most_bytes)
        except InvalidArgument as error:
            raise type(error)(f"messages[{len(puts)}]: {error}") from None
        put.partition = given
        put.pinned = given is not None
        puts.append(put)
    return puts
