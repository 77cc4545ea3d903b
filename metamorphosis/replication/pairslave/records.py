"""
``sync``: the records of the master, outside the hot path.

Source: ``GregorCommandProcessor``, section 5 of the specification of replication.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import Logger

from metamorphosis.broker import refusals
from metamorphosis.broker.dispatch import Table, refusal
from metamorphosis.errors import BrokerError, MetaQError
from metamorphosis.message import checksum
from metamorphosis.replication.pairslave import unbroken
from metamorphosis.seldom import Seldom
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result

if TYPE_CHECKING:
    from metamorphosis.broker.session import Session
    from metamorphosis.replication.pairslave.probes import DiskLook
    from metamorphosis.replication.pairslave.takeover import Takeover
    from metamorphosis.replication.role import Attached
    from metamorphosis.store.batch import Batch
    from metamorphosis.store.messagestore import MessageStore


class Records:
    """
    Stores the master's records in the order of arrival. Thread: reactor.

    :param takeover: decides from which connection records are stored.
    :param look: tests whether the disk takes messages.
    """

    _log = Logger()

    def __init__(self, parts: Attached, takeover: Takeover, look: DiskLook) -> None:
        self._shared = parts.responders
        self._openings = Seldom(parts.responders.clock.seconds)
        self._stores = parts.stores
        self._long_polls = parts.responders.long_polls
        self._probe_topic = parts.settings.probe_topic
        self._takeover = takeover
        self._look = look
        self._unbroken = unbroken.Unbroken()
        self._answer_offset = parts.responders.dispatch.answers(wire.OffsetCommand)

    def table(self) -> Table:
        """The responders for ``Dispatch.replace``."""
        return {wire.SyncCommand: self.sync, wire.OffsetCommand: self.offset}

    def offset(self, command: wire.OffsetCommand, session: Session) -> None:
        """Reply as any broker; see ``unbroken`` for the meaning of the group."""
        topic, partition = command.topic, command.partition
        if 0 <= partition < self._shared.rules.partition_count(topic):
            self._unbroken.asked((topic, partition), command.group, session)
        self._answer_offset(command, session)

    def sync(self, command: wire.SyncCommand, session: Session) -> None:
        """Store one record, and reply when its batch is stored."""
        shared = self._shared
        shared.refuse_if_stopping()
        try:
            is_probe = command.topic == self._probe_topic and not command.partition
            asked = self._takeover.refusal if is_probe else self._takeover.claim
            refused = asked(session)
            if refused is not None:
                raise self._failed(command, refused)
            if is_probe:
                self._probe(command, session)
                return
            if self._unbroken.is_broken((command.topic, command.partition), session):
                raise self._failed(command, unbroken.REASON)
            batch, reply = self._append(command)
        except BrokerError as error:
            self._break_off(command.topic, command.partition)
            shared.statistics.count_puts(command.topic, 1, len(command.body))
            if error.status != 403:
                shared.statistics.count_put_failed(command.topic)
            raise
        session.replies.add(reply, batch, batch.count - 1, shared.routes.refuse)

    def _failed(self, command: wire.SyncCommand, detail: str | None = None) -> BrokerError:
        return refusals.put_failed(self._shared.url, command.topic, command.partition, detail)

    def _append(self, command: wire.SyncCommand) -> tuple[Batch, bytes]:
        """
        Add the record to the store's batch; returns batch and reply.

        :raises BrokerError: the record cannot be stored.
        """
        self._check_place(command)
        topic, partition, body = command.topic, command.partition, command.body
        computed = checksum(body)
        try:
            store = self._open(topic, partition)
            if command.checksum not in (wire.NO_CHECKSUM, computed):
                raise self._failed(command, refusals.CHECKSUM_FAILURE)
            batch = store.batch or store.open_batch()
        except OSError as error:
            if self._openings.may_log():
                self._log.error(
                    "Opening {topic}-{partition} failed: {error} (such lines left out: {left_out})",
                    topic=topic,
                    partition=partition,
                    error=error,
                    left_out=self._openings.left_out,
                )
            raise self._failed(command) from error
        except BrokerError:
            raise
        except MetaQError as error:
            raise self._failed(command, str(error)) from error
        # Later records take the hot path.
        self._shared.routes.syncs[topic.encode(), b"%d" % partition] = store
        offset = store.add(command.message_id, command.flag, computed, body)
        text = b"%d %d %d" % (command.message_id, partition, offset)
        return batch, result(200, command.opaque, text)

    def _check_place(self, command: wire.SyncCommand) -> None:
        """
        Check topic and partition.

        :raises BrokerError: they accept no records.
        """
        topic, partition = command.topic, command.partition
        shared, rules = self._shared, self._shared.rules
        if rules.is_closed(topic, partition):
            broker_id = shared.config.broker_id
            raise refusals.sync_closed(shared.url, topic, broker_id, partition)
        if not rules.accepts(topic):
            raise self._failed(command, refusals.topic_not_accepted(topic))
        if not 0 <= partition < rules.partition_count(topic):
            raise self._failed(command, refusals.wrong_partition(partition))

    def _open(self, topic: str, partition: int) -> MessageStore:
        """The store; the first record creates it, and wakes the gets that wait for it."""
        store = self._stores.get(topic, partition)
        if store is None:
            config = self._shared.rules.topic_config(topic)
            store = self._stores.get_or_create(config, partition)
            self._long_polls.store_made(store)
        store.on_refused = self._refused
        return store

    def _refused(self, store: MessageStore) -> None:
        """Records of the hot path, or of a batch, were refused."""
        self._break_off(store.topic, store.partition)

    def _break_off(self, topic: str, partition: int) -> None:
        """A record was refused: while its master joins, later ones do not take the hot path."""
        if self._unbroken.refused((topic, partition)):
            self._shared.routes.syncs.pop((topic.encode(), b"%d" % partition), None)

    # Probes

    def _probe(self, command: wire.SyncCommand, session: Session) -> None:
        """Reply in the order of requests, after a test of the disk."""
        self._shared.statistics.count_puts(command.topic, 1, len(command.body))
        slot = session.replies.reserve()
        config = self._shared.config
        others = {topic.data_path for topic in config.topics.values() if topic.data_path}
        self._look.ask(config.data_path, others, partial(self._looked, command, slot.fill))

    def _looked(
        self, command: wire.SyncCommand, answer: Callable[[bytes], None], error: OSError | None
    ) -> None:
        if error is None:
            answer(result(200, command.opaque, b"%d 0 0" % command.message_id))
            return
        self._shared.statistics.count_put_failed(command.topic)
        answer(refusal(self._failed(command), command.opaque))
