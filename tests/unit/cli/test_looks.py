"""``metaq lag``, ``metaq brokers`` and ``metaq stats``."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cli.lag import SAMPLE_BYTES, count_records
from metamorphosis.message import encode_record
from tests.unit.cli.fakes import Run

COMMITTED_MS = 1764489600123


class LagTestCase(SynchronousTestCase):
    """Topic t: 0-0 holds records of 31 bytes from 0 on; group g is after the first."""

    record = encode_record(1, 0, b"0123456789a")

    def run_metaq(self, arguments: str, count: int = 10) -> Run:
        """``metaq lag`` with these options, not started."""
        run = Run(f"lag {arguments}")
        broker = run.session.master(0, t=1)
        size = len(self.record)
        broker.ranges["t", 0] = (0, count * size)
        broker.log["t", 0, size] = (self.record * count)[:SAMPLE_BYTES]
        run.runtime.tree.now_ms = COMMITTED_MS
        run.session.node("consumers/g/offsets/t/0-0", f"7-{size}")
        run.session.node("consumers/g/ids/g_host-1", "t")
        run.session.node("consumers/g/owners/t/0-0", "g_host-1-2-0")
        return run

    def rows(self, run: Run) -> list[list[str]]:
        """The rows as words, without the head."""
        return [line.split() for line in run.text.splitlines() if line.startswith("g ")]


class LagTests(LagTestCase):
    """The unread part."""

    def test_table(self) -> None:
        """Bytes, messages, the time of the commit, and the owner."""
        run = self.run_metaq("").start()
        self.assertEqual((run.status, run.said), (0, ""))
        bytes_left = str(9 * len(self.record))
        self.assertEqual(
            self.rows(run),
            [["g", "t", "0-0", bytes_left, "9", "2025-11-30T08:00:00Z", "g_host-1-2-0", "ok"]],
        )

    def test_json(self) -> None:
        """The same for programs."""
        run = self.run_metaq("t --group g --json").start()
        self.assertEqual(
            json.loads(run.text),
            {
                "group": "g",
                "topic": "t",
                "partition": "0-0",
                "bytes": 9 * len(self.record),
                "messages": 9,
                "exact": True,
                "committed": "2025-11-30T08:00:00Z",
                "owner": "g_host-1-2-0",
                "state": [],
            },
        )

    def test_position_is_read_once(self) -> None:
        """Offset and time of the commit are from the same read of the node."""
        run = self.run_metaq("")
        registry = run.session.registry
        assert registry is not None
        asked: list[str] = []
        get = registry.get

        def keep(path: str, *rest: Any) -> Any:
            asked.append(path)
            return get(path, *rest)

        self.patch(registry, "get", keep)
        run.start()
        self.assertEqual(1, asked.count("/meta/consumers/g/offsets/t/0-0"))

    def test_estimate(self) -> None:
        """Beyond the sample the number is estimated from it."""
        run = self.run_metaq("", 1_000_001).start()
        self.assertEqual(self.rows(run)[0][3:5], [str(1_000_000 * len(self.record)), "~1000000"])
        run = self.run_metaq("--json", 1_000_001).start()
        found = json.loads(run.text)
        self.assertEqual((found["messages"], found["exact"]), (1_000_000, False))

    def test_nothing_left(self) -> None:
        """No request for messages is sent."""
        run = self.run_metaq("", 1)
        run.session.brokers["meta://b:1"].log.clear()
        run.start()
        self.assertEqual((run.status, self.rows(run)[0][3:5]), (0, ["0", "0"]))

    def test_broken_message(self) -> None:
        """Messages that cannot be counted are unknown; bytes are known."""
        run = self.run_metaq("")
        run.session.brokers["meta://b:1"].log["t", 0, len(self.record)] = b"\xff" * 300
        run.start()
        self.assertEqual(self.rows(run)[0][3:5], [str(9 * len(self.record)), "-"])

    def test_limits(self) -> None:
        """A lag above the limit is status 1, with a line for the partition."""
        left = 9 * len(self.record)
        for arguments, said in (
            (f"--max {left}", ""),
            ("--max-messages 9", ""),
            (f"--max {left - 1}", f"{left} bytes left, more than {left - 1}"),
            ("--max-messages 8", "9 messages left, more than 8"),
            ("--max 0", f"group g, topic t, partition 0-0: {left} bytes left, more than 0"),
        ):
            run = self.run_metaq(arguments).start()
            self.assertEqual(run.status, 1 if said else 0, arguments)
            self.assertIn(said, run.said)

    def test_broker_away(self) -> None:
        """An unknown lag is shown as unknown."""
        run = self.run_metaq("--max 0")
        run.session.brokers["meta://b:1"].away = True
        run.start()
        self.assertEqual((run.status, self.rows(run)[0][3:5]), (1, ["-", "-"]))
        self.assertIn("no connection", run.said)

    def test_watch(self) -> None:
        """The table is repeated until interrupted; changes are shown."""
        run = self.run_metaq("--watch 5").start()
        size = len(self.record)
        run.session.write("consumers/g/offsets/t/0-0", f"7-{10 * size}")
        run.runtime.advance(4.9)
        self.assertEqual([row[4] for row in self.rows(run)], ["9"])
        run.runtime.advance(0.2)
        self.assertEqual([row[4] for row in self.rows(run)], ["9", "0"])
        run.console.stop()
        self.assertEqual((run.status, run.said), (130, "metaq: interrupted\n"))

    def test_no_group(self) -> None:
        """An unknown group is an error, not an empty table."""
        run = self.run_metaq("--group h").start()
        self.assertEqual(run.status, 1)
        self.assertIn("group h has neither a position nor a topic; groups there are: g", run.said)

    def test_records_that_are_cut(self) -> None:
        """Only whole records count."""
        size = len(self.record)
        self.assertEqual(count_records(self.record * 3), (3, 3 * size))
        self.assertEqual(count_records((self.record * 3)[:-1]), (2, 2 * size))
        self.assertEqual(count_records(self.record[:5]), (0, 0))


class BrokersTests(SynchronousTestCase):
    """Masters and slaves."""

    def run_metaq(self, arguments: str = "") -> Run:
        """Broker 0 with a slave, broker 1 away, not started."""
        run = Run(f"brokers {arguments}")
        master = run.session.master(0, t=1)
        master.figures = [
            "pid 7",
            "uptime 60",
            "version 1.4.6.2",
            "curr_connections 3",
            "total_messages 9",
            "topics 2",
            "metamorphosis 0.1.0",
        ]
        run.session.node("brokers/ids/0/slave1", "meta://b:9?isSlave=true")
        run.session.node("brokers/ids/0/master_config_checksum", "5")
        run.session.node("brokers/ids/1", "")
        run.session.brokers["meta://b:9"] = type(master)()
        return run

    def test_table(self) -> None:
        """One row each; a broker that is away is a failure."""
        run = self.run_metaq().start()
        self.assertEqual((run.status, run.said), (1, "metaq: broker 1 is away\n"))
        rows = [line.split() for line in run.text.splitlines()[1:]]
        self.assertEqual(
            rows[0],
            ["0", "meta://b:1", "ok", "1.4.6.2", "(0.1.0)", "60", "3", "2", "9"],
        )
        self.assertEqual(rows[1][:4], ["0/slave1", "meta://b:9", "ok", "1.4.6.2"])
        self.assertEqual(rows[2], ["1", "-", "away", *"-----"])

    def test_json(self) -> None:
        """An object each."""
        run = self.run_metaq("--json").start()
        first, _, third = map(json.loads, run.text.splitlines())
        self.assertEqual((first["uptime"], first["version"]), (60, "1.4.6.2 (0.1.0)"))
        self.assertEqual((third["state"], third["url"]), ("away", None))

    def test_silent(self) -> None:
        """A broker that does not answer is shown, and is an error."""
        run = self.run_metaq()
        run.session.brokers["meta://b:1"].away = True
        run.start()
        self.assertEqual(run.status, 1)
        self.assertEqual(run.text.splitlines()[1].split()[:3], ["0", "meta://b:1", "no-answer"])
        self.assertIn("Connection refused", run.said)

    def test_none(self) -> None:
        """A root without brokers."""
        run = Run("brokers").start()
        self.assertEqual(
            (run.status, run.said),
            (1, "metaq: no broker is or was registered below root /meta\n"),
        )


class StatsTests(SynchronousTestCase):
    """The figures of brokers."""

    def test_one(self) -> None:
        """The lines unchanged; for one broker without a heading."""
        run = Run("stats", direct=True).start()
        self.assertEqual((run.status, run.text), (0, "pid 7\nslave false\nversion 1.4.6.2\n"))

    def test_json(self) -> None:
        """Names and values; numbers are numbers."""
        run = Run("stats --json")
        run.session.master(0)
        run.session.master(1)
        run.start()
        first, second = map(json.loads, run.text.splitlines())
        self.assertEqual(first["stats"], {"pid": 7, "slave": False, "version": "1.4.6.2"})
        self.assertEqual((first["broker"], second["broker"]), ("0", "1"))

    def test_item(self) -> None:
        """Another item; each of several brokers has a head."""
        run = Run("stats offsets")
        run.session.master(0).ranges["t", 0] = (1, 2)
        run.session.master(1)
        run.start()
        line = "t part 0 min_offset 1 max_offset 2"
        self.assertEqual(run.text, f"# 0 meta://b:1\n{line}\n# 1 meta://b:2\n\n")
        self.assertEqual(json.loads(self.json("offsets"))["lines"], [line])

    def json(self, item: str) -> str:
        """The same of one broker for programs."""
        run = Run(f"stats {item} --json", direct=True)
        run.session.brokers["b:1"] = run.session.brokers["meta://b:1"]
        run.session.brokers["meta://b:1"].ranges["t", 0] = (1, 2)
        return run.start().text

    def test_silent(self) -> None:
        """Known figures are shown, and the status is 1."""
        run = Run("stats")
        run.session.master(0)
        run.session.master(1).away = True
        run.start()
        self.assertEqual(run.status, 1)
        self.assertIn("pid 7", run.text)
        self.assertIn("broker meta://b:2: no connection", run.said)
