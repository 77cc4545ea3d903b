"""``metaq offsets``: positions, lag, and setting them."""

from __future__ import annotations

import json
import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import encode_record
from tests.unit.cli.fakes import Run


class OffsetsTestCase(SynchronousTestCase):
    """Topic t: 0-0 from 10 to 100 and 0-1 empty; group g at 40 in 0-0."""

    def run_metaq(self, arguments: str) -> Run:
        """``metaq offsets`` with these options, not started."""
        run = Run(f"offsets {arguments}")
        broker = run.session.master(0, t=2)
        broker.ranges["t", 0] = (10, 100)
        run.session.node("consumers/g/offsets/t/0-0", "7-40")
        return run

    def table(self, run: Run) -> list[list[str]]:
        """The rows as words, without the head."""
        return [line.split() for line in run.text.splitlines()[1:]]


class ShowTests(OffsetsTestCase):
    """Without ``--to``."""

    def test_all_groups(self) -> None:
        """Every group, topic and partition, with its lag; hyphens for unknown values."""
        run = self.run_metaq("")
        run.session.node("consumers/h/offsets/t/0-1", "0")
        run.session.node("consumers/g/owners/t/0-0", "g_host-1-2-0")
        run.start()
        self.assertEqual((run.status, run.said), (0, ""))
        self.assertEqual(
            self.table(run),
            [
                ["g", "t", "0-0", "40", "100", "60", "g_host-1-2-0", "ok"],
                ["g", "t", "0-1", "-", "0", "0", "-", "not-begun,no-member"],
                ["h", "t", "0-0", "-", "100", "90", "-", "not-begun,no-member"],
                ["h", "t", "0-1", "0", "0", "0", "-", "no-member"],
            ],
        )

    def test_one_partition_as_json(self) -> None:
        """Chosen by group, topic and partition; numbers are numbers."""
        run = self.run_metaq("t --group g --partition 0-0 --json").start()
        self.assertEqual(run.status, 0)
        self.assertEqual(
            json.loads(run.text),
            {
                "group": "g",
                "topic": "t",
                "partition": "0-0",
                "offset": 40,
                "end": 100,
                "lag": 60,
                "owner": None,
                "state": ["no-member"],
            },
        )

    def test_broker_away(self) -> None:
        """Known values are shown; unknown ones are reported, with status 1."""
        run = self.run_metaq("--group g")
        run.session.brokers["meta://b:1"].away = True
        run.start()
        self.assertEqual(run.status, 1)
        self.assertEqual(
            ["g", "t", "0-0", "40", "-", "-", "-", "no-answer,no-member"], self.table(run)[0]
        )
        self.assertIn("broker meta://b:1: no connection", run.said)

    def test_broken_position(self) -> None:
        """A node with other content is named, the others are shown."""
        run = self.run_metaq("--group g")
        run.session.node("consumers/g/offsets/t/0-1", "x")
        run.start()
        self.assertEqual((run.status, len(self.table(run))), (1, 2))
        self.assertIn("/meta/consumers/g/offsets/t/0-1", run.said)

    def test_partition_of_a_broker_that_is_gone(self) -> None:
        """A position without a partition is still shown."""
        run = self.run_metaq("--group g")
        run.session.node("consumers/g/offsets/t/3-0", "-1-5")
        run.start()
        self.assertIn(["g", "t", "3-0", "5", "-", "-", "-", "no-broker,no-member"], self.table(run))

    def test_states(self) -> None:
        """Each unusual state has a name, in the table and as JSON."""
        for node, owner, expected in (
            ("7-40", "g_host-1", (40, 60, [])),
            ("7-40", "", (40, 60, ["no-owner"])),
            ("7-100", "g_host-1", (100, 0, [])),
            ("7-101", "g_host-1", (101, None, ["beyond-end"])),
            (f"-1-{(1 << 63) - 1}", "", ((1 << 63) - 1, None, ["beyond-end", "no-owner"])),
            ("7-9", "g_host-1", (9, 90, ["before-begin"])),
            ("garbage", "g_host-1", (None, None, ["unreadable"])),
            ("7--5", "g_host-1", (None, None, ["unreadable"])),
            ("", "g_host-1", (None, 90, ["not-begun"])),
        ):
            for form in ("", " --json"):
                run = Run(f"offsets t --group g --partition 0-0{form}")
                run.session.master(0, t=1).ranges["t", 0] = (10, 100)
                run.session.node("consumers/g/ids/g_host-1", "t")
                run.session.node("consumers/g/offsets/t/0-0", node)
                if owner:
                    run.session.node("consumers/g/owners/t/0-0", owner)
                run.start()
                offset, lag, state = expected
                self.assertEqual(run.status, 1 if "unreadable" in state else 0)
                if form:
                    row = json.loads(run.text)
                    self.assertEqual((row["offset"], row["lag"], row["state"]), expected)
                else:
                    (words,) = self.table(run)
                    shown = ["-" if each is None else str(each) for each in (offset, lag)]
                    self.assertEqual([words[3], words[5]], shown)
                    self.assertEqual(words[7], ",".join(state) or "ok")

    def test_nothing_there(self) -> None:
        """Unknown groups and topics are errors."""
        for arguments, fault in (
            (
                "--group x",
                "group x has neither a position nor a topic; groups there are: g",
            ),
            ("x --group g", "no such topic: x"),
        ):
            run = self.run_metaq(arguments).start()
            self.assertEqual(run.status, 1)
            self.assertIn(fault, run.said)


class ChangeTests(OffsetsTestCase):
    """With ``--to``."""

    def stored(self, run: Run, partition: str = "0-0") -> str:
        """The node."""
        return run.session.data(f"consumers/g/offsets/t/{partition}")

    def test_ends(self) -> None:
        """All partitions to their oldest message, or after the newest one; then they are shown."""
        for to, first in (("earliest", "10"), ("latest", "100")):
            run = self.run_metaq(f"t --group g --to {to}").start()
            self.assertEqual((run.status, run.said), (0, ""))
            self.assertEqual((self.stored(run), self.stored(run, "0-1")), (f"-1-{first}", "-1-0"))
            self.assertEqual([row[3] for row in self.table(run)], [first, "0"])

    def test_number(self) -> None:
        """The beginning of a message, or the end."""
        record = encode_record(1, 0, b"hello")
        for to in ("50", "100"):
            run = self.run_metaq(f"t --group g --partition 0-0 --to {to}")
            run.session.brokers["meta://b:1"].log["t", 0, 50] = record + record[:7]
            self.assertEqual(run.start().status, 0)
            self.assertEqual(self.stored(run), f"-1-{to}")

    def test_wrong(self) -> None:
        """An invalid value changes no position, and the error names the valid form."""
        for arguments, fault in (
            ("t --group g --to 50", "is for one partition"),
            ("t --group g --partition 0-0 --to 9", "goes from 10 to 100"),
            ("t --group g --partition 0-0 --to 101", "goes from 10 to 100"),
            ("t --group g --partition 0-0 --to 50", "no message begins there"),
            ("t --group g --partition 0-7 --to latest", "it has 0-0, 0-1"),
            ("t --to latest", "--to needs a topic and --group"),
            ("--group g --to latest", "--to needs a topic and --group"),
            ("x --group g --to latest", "no such topic: x"),
        ):
            run = self.run_metaq(arguments)
            run.session.brokers["meta://b:1"].log["t", 0, 50] = b"\x00\x00\x00\x05garbage " * 5
            self.assertNotEqual(run.start().status, 0)
            self.assertIn(fault, run.said)
            self.assertEqual((self.stored(run), run.text), ("7-40", ""))

    def test_number_of_a_long_message(self) -> None:
        """A message longer than the sample has to fit into the partition."""
        header = encode_record(1, 0, bytes(2000))[:1000]
        for end, status in ((2070, 0), (2069, 2)):
            run = self.run_metaq("t --group g --partition 0-0 --to 50")
            broker = run.session.brokers["meta://b:1"]
            broker.ranges["t", 0] = (10, end)
            broker.log["t", 0, 50] = header
            self.assertEqual(run.start().status, status)

    def test_running_group(self) -> None:
        """The error names its members, which would overwrite the position."""
        run = self.run_metaq("t --group g --to latest")
        run.session.node("consumers/g/ids/g_host-1", "t")
        self.assertEqual(run.start().status, 1)
        self.assertIn("group g is running and would overwrite it; stop g_host-1", run.said)
        self.assertEqual(self.stored(run), "7-40")

    def test_all_or_nothing(self) -> None:
        """If one broker does not answer, no position is changed."""
        run = self.run_metaq("t --group g --to latest")
        run.session.master(1, other=1).away = True
        self.assertEqual(run.start().status, 1)
        self.assertIn("nothing was changed", run.said)
        self.assertEqual(self.stored(run), "7-40")


class DirectTests(SynchronousTestCase):
    """Without ZooKeeper: the positions of this machine."""

    def run_metaq(self, arguments: str) -> Run:
        """A run with its own home directory."""
        home = os.path.abspath(self.mktemp())
        os.makedirs(home)
        self.patch(os, "environ", {**os.environ, "HOME": home})
        run = Run(f"offsets {arguments}", direct=True)
        run.session.brokers["meta://b:1"].ranges["t", 0] = (0, 100)
        return run

    def test_set_and_show(self) -> None:
        """They are in the file that ``metaq consume --broker`` uses."""
        run = self.run_metaq("t --group g --to latest").start()
        self.assertEqual((run.status, run.said), (0, ""))
        self.assertEqual(run.text.splitlines()[1].split()[:6], "g t 0-0 100 100 0".split())
        with open(os.path.expanduser("~/.meta_offsets"), encoding="ascii") as file:
            self.assertEqual(json.load(file)["g"][0]["offset"], 100)

    def test_group_is_needed(self) -> None:
        """Without ZooKeeper groups cannot be listed."""
        run = self.run_metaq("t").start()
        self.assertEqual((run.status, run.said), (2, "metaq: --group is needed with --broker\n"))

    def test_topics_of_the_group(self) -> None:
        """Without a topic argument all topics with a position."""
        run = self.run_metaq("--group g").start()
        self.assertEqual(run.status, 1)
        self.assertIn("group g has neither a position", run.said)
