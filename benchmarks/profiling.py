"""Where our broker's time goes in one cell: ``cProfile`` inside it, or ``perf`` beside it."""

from __future__ import annotations

import io
import pstats
import shutil
import subprocess
from pathlib import Path

from benchmarks.brokers import Layout, start_ours
from benchmarks.cells import Cell
from benchmarks.load import fill, measure
from benchmarks.processes import BenchmarkError
from benchmarks.rounds import Log

TOP = 25


def profile_python(
    directory: Path, zookeeper_port: int, cell: Cell, seconds: float, log: Log
) -> str:
    """
    Run the cell with the broker under ``cProfile`` and return its functions by own time. The
    profiler makes calls about 1.6 times as dear and inlined work no dearer: read the order, not the
    microseconds.
    """
    saved = directory.with_name(directory.name + ".profile")
    options = (f"--profile={saved}", "--profiler=cprofile", "--savestats")
    server = start_ours(directory, zookeeper_port, Layout(flush_mode=cell.flush_mode), options)
    try:
        if cell.mode == "get":
            fill(server)
        run = measure(server, cell, seconds, 0.5)
        log(f"{cell.name} under cProfile: {run.rate:.0f}/s, {run.cpu_us:.2f} us of CPU a request")
        server.process.stop()
    finally:
        server.stop()
    text = io.StringIO()
    pstats.Stats(str(saved), stream=text).strip_dirs().sort_stats("tottime").print_stats(TOP)
    saved.unlink()
    return text.getvalue()


def profile_machine(
    directory: Path, zookeeper_port: int, cell: Cell, seconds: float, log: Log
) -> str:
    """
    Sample the broker with ``perf`` while the cell runs: the shares of interpreter, kernel, zlib and
    libc.
    """
    if shutil.which("perf") is None:
        raise BenchmarkError("perf (Debian: linux-perf) is not installed")
    samples = directory.with_name(directory.name + ".perf")
    server = start_ours(directory, zookeeper_port, Layout(flush_mode=cell.flush_mode))
    try:
        if cell.mode == "get":
            fill(server)
        measure(server, cell, 0.5, 0.5)
        record = ["perf", "record", "-q", "-o", str(samples), "-p", str(server.pid)]
        with subprocess.Popen([*record, "--", "sleep", f"{seconds:g}"], stderr=subprocess.DEVNULL):
            run = measure(server, cell, seconds, 0.2)
        log(f"{cell.name} under perf: {run.rate:.0f}/s, {run.cpu_us:.2f} us of CPU a request")
    finally:
        server.stop()
    try:
        return _perf_report(samples, "dso") + _perf_report(samples, "dso,symbol")
    finally:
        samples.unlink(missing_ok=True)


def _perf_report(samples: Path, keys: str) -> str:
    command = ["perf", "report", "--stdio", "-i", str(samples), "--sort", keys]
    command += ["--percent-limit", "0.7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"perf report failed: {done.stderr.strip()[-500:]}")
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("#")]
    return "\n".join([f"-- perf, by {keys}", *lines[:TOP], ""])
