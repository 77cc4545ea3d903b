"""Driving the load generator, and filling a topic with the data that gets read back."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.brokers import HERE, Server
from benchmarks.cells import Cell
from benchmarks.memory import warm_free_pages
from benchmarks.processes import LOAD_CORE, BenchmarkError, pinned

FILL_MESSAGES = 65536
FILL_BODY = 1024
READ_SPAN = (FILL_BODY + 20) * (FILL_MESSAGES - 4096)  # less than is certainly flushed and readable


@dataclass(frozen=True)
class Measurement:
    """
    One run of the load generator.

    :ivar rate: requests per second.
    :ivar cpu_us: CPU time of the server, user and system, microseconds per request.
    :ivar own_cpu: percent of its core that the generator used; over 90 it is the limit, not the
        server.
    :ivar other_cpu: percent of a core that went to processes which are neither.
    :ivar steal: percent of a core that the hypervisor gave to somebody else.
    """

    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    max_us: float
    server_cpu: float
    own_cpu: float
    other_cpu: float
    steal: float
    resident_kib: float

    def as_json(self) -> dict[str, float]:
        """A plain dictionary."""
        return asdict(self)

    @classmethod
    def parse(cls, text: str) -> Measurement:
        """Read the generator's JSON line."""
        found: dict[str, Any] = json.loads(text)
        latency = found["lat_us"]
        return cls(
            rate=found["rps"],
            cpu_us=found["server_us_per_req"],
            p50_us=latency["p50"],
            p99_us=latency["p99"],
            max_us=latency["max"],
            server_cpu=found["server_cpu_pct"],
            own_cpu=found["own_cpu_pct"],
            other_cpu=found["other_cpu_pct"],
            steal=found["steal_pct"],
            resident_kib=found["server_rss_kib"],
        )


def generate(server: Server, options: list[str], seconds: float, warm_up: float) -> Measurement:
    """
    Run ``metabench`` against ``server``; an error reply or a lost connection raises
    ``BenchmarkError``.
    """
    generator = [str(HERE / "bin/metabench"), "-j", "-p", str(server.port), "-i", str(server.pid)]
    argv = [*generator, *options, "-d", f"{seconds:g}", "-u", f"{warm_up:g}"]
    done = subprocess.run(
        pinned(argv, LOAD_CORE), capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode != 0:
        server.process.check_alive()
        said = done.stderr.strip() or done.stdout.strip()
        raise BenchmarkError(f"{server.name}: {' '.join(argv)}: {done.returncode}: {said}")
    return Measurement.parse(done.stdout)


def measure(server: Server, cell: Cell, seconds: float, warm_up: float) -> Measurement:
    """One measurement of one cell."""
    options = ["-m", cell.mode, "-t", cell.topic]
    options += ["-c", str(cell.connections)]
    options += ["-k" if cell.transactional else "-w", str(cell.window)]
    if cell.mode == "get":
        options += ["-s", str(cell.size), "-S", str(READ_SPAN)]
    else:
        options += ["-b", str(cell.size)]
        warm_free_pages()
    if cell.partitions > 1:
        options += ["-Q", "-P", str(cell.partitions)]
    return generate(server, options, seconds, warm_up)


def fill(server: Server, topic: str = "reads", messages: int = FILL_MESSAGES) -> None:
    """
    Store the messages that the get cells read: the same 64 MiB in messages of 1 KiB in every
    server, unless it is to be another number of ``messages``.
    """
    body = bytes(range(256)) * (FILL_BODY // 256)
    crc = zlib.crc32(body) & 0x7FFFFFFF
    request = b"put %b 0 %d 0 %d 1\r\n%b" % (topic.encode(), FILL_BODY, crc, body)
    at_once = 64
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        replies = connection.makefile("rb")
        for _ in range(messages // at_once):
            connection.sendall(request * at_once)
            for _ in range(at_once):
                head = replies.readline().split()
                text = replies.read(int(head[2]))
                if head[1] != b"200":
                    raise BenchmarkError(f"{server.name} refused to store: {text!r}")
    read_anew(server, topic)


def read_anew(server: Server, topic: str) -> None:
    """
    Let the page cache hold the segments as one sequential read leaves them. As the writes leave
    them, it has small pieces where a server wrote little at a time, and ``sendfile`` of a MiB then
    costs twice as much: 215 to 253 instead of 95 to 175 us, with our broker.
    """
    for path in server.segments(topic):
        with path.open("r+b", buffering=0) as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while file.read(4 << 20):
                pass


def settle(server: Server, topic: str, seconds: float = 10.0) -> None:
    """
    Wait until retention has removed what a cell left behind, so that the work is not done, on the
    same core, while another server is measured.
    """
    deadline = time.monotonic() + seconds
    while len(server.segments(topic)) > 1 and time.monotonic() < deadline:
        time.sleep(0.2)


def sync_time_us(directory: Path, count: int = 200) -> float:
    """
    The median time of ``fdatasync`` after appending 1 KiB: group commit figures mean little without
    it.
    """
    path = directory / "sync-probe"
    times = []
    with path.open("ab", buffering=0) as file:
        for _ in range(count):
            file.write(b"x" * 1024)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begin)
    path.unlink()
    return statistics.median(times) * 1e6
