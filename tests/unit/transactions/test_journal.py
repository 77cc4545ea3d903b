"""
The journal of a Java broker: recorded files, and what can become of them.

``journals/`` holds redo files that the original wrote: local transactions only, an XA transaction
that is prepared, the same when it was committed, and one that is prepared beside finished ones.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import InvalidRecord, StoreError
from metamorphosis.transactions import journal
from metamorphosis.transactions.records import (
    Append,
    Operation,
    OperationType,
    encode_append,
    encode_operation,
    read_records,
)

JOURNALS = Path(__file__).parent / "journals"
PREPARED = "XID:7:67747269642d70656e64696e67:6271:XAMessageProducer-client1"


def append(key: str) -> bytes:
    """A put in a transaction."""
    return encode_append(9, f"put test 0 1 0 -1 {key} 7\r\nx".encode())


def operation(kind: OperationType, key: str, after: bytes = b"") -> bytes:
    """A step of a transaction."""
    return encode_operation(Operation(kind, key), after)


class JournalTests(SynchronousTestCase):
    """Which transactions wait for their outcome."""

    def setUp(self) -> None:
        """An empty journal."""
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def write(self, data: bytes, number: int = 1) -> None:
        """A redo file."""
        Path(self.directory, f"redo.{number}").write_bytes(data)

    def prepared(self) -> list[str]:
        """What the journal says."""
        return journal.prepared_transactions(self.directory)

    def test_recorded_journals(self) -> None:
        """What the original wrote; a prepared transaction is found, a finished one is not."""
        for name, wanted in (
            ("local-finished", []),
            ("xa-prepared", [PREPARED]),
            ("xa-committed", []),
            ("one-prepared-of-many", [PREPARED]),
        ):
            self.write((JOURNALS / name).read_bytes())
            self.assertEqual(self.prepared(), wanted, name)

    def test_every_record_of_a_recorded_journal_is_read(self) -> None:
        """The last record ends with the file, so that none was misread on the way."""
        for path in JOURNALS.iterdir():
            data = path.read_bytes()
            self.assertEqual([*read_records(data)][-1].end, len(data), path)

    def test_no_journal(self) -> None:
        """No directory, an empty one, empty files and those of other names."""
        self.assertEqual(journal.prepared_transactions(os.path.join(self.directory, "no")), [])
        self.assertEqual(self.prepared(), [])
        self.write(b"")
        Path(self.directory, "checkpoint.1").write_bytes(b"{")
        Path(self.directory, "heuristic.log").write_bytes(b"\0")
        Path(self.directory, "redo.1.bak").write_bytes(b"\0" * 9)
        self.assertEqual(self.prepared(), [])

    def test_several_files(self) -> None:
        """Files count in the order of their numbers, an outcome may stand in a later one."""
        prepare = OperationType.XA_PREPARE
        self.write(operation(prepare, "XID:1:00:00:u") + operation(prepare, "XID:2:00:00:u"), 9)
        self.write(operation(OperationType.XA_COMMIT, "XID:1:00:00:u", b"12345678"), 10)
        self.assertEqual(self.prepared(), ["XID:2:00:00:u"])

    def test_put_into_a_prepared_transaction(self) -> None:
        """Its rollback leaves the prepared one; the next rollback ends that."""
        key = "XID:1:00:00:u"
        steps = append(key) + operation(OperationType.XA_PREPARE, key) + append(key)
        rollback = operation(OperationType.XA_ROLLBACK, key)
        self.write(steps + rollback)
        self.assertEqual(self.prepared(), [key])
        self.write(steps + rollback + rollback)
        self.assertEqual(self.prepared(), [])

    def test_cut_files(self) -> None:
        """Wherever the file ends, its whole records count."""
        data = (JOURNALS / "one-prepared-of-many").read_bytes()
        records = list(read_records(data))
        for cut in range(len(data)):
            prepared: list[str] = []
            for _, record, end in records:
                if end > cut or isinstance(record, Append):
                    continue
                if record.type is OperationType.XA_PREPARE:
                    prepared.append(record.key)
                elif record.key in prepared:
                    prepared.remove(record.key)
            self.write(data[:cut])
            self.assertEqual(self.prepared(), prepared)

    def test_damaged_files(self) -> None:
        """Whatever stands in a file, reading ends, and what stands before the damage counts."""
        data = (JOURNALS / "xa-prepared").read_bytes()
        chance = random.Random(6)
        for _ in range(1000):
            damaged = chance.randbytes(chance.randrange(200))
            self.write(data + damaged)
            self.assertEqual(self.prepared()[:1], [PREPARED])
            at = chance.randrange(len(data))
            self.write(data[:at] + damaged + data[at + len(damaged) :])
            self.prepared()

    def test_damage_is_logged(self) -> None:
        """With file and position."""
        lines: list[str] = []

        def observe(event: dict[str, object]) -> None:
            if event["log_level"] is LogLevel.warn:
                lines.append(str(event["log_format"]).format_map(event))

        globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        data = (JOURNALS / "xa-prepared").read_bytes()
        self.write(data + b"\0\0")
        self.prepared()
        self.assertEqual(len(lines), 1)
        self.assertIn(f"{self.directory}/redo.1", lines[0])
        self.assertIn(f"position {len(data)}", lines[0])
        with self.assertRaises(InvalidRecord):
            list(read_records(b"\0"))

    def test_file_cannot_be_read(self) -> None:
        """Then nobody knows, and that is an error with the file's name."""
        os.mkdir(os.path.join(self.directory, "redo.1"))
        error = self.assertRaises(StoreError, self.prepared)
        self.assertIn("redo.1", str(error))

    def test_refusal_is_short(self) -> None:
        """It counts all and names a few."""
        data = b"".join(operation(OperationType.XA_PREPARE, f"XID:{n}:00:00:u") for n in range(90))
        self.write(data)
        error = self.assertRaises(StoreError, journal.refuse_prepared, self.directory)
        self.assertIn("(90: XID:0:00:00:u, ", str(error))
        self.assertLess(len(str(error)), 700)
