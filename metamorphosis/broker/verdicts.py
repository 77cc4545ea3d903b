"""
The verdicts of filters about the messages of a partition, so that each filter is asked about a
message once.

A message can be read more than once: the record at the end of a reply is also the first of the next
one, and a consumer that failed, was restarted or went back reads again. A filter with state (every
second message, at most ten a minute) could then give another answer, and a message that was never
delivered would be skipped. The memory is bounded: it forgets the verdicts far from the place where
the group reads.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

MOST_OF_PARTITION: Final = 65_536
"""Verdicts of one group and partition: 512 KiB."""

MOST: Final = 4_000_000
"""Verdicts of all: 32 MB. Beyond it, the partition that has not been read for longest is
forgotten."""

JUMPS: Final = 16
"""Jumps that are remembered for one group and partition."""

OVERHEAD: Final = 64
"""A partition counts as this number of verdicts more, so that many partitions with few verdicts are
bounded too."""


class Verdicts:
    """
    The verdicts about one partition for one group. Thread: reactor.

    :ivar jumps: by the offset at which a reply began: the offset after all messages that the reply
        delivered and skipped.
    """

    __slots__ = ("_most", "_places", "jumps")

    def __init__(self, most: int = MOST_OF_PARTITION) -> None:
        self.jumps: dict[int, int] = {}
        self._most = most
        self._places = array("q")  # sorted; 2 * offset, 1 more if accepted: 8 bytes a verdict

    def __len__(self) -> int:
        return len(self._places)

    def recall(self, offset: int) -> bool | None:
        """The verdict about the message at ``offset``; ``None``: it is unknown or was forgotten."""
        places = self._places
        index = bisect_left(places, offset << 1)
        if index < len(places) and places[index] >> 1 == offset:
            return bool(places[index] & 1)
        return None

    def remember(self, offset: int, accepted: bool) -> None:
        """Keep the first verdict about the message at ``offset``."""
        places = self._places
        place = offset << 1 | accepted
        index = bisect_left(places, place)
        places.insert(index, place)
        if len(places) > self._most:
            count = max(1, self._most // 4)
            if index < len(places) // 2:
                del places[-count:]
            else:
                del places[:count]

    def remember_jump(self, offset: int, target: int) -> None:
        """A reply that begins at ``offset`` ends with a jump to ``target``."""
        self.jumps.pop(offset, None)
        self.jumps[offset] = target
        if len(self.jumps) > JUMPS:
            del self.jumps[next(iter(self.jumps))]


class VerdictMemory:
    """
    The verdicts about all partitions for all groups. Thread: reactor.

    :param most: verdicts kept in all.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._count = 0
        self._partitions: OrderedDict[Hashable, tuple[Verdicts, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._partitions)

    def find(self, key: Hashable) -> Verdicts | None:
        """The verdicts about a partition, if there are any."""
        found = self._partitions.get(key)
        return None if found is None else found[0]

    def used(self, key: Hashable, verdicts: Verdicts) -> None:
        """A group has just read this partition; the partition that was not used for longest may be
        forgotten."""
        _, before = self._partitions.pop(key, (verdicts, 0))
        size = len(verdicts) + OVERHEAD
        self._partitions[key] = verdicts, size
        self._count += size - before
        while self._count > self._most and len(self._partitions) > 1:
            _, (_, size) = self._partitions.popitem(last=False)
            self._count -= size
