"""
Checkpoint files of the original: JSON with the redo file and offset at which its replay starts.

They are read and never written: replay here reads every redo file, and a checkpoint of ours could
make a Java broker drop a prepared transaction (section 12.2 of the specification).

Source: ``Checkpoint``, ``JournalLocation``.
"""

from __future__ import annotations

import json
from typing import NamedTuple


class JournalLocation(NamedTuple):
    """
    A place in the journal. Compared as the original does: file first, then offset.

    :ivar number: number of the redo file.
    :ivar offset: offset of a record's first byte in it.
    """

    number: int
    offset: int


def parse_checkpoint(data: bytes) -> JournalLocation | None:
    """
    The location of a checkpoint.

    :param data: a whole checkpoint file; an empty one has no location.
    :raises ValueError: the original does not write such a file.
    """
    if not data.strip(b"\0 \r\n"):
        return None
    try:
        value = json.loads(data)
        number, offset = value["number"], value["offset"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a JSON object with number and offset: {error!r}") from error
    for name, field in (("number", number), ("offset", offset)):
        if type(field) is not int or not 0 <= field < 1 << 63:
            raise ValueError(f"{name} is {field!r}, not a 64-bit number of 0 or more")
    return JournalLocation(number, offset)
