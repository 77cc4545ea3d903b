"""
Offsets in a local file, in the original's format: one JSON object, group -> list of positions.

Source: ``LocalOffsetStorage``.

Differs: the original replaces a group's whole list by the present entries of one consumer, and two
processes overwrite each other's entries. Ours changes only the committed entries of the present
file, under a lock (``<file>.lock``); every other entry stays, with its unknown members.

Differs: the new file is on the disk before it replaces the old one, the message id is read, and a
file that cannot be parsed is an error that names it; the original starts from the beginning and
overwrites the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from zope.interface import implementer

from metamorphosis.client.checked import checked
from metamorphosis.client.model import Partition, StoredOffset
from metamorphosis.client.offsets import Worker
from metamorphosis.errors import InvalidConfig, OffsetStoreError
from metamorphosis.interfaces import IOffsetStore, IRuntime
from metamorphosis.wire.numbers import shown

LOCK_SECONDS = 5.0  # the commit of another process takes milliseconds


class PartitionEntry(TypedDict):
    """A partition in the file."""

    brokerId: int
    partition: int


class Entry(TypedDict):
    """A position in the file; others' entries may have further members."""

    topic: str
    partition: PartitionEntry
    offset: int
    messageId: int
    modified: bool


@implementer(IOffsetStore)
class LocalFileOffsetStore:
    """
    Reads and writes in a separate thread. Consumers of any groups may share it, and several of our
    processes; a Java process on the same file overwrites it with its own entries.

    :param path: by default the original's, ``~/.meta_offsets``; created when missing.
    :raises InvalidConfig: the file cannot be created.
    """

    @checked(error=InvalidConfig)
    def __init__(self, runtime: IRuntime, path: str | os.PathLike[str] | None = None) -> None:
        self._file = OffsetFile(Path.home() / ".meta_offsets" if path is None else Path(path))
        self._worker = Worker(runtime, "offset-file")

    @checked()
    async def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """See ``IOffsetStore``."""
        return await self._worker.run(lambda: self._file.load(topic, group, partition))

    @checked()
    async def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> None:
        """See ``IOffsetStore``; does nothing, as in the original."""

    @checked()
    async def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """See ``IOffsetStore``. All of them or none."""
        if offsets:
            await self._worker.run(lambda: self._file.commit(group, offsets))

    async def close(self) -> None:
        """See ``IOffsetStore``."""
        await self._worker.close(lambda: None)


class OffsetFile:
    """The file. Thread: one at a time; each call blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.touch()
        except OSError as error:
            raise InvalidConfig(
                f"offset file {path}: {error.strerror}; the directory must exist and be writable"
            ) from error

    def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """The entry of one partition."""
        for entry in self._read().get(group) or []:
            found = self._parse(entry)
            if (found.topic, found.partition) == (topic, partition):
                return found
        return None

    def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """Replace the entries of these partitions; add new ones after the others."""
        with self._locked():
            groups = self._read()
            entries = groups.get(group) or []
            places = {self._parse(entry)[:2]: place for place, entry in enumerate(entries)}
            for each in offsets:
                place = places.get((each.topic, each.partition))
                if place is None:
                    entries.append(_entry_of(each))
                else:
                    entries[place] = _entry_of(each)
            groups[group] = entries
            self._write(groups)

    def _read(self) -> dict[str, list[Entry]]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            text = _decoded(data).replace("\n", "").replace("\r", "")
            groups = json.loads(text) if text.strip() else {}
        except ValueError as error:
            raise self._invalid(str(error)) from None
        if not isinstance(groups, dict):
            raise self._invalid("it holds no JSON object")
        return groups

    def _parse(self, entry: Entry) -> StoredOffset:
        try:
            partition = entry["partition"]
            where = Partition(int(partition["brokerId"]), int(partition["partition"]))
            message_id = int(entry.get("messageId", -1))
            return StoredOffset(str(entry["topic"]), where, int(entry["offset"]), message_id)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._invalid(f"the entry {shown(repr(entry))}") from None

    def _invalid(self, what: str) -> OffsetStoreError:
        return OffsetStoreError(
            f"offset file {self._path}: {what}; expected is"
            ' {"group":[{"topic":"t","partition":{"brokerId":0,"partition":1},"offset":123}]}.'
            " Restore it, or remove it to start without offsets"
        )

    def _write(self, groups: dict[str, list[Entry]]) -> None:
        """Replace the file; the old one stays whole until the new one is on the disk."""
        new = self._path.with_name(f"{self._path.name}.tmp.{os.getpid()}")
        try:
            with open(new, "wb") as file:
                file.write(json.dumps(groups, separators=(",", ":")).encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self._path)
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise OffsetStoreError(f"offset file {self._path}: {error}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Prevent changes of the file by our other processes."""
        lock = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            end = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise OffsetStoreError(
                            f"{self._path}.lock has been held for {LOCK_SECONDS:g} s by another"
                            " process"
                        ) from None
                    time.sleep(0.01)
            yield
        finally:
            os.close(lock)


def _entry_of(stored: StoredOffset) -> Entry:
    """The entry as Java writes it."""
    broker_id, number = stored.partition
    return {
        "topic": stored.topic,
        "partition": {"brokerId": broker_id, "partition": number},
        "offset": stored.offset,
        "messageId": stored.message_id,
        "modified": False,
    }


def _decoded(data: bytes) -> str:
    """Decode the file: Java writes in its machine's charset; ours is ASCII, a subset of all."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("gb18030")
