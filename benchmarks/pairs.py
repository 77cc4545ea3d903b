"""
``python -m benchmarks.pairs``: puts to a synchronous pair over puts to one broker, and the joining
of a slave that lacks everything.

Both members of the pair, and the brokers that they are compared with, have one core, the load
generator the other; rounds alternate, medians count. ``--java`` compares with the original's single
broker, too. Joining: each member has a core.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import network
from benchmarks.brokers import HERE, Layout, Server, build, start_java, start_zookeeper
from benchmarks.load import Measurement
from benchmarks.memory import warm_free_pages
from benchmarks.processes import LOAD_CORE, SERVER_CORE, BenchmarkError, ServerProcess, pinned
from tests.support.replicated import Member

CELLS = ((1, 1), (16, 1), (16, 64))
"""Connections, and puts in flight on each."""

TOPIC = "bench"
BODY = 1024
JOIN_SECONDS = 300.0
WARM_UP_SECONDS = 14.0
"""For the compiler of the Java broker, at the heaviest load; each cell has 2 s more."""


class Servers:
    """Processes that end together."""

    def __init__(self, directory: str, group_commit: bool = False) -> None:
        self._directory = directory
        self._topics = {TOPIC: {"unflushThreshold": 0 if group_commit else 1000}}
        self._running: list[ServerProcess] = []

    def member(self, name: str, role: str | None, **properties: object) -> Member:
        """One that is not started."""
        directory = f"{self._directory}/{name}"
        return Member(directory, role, properties, topics=self._topics)

    def start(self, member: Member, core: int = SERVER_CORE) -> ServerProcess:
        """It serves when it answers."""
        member.write_configuration()
        process = ServerProcess(
            member.role or "broker",
            member.command(),
            Path(member.directory),
            core,
            member.environment(),
        )
        self._running.append(process)
        process.wait_for_answer(member.port, b"version 1\r\n", b"result 200", 30)
        return process

    def stop(self, process: ServerProcess) -> None:
        """Of one."""
        self._running.remove(process)
        process.stop()

    def end(self) -> None:
        """Of all."""
        for process in self._running:
            process.stop()


@contextmanager
def servers(group_commit: bool = False) -> Iterator[Servers]:
    """In a directory that goes with them."""
    directory = tempfile.mkdtemp(prefix="metamorphosis-pairs-")
    started = Servers(directory, group_commit)
    try:
        yield started
    finally:
        started.end()
        shutil.rmtree(directory, ignore_errors=True)


def generate(
    port: int, processes: list[ServerProcess], cell: tuple[int, int], seconds: float
) -> Measurement:
    """Puts of 1 KiB; CPU is that of all the processes together. Free memory is touched first."""
    connections, window = cell
    warm_free_pages()
    argv = [str(HERE / "bin/metabench"), "-j", "-p", str(port), "-t", TOPIC, "-b", str(BODY)]
    argv += ["-c", str(connections), "-w", str(window), "-d", f"{seconds:g}", "-u", "0.5"]
    for process in processes:
        argv += ["-i", str(process.pid)]
    done = subprocess.run(pinned(argv, LOAD_CORE), capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(argv)
        said = done.stderr.strip() or done.stdout.strip()
        raise BenchmarkError(f"{shown}: {done.returncode}: {said}")
    return Measurement.parse(done.stdout)


@contextmanager
def java(wanted: bool) -> Iterator[Server | None]:
    """The original's single broker, warm, and a ZooKeeper for it; None if it is not wanted."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="metamorphosis-pairs-java-") as directory:
        zookeeper, port = start_zookeeper(Path(directory) / "zookeeper")
        try:
            server = start_java(Path(directory) / "java", port, Layout())
            try:
                generate(server.port, [server.process], CELLS[-1], WARM_UP_SECONDS)
                for cell in CELLS:
                    generate(server.port, [server.process], cell, 2.0)
                yield server
            finally:
                server.stop()
        finally:
            zookeeper.stop()


def wait_until_joined(process: ServerProcess) -> None:
    """Its log says so."""
    end = time.monotonic() + JOIN_SECONDS
    while b"Pair joined" not in process.output.read_bytes():
        if time.monotonic() > end:
            raise BenchmarkError(f"the pair is not joined within {JOIN_SECONDS:g} s")
        time.sleep(0.02)


def puts(rounds: int, seconds: float, group_commit: bool, original: Server | None) -> Iterator[str]:
    """A line for each cell."""
    with servers(group_commit) as running:
        single = running.member("single", None)
        slave = running.member("slave", "gregor")
        master = running.member("master", "samsa", slave=slave.address)
        alone = running.start(single)
        other = running.start(slave)
        first = running.start(master)
        wait_until_joined(first)
        for cell in CELLS:
            singles, pairs, masters, originals = [], [], [], []
            for _ in range(rounds):
                singles.append(generate(single.port, [alone], cell, seconds))
                pairs.append(generate(master.port, [first, other], cell, seconds))
                masters.append(generate(master.port, [first], cell, seconds / 2).cpu_us)
                if original is not None:
                    measured = generate(original.port, [original.process], cell, seconds)
                    originals.append(measured.rate)
            yield _line(cell, singles, pairs, statistics.median(masters))
            if originals:
                rate = statistics.median(originals)
                pair = statistics.median(each.rate for each in pairs)
                yield f"    the original alone {rate:.0f}/s, our pair over it {pair / rate:.2f}"


def _line(
    cell: tuple[int, int], singles: list[Measurement], pairs: list[Measurement], master: float
) -> str:
    def median(of: list[Measurement], name: str) -> float:
        return statistics.median(getattr(each, name) for each in of)

    one, two = median(singles, "rate"), median(pairs, "rate")
    cpu_one, cpu_two = median(singles, "cpu_us"), median(pairs, "cpu_us")
    return (
        f"{cell[0]}/{cell[1]}: {one:.0f}/s, pair {two:.0f}/s, ratio {two / one:.2f};"
        f" p50 {median(singles, 'p50_us'):.0f} us, pair {median(pairs, 'p50_us'):.0f} us;"
        f" CPU a put {cpu_one:.1f} us, pair {cpu_two:.1f} us, ratio {cpu_one / cpu_two:.2f},"
        f" of which the master {master:.1f} us"
    )


def joining(mib: int) -> str:
    """One line about a slave that begins with nothing."""
    with servers() as running:
        slave = running.member("slave", "gregor")
        plain = running.member("master", None)
        filler = running.start(plain)
        measured = generate(plain.port, [filler], (16, 64), 1.0)
        generate(plain.port, [filler], (16, 64), max(mib * 1000 / measured.rate, 1.0))
        running.stop(filler)
        size = sum(each.stat().st_size for each in Path(plain.data).glob("*/*.meta"))
        running.start(slave)
        master = running.member("master", "samsa", slave=slave.address)
        began = time.monotonic()
        wait_until_joined(running.start(master, LOAD_CORE))
        seconds = time.monotonic() - began
        return f"joining of {size / 1e9:.2f} GB: {seconds:.1f} s, {seconds / size * 1e9:.1f} s a GB"


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--join", type=int, default=1000, metavar="MIB", help="0: not at all")
    parser.add_argument("--group-commit", action="store_true", help="unflushThreshold=0")
    parser.add_argument("--java", action="store_true", help="the original's single broker, too")
    options = parser.parse_args()
    network.enter(sys.argv[1:], "benchmarks.pairs")
    network.prepare()
    try:
        build()
        with java(options.java) as original:
            for line in puts(options.rounds, options.seconds, options.group_commit, original):
                print(line, flush=True)
        if options.join:
            print(joining(options.join))
    except BenchmarkError as error:
        sys.exit(f"benchmarks.pairs: {error}")


if __name__ == "__main__":
    main()
