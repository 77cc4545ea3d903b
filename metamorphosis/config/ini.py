"""
The syntax of ``server.ini``: exactly what ini4j 0.5.1 accepts with its default settings, and
nothing else.

Unlike the original's reader, this one continues after a bad line, so that all faults of a file are
reported at once.

Source: ``org.ini4j.Ini`` as used by ``MetaConfig``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from metamorphosis.config.escapes import LINE_END, is_continued, unescape
from metamorphosis.config.faults import Fault
from metamorphosis.config.strange import StrangeCharacters

#: The characters that ``String.trim`` removes: all up to the blank.
JAVA_TRIMMED = "".join(map(chr, range(0x21)))
#: White space to Python but not to ``Character.isWhitespace``.
_NOT_BLANK = "\x85\u00a0\u2007\u202f"

#: The number of characters of a bad line that its fault repeats.
_SHOWN = 200

_ESCAPED = {"t": "\t", "n": "\n", "f": "\f", "b": "\b", "r": "\r"}


def is_blank(text: str) -> bool:
    """Whether the text is empty or white space only. Source: ``StringUtils.isBlank``."""
    return all(char.isspace() and char not in _NOT_BLANK for char in text)


@dataclass(frozen=True, slots=True)
class Option:
    """A key and its value, unescaped and trimmed, and the line on which they end."""

    key: str
    value: str
    line: int


@dataclass(slots=True)
class Section:
    """
    All options of one name; sections of the same name are merged, and the last value of a key
    counts.

    :ivar line: line of the first header; for a parent that exists only through ``/`` in a child's
        name, the line of the child.
    """

    name: str
    line: int
    options: dict[str, Option] = field(default_factory=dict)


@dataclass(slots=True)
class IniFile:
    """
    The contents of a file.

    :ivar sections: in the order of appearance, parents before their children.
    :ivar faults: lines with invalid syntax; they contribute nothing to ``sections``.
    :ivar warnings: lines that are allowed but probably mistakes.
    :ivar lost_header: whether a section header was so faulty that its section is unknown.
    """

    sections: dict[str, Section] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lost_header: bool = False


def parse(data: bytes) -> IniFile:
    """Read a whole file. Never fails: unreadable lines are in ``faults``."""
    parser = _Parser()
    text = data.decode("utf-8", errors="replace")
    for number, line in _logical_lines(parser.skip_byte_order_mark(text)):
        parser.line(number, line)
    parser.file.faults += parser.strange.faults()
    return parser.file


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """
    Lines without blank lines and comments, continued ones joined, each with the number of its last
    physical line.

    A comment counts only where no continuation is pending. A continuation pending at the end of the
    file is dropped together with its line, as ini4j does.
    """
    pending = ""
    for number, physical in enumerate(LINE_END.split(text), start=1):
        line = physical.strip(JAVA_TRIMMED)
        if not line or (not pending and line[0] in ";#"):
            continue
        if is_continued(line):
            pending += line[:-1]
            continue
        yield number, pending + line
        pending = ""


class _Parser:
    """Turns logical lines into sections."""

    def __init__(self) -> None:
        self.file = IniFile()
        self.strange = StrangeCharacters()
        self._section: Section | None = None

    def skip_byte_order_mark(self, text: str) -> str:
        """The text without the mark, which is a fault: the original fails at it."""
        if not text.startswith("\ufeff"):
            return text
        first = LINE_END.split(text, maxsplit=1)[0]
        self._fault(1, first, "a byte order mark stands first; save the file as UTF-8 without one")
        return text[1:]

    def line(self, number: int, line: str) -> None:
        """Take a section header or an option."""
        line = self.strange.replaced(number, line)
        try:
            if line.startswith("["):
                self._header(number, line)
            elif line and line[0] not in ";#":
                self._option(number, line)
        except ValueError as error:
            self._fault(number, line, str(error))

    def _header(self, number: int, line: str) -> None:
        """
        Open the section. Of a bad header the text in the brackets is used, to avoid consequential
        faults.
        """
        if line.endswith("]"):
            name = unescape(line[1:-1].strip(JAVA_TRIMMED), _ESCAPED)
            wrong = "" if name else "a section needs a name between the brackets"
        else:
            name = line[1:].partition("]")[0].strip(JAVA_TRIMMED)
            wrong = "a section line is [name], its last character is ']', without a comment"
        if name:
            self._section = self._open(name, number)
        else:
            self._section = Section(name, number)
            self.file.lost_header = True
        if wrong:
            raise ValueError(wrong)

    def _open(self, name: str, number: int) -> Section:
        """The section of this name, made with its missing parents."""
        slash = name.rfind("/")
        if slash > 0 and name[:slash] not in self.file.sections:
            self._open(name[:slash], number)
        return self.file.sections.setdefault(name, Section(name, number))

    def _option(self, number: int, line: str) -> None:
        """Split at the first operator; the last value of a key counts."""
        operator = re.search("[=:]", line)
        if operator is None:
            raise ValueError("neither a [section] nor key=value")
        if self._section is None:
            raise ValueError("an option stands below the [section] it belongs to, here is none yet")
        key = unescape(line[: operator.start()], _ESCAPED).strip(JAVA_TRIMMED)
        value = unescape(line[operator.end() :], _ESCAPED).strip(JAVA_TRIMMED)
        if not key:
            raise ValueError("a key is missing before the operator")
        earlier = self._section.options.get(key)
        if earlier is not None:
            self.file.warnings.append(
                f"[{self._section.name}] {key} stands on line {earlier.line} and on line {number};"
                " the last one counts"
            )
        self._section.options[key] = Option(key, value, number)

    def _fault(self, number: int, line: str, wrong: str) -> None:
        """Record a bad line with the original's text and ours."""
        shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
        self.file.faults.append(
            Fault(f"parse error (at line: {number}): {shown} ({wrong})", number)
        )
