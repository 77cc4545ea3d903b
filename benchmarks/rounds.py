"""
Measuring in rounds: the servers take turns within a round, disturbed runs are repeated, medians are
compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.brokers import Server
from benchmarks.cells import Cell
from benchmarks.load import Measurement, measure, settle

OTHER_CPU_LIMIT = 12.0  # percent of a core
STEAL_LIMIT = 6.0
REPEATS = 2
FIRST_WARM_UP = 1.0  # seconds before the first measurement of a cell
WARM_UP = 0.4  # and before the others
STEPS = 10  # of a warm-up that lasts until the CPU time per transaction has stopped falling
STILL_FALLING = 0.97  # of the least CPU time so far

Log = Callable[[str], None]


@dataclass
class CellResult:
    """What the rounds of one cell gave, by server name, one measurement a round."""

    cell: Cell
    runs: dict[str, list[Measurement]] = field(default_factory=dict)
    disturbed: int = 0

    def rate(self, server: str) -> float | None:
        """Median of requests per second."""
        runs = self.runs.get(server)
        return statistics.median(run.rate for run in runs) if runs else None

    def cpu_us(self, server: str) -> float | None:
        """Median of CPU microseconds per request."""
        runs = self.runs.get(server)
        return statistics.median(run.cpu_us for run in runs) if runs else None

    @property
    def ratio(self) -> float | None:
        """Requests per second, ours over the Java broker's."""
        ours, java = self.rate("ours"), self.rate("java")
        return ours / java if ours and java else None

    @property
    def ratio_range(self) -> tuple[float, float] | None:
        """The smallest and the largest ratio of a single round."""
        pairs = zip(self.runs.get("ours", ()), self.runs.get("java", ()), strict=False)
        ratios = [ours.rate / java.rate for ours, java in pairs if java.rate]
        return (min(ratios), max(ratios)) if ratios else None

    def cpu_ratio(self, server: str) -> float | None:
        """CPU time per request, that server's over ours: the median over the rounds."""
        pairs = zip(self.runs.get(server, ()), self.runs.get("ours", ()), strict=False)
        ratios = [reference.cpu_us / ours.cpu_us for reference, ours in pairs if ours.cpu_us]
        return statistics.median(ratios) if ratios else None


def undisturbed(run: Measurement) -> bool:
    """Whether other processes and the hypervisor left the run alone."""
    return run.other_cpu <= OTHER_CPU_LIMIT and run.steal <= STEAL_LIMIT


def measure_quietly(
    server: Server, cell: Cell, seconds: float, warm_up: float
) -> tuple[Measurement, bool]:
    """
    Measure, and again up to twice while the run was disturbed. Returns the least disturbed run and
    whether it was undisturbed.
    """
    runs: list[Measurement] = []
    for _ in range(1 + REPEATS):
        run = measure(server, cell, seconds, warm_up)
        if cell.writes:
            settle(server, cell.topic)
        runs.append(run)
        if undisturbed(run):
            return run, True
    return min(runs, key=lambda run: run.other_cpu + run.steal), False


def run_cell(
    servers: list[Server], cell: Cell, rounds: int, seconds: float, log: Log
) -> CellResult:
    """
    All rounds of one cell. The first round's order is that of ``servers``; each round begins one
    further.
    """
    result = CellResult(cell)
    taking_part = [s for s in servers if s.name != "metaref" or cell.has_yardstick]
    for number in range(rounds):
        begin = number % len(taking_part)
        for server in taking_part[begin:] + taking_part[:begin]:
            warm_up = FIRST_WARM_UP if number == 0 else WARM_UP
            run, quiet = measure_quietly(server, cell, seconds, warm_up)
            result.disturbed += not quiet
            result.runs.setdefault(server.name, []).append(run)
            disturbed = f"  disturbed: other {run.other_cpu:.0f} % steal {run.steal:.0f} %"
            note = "" if quiet else disturbed
            log(
                f"{cell.name:<18} {server.name:<8}{run.rate:>9.0f}/s {run.cpu_us:>8.2f} us"
                f"  p99 {run.p99_us / 1000:.2f} ms{note}"
            )
    return result


def warm_up_java(server: Server, cells: list[Cell], seconds: float, log: Log) -> None:
    """
    Give the Java broker's compiler time: two thirds of ``seconds`` at the heaviest load, since that
    is what gets code compiled, and the rest shared by the cells that will be measured, so that no
    cell's first round meets cold code.
    """
    heavy = Cell("warm-up", "put", 16, 64, 1024)
    if all(cell.transactional for cell in cells):
        heavy = Cell("warm-up", "local", 16, 10, 1024)
    log(f"warming up the Java broker for {seconds:g} s")
    measure(server, heavy, seconds * 2 / 3, 0)
    settle(server, heavy.topic)
    for cell in cells:
        _warm_up(server, cell, max(0.5, seconds / 3 / len(cells)))


def _warm_up(server: Server, cell: Cell, seconds: float) -> None:
    """
    Load for ``seconds``; with transactions, whose code is the longest, again and again until the
    CPU time of one has stopped falling.
    """
    best = math.inf
    for _ in range(STEPS if cell.transactional else 1):
        cpu_us = measure(server, cell, seconds, 0).cpu_us
        if cell.writes:
            settle(server, cell.topic)
        if cpu_us > best * STILL_FALLING:
            break
        best = cpu_us
