"""
Output on a terminal that cannot show every character: ``LC_ALL=C``, an old code page. Other
characters are escaped, as in ``\\u8ba2``; no text is lost, and no command fails because of a
character.
"""

from __future__ import annotations

import sys
from typing import Any


def escape_output() -> None:
    """Let standard output escape the characters that it cannot show, as standard error always
    does."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def shows_everything() -> bool:
    """Whether the encoding of standard output has all characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return str(encoding).lower().replace("_", "-").startswith("utf")


def encoded(text: str) -> bytes:
    """The text in the encoding of standard output, escaped where necessary."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace")


def given(argument: str) -> str:
    """
    An argument of the command line as it was typed: bytes that are invalid in the system's encoding
    are read as UTF-8.
    """
    try:
        return argument.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError:
        return argument
