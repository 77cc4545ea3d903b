"""The table that a person reads, and the JSON file that a program reads."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cells import WIDE_FLOOR, WIDE_PAIR, Goal
from benchmarks.interpreter import build
from benchmarks.network import congestion_control
from benchmarks.rounds import CellResult
from metamorphosis import native


@dataclass(frozen=True)
class Check:
    """One figure that is required: what it is, what it came to, and the bound that it must keep."""

    name: str
    value: float
    bound: float
    at_least: bool
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the bound is kept."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        word = "at least" if self.at_least else "at most"
        verdict = "ok" if self.passed else "FAILED"
        value = f"{self.value:.2f}{self.unit}"
        return f"{self.name:<52} {value:>12}   {word} {self.bound:g}{self.unit:<4}  {verdict}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def verdict(result: CellResult) -> str:
    """``aim``, ``ok`` (the floor holds), ``FAILED``, or nothing when the cell is not judged."""
    return _judge(result.ratio, result.cell.rate)


def _judge(ratio: float | None, goal: Goal) -> str:
    if ratio is None or goal.floor is None:
        return ""
    if goal.aim is not None and ratio >= goal.aim:
        return "aim"
    return "ok" if ratio >= goal.floor else "FAILED"


HEAD = (
    f"{'cell':<21}{'java/s':>9}{'ours/s':>9}{'ratio':>7}{'range':>12}{'floor':>7}{'aim':>6}"
    f"  {'verdict':<8}"
    f"{'java us':>9}{'ours us':>9}{'ref us':>8}{'ref':>7}{'floor':>7}{'aim':>6}  {'verdict':<7}"
)


def row(result: CellResult) -> str:
    """One line of the table."""
    cell = result.cell
    spread = result.ratio_range
    reference = result.cpu_ratio("metaref")
    between = f"{spread[0]:.2f}-{spread[1]:.2f}" if spread else "-"
    return (
        f"{cell.name:<21}"
        f"{_number(result.rate('java'), '.0f'):>9}{_number(result.rate('ours'), '.0f'):>9}"
        f"{_number(result.ratio, '.2f'):>7}{between:>12}"
        f"{_number(cell.rate.floor, '.4g'):>7}{_number(cell.rate.aim, '.4g'):>6}"
        f"  {verdict(result):<8}"
        f"{_number(result.cpu_us('java'), '.2f'):>9}{_number(result.cpu_us('ours'), '.2f'):>9}"
        f"{_number(result.cpu_us('metaref'), '.2f'):>8}"
        f"{_number(reference, '.2f'):>7}"
        f"{_number(cell.cpu.floor, '.2f'):>7}{_number(cell.cpu.aim, '.2f'):>6}"
        f"  {_judge(reference, cell.cpu):<7}{' *' if result.disturbed else ''}"
    )


def table(results: list[CellResult]) -> str:
    """The whole table with a line that explains the columns."""
    notes = (
        "cell: connections / in flight on each / bytes; wide: over 200 partitions; get-bbr: BBR\n"
        "is the system's congestion control; local, xa: connections / messages in a transaction\n"
        "/ bytes, a request is a whole transaction; -2: flush mode 2. ratio: requests per second,\n"
        "ours over Java's. us: CPU microseconds per request. ref: those of metaref, the least\n"
        "that a broker can do in C, over ours.\n"
        "*: other work disturbed a run of this cell, even after repeats."
    )
    return "\n".join([HEAD, *(row(result) for result in results), notes])


def cell_checks(results: list[CellResult]) -> list[Check]:
    """The required figures that come from the cells."""
    checks = []
    for result in results:
        cell, cpu_ratio = result.cell, result.cpu_ratio("metaref")
        if cell.rate.floor is not None and result.ratio is not None:
            unit = "transactions/s" if cell.transactional else "req/s"
            name = f"{cell.name}: {unit} over Java's"
            checks.append(Check(name, result.ratio, cell.rate.floor, True))
        if cell.cpu.floor is not None and cpu_ratio is not None:
            name = f"{cell.name}: CPU of metaref over ours"
            checks.append(Check(name, cpu_ratio, cell.cpu.floor, True))
    rates = {result.cell.name: result.rate("ours") for result in results}
    one, many = (rates.get(name) for name in WIDE_PAIR)
    if one and many:
        name = "200 partitions: req/s over one partition's"
        checks.append(Check(name, many / one, WIDE_FLOOR, True))
    return checks


def machine(sync_us: float) -> dict[str, str]:
    """What the figures were measured on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": model,
        "kernel": platform.release(),
        "python": f"{platform.python_version()}, {build()}",
        "path": native.way,
        "java": (java.stderr.splitlines() or ["none"])[0],
        "congestion control": congestion_control(),
        "fdatasync of 1 KiB": f"{sync_us:.0f} us",
    }


def write_json(
    path: Path, facts: dict[str, str], results: list[CellResult], checks: list[Check]
) -> None:
    """Everything that was measured, run by run."""
    cells: list[dict[str, Any]] = [
        {
            "name": result.cell.name,
            "ratio": result.ratio,
            "cpu_ratio": result.cpu_ratio("metaref"),
            "disturbed": result.disturbed,
            "runs": {name: [run.as_json() for run in runs] for name, runs in result.runs.items()},
        }
        for result in results
    ]
    judged = [{**asdict(check), "passed": check.passed} for check in checks]
    found = {"machine": facts, "cells": cells, "checks": judged}
    path.write_text(json.dumps(found, indent=1) + "\n")
