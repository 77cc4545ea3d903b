"""
Many connections that say nothing, and many topics of which few are written: memory, idle CPU, and
what they cost the others.

10,000 connections need a hard limit of ``FILES`` open files: the broker keeps half of what it may
open for its segments. Root raises the limit where it may; below it as many connections are measured
as it allows, and the report says how many. The ports of one address are enough.
"""

from __future__ import annotations

import contextlib
import json
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator

from benchmarks.brokers import HERE, Layout, Server
from benchmarks.cells import Cell
from benchmarks.endurance import Start, running
from benchmarks.load import generate, measure, settle
from benchmarks.memory import warm_free_pages
from benchmarks.processes import LOAD_CORE, BenchmarkError, ask, pinned
from benchmarks.report import Check
from benchmarks.rounds import Log

IDLE = 10_000
SPARE = 100  # descriptors of broker and generator for everything else
FILES = 2 * (IDLE + SPARE)

TOPICS = 1000
WRITTEN = 100

ROUNDS = 3
RATE_FLOOR = 0.8
MEMORY_LIMIT_MIB = 90.0
BYTES_LIMIT = 3500.0
CPU_LIMIT = 1.0  # percent of a core
CPU_SECONDS = 10.0

PLAIN = Cell("put 16/1/1024", "put", 16, 1, 1024)


def checks(start: Start, seconds: float, log: Log) -> list[Check]:
    """All of it, on two brokers of their own."""
    return [*_topic_checks(start, seconds, log), *_connection_checks(start, seconds, log)]


def possible_connections(log: Log) -> int:
    """``IDLE``, or what the limit of open files allows of it, after it was raised if it may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        wanted = max(hard, FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        count = hard // 2 - SPARE
        log(
            f"{count} connections instead of {IDLE}, which need a hard limit of {FILES} open files"
            f" (ulimit -Hn); here it is {hard} and may not be raised"
        )
        return count
    return IDLE


def _topic_checks(start: Start, seconds: float, log: Log) -> list[Check]:
    """The plain load, and the same spread over a hundred of a thousand topics, in turns."""
    with running(start, Layout(topics=TOPICS, retention=round(seconds) + 2)) as server:
        options = ["-m", "put", "-t", "many", "-T", str(WRITTEN), "-c", "16", "-b", "1024"]
        plain, spread = [], []
        for _ in range(ROUNDS):
            plain.append(_plain_rate(server, seconds))
            warm_free_pages()
            spread.append(generate(server, options, seconds, 0.4).rate)
        name = f"{WRITTEN} of {TOPICS} topics: req/s over one's"
        return [_share(name, plain, spread, log)]


def _plain_rate(server: Server, seconds: float) -> float:
    rate = measure(server, PLAIN, seconds, 0.4).rate
    settle(server, PLAIN.topic)
    return rate


def _share(name: str, plain: list[float], crowded: list[float], log: Log) -> Check:
    share = statistics.median(many / one for one, many in zip(plain, crowded, strict=True))
    one, many = statistics.median(plain), statistics.median(crowded)
    log(f"{name}: {many:.0f}/s and {one:.0f}/s")
    return Check(name, share, RATE_FLOOR, True)


def _connection_checks(start: Start, seconds: float, log: Log) -> list[Check]:
    """Memory and CPU of idle connections, and the plain load with and without them, in turns."""
    count = possible_connections(log)
    with running(start, Layout(retention=round(seconds) + 2)) as server:
        report = _idle_report(server, count)
        idle = f"{count} idle connections"
        memory = report["server_rss_kib"] / 1024
        found = [
            Check(f"{idle}: resident", memory, MEMORY_LIMIT_MIB, False, " MiB"),
            Check(f"{idle}: CPU", report["idle_cpu_pct"], CPU_LIMIT, False, " %"),
            Check(f"{idle}: bytes for each", report["per_conn_bytes"], BYTES_LIMIT, False),
        ]
        plain, crowded = [], []
        for _ in range(ROUNDS):
            plain.append(_plain_rate(server, seconds))
            with idle_connections(server, count):
                crowded.append(_plain_rate(server, seconds))
        name = f"16 of {count + 16} connections write: req/s over 16's"
        return [*found, _share(name, plain, crowded, log)]


def _generator(server: Server, count: int, seconds: float) -> list[str]:
    program = [str(HERE / "bin/metabench"), "-j", "-m", "idle", "-c", str(count), "-u", "2"]
    return pinned(
        [*program, "-d", f"{seconds:g}", "-p", str(server.port), "-i", str(server.pid)], LOAD_CORE
    )


def _idle_report(server: Server, count: int) -> dict[str, float]:
    """What the generator says of so many idle connections."""
    done = subprocess.run(
        _generator(server, count, CPU_SECONDS),
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"{count} idle connections: {done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def idle_connections(server: Server, count: int) -> Iterator[None]:
    """They are there for the length of a block."""
    with subprocess.Popen(
        _generator(server, count, 600.0), stdout=subprocess.DEVNULL, start_new_session=True
    ) as generator:
        try:
            _wait_for(server, count, generator)
            yield
        finally:
            generator.terminate()
    _wait_for(server, 0, None)


def _wait_for(server: Server, count: int, generator: subprocess.Popen[bytes] | None) -> None:
    """Until the broker has about so many connections."""
    deadline = time.monotonic() + 60
    while abs(connection_count(server) - count) > 1:
        if time.monotonic() > deadline or (generator is not None and generator.poll() is not None):
            raise BenchmarkError(f"{server.name} does not come to {count} connections")
        time.sleep(0.1)


def connection_count(server: Server) -> int:
    """As ``stats`` has it, this one's included."""
    text = ask(server.port, b"stats\r\n").decode()
    return int(text.partition("curr_connections ")[2].split()[0])
