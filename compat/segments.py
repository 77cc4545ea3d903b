"""The segment files of a data directory, read without the broker's own code."""

from __future__ import annotations

import os
import struct


def files(data: str) -> list[tuple[str, str]]:
    """Directory and name of every file of the partitions."""
    return [
        (directory, file)
        for directory in os.listdir(data)
        if os.path.isdir(os.path.join(data, directory))
        for file in os.listdir(os.path.join(data, directory))
    ]


def segments(data: str) -> dict[tuple[str, str], bytes]:
    """Every segment file by directory and name."""
    found = {}
    for directory in sorted(os.listdir(data)):
        path = os.path.join(data, directory)
        for file in sorted(os.listdir(path)) if os.path.isdir(path) else []:
            if file.endswith(".meta"):
                with open(os.path.join(path, file), "rb") as opened:
                    found[directory, file] = opened.read()
    return found


def logs(data: str) -> dict[str, bytes]:
    """The whole log of each partition; every file must be where its name says."""
    found: dict[str, bytes] = {}
    for (directory, file), content in segments(data).items():
        log = found.setdefault(directory, b"")
        if len(log) != int(file.removesuffix(".meta")):
            raise AssertionError(f"{directory}/{file} does not start where the one before it ends")
        found[directory] = log + content
    return found


def without_ids(log: bytes) -> bytes:
    """
    A log with zeros in place of the message ids; an error when it is not made of whole records.
    """
    masked, position = bytearray(log), 0
    while position < len(log):
        (length,) = struct.unpack_from(">i", log, position)
        masked[position + 8 : position + 16] = bytes(8)
        position += 20 + length
    if position != len(log):
        raise AssertionError(f"the record at the end of {len(log)} bytes is cut")
    return bytes(masked)
