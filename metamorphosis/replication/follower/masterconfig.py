"""
``autoSyncMasterConfig``: merges the topic sections of the master's ``server.ini`` into ours.

Sections are copied as bytes, so that comments in any encoding stay unchanged. A section of the
master replaces ours of the same name, or is appended to the file; the rest of our file stays. A
section without a number of partitions gets that of the master's ``[system]``; lines that our broker
would refuse become comments.

Differs: the original replaces the whole file, with port, host and data path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from metamorphosis.config import ini, keys
from metamorphosis.config.expressions import int32

TOPIC: Final = b"topic="
PARTITIONS: Final = "numPartitions"

_BLANK: Final = bytes(range(0x21))
_KNOWN: Final = {key.name for key in keys.TOPIC} | set(keys.TOPIC_IGNORED)
_OPERATOR: Final = re.compile(b"[=:]")


@dataclass(slots=True)
class Block:
    """
    The lines of a section, its header first, up to its last option.

    :ivar name: of the section; None: the lines before the first one.
    :ivar lines: with their line ends.
    :ivar after: the comments and blank lines after them.
    """

    name: bytes | None
    lines: list[bytes] = field(default_factory=list)
    after: list[bytes] = field(default_factory=list)

    @property
    def is_topic(self) -> bool:
        """Whether it is a topic's section, with a valid name."""
        if self.name is None or not self.name.startswith(TOPIC):
            return False
        try:
            self.name.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True


def merge(own: bytes, master: bytes) -> bytes:
    """
    Our file with the topic sections of the master's.

    :param own: the bytes of our ``server.ini``.
    :param master: the bytes of the master's.
    """
    theirs = list(_blocks(master))
    partitions = _partitions(master)
    taken: dict[bytes, list[bytes]] = {}
    for block in theirs:
        if block.is_topic and block.name is not None:
            taken.setdefault(block.name, []).extend(_ended(block.lines))
    sections = {name: _usable(lines, partitions) for name, lines in taken.items()}
    merged: list[bytes] = []
    for block in _blocks(own):
        if block.name in taken:
            merged += sections.pop(block.name, [])
        else:
            merged += block.lines
        merged += block.after
    for lines in sections.values():
        merged = [*_ended(merged), b"\n", *lines]
    return b"".join(merged)


def _blocks(data: bytes) -> Iterator[Block]:
    """The file as blocks, which together have all of its bytes."""
    block = Block(None)
    for lines in _logical_lines(data):
        text = lines[0].strip(_BLANK)
        if text.startswith(b"["):
            yield block
            block = Block(text[1:].rpartition(b"]")[0].strip(_BLANK), lines)
        elif len(lines) == 1 and _is_comment(text):
            block.after += lines
        else:
            block.lines += [*block.after, *lines]
            block.after = []
    yield block


def _logical_lines(data: bytes) -> Iterator[list[bytes]]:
    """The logical lines, each as a list of its physical lines."""
    pending: list[bytes] = []
    for line in data.splitlines(keepends=True):
        text = line.strip(_BLANK)
        pending.append(line)
        continued = len(text) - len(text.rstrip(b"\\"))
        if continued % 2 and not (len(pending) == 1 and _is_comment(text)):
            continue
        yield pending
        pending = []
    if pending:
        yield pending


def _is_comment(text: bytes) -> bool:
    return not text or text[:1] in b";#"


def _ended(lines: list[bytes]) -> list[bytes]:
    """The lines with a line end after the last one."""
    if lines and not lines[-1].endswith((b"\n", b"\r")):
        return [*lines[:-1], lines[-1] + b"\n"]
    return lines


def _partitions(master: bytes) -> int:
    """The number of partitions in ``[system]``, for topics without one."""
    system = ini.parse(master).sections.get("system")
    option = None if system is None else system.options.get(PARTITIONS)
    try:
        return 1 if option is None else int32(option.value)
    except ValueError:
        return 1


def _usable(lines: list[bytes], partitions: int) -> list[bytes]:
    """The lines of a section, those that our broker would refuse as comments."""
    usable: list[bytes] = []
    says_partitions = False
    for logical in _logical_lines(b"".join(lines)):
        text = logical[0].strip(_BLANK)
        if _is_comment(text) or text.startswith(b"["):
            usable += logical
            continue
        key = _OPERATOR.split(text, maxsplit=1)[0].strip(_BLANK).decode("utf-8", "replace")
        known = _OPERATOR.search(text) and (key in _KNOWN or key.startswith("group."))
        usable += logical if known else [b";" + line for line in logical]
        says_partitions |= key == PARTITIONS
    if not says_partitions:
        end = b"\r\n" if usable[0].endswith(b"\r\n") else b"\n"
        usable.insert(1, b"%b=%d%b" % (PARTITIONS.encode(), partitions, end))
    return usable


def replace_file(path: str, data: bytes) -> None:
    """
    Replace a file by rename, with its mode and owner; a link stays a link.

    :raises OSError: the file is unchanged.
    """
    path = os.path.realpath(path)
    beside = f"{path}.new"
    found = os.stat(path)
    with open(beside, "wb") as file:
        os.fchmod(file.fileno(), found.st_mode & 0o7777)
        if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file.fileno(), found.st_uid, found.st_gid)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
