"""
The comparison of all partitions of two brokers, or of their data directories, for ``metaq compare``
and ``metaq promote``.

A broker is asked over its port, so the original works as well. A directory is only read; its broker
may be running, and then its last bytes may be incomplete.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from metamorphosis.client.network.replies import SUCCESS
from metamorphosis.errors import (
    LogChanged,
    MetaQError,
    OffsetTooSmall,
    PeerUnreachable,
    SegmentsInvalid,
    StoreError,
)
from metamorphosis.interfaces import IRuntime
from metamorphosis.replication.logs import (
    Comparison,
    DirectoryLog,
    LogReader,
    Verdict,
    compare_all,
)
from metamorphosis.replication.offsetrecovery import LocalLog
from metamorphosis.replication.peer import Heartbeats, Peer, PeerLog
from metamorphosis.replication.status import parse_status
from metamorphosis.store.layout import split_directory_name
from metamorphosis.store.opening import JOURNAL
from metamorphosis.wire.commands import StatsCommand

GROUP: Final = "metaq"
"""The group name in requests that do not come from a consumer group."""

PROBE: Final = "_metaq_slave_status_test"
"""The topic of the probes that a Java pair slave stores; they are not messages."""

ATTEMPTS: Final = 3
"""Attempts to compare a partition whose log loses its beginning meanwhile."""


@dataclass(frozen=True, slots=True)
class Row:
    """
    One partition.

    :ivar comparison: None after a fault.
    :ivar fault: the reason why it could not be compared.
    """

    topic: str
    number: int
    comparison: Comparison | None
    fault: str = ""

    @property
    def is_prefix(self) -> bool:
        """Whether one log is proven to begin with the other."""
        return self.comparison is not None and self.comparison.is_prefix

    def verdict(self, a: str = "A", b: str = "B") -> str:
        """
        The outcome in words.

        :param a: the name of the first side.
        :param b: the name of the second side.
        """
        found = self.comparison
        if found is None:
            return self.fault
        ahead, behind = (a, b) if found.verdict in (Verdict.A_AHEAD, Verdict.APART) else (b, a)
        if found.verdict is Verdict.EQUAL:
            return "equal"
        if found.verdict is Verdict.DIFFERENT:
            return f"differ from offset {found.differs_at}"
        if found.verdict in (Verdict.ABSENT_A, Verdict.ABSENT_B):
            absent = a if found.verdict is Verdict.ABSENT_A else b
            return f"{absent} does not show it, which does not prove that it has none"
        if found.verdict is Verdict.APART:
            return "apart: one ends below the beginning of the other"
        return f"{ahead} is ahead of {behind} by {found.ahead} bytes"


class Side(ABC):
    """
    One of the two sides of a comparison. Thread: the loop's.

    :ivar name: as given on the command line.
    :ivar proves_absence: whether a partition that is not shown does not exist.
    """

    name: str
    proves_absence: bool

    @abstractmethod
    async def open(self) -> None:
        """
        Connect to the broker, or check that the directory exists.

        :raises MetaQError: it cannot be reached or read.
        """

    @abstractmethod
    async def partitions(self) -> set[tuple[str, int]]:
        """
        Topic and number of each.

        :raises MetaQError: it cannot be reached or read.
        """

    @abstractmethod
    def log(self, topic: str, number: int) -> LogReader:
        """The log of a partition."""

    @abstractmethod
    async def close(self) -> None:
        """Release the connection."""


class DirectorySide(Side):
    """
    One data directory, or all data directories of a broker. Reads block.

    :param paths: of the directories.
    :param name: None: the first path.
    """

    proves_absence = True

    def __init__(self, *paths: str, name: str | None = None) -> None:
        self.name = paths[0] if name is None else name
        self._paths = paths

    async def open(self) -> None:
        """See ``Side``."""
        for path in self._paths:
            if not os.path.isdir(path):
                raise StoreError(f"{path} is not a directory")

    async def partitions(self) -> set[tuple[str, int]]:
        """See ``Side``."""
        return {(log.topic, log.number) for log in self.logs()}

    def logs(self) -> list[LocalLog]:
        """
        All partitions, sorted by topic and number; other directories are skipped.

        :raises StoreError: a directory cannot be read.
        """
        found = []
        for path in self._paths:
            try:
                with os.scandir(path) as entries:
                    names = [entry.name for entry in entries if entry.is_dir()]
            except OSError as error:
                raise StoreError(f"{path} cannot be read: {error.strerror}") from error
            for name in names:
                partition = _partition(name)
                if partition is not None:
                    found.append(LocalLog(*partition, os.path.join(path, name)))
        return sorted(found)

    def log(self, topic: str, number: int) -> LogReader:
        """See ``Side``."""
        there = [os.path.join(path, f"{topic}-{number}") for path in self._paths]
        return DirectoryLog(next(filter(os.path.isdir, there), there[0]))

    async def close(self) -> None:
        """See ``Side``."""


def _partition(name: str) -> tuple[str, int] | None:
    """Topic and number of a partition's directory; None for another directory."""
    try:
        return None if name == JOURNAL else split_directory_name(name)
    except SegmentsInvalid:
        return None


class BrokerSide(Side):
    """
    A broker, ours or the original.

    :param address: ``host:port``.
    :param timeout: seconds to wait for a connection.
    """

    proves_absence = False

    def __init__(self, runtime: IRuntime, address: str, timeout: float) -> None:
        self.name = address
        self._timeout = timeout
        milliseconds = int(timeout * 1000)
        heartbeats = Heartbeats(idle_ms=milliseconds, timeout_ms=milliseconds)
        self._peer = Peer(runtime, f"meta://{address}", heartbeats)

    async def open(self) -> None:
        """See ``Side``."""
        self._peer.start()
        patience = min(self._timeout, 1.0)
        if not await self._peer.connection.reached(self._timeout, patience):
            fault = self._peer.fault
            reason = f"no answer within {self._timeout:g} s" if fault is None else fault.reason
            raise PeerUnreachable(f"{self.name}: {reason}")
        # Our broker opens all partitions at its start; the original may not have opened some.
        self.proves_absence = parse_status(await self._stats("replication")) is not None

    async def partitions(self) -> set[tuple[str, int]]:
        """See ``Side``: the partitions that the broker has opened."""
        found = set()
        for line in await self._stats("offsets"):
            words = line.split(" ")
            if len(words) == 7 and words[1] == "part" and words[2].isdecimal():
                found.add((words[0], int(words[2])))
        return found

    async def _stats(self, item: str) -> list[str]:
        status, body = await self._peer.connection.call(StatsCommand(item), self._timeout)
        if status != SUCCESS:
            raise PeerUnreachable(f"{self.name}: stats {item}: no answer (status {status})")
        return body.decode("utf-8", "replace").split("\r\n")

    def log(self, topic: str, number: int) -> LogReader:
        """See ``Side``."""
        return PeerLog(self._peer, topic, number, GROUP)

    async def close(self) -> None:
        """See ``Side``."""
        await self._peer.close()


def side_of(runtime: IRuntime, text: str, timeout: float) -> Side:
    """
    A directory if one of that name exists, or if the text has a slash; else a broker.

    :raises MetaQError: the text is neither.
    """
    if os.sep in text or os.path.isdir(text):
        return DirectorySide(text)
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise StoreError(f"{text!r} is neither a directory that exists nor HOST:PORT")
    return BrokerSide(runtime, text, timeout)


async def compare_sides(a: Side, b: Side) -> AsyncIterator[Row]:
    """
    Compare every byte of each partition that either side shows, sorted by name.

    :raises MetaQError: a side cannot be reached or read.
    """
    shown = await a.partitions() | await b.partitions()
    for topic, number in sorted(shown):
        if topic != PROBE:
            yield await compare_partition(a, b, topic, number)


async def compare_partition(a: Side, b: Side, topic: str, number: int) -> Row:
    """Compare one partition; a fault is reported in the row."""
    fault = ""
    for _ in range(ATTEMPTS):
        try:
            found = await compare_all(a.log(topic, number), b.log(topic, number))
        except (LogChanged, OffsetTooSmall) as error:
            fault = f"not compared, it changes meanwhile: {error}"
        except (MetaQError, OSError) as error:
            return Row(topic, number, None, f"not compared: {error}")
        else:
            return Row(topic, number, _proven(found, a, b))
    return Row(topic, number, None, fault)


def _proven(found: Comparison, a: Side, b: Side) -> Comparison:
    """A log that is proven absent counts as a prefix of every other."""
    if found.verdict is Verdict.ABSENT_A and a.proves_absence:
        return Comparison(Verdict.B_AHEAD, None, found.b)
    if found.verdict is Verdict.ABSENT_B and b.proves_absence:
        return Comparison(Verdict.A_AHEAD, found.a, None)
    return found
