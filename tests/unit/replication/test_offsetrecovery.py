"""Positions of groups are looked up by message ids, rows R52 to R54."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import RegistryUnavailable, SegmentsInvalid
from metamorphosis.message import encode_record
from metamorphosis.replication import idsearch
from metamorphosis.replication.idsearch import Basis, Place, Position, search
from metamorphosis.replication.offsetrecovery import LocalLog, OffsetRecovery, Recovered
from metamorphosis.store.layout import SegmentFile, segment_name
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree

SIZE = 30
"""Of each record here."""


def record(message_id: int, size: int = SIZE) -> bytes:
    """A record of that size."""
    return encode_record(message_id, 0, bytes(size - 20))


def write(directory: str, start: int, *segments: list[int]) -> str:
    """A log whose segments hold messages with these ids."""
    os.makedirs(directory)
    for ids in segments:
        data = b"".join(map(record, ids))
        with open(os.path.join(directory, segment_name(start)), "wb") as file:
            file.write(data)
        start += len(data)
    return directory


class SearchCase(SynchronousTestCase):
    """One position in one log."""

    def place(
        self, position: tuple[int, int], *segments: list[int], start: int = 0
    ) -> Place | None:
        """Where it is, None: it stays as it is."""
        directory = write(self.mktemp(), start, *segments)
        return search(directory, [Position(*position)]).get(Position(*position))

    def expect(self, basis: Basis, message_id: int, offset: int, found: Place | None) -> None:
        """The place is that."""
        self.assertEqual(Place(Position(message_id, offset), basis), found)


class SearchTests(SearchCase):
    """The rule of section 6."""

    def test_same_id(self) -> None:
        """The end of the message with that id, whatever its sign, wherever it stands."""
        log = [-50, -40], [-30, -20], [-10, -5]
        for index, message_id in enumerate(each for ids in log for each in ids):
            end = (index + 1) * SIZE
            self.assertIsNone(self.place((message_id, end), *log))
            self.expect(Basis.SAME_ID, message_id, end, self.place((message_id, end + 7), *log))
            self.expect(Basis.SAME_ID, message_id, end, self.place((message_id, 4000), *log))
        self.expect(Basis.SAME_ID, 8, 1060, self.place((8, 5), [7, 8, 9], start=1000))

    def test_mixed_ids(self) -> None:
        """Equal ids need no order."""
        self.expect(Basis.SAME_ID, 5, 90, self.place((5, 0), [9, -3, 5], [5000, 1]))

    def test_repeated_id(self) -> None:
        """The offset that is stored is as good as another message of that id; else the last one."""
        self.assertIsNone(self.place((5, 30), [5, 6, 5, 7]))
        self.expect(Basis.SAME_ID, 5, 90, self.place((5, 31), [5, 6, 5, 7]))

    def test_smaller_id(self) -> None:
        """Only where ids ascend and all have one sign."""
        for ids in ([10, 20], [30, 40]), ([10], [20, 30, 40]):
            self.expect(Basis.SMALLER_ID, 20, 60, self.place((25, 4000), *ids))
            self.expect(Basis.SMALLER_ID, 40, 120, self.place((99, 4000), *ids))
        self.expect(Basis.SMALLER_ID, -20, 60, self.place((-15, 100), [-30, -20, -10]))

    def test_ids_without_order(self) -> None:
        """Then the nearest end of a message at the old offset or below."""
        for ids in (
            [[10, 30, 20]],
            [[10, 20], [20, 40]],
            [[30, 40], [10, 20]],
            [[-10, 20, 30]],
            [[-10, -5], [20, 30]],
        ):
            for offset, message in ((75, 2), (89, 2), (1000, len(sum(ids, [])))):
                ends = sum(ids, [])[message - 1], message * SIZE
                self.expect(Basis.BOUNDARY, *ends, self.place((25, offset), *ids))
            self.assertIsNone(self.place((25, 60), *ids))

    def test_other_sign(self) -> None:
        """
        An id of another sign than all others is in no order with them: the original sends the group
        to the end of the log, and it loses what stands before.
        """
        self.assertIsNone(self.place((5, 30), [-30, -20, -10]))
        self.expect(Basis.BOUNDARY, -30, 30, self.place((5, 31), [-30, -20, -10]))

    def test_nothing_is_set_to_the_start(self) -> None:
        """Where nothing is known below the old offset it stays."""
        self.assertIsNone(self.place((5, 25), [10, 20]))
        self.assertIsNone(self.place((5, 500)))
        self.assertIsNone(self.place((5, 900), [10, 20], start=1000))
        self.assertIsNone(self.place((5, 1000), [10, 20], start=1000))

    def test_old_clients(self) -> None:
        """Without an id there is nothing to look for."""
        self.assertIsNone(self.place((-1, 4000), [10, -1, 20]))

    def test_torn_tail(self) -> None:
        """It is not a message; the log ends before it, and the ids count as ascending."""
        directory = write(self.mktemp(), 0, [10, 20])
        with open(os.path.join(directory, segment_name(0)), "ab") as file:
            file.write(record(30)[:-1])
        positions = [Position(25, 85), Position(-7, 85), Position(30, 90)]
        found = search(directory, positions)
        self.expect(Basis.SMALLER_ID, 20, 60, found[positions[0]])
        self.expect(Basis.BOUNDARY, 20, 60, found[positions[1]])
        self.expect(Basis.SMALLER_ID, 20, 60, found[positions[2]])

    def test_damage(self) -> None:
        """After damage the record boundaries are unknown: the position stays; before it the search
        works."""
        for damaged in (0, 1):
            directory = write(self.mktemp(), 0, [10, 20, 30, 40], [50, 60, 70, 80])
            path = os.path.join(directory, segment_name(damaged * 4 * SIZE))
            with open(path, "r+b") as file:
                file.seek(SIZE)
                file.write(b"\xff" * 20)
            base = damaged * 4 * SIZE
            positions = [Position(5, base + 100), Position(7, base + 31), Position(8, base + 30)]
            found = search(directory, positions)
            self.assertEqual({}, found)
            self.expect(
                Basis.SAME_ID, 10, 30, search(directory, [Position(10, 5)])[Position(10, 5)]
            )

    def test_many_at_once(self) -> None:
        """Each gets its own place."""
        directory = write(self.mktemp(), 0, [10, 20], [30, 40])
        found = search(directory, [Position(each, 1) for each in (10, 20, 30, 40, 45)])
        self.assertEqual(
            [30, 60, 90, 120, 120], [found[each].position.offset for each in sorted(found)]
        )

    def test_pieces(self) -> None:
        """A segment is read in pieces, and records may be longer than one."""
        self.patch(idsearch, "PIECE_BYTES", 64)
        directory = self.mktemp()
        os.makedirs(directory)
        sizes = [30, 20, 64, 65, 500, 21, 63, 128, 30]
        with open(os.path.join(directory, segment_name(0)), "wb") as file:
            file.write(b"".join(record(n + 1, size) for n, size in enumerate(sizes)))
        for index in range(len(sizes)):
            position = Position(index + 1, 7)
            self.assertEqual(
                sum(sizes[: index + 1]), search(directory, [position])[position].position.offset
            )

    def test_only_as_far_back_as_needed(self) -> None:
        """Older segments are not opened when all is found."""
        directory = write(self.mktemp(), 0, [10, 20], [30, 40])
        os.chmod(os.path.join(directory, segment_name(0)), 0)
        opened: list[str] = []
        original = idsearch.record_ends

        def watched(file: SegmentFile) -> Iterator[tuple[int, int]]:
            opened.append(file.path)
            return original(file)

        self.patch(idsearch, "record_ends", watched)
        search(directory, [Position(30, 5), Position(40, 5)])
        self.assertEqual([segment_name(60)], [os.path.basename(path) for path in opened])

    def test_directory_that_is_none(self) -> None:
        """The error names the file."""
        directory = write(self.mktemp(), 0, [1])
        write(self.mktemp(), 0)
        with open(os.path.join(directory, "00000000000000000777.meta"), "wb"):
            pass
        self.assertRaises(SegmentsInvalid, search, directory, [Position(1, 1)])


class Unwilling(MemoryRegistry):
    """Fails some calls."""

    failing: tuple[str, str] = "", ""

    def children(self, path: str, watch: Any = None) -> Deferred[list[str]]:
        """See ``IRegistry``."""
        return self._fail("children", path) or super().children(path, watch)

    def get(self, path: str, watch: Any = None) -> Deferred[Any]:
        """See ``IRegistry``."""
        return self._fail("get", path) or super().get(path, watch)

    def set_data(self, path: str, data: bytes) -> Deferred[None]:
        """See ``IRegistry``."""
        return self._fail("set_data", path) or super().set_data(path, data)

    def _fail(self, call: str, path: str) -> Deferred[Any] | None:
        return fail(RegistryUnavailable("no answer")) if self.failing == (call, path) else None


class RecoveryTests(SynchronousTestCase):
    """Broker 0 with ``t-0`` and ``t-1``, and what stands in ZooKeeper."""

    def setUp(self) -> None:
        self.tree = MemoryTree()
        self.registry = Unwilling(self.tree)
        self.successResultOf(self.registry.start())
        self.directory = self.mktemp()
        self.logs = [
            LocalLog("t", 0, write(f"{self.directory}/t-0", 0, [-30, -20], [-10])),
            LocalLog("t", 1, write(f"{self.directory}/t-1", 0, [-31, 21, -11])),
        ]

    def store(self, group: str, partition: str, value: str, topic: str = "t") -> None:
        """A group's position."""
        path = f"/meta/consumers/{group}/offsets/{topic}/{partition}"
        self.tree.create(path, value.encode(), 0)

    def stored(self, group: str, partition: str, topic: str = "t") -> str:
        """What stands there now."""
        data = self.tree.find(f"/meta/consumers/{group}/offsets/{topic}/{partition}").data
        return (data or b"").decode()

    def recover(self, change: bool = True) -> Recovered:
        """One run."""
        recovery = OffsetRecovery(
            self.registry, Paths(), 0, self.logs, lambda search: succeed(search())
        )
        return self.successResultOf(Deferred.fromCoroutine(recovery.run(change)))

    def test_row_R52(self) -> None:
        """
        R52: offsets, those with negative ids too, point to the end of the same message in the new
        master's log.
        """
        self.store("a", "0-0", "-20-4060")
        self.store("b", "0-0", "-10-90")
        self.store("b", "0-1", "21-0")
        recovered = self.recover()
        self.assertEqual(["-20-60", "-10-90", "21-60"], self.all())
        self.assertEqual((2, 1, []), (len(recovered.changes), recovered.right, recovered.faults))
        self.assertEqual(
            "group a, t-0: -20-4060 becomes -20-60: the message with that id ends there",
            str(recovered.changes[0]),
        )

    def all(self) -> list[str]:
        """The positions of test_row_R52."""
        return [self.stored("a", "0-0"), self.stored("b", "0-0"), self.stored("b", "0-1")]

    def test_row_R53(self) -> None:
        """R53: a directory that a Java slave has left disturbs nothing, nor do its offsets."""
        write(f"{self.directory}/_metaq_slave_status_test-0", 0, [1])
        self.store("a", "0-0", "-20-4060")
        self.store("a", "0-0", "5-25", "_metaq_slave_status_test")
        self.assertEqual(1, len(self.recover().changes))
        self.assertEqual("5-25", self.stored("a", "0-0", "_metaq_slave_status_test"))

    def test_row_R54(self) -> None:
        """R54: an id that is unknown: the entry stays, or goes to the end of a message, never to
        0."""
        self.store("a", "0-1", "777-60")
        self.store("b", "0-1", "777-89")
        self.store("c", "0-1", "777-10")
        self.store("d", "0-0", "-25-70")
        self.recover()
        self.assertEqual(
            ["777-60", "21-60", "777-10", "-30-30"],
            [
                self.stored(*each)
                for each in (("a", "0-1"), ("b", "0-1"), ("c", "0-1"), ("d", "0-0"))
            ],
        )

    def test_what_is_none_of_ours(self) -> None:
        """Other brokers, topics and partitions, values without ids, strange nodes."""
        for partition, value, topic in (
            ("1-0", "-20-4060", "t"),
            ("0-2", "-20-4060", "t"),
            ("0-0", "-20-4060", "u"),
            ("strange", "-20-4060", "t"),
        ):
            self.store("a", partition, value, topic)
        self.store("b", "0-0", "-1-4060")
        self.store("c", "0-0", "4060")
        self.assertEqual(Recovered(), self.recover())
        self.assertEqual("4060", self.stored("c", "0-0"))

    def test_only_said(self) -> None:
        """What would be done, and nothing is."""
        self.store("a", "0-0", "-20-4060")
        self.assertEqual(1, len(self.recover(False).changes))
        self.assertEqual("-20-4060", self.stored("a", "0-0"))

    def test_no_groups(self) -> None:
        """A cluster without consumers."""
        self.assertEqual(Recovered(), self.recover())

    def test_nonsense(self) -> None:
        """A node without numbers is named, and the others are corrected."""
        self.store("a", "0-0", "what?")
        self.store("b", "0-0", "-20-4060")
        recovered = self.recover()
        self.assertIn("/meta/consumers/a/offsets/t/0-0 holds", recovered.faults[0])
        self.assertEqual("-20-60", self.stored("b", "0-0"))

    def test_faults(self) -> None:
        """Whatever fails, the run ends, and says what it could not do."""
        self.store("a", "0-0", "-20-4060")
        self.store("b", "0-0", "-20-4060")
        for call, path, fault, corrected in (
            ("children", "/meta/consumers", "the groups cannot be read", 0),
            ("children", "/meta/consumers/a/offsets", "group a cannot be read", 1),
            ("get", "/meta/consumers/a/offsets/t/0-0", "group a cannot be read", 1),
            ("set_data", "/meta/consumers/a/offsets/t/0-0", "t/0-0 cannot be corrected", 1),
        ):
            self.registry.failing = (call, path)
            recovered = self.recover()
            self.assertIn(fault, recovered.faults[0])
            self.assertEqual(corrected, len(recovered.changes))
            self.tree.find("/meta/consumers/b/offsets/t/0-0").data = b"-20-4060"

    def test_damaged_directory(self) -> None:
        """A log that cannot be read keeps its positions; the others are corrected."""
        self.store("a", "0-0", "-20-4060")
        self.store("a", "0-1", "21-4060")
        os.rename(
            f"{self.directory}/t-0/{segment_name(60)}", f"{self.directory}/t-0/{segment_name(61)}"
        )
        recovered = self.recover()
        self.assertIn("t-0 cannot be searched: ", recovered.faults[0])
        self.assertEqual(("-20-4060", "21-60"), (self.stored("a", "0-0"), self.stored("a", "0-1")))

    def test_member_commits_meanwhile(self) -> None:
        """What a running consumer has written since is newer than what was read."""
        self.store("a", "0-0", "-20-4060")
        node = self.tree.find("/meta/consumers/a/offsets/t/0-0")

        def searching(search: Any) -> Deferred[Any]:
            node.data = b"-10-90"
            return succeed(search())

        recovery = OffsetRecovery(self.registry, Paths(), 0, self.logs, searching)
        recovered = self.successResultOf(Deferred.fromCoroutine(recovery.run()))
        self.assertEqual(([], b"-10-90"), (recovered.changes, node.data))
