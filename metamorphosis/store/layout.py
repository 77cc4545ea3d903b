"""
Names of the directories and segment files of a data path, with the checks that the original makes
when it reads them.

Everything here is synchronous and has no state: it runs at the start, or in a worker.

Source: ``MessageStore``, ``MessageStoreManager``.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from metamorphosis.errors import SegmentsInvalid, StoreError

SUFFIX = ".meta"
FIRST_SEGMENT = "00000000000000000000.meta"

_NUMBER = re.compile(r"[+-]?[0-9]+")


class SegmentFile(NamedTuple):
    """A segment file that was found: offset of its first byte, absolute path, size in bytes."""

    start: int
    path: str
    size: int


def segment_name(start: int) -> str:
    """The start offset in 20 digits, and the suffix."""
    return f"{start:020d}{SUFFIX}"


def partition_directory(data_path: str, topic: str, partition: int) -> str:
    """
    Absolute path of the directory of one topic-partition.

    :raises StoreError: the name of the topic is not one of a directory.
    """
    if "/" in topic or "\0" in topic:
        raise StoreError(f"A topic whose name contains a slash cannot be stored: {topic!r}")
    return os.path.join(os.path.abspath(data_path), f"{topic}-{partition}")


def split_directory_name(name: str) -> tuple[str, int] | None:
    """
    Topic and partition, split at the last ``-``; None without a ``-``.

    :raises SegmentsInvalid: the text after the ``-`` is not a number. The text is the original's.
    """
    topic, dash, number = name.rpartition("-")
    return (topic, _parse(number, 32)) if dash else None


def parse_segment_name(name: str) -> int:
    """
    The start offset; any number of digits is accepted, as the original does.

    :raises SegmentsInvalid: the text before the suffix is not a number. The text is the original's.
    """
    return _parse(name.removesuffix(SUFFIX), 64)


def _parse(text: str, bits: int) -> int:
    """A decimal integer of Java: ``int`` would also take spaces and underscores."""
    if _NUMBER.fullmatch(text):
        number = int(text)
        if -(1 << bits - 1) <= number < 1 << bits - 1:
            return number
    raise SegmentsInvalid(f'For input string: "{text}"')


def ensure_directory(path: str) -> None:
    """
    Create one directory if it is missing; its parent must exist.

    :raises StoreError: the path is a file, or cannot be created.
    """
    path = os.path.abspath(path)
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise StoreError(f"Path is not a directory:{path}") from None
    except (OSError, UnicodeEncodeError) as error:
        raise StoreError(f"Create directory failed:{path} ({_reason(error)})") from error


def find_segments(directory: str) -> list[SegmentFile]:
    """
    The segment files of a partition directory, in the order of their offsets.

    Only regular files with the suffix count; all others are ignored.

    :raises StoreError: directory or file is unreadable.
    :raises SegmentsInvalid: a name is not an offset, or neighbours do not join.
    """
    directory = os.path.abspath(directory)
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and entry.is_file():
                    found.append(_segment_file(entry))
    except OSError as error:
        raise StoreError(f"Could not read directory {directory} ({_reason(error)})") from error
    found.sort()
    for one, next_one in zip(found, found[1:]):
        if one.start + one.size != next_one.start:
            raise SegmentsInvalid(
                f"The following segments don't validate: {one.path}, {next_one.path}"
            )
    return found


def _segment_file(entry: os.DirEntry[str]) -> SegmentFile:
    if not os.access(entry.path, os.R_OK):
        raise StoreError(f"Could not read file {entry.path}")
    try:
        start = parse_segment_name(entry.name)
    except SegmentsInvalid as error:
        raise SegmentsInvalid(
            f"{error} ({entry.path}: a segment is named <offset>{SUFFIX})"
        ) from None
    return SegmentFile(start, entry.path, entry.stat().st_size)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
