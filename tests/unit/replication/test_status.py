"""The figures of a role, as lines and read again."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.figures import PLAIN
from metamorphosis.replication.logs import LogEnds
from metamorphosis.replication.status import (
    PartitionFigures,
    RoleFigures,
    original_lines,
    parse_status,
    status_lines,
)

FOLLOWING = RoleFigures(
    role="asynchronous slave 0",
    state="following",
    other="meta://master:8123",
    connected=True,
    partitions=(
        PartitionFigures("t1", 0, LogEnds(0, 100), 100),
        PartitionFigures("t1", 1, LogEnds(0, 100), 350, 1.5),
        PartitionFigures("t2", 0, LogEnds(1000, 1000), None),
        PartitionFigures("t2", 1, LogEnds(0, 20), 20),
    ),
)
"""An asynchronous slave that is well."""

STANDING = replace(
    FOLLOWING,
    partitions=(
        *FOLLOWING.partitions[:3],
        PartitionFigures(
            "t2", 1, LogEnds(0, 90), 20, 700.0, "diverged", "longer than the master's\r\nlog"
        ),
    ),
    notes=("topic t3 is not in server.ini",),
)
"""One that needs somebody."""


class OriginalTests(SynchronousTestCase):
    """The lines of section 3.12."""

    def test_running(self) -> None:
        """The eight lines as the original has them."""
        self.assertEqual(
            [
                "Subscriber handler:running",
                "Replicate partitions:4",
                "Replicate topic partitions detail:",
                "    t1:2",
                "    t2:2",
                "Replicate requests:4",
                "Replicate runner:running",
                "Replicate status:yes",
            ],
            original_lines(FOLLOWING),
        )

    def test_standing_partition(self) -> None:
        """It is not asked for, and nothing is well."""
        self.assertEqual(
            ["Replicate requests:3", "Replicate runner:running", "Replicate status:no"],
            original_lines(STANDING)[-3:],
        )

    def test_without_a_master(self) -> None:
        """The original says yes [BUG-25]."""
        away = replace(FOLLOWING, connected=False)
        self.assertEqual("Replicate requests:0", original_lines(away)[-3])
        self.assertEqual("Replicate status:no", original_lines(away)[-1])
        self.assertFalse(replace(away, partitions=()).is_well)

    def test_stopped(self) -> None:
        """Only one line."""
        self.assertEqual(
            ["Subscriber handler:stop"], original_lines(replace(FOLLOWING, runs=False))
        )


class LineTests(SynchronousTestCase):
    """``stats replication``."""

    def test_lines(self) -> None:
        """Written out: monitors read them."""
        lines = status_lines(STANDING)
        self.assertEqual(original_lines(STANDING), lines[:8])
        self.assertEqual(
            [
                "role asynchronous slave 0",
                "state following",
                "runs true",
                "other meta://master:8123",
                "connected true",
                "registered true",
                "failures 0",
                "waiting_records 0",
                "waiting_bytes 0",
                "well false",
                "t1 part 0 min_offset 0 max_offset 100 other_offset 100 seconds 0.0 state copying",
                "t1 part 1 min_offset 0 max_offset 100 other_offset 350 seconds 1.5 state copying",
                "t2 part 0 min_offset 1000 max_offset 1000 other_offset - seconds 0.0"
                " state copying",
                "t2 part 1 min_offset 0 max_offset 90 other_offset 20 seconds 700.0"
                " state diverged stands longer than the master's log",
                "note topic t3 is not in server.ini",
            ],
            lines[8:],
        )

    def test_read_again(self) -> None:
        """Nothing is lost, but for line ends."""
        pair = RoleFigures(
            role="synchronous master",
            state="broken",
            runs=False,
            registered=False,
            failures=7,
            waiting_records=3,
            waiting_bytes=400,
        )
        for figures in (FOLLOWING, pair, RoleFigures()):
            self.assertEqual(figures, parse_status(status_lines(figures)))
        again = parse_status(status_lines(STANDING))
        assert again is not None
        self.assertEqual("longer than the master's log", again.partitions[3].stands)
        self.assertEqual(STANDING.notes, again.notes)

    def test_plain_broker(self) -> None:
        """It says that it is a master."""
        figures = parse_status(PLAIN)
        assert figures is not None
        self.assertEqual(("master", "running"), (figures.role, figures.state))

    def test_older_broker(self) -> None:
        """It takes the item for a topic."""
        older = ["replication", "resultCode 1", "partitions 0", "message_count 0", "bytes 0"]
        self.assertIsNone(parse_status(older))
        self.assertEqual(FOLLOWING, parse_status([*status_lines(FOLLOWING), *older, "new line"]))

    def test_behind(self) -> None:
        """Never negative: the ends are not of the same moment."""
        self.assertEqual([0, 250, None, 0], [each.behind for each in FOLLOWING.partitions])
        self.assertEqual(0, STANDING.partitions[3].behind)
        self.assertEqual("t1-1", STANDING.partitions[1].name)
