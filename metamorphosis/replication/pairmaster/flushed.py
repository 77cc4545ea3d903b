"""
Finds in the slave's statistics whether it has flushed.

A broker shows the flushed part of its log, while ``stats topics`` counts the written bytes. A Java
slave flushes after ``unflushInterval`` (10 s) or ``unflushThreshold`` messages; until then its log
looks shorter than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metamorphosis.replication.peer import Peer


async def unflushed_topics(peer: Peer) -> set[str] | None:
    """
    The topics of which the slave has written more than it shows; None: unknown.

    :raises PeerError: no reply from the slave.
    """
    topics = await peer.stats("topics")
    offsets = await peer.stats("offsets")
    written = _sums(topics, "message_bytes")
    if not written:
        return None
    shown = _sums(offsets, "max_offset", "min_offset")
    return {topic for topic, size in written.items() if size > shown.get(topic, 0)}


def _sums(text: str, plus: str, minus: str = "") -> dict[str, int]:
    """By the first word of the lines: the sum of the numbers after ``plus`` less ``minus``."""
    sums: dict[str, int] = {}
    for line in text.split("\r\n"):
        words = line.split(" ")
        pairs = dict(zip(words[1::2], words[2::2]))
        try:
            size = int(pairs[plus]) - (int(pairs[minus]) if minus else 0)
        except (KeyError, ValueError):
            continue
        sums[words[0]] = sums.get(words[0], 0) + size
    return sums
