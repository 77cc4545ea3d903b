"""
What a ratio does not show: latency at a steady rate, memory with many partitions and clients, and a
long full load.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.brokers import HERE, Layout, Server
from benchmarks.load import Measurement, generate
from benchmarks.processes import LOAD_CORE, ask, pinned, resident_kib
from benchmarks.report import Check
from benchmarks.rounds import REPEATS, Log, undisturbed

STEADY_RATE = 8000  # puts per second
P99_LIMIT_MS = 5.0
MAX_LIMIT_MS = 100.0
FRESH_LIMIT_MIB = 45.0
MEMORY_LIMIT_MIB = 60.0
MEMORY_GROWTH_MIB = 5.0

ROLLING = Layout(segment_size=4 << 20)  # about two segments a second at the steady rate
MANY_PARTITIONS = Layout(wide_partitions=1000)

Start = Callable[[Layout], Server]


@contextlib.contextmanager
def running(start: Start, layout: Layout) -> Iterator[Server]:
    """A server of its own for the length of a block."""
    server = start(layout)
    try:
        yield server
    finally:
        server.stop()


@dataclass
class StatsPoll:
    """
    Asks for ``stats`` and ``stats bench`` once a second until the block ends, as monitoring does.
    """

    server: Server
    slowest_ms: float = 0.0
    asked: int = 0

    def __enter__(self) -> StatsPoll:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            for request in (b"stats 1\r\n", b"stats bench 2\r\n"):
                begin = time.monotonic()
                with contextlib.suppress(OSError):
                    ask(self.server.port, request)
                    self.asked += 1
                self.slowest_ms = max(self.slowest_ms, (time.monotonic() - begin) * 1000)


def steady_load(server: Server, seconds: float, log: Log) -> Measurement:
    """
    Open loop: requests leave at fixed times whatever the server does, and latency counts from the
    planned time, so a stall shows in every request that it delayed. Repeated while other work
    disturbs it.
    """
    load = ["-m", "put", "-t", "bench", "-c", "16", "-w", "64", "-b", "1024"]
    for _ in range(1 + REPEATS):
        run = generate(server, [*load, "-r", str(STEADY_RATE)], seconds, 2.0)
        log(
            f"{server.name}: {run.rate:.0f} put/s, p50 {run.p50_us / 1000:.2f}"
            f" p99 {run.p99_us / 1000:.2f} max {run.max_us / 1000:.1f} ms,"
            f" {run.cpu_us:.1f} us of CPU a request,"
            f" other work {run.other_cpu:.0f} %, steal {run.steal:.0f} %"
        )
        if undisturbed(run):
            break
    return run


def steady_checks(start: Start, seconds: float, log: Log) -> list[Check]:
    """
    The steady load alone, and again while segments roll, retention deletes them and ``stats`` is
    asked each second. Segments are counted by their names, which are offsets: the last name proves
    how much was rolled.
    """
    checks = []
    with running(start, Layout()) as server:
        run = steady_load(server, seconds, log)
        checks += _latency_checks(f"{server.name}: {STEADY_RATE} put/s", run)
    with running(start, ROLLING) as server, StatsPoll(server) as poll:
        run = steady_load(server, seconds, log)
        segments = server.segments("bench")
        rolled = int(segments[-1].stem) // ROLLING.segment_size
        log(
            f"{server.name}: about {rolled} segments rolled, {rolled + 1 - len(segments)} deleted,"
            f" {poll.asked} stats answers, the slowest in {poll.slowest_ms:.1f} ms"
        )
        checks += _latency_checks(f"{server.name}: {STEADY_RATE} put/s, rolling, stats", run)
    return checks


def _latency_checks(name: str, run: Measurement) -> list[Check]:
    return [
        Check(f"{name}: rate", run.rate, STEADY_RATE * 0.99, True, "/s"),
        Check(f"{name}: p99", run.p99_us / 1000, P99_LIMIT_MS, False, " ms"),
        Check(f"{name}: max", run.max_us / 1000, MAX_LIMIT_MS, False, " ms"),
    ]


def memory_checks(start: Start, log: Log) -> list[Check]:
    """
    Resident memory of a broker that has just started, and with 1,000 partitions that hold messages
    and 1,000 connections that say nothing.

    The messages come slowly: after full load the C library keeps up to 32 MiB of freed memory,
    which belongs to the load and not to the partitions. That is logged beside it.
    """
    with running(start, MANY_PARTITIONS) as server:
        before = resident_kib(server.pid) / 1024
        load = ["-m", "put", "-t", "wide", "-c", "16", "-w", "64", "-b", "100"]
        load += ["-Q", "-P", "1000"]
        generate(server, [*load, "-r", "5000"], 1.0, 0.0)
        loaded = resident_kib(server.pid) / 1024
        idle = [str(HERE / "bin/metabench"), "-m", "idle", "-c", "1000", "-d", "6", "-u", "0"]
        with subprocess.Popen(
            pinned([*idle, "-p", str(server.port)], LOAD_CORE),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        ) as generator:
            time.sleep(4)
            connected = resident_kib(server.pid) / 1024
            generator.wait()
        generate(server, load, 1.0, 0.0)
        log(
            f"{server.name}: {before:.0f} MiB after start, {loaded:.0f} MiB with 1000 partitions,"
            f" {connected:.0f} MiB with 1000 idle connections as well,"
            f" {resident_kib(server.pid) / 1024:.0f} MiB after full load"
        )
        name = f"{server.name}: 1,000 partitions and idle connections"
        return [
            Check(f"{server.name}: resident after start", before, FRESH_LIMIT_MIB, False, " MiB"),
            Check(name, connected, MEMORY_LIMIT_MIB, False, " MiB"),
        ]


SOAK_LOADS = {
    "put": ["-m", "put", "-w", "64"],
    "local": ["-m", "local", "-k", "10"],
    "xa": ["-m", "xa"],
}


def soak_checks(start: Start, mode: str, seconds: float, log: Log) -> list[Check]:
    """Full load for ``seconds``: memory at the end is what it was after the first tenth."""
    with running(start, Layout()) as server:
        load = [*SOAK_LOADS[mode], "-t", "bench", "-c", "16", "-b", "1024"]
        samples: list[tuple[float, float]] = []
        ended = threading.Event()
        begin = time.monotonic()

        def sample() -> None:
            while not ended.wait(seconds / 60):
                samples.append((time.monotonic() - begin, resident_kib(server.pid) / 1024))

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            run = generate(server, load, seconds, 0.0)
        finally:
            ended.set()
            sampler.join()
        slowest = run.max_us / 1000
        log(f"{server.name}: {run.rate:.0f} {mode}/s for {seconds:.0f} s, max {slowest:.0f} ms")
        log("  resident MiB: " + " ".join(f"{mib:.0f}" for _, mib in samples[::6]))
        settled = [mib for at, mib in samples if at >= seconds / 10]
        growth = settled[-1] - settled[0]
        name = f"{server.name}: growth in {seconds:.0f} s of {mode}"
        return [Check(name, growth, MEMORY_GROWTH_MIB, False, " MiB")]


def disk_room(directory: Path) -> float:
    """Free space of the file system that holds ``directory``, in GiB."""
    return shutil.disk_usage(directory).free / (1 << 30)
