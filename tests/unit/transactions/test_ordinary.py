"""Records that are read without decoding each field are read as all others are."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.transactions import replay
from metamorphosis.transactions.locations import Location, encode_locations
from metamorphosis.transactions.ordinary import read_commit, read_run
from metamorphosis.transactions.records import (
    Operation,
    OperationType,
    encode_append,
    encode_operation,
    put_head,
    read_record,
)
from metamorphosis.transactions.replay import CommitFound, Damage, Replay
from tests.unit.transactions.test_replay import JOURNALS, LOCAL, ONE, append, commit, prepare

Seen = tuple[list[CommitFound | Damage], dict[str, object], dict[str, object]]

IDS = (1, 127, 128, 1 << 40, 340176532393689088, (1 << 63) - 1, -1, -5468926174358929408)


def put(message_id: int, key: str, body: str, checksum: int = -1, opaque: int = 7) -> bytes:
    """A put as a client sends it."""
    head = f"put test 3 {len(body)} 0 {checksum} {key} {opaque}\r\n"
    return encode_append(message_id, f"{head}{body}".encode())


class OrdinaryTests(SynchronousTestCase):
    """Against the decoder of ``records``."""

    def seen(self, data: bytes) -> Seen:
        """What the replay of a file says."""
        whole = Replay()
        found = list(whole.follow(1, data))
        tables = []
        for table in (whole.in_flight, whole.prepared):
            tables.append({key: (each.appends, each.targets) for key, each in table.items()})
        return found, tables[0], tables[1]

    def assertSame(self, data: bytes) -> None:
        """With the fast ways as without them."""
        fast = self.seen(data)
        patches = [
            self.patch(replay, "read_run", lambda data, position: None),
            self.patch(replay, "read_commit", lambda data, position: None),
        ]
        self.assertEqual(self.seen(data), fast)
        for each in patches:
            each.restore()

    def test_runs(self) -> None:
        """Messages of one transaction, partition and size, whatever their ids."""
        for message_id in IDS:
            for other in IDS:
                one = put(message_id, LOCAL, "hello", 123456789, 41)
                two = put(other, LOCAL, "world", 987654321, 42)
                run = read_run(b"xx" + one + two, 2)
                assert run is not None
                count = 2 if len(one) == len(two) else 1
                self.assertEqual(put_head(b"put test 3 0 0 TX:s:1 1\r\n"), run.head)
                spans = [(2, 2 + len(one)), (2 + len(one), 2 + len(one) + len(two))]
                self.assertEqual(spans[:count], run.spans)

    def test_ends_of_runs(self) -> None:
        """Another key, partition or size, a record that is cut, none."""
        first = put(1 << 40, LOCAL, "hello")
        for other in (
            put(1 << 40, "TX:s:2", "hello"),
            put(1 << 40, LOCAL, "longer"),
            put(1 << 40, LOCAL, "hell", opaque=17),
            first.replace(b"test 3", b"test 4"),
            first[:-1],
            commit(LOCAL),
            b"",
        ):
            run = read_run(first + other, 0)
            assert run is not None
            self.assertEqual([(0, len(first))], run.spans)
            self.assertSame(first + other)
        for wrong in (first[:-1], first[1:], b"", prepare(ONE), append(LOCAL)[:10]):
            self.assertIsNone(read_run(wrong, 0))

    def test_commits(self) -> None:
        """Of every length of key and locations."""
        for key in (LOCAL, "TX:" + "s" * 90 + ":1", "XID:1:aa:bb:" + "q" * 300):
            for count in (0, 1, 4, 5, 700):
                kind = OperationType.XA_COMMIT if key[0] == "X" else OperationType.LOCAL_COMMIT
                for prepared in (False, True):
                    places = [Location(f"t-{n}", n, 21, n) for n in range(count)]
                    attachment = encode_locations(places)
                    record = encode_operation(Operation(kind, key, prepared), attachment)
                    data = b"xyz" + record + b"more"
                    found = read_commit(data, 3)
                    self.assertEqual(read_record(memoryview(data), 3), found)
                    self.assertIsNone(read_commit(data[: 2 + len(record)], 3))

    def test_any_damage(self) -> None:
        """Each byte changed, and the file cut there: both ways find the same damage."""
        data = b"".join(
            (
                put(IDS[4], LOCAL, "hello", 12),
                put(IDS[4] + 1, LOCAL, "world", 13),
                put(IDS[7], ONE, "x"),
                prepare(ONE),
                commit(LOCAL),
                commit(ONE, True),
            )
        )
        seeded = random.Random(1)
        for at in range(len(data)):
            for value in {
                0,
                1,
                0x7F,
                0x80,
                0xFF,
                data[at] ^ 1,
                data[at] ^ 0x80,
                seeded.randrange(256),
            }:
                self.assertSame(data[:at] + bytes((value,)) + data[at + 1 :])
            self.assertSame(data[:at])

    def test_recorded(self) -> None:
        """Journals that the original has written are mostly in ordinary form."""
        runs = 0
        for path in JOURNALS.iterdir():
            data = path.read_bytes()
            self.assertSame(data)
            runs += read_run(data, 0) is not None
        self.assertGreater(runs, 2)
