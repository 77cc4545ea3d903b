"""What is measured: the cells, and the ratios that each must and should reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

WARM_UP_TOPIC = "bench"


@dataclass(frozen=True)
class Goal:
    """
    The least that is accepted of a ratio, and what users are told; None: not judged.
    """

    floor: float | None = None
    aim: float | None = None


NONE = Goal()


@dataclass(frozen=True)
class Cell:
    """
    One load on one server.

    :ivar window: requests in flight on each connection, of transactions the messages in each.
    :ivar rate: requests or transactions per second, ours over the Java broker's.
    :ivar cpu: CPU time per request, the yardstick's over ours.
    :ivar flush_mode: ``flushTxLogAtCommit`` of the brokers.
    :ivar congestion: the congestion control that is the system's default; empty: that of the
        network, see ``network``.
    """

    name: str
    mode: str
    connections: int
    window: int
    size: int
    topic: str = "bench"
    partitions: int = 1
    rate: Goal = NONE
    cpu: Goal = NONE
    flush_mode: int = 1
    congestion: str = ""

    @property
    def transactional(self) -> bool:
        """Whether its requests are whole transactions."""
        return self.mode in ("local", "xa")

    @property
    def writes(self) -> bool:
        """Whether it stores messages."""
        return self.mode != "get"

    @property
    def has_yardstick(self) -> bool:
        """``metaref`` neither flushes nor knows transactions, so it is no yardstick for these."""
        return not self.transactional and self.topic != "commit"


def _cell(kind: str, load: str, topic: str, partitions: int, rate: Goal, cpu: Goal) -> Cell:
    connections, window, size = (int(word) for word in load.split("/"))
    mode = "get" if kind == "get" else "put"
    return Cell(
        f"{kind} {load}", mode, connections, window, size, topic, partitions, rate=rate, cpu=cpu
    )


def _put(load: str, rate: Goal = NONE, cpu: Goal = NONE) -> Cell:
    return _cell("put", load, "bench", 1, rate, cpu)


def _commit(load: str, rate: Goal) -> Cell:
    return _cell("commit", load, "commit", 1, rate, NONE)


def _wide(load: str, rate: Goal = NONE, cpu: Goal = NONE) -> Cell:
    return _cell("wide", load, "wide", 200, rate, cpu)


def _get(load: str, rate: Goal, cpu: Goal) -> Cell:
    return _cell("get", load, "reads", 1, rate, cpu)


def _get_under_bbr(load: str, rate: Goal) -> Cell:
    return replace(_get(load, rate, NONE), name=f"get-bbr {load}", congestion="bbr")


def _transaction(kind: str, load: str, floor: float, aim: float, flush_mode: int = 1) -> Cell:
    connections, messages, size = (int(word) for word in load.split("/"))
    name = f"{kind} {load}" if flush_mode == 1 else f"{kind}-{flush_mode} {load}"
    return Cell(
        name, kind, connections, messages, size, rate=Goal(floor, aim), flush_mode=flush_mode
    )


LONE = Goal(1.1, 1.25), Goal(0.60, 0.75)
SIXTEEN = Goal(1.7, 2.3), Goal(0.75, 0.9)
TWO_HUNDRED = Goal(1.7, 2.1), Goal(0.75, 0.9)
LONG = Goal(1.5, 2.0), Goal(0.60, 0.85)

# connections / in flight on each / bytes
CELLS = (
    _put("1/1/100", *LONE),
    _put("1/1/1024", *LONE),
    _put("1/1/8192"),
    _put("16/1/100", *SIXTEEN),
    _put("16/1/1024", *SIXTEEN),
    _put("16/1/8192", *LONG),
    _put("200/1/100", *TWO_HUNDRED),
    _put("200/1/1024", *TWO_HUNDRED),
    _put("200/1/8192", *LONG),
    _put("16/64/100", Goal(6.0, 10.0), Goal(0.50, 0.8)),
    _put("16/64/1024", Goal(2.6, 4.5), Goal(0.45, 0.8)),
    _put("16/64/8192", Goal(1.8, 3.0), Goal(0.60, 0.85)),
    _wide("200/5/1024", Goal(2.5, 3.3), Goal(0.70, 0.85)),
    _wide("16/64/1024"),
    _commit("1/1/1024", Goal(0.95, 1.1)),
    _commit("16/1/1024", Goal(1.2, 1.8)),
    _commit("200/1/1024", Goal(1.5, 2.2)),
    _commit("16/64/1024", Goal(2.3, 3.5)),
    _get("16/1/4096", Goal(1.6, 2.4), Goal(0.45, 0.7)),
    _get("16/1/65536", Goal(1.4, 1.6), Goal(0.70, 0.85)),
    _get("1/1/1048576", Goal(1.2, 1.4), Goal(0.90, 1.0)),
    _get("16/1/1048576", Goal(1.2, 1.4), Goal(0.90, 1.0)),
    _get_under_bbr("1/1/1048576", Goal(1.0, 1.2)),
    _get_under_bbr("16/1/1048576", Goal(1.0, 1.2)),
    # connections / messages in a transaction / bytes; -2: with flush mode 2
    _transaction("local", "16/10/1024", 1.5, 4.0),
    _transaction("local", "1/10/1024", 0.9, 1.3),
    _transaction("xa", "16/1/1024", 1.5, 4.0),
    _transaction("local", "16/10/1024", 1.3, 3.0, flush_mode=2),
)

# The rate of the second is at least this share of the rate of the first.
WIDE_PAIR = ("put 16/64/1024", "wide 16/64/1024")
WIDE_FLOOR = 0.5

QUICK = (
    "put 16/1/1024",
    "put 16/64/1024",
    "commit 16/64/1024",
    "get 16/1/1048576",
    "local 16/10/1024",
    "xa 16/1/1024",
)


def select(patterns: list[str]) -> list[Cell]:
    """The cells whose names match one of the shell-like patterns, in the order of the table."""
    return [cell for cell in CELLS if any(fnmatchcase(cell.name, pattern) for pattern in patterns)]
