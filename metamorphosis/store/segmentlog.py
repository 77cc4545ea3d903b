"""
The readable part of one topic-partition: its segments in the order of their offsets, and their
removal by retention.

Source: ``MessageStore``, ``MessageStore.SegmentList``.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from twisted.logger import Logger

from metamorphosis.errors import OffsetTooSmall
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.fields import LogFields
from metamorphosis.store.segment import Segment

_new_tuple = tuple.__new__
_start = attrgetter("start")


class FileRange(NamedTuple):
    """
    A range of a segment file that a reader gets. Retain the segment while the range waits to be
    sent.
    """

    segment: Segment
    position: int
    length: int


class SegmentLog(LogFields):
    """
    At least one segment; only the last is appended to. Thread: reactor.

    Segments leave at the front only, so there is never a gap; ``slice`` still handles one.

    :ivar min_offset: the offset of the oldest message.
    :ivar max_offset: the high-water mark: everything below it is flushed and can be read.
    :ivar read_end: the end of a range that begins below ``max_offset``.
    :ivar last: the segment that is appended to.
    :ivar environment: the parts that all stores share.
    """

    _log = Logger()

    def __init__(
        self, topic: str, partition: int, segments: list[Segment], environment: StoreEnvironment
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._segments = segments
        self.last = segments[-1]
        self.min_offset = segments[0].start
        self.max_offset = self.read_end = self.last.end
        self.environment = environment

    def __repr__(self) -> str:
        offsets = f"{self.min_offset}-{self.max_offset}"
        return f"<{type(self).__name__} {self.topic}-{self.partition} {offsets}>"

    @property
    def message_count(self) -> int:
        """
        Messages appended or recovered since start; a block counts 1, segments that were immutable
        at start 0 (D-15).
        """
        return sum(segment.message_count for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self._segments)

    @property
    def directory(self) -> str:
        """Absolute path of the partition's directory."""
        return os.path.dirname(self.last.path)

    def slice(self, offset: int, max_size: int, at_once: bool = False) -> FileRange | None:
        """
        The stored bytes from ``offset`` on, at most ``max_size``, of one segment; None if nothing
        is readable there.

        In direct mode the range may include messages that are written and not yet flushed, as in
        the original. Differs: with group commit it ends at the flushed end, because the records
        after it may still be removed.

        :param at_once: the range is read during the call, and not sent from the file later.
        :raises OffsetTooSmall: ``offset`` is before the oldest message.
        :raises DescriptorsTaken: too many files are being sent.
        :raises StoreError: the file cannot be opened.
        """
        segment = self.last
        position = offset - segment.start
        if position >= 0:
            if offset >= self.max_offset:
                return None
            if segment.fd < 0:
                self.environment.descriptors.open(self, segment, at_once)
            length = self.read_end - offset
            # Takes half the time of ``FileRange(...)``, which is most of a get's time here.
            return _new_tuple(
                FileRange, (segment, position, length if length < max_size else max_size)
            )
        return self._slice_older(offset, max_size, at_once)

    def is_open_at(self, offset: int) -> bool:
        """Whether ``slice`` from ``offset`` on opens no file."""
        last = self.last
        segment = last if offset >= last.start else self._find(offset)
        return segment is not None and segment.fd >= 0

    def _slice_older(self, offset: int, max_size: int, at_once: bool) -> FileRange | None:
        if offset < self.min_offset:
            raise OffsetTooSmall(self.min_offset)
        segment = self._find(offset)
        if segment is None:
            return None
        if segment.fd < 0:
            self.environment.descriptors.open(self, segment, at_once)
        segment.used = True
        return FileRange(segment, offset - segment.start, min(segment.end - offset, max_size))

    def needs(self, segment: Segment) -> bool:
        """Whether the descriptor must stay open although it is not read."""
        return False

    def nearest_offset(self, offset: int) -> int:
        """
        The start of the segment that holds ``offset``; outside of the readable range, the nearer
        end of that range.
        """
        if offset < self.min_offset:
            return self.min_offset
        if offset >= self.max_offset:
            return self.max_offset
        segment = self._find(offset)
        return self.max_offset if segment is None else segment.start

    def _find(self, offset: int) -> Segment | None:
        """The segment that holds the byte at ``offset``, None if no segment does."""
        index = bisect_right(self._segments, offset, key=_start) - 1
        if index < 0:
            return None
        segment = self._segments[index]
        return segment if offset < segment.end else None

    def add_segment(self, segment: Segment) -> None:
        """Append to this segment from now on."""
        self._segments.append(segment)
        self.last = segment
        self.environment.descriptors.opened(self, segment)

    # Retention

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, oldest first."""
        return tuple(self._segments)

    def immutable_segments(self) -> list[Segment]:
        """The segments that will never change, oldest first."""
        return self._segments[:-1]

    def remove_segment(self, segment: Segment) -> None:
        """
        Remove the oldest segment from the log; the caller disposes of its file, a worker closes its
        descriptor.

        If the file then cannot be deleted, ``restore_segment`` must follow before another removal:
        with a younger file deleted first, the next start finds a gap and fails.

        :raises ValueError: it is not the oldest immutable segment.
        """
        if len(self._segments) < 2 or segment is not self._segments[0]:
            raise ValueError(f"{segment.path} is not the oldest immutable segment")
        del self._segments[0]
        self.min_offset = self._segments[0].start
        segment.discard(self._close_in_worker)

    def restore_segment(self, segment: Segment) -> None:
        """
        Add the segment that was removed last again, because its file still exists.

        :raises ValueError: it does not join the oldest segment.
        """
        if segment.end != self.min_offset:
            raise ValueError(f"{segment.path} does not join {self._segments[0].path}")
        segment.keep()
        self._segments.insert(0, segment)
        self.min_offset = segment.start

    def close_idle_segments(self) -> None:
        """Close descriptors of older segments that were not read since the last call."""
        for segment in self.immutable_segments():
            segment.close_if_idle()

    # Recovery of the journal, before the store has taken a message

    def bytes_at(self, offset: int, length: int) -> bytes:
        """The bytes at ``offset``; fewer at the end of their segment."""
        segment = self._find(offset)
        if segment is None:
            return b""
        with open(segment.path, "rb") as file:
            file.seek(offset - segment.start)
            return file.read(length)

    def blot_out(self, offset: int, length: int) -> None:
        """
        Make a message unreadable, so that consumers skip it: it is a part of a block that is about
        to be stored again, and other messages follow it.

        :raises OSError: the message stays.
        """
        segment = self._find(offset)
        assert segment is not None
        disk = self.environment.disk
        fd = disk.open(segment.path, writable=True)
        try:
            disk.write(fd, b"\xff" * length, offset - segment.start)
            disk.sync(fd)
        finally:
            disk.close(fd)

    def _close_in_worker(self, fd: int) -> None:
        # Closing the last descriptor of a deleted segment of 1 GiB took 775 ms.
        self.environment.threads.submit(
            partial(self.environment.disk.close, fd), self._descriptor_closed
        )

    def _descriptor_closed(self, _: object, error: BaseException | None) -> None:
        if error is not None:
            self._log.warn(
                "Could not close a segment in {path}: {error}", path=self.directory, error=error
            )
