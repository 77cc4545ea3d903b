"""
A broker with large logs: 1,000 partitions, one of them a TiB in 1,024 full segments. How long a
start takes, how many descriptors it needs, and what a get at the front of the TiB costs.

The segments are sparse files with a MiB of messages at their beginning, so that they take 1 GiB
together. The last segment, into which the broker writes, begins after them: a start checks what is
in it, message by message, and how long that takes depends on its length and not on the others.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
import zlib
from pathlib import Path

from benchmarks import brokers
from benchmarks.brokers import Layout, Server
from benchmarks.load import generate
from benchmarks.processes import BenchmarkError
from benchmarks.report import Check
from benchmarks.rounds import Log

SEGMENTS = 1024
SEGMENT_BYTES = 1 << 30
PARTITIONS = 1000
MESSAGE_BYTES = 1024
PIECE_BYTES = 1 << 20

START_LIMIT_SECONDS = 3.0
FILES_LIMIT = 2
"""Segments of the TiB that are open after the start."""
FRONT_LIMIT = 1.25
"""CPU time of a get at the front, over one at the end."""
ROUNDS = 5


def checks(directory: Path, zookeeper_port: int, seconds: float, log: Log) -> list[Check]:
    """Make the logs, start a broker on them and read."""
    layout = Layout(segment_size=SEGMENT_BYTES, wide_partitions=PARTITIONS)
    large = directory / "data" / "reads-0"
    write_large_log(large)
    write_small_logs(directory / "data")
    begin = time.monotonic()
    server = brokers.start_ours(directory, zookeeper_port, layout)
    took = time.monotonic() - begin
    try:
        opened = open_segments(server.pid, large)
        log(f"started in {took:.2f} s; of {SEGMENTS + 1} segments {opened} are open")
        found = [
            Check(
                f"start with {PARTITIONS} partitions and 1 TiB",
                took,
                START_LIMIT_SECONDS,
                False,
                " s",
            ),
            Check("segments of the TiB open after it", opened, FILES_LIMIT, False),
        ]
        found.append(_front_check(server, seconds, log))
        walk(server)
        log(f"after a get in each of them {open_segments(server.pid, large)} are open")
        return found
    finally:
        server.stop()


def write_large_log(directory: Path) -> None:
    """The segments of the TiB."""
    directory.mkdir(parents=True)
    piece = messages(PIECE_BYTES)
    for number in range(SEGMENTS + 1):
        path = directory / f"{number * SEGMENT_BYTES:020d}.meta"
        with path.open("wb") as file:
            file.write(piece)
            if number < SEGMENTS:
                file.truncate(SEGMENT_BYTES)


def write_small_logs(data: Path) -> None:
    """The other partitions, of topic ``wide``, with one message each."""
    record = messages(1)
    for number in range(PARTITIONS - 1):
        directory = data / f"wide-{number}"
        directory.mkdir(parents=True)
        (directory / f"{0:020d}.meta").write_bytes(record)


def messages(size: int) -> bytes:
    """Records of ``MESSAGE_BYTES`` each, up to ``size`` bytes, at least one."""
    body = bytes(MESSAGE_BYTES - 20)
    checksum = zlib.crc32(body) & 0x7FFFFFFF
    heads = (
        len(body).to_bytes(4) + checksum.to_bytes(4) + number.to_bytes(8) + bytes(4)
        for number in range(1, 1 + max(1, size // MESSAGE_BYTES))
    )
    return b"".join(head + body for head in heads)


def open_segments(pid: int, directory: Path) -> int:
    """How many files of a directory a process has open."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += link.readlink().parent == directory
    return count


def _front_check(server: Server, seconds: float, log: Log) -> Check:
    """Gets of 64 KiB in the first segment and in the last, in turns."""
    front: list[float] = []
    end: list[float] = []
    for _ in range(ROUNDS):
        for offset, costs in ((0, front), (SEGMENTS * SEGMENT_BYTES, end)):
            options = ["-m", "get", "-t", "reads", "-c", "16", "-s", "65536"]
            options += ["-o", str(offset), "-S", str(PIECE_BYTES - 65536)]
            costs.append(generate(server, options, seconds, 0.2).cpu_us)
    first, last = statistics.median(front), statistics.median(end)
    log(f"a get of 64 KiB costs {first:.1f} us at the front and {last:.1f} us at the end")
    return Check(
        "a get at the front of 1 TiB: CPU over the end's", first / last, FRONT_LIMIT, False
    )


def walk(server: Server) -> None:
    """Read a piece of each segment."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        replies = connection.makefile("rb")
        for number in range(SEGMENTS + 1):
            offset = number * SEGMENT_BYTES
            connection.sendall(b"get reads g 0 %d %d 1\r\n" % (offset, MESSAGE_BYTES))
            kind, size, _ = replies.readline().split()
            if kind != b"value" or len(replies.read(int(size))) != MESSAGE_BYTES:
                raise BenchmarkError(f"nothing can be read at {offset}")
