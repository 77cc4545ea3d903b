"""What is measured: the cells, and the ratios that each must and should reach."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

WARM_UP_TOPIC = "bench"


@dataclass(frozen=True)
class Cell:
    """
    One load on one server.

    :ivar window: requests in flight on each connection, of transactions the messages in each.
    :ivar flush_mode: ``flushTxLogAtCommit`` of the brokers.
    :ivar floor: requests or transactions per second, ours over the Java broker's: the least that
        is accepted; None: not judged.
    :ivar aim: the same ratio, as users are told.
    :ivar cpu_floor: CPU time per request, the yardstick's over ours: the least that is accepted.
    """

    name: str
    mode: str
    connections: int
    window: int
    size: int
    topic: str = "bench"
    partitions: int = 1
    floor: float | None = None
    aim: float | None = None
    cpu_floor: float | None = None
    flush_mode: int = 1

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
        """
        ``metaref`` neither flushes nor spreads work over partitions nor knows transactions, so it
        is no yardstick for these.
        """
        return not self.transactional and self.topic in ("bench", "reads")


def _put(load: str, floor: float | None, aim: float | None, cpu_floor: float | None = None) -> Cell:
    connections, window, size = (int(word) for word in load.split("/"))
    return Cell(f"put {load}", "put", connections, window, size, "bench", 1, floor, aim, cpu_floor)


def _commit(load: str, floor: float, aim: float) -> Cell:
    connections, window, size = (int(word) for word in load.split("/"))
    return Cell(f"commit {load}", "put", connections, window, size, "commit", 1, floor, aim)


def _get(load: str, floor: float | None, aim: float | None, cpu_floor: float | None) -> Cell:
    connections, window, size = (int(word) for word in load.split("/"))
    return Cell(f"get {load}", "get", connections, window, size, "reads", 1, floor, aim, cpu_floor)


def _transaction(kind: str, load: str, floor: float, aim: float, flush_mode: int = 1) -> Cell:
    connections, messages, size = (int(word) for word in load.split("/"))
    name = f"{kind} {load}" if flush_mode == 1 else f"{kind}-{flush_mode} {load}"
    return Cell(
        name, kind, connections, messages, size, floor=floor, aim=aim, flush_mode=flush_mode
    )


# connections / in flight on each / bytes
CELLS = (
    _put("1/1/100", 0.9, 1.3),
    _put("1/1/1024", 0.9, 1.3),
    _put("1/1/8192", None, None),
    _put("16/1/100", 1.0, 1.5),
    _put("16/1/1024", 1.0, 1.5, 0.38),
    _put("16/1/8192", 1.6, 2.0),
    _put("200/1/100", 0.9, 1.3),
    _put("200/1/1024", 0.9, 1.3, 0.45),
    _put("200/1/8192", 1.6, 2.0),
    _put("16/64/100", 2.2, 5.0, 0.12),
    _put("16/64/1024", 2.0, 4.0, 0.22),
    _put("16/64/8192", 2.2, 3.5, 0.45),
    _commit("1/1/1024", 0.8, 1.2),
    _commit("16/1/1024", 0.8, 1.5),
    _commit("200/1/1024", 1.1, 2.0),
    _commit("16/64/1024", 1.8, 3.0),
    _get("16/1/65536", 0.9, 1.3, 0.38),
    _get("1/1/1048576", 1.0, 1.4, None),
    _get("16/1/1048576", 1.0, 1.4, 0.75),
    Cell("wide 16/64/1024", "put", 16, 64, 1024, "wide", 200),
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
