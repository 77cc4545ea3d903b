"""
``python -m benchmarks.zookeeper``: Debian's ZooKeeper and ours, measured in turns.

Server on core 0, load generator on core 1; both keep each write on the same disk before they
answer. Ours must reach 0.9 of the original's requests per second, and a get must take less than a
millisecond at the median.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import brokers, network, report
from benchmarks.brokers import HERE, Server
from benchmarks.load import Measurement, sync_time_us
from benchmarks.processes import LOAD_CORE, BenchmarkError, pinned
from benchmarks.report import Check
from benchmarks.rounds import REPEATS, undisturbed
from benchmarks.zookeeperservers import STARTERS

FLOOR = 0.9
AIM = 1.2
MEDIAN_LIMIT_MS = 1.0
OPERATIONS = ("get", "set", "create")
LOADS = ((1, 1), (16, 1), (1, 16), (16, 16))
QUICK = ("* 1/1", "* 16/16")


@dataclass(frozen=True)
class Load:
    """One kind of request from some clients, each with some in flight."""

    operation: str
    clients: int
    in_flight: int

    @property
    def name(self) -> str:
        """As the table calls it."""
        return f"{self.operation} {self.clients}/{self.in_flight}"


@dataclass
class Rounds:
    """What one load gave, by server, one measurement a round."""

    load: Load
    runs: dict[str, list[Measurement]] = field(default_factory=dict)
    disturbed: int = 0

    def median(self, server: str, figure: str) -> float | None:
        """The median of a field of the measurements."""
        runs = self.runs.get(server)
        return statistics.median(getattr(run, figure) for run in runs) if runs else None

    @property
    def ratio(self) -> float | None:
        """Requests per second, ours over Debian's."""
        ours, debian = self.median("ours", "rate"), self.median("debian", "rate")
        return ours / debian if ours and debian else None


def measure(server: Server, load: Load, seconds: float, warm_up: float) -> Measurement:
    """One run of ``zkbench``; a refused request or a lost connection is an error."""
    generator = [str(HERE / "bin/zkbench"), "-j", "-p", str(server.port), "-i", str(server.pid)]
    asked = ["-m", load.operation, "-c", str(load.clients), "-w", str(load.in_flight)]
    argv = [*generator, *asked, "-d", f"{seconds:g}", "-u", f"{warm_up:g}"]
    done = subprocess.run(
        pinned(argv, LOAD_CORE), capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode != 0:
        server.process.check_alive()
        said = done.stderr.strip() or done.stdout.strip()
        raise BenchmarkError(f"{server.name}: {' '.join(argv)}: {done.returncode}: {said}")
    return Measurement.parse(done.stdout)


def measure_quietly(server: Server, load: Load, seconds: float) -> tuple[Measurement, bool]:
    """The least disturbed of up to three runs, and whether it was undisturbed."""
    runs: list[Measurement] = []
    for _ in range(1 + REPEATS):
        runs.append(measure(server, load, seconds, 0.4))
        if undisturbed(runs[-1]):
            return runs[-1], True
    return min(runs, key=lambda run: run.other_cpu + run.steal), False


def run_rounds(servers: list[Server], load: Load, rounds: int, seconds: float) -> Rounds:
    """The servers take turns, and each round begins with another one."""
    result = Rounds(load)
    for number in range(rounds):
        begin = number % len(servers)
        for server in servers[begin:] + servers[:begin]:
            run, quiet = measure_quietly(server, load, seconds)
            result.disturbed += not quiet
            result.runs.setdefault(server.name, []).append(run)
            note = "" if quiet else f"  disturbed: other {run.other_cpu:.0f} %"
            log(
                f"{load.name:<14}{server.name:<8}{run.rate:>9.0f}/s {run.cpu_us:>8.2f} us"
                f"  p50 {run.p50_us / 1000:.2f} ms  p99 {run.p99_us / 1000:.2f} ms{note}"
            )
    return result


def warm_up(server: Server, seconds: float) -> None:
    """Load of every kind, so that the virtual machine has compiled what will be measured."""
    log(f"warming up {server.name} for {seconds:g} s")
    for operation in OPERATIONS:
        measure(server, Load(operation, 16, 16), seconds / 4, 0)
        measure(server, Load(operation, 1, 1), seconds / 12, 0)


HEAD = (
    f"{'load':<14}{'debian/s':>10}{'ours/s':>9}{'ratio':>7}{'floor':>7}{'aim':>6}  {'verdict':<8}"
    f"{'debian us':>10}{'ours us':>9}{'debian p50/p99 ms':>20}{'ours p50/p99 ms':>18}"
)


def row(result: Rounds) -> str:
    """One line of the table."""

    def number(server: str, figure: str, form: str, factor: float = 1.0) -> str:
        found = result.median(server, figure)
        return "-" if found is None else format(found * factor, form)

    def latency(server: str) -> str:
        return "/".join(number(server, name, ".2f", 1e-3) for name in ("p50_us", "p99_us"))

    ratio = result.ratio
    verdict = ""
    if ratio is not None:
        verdict = "aim" if ratio >= AIM else "ok" if ratio >= FLOOR else "FAILED"
    return (
        f"{result.load.name:<14}"
        f"{number('debian', 'rate', '.0f'):>10}{number('ours', 'rate', '.0f'):>9}"
        f"{'-' if ratio is None else format(ratio, '.2f'):>7}{FLOOR:>7.1f}{AIM:>6.1f}  {verdict:<8}"
        f"{number('debian', 'cpu_us', '.1f'):>10}{number('ours', 'cpu_us', '.1f'):>9}"
        f"{latency('debian'):>20}{latency('ours'):>18}{' *' if result.disturbed else ''}"
    )


def table(results: Iterable[Rounds]) -> str:
    """The whole table with a line that explains the columns."""
    notes = (
        "load: request, clients / in flight on each; nodes of 100 bytes. us: CPU microseconds per\n"
        "request. Medians. *: other work disturbed a run, even after repeats."
    )
    return "\n".join([HEAD, *map(row, results), notes])


def checks(results: Iterable[Rounds]) -> list[Check]:
    """What is required."""
    found = []
    for result in results:
        if (ratio := result.ratio) is not None:
            found.append(Check(f"{result.load.name}: req/s over Debian's", ratio, FLOOR, True))
        median = result.median("ours", "p50_us")
        if median is not None and result.load.operation == "get" and result.load.in_flight == 1:
            name = f"{result.load.name}: median"
            found.append(Check(name, median / 1000, MEDIAN_LIMIT_MS, False, " ms"))
    return found


def log(line: str) -> None:
    """Progress goes to standard error, so that standard output is the report."""
    print(line, file=sys.stderr, flush=True)


def parse_options(argv: list[str]) -> argparse.Namespace:
    """The options; ``--help`` prints this text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zookeeper", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="six loads, three rounds: about two minutes")
    add("--loads", metavar="PATTERN", action="append", help="e.g. 'get *'; repeatable")
    add("--rounds", type=int, help="rounds of each load (5, quick 3)")
    add("--seconds", type=float, help="length of one measurement (1.5, quick 1)")
    add("--servers", default=",".join(STARTERS), help="which take part (debian,ours)")
    add("--warm-up", type=float, default=20.0, metavar="SECONDS", help="of each server (20)")
    add("--json", type=Path, metavar="FILE", help="(benchmarks/bin/zookeeper.json)")
    add("--directory", type=Path, help="where the servers keep data (a new temporary directory)")
    add("--this-network", action="store_true", help="no network namespace with Reno")
    options = parser.parse_args(argv)
    options.servers = options.servers.split(",")
    if unknown := set(options.servers) - set(STARTERS):
        parser.error(f"unknown server {', '.join(sorted(unknown))}: {', '.join(STARTERS)}")
    return options


def chosen_loads(options: argparse.Namespace) -> list[Load]:
    """The loads that the options ask for."""
    patterns = options.loads or (QUICK if options.quick else ["*"])
    loads = [Load(operation, *load) for operation in OPERATIONS for load in LOADS]
    chosen = [load for load in loads if any(fnmatchcase(load.name, p) for p in patterns)]
    if not chosen:
        raise BenchmarkError(f"no load matches {patterns}: {', '.join(x.name for x in loads)}")
    return chosen


def run_all(options: argparse.Namespace, directory: Path) -> bool:
    """Everything that was asked for; whether all required figures were reached."""
    loads = chosen_loads(options)
    brokers.build()
    facts = report.machine(sync_time_us(directory))
    rounds = options.rounds or (3 if options.quick else 5)
    seconds = options.seconds or (1.0 if options.quick else 1.5)
    servers: list[Server] = []
    try:
        for name in options.servers:
            servers.append(STARTERS[name](directory / name))
        for server in servers:
            warm_up(server, options.warm_up)
        results = [run_rounds(servers, load, rounds, seconds) for load in loads]
    finally:
        for server in servers:
            server.stop()
    judged = checks(results)
    print("\n".join(f"{key}: {value}" for key, value in facts.items()) + "\n")
    print(table(results) + "\n")
    print("\n".join(map(str, judged)))
    write_json(options.json or HERE / "bin/zookeeper.json", facts, results, judged)
    return all(check.passed for check in judged)


def write_json(
    path: Path, facts: dict[str, str], results: Iterable[Rounds], judged: Iterable[Check]
) -> None:
    """Everything that was measured, run by run."""
    loads = [
        {
            "name": result.load.name,
            "ratio": result.ratio,
            "disturbed": result.disturbed,
            "runs": {name: [run.as_json() for run in runs] for name, runs in result.runs.items()},
        }
        for result in results
    ]
    verdicts = [{**asdict(check), "passed": check.passed} for check in judged]
    found = {"machine": facts, "loads": loads, "checks": verdicts}
    path.write_text(json.dumps(found, indent=1) + "\n")


def main(argv: list[str]) -> int:
    """
    Exit status 0: every required figure was reached; 1: one was not; 2: it could not be measured.
    """
    options = parse_options(argv)
    if not options.this_network:
        network.enter(argv, "benchmarks.zookeeper")
    network.prepare()
    directory = Path(tempfile.mkdtemp(prefix="zookeeper-bench-", dir=options.directory))
    try:
        return 0 if run_all(options, directory) else 1
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
