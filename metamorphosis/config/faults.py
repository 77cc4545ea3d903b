"""The faults of a configuration file, all reported at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from metamorphosis.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One fault.

    :ivar text: the fault and its remedy; contains the original's message where it has one.
    :ivar line: its line in the file, from 1; None when a section or key is missing.
    :ivar section: name of the section, without brackets.
    :ivar key: the key, ``""`` when the fault is not that of one key.
    """

    text: str
    line: int | None = None
    section: str = ""
    key: str = ""

    def __str__(self) -> str:
        """``line 4, [system] brokerId: <text>``, without the parts that do not apply."""
        where = [f"line {self.line}"] if self.line is not None else []
        if self.section:
            where.append(f"[{self.section}] {self.key}".rstrip())
        return f"{', '.join(where)}: {self.text}" if where else self.text


class ConfigFaults(ConfigError):
    """
    A file that cannot be used.

    :ivar path: the file.
    :ivar faults: all its faults in the order of their lines; those without a line come last.
    """

    def __init__(self, path: str, faults: Iterable[Fault]) -> None:
        self.path = path
        self.faults = tuple(sorted(faults, key=_position))
        super().__init__(self._render())

    def _render(self) -> str:
        """One line for one fault; else a headline and a line for each."""
        headline = f"Parse configuration failed,path={self.path}"
        if len(self.faults) == 1:
            return f"{headline}: {self.faults[0]}"
        listed = "".join(f"\n  {fault}" for fault in self.faults)
        return f"{headline}: {len(self.faults)} faults{listed}"


def _position(fault: Fault) -> tuple[bool, int]:
    """Sort key: faults with a line first, by line."""
    return fault.line is None, fault.line or 0
