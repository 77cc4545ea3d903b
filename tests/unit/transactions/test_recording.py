"""Records that are held until the outcome of their transaction, and those of long ones."""

from __future__ import annotations

import errno

from metamorphosis.transactions import recording
from metamorphosis.transactions.records import Append, read_records
from metamorphosis.transactions.transaction import EMPTY, OVERHEAD
from tests.unit.transactions.test_recovery import RecoveryTestCase
from tests.unit.transactions.test_redolog import BreakingDisk
from tests.unit.transactions.test_steps import LOCAL, LOCAL2, XA, XA2


class HeldTests(RecoveryTestCase):
    """What a small transaction writes, and when."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = BreakingDisk()
        self.restart(journal_disk=self.disk)

    def bodies(self) -> list[bytes]:
        """Of the messages in the journal."""
        return [
            bytes(placed.record.put_command).partition(b"\r\n")[2]
            for placed in read_records(self.broker.redo())
            if isinstance(placed.record, Append)
        ]

    def test_one_write(self) -> None:
        """Nothing before the outcome; then the records, in the order of the puts, and it."""
        for key, kind, outcome in (
            (LOCAL, "COMMIT_ONE_PHASE", "LOCAL_COMMIT"),
            (XA, "PREPARE", "XA_PREPARE"),
            (XA2, "COMMIT_ONE_PHASE", "XA_COMMIT"),
        ):
            before, writes = self.records(), self.broker.journal.writes
            self.fill(key, b"one", b"two")
            self.put(key, b"three", partition=1)
            self.assertEqual((before, writes), (self.records(), self.broker.journal.writes))
            (transaction,) = (each for each in self.broker.transactions.open if each.key == key)
            self.assertIsNone(transaction.file)
            self.assertEqual(200, self.step(key, kind)[0])
            self.assertEqual([*before, *["APPEND"] * 3, outcome], self.records())
            self.assertEqual([b"one", b"two", b"three"], self.bodies()[-3:])
            self.assertEqual(writes + 1, self.broker.journal.writes)
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"one", b"two"] * 3, self.messages())

    def test_nothing_is_left_of_what_has_no_outcome(self) -> None:
        """Rolled back, timed out, or its connection gone: no record, no file that is kept."""
        self.disk.failing["write"] = 1 << 30
        self.fill(LOCAL, b"one")
        self.assertOk(self.step(LOCAL, "ROLLBACK"))
        self.fill(XA, b"one")
        self.assertOk(self.step(XA, "ROLLBACK"))
        self.step(XA2, "BEGIN", 2)
        self.put(XA2)
        self.broker.clock.advance(4)
        self.fill(LOCAL2, b"one")
        self.client.connection.connectionLost()
        transactions = self.broker.transactions
        self.assertEqual(([], 0), (list(transactions.open), transactions.open.bytes))
        self.assertEqual(([], 0), (self.records(), self.broker.journal.files[0].references))

    def test_long_one(self) -> None:
        """One that grows too large writes what it has, then each record at its put."""
        size = EMPTY + 3 * (OVERHEAD + 100)
        self.hold(size)
        self.step(XA, "BEGIN")
        written: list[bytes] = []
        for number in range(8):
            body = b"%d" % number
            self.assertEqual(200, self.put(XA, body)[0])
            (transaction,) = self.broker.transactions.open
            if transaction.bytes > size:
                written = [b"%d" % each for each in range(number + 1)]
            self.assertEqual(written, self.bodies())
            self.assertEqual(0 if written else number + 1, transaction.held)
        self.assertEqual(8, len(written))
        self.assertOk(self.step(XA, "PREPARE"), "0")
        self.restart()
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual([b"%d" % number for number in range(8)], self.messages())

    def test_of_many_puts_in_one_piece(self) -> None:
        """Of any number of puts in one chunk."""
        one = f"put test 0 1024 0 -1 {LOCAL} 7\r\n".encode() + b"x" * 1024
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        for _ in range(3):
            self.assertEqual(30, self.client.send(one * 30).count(b"result 200 "))
        self.assertGreater(self.broker.transactions.open.bytes, recording.HELD_BYTES)
        self.assertEqual(91, len(self.records()))
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual(91, len(self.messages()))

    def test_full_when_it_becomes_long(self) -> None:
        """The put that made it so is refused; those before it were answered and are held again."""
        self.disk.error = errno.ENOSPC
        self.fill(LOCAL, b"one", b"two")
        before = self.broker.transactions.open.bytes
        self.hold()
        for shortest in (0, 7, 100):
            self.disk.failing["write"], self.disk.shortest = 1, shortest
            self.assertEqual(500, self.put(LOCAL, b"refused", partition=1)[0])
            (transaction,) = self.broker.transactions.open
            self.assertEqual(
                (2, 2, before, before),
                (
                    transaction.held,
                    len(transaction.records),
                    transaction.bytes,
                    self.broker.transactions.open.bytes,
                ),
            )
            self.assertEqual([], self.records())
        self.assertEqual(200, self.put(LOCAL, b"three")[0])
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual(
            ([b"one", b"two", b"three"], []), (self.messages(), self.messages("test", 1))
        )
        self.assertEqual(["APPEND"] * 3 + ["LOCAL_COMMIT"], self.records())

    def test_puts_and_outcome_in_one_write_that_fails(self) -> None:
        """Of the same turn: puts that were not answered are refused, the others held again."""
        self.fill(XA, b"one")
        self.hold()
        put = f"put test 0 3 0 -1 {XA} 7\r\ntwo".encode()
        for kind in ("PREPARE", "COMMIT_ONE_PHASE", "ROLLBACK"):
            self.disk.failing["write"] = 1
            step = f"transaction {XA} s {kind} 8\r\n".encode()
            self.assertEqual(3, self.client.send(put + put + step).count(b"result 500 "))
            (transaction,) = self.broker.transactions.open
            self.assertEqual((1, 1), (transaction.held, len(transaction.records)))
        self.assertOk(self.step(XA, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"one"], self.messages())

    def test_outcome_fails_while_the_prepare_is_forced(self) -> None:
        """What the prepare has written is not written again by the second commit."""
        self.fill(XA, b"one")
        self.broker.threads.hold()
        self.client.send(f"transaction {XA} s PREPARE 7\r\n".encode())
        self.disk.failing["write"] = 1
        self.client.send(f"transaction {XA} s COMMIT_TWO_PHASE 7\r\n".encode())
        self.broker.threads.release()
        self.broker.clock.advance(0)
        self.assertEqual(1, self.client.received().count(b"result 500 "))
        self.assertEqual([XA], self.recovered())
        self.assertOk(self.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual(["APPEND", "XA_PREPARE", "XA_COMMIT"], self.records())
        self.restart()
        self.assertEqual([b"one"], self.messages())

    def test_killed(self) -> None:
        """With what is held goes the transaction; its key can be used again."""
        for key in (LOCAL, XA):
            self.fill(key, b"lost")
        self.restart()
        self.assertEqual(([], []), (self.recovered(), self.messages()))
        for key in (LOCAL, XA):
            self.fill(key, b"new")
            self.assertOk(self.step(key, "COMMIT_ONE_PHASE"))
        self.restart()
        self.assertEqual([b"new"] * 2, self.messages())

    def test_broken_journal(self) -> None:
        """Takes no put, although none would be written."""
        self.step(LOCAL, "BEGIN")
        self.broker.journal._forces.broken = OSError("I/O")
        status, text = self.put(LOCAL)
        self.assertEqual((500, True), (status, "cannot be journaled" in text))
