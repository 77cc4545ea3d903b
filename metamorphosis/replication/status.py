"""
The state of a replicated broker at one moment, for ``stats replication``, ``metaq slave-status``
and the pages.

A role makes ``RoleFigures``; they are sent as lines of ``stats replication`` and parsed again, so a
program on another machine shows the same. The first lines, ``original_lines``, are those of the
original's JMX bean.

Pure. Source: ``SubscribeHandler.getStatus``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from metamorphosis.replication.logs import LogEnds

MASTER: Final = "master"
"""The role of a broker without another role."""

_PARTITION = re.compile(
    r"(\S+) part (\d+) min_offset (\d+) max_offset (\d+) other_offset (-|\d+)"
    r" seconds (\d+(?:\.\d+)?) state (\S+)(?: stands (.+))?"
)


@dataclass(frozen=True, slots=True)
class PartitionFigures:
    """
    One partition.

    :ivar own: range of the log here.
    :ivar other_end: the end of the other broker's log; None: unknown now.
    :ivar seconds: the time since the two were last level; 0.0 when they are.
    :ivar state: one word, defined by the role.
    :ivar stands: the reason why copying has stopped; empty while it runs.
    """

    topic: str
    number: int
    own: LogEnds
    other_end: int | None = None
    seconds: float = 0.0
    state: str = "copying"
    stands: str = ""

    @property
    def name(self) -> str:
        """``<topic>-<partition>``."""
        return f"{self.topic}-{self.number}"

    @property
    def behind(self) -> int | None:
        """Bytes of the other broker beyond the end here; None: unknown now."""
        return None if self.other_end is None else max(self.other_end - self.own.end, 0)


@dataclass(frozen=True, slots=True)
class RoleFigures:
    """
    A role.

    :ivar role: its name, as in the first line of the log.
    :ivar state: one word, defined by the role.
    :ivar runs: whether it does its work, or would with a connection to the other broker.
    :ivar other: URL of the other broker; None: unknown.
    :ivar connected: whether there is a connection to it.
    :ivar registered: whether this broker is in ZooKeeper, or is to be.
    :ivar failures: puts in a row that the pair slave did not acknowledge.
    :ivar waiting_records: records that wait for the pair slave.
    :ivar waiting_bytes: their bytes.
    :ivar notes: further notes for an operator, a line each.
    """

    role: str = MASTER
    state: str = "running"
    runs: bool = True
    other: str | None = None
    connected: bool = False
    registered: bool = True
    failures: int = 0
    waiting_records: int = 0
    waiting_bytes: int = 0
    partitions: tuple[PartitionFigures, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def requests(self) -> int:
        """The number of active partitions: with a connection all that have not stopped."""
        return sum(not each.stands for each in self.partitions) if self.connected else 0

    @property
    def is_well(self) -> bool:
        """Whether every partition that should be copied is."""
        return self.runs and self.connected and self.requests == len(self.partitions)


def status_lines(figures: RoleFigures) -> list[str]:
    """
    The lines of ``stats replication``, without the common first and last lines of all items: those
    of the original, then ours.
    """
    lines = [
        *original_lines(figures),
        f"role {figures.role}",
        f"state {figures.state}",
        f"runs {_boolean(figures.runs)}",
        f"other {figures.other or '-'}",
        f"connected {_boolean(figures.connected)}",
        f"registered {_boolean(figures.registered)}",
        f"failures {figures.failures}",
        f"waiting_records {figures.waiting_records}",
        f"waiting_bytes {figures.waiting_bytes}",
        f"well {_boolean(figures.is_well)}",
    ]
    for each in sorted(figures.partitions, key=lambda each: (each.topic, each.number)):
        other = "-" if each.other_end is None else str(each.other_end)
        stands = f" stands {_one_line(each.stands)}" if each.stands else ""
        lines.append(
            f"{each.topic} part {each.number} min_offset {each.own.first} max_offset {each.own.end}"
            f" other_offset {other} seconds {each.seconds:.1f} state {each.state}{stands}"
        )
    return lines + [f"note {_one_line(note)}" for note in figures.notes]


def parse_status(lines: Iterable[str]) -> RoleFigures | None:
    """
    Parse ``status_lines``; unknown lines of a newer broker are skipped.

    :returns: None if an older broker took the item for the name of a topic.
    """
    values: dict[str, str] = {}
    partitions: list[PartitionFigures] = []
    notes: list[str] = []
    for line in lines:
        match = _PARTITION.fullmatch(line)
        key, _, value = line.partition(" ")
        if match:
            partitions.append(_partition(match))
        elif key == "note":
            notes.append(value)
        elif value:
            values.setdefault(key, value)
    if "role" not in values:
        return None
    other = values.get("other", "-")
    return RoleFigures(
        role=values["role"],
        state=values.get("state", ""),
        runs=values.get("runs") == "true",
        other=None if other == "-" else other,
        connected=values.get("connected") == "true",
        registered=values.get("registered") == "true",
        failures=int(values.get("failures", 0)),
        waiting_records=int(values.get("waiting_records", 0)),
        waiting_bytes=int(values.get("waiting_bytes", 0)),
        partitions=tuple(partitions),
        notes=tuple(notes),
    )


def original_lines(figures: RoleFigures) -> list[str]:
    """
    The status of a Java slave.

    Differs: the original shows ``Replicate status:yes`` without a master, and while a partition is
    stopped.
    """
    if not figures.runs:
        return ["Subscriber handler:stop"]
    topics = Counter(each.topic for each in figures.partitions)
    return [
        "Subscriber handler:running",
        f"Replicate partitions:{len(figures.partitions)}",
        "Replicate topic partitions detail:",
        *(f"    {topic}:{count}" for topic, count in sorted(topics.items())),
        f"Replicate requests:{figures.requests}",
        "Replicate runner:running",
        f"Replicate status:{'yes' if figures.is_well else 'no'}",
    ]


def _partition(match: re.Match[str]) -> PartitionFigures:
    topic, number, first, end, other, seconds, state, stands = match.groups()
    return PartitionFigures(
        topic,
        int(number),
        LogEnds(int(first), int(end)),
        None if other == "-" else int(other),
        float(seconds),
        state,
        stands or "",
    )


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _one_line(text: str) -> str:
    """Without line ends."""
    return " ".join(text.split())
