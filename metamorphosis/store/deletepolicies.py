"""
The disposal of segment files that are older than the retention: deletion or archiving.

Source: ``DeletePolicy``, ``DeletePolicyFactory``.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from contextlib import suppress

from zope.interface import implementer

from metamorphosis.config.policies import ARCHIVE, PolicyText
from metamorphosis.interfaces import IDeletePolicy


@implementer(IDeletePolicy)
class DiscardPolicy:
    """Deletes the file. Source: ``DiscardDeletePolicy``."""

    def __init__(self, retention_ms: int) -> None:
        self.retention_ms = retention_ms

    def dispose(self, path: str) -> None:
        """See ``IDeletePolicy``. A missing file is no error."""
        with suppress(FileNotFoundError):
            os.unlink(path)


@implementer(IDeletePolicy)
class ArchivePolicy:
    """
    Renames the file to ``<file>.arc``, or packs it into ``<file>.zip`` as the only entry, under its
    own name.

    Differs: the archive is written under a temporary name and is on the disk under its own before
    the original is deleted. The original deletes even when the compression failed.

    Source: ``ArchiveDeletePolicy``.
    """

    def __init__(self, retention_ms: int, compress: bool) -> None:
        self.retention_ms = retention_ms
        self.compress = compress

    def dispose(self, path: str) -> None:
        """See ``IDeletePolicy``. A missing file is no error."""
        with suppress(FileNotFoundError):
            if self.compress:
                _pack(path, f"{path}.zip")
                os.unlink(path)
            else:
                os.rename(path, f"{path}.arc")


def _pack(path: str, archive: str) -> None:
    """Write a durable archive, or none."""
    temporary = f"{archive}.part"
    try:
        with open(temporary, "wb") as stream:
            with zipfile.ZipFile(
                stream, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False
            ) as packed:
                packed.write(path, os.path.basename(path))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, archive)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(os.path.dirname(archive) or ".", os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def make_policy(text: PolicyText) -> DiscardPolicy | ArchivePolicy:
    """The policy that a parsed ``deletePolicy`` means. Source: ``DeletePolicyFactory``."""
    if text.name == ARCHIVE:
        return ArchivePolicy(text.retention_ms, text.compress)
    return DiscardPolicy(text.retention_ms)


def count_expired(paths: Iterable[str], now_ms: int, retention_ms: int) -> int:
    """
    The number of leading files that were last modified longer ago than the retention. A missing
    file counts. Thread: any; blocks.

    :raises OSError: the status of a file cannot be read.
    """
    count = 0
    for path in paths:
        with suppress(FileNotFoundError):
            if now_ms - os.stat(path).st_mtime_ns // 1_000_000 <= retention_ms:
                break
        count += 1
    return count
