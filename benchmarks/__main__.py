"""``python -m benchmarks``: the command line."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from functools import partial
from itertools import groupby
from pathlib import Path

from benchmarks import bounds, brokers, endurance, interpreter, network, profiling, report
from benchmarks.cells import CELLS, QUICK, Cell, select
from benchmarks.load import fill, sync_time_us
from benchmarks.processes import BenchmarkError
from benchmarks.rounds import FIRST_WARM_UP, CellResult, run_cell, warm_up_java

ALL_SERVERS = ("java", "ours", "metaref")
ROOM_GIB = 10.0


def parse_options(argv: list[str]) -> argparse.Namespace:
    """The options; ``--help`` prints this text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="six cells, three rounds: four minutes")
    add("--cells", metavar="PATTERN", action="append", help="e.g. 'put 16/*'; repeatable")
    add("--rounds", type=int, help="rounds of each cell (5, quick 3)")
    add("--seconds", type=float, default=1.5, help="length of one measurement (1.5)")
    add("--servers", default=",".join(ALL_SERVERS), help="which take part (all)")
    add("--java-warm-up", type=float, default=20.0, metavar="SECONDS", help="(20)")
    add("--no-cells", action="store_true", help="skip the table")
    add("--steady", action="store_true", help="latency at 8,000 put/s (in a full run anyway)")
    add("--memory", action="store_true", help="idle and with open transactions (as above)")
    add("--crowds", action="store_true", help="10,000 connections, 1,000 topics (as above)")
    add("--large-logs", action="store_true", help="a start with 1 TiB, gets in it (as above)")
    add("--timers", action="store_true", help="of the broker under full load (as above)")
    add("--recovery", action="store_true", help="a start with a large journal (as above)")
    add("--journal-size", type=int, metavar="MIB", help="of that journal (1024, quick 64)")
    add("--soak", type=float, metavar="SECONDS", help="full load; 600 is required")
    add("--soak-mode", choices=tuple(endurance.SOAK_LOADS), default="put", help="its kind (put)")
    add("--profile", choices=("python", "perf"), help="profile our broker in the one selected cell")
    add("--json", type=Path, metavar="FILE", help="write all runs (benchmarks/bin/results.json)")
    add("--directory", type=Path, help="where the servers keep data (a new temporary directory)")
    add("--this-network", action="store_true", help="no network namespace with Reno")
    add("--list", action="store_true", help="list the cells")
    options = parser.parse_args(argv)
    unknown = set(options.servers.split(",")) - set(ALL_SERVERS)
    if unknown:
        names = ", ".join(sorted(unknown))
        parser.error(f"unknown server {names}: choose from {', '.join(ALL_SERVERS)}")
    return options


def chosen_cells(options: argparse.Namespace) -> list[Cell]:
    """The cells that the options ask for."""
    cells = select(options.cells or (list(QUICK) if options.quick else ["*"]))
    if not cells:
        raise BenchmarkError(f"no cell matches {options.cells}; --list shows them")
    return cells


def log(line: str) -> None:
    """Progress goes to standard error, so that standard output is the report."""
    print(line, file=sys.stderr, flush=True)


def run_table(
    options: argparse.Namespace, directory: Path, zookeeper_port: int
) -> list[CellResult]:
    """Measure all chosen cells, those that ask for the same of servers and network together."""
    cells = chosen_cells(options)
    usual = network.congestion_control()
    results: list[CellResult] = []
    for (mode, congestion), group in groupby(cells, lambda c: (c.flush_mode, c.congestion)):
        if network.use_congestion_control(congestion or usual):
            results += run_group(options, directory, zookeeper_port, list(group), mode)
        else:
            names = ", ".join(cell.name for cell in group)
            log(f"left out, because {congestion} cannot be made the default here: {names}")
    network.use_congestion_control(usual)
    return results


def run_group(
    options: argparse.Namespace,
    directory: Path,
    zookeeper_port: int,
    cells: list[Cell],
    flush_mode: int,
) -> list[CellResult]:
    """Start the servers, fill what is read, and measure these cells."""
    # Segments outlive the measurement in which they were written: a deletion would stall some
    # runs and not others.
    retention = math.ceil(options.seconds + FIRST_WARM_UP) + 1
    layout = brokers.Layout(retention=retention, flush_mode=flush_mode)
    starters = {
        "java": partial(brokers.start_java, directory / "java", zookeeper_port, layout),
        "ours": partial(brokers.start_ours, directory / "ours", zookeeper_port, layout),
        "metaref": partial(brokers.start_metaref, directory / "metaref"),
    }
    servers: list[brokers.Server] = []
    try:
        for name in ALL_SERVERS:
            if name in options.servers.split(","):
                servers.append(starters[name]())
        if any(cell.mode == "get" for cell in cells):
            for server in servers:
                fill(server)
        for server in servers:
            if server.name == "java":
                warm_up_java(server, cells, options.java_warm_up, log)
        rounds = options.rounds or (3 if options.quick else 5)
        return [run_cell(servers, cell, rounds, options.seconds, log) for cell in cells]
    finally:
        for server in servers:
            server.stop()


def run_profile(options: argparse.Namespace, directory: Path, zookeeper_port: int) -> None:
    """Profile our broker in the one chosen cell."""
    cells = chosen_cells(options)
    if len(cells) != 1:
        raise BenchmarkError("--profile needs one cell: --cells 'put 16/1/1024'")
    profiles = {"python": profiling.profile_python, "perf": profiling.profile_machine}
    profile = profiles[options.profile]
    print(profile(directory / "profiled", zookeeper_port, cells[0], max(options.seconds, 3.0), log))


def run_all(options: argparse.Namespace, directory: Path) -> bool:
    """Everything that was asked for; returns whether all required figures were reached."""
    brokers.build()
    zookeeper, zookeeper_port = brokers.start_zookeeper(directory / "zookeeper")
    try:
        if options.profile:
            run_profile(options, directory, zookeeper_port)
            return True
        facts = report.machine(sync_time_us(directory))
        results = [] if options.no_cells else run_table(options, directory, zookeeper_port)
        checks = report.cell_checks(results) + bounds.run(options, directory, zookeeper_port, log)
    finally:
        zookeeper.stop()
    if (warning := interpreter.warning()) is not None:
        print(warning)
    print("\n".join(f"{key}: {value}" for key, value in facts.items()) + "\n")
    if results:
        print(report.table(results) + "\n")
    print("\n".join(str(check) for check in checks))
    target = options.json or brokers.HERE / "bin/results.json"
    report.write_json(target, facts, results, checks)
    return all(check.passed for check in checks)


def main(argv: list[str]) -> int:
    """
    Exit status 0: every required figure was reached; 1: one was not; 2: it could not be measured.
    """
    options = parse_options(argv)
    if options.list:
        print("\n".join(cell.name for cell in CELLS))
        return 0
    if not options.this_network:
        network.enter(argv)
    network.prepare()
    directory = Path(tempfile.mkdtemp(prefix="metaq-bench-", dir=options.directory))
    try:
        if endurance.disk_room(directory) < ROOM_GIB:
            raise BenchmarkError(f"{directory}: less than {ROOM_GIB:g} GiB free")
        return 0 if run_all(options, directory) else 1
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
