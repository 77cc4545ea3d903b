"""
A small model of transactions, with which a broker is compared.

It has neither journal nor disk. ``expected`` computes the reply to a step, which is executed only
if the broker did not refuse it because of the disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

OK, MISSING = (200, ""), "has not been started"


class Stage(Enum):
    """Of an open transaction."""

    START = auto()
    IN_USE = auto()
    PREPARED = auto()


@dataclass
class Open:
    """
    One that has no outcome.

    :ivar deadline: second after which it is rolled back unless it is prepared.
    """

    deadline: float
    stage: Stage = Stage.START
    messages: list[tuple[int, bytes]] = field(default_factory=list)


Slot = tuple[str, int]
"""Key and, of a local one, the number of its connection; -1 for XA."""


class Model:
    """
    All that can be seen of a broker.

    :ivar open: transactions by key and connection.
    :ivar decided: outcomes by hand, as the codes that clients get.
    :ivar logs: bodies by partition.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.open: dict[Slot, Open] = {}
        self.decided: dict[str, int] = {}
        self.logs: dict[int, list[bytes]] = {0: [], 1: []}

    def slot(self, key: str, client: int) -> Slot:
        """The key of a transaction in ``open``."""
        return key, -1 if key.startswith("XID") else client

    def expected(self, kind: str, key: str, client: int) -> tuple[int, str]:
        """Status, and what the text contains, of a step."""
        xa = key.startswith("XID")
        if kind == "FORGET":
            return OK if xa else (500, "code=-4")
        found = self.open.get(self.slot(key, client))
        if kind == "BEGIN":
            completed = found is None and self.decided.get(key) == 8
            return (500, "code=8,") if completed else OK
        if found is None:
            if key in self.decided:
                return 500, f"code={self.decided[key]},"
            return 500, "code=-4" if xa else MISSING
        if kind == "PREPARE" and not xa:
            return 500, "code=-3"
        if kind == "PREPARE" and found.stage is not Stage.PREPARED:
            return 200, "3" if found.stage is Stage.START else "0"
        if kind == "PREPARE" or (
            kind == "COMMIT_TWO_PHASE" and xa and found.stage is not Stage.PREPARED
        ):
            return 500, "code=-6"
        return OK

    def carry_out(self, kind: str, key: str, client: int, timeout: int = 0) -> None:
        """Execute a step that was not refused."""
        slot = self.slot(key, client)
        found = self.open.get(slot)
        if kind == "FORGET":
            self.decided.pop(key, None)
        elif kind == "BEGIN":
            if found is None:
                deadline = self.now + timeout if timeout else float("inf")
                self.open[slot] = Open(deadline)
        elif kind == "PREPARE":
            assert found is not None
            if found.stage is Stage.START:
                del self.open[slot]
            else:
                found.stage = Stage.PREPARED
        else:
            self.end(slot, kind.startswith("COMMIT"))

    def end(self, slot: Slot, commit: bool) -> None:
        """Its outcome."""
        found = self.open.pop(slot)
        for partition in (0, 1) if commit else ():
            self.logs[partition] += [body for p, body in found.messages if p == partition]

    def put(self, key: str, client: int, partition: int) -> tuple[int, str]:
        """Status, and what the text contains, of a put; the message is not in it yet."""
        found = self.open.get(self.slot(key, client))
        if found is None:
            decided = key in self.decided
            return 500, "heuristically" if decided else MISSING
        if found.stage is Stage.PREPARED:
            return 500, "has been prepared"
        found.stage = Stage.IN_USE
        if partition == -1:
            return 500, "Invalid partition"
        return (200, f" {partition} -1") if partition < 2 else (500, "wrong partition")

    def advance(self, seconds: float) -> None:
        """Let time pass, with timeouts of transactions."""
        self.now += seconds
        for slot, found in list(self.open.items()):
            if found.deadline < self.now and found.stage is not Stage.PREPARED:
                del self.open[slot]

    def lose(self, client: int) -> None:
        """Lose a connection with its local transactions."""
        self.open = {slot: t for slot, t in self.open.items() if slot[1] != client}

    def restart(self) -> None:
        """Restart: prepared transactions with messages stay, without a timeout."""
        self.open = {
            slot: t for slot, t in self.open.items() if t.stage is Stage.PREPARED and t.messages
        }

    def prepared(self, qualifier: str | None = None) -> list[str]:
        """The keys in the reply to RECOVER, sorted."""
        keys = [key for (key, _), t in self.open.items() if t.stage is Stage.PREPARED]
        listed = sorted([*keys, *self.decided])
        return [key for key in listed if qualifier is None or key.endswith(f":{qualifier}")]
