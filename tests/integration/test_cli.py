"""``metaq`` as a process against our broker, directly and through the embedded ZooKeeper."""

from __future__ import annotations

import atexit
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import cache

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis import __version__
from tests.support.broker import BrokerProcess, Keys, environment
from tests.support.embedded import EmbeddedZooKeeper

SECONDS = 30.0
METAQ = [sys.executable, "-m", "metamorphosis.cli"]


@cache
def cluster() -> tuple[BrokerProcess, EmbeddedZooKeeper]:
    """One broker and one ZooKeeper for all tests, until the process ends; each test has topics of
    its own."""
    zookeeper = EmbeddedZooKeeper(tempfile.mkdtemp())
    zookeeper.start()
    topics: dict[str, Keys] = dict.fromkeys(("wild*", "fixed", "looked", "shared", "picked"), {})
    broker = BrokerProcess(tempfile.mkdtemp(), topics, {"numPartitions": 2}, zookeeper)
    broker.start()
    broker.wait_for_log("registered in ZooKeeper")
    # the latest registered is called first: the broker may still unregister
    atexit.register(shutil.rmtree, zookeeper.directory, True)
    atexit.register(shutil.rmtree, broker.directory, True)
    atexit.register(zookeeper.kill)
    atexit.register(broker.kill)
    return broker, zookeeper


class MetaqTestCase(SynchronousTestCase):
    """Runs ``metaq`` with a home of its own."""

    where: list[str]

    def setUp(self) -> None:
        """Positions of direct mode are in the home."""
        self.home = os.path.abspath(self.mktemp())
        os.makedirs(self.home)
        self.where = ["--broker", f"127.0.0.1:{cluster()[0].port}"]

    def start(self, line: str, **options: object) -> subprocess.Popen[bytes]:
        """Begin a run; it ends with the test."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [*METAQ, *line.split(), *self.where],
            env={**environment(), "HOME": self.home},
            bufsize=0,  # ``communicate`` knows nothing of what a buffer has read
            **{**pipes, **options},  # type: ignore[call-overload]
        )
        self.addCleanup(self.end, process)
        return process  # type: ignore[no-any-return]

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End the process."""
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def metaq(self, line: str, data: bytes = b"") -> tuple[int, bytes, str]:
        """Status, output and errors of a complete run."""
        process = self.start(line)
        output, errors = process.communicate(data, SECONDS)
        return process.returncode, output, errors.decode()

    def done(self, line: str, data: bytes = b"") -> bytes:
        """The output of a run that must succeed without errors."""
        status, output, errors = self.metaq(line, data)
        self.assertEqual((status, errors), (0, ""))
        return output

    def read_line(self, process: subprocess.Popen[bytes]) -> bytes:
        """The next line of its output."""
        assert process.stdout is not None
        return process.stdout.readline()


class DirectTests(MetaqTestCase):
    """``--broker``."""

    topic = "wild-direct"

    def test_there_and_back(self) -> None:
        """Produced messages are consumed: bodies, attributes, files, positions, counts."""
        lines = b"".join(b"line %d\n" % number for number in range(1000))
        self.done(f"produce {self.topic} --attribute odd", lines)
        consume = f"consume {self.topic} --group readers"
        some = self.done(f"{consume} --max 300 --json").splitlines()
        self.assertEqual({json.loads(line)["attribute"] for line in some}, {"odd"})
        rest = self.done(f"{consume} --idle 1").splitlines()
        bodies = [json.loads(line)["body"].encode() for line in some] + rest
        self.assertEqual(sorted(bodies), sorted(lines.splitlines()))
        (row, other) = self.done(f"offsets {self.topic} --group readers --json").splitlines()
        self.assertEqual([json.loads(each)["lag"] for each in (row, other)], [0, 0])
        again = self.done(f"{consume} --from earliest --max 1000").splitlines()
        self.assertEqual(sorted(again), sorted(bodies))
        state = json.loads(self.done(f"topics {self.topic} --json"))
        self.assertEqual((state["messages"], len(state["partitions"])), (1000, 2))

    def test_order_of_a_partition(self) -> None:
        """Lines of one partition come back in their order, a whole file as one message."""
        topic = f"{self.topic}-order"
        lines = b"".join(b"%d\n" % number for number in range(2000))
        self.done(f"produce {topic} --partition 1", lines)
        self.assertEqual(self.done(f"consume {topic} --group g --max 2000"), lines)
        path = os.path.join(self.home, "file")
        with open(path, "wb") as file:
            file.write(lines)
        self.done(f"produce {topic} --partition 1 --file {path}")
        self.assertEqual(self.done(f"consume {topic} --group g --max 1"), lines + b"\n")

    def test_set_and_go_on(self) -> None:
        """A group continues at the position that was set."""
        topic = f"{self.topic}-set"
        self.done(f"produce {topic} --partition 0", b"one\ntwo\nthree\n")
        self.done(f"offsets {topic} --group g --partition 0-0 --to 23")
        self.assertEqual(self.done(f"consume {topic} --group g --idle 0.5"), b"two\nthree\n")
        self.done(f"offsets {topic} --group g --to earliest")
        self.assertEqual(self.done(f"consume {topic} --group g --max 1"), b"one\n")
        status, _, errors = self.metaq(f"offsets {topic} --group g --partition 0-0 --to 24")
        self.assertEqual(status, 2)
        self.assertIn("no message begins there", errors)

    def test_latest(self) -> None:
        """Only later messages, as soon as they arrive."""
        topic = f"{self.topic}-latest"
        self.done(f"produce {topic}", b"old\nold\nold\n")
        process = self.start(f"consume {topic} --group g --from latest --max 1")
        deadline = time.monotonic() + SECONDS
        while b'"g"' not in self._offsets() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.done(f"produce {topic}", b"new\n")
        self.assertEqual(self.read_line(process), b"new\n")
        self.assertEqual(process.wait(SECONDS), 0)

    def test_one_partition(self) -> None:
        """Without a group: from an end, an offset or a time, exact bytes or a format; no position
        is stored."""
        topic = f"{self.topic}-one"
        self.done(f"produce {topic} --partition 1", b"old 1\nold 2\n")
        between = time.time()
        time.sleep(0.002)  # ids count milliseconds
        self.done(f"produce {topic} --partition 1", b"new 1\nnew 2\n")
        consume = f"consume {topic} --partition 1"
        self.assertEqual(self.done(f"{consume} --idle 0.1 --raw"), b"old 1old 2new 1new 2")
        moment = f"{datetime.fromtimestamp(between, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        self.assertEqual(self.done(f"{consume} --from {moment} --max 1"), b"new 1\n")
        self.assertEqual(self.done(f"{consume} --from 1h --max 1"), b"old 1\n")
        offsets = self.done(rf"{consume} --max 3 --format {{offset}}:{{size}}\n")
        self.assertEqual(offsets, b"0:5\n25:5\n50:5\n")
        self.assertEqual(self.done(f"{consume} --from 75 --max 1"), b"new 2\n")
        self.assertEqual(self.done(f"{consume} --from latest --idle 0.1"), b"")
        for offset, reason in ((51, "no message begins there"), (101, "goes from 0 to 100")):
            status, _, errors = self.metaq(f"{consume} --from {offset} --max 1")
            self.assertEqual(status, 2)
            self.assertIn(reason, errors)
        self.assertEqual(self._offsets(), b"")

    def _offsets(self) -> bytes:
        try:
            with open(os.path.join(self.home, ".meta_offsets"), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def test_interrupt(self) -> None:
        """Ctrl-C: written messages are consumed, and the status shows the interruption."""
        topic = f"{self.topic}-interrupt"
        self.done(f"produce {topic}", b"one\n")
        process = self.start(f"consume {topic} --group g")
        self.assertEqual(self.read_line(process), b"one\n")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
        self.assertEqual((process.returncode, errors), (130, b"metaq: interrupted; 1 consumed\n"))
        self.done(f"produce {topic}", b"two\n")
        self.assertEqual(self.done(f"consume {topic} --group g --max 1"), b"two\n")

    def test_interrupt_at_the_input(self) -> None:
        """Ctrl-C while waiting for a line; earlier lines are sent."""
        topic = f"{self.topic}-typed"
        self.done(f"produce {topic}", b"first\n")  # or the consumer says that nobody has the topic
        process = self.start(f"produce {topic}")
        assert process.stdin is not None
        process.stdin.write(b"typed\n")
        process.stdin.flush()
        lines = self.done(f"consume {topic} --group g --max 2").splitlines()
        self.assertEqual(sorted(lines), [b"first", b"typed"])
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(SECONDS), 130)

    def test_broken_pipe(self) -> None:
        """A closed reader ends the command without an error line."""
        topic = f"{self.topic}-pipe"
        self.done(f"produce {topic} --unordered", b"x" * 100 + b"\n" + b"y\n" * 20000)
        process = self.start(f"consume {topic} --group g")
        assert process.stdout is not None and process.stderr is not None
        self.read_line(process)
        process.stdout.close()
        self.assertEqual(process.wait(SECONDS), 141)
        self.assertEqual(process.stderr.read(), b"")
        process.stdout = None

    def test_slow_reader(self) -> None:
        """A reader that stops reading only stops the writing: Ctrl-C still works."""
        topic = f"{self.topic}-slow"
        self.done(f"produce {topic} --unordered", b"0123456789\n" * 20000)
        process = self.start(f"consume {topic} --group g")
        self.read_line(process)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 130)
        rest = self.done(f"consume {topic} --group g --idle 1") if len(output) < 219989 else b""
        self.assertEqual(len(output) + len(rest), 20000 * 11 - 11)

    def test_terminal(self) -> None:
        """Progress is shown only if standard error is a terminal."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        process = self.start(f"produce {self.topic}-tty --rate 4", stderr=theirs)
        os.close(theirs)
        output, _ = process.communicate(b"1\n2\n3\n4\n", SECONDS)
        self.assertEqual((process.returncode, output), (0, b""))
        self.assertIn(b"4 messages", os.read(ours, 10000))

    def test_refused(self) -> None:
        """A refusal of the broker is shown with its text."""
        status, _, errors = self.metaq("produce unknown", b"x\n")
        self.assertEqual(status, 1)
        self.assertIn("line 1 not sent, 0 sent: ", errors)
        self.assertIn("The server do not accept topic unknown", errors)

    def test_nobody_there(self) -> None:
        """An address without a listening server is named, with the reason, long before the time
        limit; so is a name that does not resolve."""
        self.where = ["--broker", "127.0.0.1:1"]
        for command in ("produce t", "consume t --group g", "offsets t --group g", "topics"):
            status, _, errors = self.metaq(command)
            self.assertEqual((status, errors.count("\n")), (1, 1))
            self.assertIn("127.0.0.1:1", errors)
            self.assertIn("Connection refused", errors)
        self.where = ["--zookeeper", "nowhere.invalid:1"]
        began = time.monotonic()
        status, _, errors = self.metaq("topics")
        self.assertEqual((status, errors.count("\n")), (1, 1))
        self.assertIn("nowhere.invalid:1", errors)
        self.assertLess(time.monotonic() - began, 8.0)  # of 10 s: the machine may be busy


class ClusterTests(MetaqTestCase):
    """``--zookeeper``."""

    def setUp(self) -> None:
        """The cluster of the module."""
        super().setUp()
        self.where = ["--zookeeper", cluster()[1].connect_string]

    def test_there_and_back(self) -> None:
        """Topics, partitions and positions are those in ZooKeeper."""
        lines = b"".join(b"line %d\n" % number for number in range(500))
        self.done("produce fixed", lines)
        found = self.done("consume fixed --group cluster --max 500").splitlines()
        self.assertEqual(sorted(found), sorted(lines.splitlines()))
        rows = [json.loads(row) for row in self.done("offsets --json").splitlines()]
        mine = [row for row in rows if row["group"] == "cluster"]
        self.assertEqual([(row["partition"], row["lag"]) for row in mine], [("0-0", 0), ("0-1", 0)])
        (state,) = map(json.loads, self.done("topics fixed --json").splitlines())
        self.assertEqual([each["partition"] for each in state["partitions"]], ["0-0", "0-1"])

    def test_looks(self) -> None:
        """Brokers, their figures and the lag of a group; the cluster is given by the
        environment."""
        self.done("produce looked", b"one\ntwo\nthree\n")
        self.done("consume looked --group looker --max 1 --from earliest")
        rows = [
            json.loads(row) for row in self.done("lag looked --group looker --json").splitlines()
        ]
        self.assertEqual((sum(row["messages"] for row in rows), len(rows)), (2, 2))
        committed = datetime.fromisoformat(max(row["committed"] or "" for row in rows))
        self.assertLess(abs(committed.timestamp() - time.time()), 3600)
        self.assertEqual(self.metaq("lag looked --group looker --max-messages 2")[0], 0)
        self.assertEqual(self.metaq("lag looked --group looker --max 0")[0], 1)
        (row,) = map(json.loads, self.done("brokers --json").splitlines())
        self.assertEqual((row["broker"], row["state"]), ("0", "ok"))
        self.assertEqual(row["version"], f"1.4.6.2 ({__version__})")
        self.patch(os, "environ", {**os.environ, "METAQ_ZOOKEEPER": self.where[1]})
        self.where = []
        (found,) = map(json.loads, self.done("stats --json").splitlines())
        self.assertEqual(found["stats"]["version"], "1.4.6.2")

    def test_group_shares(self) -> None:
        """Two runs of one group receive every message once together; meanwhile its positions cannot
        be set."""
        first = self.start("consume shared --group shared --from latest")
        second = self.start("consume shared --group shared --from latest")
        deadline = time.monotonic() + SECONDS
        owners: set[str | None] = set()
        while len(owners) < 2 and time.monotonic() < deadline:
            rows = self.metaq("offsets shared --group shared --json")[1].splitlines()
            owners = {json.loads(row)["owner"] for row in rows} - {None}
        self.assertEqual(len(owners), 2)
        status, _, errors = self.metaq("offsets shared --group shared --to earliest")
        self.assertEqual(status, 1)
        self.assertIn("group shared is running", errors)
        lines = b"".join(b"shared %d\n" % number for number in range(100))
        self.done("produce shared", lines)
        outputs = []
        for process in (first, second):
            outputs.append(b"".join(self.read_line(process) for _ in range(50)))
            process.send_signal(signal.SIGINT)
            outputs.append(process.communicate(timeout=SECONDS)[0])
        found = b"".join(outputs).splitlines()
        self.assertEqual(sorted(found), sorted(lines.splitlines()))

    def test_partition(self) -> None:
        """A partition that does not exist is refused with the existing ones."""
        self.done("produce picked --partition 0-1", b"x\n")
        status, _, errors = self.metaq("produce picked --partition 0-2", b"x\n")
        self.assertEqual(status, 2)
        self.assertIn("partitions of picked: 0-0, 0-1", errors)

    def test_unknown_topic(self) -> None:
        """A message for an unknown topic is not sent, and the wait for one is announced."""
        status, _, errors = self.metaq("produce nobody-has-it", b"x\n")
        self.assertEqual(status, 1)
        self.assertIn("nobody-has-it", errors)
        status, _, errors = self.metaq("consume nobody-has-it --group g --idle 0.5")
        self.assertEqual(status, 1)
        self.assertIn("no such topic: nobody-has-it; topics of ", errors)

    def test_killed_broker(self) -> None:
        """A broker was killed and is still in ZooKeeper: every command ends soon, and says that the
        connection is refused."""
        broker = BrokerProcess(
            self.mktemp(),
            {"t": {}},
            {"brokerId": 7},
            cluster()[1],
            {"zk.zkRoot": "/killed", "zk.zkSessionTimeoutMs": 60000},
        )
        self.addCleanup(broker.kill)
        broker.start()
        broker.wait_for_log("registered in ZooKeeper")
        broker.kill()
        self.where = ["--zookeeper", cluster()[1].connect_string, "--root", "/killed"]
        said = f"broker meta://localhost:{broker.port}: no connection: Connection refused"
        for command in ("produce t", "consume t --group g", "offsets t --group g", "topics"):
            began = time.monotonic()
            status, _, errors = self.metaq(command, b"x\n")
            self.assertEqual((status, errors.count("\n")), (1, 1), errors)
            self.assertIn(said, errors)
            self.assertLess(time.monotonic() - began, 15.0)  # of 30 s: the machine may be busy

    def test_no_zookeeper(self) -> None:
        """The error names it, within the time limit."""
        self.where = ["--zookeeper", "127.0.0.1:1"]
        status, _, errors = self.metaq("topics")
        self.assertEqual((status, errors.count("\n")), (1, 1))
        self.assertIn("127.0.0.1:1", errors)
        self.assertIn("Connection refused", errors)
