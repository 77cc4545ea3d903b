"""Local transactions: what is sent when, what each fault comes to, and what consumers see."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import Deferred

from metamorphosis.client.model import MessagesFailed, OutgoingMessage, Partition
from metamorphosis.client.transactions.local import Transaction, TransactionState
from metamorphosis.errors import (
    ClientClosed,
    CommitUnknown,
    InternalServerError,
    InvalidArgument,
    InvalidMessage,
    InvalidState,
    MessageTooLarge,
    NoPartition,
    NotConnected,
    NotPublished,
    RequestTimeout,
    SendTimeout,
    TransactionFailed,
    TransactionLost,
)
from tests.support.linked import LinkedCase

P0, P1, Q0 = Partition(0, 0), Partition(0, 1), Partition(1, 0)


class TransactionCase(LinkedCase):
    """A producer of ``test``."""

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.producing = self.producer("test", **self.options)
        self.serve()
        self.here, self.there = self.brokers
        for each in self.brokers:
            each.lines.clear()

    def begin(self, **options: Any) -> Transaction:
        """A transaction."""
        return self.producing.transaction(**options)

    def send(
        self, transaction: Transaction, data: bytes, partition: Partition = P0
    ) -> Deferred[Any]:
        """One whose failure may be ignored."""
        future: Deferred[Any] = transaction.send("test", data, partition=partition)
        self.futures.append(future)
        return future


class CommitTests(TransactionCase):
    """What goes well."""

    def test_messages_become_visible_together(self) -> None:
        """BEGIN right before the first message; nothing is visible before the commit."""
        transaction = self.begin()
        self.serve()
        self.assertEqual([], self.here.lines)
        self.assertIs(TransactionState.NEW, transaction.state)
        result = self.outcome(self.send(transaction, b"1"))
        self.assertEqual((P0, -1), (result.partition, result.offset))
        self.assertIs(TransactionState.OPEN, transaction.state)
        self.assertNotEqual(-1, result.message_id)
        self.outcome(self.send(transaction, b"2"))
        self.outcome(self.send(transaction, b"3", P1))
        self.assertEqual([], self.here.stored())
        self.assertEqual("meta://host0:8123", transaction.target)
        self.outcome(transaction.commit())
        self.assertEqual([b"1", b"2"], self.here.stored())
        self.assertEqual([b"3"], self.here.stored(partition=1))
        self.assertEqual(["BEGIN", "put", "put", "put", "COMMIT_ONE_PHASE"], self.here.steps)
        self.assertIs(TransactionState.COMMITTED, transaction.state)

    def test_keys(self) -> None:
        """Numbers count for each producer; the session's id has no colon; no qualifier is sent."""
        for n in (1, 2):
            transaction = self.begin()
            self.outcome(self.send(transaction, b"x"))
            self.outcome(transaction.commit())
            key = f"TX:{transaction.id.session_id}:{n}"
            self.assertNotIn(":", transaction.id.session_id)
            begin = f"transaction {key} {transaction.id.session_id} BEGIN"
            self.assertEqual(begin, self.here.lines[-3])
            self.assertTrue(self.here.lines[-2].endswith(key))

    def test_lifetime(self) -> None:
        """It goes with BEGIN, and with nothing else."""
        transaction = self.begin(lifetime=30)
        self.outcome(self.send(transaction, b"x"))
        self.outcome(transaction.commit())
        self.assertTrue(self.here.lines[0].endswith(" BEGIN 30"))
        self.assertTrue(self.here.lines[-1].endswith(" COMMIT_ONE_PHASE"))

    def test_nothing(self) -> None:
        """Without messages nothing is sent, by commit nor by rollback."""
        for end, state in (
            ("commit", TransactionState.COMMITTED),
            ("rollback", TransactionState.ROLLED_BACK),
        ):
            for target in (None, "host0:8123"):
                transaction = self.begin(target=target)
                self.outcome(getattr(transaction, end)())
                self.assertEqual([], self.here.lines + self.there.lines)
                self.assertIs(state, transaction.state)

    def test_while_ending(self) -> None:
        """The commit waits for every message; nothing more is taken, and nothing ends it again."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        self.here.mute = True
        sent = [self.send(transaction, b"2"), self.send(transaction, b"3")]
        self.serve()
        (link,) = self.here.links()
        opaques = list(link.receiver._waiting)
        committed = transaction.commit()
        self.here.mute = False
        for each, opaque in zip(sent, opaques, strict=True):
            self.serve()
            self.assertFalse(each.called)
            self.assertEqual(["BEGIN", "put", "put", "put"], self.here.steps)
            self.assertTrue(transaction.is_ended)
            for call in (lambda: self.send(transaction, b"4"), transaction.commit):
                error = self.assertRaises(InvalidState, self.outcome, call())
                self.assertIn("it is ending already", str(error))
            link.receive(b"result 200 5 %d\r\n1 0 0" % opaque)
        self.outcome(committed)
        self.assertEqual([b"1", b"2", b"3"], self.here.stored())

    def test_messages_under_way(self) -> None:
        """The commit waits for sends that were not awaited."""
        transaction = self.begin()
        sent = [self.send(transaction, b"%d" % n) for n in range(5)]
        self.outcome(transaction.commit())
        for each in sent:
            self.assertEqual(-1, self.runtime.result(each).offset)
        self.assertEqual([b"%d" % n for n in range(5)], self.here.stored())

    def test_send_many(self) -> None:
        """A list is placed message by message; one future has the results of all."""
        transaction = self.begin()
        some = [OutgoingMessage("test", b"%d" % n) for n in range(5)]
        done = transaction.send_many(some, partition=P1)
        self.assertEqual([(P1, -1)] * 5, [each[1:] for each in self.outcome(done)])
        self.assertEqual(4, len(self.outcome(transaction.send_many(some[1:]))))
        self.outcome(transaction.commit())
        self.assertEqual(1, self.here.steps.count("BEGIN"))
        self.assertEqual([b"%d" % n for n in range(5)], self.here.stored(partition=1)[:5])

    def test_send_many_of_nothing(self) -> None:
        """It begins nothing."""
        transaction = self.begin()
        self.assertEqual([], self.outcome(transaction.send_many([])))
        self.outcome(transaction.commit())
        self.assertEqual([], self.here.lines)

    def test_send_many_fails(self) -> None:
        """One message that fails fails the transaction, and each outcome says why."""
        transaction = self.begin()
        nowhere = OutgoingMessage("test", b"x" * 5, key="k")
        self.here.answers["put"] = (500, b"no")
        with self.assertRaises(MessagesFailed) as caught:
            self.outcome(transaction.send_many([nowhere] * 3))
        self.assertEqual([0, 1, 2], list(caught.exception.failed))
        self.assertIs(TransactionState.FAILED, transaction.state)
        self.assertRaises(TransactionFailed, self.outcome, transaction.commit())

    def test_send_many_without_a_place(self) -> None:
        """One message that has no partition fails the transaction: the others are not committed."""
        transaction = self.begin()
        some = [OutgoingMessage(topic, b"x") for topic in ("test", "other", "test")]
        with self.assertRaises(MessagesFailed) as caught:
            self.outcome(transaction.send_many(some))
        kinds = [type(each) for each in caught.exception.outcomes]
        self.assertEqual([NotPublished, NotPublished, TransactionFailed], kinds)
        self.assertRaises(TransactionFailed, self.outcome, transaction.commit())
        self.assertEqual([], self.here.stored() + self.there.stored())

    def test_send_many_wrong(self) -> None:
        """A wrong message is told before BEGIN, and fails the transaction as one alone does."""
        transaction = self.begin()
        wrong: Any = [OutgoingMessage("test", b"0"), OutgoingMessage("test", "1")]  # type: ignore[arg-type]
        with self.assertRaisesRegex(InvalidMessage, r"messages\[1\]: data is '1'"):
            self.outcome(transaction.send_many(wrong))
        self.assertEqual([], self.here.lines)
        self.assertRaises(TransactionFailed, self.outcome, transaction.commit())

    def test_broker_of_the_first_message(self) -> None:
        """Later messages go to partitions of the same broker, whatever the selector would like."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"first", Q0))
        for n in range(6):
            self.outcome(transaction.send("test", b"%d" % n))
        self.outcome(transaction.send("test", b"key", key="k"))
        self.outcome(transaction.commit())
        self.assertEqual([], self.here.lines)
        self.assertEqual(8, len(self.there.stored()) + len(self.there.stored(partition=1)))

    def test_target(self) -> None:
        """The broker can be named."""
        transaction = self.begin(target="host1:8123")
        self.assertEqual("meta://host1:8123", transaction.target)
        for n in range(3):
            self.outcome(transaction.send("test", b"%d" % n))
        self.outcome(transaction.commit())
        self.assertEqual([], self.here.lines)

    def test_several_at_a_time(self) -> None:
        """Transactions of one producer do not touch each other."""
        first, second = self.begin(), self.begin()
        self.outcome(self.send(first, b"1"))
        self.outcome(self.send(second, b"2"))
        self.outcome(first.rollback())
        self.outcome(second.commit())
        self.assertEqual([b"2"], self.here.stored())

    def test_cancelled_wait(self) -> None:
        """Cancelling the future of a commit does not stop the commit."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        waiting = transaction.commit()
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        self.serve()
        self.assertEqual([b"1"], self.here.stored())
        self.assertIs(TransactionState.COMMITTED, transaction.state)


class InOrderTests(TransactionCase):
    """A producer that keeps the order."""

    options = {"in_order": True}

    def test_one_at_a_time(self) -> None:
        """The next message is sent when the last one was answered."""
        transaction = self.begin()
        sent = [self.send(transaction, b"%d" % n) for n in range(3)]
        self.serve()
        self.here.mute = True
        late = [self.send(transaction, b"late"), self.send(transaction, b"later")]
        self.serve()
        self.assertEqual(4, self.here.steps.count("put"))
        self.assertTrue(all(each.called for each in sent))
        self.assertFalse(late[0].called)


class BlockTests(TransactionCase):
    """``async with``."""

    def run_block(self, error: BaseException | None = None) -> Deferred[Any]:
        """A block that sends a message, and ends with an error or not."""

        async def block() -> None:
            async with self.begin() as self.transaction:
                await self.transaction.send("test", b"1", partition=P0)
                if error is not None:
                    raise error

        return self.runtime.start(block())

    def test_commit(self) -> None:
        """At its end, and no more than that."""
        self.outcome(self.run_block())
        self.assertEqual([b"1"], self.here.stored())
        self.assertEqual([], self.runtime.log.texts("debug"))

    def test_rollback(self) -> None:
        """On an exception, which continues."""
        self.assertRaises(KeyError, self.outcome, self.run_block(KeyError("k")))
        self.assertEqual([], self.here.stored())
        self.assertEqual(["BEGIN", "put", "ROLLBACK"], self.here.steps)
        self.assertIs(TransactionState.ROLLED_BACK, self.transaction.state)

    def test_rollback_that_fails(self) -> None:
        """The block's exception continues, not that of the rollback, which is waited for and
        logged."""
        self.here.answers["ROLLBACK"] = 500, b"disk"
        ended = self.run_block(KeyError("k"))
        self.here.serve()
        self.assertFalse(ended.called)
        self.assertRaises(KeyError, self.outcome, ended)
        self.assertIn("disk", self.runtime.log.texts("debug")[-1])

    def test_closed(self) -> None:
        """A coroutine that is closed in the block rolls back, and waits for nothing."""

        async def block() -> None:
            async with self.begin() as transaction:
                self.send(transaction, b"1")
                await Deferred()

        running = block()
        running.send(None)
        self.serve()
        running.close()
        self.serve()
        self.assertEqual(["BEGIN", "put", "ROLLBACK"], self.here.steps)

    def test_cancelled(self) -> None:
        """A cancelled block rolls back."""

        async def block() -> None:
            async with self.begin() as self.transaction:
                await self.transaction.send("test", b"1", partition=P0)
                await Deferred()

        running = self.runtime.start(block())
        self.serve()
        running.cancel()
        running.addErrback(lambda _: None)
        self.serve()
        self.assertEqual("ROLLBACK", self.here.steps[-1])

    def test_ended_inside(self) -> None:
        """A block whose transaction was ended by hand ends nothing again."""

        async def block() -> None:
            async with self.begin() as transaction:
                await transaction.send("test", b"1", partition=P0)
                await transaction.rollback()

        self.outcome(self.runtime.start(block()))
        self.assertEqual(["BEGIN", "put", "ROLLBACK"], self.here.steps)

    def test_failure_that_was_caught(self) -> None:
        """The end of the block raises although nothing else did: not all messages are there."""

        async def block() -> None:
            async with self.begin() as transaction:
                await transaction.send("test", b"1", partition=P0)
                try:
                    await transaction.send("test", b"2", partition=Partition(0, 9))
                except InternalServerError:
                    pass

        error = self.assertRaises(TransactionFailed, self.outcome, self.runtime.start(block()))
        self.assertIn("wrong partition 9", str(error))
        self.assertEqual([], self.here.stored())
        self.assertEqual("ROLLBACK", self.here.steps[-1])


class RefusalTests(TransactionCase):
    """What the broker, or the client, refuses."""

    def test_message_after_a_failure(self) -> None:
        """Only a rollback is possible, and the error says why."""
        transaction = self.begin()
        bad = self.send(transaction, b"1", Partition(0, 9))
        self.assertRaises(InternalServerError, self.outcome, bad)
        self.assertIs(TransactionState.FAILED, transaction.state)
        error = self.assertRaises(TransactionFailed, self.outcome, self.send(transaction, b"2"))
        self.assertIn("wrong partition 9", str(error))
        self.outcome(transaction.rollback())

    def test_begin_refused(self) -> None:
        """The first message gets the broker's text; no transaction was begun, and a commit raises
        an error with that."""
        self.here.answers["BEGIN"] = 500, b"Timer size 1 is great than maxTimerCapacity 1"
        transaction = self.begin()
        error = self.assertRaises(InternalServerError, self.outcome, self.send(transaction, b"1"))
        self.assertIn("maxTimerCapacity", str(error))
        self.assertRaises(TransactionFailed, self.outcome, transaction.commit())
        self.assertNotIn("put", self.here.steps)

    def test_wrong_message(self) -> None:
        """A message that cannot be sent keeps the others from being committed."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        future = transaction.send("test", "text")  # type: ignore[arg-type]
        self.assertRaises(InvalidArgument, self.outcome, future)
        self.assertIs(TransactionState.FAILED, transaction.state)
        self.assertRaises(TransactionFailed, self.outcome, self.send(transaction, b"2"))
        self.assertRaises(TransactionFailed, self.outcome, transaction.commit())
        self.assertEqual([], self.here.stored())

    def test_too_long(self) -> None:
        """A message that consumers pass over is not sent; the longest that they take is."""
        self.session.config = self.session.config.replaced(max_body_bytes=1024)
        transaction = self.begin()
        self.assertRaises(MessageTooLarge, self.outcome, transaction.send("test", bytes(1025)))
        self.assertRaises(TransactionFailed, self.outcome, transaction.commit())
        self.assertEqual([], self.here.lines)
        transaction = self.begin()
        self.outcome(self.send(transaction, bytes(1024)))
        self.outcome(transaction.commit())
        self.assertEqual([bytes(1024)], self.here.stored())

    def test_partition_of_another_broker(self) -> None:
        """Both brokers are named."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1", P0))
        error = self.assertRaises(NoPartition, self.outcome, self.send(transaction, b"2", Q0))
        self.assertIn("host0:8123", str(error))
        self.assertIn("host1:8123", str(error))

    def test_partition_without_a_broker(self) -> None:
        """It is named; no broker is asked to begin."""
        sent = self.send(self.begin(), b"1", Partition(7, 0))
        error = self.assertRaises(NoPartition, self.outcome, sent)
        self.assertIn("topic test, partition 7-0", str(error))
        self.assertEqual([], self.here.lines + self.there.lines)

    def test_topic_that_the_broker_does_not_have(self) -> None:
        """The broker is named."""
        self.register(1, "other")
        self.publish(self.producing, "other")
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1", P0))
        error = self.assertRaises(NoPartition, self.outcome, transaction.send("other", b"2"))
        self.assertIn("host0:8123 has no partition", str(error))

    def test_commit_refused(self) -> None:
        """The broker could not write: the transaction is rolled back, and the error says so."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        self.here.answers["COMMIT_ONE_PHASE"] = 500, b"cannot be journaled: disk full"
        error = self.assertRaises(TransactionFailed, self.outcome, transaction.commit())
        self.assertIn("disk full", str(error))
        self.assertTrue(error.outcome_known)
        self.assertEqual("ROLLBACK", self.here.steps[-1])
        self.assertEqual([], self.here.stored())

    def test_commit_that_says_rolled_back(self) -> None:
        """The original gives 104 also when the messages have been stored."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        text = b"XAException:code=104,msg=STORE COMMIT FAILED: Transaction rolled back."
        self.here.answers["COMMIT_ONE_PHASE"] = 500, text
        error = self.assertRaises(CommitUnknown, self.outcome, transaction.commit())
        self.assertFalse(error.outcome_known)

    def test_used_after_its_end(self) -> None:
        """Every call says how it ended."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        self.outcome(transaction.commit())
        for call in (
            lambda: self.send(transaction, b"2"),
            transaction.commit,
            transaction.rollback,
        ):
            error = self.assertRaises(InvalidState, self.outcome, call())
            self.assertIn("committed already", str(error))
        self.assertEqual([b"1"], self.here.stored())

    def test_lifetime_over(self) -> None:
        """The broker has rolled it back: the next message and the commit say so."""
        transaction = self.begin(lifetime=2)
        self.outcome(self.send(transaction, b"1"))
        self.here.broker.clock.advance(4)
        error = self.assertRaises(TransactionLost, self.outcome, self.send(transaction, b"2"))
        text = f"transaction {transaction.id} at meta://host0:8123 is gone: .*its lifetime is over"
        self.assertRegex(str(error), text)
        self.assertRaises(TransactionLost, self.outcome, transaction.commit())

    def test_lost_one_in_a_block(self) -> None:
        """Its user has been told, and the end of the block says nothing again."""

        async def block() -> None:
            async with self.begin(lifetime=2) as transaction:
                await transaction.send("test", b"1", partition=P0)
                self.here.broker.clock.advance(4)
                try:
                    await transaction.commit()
                except TransactionLost:
                    pass
                self.assertTrue(transaction.is_ended)

        self.outcome(self.runtime.start(block()))

    def test_lifetime_over_at_the_commit(self) -> None:
        """The same without a message in between."""
        transaction = self.begin(lifetime=2)
        self.outcome(self.send(transaction, b"1"))
        self.here.broker.clock.advance(4)
        for _ in range(2):
            error = self.assertRaises(TransactionLost, self.outcome, transaction.commit())
            self.assertIn("its lifetime or its connection ended", str(error))
            self.assertTrue(error.outcome_known)
        self.assertEqual([], self.here.stored())


class LossTests(TransactionCase):
    """Connections that end, and answers that do not come."""

    def test_connection_lost(self) -> None:
        """The transaction is lost, also when the connection is back; every later call raises that
        error."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        self.here.lose()
        self.assertIs(TransactionState.LOST, transaction.state)
        self.serve(1.0)
        for call in (
            lambda: self.send(transaction, b"2"),
            transaction.commit,
            transaction.commit,
            transaction.rollback,
        ):
            error = self.assertRaises(TransactionLost, self.outcome, call())
            self.assertIn("connection lost", str(error))
            self.assertTrue(error.outcome_known)
        self.assertEqual([], self.here.stored())
        self.assertEqual(["BEGIN", "put"], self.here.steps)

    def test_rollback_of_a_lost_transaction(self) -> None:
        """The rollback reports the loss, and sends no request."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        self.here.lose()
        self.assertRaises(TransactionLost, self.outcome, transaction.rollback())
        self.serve(1.0)
        self.assertNotIn("ROLLBACK", self.here.steps)

    def test_lost_with_messages_under_way(self) -> None:
        """They get the same error: nothing of the transaction can become visible."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        sent = [self.send(transaction, b"2"), self.send(transaction, b"3")]
        self.runtime.turn()
        self.here.lose()
        for each in sent:
            self.assertRaises(TransactionLost, self.outcome, each)

    def test_lost_while_beginning(self) -> None:
        """The first message gets the error."""
        self.here.mute = True
        transaction = self.begin()
        sent = self.send(transaction, b"1")
        self.serve()
        self.here.mute = False
        self.here.lose()
        self.assertRaises(TransactionLost, self.outcome, sent)
        self.assertRaises(TransactionLost, self.outcome, transaction.commit())

    def test_lost_during_the_commit(self) -> None:
        """The outcome is unknown, and the error says so: here the broker had committed."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        self.here.mute = True
        committed = transaction.commit()
        self.serve()
        self.here.lose()
        error = self.assertRaises(CommitUnknown, self.runtime.result, committed)
        self.assertFalse(error.outcome_known)
        self.assertIs(TransactionState.UNKNOWN, transaction.state)
        self.assertEqual([b"1"], self.here.stored())

    def test_commit_without_answer(self) -> None:
        """The same after the time limit."""
        transaction = self.begin(timeout=2.0)
        self.outcome(self.send(transaction, b"1"))
        self.here.deaf = True
        committed = transaction.commit()
        error = self.assertRaises(CommitUnknown, self.outcome, committed, 3.0)
        self.assertFalse(error.outcome_known)
        error = self.assertRaises(InvalidState, self.outcome, transaction.commit())
        self.assertIn("committed or rolled back", str(error))

    def test_rollback_without_answer(self) -> None:
        """It is said, and that nothing becomes visible is certain."""
        transaction = self.begin(timeout=2.0)
        self.outcome(self.send(transaction, b"1"))
        self.here.deaf = True
        rolled_back = transaction.rollback()
        self.assertRaises(RequestTimeout, self.outcome, rolled_back, 3.0)
        self.assertIs(TransactionState.ROLLED_BACK, transaction.state)

    def test_message_without_answer(self) -> None:
        """It may be in the transaction, which cannot be committed any more."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        self.here.mute = True
        sent = transaction.send("test", b"2", partition=P0, timeout=1.0)
        error = self.assertRaises(SendTimeout, self.outcome, sent, 2.0)
        self.assertIn("partition 0-0 at meta://host0:8123", str(error))
        self.here.mute = False
        self.assertRaises(TransactionFailed, self.outcome, transaction.commit())
        self.assertEqual([], self.here.stored())

    def test_no_connection(self) -> None:
        """A transaction whose broker is away does not begin."""
        self.here.lose()
        transaction = self.begin(timeout=0.5, target="host0:8123")
        sent = self.send(transaction, b"1")
        self.runtime.advance(1)
        error = self.assertRaises(NotConnected, self.runtime.result, sent)
        self.assertIn("not begun, there is no connection", str(error))
        self.assertRaises(TransactionFailed, self.outcome, transaction.commit())

    def test_begin_waits_for_the_connection(self) -> None:
        """A connection that is being restored is waited for."""
        self.here.lose()
        transaction = self.begin(target="host0:8123")
        sent = self.send(transaction, b"1")
        self.outcome(sent, 1.0)
        self.outcome(transaction.commit())
        self.assertEqual([b"1"], self.here.stored())


class ClosingTests(TransactionCase):
    """The end of the producer."""

    def test_open_transactions_are_rolled_back(self) -> None:
        """Before the producer ends; a Java broker would keep them."""
        transaction = self.begin()
        self.outcome(self.send(transaction, b"1"))
        self.outcome(self.producing.close())
        self.assertEqual("ROLLBACK", self.here.steps[-1])
        self.assertIs(TransactionState.ROLLED_BACK, transaction.state)
        self.assertRaises(ClientClosed, self.begin)

    def test_close_waits_for_the_rollback(self) -> None:
        """A producer that is closed has no request under way."""
        self.outcome(self.send(self.begin(), b"1"))
        self.here.deaf = True
        closed = self.producing.close()
        self.serve()
        self.assertEqual("ROLLBACK", self.here.steps[-1])
        self.assertFalse(closed.called)
        self.outcome(closed, 6.0)

    def test_ended_transactions_are_forgotten(self) -> None:
        """Neither their producer nor their connection keeps them."""
        for end in ("commit", "rollback"):
            transaction = self.begin()
            self.outcome(self.send(transaction, b"1"))
            self.outcome(getattr(transaction, end)())
            made = weakref.ref(transaction)
            del transaction
            gc.collect()
            self.assertIsNone(made())

    def test_connection_is_let_go(self) -> None:
        """One that only a transaction needed ends with it."""
        for end in ("commit", "rollback"):
            transaction = self.begin(target="host7:8123")
            self.assertIsNotNone(self.session.connections.connection_of("host7:8123"))
            self.outcome(getattr(transaction, end)())
            self.assertIsNone(self.session.connections.connection_of("host7:8123"))

    def test_rollback_waits_for_the_begin(self) -> None:
        """ROLLBACK never overtakes BEGIN, which would leave the transaction open."""
        self.here.mute = True
        transaction = self.begin()
        sent = self.send(transaction, b"1")
        self.serve()
        rolled_back = transaction.rollback()
        self.serve()
        self.assertEqual(["BEGIN"], self.here.steps)
        self.here.mute = False
        for link in self.here.links():
            (opaque,) = {int(word) for word in self.opaques(link)}
            link.receive(b"result 200 0 %d\r\n" % opaque)
        self.outcome(rolled_back)
        self.assertRaises(TransactionFailed, self.runtime.result, sent)
        self.assertEqual(["BEGIN", "ROLLBACK"], self.here.steps)

    def opaques(self, link: Any) -> list[int]:
        """Of the requests that wait for an answer."""
        return list(link.receiver._waiting)


class DirectTests(LinkedCase):
    """One broker, no ZooKeeper."""

    direct = True
    count = 1

    def test_partition_is_needed(self) -> None:
        """Without one the error says what to give; with one it works."""
        producer = self.producer("test")
        transaction = producer.transaction()
        sent = transaction.send("test", b"1")
        error = self.assertRaises(InvalidArgument, self.outcome, sent)
        self.assertIn("partition=Partition(0, 3)", str(error))
        transaction = producer.transaction()
        self.outcome(transaction.send("test", b"0", partition=P0))
        self.outcome(transaction.send("test", b"1", partition=P1))
        self.outcome(transaction.commit())
        for n in (0, 1):
            self.assertEqual([b"%d" % n], self.brokers[0].stored(partition=n))
