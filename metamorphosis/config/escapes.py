r"""
The syntax that Java's configuration files share, ``server.ini`` and property files: ends of lines,
continuation of a line in the next, and the escapes of a backslash. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

LINE_END: Final = re.compile("\r\n|\r|\n")

_ESCAPE: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|[^u]|u|$)", re.DOTALL)


def is_continued(line: str) -> bool:
    """Whether the line ends with a backslash that is not itself escaped."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def unescape(text: str, characters: Mapping[str, str]) -> str:
    """
    Resolve the escapes.

    :param characters: the meaning of a letter after a backslash; any other character stands for
        itself.
    :raises ValueError: a backslash at the end, or an incomplete ``\\u``.
    """
    if "\\" not in text:
        return text

    def character(match: re.Match[str]) -> str:
        escape = match[1]
        if not escape:
            raise ValueError(r"the backslash escapes nothing; a plain backslash is written \\")
        if escape == "u":
            raise ValueError(
                r"Malformed \uxxxx encoding. Four hexadecimal digits follow \u, \\ is a backslash"
            )
        if escape[0] == "u":
            return chr(int(escape[1:], 16))
        return characters.get(escape, escape)

    plain = _ESCAPE.sub(character, text)
    # Two \u escapes may form one character beyond the basic plane.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
