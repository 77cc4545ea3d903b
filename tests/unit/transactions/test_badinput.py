"""Invalid keys, sizes, races and files, one by one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from twisted.logger import LogLevel

from metamorphosis.errors import JournalError
from metamorphosis.store.disk import Disk
from metamorphosis.transactions.heuristiclog import Heuristic, encode_heuristic_log
from metamorphosis.wire.transactionids import XATransactionId
from tests.support.transactional import TransactionalBroker
from tests.unit.transactions.test_recovery import RecoveryTestCase
from tests.unit.transactions.test_replay import append, prepare
from tests.unit.transactions.test_steps import LOCAL, XA, StepsTestCase


class KeyTests(StepsTestCase):
    """Keys of transactions."""

    def test_malformed(self) -> None:
        """Close their connection and nothing else, in a step and in a put."""
        for key in (
            "TX:",
            "TX:a",
            "TX:a:",
            "TX:a:b:1",
            "TX:a:2147483648",
            "TX:a:x",
            "XID:1:aa:bb",
            "XID:x:aa:bb:q",
            "XID:2147483648:aa:bb:q",
            "XID:1:zz:bb:q",
            "XID:1:aa:bb:q:r",
            "xid:1:aa:bb:q",
            ":",
        ):
            for request in (
                f"transaction {key} s BEGIN 7\r\n",
                f"put test 0 5 0 -1 {key} 7\r\nhello",
            ):
                client = self.broker.client()
                self.assertEqual(b"", client.send(request.encode()), request)
                self.assertTrue(client.closed, request)
        self.assertOk(self.step(LOCAL, "BEGIN"))
        self.assertEqual([], list(self.broker.transactions.open.xa))

    def test_huge(self) -> None:
        """A key of 64 KiB is too long for a request line, or works like any other."""
        for key in (f"XID:1:{'ab' * 32768}:bb:q", f"TX:{'s' * 65536}:1"):
            client = self.broker.client()
            reply = client.send(f"transaction {key} s BEGIN 7\r\n".encode())
            self.assertTrue(client.closed or reply.startswith(b"result 200"), reply[:80])
        self.assertOk(self.step(LOCAL, "BEGIN"))

    def test_long(self) -> None:
        """A key of 2 KiB goes through journal and recovery."""
        key = f"XID:1:{'ab' * 512}:{'cd' * 512}:{'q' * 64}"
        self.assertOk(self.step(key, "BEGIN"))
        self.assertEqual(200, self.put(key)[0])
        self.assertOk(self.step(key, "PREPARE"), "0")
        again = TransactionalBroker(self.broker.config.data_path)
        self.assertEqual([key], again.transactions.recover(None))


class SizeTests(StepsTestCase):
    """Memory is bounded."""

    settings = {"max_bytes": 3 << 20}

    def test_million_puts(self) -> None:
        """Are refused from the bound on; what was taken can still be committed."""
        self.step(LOCAL, "BEGIN")
        one = f"put test 0 5 0 -1 {LOCAL} 7\r\nhello".encode()
        granted = refused = 0
        while refused < 1000:
            replies = self.client.send(one * 1000)
            granted += replies.count(b"result 200")
            refused += replies.count(b"result 500")
            self.assertLess(granted, 100_000)
        self.assertIn("max-transaction-bytes", self.put(LOCAL)[1])
        self.assertLessEqual(self.broker.transactions.open.bytes, 3 << 20)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual(0, self.broker.transactions.open.bytes)
        self.assertEqual([b"hello"] * granted, self.messages())

    def test_big_put(self) -> None:
        """One beyond the bound is refused, in words or with its connection."""
        self.step(XA, "BEGIN")
        client = self.broker.client()
        body = bytes(64 << 20)
        head = f"put test 0 {len(body)} 0 -1 {XA} 7\r\n".encode()
        reply = client.send(head)
        if not client.closed and not reply:
            for start in range(0, len(body), 1 << 20):
                reply += client.send(body[start : start + (1 << 20)])
        self.assertTrue(client.closed or b"result 500" in reply, reply[:80])
        self.assertEqual(200, self.put(XA)[0])
        self.assertOk(self.step(XA, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"hello"], self.messages())

    def test_begin_only(self) -> None:
        """Transactions without a message are bounded as well."""
        refused = 0
        for number in range(10_000):
            refused += self.step(f"XID:{number}:aa:bb:q", "BEGIN")[0] == 500
        self.assertGreater(refused, 5000)
        self.assertLessEqual(self.broker.transactions.open.bytes, 3 << 20)


class TimeoutTests(StepsTestCase):
    """30,001 of them."""

    settings = {"max_bytes": 1 << 28}

    def test_capacity(self) -> None:
        """The last is refused and leaves nothing behind; when one ends there is room again."""
        for start in range(0, 30_000, 1000):
            steps = (f"transaction TX:s:{n} s BEGIN 50 7\r\n" for n in range(start, start + 1000))
            replies = self.client.send("".join(steps).encode())
            self.assertEqual(1000, replies.count(b"result 200"))
        text = "Timer size 30000 is great than maxTimerCapacity 30000"
        self.assertEqual((500, text), self.step("TX:s:30000", "BEGIN", 50))
        self.assertIn("not been started", self.put("TX:s:30000")[1])
        self.assertOk(self.step("TX:s:0", "ROLLBACK"))
        self.assertOk(self.step("TX:s:30000", "BEGIN", 50))
        self.broker.clock.advance(52)
        self.assertEqual([], list(self.broker.transactions.open))
        self.assertEqual(0, self.broker.transactions.open.bytes)


class RaceTests(StepsTestCase):
    """Two connections and one XA transaction."""

    def test_puts(self) -> None:
        """Of both belong to it, in the order of their arrival."""
        other = self.broker.client()
        self.step(XA, "BEGIN")
        self.assertOk(self.step(XA, "BEGIN", client=other))
        for number in range(4):
            self.put(XA, b"%d" % number, client=(self.client, other)[number % 2])
        self.assertOk(self.step(XA, "COMMIT_ONE_PHASE", client=other))
        self.assertEqual([b"0", b"1", b"2", b"3"], self.messages())

    def test_commit_and_rollback(self) -> None:
        """The first of them decides, the other finds nothing."""
        for first, second, stored in (
            ("COMMIT_TWO_PHASE", "ROLLBACK", [b"hello"]),
            ("ROLLBACK", "COMMIT_TWO_PHASE", [b"hello"]),  # what the first pair has stored
        ):
            self.step(XA, "BEGIN")
            self.put(XA)
            self.step(XA, "PREPARE")
            other = self.broker.client()
            self.broker.threads.hold()
            self.assertEqual(b"", self.client.send(f"transaction {XA} s {first} 7\r\n".encode()))
            self.assertIn("code=-4", self.step(XA, second, client=other)[1])
            self.broker.threads.release()
            self.broker.clock.advance(0)
            self.assertOk(self.reply(self.client.received()))
            self.assertEqual(stored, self.messages())


class ReadOnlyDisk(Disk):
    """A file system that is mounted read-only."""

    def open(self, path: str, writable: bool) -> int:
        """See ``Disk``."""
        if writable:
            self.refuse(path)
        return super().open(path, writable)

    def create(self, path: str) -> int:
        """See ``Disk``."""
        return self.refuse(path)

    def overwrite(self, path: str) -> int:
        """See ``Disk``."""
        return self.refuse(path)

    def refuse(self, path: str) -> int:
        """As the kernel does."""
        raise OSError(30, "Read-only file system", path)


class FileTests(RecoveryTestCase):
    """What lies in the directory at a start."""

    XID = XATransactionId(1, b"\xaa", b"\xbb", "app")

    def test_read_only(self) -> None:
        """The start fails with the name of the file or directory."""
        self.fill(XA, b"one")
        self.step(XA, "PREPARE")
        error = self.assertRaises(JournalError, self.start, journal_disk=ReadOnlyDisk())
        self.assertIn("redo.1", str(error))
        self.assertIn("Read-only", str(error))
        shutil.rmtree(self.journal)
        error = self.assertRaises(JournalError, self.start, journal_disk=ReadOnlyDisk())
        self.assertIn("redo.1 (Read-only file system)", str(error))

    def test_no_journal(self) -> None:
        """Beside partitions is made anew."""
        self.client.send(b"put test 0 5 0 -1 7\r\nplain")
        self.broker.stop()
        shutil.rmtree(self.journal)
        self.start()
        self.assertEqual([b"plain"], self.messages())
        self.fill(XA, b"one")
        self.assertOk(self.step(XA, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"plain", b"one"], self.messages())

    def test_checkpoints(self) -> None:
        """Empty, torn, of another version, not text: prepared transactions are found
        nevertheless."""
        for content in (
            b"",
            b"{",
            b'{"number":1',
            b'{"number":1,"offset":382,"version":2}',
            b'{"number":"one","offset":0}',
            b'{"number":-1,"offset":-1}',
            b"[1, 2]",
            b"null",
            b"\xff\xfe\x00",
            b"7" * 10000,
        ):
            self.broker.stop()
            shutil.rmtree(self.journal)
            self.write_redo(1, append(XA), prepare(XA))
            Path(self.journal, "checkpoint.1").write_bytes(content)
            self.start()
            self.assertEqual([XA], self.recovered(), content)

    def test_heuristic_logs(self) -> None:
        """Cut at every byte, changed at every byte: the start moves it aside, or reads it."""
        whole = encode_heuristic_log({self.XID: Heuristic.COMMITTED})
        path = Path(self.journal, "heuristic.log")
        broken = [whole[:cut] for cut in range(0, len(whole), 7)]
        broken += [whole[:at] + b"\xee" + whole[at + 1 :] for at in range(0, len(whole), 7)]
        broken += [whole[:2] + b"\0\6" + whole[4:], b"\0" * 135, whole + whole, b"<xml/>"]
        for content in broken:
            self.broker.stop()
            shutil.rmtree(self.journal)
            os.mkdir(self.journal)
            path.write_bytes(content)
            self.logs.clear()
            self.start()
            aside = Path(self.journal, "damaged-heuristic.log.1")
            if aside.exists():
                self.assertEqual(content, aside.read_bytes())
                self.assertIn("heuristic.log", self.logged(LogLevel.error)[0])
            else:
                self.assertLessEqual(len(self.recovered()), 1, content)

    def test_hole(self) -> None:
        """In the middle of a redo file: what stands before it counts, the whole is kept."""
        self.broker.stop()
        shutil.rmtree(self.journal)
        os.mkdir(self.journal)
        path = Path(self.journal, "redo.1")
        with open(path, "wb") as file:
            file.write(append(XA) + prepare(XA))
            file.seek(8 << 20, os.SEEK_CUR)
            file.write(append("XID:2:aa:bb:q") + prepare("XID:2:aa:bb:q"))
        self.start()
        self.assertEqual([XA], self.recovered())
        self.assertTrue(Path(self.journal, "damaged-redo.1.1").exists())
        self.assertIn("redo.1", self.logged(LogLevel.error)[-1])
