"""
Texts on a terminal that cannot show every character: ``LC_ALL=C``, an old code page. What cannot be
shown is escaped, as in ``\\u8ba2``; nothing is lost, and no command fails because of a character.
"""

from __future__ import annotations

import sys
from typing import Any


def escape_output() -> None:
    """From now on standard output escapes characters that it cannot show; standard error always
    does."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def shows_everything() -> bool:
    """Whether standard output has an encoding that knows all characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return str(encoding).lower().replace("_", "-").startswith("utf")


def encoded(text: str) -> bytes:
    """The text as standard output takes it, escaped where need be."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace")


def given(argument: str) -> str:
    """
    An argument of the command line as it was typed: where the system's encoding does not know it,
    it is UTF-8.
    """
    try:
        return argument.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError:
        return argument
