"""
The shares of a group's members: every member computes the same shares from the same lists. Pure.

All members, including Java's, must use one strategy and one order of the lists; otherwise two of
them claim the same partition repeatedly. Partitions are sorted as texts: ``0-10`` comes before
``0-2``.

Source: ``DefaultLoadBalanceStrategy``, ``ConsisHashStrategy``, ``HashAlgorithm``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import md5
from struct import Struct

#: (own id, sorted ids of the topic's subscribers, sorted partitions) -> the own share, sorted
Strategy = Callable[[str, Sequence[str], Sequence[str]], list[str]]

REPLICAS = 40  # digests per consumer on the ring, four points each

_POINTS = Struct("<4I")


def sort_as_java(texts: Iterable[str]) -> list[str]:
    """
    In the order of Java's ``String.compareTo``: by UTF-16 code unit, so that characters beyond
    U+FFFF come before U+E000 to U+FFFF.
    """
    return sorted(texts, key=lambda text: text.encode("utf-16-be", "surrogatepass"))


def assign_ranges(me: str, consumers: Sequence[str], partitions: Sequence[str]) -> list[str]:
    """
    ``DEFAULT``: a contiguous piece of the list for each member; the remainder goes to the first
    ones, one partition each.
    """
    if me not in consumers:
        return []
    size, extra = divmod(len(partitions), len(consumers))
    index = consumers.index(me)
    first = size * index + min(index, extra)
    return list(partitions[first : first + size + (index < extra)])


def assign_by_ring(me: str, consumers: Sequence[str], partitions: Sequence[str]) -> list[str]:
    """
    ``CONSIST``: each partition goes to the consumer with the next point on a ring of hashes. The
    topic does not matter.
    """
    if me not in consumers:
        return []
    points, owners = _ring(tuple(consumers))
    found = []
    for partition in partitions:
        place = bisect_left(points, partition_point(partition))
        if owners[place if place < len(points) else 0] == me:
            found.append(partition)
    return found


def partition_point(partition: str) -> int:
    """The place of a partition on the ring: the first four bytes of its MD5, little-endian."""
    return int(_POINTS.unpack(md5(partition.encode(), usedforsecurity=False).digest())[0])


@lru_cache(maxsize=8)  # one list of members serves all topics of a balance
def _ring(consumers: tuple[str, ...]) -> tuple[list[int], list[str]]:
    """The sorted points, and their consumers; the later consumer gets an equal point."""
    ring: dict[int, str] = {}
    for consumer in consumers:
        for replica in range(REPLICAS):
            key = f"{consumer}-{replica}".encode("utf-8", "surrogatepass")
            digest = md5(key, usedforsecurity=False).digest()
            ring.update(dict.fromkeys(_POINTS.unpack(digest), consumer))
    points = sorted(ring)
    return points, [ring[point] for point in points]


#: ``loadBalanceStrategyType`` -> strategy
STRATEGIES: Mapping[str, Strategy] = {"DEFAULT": assign_ranges, "CONSIST": assign_by_ring}
