"""
``python -m benchmarks.replication``: an asynchronous slave that catches up, and one that follows.

Catching up: an empty slave copies a log of 1 KiB messages, master and slave with a core each.
Following: puts at a steady rate; master on one core, generator and slave on the other. What the
slave lacks is the difference of the sizes of the files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.brokers import HERE, build
from benchmarks.processes import LOAD_CORE, SERVER_CORE, BenchmarkError, ServerProcess, pinned
from metamorphosis.message import encode_record
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.replicated import Member

BODY = 1024
PARTITIONS = 4
TOPIC = "bench"
TICKS = os.sysconf("SC_CLK_TCK")
WAIT_SECONDS = 120.0


@dataclass
class Process:
    """A member on a core."""

    member: Member
    process: ServerProcess

    @classmethod
    def start(cls, member: Member, core: int) -> Process:
        """Begin; it serves when it answers."""
        member.write_configuration()
        process = ServerProcess(
            member.role or "master",
            member.command(),
            Path(member.directory),
            core,
            member.environment(),
        )
        process.wait_for_answer(member.port, b"version 1\r\n", b"result 200", 30)
        return cls(member, process)

    def cpu_seconds(self) -> float:
        """User and system."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        words = stat.rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS

    def size(self) -> int:
        """Bytes of all segments."""
        found = 0
        for number in range(PARTITIONS):
            directory = Path(self.member.data) / f"{TOPIC}-{number}"
            if directory.is_dir():
                found += sum(each.stat().st_size for each in directory.iterdir())
        return found


class Pair:
    """A master, its slave and their ZooKeeper, below one directory."""

    def __init__(self, directory: str) -> None:
        self.zookeeper = EmbeddedZooKeeper(f"{directory}/zookeeper")
        self.zookeeper.start()
        topics = {TOPIC: {"numPartitions": PARTITIONS, "unflushThreshold": 1000}}
        self.master = Member(f"{directory}/master", None, topics=topics, zookeeper=self.zookeeper)
        self.slave = Member(
            f"{directory}/slave",
            "slave",
            {"slaveId": 0},
            topics=topics,
            zookeeper=self.zookeeper,
        )
        self.processes: list[Process] = []

    def start(self, member: Member, core: int) -> Process:
        """One of the two."""
        process = Process.start(member, core)
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Of all."""
        for each in self.processes:
            each.process.stop()
        self.zookeeper.stop()

    def fill(self, mib: int) -> int:
        """A log for the master to have; its bytes."""
        body = os.urandom(BODY)
        count = (mib << 20) // PARTITIONS // (BODY + 20)
        for number in range(PARTITIONS):
            path = Path(self.master.data) / f"{TOPIC}-{number}"
            path.mkdir(parents=True)
            with (path / f"{0:020d}.meta").open("wb") as file:
                for each in range(count):
                    file.write(encode_record(number * count + each + 1, 0, body))
        os.sync()
        return count * (BODY + 20) * PARTITIONS


def catch_up(directory: str, mib: int) -> str:
    """One line about a slave that begins with nothing."""
    pair = Pair(directory)
    try:
        total = pair.fill(mib)
        master = pair.start(pair.master, SERVER_CORE)
        time.sleep(1)
        before = master.cpu_seconds()
        slave = pair.start(pair.slave, LOAD_CORE)
        began = time.monotonic()
        own = slave.cpu_seconds()
        wait(lambda: slave.size() > 0, 0.001)
        first, at = slave.size(), time.monotonic()
        wait(lambda: slave.size() >= total, 0.005)
        seconds, rate = time.monotonic() - began, (total - first) / (time.monotonic() - at)
        megabytes = total / 1e6
        return (
            f"catch-up of {megabytes:.0f} MB: {rate / 1e6:.0f} MB/s, {seconds:.2f} s in all;"
            f" CPU a MB: slave {1000 * (slave.cpu_seconds() - own) / megabytes:.2f} ms,"
            f" master {1000 * (master.cpu_seconds() - before) / megabytes:.2f} ms"
        )
    finally:
        pair.end()


def follow(directory: str, rate: int, seconds: float, with_slave: bool) -> str:
    """One line about puts at a steady rate."""
    pair = Pair(directory)
    try:
        master = pair.start(pair.master, SERVER_CORE)
        slave = pair.start(pair.slave, LOAD_CORE) if with_slave else None
        time.sleep(2)
        before = master.cpu_seconds()
        load = subprocess.Popen(
            pinned(
                [
                    str(HERE / "bin" / "metabench"),
                    *("-j", "-p", str(pair.master.port), "-i", str(master.process.pid)),
                    *("-m", "put", "-t", TOPIC, "-c", "16", "-w", "64", "-b", str(BODY)),
                    *("-Q", "-P", str(PARTITIONS), "-r", str(rate)),
                    *("-d", f"{seconds:g}", "-u", "0.1"),
                ],
                LOAD_CORE,
            ),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        lags: list[int] = []
        while load.poll() is None:
            time.sleep(0.02)
            if slave is not None and master.size() > 10_000_000:
                lags.append(max(master.size() - slave.size(), 0))
        ended = time.monotonic()
        puts = master.size() // (BODY + 20)
        cpu = 1e6 * (master.cpu_seconds() - before) / max(puts, 1)
        text = f"{puts / seconds:.0f} put/s: CPU of the master {cpu:.1f} us a put"
        if slave is None or not lags:
            return f"without a slave, {text}"
        wait(lambda: slave.size() >= master.size(), 0.001)
        return (
            f"with a slave, {text}; behind {statistics.median(lags) / 1e6:.2f} MB at the median,"
            f" {max(lags) / 1e6:.2f} at most; level {time.monotonic() - ended:.2f} s after the last"
        )
    finally:
        pair.end()


def wait(condition: Callable[[], bool], pause: float) -> None:
    """Until it holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"not within {WAIT_SECONDS:.0f} s")
        time.sleep(pause)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__)
    parser.add_argument("--mib", type=int, default=1000, help="of the log to catch up with (1000)")
    parser.add_argument("--rate", type=int, default=20_000, help="puts a second (20000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the steady load (10)")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (3)")
    parser.add_argument("--only", choices=("catch-up", "follow"), help="one of the two")
    options = parser.parse_args()
    build()
    for _ in range(options.rounds):
        for name in ("catch-up", "follow", "alone"):
            if options.only not in (None, name) and not (
                options.only == "follow" and name == "alone"
            ):
                continue
            directory = tempfile.mkdtemp(prefix="metamorphosis-replication-")
            try:
                if name == "catch-up":
                    line = catch_up(directory, options.mib)
                else:
                    line = follow(directory, options.rate, options.seconds, name == "follow")
                print(line, flush=True)
            finally:
                shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
