"""
A list of messages with one future: the checks before the first send, and the outcome of each
message.

Awaiting a future takes as much time as the rest of a send, and most of the rest is the same for all
messages of a list; see ``runs``. Each message keeps its own attempts, time limits and place in the
order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import islice
from typing import cast

from metamorphosis.client.checks import fault, require
from metamorphosis.client.model import MessagesFailed, OutgoingMessage, Partition, SendResult
from metamorphosis.client.producer.puts import OVERHEAD_BYTES, Callback, Owner, Put, too_large
from metamorphosis.errors import InvalidArgument, InvalidMessage
from metamorphosis.interfaces import IRuntime

Outcome = SendResult | Exception


class MessageList:
    """
    The messages of a list after their checks.

    :ivar bodies: of the messages, as they are sent.
    :ivar cost: bytes of memory of all of them, about.
    :ivar messages: the messages.
    :ivar partition: of all of them; None: the selector chooses.
    :ivar timeout: of each attempt of each, seconds.
    :ivar topics: how often the next message is of another topic, the first one included.
    """

    __slots__ = ("_owner", "bodies", "cost", "messages", "partition", "timeout", "topics")

    def __init__(
        self,
        owner: Owner,
        messages: Iterable[OutgoingMessage],
        given: Partition | None,
        timeout: float,
        most_bytes: int,
    ) -> None:
        """
        :param owner: of the puts.
        :param given: the partition of all messages; None: the selector chooses.
        :param timeout: seconds.
        :param most_bytes: the longest body.
        :raises InvalidMessage: a message is invalid; the text has its index. Exceptions of the
            iterable are not caught.
        """
        require("messages", messages, InvalidMessage)
        if given is not None:
            require("partition", given, InvalidMessage)
        require("timeout", timeout, InvalidMessage)
        self._owner = owner
        self.partition = given
        self.timeout = float(timeout)
        self.messages = list(messages)
        self.topics = 0
        self.bodies = self._checked(most_bytes)
        self.cost = self.cost_of(len(self.bodies))

    def _checked(self, most_bytes: int) -> list[bytes]:
        """The bodies. Usual messages are checked without a call, others as by ``send``."""
        bodies: list[bytes] = []
        last: object = None
        for message in self.messages:
            try:
                if not isinstance(message, OutgoingMessage):
                    raise InvalidMessage(fault("it", message, "an OutgoingMessage expected"))
                topic, body, attribute, key = message
                if topic is not last:
                    require("topic", topic, InvalidMessage)
                    last = topic
                    self.topics += 1
                if (
                    type(body) is not bytes
                    or attribute is not None
                    or not (key is None or type(key) is str)
                ):
                    body = Put(self._owner, message, None, self.timeout, None, None).body
                if len(body) > most_bytes:
                    raise too_large(topic, len(body), most_bytes)
            except InvalidArgument as error:
                raise type(error)(f"messages[{len(bodies)}]: {error}") from None
            bodies.append(body)
        return bodies

    def cost_of(self, count: int) -> int:
        """``cost`` of the first so many."""
        return sum(map(len, islice(self.bodies, count))) + OVERHEAD_BYTES * count

    def put(self, index: int, callback: Callback) -> Put:
        """One of the messages by itself, as ``send`` has it."""
        put = Put(self._owner, self.messages[index], None, self.timeout, None, callback)
        put.partition = self.partition
        put.pinned = self.partition is not None
        return put


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

    def expect(self, count: int) -> None:
        """Expect the outcomes of this number of messages."""
        self._found = [None] * count
        self._missing = count
        if not count:
            self._tell()

    def take(
        self,
        some: MessageList,
        first: int,
        submit: Callable[[Put], None],
        refused: Callable[[Exception], None] | None = None,
    ) -> None:
        """
        Submit the messages from ``first`` on one by one, and collect their outcomes.

        :param first: the index of the first of these messages.
        :param submit: sends one message; if it raises, that message has failed.
        :param refused: is also called with that error.
        """
        for index in range(first, len(some.messages)):
            try:
                submit(some.put(index, self.callback(index)))
            except Exception as error:  # selectors may raise anything
                if refused is not None:
                    refused(error)
                self.failed(index, error)

    def callback(self, index: int) -> Callback:
        """The callback of the message with this index."""
        return partial(self._settle, index)

    def _settle(self, index: int, result: SendResult | None, error: Exception | None) -> None:
        """The ``Callback`` of a message."""
        if result is not None:
            self.stored(index, result)
        elif error is not None:
            self.failed(index, error)

    def stored(self, index: int, result: SendResult) -> None:
        """Note the outcome of a message."""
        self._found[index] = result
        self._missing -= 1
        if not self._missing:
            self._tell()

    def failed(self, index: int, error: Exception) -> None:
        """Note the outcome of a message."""
        self._has_failed = True
        self._found[index] = error
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
