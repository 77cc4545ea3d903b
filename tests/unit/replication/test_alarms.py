"""The alarms: one line each, with fixed first words."""

from __future__ import annotations

from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.replication import alarms
from metamorphosis.replication.logs import LogEnds


class AlarmTests(SynchronousTestCase):
    """Scripts match these words, so they are written out."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def line(self, level: LogLevel = LogLevel.error) -> str:
        """The only line so far."""
        (event,) = self.events
        self.assertEqual(level, event["log_level"])
        return formatEvent(event)

    def test_gap(self) -> None:
        """Both offsets, and where the old directory is."""
        alarms.gap("t-0", 500, 900, "/data.aside/t-0.x")
        self.assertEqual(
            "Replication gap: t-0 ends at 500, and the log of the master begins at 900. Copying"
            " begins anew at 900; the old directory: /data.aside/t-0.x",
            self.line(),
        )

    def test_gap_without_a_directory(self) -> None:
        """Nothing was moved."""
        alarms.gap("t-0", 0, 900, None)
        self.assertIn("; the old directory: it was empty", self.line())

    def test_diverged(self) -> None:
        """Both ranges, the reason and the remedy."""
        alarms.diverged("t-0", LogEnds(0, 500), LogEnds(0, 400), "longer here", "It stands.")
        self.assertEqual(
            "Replication diverged: t-0 is 0-500 here and 0-400 on the other broker: longer here."
            " It stands.",
            self.line(),
        )

    def test_damaged(self) -> None:
        """Where, why, and when it is read again."""
        alarms.damaged("t-0", 500, "a checksum is wrong", 30)
        self.assertTrue(
            self.line().startswith("Replication damaged: t-0 stands at 500, because a checksum is")
        )

    def test_pair_broken(self) -> None:
        """The slave and the reason."""
        alarms.pair_broken("meta://h:1", "the connection was lost")
        self.assertEqual("Pair broken: meta://h:1: the connection was lost", self.line())

    def test_pair_joined(self) -> None:
        """What the joining has moved; nothing that has to be done, so a warning."""
        alarms.pair_joined("meta://h:1", 6, 100, 20, 1)
        self.assertEqual(
            "Pair joined: meta://h:1: 6 partitions are the same, 100 bytes were sent and 20"
            " fetched; 1 partitions have diverged",
            self.line(LogLevel.warn),
        )
