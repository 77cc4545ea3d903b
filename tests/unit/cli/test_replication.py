"""``metaq slave-status``, ``compare`` and ``promote``: their output and status."""

from __future__ import annotations

import io
import json
import os
from argparse import Namespace
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cli.compare import compare
from metamorphosis.cli.console import Console
from metamorphosis.cli.main import end_of
from metamorphosis.cli.options import parse
from metamorphosis.cli.promote import promote, read_configuration, report
from metamorphosis.config.model import BrokerConfig, ZooKeeperConfig
from metamorphosis.daemon.directorylock import DirectoryLock
from metamorphosis.errors import ConfigError
from metamorphosis.message import encode_record
from metamorphosis.replication.comparing import Row
from metamorphosis.replication.logs import Comparison, LogEnds, Verdict
from metamorphosis.replication.promotion import Promotion
from metamorphosis.replication.status import PartitionFigures, RoleFigures, status_lines
from metamorphosis.store.layout import segment_name
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.broker import SYSTEM, ini
from tests.unit.cli.fakes import FakeSession, Run

FIGURES = RoleFigures(
    role="asynchronous slave 0",
    state="following",
    other="meta://m:1",
    connected=True,
    partitions=(
        PartitionFigures("t", 0, LogEnds(0, 100), 160, 1.2),
        PartitionFigures("t", 1, LogEnds(0, 50), 50),
    ),
)


class SlaveStatusTests(SynchronousTestCase):
    """One broker is asked."""

    def ask(self, figures: RoleFigures | None, options: str = "") -> Run:
        """A run against a broker with these figures; None: an older one."""
        run = Run(f"slave-status {options}", direct=True)
        broker = run.session.brokers["meta://b:1"]
        broker.replication = ["replication", "resultCode 1"] if figures is None else []
        if figures is not None:
            broker.replication = status_lines(figures)
        return run.start()

    def test_text(self) -> None:
        """The lines of the original, then a line for each partition."""
        run = self.ask(FIGURES)
        lines = run.text.splitlines()
        self.assertEqual((0, ""), (run.status, run.said))
        self.assertEqual("Subscriber handler:running", lines[0])
        self.assertEqual("Replicate status:yes", lines[6])
        self.assertEqual(
            ["", "asynchronous slave 0: following", "other broker: meta://m:1", ""], lines[7:11]
        )
        self.assertEqual(
            [
                ["PARTITION", "STATE", "MIN", "MAX", "OTHER", "BEHIND", "SECONDS", "STANDS"],
                ["t-0", "copying", "0", "100", "160", "60", "1.2", "-"],
                ["t-1", "copying", "0", "50", "50", "0", "0.0", "-"],
            ],
            [line.split() for line in lines[11:]],
        )

    def test_standing(self) -> None:
        """A stopped partition has its reason, and the status is 1."""
        standing = replace(FIGURES.partitions[1], state="diverged", stands="other bytes at 0")
        run = self.ask(replace(FIGURES, partitions=(FIGURES.partitions[0], standing)))
        self.assertEqual(1, run.status)
        self.assertIn("Replicate status:no", run.text)
        self.assertIn("other bytes at 0", run.text)
        self.assertIn("1 of 2 partitions stand: t-1", run.said)

    def test_pair_master(self) -> None:
        """Waiting records, failures, the state of the registration."""
        pair = RoleFigures("synchronous master", "broken", failures=3, registered=False)
        run = self.ask(replace(pair, waiting_records=2, waiting_bytes=99))
        for line in (
            "synchronous master: broken",
            "other broker: not known, not connected",
            "not registered in ZooKeeper",
            "puts in a row without acknowledgement: 3",
            "waiting for the other broker: 2 messages, 99 bytes",
        ):
            self.assertIn(line, run.text.splitlines())
        self.assertIn("no connection to the other broker", run.said)

    def test_stopped(self) -> None:
        """Nothing is replicated."""
        run = self.ask(replace(FIGURES, runs=False, state="stopped"))
        self.assertIn("it does not replicate: stopped", run.said)

    def test_json(self) -> None:
        """The same as one object."""
        found = json.loads(self.ask(FIGURES, "--json").text)
        self.assertEqual((True, "meta://m:1"), (found["well"], found["other"]))
        self.assertEqual(
            {
                "topic": "t",
                "partition": 0,
                "state": "copying",
                "min": 0,
                "max": 100,
                "other_max": 160,
                "behind_bytes": 60,
                "behind_seconds": 1.2,
                "stands": None,
            },
            found["partitions"][0],
        )

    def test_brokers_without_a_slave(self) -> None:
        """A master of ours is named as such; an older broker cannot answer."""
        run = self.ask(RoleFigures())
        self.assertEqual(("master: running\n", 1), (run.text, run.status))
        self.assertIn("b:1 is a master without a pair", run.said)
        run = self.ask(None)
        self.assertEqual(("", 1), (run.text, run.status))
        self.assertIn("does not tell its role", run.said)


class Terminal:
    """A console whose output is kept."""

    def __init__(self) -> None:
        self.runtime = MemoryRuntime()
        self.output = b""
        self.errors = io.StringIO()
        self.console = Console(self.runtime, None, self._write, self.errors, interactive=True)

    def _write(self, data: bytes) -> None:
        self.output += data

    def run(self, command: Any) -> int:
        """Its exit status."""
        status = self.runtime.start(end_of(command, self.console))
        self.runtime.turn()
        return int(self.runtime.result(status))

    @property
    def text(self) -> str:
        """Standard output."""
        return self.output.decode()

    @property
    def said(self) -> str:
        """Standard error."""
        return self.errors.getvalue()


def log(path: str, *bodies: bytes) -> None:
    """A partition's directory."""
    os.makedirs(path)
    with open(os.path.join(path, segment_name(0)), "wb") as file:
        file.write(b"".join(encode_record(n + 1, 0, body) for n, body in enumerate(bodies)))


class CompareTests(SynchronousTestCase):
    """Two directories."""

    def setUp(self) -> None:
        self.a, self.b = self.mktemp() + "/", self.mktemp() + "/"
        log(f"{self.a}/t-0", b"one", b"two")
        log(f"{self.b}/t-0", b"one")
        self.terminal = Terminal()

    def compare(self, *options: str) -> int:
        """A run; its status."""
        return self.terminal.run(
            compare(self.terminal.console, parse(["compare", self.a, self.b, *options]))
        )

    def test_prefix(self) -> None:
        """Status 0."""
        self.assertEqual(0, self.compare())
        self.assertEqual(
            [
                ["PARTITION", "A", "B", "VERDICT"],
                ["t-0", "0-46", "0-23", "A", "is", "ahead", "of", "B", "by", "23", "bytes"],
            ],
            [line.split() for line in self.terminal.text.splitlines()],
        )
        self.assertIn("1 partitions compared", self.terminal.said)

    def test_different(self) -> None:
        """Status 1, and the offset of the record."""
        log(f"{self.a}/t-1", b"one", b"two")
        log(f"{self.b}/t-1", b"one", b"2wo")
        self.assertEqual(1, self.compare())
        self.assertIn("differ from offset 23", self.terminal.text)
        self.assertIn("1 of 2 partitions", self.terminal.said)

    def test_json(self) -> None:
        """An object for each partition."""
        self.compare("--json")
        self.assertEqual(
            {
                "topic": "t",
                "partition": 0,
                "a": {"min": 0, "max": 46},
                "b": {"min": 0, "max": 23},
                "verdict": "a_ahead",
                "ahead_bytes": 23,
                "differs_at": None,
                "text": "A is ahead of B by 23 bytes",
                "prefix": True,
            },
            json.loads(self.terminal.text),
        )

    def test_fault(self) -> None:
        """A fault replaces the verdict."""
        with open(f"{self.a}/t-0/{segment_name(99)}", "wb"):
            pass
        self.assertEqual(1, self.compare("--json"))
        found = json.loads(self.terminal.text)
        self.assertEqual(("fault", False), (found["verdict"], found["prefix"]))
        self.assertIn("not compared", found["text"])

    def test_nothing_to_compare(self) -> None:
        """Two empty directories are equal, with a message."""
        self.a, self.b = self.mktemp() + "/", self.mktemp() + "/"
        os.makedirs(self.a)
        os.makedirs(self.b)
        self.assertEqual(0, self.compare())
        self.assertIn("neither side has a partition", self.terminal.said)

    def test_no_such_side(self) -> None:
        """A wrong command line, or a directory that is not there."""
        self.b = "nonsense"
        self.assertEqual(2, self.compare())
        self.b = "./nowhere"
        self.assertEqual(1, self.compare())


class PromoteTests(SynchronousTestCase):
    """The report, and the refusals."""

    def promotion(self, *rows: Row) -> Promotion:
        """After a comparison."""
        return Promotion(rows=list(rows))

    def lines(self, promotion: Promotion, only_check: bool = False, **zookeeper: Any) -> str:
        """The report."""
        config = BrokerConfig(
            0, path="/x/server.ini", data_path="/x/data", zookeeper=ZooKeeperConfig(**zookeeper)
        )
        return "\n".join(report(promotion, config, only_check))

    def test_report(self) -> None:
        """What is missing, and what to start."""
        ahead = Comparison(Verdict.B_AHEAD, LogEnds(0, 50), LogEnds(0, 90))
        text = self.lines(self.promotion(Row("t", 0, ahead)))
        for part in (
            "the old master is ahead of this broker by 40 bytes",
            "May be missing: t-0: 40 bytes of the old master from offset 50 on are missing",
            "twistd metaq -f /x/server.ini\n",
            "metaq compare /x/data OLD",
            "Keep the data directory of the old master",
        ):
            self.assertIn(part, text)

    def test_nothing_missing(self) -> None:
        """The report says that nothing is missing."""
        equal = Comparison(Verdict.EQUAL, LogEnds(0, 50), LogEnds(0, 50))
        text = self.lines(self.promotion(Row("t", 0, equal)), enable=False)
        self.assertIn("Nothing is missing", text)
        self.assertIn("set zk.zkEnable=true", text)

    def test_check(self) -> None:
        """The report says that nothing was changed."""
        text = self.lines(Promotion(not_compared="gone"), True)
        self.assertIn("May be missing: the old master was not compared: gone.", text)
        self.assertIn("Run the same without --check", text)
        self.assertNotIn("twistd", text)

    def test_running_slave(self) -> None:
        """Refused: its data directory is locked."""
        data = os.path.abspath(self.mktemp())
        os.mkdir(data)
        lock = DirectoryLock(data)
        lock.acquire()
        self.addCleanup(lock.release)
        terminal = Terminal()
        session = FakeSession(terminal.runtime, False)
        options = Namespace(
            server=BrokerConfig(0, data_path=data), old=None, timeout=1, check=False
        )
        self.assertEqual(1, terminal.run(promote(session, terminal.console, options)))
        self.assertIn("stop the slave first", terminal.said)

    def test_configuration(self) -> None:
        """ZooKeeper and root come from server.ini; a faulty one is refused."""
        path = self.mktemp()
        system = {**SYSTEM, "brokerId": 3, "dataPath": "/x", "serverPort": 1}
        zookeeper = {"zk.zkConnect": "h:2181", "zk.zkRoot": "/r"}
        with open(path, "w", encoding="utf-8") as file:
            file.write(ini({"system": system, "zookeeper": zookeeper, "topic=t": {}}))
        options = parse(["promote", "-f", path])
        read_configuration(options)
        self.assertEqual(("h:2181", "/r"), (options.zookeeper, options.root))
        self.assertEqual(3, options.server.broker_id)
        with open(path, "a", encoding="utf-8") as file:
            file.write("nonsense=1\n")
        self.assertRaises(ConfigError, read_configuration, parse(["promote", "-f", path]))
