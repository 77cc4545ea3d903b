r"""
Java's property files: keys and values, and the line of each. Pure.

A line that begins with ``#`` or ``!`` is a comment; ``=``, ``:`` or white space ends a key; a line
that ends with an odd number of backslashes continues in the next; a backslash makes the character
after it an ordinary one, and ``\uXXXX``, ``\t``, ``\n``, ``\r`` and ``\f`` stand for one character.

Source: ``java.util.Properties``; ``Utils.getResourceAsProperties``. Differs: the original reads
every such file as GBK; here valid UTF-8 is read as UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from metamorphosis.config.escapes import LINE_END, is_continued, unescape
from metamorphosis.config.faults import Fault

_BLANKS: Final = " \t\f"
_KEY: Final = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*", re.DOTALL)
_CHARACTERS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class Property(NamedTuple):
    """
    One property.

    :ivar value: without the white space before and after it.
    :ivar line: the line of its key, from 1.
    """

    value: str
    line: int


class PropertyFile(NamedTuple):
    """
    The contents of a property file.

    :ivar properties: by key; of several with the same key the last counts, as in Java.
    :ivar faults: lines that are not properties.
    :ivar warnings: lines that are probably mistakes.
    """

    properties: dict[str, Property]
    faults: list[Fault]
    warnings: list[str]


def parse(data: bytes) -> PropertyFile:
    """Read a whole file."""
    found = PropertyFile({}, [], [])
    for number, line in _logical_lines(decode(data)):
        match = _KEY.match(line)
        assert match is not None  # it matches the empty text
        try:
            key = unescape(match[1], _CHARACTERS)
            value = unescape(line[match.end() :], _CHARACTERS)
        except ValueError as error:
            found.faults.append(Fault(str(error), number))
            continue
        before = found.properties.get(key)
        if before is not None:
            found.warnings.append(
                f"line {number}, {key}: stands in line {before.line} as well; this one counts"
            )
        found.properties[key] = Property(value.strip(), number)
    return found


def decode(data: bytes) -> str:
    """
    The text of a file, which is UTF-8 or GBK. Bytes that are neither become replacement characters:
    keys and values are ASCII, so such bytes are in a comment, or their key is reported as unknown.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("gb18030", "replace")


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each property and the number of its first line; without comments and blank lines."""
    first, joined = 0, ""
    for number, line in enumerate(LINE_END.split(text), start=1):
        line = line.lstrip(_BLANKS)
        if not first and (not line or line[0] in "#!"):
            continue
        first = first or number
        if is_continued(line):
            joined += line[:-1]
            continue
        yield first, joined + line
        first, joined = 0, ""
    if joined:
        yield first, joined
