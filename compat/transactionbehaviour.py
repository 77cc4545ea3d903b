"""What transactions of our client come to, whichever broker it is."""

from __future__ import annotations

import time
from typing import Any

from compat.clientcase import ClientCase, shared_broker, wait_until
from metamorphosis.client.blocking import MessageSessionFactory
from metamorphosis.client.model import Partition
from metamorphosis.client.transactions.local import TransactionState
from metamorphosis.client.transactions.xa import (
    TMFAIL,
    TMRESUME,
    TMSUSPEND,
    XA_OK,
    XA_RBROLLBACK,
    XA_RDONLY,
    XAER_NOTA,
    XAER_PROTO,
    Xid,
)
from metamorphosis.errors import InternalServerError, TransactionFailed, TransactionLost, XAError

TOPICS = (
    "together",
    "rollback",
    "refused",
    "lifetime",
    "interleaved",
    "empty",
    "phases",
    "readonly",
    "undone",
    "found",
    "codes",
    "expired",
    "suspended",
    "reconnected",
)
A, B = Xid(99, b"\x0a\xff", b"\xb1\x02"), Xid(-1, b"\x01", b"")


class TransactionBehaviour(ClientCase):
    """Each test has a topic of two partitions of its own, named at the end of the test's name."""

    def setUp(self) -> None:
        topics = {name: {"numPartitions": 2} for name in TOPICS}
        self.broker = shared_broker(self.kind, "transactions", topics)
        self.topic = self._testMethodName.rpartition("_")[2]
        self.client = self.open()
        self.made = self.client.create_producer(self.topic)
        self.zero, self.one = self.client.get_partitions_for_topic(self.topic)

    def open(self) -> MessageSessionFactory:
        """A client, closed after the test."""
        connect = self.broker.zookeeper.connect_string
        client = MessageSessionFactory(zookeeper=connect, zookeeper_root=self.broker.root)
        self.addCleanup(client.close)
        return client

    def xa(self, client: MessageSessionFactory | None = None) -> Any:
        """A resource of an application whose qualifier is that of the test."""
        used = self.client if client is None else client
        producer = used.create_xa_producer(self.topic, unique_qualifier=f"q-{self.topic}")
        return producer.resource()

    def stored(self) -> list[tuple[int, bytes]]:
        """Partition and body of all messages, as consumers see them."""
        with self.client.create_topic_browser(self.topic) as browser:
            return [(each.partition.number, each.data) for each in browser]

    def assertStored(self, *expected: tuple[int, bytes]) -> None:
        """These and no others, in this order."""
        wait_until(lambda: len(self.stored()) >= len(expected), "messages are visible")
        self.assertEqual(list(expected), self.stored())

    def work(self, resource: Any, xid: Xid, *bodies: bytes) -> None:
        """A branch with messages, ended."""
        resource.start(xid)
        for body in bodies:
            resource.send(self.topic, body, partition=self.zero)
        resource.end(xid)

    def assertCode(self, code: int, call: Any, *arguments: Any) -> None:
        """It fails with this code."""
        error = self.assertRaises(XAError, call, *arguments)
        self.assertEqual(code, error.code, str(error))

    # -- local

    def test_visible_together(self) -> None:
        """Nothing before the commit, everything after it; each partition's in the order sent."""
        with self.made.transaction() as transaction:
            for n in range(3):
                for partition in (self.zero, self.one):
                    result = transaction.send(
                        self.topic, b"%d" % n, "attribute", partition=partition
                    )
                    self.assertEqual((partition, -1), (result.partition, result.offset))
            self.assertEqual([], self.stored())
        self.assertStored(*((p, b"%d" % n) for p in (0, 1) for n in range(3)))

    def test_rollback(self) -> None:
        """Nothing is stored, by hand or by an exception; the next transaction has a new key."""
        transaction = self.made.transaction()
        transaction.send(self.topic, b"1", partition=self.zero)
        transaction.rollback()
        with self.assertRaises(KeyError), self.made.transaction() as transaction:
            transaction.send(self.topic, b"2", partition=self.zero)
            raise KeyError
        self.made.send(self.topic, b"3", partition=self.zero)
        self.assertStored((0, b"3"))

    def test_message_refused(self) -> None:
        """A partition that is not there: the broker's text, and a commit is a rollback."""
        transaction = self.made.transaction()
        transaction.send(self.topic, b"1", partition=self.zero)
        wrong = Partition(self.zero.broker_id, 7)
        with self.assertRaises(InternalServerError) as caught:
            transaction.send(self.topic, b"2", partition=wrong)
        self.assertEqual("wrong partition 7", str(caught.exception))
        self.assertRaises(TransactionFailed, transaction.commit)
        self.assertIs(TransactionState.ROLLED_BACK, transaction.state)
        self.made.send(self.topic, b"3", partition=self.zero)
        self.assertStored((0, b"3"))

    def test_lifetime(self) -> None:
        """The broker rolls it back, and both kinds of call say so."""
        late, later = self.made.transaction(1), self.made.transaction(lifetime=1)
        for each in (late, later):
            each.send(self.topic, b"1", partition=self.zero)
        time.sleep(2.5)
        self.assertRaises(TransactionLost, late.commit)
        with self.assertRaises(TransactionLost):
            later.send(self.topic, b"2", partition=self.zero)
        self.assertRaises(TransactionLost, later.commit)
        self.assertEqual([], self.stored())

    def test_interleaved(self) -> None:
        """Two transactions and a plain message: the blocks are contiguous, in commit order."""
        first, second = self.made.transaction(), self.made.transaction()
        for n in range(2):
            first.send(self.topic, b"f%d" % n, partition=self.zero)
            second.send(self.topic, b"s%d" % n, partition=self.zero)
        self.made.send(self.topic, b"plain", partition=self.zero)
        second.commit()
        first.commit()
        self.assertStored((0, b"plain"), (0, b"s0"), (0, b"s1"), (0, b"f0"), (0, b"f1"))

    def test_empty(self) -> None:
        """Nothing to commit is no fault; an empty message is one."""
        self.made.transaction().commit()
        with self.made.transaction() as transaction:
            transaction.send(self.topic, b"", partition=self.zero)
        self.assertStored((0, b""))

    # -- XA

    def test_two_phases(self) -> None:
        """Prepared, listed, committed; and one phase."""
        resource = self.xa()
        self.work(resource, A, b"1", b"2")
        self.assertEqual(XA_OK, resource.prepare(A))
        self.assertEqual((A,), resource.recover())
        self.assertEqual([], self.stored())
        resource.commit(A)
        self.work(resource, B, b"3")
        resource.commit(B, one_phase=True)
        self.assertEqual((), resource.recover())
        self.assertStored((0, b"1"), (0, b"2"), (0, b"3"))

    def test_nothing_to_prepare_readonly(self) -> None:
        """The broker has forgotten it."""
        resource = self.xa()
        self.work(resource, A)
        self.assertEqual(XA_RDONLY, resource.prepare(A))
        self.assertCode(XAER_NOTA, resource.commit, A)

    def test_undone(self) -> None:
        """Rolled back while associated, after ``end`` with TMFAIL, and prepared."""
        resource = self.xa()
        resource.start(A)
        resource.send(self.topic, b"1", partition=self.zero)
        resource.rollback(A)
        resource.start(A)
        resource.send(self.topic, b"2", partition=self.zero)
        resource.end(A, TMFAIL)
        self.assertCode(XA_RBROLLBACK, resource.prepare, A)
        self.work(resource, A, b"3")
        resource.prepare(A)
        resource.rollback(A)
        self.assertEqual((), resource.recover())
        self.assertEqual([], self.stored())

    def test_earlier_life_found(self) -> None:
        """Another process finds what was prepared, and decides; ``recover`` is not needed."""
        resource = self.xa()
        for xid in (A, B):
            self.work(resource, xid, xid.gtrid)
            resource.prepare(xid)
        self.client.close()
        self.client = self.open()
        later = self.xa()
        self.assertEqual({A, B}, set(later.recover()))
        later.rollback(B)
        self.xa(self.open()).commit(A)
        self.assertEqual((), later.recover())
        self.assertStored((0, A.gtrid))

    def test_codes(self) -> None:
        """Unknown, prepared twice, committed in two phases without the first."""
        resource = self.xa()
        for call in (resource.commit, resource.rollback, resource.prepare, resource.forget):
            self.assertCode(XAER_NOTA, call, A)
        self.work(resource, A, b"1")
        self.assertCode(XAER_PROTO, resource.commit, A)
        resource.prepare(A)
        self.assertCode(XAER_PROTO, resource.prepare, A)
        other = self.xa(self.open())
        self.assertCode(XAER_PROTO, other.prepare, A)
        resource.commit(A)
        self.assertCode(XAER_NOTA, resource.commit, A)
        self.assertCode(XAER_NOTA, other.commit, A)

    def test_branch_expired(self) -> None:
        """What is not prepared in time is gone; what is prepared stays."""
        resource = self.xa()
        resource.set_transaction_timeout(1)
        self.work(resource, A, b"1")
        self.work(resource, B, b"2")
        resource.prepare(B)
        time.sleep(2.5)
        self.assertCode(XAER_NOTA, resource.prepare, A)
        resource.commit(B)
        self.assertStored((0, b"2"))

    def test_suspended(self) -> None:
        """Two branches of one resource in turns."""
        resource = self.xa()
        resource.start(A)
        resource.send(self.topic, b"a1", partition=self.zero)
        resource.end(A, TMSUSPEND)
        self.work(resource, B, b"b1")
        resource.start(A, TMRESUME)
        resource.send(self.topic, b"a2", partition=self.zero)
        resource.end(A)
        resource.commit(A, one_phase=True)
        resource.commit(B, one_phase=True)
        self.assertStored((0, b"a1"), (0, b"a2"), (0, b"b1"))

    def test_branch_of_a_client_that_reconnected(self) -> None:
        """A branch belongs to no connection: another client prepares and commits it."""
        resource = self.xa()
        self.work(resource, A, b"1")
        resource.prepare(A)
        self.xa(self.open()).commit(A)
        self.assertStored((0, b"1"))
