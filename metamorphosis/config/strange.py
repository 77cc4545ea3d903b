"""
Characters that look like a blank, an equals sign or a bracket but are others, for example from an
input method or a web page. One fault for each such character, however many lines have it.

The lines are then read with the right character, so that no other fault is reported for them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from metamorphosis.config.faults import Fault

SHOWN_LINES: Final = 5

_SYNTAX: Final = {
    "\uff1d": "=",
    "\uff1a": ":",
    "\uff3b": "[",
    "\uff3d": "]",
    "\u3010": "[",
    "\u3011": "]",
    "\uff03": "#",
    "\uff1b": ";",
}
_OPERATOR: Final = re.compile("[=:]")


class StrangeCharacters:
    """The strange characters of one file."""

    def __init__(self) -> None:
        self._lines: dict[str, list[int]] = {}

    def replaced(self, number: int, line: str) -> str:
        """The line with the right characters around its key or its section header."""
        if line.isascii():
            return line
        line = self._without_first(number, line)
        if line[:1] in _SYNTAX and _SYNTAX[line[0]] in "[#;":
            self._note(number, line[0])
            line = _SYNTAX[line[0]] + line[1:]
        if line.startswith("["):
            line = self._without_last(number, line)
            if _SYNTAX.get(line[-1]) == "]":
                self._note(number, line[-1])
                line = f"{line[:-1]}]"
            return line
        operator = _OPERATOR.search(line)
        if operator is None:
            found = [char for char in line if _SYNTAX.get(char, " ") in "=:"]
            if not found:
                return line
            self._note(number, found[0])
            line = line.replace(found[0], _SYNTAX[found[0]], 1)
            operator = _OPERATOR.search(line)
            assert operator is not None
        key = line[: operator.start()].rstrip(" \t")
        return self._without_last(number, key) + line[operator.start() :]

    def _without_first(self, number: int, text: str) -> str:
        """The text without invisible characters at the beginning."""
        while text and _is_invisible(text[0]):
            self._note(number, text[0])
            text = text[1:].lstrip(" \t")
        return text

    def _without_last(self, number: int, text: str) -> str:
        """The text without invisible characters at the end."""
        while text and _is_invisible(text[-1]):
            self._note(number, text[-1])
            text = text[:-1].rstrip(" \t")
        return text

    def _note(self, number: int, character: str) -> None:
        lines = self._lines.setdefault(character, [])
        if not lines or lines[-1] != number:
            lines.append(number)

    def faults(self) -> list[Fault]:
        """One fault for each character."""
        return [_fault(character, lines) for character, lines in self._lines.items()]


def _is_invisible(character: str) -> bool:
    return character > "\x7f" and unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cf")


def _fault(character: str, lines: list[int]) -> Fault:
    name = unicodedata.name(character, "a character without a name")
    right = _SYNTAX.get(character)
    remedy = f"{right!r} is right" if right else "a blank or a tab is right, or nothing"
    more = len(lines) - SHOWN_LINES
    where = ", ".join(map(str, lines[:SHOWN_LINES])) + (f" and {more} more" if more > 0 else "")
    count = f"on {len(lines)} lines ({where})" if len(lines) > 1 else "on this line"
    return Fault(
        f"parse error (at line: {lines[0]}): U+{ord(character):04X} {name} stands {count} where the"
        f" syntax has another character; {remedy}",
        lines[0],
    )
