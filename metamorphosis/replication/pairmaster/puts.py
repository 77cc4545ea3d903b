"""
``put`` on a pair master: puts outside the hot path, and the replies to puts that are not
acknowledged by both brokers.

Source: ``SamsaCommandProcessor``, section 4.3 of the specification of replication.

Differs: the checksum and the topic are verified before a record is sent or a topic registered, so
that bad puts do not count as failures of the slave; a put in a transaction is refused; a put to a
partition that is not joined is answered like one that the slave has refused; every put gets exactly
one reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger

from metamorphosis.broker import refusals
from metamorphosis.broker.dispatch import Table, refusal
from metamorphosis.broker.responders.puts import FirstPut
from metamorphosis.broker.topics import ANY_PARTITION
from metamorphosis.errors import InternalServerError, MetaQError
from metamorphosis.message import checksum
from metamorphosis.replication.pairmaster.flights import Fault
from metamorphosis.replication.pairmaster.pairedlog import NotJoined
from metamorphosis.seldom import Seldom
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result

if TYPE_CHECKING:
    from metamorphosis.broker.replies import Reply
    from metamorphosis.broker.responders import Responders
    from metamorphosis.broker.session import Session
    from metamorphosis.errors import BrokerError
    from metamorphosis.replication.pairmaster.flights import PairBatch
    from metamorphosis.replication.pairmaster.pairedlog import PairedLog
    from metamorphosis.replication.pairmaster.pairedlogs import PairedLogs
    from metamorphosis.replication.pairmaster.syncs import Syncs

DISCONNECTED = "Slave is disconnected "
"""With the original's trailing blank."""

IN_TRANSACTION = "Unsupported beginTransaction"


class PairPuts:
    """
    The responder of ``put``. Thread: reactor.

    :param slave_url: in the text of refusals.
    :param is_joined: whether new partitions may be opened: a round of joining has ended since the
        connect.
    """

    _log = Logger()

    def __init__(
        self,
        responders: Responders,
        logs: PairedLogs,
        syncs: Syncs,
        slave_url: str,
        is_joined: Callable[[], bool],
    ) -> None:
        self._responders = responders
        self._openings = Seldom(responders.clock.seconds)
        self._logs = logs
        self._syncs = syncs
        self._slave_url = slave_url
        self._is_joined = is_joined
        responders.routes.refuse = self.refuse
        responders.routes.checked_only = True

    def table(self) -> Table:
        """The responder for ``Dispatch.replace``."""
        return {wire.PutCommand: self.put}

    def put(self, command: wire.PutCommand, session: Session) -> None:
        """Send one message to the slave, and reply when both have it."""
        responders = self._responders
        responders.refuse_if_stopping()
        topic = command.topic
        try:
            if command.transaction_id is not None:
                raise InternalServerError(IN_TRANSACTION)
            partition = self._place(topic, command.partition)
            computed = checksum(command.body)
            if command.checksum not in (wire.NO_CHECKSUM, computed):
                raise InternalServerError(refusals.CHECKSUM_FAILURE)
            log = self._open(topic, partition)
            batch = log.open_batch()
        except NotJoined as error:
            self._count_refused(command)
            self._syncs.count_failures(1)
            raise self._slave_failed(topic, partition) from error
        except InternalServerError:
            self._count_refused(command)
            raise
        except (MetaQError, OSError) as error:
            if getattr(error, "status", None) == 403:
                responders.statistics.count_puts(topic, 1, len(command.body))
                raise
            self._count_refused(command)
            raise self._cannot_open(topic, partition, error) from error
        self._add(command, log, batch, computed, session)

    def _place(self, topic: str, requested: int) -> int:
        """
        The partition of a put, checked in the original's order.

        :raises BrokerError: the put is refused.
        """
        rules = self._responders.rules
        broker_id = self._responders.config.broker_id
        if rules.is_closed(topic, requested):
            raise refusals.get_closed(broker_id, requested)
        if not self._syncs.is_connected:
            self._syncs.count_failures(1)
            raise InternalServerError(DISCONNECTED)
        partition = rules.random_partition(topic) if requested == ANY_PARTITION else requested
        if not rules.accepts(topic):
            raise InternalServerError(refusals.topic_not_accepted(topic))
        count = rules.partition_count(topic)
        if 0 <= partition < count:
            return partition
        if requested == ANY_PARTITION and count > 0:
            raise refusals.get_closed(broker_id, requested)
        raise InternalServerError(refusals.wrong_partition(partition))

    def _open(self, topic: str, partition: int) -> PairedLog:
        """
        The log of the partition, created by its first put.

        :raises NotJoined: the slave's log is unknown.
        :raises MetaQError: it cannot be created.
        """
        if not self._responders.ids.ready:  # while this holds, the hot path takes no put
            raise InternalServerError(refusals.NO_ID)
        log = self._logs.get((topic, partition))
        if log is None:
            if not self._is_joined():
                raise NotJoined(f"{topic}-{partition} is to be joined first")
            log = self._logs.open((topic, partition), joined=True)
        return log

    def _add(
        self,
        command: wire.PutCommand,
        log: PairedLog,
        batch: PairBatch,
        computed: int,
        session: Session,
    ) -> None:
        responders = self._responders
        topic, partition = log.topic, log.partition
        registered = responders.topic_used(responders.rules.topic_config(topic))
        responders.routes.puts[topic.encode(), b"%d" % partition] = log
        record = batch.count
        if command.checksum == wire.NO_CHECKSUM:
            batch.unchecked.add(record)
        message_id = responders.ids.take()
        offset = log.add(message_id, command.flag, computed, command.body)
        text = b"%d %d %d" % (message_id, partition, offset)
        reply = result(200, command.opaque, text)
        if registered is None:
            session.replies.add(reply, batch, record, self.refuse)
        else:
            first = FirstPut(batch, registered, responders.clock)
            session.replies.add(reply, first, record, self._refuse_first)

    # Refusals

    def _refuse_first(self, first: FirstPut, record: int, replies: list[Reply]) -> list[Reply]:
        """See ``refuse``."""
        return self.refuse(first.batch, record, replies)  # type: ignore[arg-type]

    def refuse(self, batch: PairBatch, record: int, replies: list[Reply]) -> list[Reply]:
        """
        The corrected replies to puts of a batch with deviating records.

        :param record: the number in the batch of the first reply's record.
        """
        return [self._true(batch, number, reply) for number, reply in enumerate(replies, record)]

    def _true(self, batch: PairBatch, record: int, reply: Reply) -> Reply:
        """The corrected reply to one put."""
        outcome = batch.deviating.get(record)
        if outcome is None:
            return reply
        assert isinstance(reply, bytes)
        head, _, text = reply.partition(b"\r\n")
        opaque = int(head.rpartition(b" ")[2])
        if isinstance(outcome, int):
            return result(200, opaque, text.rpartition(b" ")[0] + b" %d" % outcome)
        topic, partition = batch.store.topic, batch.store.partition
        statistics = self._responders.statistics
        statistics.cmd_put += outcome is not Fault.WRITE
        statistics.count_put_failed(topic)
        return refusal(self._error(outcome, topic, partition), opaque)

    def _error(self, fault: Fault, topic: str, partition: int) -> BrokerError:
        if fault is Fault.DISCONNECTED:
            return InternalServerError(DISCONNECTED)
        if fault in (Fault.MASTER, Fault.WRITE):
            return self._master_failed(topic, partition)
        return self._slave_failed(topic, partition)

    def _slave_failed(self, topic: str, partition: int) -> BrokerError:
        return InternalServerError(
            f"Put message to [slave '{self._slave_url}'] [partition '{topic}-{partition}'] failed"
        )

    def _master_failed(self, topic: str, partition: int) -> BrokerError:
        url = self._responders.url
        return InternalServerError(
            f"Put message to [master '{url}'] [partition '{topic}-{partition}'] failed"
        )

    def _cannot_open(self, topic: str, partition: int, error: Exception) -> BrokerError:
        if self._openings.may_log():
            self._log.error(
                "Opening {topic}-{partition} failed: {error} (such lines left out: {left_out})",
                topic=topic,
                partition=partition,
                error=error,
                left_out=self._openings.left_out,
            )
        return self._master_failed(topic, partition)

    def _count_refused(self, command: wire.PutCommand) -> None:
        statistics = self._responders.statistics
        statistics.count_puts(command.topic, 1, len(command.body))
        statistics.count_put_failed(command.topic)
