"""
One function per command: a command in, its reply into the connection's queue.

Everything is answered here except the ordinary puts and gets that ``hotpath.scan`` takes; what one
of those does the first time (open the partition, register its topic) or in an odd way (partition
-1, a wrong checksum, nothing to read) is here too. No function touches a transport or waits: a
put's reply names the batch it waits for.

Source: ``BrokerCommandProcessor``; for transactions, which this broker does not have yet,
``SamsaCommandProcessor``. Sections 2, 6 and 7 of the wire specification.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from metamorphosis.broker import refusals
from metamorphosis.broker.filters import (
    NOTHING_ACCEPTED,
    ConsumerFilters,
    GroupFilter,
    apply_filter,
)
from metamorphosis.broker.hotpath import FileReply, Routes
from metamorphosis.broker.longpoll import LongPolls
from metamorphosis.broker.statistics import BrokerStatistics
from metamorphosis.broker.statstext import Figures, stats_reply
from metamorphosis.broker.topics import TopicRules
from metamorphosis.config.model import BrokerConfig, Settings, TopicConfig
from metamorphosis.errors import (
    BrokerError,
    MetaQError,
    NotFound,
    OffsetTooSmall,
    ServiceUnavailable,
)
from metamorphosis.message import HEADER, HEADER_BYTES, checksum
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result, value_head

if TYPE_CHECKING:
    from metamorphosis.broker.connection import BrokerConnection
    from metamorphosis.ids import MessageIds
    from metamorphosis.store.batch import Batch
    from metamorphosis.store.messagestore import MessageStore
    from metamorphosis.store.messagestores import MessageStores

VERSION = "1.4.6.2"
"""The release of the original that we stand in for; what ``version`` and ``stats`` say."""

END_OF_LOG = (1 << 63) - 1
"""A get at this offset asks where the log ends."""

NO_SYNC = "未注册请求处理器，请求处理器类为com.taobao.metamorphosis.network.SyncCommand"
SHUTTING_DOWN = "线程池繁忙"

UNSUPPORTED = {
    wire.TransactionType.BEGIN: "Unsupported beginTransaction",
    wire.TransactionType.PREPARE: "Unsupported prepareTransaction",
    wire.TransactionType.COMMIT_ONE_PHASE: "Unsupported commitTransaction",
    wire.TransactionType.COMMIT_TWO_PHASE: "Unsupported commitTransaction",
    wire.TransactionType.ROLLBACK: "Unsupported rollbackTransaction",
    wire.TransactionType.FORGET: "Unsupported forgetTransaction",
    wire.TransactionType.RECOVER: "Unsupported getPreparedTransactions",
}


class Responders:
    """
    Answers commands from the stores, the rules and the counters. Thread: reactor.

    :param url: this broker's ``meta://<host>:<port>``, in the text of refusals.
    :param topic_used: called when a put opens a way to a topic, so that the topic can be
        registered; must not raise.
    :ivar routes: what the hot path may do without asking here.
    :ivar long_polls: gets that wait for something to read.
    :ivar stopping: puts, gets and offsets are refused with 503.
    """

    _log = Logger()

    def __init__(
        self,
        config: BrokerConfig,
        settings: Settings,
        url: str,
        stores: MessageStores,
        ids: MessageIds,
        clock: Any,
        topic_used: Callable[[TopicConfig], None],
    ) -> None:
        self.ids = ids
        self.routes = Routes(config.max_transfer_size, settings.max_body_bytes)
        self.rules = TopicRules(config, settings)
        self.long_polls = LongPolls(clock, settings.max_long_poll_ms / 1000, self._answer_held)
        self.rules.on_change(self.routes.clear)
        self.rules.on_change(self.long_polls.release_all)
        self.statistics = BrokerStatistics(config, clock)
        self.filters = ConsumerFilters(config, clock)
        self.stopping = False
        self.connection_count: Callable[[], int] = lambda: 0
        self.port = config.server_port
        self._config = config
        self._url = url
        self._stores = stores
        self._topic_used = topic_used
        self._tallied: dict[MessageStore, tuple[int, int, int]] = {}
        self._respond: dict[type, Callable[[Any, BrokerConnection], None]] = {
            wire.PutCommand: self._put,
            wire.GetCommand: self._get,
            wire.OffsetCommand: self._offset,
            wire.VersionCommand: self._version,
            wire.StatsCommand: self._stats,
            wire.QuitCommand: self._quit,
            wire.SyncCommand: self._sync,
            wire.TransactionCommand: self._transaction,
            wire.BooleanCommand: self._ignore,
            wire.DataCommand: self._ignore,
        }

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """Apply a reload."""
        self._config = config
        self.rules.reconfigure(config, settings)
        self.statistics.reconfigure(config)
        self.filters.reconfigure(config)
        self.routes.clear()

    def refuse_work(self) -> None:
        """The broker stops: from now on puts, gets and offsets get 503; who waits gets his 404."""
        self.stopping = True
        self.long_polls.stop()
        self.routes.clear()

    def respond(self, command: wire.Command, connection: BrokerConnection) -> None:
        """
        Queue the reply to ``command``, if it has one.

        A ``BrokerError`` becomes its status; any other exception is logged and becomes 500.
        """
        try:
            self._respond[type(command)](command, connection)
        except BrokerError as error:
            connection.add_reply(refusal(error, command.opaque))  # type: ignore[union-attr]
        except Exception as error:
            self._log.failure("Answering {command!r} failed", command=command)
            connection.add_reply(result(500, getattr(command, "opaque", 0), str(error)))

    # put

    def _put(self, command: wire.PutCommand, connection: BrokerConnection) -> None:
        self._refuse_if_stopping()
        if command.transaction_id is not None:
            raise refusals.not_started(command.transaction_id)
        topic = command.topic
        try:
            partition = self.rules.place(self._url, topic, command.partition)
            batch, reply = self._append(command, partition)
        except BrokerError as error:
            self.statistics.count_puts(topic, 1, len(command.body))
            if error.status != 403:
                self.statistics.count_put_failed(topic)
            raise
        connection.add_put_reply(batch, reply)

    def _append(self, command: wire.PutCommand, partition: int) -> tuple[Batch, bytes]:
        topic, body = command.topic, command.body
        try:
            store = self._open(topic, partition)
            computed = checksum(body)
            if command.checksum not in (wire.NO_CHECKSUM, computed):
                raise refusals.put_failed(self._url, topic, partition, refusals.CHECKSUM_FAILURE)
            batch = store.batch or store.open_batch()
        except OSError as error:
            self._log.error(
                "Opening {topic}-{partition} failed: {error}",
                topic=topic,
                partition=partition,
                error=error,
            )
            raise refusals.put_failed(self._url, topic, partition) from error
        except BrokerError:
            raise
        except MetaQError as error:
            raise refusals.put_failed(self._url, topic, partition, str(error)) from error
        message_id = self.ids.take()
        offset = store.next_offset
        batch.pieces.append(HEADER.pack(len(body), computed, message_id, command.flag))
        batch.pieces.append(body)
        store.next_offset = offset + HEADER_BYTES + len(body)
        return batch, result(200, command.opaque, b"%d %d %d" % (message_id, partition, offset))

    def _open(self, topic: str, partition: int) -> MessageStore:
        """The store of an accepted partition, made on the first put; later puts take the hot
        path."""
        topic_config = self.rules.topic_config(topic)
        store = self._stores.get_or_create(topic_config, partition)
        self._topic_used(topic_config)
        self.long_polls.store_made(store)
        self.routes.puts[topic.encode(), b"%d" % partition] = store
        return store

    def failed_puts(self, batch: Batch, replies: list[Any]) -> list[Any]:
        """
        The replies to puts of a failed batch: as they were for what is stored, 500 for the rest.

        The prepared replies carry all that is needed: opaque, length and offset.
        """
        store = batch.store
        error = refusals.put_failed(self._url, store.topic, store.partition, _detail(batch.error))
        answers = []
        for reply in replies:
            head, body = reply.split(b"\r\n", 1)
            if int(body.split(b" ")[2]) < batch.stored_end:
                answers.append(reply)
            else:
                answers.append(refusal(error, int(head.split(b" ")[3])))
                self.statistics.cmd_put += 1
                self.statistics.count_put_failed(store.topic)
        return answers

    # get

    def _get(self, command: wire.GetCommand, connection: BrokerConnection) -> None:
        self._refuse_if_stopping()
        self.statistics.count_get(command.topic)
        try:
            reply = self._find(command)
        except NotFound:
            store = self._stores.get(command.topic, command.partition)
            waits = command.wait_ms and command.offset != END_OF_LOG
            if waits and self.long_polls.hold(command, connection, store):
                return
            self._missed(command)
            raise
        connection.add_reply(reply)

    def _answer_held(self, command: wire.GetCommand, connection: BrokerConnection) -> None:
        """A get that was held is answered by what there is now."""
        reply: bytes | FileReply
        try:
            reply = self._find(command)
        except BrokerError as error:
            if isinstance(error, NotFound):
                self._missed(command)
            reply = refusal(error, command.opaque)
        except Exception as error:
            self._log.failure("Answering {command!r} failed", command=command)
            reply = result(500, command.opaque, str(error))
        connection.add_late_reply(reply)

    def _find(self, command: wire.GetCommand) -> bytes | FileReply:
        """
        The reply to a get that finds something.

        :raises NotFound: there is nothing to read; not counted yet.
        :raises BrokerError: any other refusal.
        """
        topic = command.topic
        if self.rules.is_closed(topic, command.partition):
            raise refusals.get_closed(self._config.broker_id, command.partition)
        store = self._stores.get(topic, command.partition)
        if store is None:
            raise refusals.no_store(topic, command.partition)
        if command.max_size <= 0:
            raise refusals.invalid_max_size(command.max_size)
        try:
            return self._read(command, store)
        except (OSError, MetaQError) as error:
            if isinstance(error, BrokerError):
                raise
            self.statistics.count_get_failed(topic)
            raise refusals.put_failed(self._url, topic, command.partition, str(error)) from error

    def _read(self, command: wire.GetCommand, store: MessageStore) -> bytes | FileReply:
        size = min(command.max_size, self._config.max_transfer_size)
        try:
            found = store.slice(command.offset, size)
        except OffsetTooSmall as error:
            self._moved(command.topic)
            raise refusals.moved(error.min_offset) from error
        group_filter = self.filters.find(command.topic, command.group)
        if found is None:
            raise self._nothing(command, store)
        segment, position, length = found
        if group_filter is not None:
            return _filtered(command, os.pread(segment.fd, length, position), group_filter)
        if not self.filters.has_filters(command.topic):
            self.routes.reads[command.topic.encode(), b"%d" % command.partition] = store
        return FileReply(value_head(length, command.opaque), segment, position, length)

    def _nothing(self, command: wire.GetCommand, store: MessageStore) -> BrokerError:
        """A get at or behind the end."""
        end = store.max_offset
        told = self._config.update_consumer_offsets or command.offset == END_OF_LOG
        if command.offset > end and told:
            self._moved(command.topic)
            return refusals.moved(end)
        return refusals.nothing_there(command.offset)

    def _missed(self, command: wire.GetCommand) -> None:
        """A get is answered 404."""
        self.statistics.count_get_miss(command.topic)
        if self._stores.get(command.topic, command.partition) is not None:
            self.statistics.count_get_failed(command.topic)

    def _moved(self, topic: str) -> None:
        """A get is sent to the nearer end of the log."""
        self.statistics.count_get_miss(topic)
        self.statistics.count_get_failed(topic)
        self.statistics.count_offset(topic)

    # the rest

    def _offset(self, command: wire.OffsetCommand, connection: BrokerConnection) -> None:
        self._refuse_if_stopping()
        self.statistics.count_offset(command.topic)
        store = self._stores.get(command.topic, command.partition)
        if store is None:
            raise refusals.no_store(command.topic, command.partition)
        nearest = b"%d" % store.nearest_offset(command.offset)
        connection.add_reply(result(200, command.opaque, nearest))

    def _version(self, command: wire.VersionCommand, connection: BrokerConnection) -> None:
        connection.add_reply(result(200, command.opaque, VERSION))

    def _stats(self, command: wire.StatsCommand, connection: BrokerConnection) -> None:
        self.tally()
        figures = Figures(
            config=self._config,
            statistics=self.statistics,
            stores=list(self._stores),
            connections=self.connection_count(),
            port=self.port,
            version=VERSION,
        )
        status, text = stats_reply(command.item or "", figures)
        connection.add_reply(result(status, command.opaque, text))

    def tally(self) -> None:
        """
        Carry what the stores counted since the last time over to the statistics.

        The hot path only bumps integers of a store; this runs before statistics are shown and every
        few seconds.
        """
        for store in self._stores:
            now = (store.put_count, store.put_bytes, store.get_count)
            puts, size, gets = self._tallied.get(store, (0, 0, 0))
            if now[0] != puts:
                self.statistics.count_puts(store.topic, now[0] - puts, now[1] - size)
            if now[2] != gets:
                self.statistics.count_get(store.topic, now[2] - gets)
            self._tallied[store] = now

    def _quit(self, command: wire.QuitCommand, connection: BrokerConnection) -> None:
        connection.close_after_replies()

    def _sync(self, command: wire.SyncCommand, connection: BrokerConnection) -> None:
        raise ServiceUnavailable(NO_SYNC)

    def _transaction(self, command: wire.TransactionCommand, connection: BrokerConnection) -> None:
        text = UNSUPPORTED.get(command.type)
        if text is not None:  # END has no reply
            connection.add_reply(result(500, command.opaque, text))

    def _ignore(self, command: wire.Reply, connection: BrokerConnection) -> None:
        """A reply that reaches a broker is consumed, as the original does."""

    def _refuse_if_stopping(self) -> None:
        if self.stopping:
            raise ServiceUnavailable(SHUTTING_DOWN)


def _filtered(command: wire.GetCommand, data: bytes, group_filter: GroupFilter) -> bytes:
    filtered = apply_filter(data, command.offset, command.topic, group_filter)
    if filtered.kind == NOTHING_ACCEPTED:
        raise refusals.moved(filtered.offset)
    return value_head(len(filtered.data), command.opaque) + filtered.data


def refusal(error: BrokerError, opaque: int) -> bytes:
    """The reply that tells a peer of ``error``."""
    return result(error.status, opaque, str(error))


def _detail(error: BaseException | None) -> str | None:
    """What the original says behind ``Detail:``; nothing for an I/O error, whose text would name
    our files."""
    return None if error is None or isinstance(error, OSError) else str(error)
