"""
Transactions over the wire: the rows of section 18 of the specification, and what a broken journal
or store does. No network, real stores and redo files.
"""

from __future__ import annotations

import errno
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import checksum
from metamorphosis.store.disk import Disk
from metamorphosis.transactions import recording
from metamorphosis.transactions.heuristiclog import Heuristic
from metamorphosis.transactions.records import Append, Operation, OperationType, read_records
from metamorphosis.wire.transactionids import XATransactionId
from tests.support.serving import Client
from tests.support.transactional import TransactionalBroker
from tests.unit.transactions.test_redolog import BreakingDisk

LOCAL, LOCAL2 = "TX:192.0.2.1-1-1:1", "TX:192.0.2.1-1-1:2"
XA, XA2 = "XID:1:aa:bb:app", "XID:2:aa:bb:other"


class StepsTestCase(SynchronousTestCase):
    """Clients of one broker."""

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        self.broker = TransactionalBroker(self.mktemp(), **self.settings)
        self.client = self.broker.client()

    def hold(self, size: int = 0) -> None:
        """Transactions larger than this write each record at its put."""
        self.patch(recording, "HELD_BYTES", size)

    def step(
        self, key: str, kind: str, *more: object, client: Client | None = None
    ) -> tuple[int, str]:
        """Status and text of the reply to a step."""
        words = " ".join(str(word) for word in (key, "s", kind, *more, 7))
        return self.reply((client or self.client).send(f"transaction {words}\r\n".encode()))

    def put(
        self,
        key: str,
        body: bytes = b"hello",
        topic: str = "test",
        partition: int = 0,
        given: int | None = -1,
        client: Client | None = None,
    ) -> tuple[int, str]:
        """Status and text of the reply to a put."""
        check = "" if given is None else f" {given}"
        head = f"put {topic} {partition} {len(body)} 0{check} {key} 7\r\n"
        return self.reply((client or self.client).send(head.encode() + body))

    def reply(self, data: bytes) -> tuple[int, str]:
        """One ``result``."""
        head, _, text = data.partition(b"\r\n")
        word, status, length, opaque = head.split(b" ")
        self.assertEqual((b"result", b"7", len(text)), (word, opaque, int(length)))
        return int(status), text.decode()

    def messages(self, topic: str = "test", partition: int = 0) -> list[bytes]:
        """The bodies that can be read."""
        store = self.broker.stores.get(topic, partition)
        if store is None:
            return []
        found = store.slice(0, 1 << 20) if store.max_offset else None
        if found is None:
            return []
        with open(found.segment.path, "rb") as file:
            data = file.read()[: store.max_offset]
        bodies = []
        while data:
            length = int.from_bytes(data[:4], "big")
            self.assertEqual(checksum(data[20 : 20 + length]), int.from_bytes(data[4:8], "big"))
            bodies.append(data[20 : 20 + length])
            data = data[20 + length :]
        return bodies

    def records(self) -> list[str]:
        """What the journal says."""
        return [
            "APPEND" if isinstance(placed.record, Append) else placed.record.type.name
            for placed in read_records(self.broker.redo())
        ]

    def assertOk(self, reply: tuple[int, str], text: str = "") -> None:
        """The step was done."""
        self.assertEqual((200, text), reply)

    def assertXa(self, reply: tuple[int, str], code: int, text: str) -> None:
        """The step was refused with this code."""
        self.assertEqual((500, f"XAException:code={code},msg={text}"), reply)


class LocalTests(StepsTestCase):
    """T01 to T06, T13, T19, T20, T23, T24."""

    def test_t01_t02_put_and_commit(self) -> None:
        """Nothing is visible before the commit; the put's offset is -1."""
        self.assertOk(self.step(LOCAL, "BEGIN"))
        status, text = self.put(LOCAL)
        self.assertEqual(200, status)
        self.assertRegex(text, r"^\d+ 0 -1$")
        self.assertEqual([], self.messages())
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"hello"], self.messages())
        self.assertEqual(["APPEND", "LOCAL_COMMIT"], self.records())

    def test_t03_commit_in_two_phases(self) -> None:
        """Is the same for a local one."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.assertOk(self.step(LOCAL, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"hello"], self.messages())

    def test_t04_prepare(self) -> None:
        """Is refused; the transaction continues."""
        self.step(LOCAL, "BEGIN")
        text = "Prepare not implemented on Local Transactions."
        self.assertXa(self.step(LOCAL, "PREPARE"), -3, text)
        self.put(LOCAL)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))

    def test_t05_commit_twice(self) -> None:
        """The second one finds nothing; nor does any step of what was never begun."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.step(LOCAL, "COMMIT_ONE_PHASE")
        text = f"Local transaction '{LOCAL}' has not been started."
        for kind in ("COMMIT_ONE_PHASE", "COMMIT_TWO_PHASE", "ROLLBACK", "PREPARE"):
            self.assertEqual((500, text), self.step(LOCAL, kind))
        self.assertEqual((500, text), self.put(LOCAL))

    def test_t06_other_connection(self) -> None:
        """Knows nothing of it."""
        other = self.broker.client()
        self.step(LOCAL, "BEGIN")
        self.assertEqual(500, self.put(LOCAL, client=other)[0])
        self.assertEqual(200, self.put(LOCAL)[0])
        self.assertOk(self.step(LOCAL, "BEGIN", client=other))
        self.put(LOCAL, b"other", client=other)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE", client=other))
        self.assertEqual([b"other"], self.messages())

    def test_roll_back(self) -> None:
        """Stores nothing; a record is written only if one of a put was."""
        self.step(LOCAL, "BEGIN")
        self.assertOk(self.step(LOCAL, "ROLLBACK"))
        self.assertEqual([], self.records())
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.assertOk(self.step(LOCAL, "ROLLBACK"))
        self.assertEqual(([], []), (self.records(), self.messages()))
        self.hold()
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.assertOk(self.step(LOCAL, "ROLLBACK"))
        self.assertEqual((["APPEND", "LOCAL_ROLLBACK"], []), (self.records(), self.messages()))

    def test_commit_of_nothing(self) -> None:
        """Writes nothing."""
        self.step(LOCAL, "BEGIN")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([], self.records())
        self.assertEqual([], list(self.broker.transactions.open))

    def test_t13_begin_twice(self) -> None:
        """Changes nothing, the first timeout rules."""
        self.assertOk(self.step(LOCAL, "BEGIN", 2))
        self.put(LOCAL)
        self.assertOk(self.step(LOCAL, "BEGIN", 50))
        self.broker.clock.advance(3.1)
        self.assertEqual(500, self.step(LOCAL, "COMMIT_ONE_PHASE")[0])

    def test_t19_refused_puts(self) -> None:
        """Each with its text; the transaction continues."""
        self.step(LOCAL, "BEGIN")
        for reply, text in (
            (self.put(LOCAL, partition=-1), "Invalid partition for transaction command:-1"),
            (self.put(LOCAL, topic="nobody"), "The server do not accept topic nobody"),
            (self.put(LOCAL, partition=2), "wrong partition 2"),
            (
                self.put(LOCAL, given=999),
                "Checksum failure,message may be corrupted when transfering on networking.",
            ),
        ):
            self.assertEqual((500, text), reply)
        self.broker.close_partitions("test", (1, 1))
        self.assertEqual(403, self.put(LOCAL, partition=1)[0])
        self.assertEqual(200, self.put(LOCAL, given=checksum(b"hello"))[0])
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"hello"], self.messages())

    def test_t20_partitions(self) -> None:
        """Each has its messages in the order of the puts, contiguous, whatever else is put."""
        self.step(LOCAL, "BEGIN")
        for number in range(6):
            self.put(LOCAL, b"%d" % number, partition=number % 2)
            self.client.send(b"put test 0 5 0 -1 7\r\nplain")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"plain"] * 6 + [b"0", b"2", b"4"], self.messages())
        self.assertEqual([b"1", b"3", b"5"], self.messages(partition=1))

    def test_t23_longest_timeout(self) -> None:
        """Is cut to the greatest there is."""
        self.step(LOCAL, "BEGIN", 600)
        self.broker.clock.advance(59)
        self.assertEqual(200, self.put(LOCAL)[0])
        self.broker.clock.advance(2)
        self.assertEqual(500, self.put(LOCAL)[0])

    def test_t24_connection_lost(self) -> None:
        """Its local transactions are rolled back at once."""
        self.hold()
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.step(LOCAL2, "BEGIN")
        self.client.connection.connectionLost()
        self.broker.clock.advance(0)
        self.assertEqual(["APPEND", "LOCAL_ROLLBACK"], self.records())
        self.assertEqual(
            ([], 0), (list(self.broker.transactions.open), self.broker.transactions.open.bytes)
        )

    def test_null(self) -> None:
        """Cannot begin."""
        self.assertEqual((500, "null is not the key of a transaction"), self.step("null", "BEGIN"))

    def test_t18_put_without_checksum(self) -> None:
        """Seven words with a key."""
        self.step(LOCAL, "BEGIN")
        self.assertEqual(200, self.put(LOCAL, given=None)[0])
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"hello"], self.messages())


class XaTests(StepsTestCase):
    """T07 to T17, T21, T22, T25 to T27."""

    def test_t07_three_connections(self) -> None:
        """An XA transaction belongs to the broker."""
        others = [self.broker.client(), self.broker.client()]
        self.step(XA, "BEGIN")
        self.put(XA)
        self.assertOk(self.step(XA, "PREPARE", client=others[0]), "0")
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE", client=others[1]))
        self.assertEqual([b"hello"], self.messages())
        self.assertEqual(["APPEND", "XA_PREPARE", "XA_COMMIT"], self.records())

    def test_t08_read_only(self) -> None:
        """A prepare of nothing ends it."""
        self.step(XA, "BEGIN")
        self.assertOk(self.step(XA, "PREPARE"), "3")
        text = f"XA transaction '{XA}' has not been started."
        for kind in ("COMMIT_TWO_PHASE", "COMMIT_ONE_PHASE", "ROLLBACK", "PREPARE"):
            self.assertXa(self.step(XA, kind), -4, text)
        self.assertEqual((500, text), self.put(XA))

    def test_t09_second_phase_first(self) -> None:
        """Is refused; one phase works."""
        self.step(XA, "BEGIN")
        text = "Cannot do 2 phase commit if the transaction has not been prepared."
        self.assertXa(self.step(XA, "COMMIT_TWO_PHASE"), -6, text)
        self.put(XA)
        self.assertXa(self.step(XA, "COMMIT_TWO_PHASE"), -6, text)
        self.assertOk(self.step(XA, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"hello"], self.messages())

    def test_t10_prepare_twice(self) -> None:
        """The second one is refused."""
        self.step(XA, "BEGIN")
        self.put(XA)
        self.step(XA, "PREPARE")
        self.assertXa(self.step(XA, "PREPARE"), -6, "Cannot call prepare now.")

    def test_t11_one_phase_of_a_prepared_one(self) -> None:
        """Works, and the record says that it was prepared."""
        self.step(XA, "BEGIN")
        self.put(XA)
        self.step(XA, "PREPARE")
        self.assertOk(self.step(XA, "COMMIT_ONE_PHASE"))
        *_, last = read_records(self.broker.redo())
        assert isinstance(last.record, Operation)
        self.assertEqual((OperationType.XA_COMMIT, True), last.record[:1] + last.record[2:3])

    def test_t12_end(self) -> None:
        """Has no reply."""
        self.step(XA, "BEGIN")
        self.assertEqual(b"", self.client.send(f"transaction {XA} s END app 9\r\n".encode()))
        self.assertEqual(200, self.put(XA)[0])

    def test_t14_t15_recover(self) -> None:
        """In the order of their BEGIN; with a qualifier only its own."""
        for key in (XA, XA2):
            self.step(key, "BEGIN")
            self.put(key)
        for key in (XA2, XA):
            self.step(key, "PREPARE")
        for more, text in (
            ((), f"{XA}\r\n{XA2}"),
            (("app",), XA),
            (("nobody",), ""),
            (("12",), f"{XA}\r\n{XA2}"),  # digits are a timeout
        ):
            self.assertOk(self.step("null", "RECOVER", *more), text)

    def test_t16_malformed(self) -> None:
        """The connection is closed without a reply."""
        for words in (
            "TX:a:b:c s BEGIN 1",
            f"{XA} s NONSENSE 1",
            "null s",
            f"{XA} s BEGIN 1 q 2 3 4",
        ):
            client = self.broker.client()
            self.assertEqual(b"", client.send(f"transaction {words}\r\n".encode()))
            self.assertTrue(client.closed)

    def test_t17_empty_branch(self) -> None:
        """Is echoed as it came."""
        key = "XID:-1:01::q"
        self.step(key, "BEGIN")
        self.put(key)
        self.step(key, "PREPARE")
        self.assertOk(self.step("null", "RECOVER"), key)

    def test_t21_timeout(self) -> None:
        """Not before its time, and within a second after it; the journal says so, if it has its
        messages."""
        self.hold()
        self.step(XA, "BEGIN", 2)
        self.put(XA)
        self.broker.clock.advance(1.5)
        self.assertEqual(1, len(list(self.broker.transactions.open)))
        self.broker.clock.advance(1.5)
        self.assertEqual(-4, int(self.step(XA, "PREPARE")[1].split("=")[1].split(",")[0]))
        self.assertEqual(["APPEND", "XA_ROLLBACK"], self.records())

    def test_t22_prepared_in_time(self) -> None:
        """A prepared one has no timeout."""
        self.step(XA, "BEGIN", 2)
        self.put(XA)
        self.step(XA, "PREPARE")
        self.broker.clock.advance(1000)
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.broker.transactions.stop()

    def test_t25_connection_lost(self) -> None:
        """An XA transaction stays, in every state."""
        self.step(XA, "BEGIN")
        self.put(XA)
        self.client.connection.connectionLost()
        other = self.broker.client()
        self.assertOk(self.step(XA, "PREPARE", client=other), "0")
        other.connection.connectionLost()
        self.assertOk(self.step("null", "RECOVER", client=self.broker.client()), XA)

    def test_t26_put_after_prepare(self) -> None:
        """Is refused; the commit has the messages before it."""
        self.step(XA, "BEGIN")
        self.put(XA)
        self.step(XA, "PREPARE")
        text = f"XA transaction '{XA}' has been prepared."
        self.assertEqual((500, text), self.put(XA, b"late"))
        self.step(XA, "COMMIT_TWO_PHASE")
        self.assertEqual([b"hello"], self.messages())

    def test_t27_forget(self) -> None:
        """A local key is refused; an unknown one is as good as forgotten."""
        self.assertXa(self.step(LOCAL, "FORGET"), -4, f"{LOCAL} is not a valid xid")
        self.assertXa(self.step("null", "FORGET"), -4, "null is not a valid xid")
        self.assertOk(self.step(XA, "FORGET"))
        self.step(XA2, "BEGIN")
        self.assertOk(self.step(XA2, "FORGET"))
        self.assertEqual(200, self.put(XA2)[0])

    def test_t28_heuristic(self) -> None:
        """A decided outcome answers every step until it is forgotten."""
        xid = XATransactionId(1, b"\xaa", b"\xbb", "app")
        for outcome, code, word in (
            (Heuristic.COMMITTED, 7, "committed"),
            (Heuristic.ROLLED_BACK, 6, "rolled back"),
            (Heuristic.COMPLETED, 8, "completed"),
        ):
            self.broker.transactions.heuristic[xid] = outcome
            text = f"XA transaction '{XA}' has been heuristically {word}."
            for kind in ("PREPARE", "COMMIT_ONE_PHASE", "COMMIT_TWO_PHASE", "ROLLBACK"):
                self.assertXa(self.step(XA, kind), code, text)
            self.assertEqual((500, text), self.put(XA))
            self.assertOk(self.step("null", "RECOVER", "app"), XA)
            self.assertOk(self.step(XA, "FORGET"))
            self.assertOk(self.step("null", "RECOVER"), "")

    def test_in_use_without_messages(self) -> None:
        """A refused put makes it one; its prepare and commit write nothing."""
        self.step(XA, "BEGIN")
        self.put(XA, partition=9)
        self.assertOk(self.step(XA, "PREPARE"), "0")
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([], self.records())

    def test_counters(self) -> None:
        """Every command counts, failing ones too."""
        self.step(XA, "BEGIN")
        self.step(XA, "BEGIN")
        self.step(LOCAL, "BEGIN")
        self.step(LOCAL2, "COMMIT_ONE_PHASE")
        self.step(LOCAL2, "ROLLBACK")
        statistics = self.broker.responders.statistics
        self.assertEqual(
            (3, 2, 1, 1),
            (
                statistics.tx_begin,
                statistics.tx_xa_begin,
                statistics.tx_commit,
                statistics.tx_rollback,
            ),
        )


class OrderTests(StepsTestCase):
    """Replies in request order, and what is visible when."""

    def test_pipelined(self) -> None:
        """A whole transaction in one piece is answered in order."""
        head = f"put test 0 1 0 -1 {LOCAL} 2\r\nx"
        data = (
            f"transaction {LOCAL} s BEGIN 1\r\n{head}transaction {LOCAL} s COMMIT_ONE_PHASE 3\r\n"
            f"put test 0 1 0 -1 4\r\nyversion 5\r\n"
        )
        got = self.client.send(data.encode())
        opaques = []
        while got:
            head, _, rest = got.partition(b"\r\n")
            opaques.append(int(head.split(b" ")[3]))
            got = rest[int(head.split(b" ")[2]) :]
        self.assertEqual([1, 2, 3, 4, 5], opaques)
        self.assertEqual([b"x", b"y"], self.messages())

    def test_reply_waits_for_the_force(self) -> None:
        """Neither a reply nor a message comes before; puts collect after the block meanwhile."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.broker.threads.hold()
        self.assertEqual(
            b"", self.client.send(f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode())
        )
        other = self.broker.client()
        self.assertEqual(b"", other.send(b"put test 0 5 0 -1 7\r\nplain"))
        self.assertEqual([], self.messages())
        self.broker.threads.release()
        self.broker.clock.advance(0)
        self.assertOk(self.reply(self.client.received()))
        self.assertEqual(200, self.reply(other.received())[0])
        self.assertEqual([b"hello", b"plain"], self.messages())

    def test_steps_while_it_ends(self) -> None:
        """It is unknown to them, and cannot be begun again yet."""
        self.step(XA, "BEGIN")
        self.put(XA)
        self.broker.threads.hold()
        self.client.send(f"transaction {XA} s COMMIT_ONE_PHASE 7\r\n".encode())
        other = self.broker.client()
        self.assertEqual(
            -4, int(self.step(XA, "ROLLBACK", client=other)[1].split("=")[1].split(",")[0])
        )
        self.assertEqual(500, self.step(XA, "BEGIN", client=other)[0])
        self.broker.threads.release()
        self.broker.clock.advance(0)
        self.assertOk(self.reply(self.client.received()))
        self.assertOk(self.step(XA, "BEGIN", client=other))


class LimitTests(StepsTestCase):
    """Memory and timeouts are bounded."""

    settings = {"max_bytes": 3000, "capacity": 2}

    def test_memory(self) -> None:
        """A put beyond the bound names the setting; room comes back with the end of others."""
        self.step(LOCAL, "BEGIN")
        self.assertEqual(200, self.put(LOCAL, b"x" * 1500)[0])
        status, text = self.put(LOCAL, b"x" * 500)
        self.assertEqual(500, status)
        self.assertIn("max-transaction-bytes", text)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.step(LOCAL, "BEGIN")
        self.assertEqual(200, self.put(LOCAL, b"x" * 1500)[0])

    def test_timeouts(self) -> None:
        """One too many is refused and leaves nothing behind."""
        for key in (LOCAL, LOCAL2):
            self.assertOk(self.step(key, "BEGIN", 5))
        text = "Timer size 2 is great than maxTimerCapacity 2"
        self.assertEqual((500, text), self.step(XA, "BEGIN", 5))
        self.assertEqual(2, len(list(self.broker.transactions.open)))
        self.assertOk(self.step(XA, "BEGIN"))
        self.step(LOCAL, "ROLLBACK")
        self.assertOk(self.step(XA2, "BEGIN", 5))
        before = len(list(self.broker.transactions.open))
        self.broker.transactions.stop()
        self.broker.clock.advance(100)
        self.assertEqual(before, len(list(self.broker.transactions.open)))


class BrokenJournalTests(StepsTestCase):
    """Records that cannot be written or forced."""

    def setUp(self) -> None:
        self.disk = BreakingDisk()
        self.settings = {"journal_disk": self.disk}
        super().setUp()

    def fail(self, call: str = "write") -> None:  # type: ignore[override]
        """The next such call of the journal fails."""
        self.disk.failing[call] = 1

    def test_put(self) -> None:
        """Is refused; the transaction continues without it."""
        self.hold()
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL, b"first")
        self.fail()
        status, text = self.put(LOCAL, b"lost")
        self.assertEqual(500, status)
        self.assertIn("Input/output error", text)
        self.put(LOCAL, b"last")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"first", b"last"], self.messages())

    def test_only_put(self) -> None:
        """A transaction whose only put was refused commits nothing."""
        self.hold()
        self.step(LOCAL, "BEGIN")
        self.fail()
        self.put(LOCAL)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual(([], []), (self.records(), self.messages()))
        self.assertEqual(0, self.broker.journal.files[0].references)

    def test_commit(self) -> None:
        """Is refused; the room is given back, other puts that waited after it too; it can be tried
        again."""
        self.step(XA, "BEGIN")
        self.put(XA)
        self.step(XA, "PREPARE")
        self.fail()
        status, text = self.step(XA, "COMMIT_TWO_PHASE")
        self.assertEqual(500, status)
        self.assertRegex(text, r"^XAException:code=-3,msg=.*Input/output error")
        self.assertEqual([], self.messages())
        self.assertOk(self.step("null", "RECOVER"), XA)
        self.assertEqual(200, self.reply(self.client.send(b"put test 0 5 0 -1 7\r\nplain"))[0])
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"plain", b"hello"], self.messages())

    def test_prepare(self) -> None:
        """Is refused; the transaction can be used, prepared again, or rolled back."""
        self.step(XA, "BEGIN")
        self.put(XA)
        self.fail()
        self.assertEqual(500, self.step(XA, "PREPARE")[0])
        self.assertOk(self.step("null", "RECOVER"), "")
        self.put(XA, b"more")
        self.assertOk(self.step(XA, "PREPARE"), "0")
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"hello", b"more"], self.messages())

    def test_roll_back(self) -> None:
        """A prepared one stays prepared when its rollback cannot be recorded."""
        self.step(XA, "BEGIN")
        self.put(XA)
        self.step(XA, "PREPARE")
        self.fail()
        self.assertEqual(500, self.step(XA, "ROLLBACK")[0])
        self.assertOk(self.step("null", "RECOVER"), XA)
        self.assertOk(self.step(XA, "ROLLBACK"))

    def test_force(self) -> None:
        """Nothing is answered, the broker is told to stop, nothing more is accepted."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.fail("sync")
        self.assertEqual(
            b"", self.client.send(f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode())
        )
        self.broker.clock.advance(10)
        self.assertEqual((b"", []), (self.client.received(), self.messages()))
        self.assertEqual(1, len(self.broker.broken))
        other = self.broker.client()
        self.step(LOCAL2, "BEGIN", client=other)
        self.assertEqual(500, self.put(LOCAL2, client=other)[0])
        self.assertEqual(200, self.reply(other.send(b"put test 1 5 0 -1 7\r\nplain"))[0])


class BreakingStoreDisk(Disk):
    """Stores that cannot be written."""

    def __init__(self) -> None:
        self.failing = False

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """See ``Disk``."""
        if self.failing:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(fd, data, position)


class BrokenStoreTests(StepsTestCase):
    """Messages that cannot be stored."""

    def setUp(self) -> None:
        self.disk = BreakingStoreDisk()
        self.settings = {"disk": self.disk}
        super().setUp()

    def test_after_the_record(self) -> None:
        """The outcome is durable, and no other answer is given: the broker must stop."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.disk.failing = True
        self.assertEqual(
            b"", self.client.send(f"transaction {LOCAL} s COMMIT_ONE_PHASE 7\r\n".encode())
        )
        self.assertIn(LOCAL, self.broker.broken[0])
        self.assertEqual(["APPEND", "LOCAL_COMMIT"], self.records())

    def test_before_the_record(self) -> None:
        """A store that takes nothing refuses the commit, and nothing is recorded; the room in other
        partitions is given back."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.put(LOCAL, partition=1)
        store = self.broker.stores.get_or_create(self.broker.config.topic("test"), 1)
        self.successResultOf(store.close())
        status, text = self.step(LOCAL, "COMMIT_ONE_PHASE")
        self.assertEqual(500, status)
        self.assertIn("cannot be stored", text)
        self.assertEqual([], self.records())
        self.assertEqual(200, self.reply(self.client.send(b"put test 0 5 0 -1 7\r\nplain"))[0])
        self.assertOk(self.step(LOCAL, "ROLLBACK"))
        self.assertEqual([b"plain"], self.messages())
