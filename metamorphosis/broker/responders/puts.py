"""
``put``: those that the hot path does not take, because they are the first of their partition or are
spelled or sent in an unusual way; and the refusals when a batch has failed.

Source: ``BrokerCommandProcessor``, section 6.1 of the wire specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.logger import Logger

from metamorphosis.broker import refusals
from metamorphosis.broker.dispatch import Respond, Table, opaque_in, refusal
from metamorphosis.broker.replies import Refuse, Reply, Slot
from metamorphosis.broker.responders import transactions
from metamorphosis.errors import BrokerError, MetaQError, StoreError
from metamorphosis.message import checksum
from metamorphosis.seldom import Seldom
from metamorphosis.store.batch import FAILED, PENDING, Outcome
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from metamorphosis.broker.longpoll import LongPolls
    from metamorphosis.broker.responders.shared import Shared
    from metamorphosis.broker.session import Session
    from metamorphosis.store.batch import Batch
    from metamorphosis.store.messagestore import MessageStore


REGISTERED_SECONDS = 1.0
"""After this time in seconds the first put of a topic is answered although the topic is not yet in
ZooKeeper."""


class FirstPut:
    """
    The outcome that the reply to the first put of a topic waits for: the put is stored, and the
    topic is in ZooKeeper, so that clients find it from then on. See ``Awaited``. Thread: reactor.

    :ivar batch: the batch of the put.
    """

    def __init__(self, batch: Batch, registered: Deferred[None], clock: IReactorTime) -> None:
        self.batch = batch
        self.state: Outcome = PENDING
        self.waiters: list[Callable[[], None]] = []
        self._registered = False
        batch.waiters.append(self._decide)
        registered.addTimeout(REGISTERED_SECONDS, clock).addBoth(self._end_of_registration)

    def _end_of_registration(self, _: object) -> None:
        self._registered = True
        self._decide()

    def _decide(self) -> None:
        outcome = self.batch.state
        if self.state is PENDING and (outcome is FAILED or self._registered):
            self.state = outcome
            if outcome is not PENDING:
                waiters, self.waiters = self.waiters, []
                for waiter in waiters:
                    waiter()


class Puts:
    """
    Stores messages. Thread: reactor.

    :ivar in_transaction: answers a put that has the key of a transaction.
    :param long_polls: a get may wait for a partition that a put creates.
    """

    _log = Logger()

    def __init__(self, shared: Shared, long_polls: LongPolls) -> None:
        self._shared = shared
        self._failures = Seldom(shared.clock.seconds)
        self._openings = Seldom(shared.clock.seconds)
        self._long_polls = long_polls
        shared.routes.refuse = self.refuse
        self.in_transaction: Respond = transactions.refuse_put

    def table(self) -> Table:
        """The commands that are answered here."""
        return {wire.PutCommand: self.put}

    def put(self, command: wire.PutCommand, session: Session) -> None:
        """Store one message; the reply waits for its batch."""
        shared = self._shared
        shared.refuse_if_stopping()
        if command.transaction_id is not None:
            self.in_transaction(command, session)
            return
        topic = command.topic
        try:
            partition = shared.rules.place(shared.url, topic, command.partition)
            creation = shared.stores.create(shared.rules.topic_config(topic), partition)
            if creation is not None:
                self._put_when(creation, command, partition, session.replies.reserve())
                return
            batch, reply, registered = self._append(command, partition)
        except BrokerError as error:
            self._count_refused(command, error)
            raise
        record = batch.count - 1
        if registered is None:
            session.replies.add(reply, batch, record, self.refuse)
        else:
            first = FirstPut(batch, registered, shared.clock)
            session.replies.add(reply, first, record, self._refuse_first)

    def _count_refused(self, command: wire.PutCommand, error: BrokerError) -> None:
        statistics = self._shared.statistics
        statistics.count_puts(command.topic, 1, len(command.body))
        if error.status != 403:
            statistics.count_put_failed(command.topic)

    def _put_when(
        self, creation: Deferred[None], command: wire.PutCommand, partition: int, slot: Slot
    ) -> None:
        """A worker thread is creating the partition: store the message after that."""
        kept = replace(command, body=bytes(command.body))

        def created(_: None) -> None:
            batch, reply, registered = self._append(kept, partition)
            record = batch.count - 1
            if registered is None:
                fill_when_decided(slot, reply, batch, record, self.refuse)
            else:
                first = FirstPut(batch, registered, self._shared.clock)
                fill_when_decided(slot, reply, first, record, self._refuse_first)

        def failed(failure: Failure) -> None:
            if failure.check(StoreError) is not None:
                self._say(failure.value, kept.topic, partition)
            try:
                error = self._refusal_of(failure.value, kept.topic, partition)
            except Exception as unexpected:
                if self._failures.may_log():
                    self._log.failure(
                        "Answering {command!r} failed (such lines left out: {left_out})",
                        command=kept,
                        left_out=self._failures.left_out,
                    )
                slot.fill(result(500, kept.opaque, str(unexpected)))
                return
            self._count_refused(kept, error)
            slot.fill(refusal(error, kept.opaque))

        creation.addCallback(created).addErrback(failed)

    def _refusal_of(self, error: object, topic: str, partition: int) -> BrokerError:
        """The refusal that the peer gets for an error; an error of another kind is raised again."""
        if isinstance(error, BrokerError):
            return error
        url = self._shared.url
        if isinstance(error, OSError):
            self._say(error, topic, partition)
            return refusals.put_failed(url, topic, partition)
        if isinstance(error, MetaQError):
            return refusals.put_failed(url, topic, partition, str(error))
        assert isinstance(error, BaseException)
        raise error

    def _say(self, error: object, topic: str, partition: int) -> None:
        """The partition cannot be opened: the log says so, but not for each put."""
        if self._openings.may_log():
            self._log.error(
                "Opening {topic}-{partition} failed: {error} (such lines left out: {left_out})",
                topic=topic,
                partition=partition,
                error=error,
                left_out=self._openings.left_out,
            )

    def _append(
        self, command: wire.PutCommand, partition: int
    ) -> tuple[Batch, bytes, Deferred[None] | None]:
        topic, body = command.topic, command.body
        url = self._shared.url
        if not self._shared.ids.ready:  # while this holds, the hot path takes no put
            raise refusals.put_failed(url, topic, partition, refusals.NO_ID)
        try:
            store, registered = self._open((topic, partition))
            # Later puts take the hot path.
            self._shared.routes.puts[topic.encode(), b"%d" % partition] = store
            computed = checksum(body)
            if command.checksum not in (wire.NO_CHECKSUM, computed):
                raise refusals.put_failed(url, topic, partition, refusals.CHECKSUM_FAILURE)
            batch = store.batch or store.open_batch()
        except BrokerError:
            raise
        except (OSError, MetaQError) as error:
            raise self._refusal_of(error, topic, partition) from error
        message_id = self._shared.ids.take()
        offset = store.add(message_id, command.flag, computed, body)
        text = b"%d %d %d" % (message_id, partition, offset)
        return batch, result(200, command.opaque, text), registered

    def open(self, partition: tuple[str, int]) -> MessageStore:
        """
        The store for committed messages: as for the first put, but without a wait for the
        registration of a new topic.

        :raises StoreError: naming the directory or file that cannot be made.
        """
        return self._open(partition)[0]

    def _open(self, partition: tuple[str, int]) -> tuple[MessageStore, Deferred[None] | None]:
        """
        The store of a partition, created for its first messages; held gets are connected to it. The
        second value fires when a new topic has been registered.
        """
        shared = self._shared
        topic, number = partition
        topic_config = shared.rules.topic_config(topic)
        store = shared.stores.get_or_create(topic_config, number)
        registered = shared.topic_used(topic_config)
        self._long_polls.store_made(store)
        return store, registered

    def _refuse_first(self, first: FirstPut, record: int, replies: list[Reply]) -> list[Reply]:
        """See ``refuse``."""
        return self.refuse(first.batch, record, replies)

    def refuse(self, batch: Batch, record: int, replies: list[Reply]) -> list[Reply]:
        """
        The replies to puts of a failed batch: unchanged for records that are stored, 500 for the
        rest.

        :param record: the number in the batch of the record that the first reply stands for.
        """
        store = batch.store
        shared = self._shared
        error = refusals.put_failed(shared.url, store.topic, store.partition, _detail(batch.error))
        kept = min(max(batch.stored_count - record, 0), len(replies))
        refused = replies[kept:]
        if not batch.counted:
            shared.statistics.cmd_put += len(refused)
        if refused:
            shared.statistics.count_put_failed(store.topic, len(refused))
        return replies[:kept] + [refusal(error, opaque_in(reply)) for reply in refused]


def fill_when_decided(
    slot: Slot, reply: bytes, awaited: Batch | FirstPut, record: int, refuse: Refuse
) -> None:
    """Fill the reserved place of a put's reply when the put is stored or has failed."""

    def decide() -> None:
        if awaited.state is FAILED:
            slot.fill(refuse(awaited, record, [reply])[0])
        elif awaited.state is PENDING:
            awaited.waiters.append(decide)
        else:
            slot.fill(reply)

    decide()


def _detail(error: BaseException | None) -> str | None:
    """The original's text after ``Detail:``; None for an I/O error, whose text would name the
    broker's files."""
    return None if error is None or isinstance(error, OSError) else str(error)
