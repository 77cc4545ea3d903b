"""
``get``: those that the hot path does not take, because there is nothing to read, a filter applies,
or the partition was not read since the rules have changed.

Source: ``BrokerCommandProcessor``, section 6.2 of the wire specification.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.logger import Logger

from metamorphosis.broker import refusals
from metamorphosis.broker.dispatch import Table, refusal
from metamorphosis.broker.longpoll import LongPolls
from metamorphosis.broker.replies import FileReply, Reply
from metamorphosis.errors import BrokerError, MetaQError, NotFound, OffsetTooSmall
from metamorphosis.message import HEADER_BYTES
from metamorphosis.seldom import Seldom
from metamorphosis.store.descriptors import DescriptorsTaken
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result, value_head

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from metamorphosis.broker.responders.shared import Shared
    from metamorphosis.broker.session import HeldGet, Session
    from metamorphosis.store.messagestore import MessageStore
    from metamorphosis.store.segmentlog import FileRange

END_OF_LOG = (1 << 63) - 1
"""A get at this offset asks for the end of the log."""

LONGEST_RECORD = 4 << 20
"""A record up to this size in bytes is sent whole to a get that asks for it, whatever
``maxTransferSize`` is. The original's consumers and slaves ask for no more."""

COPIED_BYTES = 256 << 10
"""The most bytes that a get returns by reading the file, while the descriptors for sending files
are all in use."""


class Gets:
    """
    Reads messages. Thread: reactor.

    :param longest: the longest time in seconds that a get is held.
    :ivar long_polls: gets that wait for data.
    """

    _log = Logger()

    def __init__(self, shared: Shared, clock: IReactorTime, longest: float) -> None:
        self._shared = shared
        self._failures = Seldom(clock.seconds)
        self.long_polls = LongPolls(clock, longest, self._answer_held)
        shared.rules.on_change(self.long_polls.release_all)

    def table(self) -> Table:
        """The commands that are answered here."""
        return {wire.GetCommand: self.get}

    def get(self, command: wire.GetCommand, session: Session) -> None:
        """Answer with the messages at the offset, or hold the get until there is one."""
        self._shared.refuse_if_stopping()
        self._shared.statistics.count_get(command.topic)
        try:
            reply = self._find(command, session)
        except NotFound:
            store = self._shared.stores.get(command.topic, command.partition)
            waits = command.wait_ms and command.offset != END_OF_LOG
            if waits and self.long_polls.hold(command, session, store):
                return
            self._missed(command)
            raise
        session.replies.add(reply)

    def _answer_held(self, held: HeldGet) -> None:
        """Answer a held get from the present log."""
        command = held.command
        reply: Reply
        try:
            reply = self._find(command, held.session)
        except BrokerError as error:
            if isinstance(error, NotFound):
                self._missed(command)
            reply = refusal(error, command.opaque)
        except Exception as error:
            if self._failures.may_log():
                self._log.failure(
                    "Answering {command!r} failed (such lines left out: {left_out})",
                    command=command,
                    left_out=self._failures.left_out,
                )
            reply = result(500, command.opaque, str(error))
        held.answer(reply)

    def _find(self, command: wire.GetCommand, session: Session) -> Reply:
        """
        The reply to a get that finds something.

        :raises NotFound: there is nothing to read; not counted yet.
        :raises BrokerError: any other refusal.
        """
        shared = self._shared
        topic = command.topic
        if shared.rules.is_closed(topic, command.partition):
            raise refusals.get_closed(shared.config.broker_id, command.partition)
        store = shared.stores.get(topic, command.partition)
        if store is None:
            raise refusals.no_store(topic, command.partition)
        if command.max_size <= 0:
            raise refusals.invalid_max_size(command.max_size)
        try:
            return self._read(command, store, session)
        except (OSError, MetaQError) as error:
            if isinstance(error, BrokerError):
                raise
            shared.statistics.count_get_failed(topic)
            raise refusals.put_failed(shared.url, topic, command.partition, str(error)) from error

    def _read(self, command: wire.GetCommand, store: MessageStore, session: Session) -> Reply:
        size = min(command.max_size, self._shared.config.max_transfer_size)
        taken = False
        try:
            try:
                found = store.slice(command.offset, size)
            except DescriptorsTaken:
                taken = True
                found = store.slice(command.offset, min(size, COPIED_BYTES), at_once=True)
        except OffsetTooSmall as error:
            self._moved(command.topic)
            raise refusals.moved(error.min_offset) from error
        group_filter = self._shared.filters.find(command.topic, command.group)
        if found is None:
            raise self._nothing(command, store)
        segment, position, length = found
        if length == self._shared.config.max_transfer_size < command.max_size:
            length = self._whole_record(command, found)
        if group_filter is not None:
            session.filtered += length
            return group_filter.reply(
                command, length, lambda size: os.pread(segment.fd, size, position)
            )
        if taken:
            data = os.pread(segment.fd, length, position)
            return value_head(len(data), command.opaque) + data
        if not self._shared.filters.has_filters(command.topic):
            self._shared.routes.reads[command.topic.encode(), b"%d" % command.partition] = store
        return FileReply(value_head(length, command.opaque), segment, position, length)

    @staticmethod
    def _whole_record(command: wire.GetCommand, found: FileRange) -> int:
        """
        The bytes to send of a range that ``maxTransferSize`` has cut: the whole first record, if it
        is longer and was asked for.

        Differs: the original sends ``maxTransferSize`` bytes at most. When its consumers and slaves
        get no whole record, they ask for more, up to 4 MiB, and never get past such a record.
        """
        segment, position, length = found
        size = HEADER_BYTES + int.from_bytes(os.pread(segment.fd, 4, position), "big")
        whole = length < size <= min(command.max_size, LONGEST_RECORD, segment.size - position)
        return size if whole else length

    def _nothing(self, command: wire.GetCommand, store: MessageStore) -> BrokerError:
        """A get at or beyond the end."""
        end = store.max_offset
        told = self._shared.config.update_consumer_offsets or command.offset == END_OF_LOG
        if command.offset > end and told:
            self._moved(command.topic)
            return refusals.moved(end)
        return refusals.nothing_there(command.offset)

    def _missed(self, command: wire.GetCommand) -> None:
        """A get is answered 404."""
        self._shared.statistics.count_get_miss(command.topic)
        if self._shared.stores.get(command.topic, command.partition) is not None:
            self._shared.statistics.count_get_failed(command.topic)

    def _moved(self, topic: str) -> None:
        """A get is sent to the nearer end of the log."""
        self._shared.statistics.count_get_miss(topic)
        self._shared.statistics.count_get_failed(topic)
        self._shared.statistics.count_offset(topic)
