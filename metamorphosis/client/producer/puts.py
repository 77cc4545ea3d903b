"""
A message on its way to a broker: its frame, its attempts, the meaning of the answer.

Source: ``SimpleMessageProducer``, ``PutCommand``.

Differs: the refusal of a broker is an exception with the broker's text (its status with an empty
text); the original returns a result, whose text for a closed partition is always ``403``.

Differs: messages that consumers pass over are refused; the original sends whatever fits a frame.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Protocol

from metamorphosis.client.checks import SECONDS_MOST, require
from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.replies import SUCCESS, TIMED_OUT, error_of
from metamorphosis.errors import BadReply, InvalidMessage, MessageTooLarge, MetaQError, SendTimeout
from metamorphosis.message import ATTRIBUTE_FLAG, crc32, encode_body
from metamorphosis.native import compiled
from metamorphosis.wire.numbers import shown

_new = tuple.__new__  # a NamedTuple's own takes twice the time

Callback = Callable[[SendResult | None, Exception | None], object]
"""Gets a result or an error, and None for the other one."""

OVERHEAD_BYTES = 1024
"""Bytes of memory of a message under way besides its body: the line of its frame, its future, its
places in tables."""


def too_large(topic: str, length: int, limit: int) -> MessageTooLarge:
    """
    The error for a message that consumers pass over.

    :param length: of its body, the attribute included.
    """
    return MessageTooLarge(
        f"a message of topic {topic} has {length} bytes, at most {limit} are sent: consumers pass"
        " over longer ones. max_body_bytes of the session factory (metaq: --max-body-bytes) raises"
        " the limit; every consumer needs it, too, a Java consumer as"
        " notify.remoting.max_read_buffer_size and with a maxTransferSize of the broker above it"
    )


class Owner(Protocol):
    """The producer of a put, which is told of its outcome."""

    def stored(self, put: Put, result: SendResult) -> None:
        """The broker has it."""

    def failed(self, put: Put, error: MetaQError) -> None:
        """This attempt failed, or its outcome is unknown."""


class Put:
    """
    A message between ``send`` and its fate.

    :ivar broker: of the last attempt.
    :ivar cost: bytes of memory, about.
    :ivar deadline: when it is given up, seconds; 0 before the first attempt has failed.
    :ivar opaque: of the last attempt.
    :ivar pinned: goes to ``partition`` and no other.
    :ivar since: when it began to wait behind others, seconds.
    :ivar unsure: an attempt ended without an answer: the message may have been stored.
    :ivar future: the sender's, if it has no ``callback``.
    """

    __slots__ = (
        "attempts",
        "body",
        "broker",
        "callback",
        "cost",
        "deadline",
        "flag",
        "future",
        "message",
        "opaque",
        "owner",
        "partition",
        "pinned",
        "since",
        "timeout",
        "unsure",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        message: OutgoingMessage,
        partition: Partition | None,
        timeout: float,
        future: Awaitable[SendResult] | None,
        callback: Callback | None,
    ) -> None:
        """
        Long, because the checks stand here without calls: this runs for each message sent.

        :raises InvalidMessage: a field of the message is invalid.
        """
        topic, data, attribute, key = message
        if type(topic) is not str:
            require("topic", topic, InvalidMessage)
        if type(data) is not bytes:
            require("data", data, InvalidMessage)
            data = bytes(data)
        if key is not None and type(key) is not str:
            require("key", key, InvalidMessage)
        if type(timeout) is not float or not 0 < timeout <= SECONDS_MOST:
            require("timeout", timeout, InvalidMessage)
        if attribute is None:
            self.body = data
            self.flag = 0
        else:
            require("attribute", attribute, InvalidMessage)
            self.body = encode_body(data, attribute)
            self.flag = ATTRIBUTE_FLAG
        if partition is not None:
            require("partition", partition)
        self.cost = len(self.body) + OVERHEAD_BYTES
        self.owner = owner
        self.message = message
        self.partition = partition
        self.pinned = partition is not None
        self.timeout = timeout
        self.attempts = 0
        self.opaque = 0
        self.broker: BrokerConnection | None = None
        self.deadline = 0.0
        self.unsure = False
        self.since = 0.0
        self.future = future
        self.callback = callback

    def answered(self, status: int, body: bytes, opaque: int) -> None:
        """The ``Waiter`` of the request."""
        if status != SUCCESS:
            self.owner.failed(self, self._error(status, body))
            return
        partition = self.partition
        assert partition is not None
        try:
            message_id, number, offset = place_of(body) or place_in_python(body)
        except ValueError:
            error = BadReply(f"{self._what()}: {shown(body)} is not <id> <partition> <offset>")
            self.owner.failed(self, error)
            return
        if number != partition[1]:
            partition = Partition(partition[0], number)
        self.owner.stored(self, _new(SendResult, (message_id, partition, offset)))

    def _error(self, status: int, body: bytes) -> MetaQError:
        if status == TIMED_OUT:
            return SendTimeout(
                f"Send message timeout in {self.timeout * 1000:.0f} mills: {self._what()}; it may"
                " have been stored"
            )
        return error_of(status, body, self._what())

    def _what(self) -> str:
        where = "" if self.broker is None else f" at {self.broker.url}"
        return f"message of topic {self.message.topic} to partition {self.partition}{where}"


def put_frame(topic: str, number: int, body: bytes, flag: int, opaque: int) -> bytes:
    """
    The whole frame of a ``put``, as ``wire.encoding`` writes it, with a checksum as the Java client
    sends it.

    :raises InvalidMessage: the topic cannot be sent.
    """
    return frame_of(token_of(topic), number, body, flag, opaque)


def frame_in_python(topic: bytes, number: int, body: bytes, flag: int, opaque: int) -> bytes:
    """The same, of a topic as it is sent."""
    return b"put %b %d %d %d %d %d\r\n%b" % (
        topic,
        number,
        len(body),
        flag,
        crc32(body) & 0x7FFFFFFF,
        opaque,
        body,
    )


def place_in_python(body: bytes) -> tuple[int, int, int]:
    """
    Id, partition and offset that the answer to a put names.

    :raises ValueError: it is no such answer.
    """
    message_id, number, offset = map(int, body.split(b" "))
    return message_id, number, offset


frame_of: Callable[[bytes, int, bytes, int, int], bytes] = frame_in_python
place_of: Callable[[bytes], tuple[int, int, int] | None] = place_in_python
if compiled is not None:
    frame_of, place_of = compiled.put_frame, compiled.put_place  # None: it is unusual


@lru_cache(1024)
def token_of(topic: str) -> bytes:
    """
    A topic as it is sent.

    :raises InvalidMessage: it cannot be sent.
    """
    try:
        token = topic.encode()
    except UnicodeEncodeError:
        raise InvalidMessage(f"topic {topic!r} holds half a surrogate pair") from None
    if b" " in token or b"\r\n" in token:
        raise InvalidMessage(f"topic {topic!r}: spaces and line ends are not possible")
    return token
