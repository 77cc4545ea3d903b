"""
What the cells do not show of transactions: how long a start with a large journal takes, and the
memory of transactions that are open.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

from benchmarks.brokers import Layout, Server
from benchmarks.endurance import Start, running
from benchmarks.processes import BenchmarkError, cpu_seconds, resident_kib
from benchmarks.report import Check
from benchmarks.rounds import Log

RECOVERY_FLOOR = 1.0  # seconds of the Java broker over ours
RECOVERY_LIMIT = 900.0  # seconds; a start that takes longer counts as failed
OPEN_TRANSACTIONS = 30_000
OPEN_LIMIT_MIB = 120.0

BODY = b"m" * 1024
MESSAGES = 10  # in each committed transaction of the journal
AT_ONCE = 64  # transactions for whose replies the generator waits
PIN_BYTES = 16 << 20  # of messages after which a prepared transaction keeps the redo file

StartIn = Callable[[Path, int, Layout], Server]


class Connection:
    """One connection that sends many commands and then reads all their replies."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self._replies = self._socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; the broker rolls back its local transactions."""
        self._replies.close()
        self._socket.close()

    def ask(self, commands: Iterable[bytes]) -> bytes:
        """Send them, wait for as many replies, and return the text of the last one."""
        commands = list(commands)
        self._socket.sendall(b"".join(commands))
        text = b""
        for _ in commands:
            head = self._replies.readline().split()
            if not head:
                raise BenchmarkError(f"{self._server.name} closed a connection")
            text = self._replies.read(int(head[2]))
            if head[1] != b"200":
                raise BenchmarkError(f"{self._server.name}: {text.decode(errors='replace')}")
        return text


def _command(key: bytes, kind: bytes) -> bytes:
    return b"transaction %b bench %b 1\r\n" % (key, kind)


def _put(key: bytes, topic: bytes) -> bytes:
    return b"put %b 0 %d 0 -1 %b 1\r\n%b" % (topic, len(BODY), key, BODY)


def _local_keys() -> Iterator[bytes]:
    """Keys of local transactions without end."""
    return (b"TX:bench:%d" % number for number in count(1))


# A large journal


def fill_journal(server: Server, size: int, log: Log) -> int:
    """
    Commit local transactions in topic ``reads``, which retention leaves alone, until their messages
    are ``size`` bytes.

    A broker deletes a redo file in which nothing is open, so one XA transaction in each 16 MiB is
    prepared and left. Only for our broker: the commands of a transaction are sent at once.

    :returns: prepared transactions.
    """
    keys = _local_keys()
    prepared = 0
    step = AT_ONCE * MESSAGES * len(BODY)
    begin = time.monotonic()
    with Connection(server) as connection:
        for written in range(0, size, step):
            if written // PIN_BYTES >= prepared:
                prepared += 1
                xid = b"XID:1:%08x:01:bench" % prepared
                one = [_command(xid, b"BEGIN"), _put(xid, b"reads"), _command(xid, b"PREPARE")]
                connection.ask(one)
            commands: list[bytes] = []
            for key in islice(keys, AT_ONCE):
                commands.append(_command(key, b"BEGIN"))
                commands += [_put(key, b"reads")] * MESSAGES
                commands.append(_command(key, b"COMMIT_ONE_PHASE"))
            connection.ask(commands)
    log(f"a journal of {journal_mib(server):.0f} MiB took {time.monotonic() - begin:.0f} s")
    return prepared


def journal_mib(server: Server) -> float:
    """What the redo files of ``server`` take, in MiB."""
    files = (server.process.directory / "log/transactions").glob("redo.*")
    return sum(path.stat().st_size for path in files) / (1 << 20)


def make_journal(start: StartIn, directory: Path, zookeeper_port: int, mib: int, log: Log) -> int:
    """
    Let our broker write data and journal, and copy them into ``directory`` while it is idle: what a
    killed broker leaves. An orderly stop leaves hardly anything to recover.

    :returns: prepared transactions in the journal.
    """
    writer = directory.with_name(f"{directory.name}-writer")
    with running(lambda layout: start(writer, zookeeper_port, layout), Layout()) as server:
        prepared = fill_journal(server, mib << 20, log)
        if journal_mib(server) < mib:
            raise BenchmarkError(f"the journal has only {journal_mib(server):.0f} MiB of {mib}")
        shutil.copytree(writer, directory, ignore=shutil.ignore_patterns(".*"))  # locks, sockets
    return prepared


class StartTime(NamedTuple):
    """Seconds of the clock, and of CPU, which depends less on other work of the machine."""

    clock: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.clock:.1f} s ({self.cpu:.1f} s of CPU)"


def start_seconds(start: StartIn, directory: Path, zookeeper_port: int, prepared: int) -> StartTime:
    """
    How long a broker takes from the start of its process to its first answer with what lies in
    ``directory``, which is then deleted.

    :raises BenchmarkError: it does not list the prepared transactions, the Java broker after 10 s.
    """
    begin = time.monotonic()
    server = start(directory, zookeeper_port, Layout(start_limit=RECOVERY_LIMIT))
    taken = StartTime(time.monotonic() - begin, cpu_seconds(server.pid))
    try:
        deadline = time.monotonic() + (10 if server.name == "java" else 0)
        while (listed := _prepared(server)) != prepared:
            if time.monotonic() > deadline:
                text = f"{server.name} lists {listed} of {prepared} prepared transactions"
                raise BenchmarkError(text)
            time.sleep(0.2)  # the original fills its table after the port is open
    finally:
        server.stop()
    return taken


def _prepared(server: Server) -> int:
    with Connection(server) as connection:
        return len(connection.ask([_command(b"null", b"RECOVER")]).split())


def recovery_checks(
    starters: dict[str, StartIn],
    directory: Path,
    zookeeper_port: int,
    mib: int,
    rounds: int,
    log: Log,
) -> list[Check]:
    """
    Each broker starts with a copy of the same data and journal; before it, with none, which is what
    a start costs anyway. Medians of ``rounds``.
    """
    original = directory / "journal"
    taken: dict[str, list[StartTime]] = {name: [] for name in starters}
    try:
        prepared = make_journal(starters["ours"], original, zookeeper_port, mib, log)
        for number in range(rounds):
            for name in list(starters)[:: 1 if number % 2 == 0 else -1]:
                place = directory / f"{name}-recovering"
                empty = start_seconds(starters[name], place, zookeeper_port, 0)
                shutil.copytree(original, place)
                loaded = start_seconds(starters[name], place, zookeeper_port, prepared)
                taken[name].append(loaded)
                log(f"{name}: {loaded} to start with {mib} MiB, {empty} with none")
    finally:
        shutil.rmtree(original, ignore_errors=True)
    medians = {name: statistics.median(each.clock for each in taken[name]) for name in taken}
    if "java" not in medians:
        return []
    name = f"start with a journal of {mib} MiB: Java's time over ours"
    return [Check(name, medians["java"] / medians["ours"], RECOVERY_FLOOR, True)]


# Open transactions


def open_checks(start: Start, log: Log) -> list[Check]:
    """Resident memory of local transactions that are open, beyond their messages."""
    with running(start, Layout()) as server, Connection(server) as connection:
        before = resident_kib(server.pid) / 1024
        keys = list(islice(_local_keys(), OPEN_TRANSACTIONS))
        for number in range(0, len(keys), AT_ONCE):
            some = keys[number : number + AT_ONCE]
            connection.ask(_command(key, b"BEGIN") for key in some)
            connection.ask(_put(key, b"bench") for key in some)
        grown = resident_kib(server.pid) / 1024 - before
    bodies = OPEN_TRANSACTIONS * len(BODY) / (1 << 20)
    log(f"{server.name}: {before:.0f} MiB, {grown:.0f} more with {OPEN_TRANSACTIONS} transactions")
    name = f"{server.name}: {OPEN_TRANSACTIONS} open, beside {bodies:.0f} MiB"
    return [Check(name, grown - bodies, OPEN_LIMIT_MIB, False, " MiB")]
