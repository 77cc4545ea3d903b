"""The contents of redo files: prepared and open transactions, and commits to check."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.transactions.checkpoint import JournalLocation
from metamorphosis.transactions.locations import Location, encode_locations
from metamorphosis.transactions.records import (
    Append,
    Operation,
    OperationType,
    encode_append,
    encode_operation,
    read_records,
)
from metamorphosis.transactions.replay import CommitFound, Damage, Replay

JOURNALS = Path(__file__).parent / "journals"
PREPARED = "XID:7:67747269642d70656e64696e67:6271:XAMessageProducer-client1"
LOCATION = Location("t-0", 7, 21, 1)
LOCAL, ONE, TWO = "TX:s:1", "XID:1:01:01:q", "XID:2:02:02:q"


def append(key: str, body: str = "x", topic: str = "t", partition: int = 0) -> bytes:
    """A put in a transaction."""
    head = f"put {topic} {partition} {len(body)} 0 -1 {key} 7\r\n"
    return encode_append(9, f"{head}{body}".encode())


def prepare(key: str) -> bytes:
    """The first phase."""
    return encode_operation(Operation(OperationType.XA_PREPARE, key))


def commit(key: str, prepared: bool = False) -> bytes:
    """The end, with one location."""
    kind = OperationType.LOCAL_COMMIT if key == LOCAL else OperationType.XA_COMMIT
    return encode_operation(Operation(kind, key, prepared), encode_locations([LOCATION]))


def roll_back(key: str) -> bytes:
    """The other end."""
    kind = OperationType.LOCAL_ROLLBACK if key == LOCAL else OperationType.XA_ROLLBACK
    return encode_operation(Operation(kind, key))


class ReplayTestCase(SynchronousTestCase):
    """Files given as lists of records."""

    def setUp(self) -> None:
        self.replay = Replay()

    def follow(self, *records: bytes, number: int = 1) -> list[CommitFound | Damage]:
        """One file."""
        return list(self.replay.follow(number, b"".join(records)))

    def assertStand(self, in_flight: list[str], prepared: list[str]) -> None:
        """These are open, in this order."""
        self.assertEqual(in_flight, list(self.replay.in_flight))
        self.assertEqual(prepared, list(self.replay.prepared))


class OutcomeTests(ReplayTestCase):
    """What becomes of a transaction."""

    def test_in_flight(self) -> None:
        """T32, T33: put and nothing else."""
        self.assertEqual([], self.follow(append(LOCAL), append(ONE)))
        self.assertStand([LOCAL, ONE], [])

    def test_prepared(self) -> None:
        """T34, T35: in the order of the prepares, with its messages."""
        self.follow(append(ONE), append(TWO), append(ONE, "more"), prepare(TWO), prepare(ONE))
        self.assertStand([], [TWO, ONE])
        self.assertEqual(2, len(self.replay.prepared[ONE].appends))

    def test_committed(self) -> None:
        """A commit has its messages and its locations, and where these stand."""
        records = [append(LOCAL), append(ONE), append(LOCAL, "more"), commit(LOCAL)]
        found = self.follow(*records)
        whole = b"".join(records)
        third = len(records[0]) + len(records[1])
        self.assertEqual(
            [
                CommitFound(
                    LOCAL,
                    1,
                    [(0, len(records[0])), (third, third + len(records[2]))],
                    [LOCATION],
                    len(whole) - len(encode_locations([LOCATION])),
                    [],
                    False,
                )
            ],
            found,
        )
        self.assertStand([ONE], [])

    def test_places_that_lack(self) -> None:
        """Partitions of the messages that the commit does not name."""
        records = [append(LOCAL, partition=n, topic=t) for t in ("t", "u") for n in (0, 0, 2)]
        (found,) = self.follow(*records, append(ONE, topic="other"), commit(LOCAL))
        assert isinstance(found, CommitFound)
        self.assertEqual(["t-2", "u-0", "u-2"], found.lacking)

    def test_copy(self) -> None:
        """Following a file changes no copy that was made before it."""
        self.follow(append(LOCAL), append(ONE), prepare(ONE), append(TWO))
        copy = self.replay.copy()
        self.follow(append(LOCAL), commit(ONE), append(TWO), prepare(TWO), number=2)
        self.replay = copy
        self.assertStand([LOCAL, TWO], [ONE])
        self.assertEqual([1, 1], [len(each.appends) for each in copy.in_flight.values()])

    def test_commit_of_prepared(self) -> None:
        """In one phase as well as in two."""
        self.assertEqual(1, len(self.follow(append(ONE), prepare(ONE), commit(ONE, True))))
        self.assertEqual(1, len(self.follow(append(TWO), prepare(TWO), commit(TWO), number=2)))
        self.assertStand([], [])

    def test_rolled_back(self) -> None:
        """In every state."""
        self.assertEqual(
            [],
            self.follow(
                append(LOCAL),
                roll_back(LOCAL),
                append(ONE),
                roll_back(ONE),
                append(TWO),
                prepare(TWO),
                roll_back(TWO),
            ),
        )
        self.assertStand([], [])

    def test_unknown(self) -> None:
        """Steps of unknown transactions are passed, the locations of a commit too."""
        self.assertEqual(
            [], self.follow(commit(ONE, True), roll_back(TWO), prepare(ONE), append(LOCAL))
        )
        self.assertStand([LOCAL], [])

    def test_put_after_prepare(self) -> None:
        """The original keeps it apart: a rollback closes that, the next one the prepared rest."""
        records = [append(ONE), prepare(ONE), append(ONE, "lost")]
        self.follow(*records)
        self.assertStand([ONE], [ONE])
        self.assertEqual(1, len(self.replay.prepared[ONE].appends))
        self.replay = Replay()
        self.follow(*records, roll_back(ONE))
        self.assertStand([], [ONE])
        self.replay = Replay()
        found = self.follow(*records, commit(ONE, True))
        self.assertEqual(1, len(found))
        self.assertStand([ONE], [])


class FilesTests(ReplayTestCase):
    """Several files, and checkpoints."""

    def test_checkpoint(self) -> None:
        """T44, T53: commits before it are not checked; transactions open before it are open."""
        records = [
            append(ONE),
            append(TWO),
            commit(ONE),
            append(LOCAL),
            commit(LOCAL),
            prepare(TWO),
        ]
        place = len(b"".join(records[:3]))
        self.replay = Replay(JournalLocation(1, place))
        found = self.follow(*records)
        self.assertEqual([LOCAL], [each.key for each in found if isinstance(each, CommitFound)])
        self.assertStand([], [TWO])
        self.replay = Replay(JournalLocation(3, 0))
        self.follow(append(ONE), prepare(ONE), number=2)
        self.assertStand([], [ONE])

    def test_later_file_wins(self) -> None:
        """T47: a crash during compaction leaves a transaction in two files."""
        self.follow(append(ONE), append(TWO), prepare(ONE), append(LOCAL))
        self.follow(append(ONE), prepare(ONE), append(TWO), number=2)
        self.assertStand([LOCAL, TWO], [ONE])
        for transaction in (self.replay.prepared[ONE], self.replay.in_flight[TWO]):
            self.assertEqual((2, 1), (transaction.number, len(transaction.appends)))

    def test_outcome_in_the_later_file(self) -> None:
        """Belongs to what was copied there."""
        self.follow(append(ONE), prepare(ONE))
        found = self.follow(append(ONE), prepare(ONE), commit(ONE, True), number=2)
        self.assertEqual(1, len(found))
        self.assertStand([], [])


class DamageTests(ReplayTestCase):
    """Files that do not end with a record."""

    def test_every_cut(self) -> None:
        """T40: what stands before the last whole record counts, and the rest is named."""
        data = (JOURNALS / "one-prepared-of-many").read_bytes()
        ends = [0, *(placed.end for placed in read_records(data))]
        for cut in range(len(data)):
            whole = max(end for end in ends if end <= cut)
            found = [each for each in Replay().follow(1, data[:cut]) if isinstance(each, Damage)]
            if cut == whole:
                self.assertEqual([], found)
            else:
                self.assertEqual((whole, cut - whole), found[0][:2])

    def test_garbage(self) -> None:
        """T41: zeros and negative lengths end the file there."""
        for garbage in (b"\0\0", b"\0" * 100, b"\xff\xff\xff\xf0" + b"x" * 50):
            replay = Replay()
            found = list(replay.follow(1, append(ONE) + garbage))
            self.assertEqual(len(append(ONE)), found[0][0])
            self.assertEqual([ONE], list(replay.in_flight))

    def test_record_without_key(self) -> None:
        """A put without a transaction is not a record."""
        broken = encode_append(1, b"put")
        found = self.follow(append(ONE), broken, append(TWO))
        self.assertEqual((len(append(ONE)), len(broken + append(TWO))), found[0][:2])
        self.assertStand([ONE], [])

    def test_recorded(self) -> None:
        """The files of the original are whole, and their appends are found again."""
        for path in JOURNALS.iterdir():
            data = path.read_bytes()
            replay = Replay()
            found = list(replay.follow(1, data))
            self.assertEqual([], [each for each in found if isinstance(each, Damage)])
            for each in found:
                assert isinstance(each, CommitFound)
                for start, end in each.appends:
                    (placed,) = read_records(data[start:end])
                    self.assertIsInstance(placed.record, Append)
