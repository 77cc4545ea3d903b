"""
The messages of a range of the log that a group with a filter gets.

A consumer adds the bytes of the messages that it got to its offset, so nothing may be left out in
front of the last message of a reply. A reply therefore brings the leading accepted messages. Where
rejected ones follow, it ends with a *jump* (``message.encode_jump``): a header without message that
names the offset after them. Our client continues there. The Java client finds the header's checksum
wrong. It asks the broker with ``offset``, for the offset at which its reply began, gets the same
place as the answer, and continues without a pause; its next commit stores that place. So the
group's position in ZooKeeper is always a place between two messages.

Differs: the original re-packs the accepted messages of the whole range, so that the consumer
continues in the middle of a record, and answers 301 where none is accepted, after which a Java
client pauses. It also asks the filter again about messages that it reads again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from metamorphosis.broker import refusals
from metamorphosis.broker.verdicts import VerdictMemory, Verdicts
from metamorphosis.errors import CorruptRecord
from metamorphosis.interfaces import IConsumerFilter
from metamorphosis.message import (
    HEADER,
    HEADER_BYTES,
    MAX_BODY_BYTES,
    Message,
    encode_jump,
    iterate_records,
)
from metamorphosis.seldom import Seldom
from metamorphosis.wire.encoding import value_head

if TYPE_CHECKING:
    from metamorphosis.wire.commands import GetCommand

FIRST_BYTES = 65_536
"""The first read of a longer range; a change between accepted and rejected messages mostly lies
within."""

NO_JUMPS = 0
"""
The opaque of gets that are answered 301 in place of a jump: those of the PHP client, which always
sends this one. Java clients and ours count from -2147483648 on.
"""


class Selected(NamedTuple):
    """
    The messages of a range of the log that a filter accepts.

    :ivar data: the leading accepted records; the cut record if none is whole.
    :ivar target: the offset after the rejected records that follow ``data``; ``None``: none
        follow.
    :ivar ended: a longer range would bring nothing more: an accepted record lies after the
        rejected ones, or ``data`` is a record that is damaged or too long.
    """

    data: bytes
    target: int | None
    ended: bool = False


def select(
    data: bytes, offset: int, topic: str, accept: Callable[[int, Message], bool]
) -> Selected:
    """
    The leading accepted records of a get's byte range, and the end of the rejected ones after them.

    If no record is complete, the original answers 301 to the same offset each time; here the
    consumer gets the cut record and enlarges its maxSize.

    Differs: at a damaged or too long first record the original answers 500, and the group stops
    there. Here the reply is that record alone, as without a filter: our client passes over it, and
    the Java client asks with ``offset`` for the next place (``readable.next_message``).

    :param data: the bytes that an unfiltered get would return.
    :param offset: of the first byte of ``data`` in the log.
    :param accept: called with a record's offset and message; does not raise.
    """
    run = position = 0
    ended = damaged = False
    try:
        for message in iterate_records(data, topic, max_body=len(data)):
            accepted = accept(offset + position, message)
            too_long = accepted and len(message.body) > MAX_BODY_BYTES
            if accepted and position > run or too_long and position:
                ended = True
                break
            position += message.record_bytes
            if accepted:
                run = position
            if too_long:
                ended = True
                break
    except CorruptRecord:
        damaged = True
    if position == 0:
        return Selected(_first_record(data) if damaged else data, None, damaged)
    return Selected(data[:run], offset + position if position > run else None, ended)


def _first_record(data: bytes) -> bytes:
    """A damaged record up to the length in its header, or its header alone."""
    length = HEADER.unpack_from(data)[0]
    return data[: HEADER_BYTES + max(length, 0)]


class GroupFilter:
    """
    One group's use of a filter. Thread: reactor.

    :param name: of the filter's class.
    :param memory: keeps the verdicts; outlives this object, which a reload makes anew.
    """

    _log = Logger()

    def __init__(
        self,
        instance: IConsumerFilter,
        name: str,
        topic: str,
        group: str,
        clock: IReactorTime,
        memory: VerdictMemory,
    ) -> None:
        self._accept = instance.accept
        self._name = name
        self._topic = topic
        self._group = group
        self._memory = memory
        self._failures = Seldom(clock.seconds)  # a busy group would fill the disk

    def reply(self, command: GetCommand, length: int, read: Callable[[int], bytes]) -> bytes:
        """
        The reply to a get of this group that finds something.

        :param length: bytes that the get would return without a filter.
        :param read: reads the given number of them.
        :raises Moved: the client is one that gets a 301 in place of a jump.
        """
        key = self._key(command.partition)
        found = self._memory.find(key)
        verdicts = Verdicts() if found is None else found
        try:
            selected = self._select(command.offset, length, read, verdicts)
            if selected.target is not None:
                verdicts.remember_jump(command.offset, selected.target)
        finally:
            self._memory.used(key, verdicts)
        return self._encode(command, selected)

    def jump_from(self, partition: int, offset: int) -> int | None:
        """
        The target of the jump that ended the reply which began at ``offset``; ``None``: no such
        reply is remembered.
        """
        verdicts = self._memory.find(self._key(partition))
        return None if verdicts is None else verdicts.jumps.get(offset)

    def is_accepted(self, message: Message) -> bool:
        """Whether the filter accepts the message; an exception in the filter counts as a
        rejection, ``sys.exit`` too: it would end the connections of all clients."""
        try:
            return bool(self._accept(self._group, message))
        except BaseException:
            self._log_failure(Failure())
            return False

    def _select(
        self, offset: int, length: int, read: Callable[[int], bytes], verdicts: Verdicts
    ) -> Selected:
        def accept(place: int, message: Message) -> bool:
            known = verdicts.recall(place)
            if known is None:
                known = self.is_accepted(message)
                verdicts.remember(place, known)
            return known

        if length > FIRST_BYTES:
            selected = select(read(FIRST_BYTES), offset, self._topic, accept)
            if selected.ended:
                return selected
        return select(read(length), offset, self._topic, accept)

    def _encode(self, command: GetCommand, selected: Selected) -> bytes:
        data, target, _ = selected
        if target is not None and command.opaque != NO_JUMPS:
            data += encode_jump(target)
        elif target is not None and not data:
            raise refusals.moved(target)
        return value_head(len(data), command.opaque) + data

    def _key(self, partition: int) -> tuple[str, str, str, int]:
        return self._topic, self._group, self._name, partition

    def _log_failure(self, failure: Failure) -> None:
        if not self._failures.may_log():
            return
        self._log.failure(
            "Filter message for consumer failed,topic={topic},group={group},filterClass={name}: "
            "the message is rejected ({unlogged} more were since the last line like this)",
            failure=failure,
            topic=self._topic,
            group=self._group,
            name=self._name,
            unlogged=self._failures.left_out,
        )
