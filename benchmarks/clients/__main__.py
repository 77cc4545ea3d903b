"""
``python -m benchmarks.clients``: our client beside the original Java client and Kafka's, in
alternating rounds of one run, each client on one core and the server on the other.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import brokers, network, report
from benchmarks.cells import Cell
from benchmarks.clients import kafka
from benchmarks.load import fill, measure, settle, sync_time_us
from benchmarks.memory import warm_free_pages
from benchmarks.processes import LOAD_CORE, BenchmarkError, pinned
from benchmarks.report import Check

HERE = Path(__file__).resolve().parent
CLASSES = brokers.HERE / "bin/classes"
RUN_SECONDS = 180.0
OUR_MESSAGES = 1_000_000
THEIR_MESSAGES = 200_000  # aiokafka needs as long for these
YARDSTICK = Cell("put 1/64/1024", "put", 1, 64, 1024)


@dataclass
class Setting:
    """The servers of a run."""

    metaref: brokers.Server
    ours: brokers.Server
    zookeeper_port: int
    kafka_port: int
    seconds: float

    def java(self, *arguments: object) -> list[str]:
        """The command line of the original client."""
        path = f"{CLASSES}:{brokers.java_libraries()}/*"
        return ["java", "-Xmx512m", "-server", "-cp", path, "ClientBenchmark", *map(str, arguments)]

    def our(self, workload: str, face: str, *arguments: object) -> list[str]:
        """The command line of our client."""
        module = "benchmarks.clients.ours"
        options = ["--face", face, "--seconds", str(self.seconds), *map(str, arguments)]
        return [sys.executable, "-m", module, workload, *options]

    def kafka(self, workload: str, *arguments: object) -> list[str]:
        """The command line of a Kafka client."""
        script = str(HERE / "kafkaclients.py")
        options = ["--seconds", str(self.seconds), *map(str, arguments)]
        return [str(kafka.python()), script, workload, str(self.kafka_port), *options]

    @property
    def to_metaref(self) -> tuple[str, str]:
        """Where producers send to: the server that is never the limit."""
        return "--broker", f"127.0.0.1:{self.metaref.port}"

    @property
    def to_ours(self) -> tuple[str, str]:
        """Where consumers read from."""
        return "--broker", f"127.0.0.1:{self.ours.port}"


@dataclass(frozen=True)
class Contestant:
    """
    One measurement: its name, and the command line that prints the figures.

    :ivar writes: it makes the page cache grow; the pages are made warm before.
    """

    name: str
    command: Callable[[Setting], list[str]]
    writes: bool = False


def contestants() -> list[Contestant]:
    """Everything that is measured, in the order of a round."""
    read = ("--messages", OUR_MESSAGES)
    theirs = ("--messages", THEIR_MESSAGES)
    lists = ("--window", 4, "--list", 100)
    found = [
        Contestant("produce 64 tx", lambda s: s.our("produce", "tx", *s.to_metaref), True),
        Contestant("produce 64 aio", lambda s: s.our("produce", "aio", *s.to_metaref), True),
        Contestant(
            "produce 64 java",
            lambda s: s.java("produce", f"meta://127.0.0.1:{s.metaref.port}", s.seconds, 64, 1024),
            True,
        ),
        Contestant("produce 64 aiokafka", lambda s: s.kafka("aiokafka-produce"), True),
        Contestant("produce 64 confluent", lambda s: s.kafka("confluent-produce"), True),
        Contestant("send_many tx", lambda s: s.our("send-many", "tx", *lists, *s.to_metaref), True),
        Contestant(
            "send_many aio", lambda s: s.our("send-many", "aio", *lists, *s.to_metaref), True
        ),
        Contestant("one-way tx", lambda s: s.our("one-way", "tx", *s.to_metaref), True),
        Contestant(
            "produce 1 tx", lambda s: s.our("produce", "tx", "--window", 1, *s.to_metaref), True
        ),
        Contestant(
            "produce 1 aio", lambda s: s.our("produce", "aio", "--window", 1, *s.to_metaref), True
        ),
        Contestant(
            "produce 1 java",
            lambda s: s.java("produce", f"meta://127.0.0.1:{s.metaref.port}", s.seconds, 1, 1024),
            True,
        ),
        Contestant("consume batch tx", lambda s: s.our("consume", "tx", *read, *s.to_ours)),
        Contestant("consume one tx", lambda s: s.our("consume-one", "tx", *read, *s.to_ours)),
        Contestant("consume for tx", lambda s: s.our("iterate", "tx", *read, *s.to_ours)),
        Contestant("consume for aio", lambda s: s.our("iterate", "aio", *read, *s.to_ours)),
        Contestant(
            "consume one java",
            lambda s: s.java(
                "consume", f"127.0.0.1:{s.zookeeper_port}", "reads", OUR_MESSAGES, 1 << 20
            ),
        ),
        Contestant("consume batch aiokafka", lambda s: s.kafka("aiokafka-consume", *theirs)),
        Contestant("consume for aiokafka", lambda s: s.kafka("aiokafka-iterate", *theirs)),
        Contestant("consume batch confluent", lambda s: s.kafka("confluent-consume", *theirs)),
        Contestant("latency", lambda s: s.our("latency", "tx", *s.to_ours)),
        Contestant(
            "latency commit", lambda s: s.our("latency", "tx", "--topic", "commit", *s.to_ours)
        ),
        Contestant(
            "memory 100 partitions",
            lambda s: s.our("memory", "tx", "--zookeeper", f"127.0.0.1:{s.zookeeper_port}"),
        ),
    ]
    return found


@dataclass
class Results:
    """What every round gave, by contestant and figure."""

    runs: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def add(self, name: str, figures: dict[str, float]) -> None:
        """One more run."""
        self.runs.setdefault(name, []).append(figures)

    def median(self, name: str, figure: str = "rate") -> float | None:
        """Over the rounds; None if it was not measured."""
        runs = self.runs.get(name)
        return statistics.median(run[figure] for run in runs) if runs else None

    def ratio(self, name: str, other: str) -> float | None:
        """The median of the rounds' ratios."""
        pairs = zip(self.runs.get(name, ()), self.runs.get(other, ()), strict=False)
        ratios = [mine["rate"] / theirs["rate"] for mine, theirs in pairs]
        return statistics.median(ratios) if ratios else None


def run_one(contestant: Contestant, setting: Setting) -> dict[str, float]:
    """Run a client once on its core."""
    if contestant.writes:
        warm_free_pages()
    argv = contestant.command(setting)
    done = subprocess.run(
        pinned(argv, LOAD_CORE),
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        cwd=brokers.ROOT,
        timeout=RUN_SECONDS,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BenchmarkError(f"{contestant.name}: {' '.join(argv)}: {done.returncode}: {said}")
    figures: dict[str, float] = json.loads(lines[-1])
    return figures


def run_rounds(chosen: list[Contestant], setting: Setting, rounds: int) -> Results:
    """Everybody once a round, the yardstick first."""
    results = Results()
    for _ in range(rounds):
        run = measure(setting.metaref, YARDSTICK, 1.0, 0.4)
        results.add("yardstick", {"rate": run.rate})
        for contestant in chosen:
            figures = run_one(contestant, setting)
            results.add(contestant.name, figures)
            for server in (setting.metaref, setting.ours):
                settle(server, "bench")
            shown = "  ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(f"{contestant.name:<26} {shown}", file=sys.stderr, flush=True)
    return results


FLOORS = {
    "produce 64 tx": (105_000, 115_000),
    "produce 64 aio": (50_000, 100_000),
    "send_many tx": (200_000, 250_000),
    "send_many aio": (200_000, 250_000),
    "one-way tx": (80_000, 150_000),
    "consume batch tx": (950_000, 1_200_000),
    "consume one tx": (200_000, 400_000),
    "consume for tx": (650_000, 650_000),
    "consume for aio": (650_000, 650_000),
}
"""Messages per second: floor and aim."""

RATIOS = {
    ("produce 1 tx", "produce 1 java"): 0.7,
    ("produce 64 aio", "produce 64 aiokafka"): 2.0,
    ("consume for aio", "consume for aiokafka"): 2.0,
    ("consume batch tx", "consume batch aiokafka"): 2.0,
}

LATENCIES = {
    ("latency", "median_ms"): 2.0,
    ("latency", "p99_ms"): 10.0,
    ("latency commit", "median_ms"): 5.0,
    ("latency commit", "p99_ms"): 20.0,
}

MEMORY_MIB = 40.0


def checks(results: Results) -> list[Check]:
    """The required figures."""
    found = []
    for name, (floor, _) in FLOORS.items():
        if (rate := results.median(name)) is not None:
            found.append(Check(f"{name}: messages/s", rate, floor, True))
    for (name, other), floor in RATIOS.items():
        if (ratio := results.ratio(name, other)) is not None:
            found.append(Check(f"{name} over {other}", ratio, floor, True))
    for (name, figure), limit in LATENCIES.items():
        if (value := results.median(name, figure)) is not None:
            found.append(Check(f"{name}: {figure}", value, limit, False))
    added = results.median("memory 100 partitions", "added_mib")
    buffers = results.median("memory 100 partitions", "buffers_mib")
    if added is not None and buffers is not None:
        found.append(Check("memory beside the buffers, MiB", added - buffers, MEMORY_MIB, False))
    return found


def table(results: Results) -> str:
    """All medians: rates, also as shares of the yardstick's, and the CPU time of a message."""
    yardstick = results.median("yardstick") or 1.0
    head = (
        f"{'':<26}{'messages/s':>12}{'of the yardstick':>18}{'range':>22}{'CPU us':>8}{'aim':>10}"
    )
    lines = [head]
    for name, runs in results.runs.items():
        rates = [run["rate"] for run in runs if "rate" in run]
        if not rates:
            figures = "  ".join(f"{key} {results.median(name, key):.2f}" for key in runs[0])
            lines.append(f"{name:<26}  {figures}")
            continue
        rate = statistics.median(rates)
        between = f"{min(rates):.0f}-{max(rates):.0f}"
        cpu = f"{results.median(name, 'cpu_us'):.2f}" if "cpu_us" in runs[0] else ""
        aim = f"{FLOORS[name][1]}" if name in FLOORS else ""
        share = f"{rate / yardstick:>18.3f}"
        lines.append(f"{name:<26}{rate:>12.0f}{share}{between:>22}{cpu:>8}{aim:>10}")
    return "\n".join(lines)


def parse_options(argv: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=3.0, help="length of one measurement (3)")
    add(
        "--only",
        metavar="TEXT",
        action="append",
        default=[],
        help="contestants whose name contains it",
    )
    add("--this-network", action="store_true", help="no network namespace with Reno")
    return parser.parse_args(argv)


def choose(wanted: list[str]) -> list[Contestant]:
    """
    The contestants whose names contain one of these texts; all of them if there is none.

    :raises BenchmarkError: there is no such contestant.
    """
    chosen = [c for c in contestants() if any(text in c.name for text in wanted or [""])]
    if not chosen:
        raise BenchmarkError(f"nothing is called {wanted}")
    return chosen


def is_kafka(contestant: Contestant) -> bool:
    """Whether it needs the Kafka server."""
    return "kafka" in contestant.name or "confluent" in contestant.name


def fetch(chosen: list[Contestant]) -> None:
    """What these need from another network than loopback, and what is compiled."""
    brokers.build()
    if any(is_kafka(each) for each in chosen):
        kafka.libraries()
        kafka.python()
    if any("java" in each.name for each in chosen):
        compile_java()


def compile_java() -> None:
    """The original client's measurement."""
    CLASSES.mkdir(parents=True, exist_ok=True)
    path = f"{brokers.java_libraries()}/*"
    source = str(HERE / "java/ClientBenchmark.java")
    subprocess.run(["javac", "-nowarn", "-cp", path, "-d", str(CLASSES), source], check=True)


def run_all(options: argparse.Namespace, directory: Path) -> bool:
    """Start the servers, measure, report; whether all required figures were reached."""
    chosen = choose(options.only)
    processes: list[Any] = []
    try:
        zookeeper, zookeeper_port = brokers.start_zookeeper(directory / "zookeeper")
        processes.append(zookeeper)
        layout = brokers.Layout(wide_partitions=100, retention=10)
        metaref = brokers.start_metaref(directory / "metaref")
        processes.append(metaref)
        ours = brokers.start_ours(directory / "ours", zookeeper_port, layout)
        processes.append(ours)
        fill(ours, messages=OUR_MESSAGES)
        if any("memory" in c.name for c in chosen):
            measure(ours, Cell("fill", "put", 16, 64, 8192, topic="wide", partitions=100), 2.0, 0)
        kafka_port = 0
        if any(is_kafka(each) for each in chosen):
            server, kafka_port = kafka.start(directory / "kafka")
            processes.append(server)
        setting = Setting(metaref, ours, zookeeper_port, kafka_port, options.seconds)
        if kafka_port:
            filling = setting.kafka("fill", "--messages", THEIR_MESSAGES)
            subprocess.run(filling, check=True, capture_output=True)
        facts = report.machine(sync_time_us(directory))
        results = run_rounds(chosen, setting, options.rounds)
    finally:
        for process in reversed(processes):
            process.stop()
    required = checks(results)
    print("\n".join(f"{key}: {value}" for key, value in facts.items()) + "\n")
    print(table(results) + "\n")
    print("\n".join(str(check) for check in required))
    return all(check.passed for check in required)


def main(argv: list[str]) -> int:
    """Exit status 0: every required figure was reached; 1: one was not; 2: not measured."""
    options = parse_options(argv)
    try:
        fetch(choose(options.only))
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    if not options.this_network:
        network.enter(argv, "benchmarks.clients")
    network.prepare()
    directory = Path(tempfile.mkdtemp(prefix="metaq-bench-"))
    try:
        return 0 if run_all(options, directory) else 1
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
