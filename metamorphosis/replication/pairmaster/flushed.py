"""
Finds out whether the slave has flushed a partition.

A broker shows the flushed part of its log. A slave of ours tells the written end of each partition
(``stats replication``). The original tells only the written bytes of a topic (``stats topics``). It
flushes after ``unflushInterval`` (10 s) or ``unflushThreshold`` messages; until then its log looks
shorter than it is. The other partitions of the topic may get puts all the time, so that they always
have unflushed bytes: at least what the master has of a joined partition is on the slave as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metamorphosis.replication.status import parse_status

if TYPE_CHECKING:
    from metamorphosis.replication.peer import Peer


async def has_unflushed(
    peer: Peer, topic: str, partition: int, shown: int, known: Mapping[int, int]
) -> bool:
    """
    Whether the slave has written more of a partition than it shows, as far as it tells.

    :param shown: the end of its log that it shows.
    :param known: by partition of the topic: an end of the slave's log that was written before.
    :raises PeerError: no reply from the slave.
    """
    written = _written_end(await peer.stats("replication"), topic, partition)
    if written is not None:
        return written > shown
    topics = _numbers(await peer.stats("topics"), topic)
    size = sum(line.get("message_bytes", 0) for line in topics)
    for line in _numbers(await peer.stats("offsets"), topic):
        end = max(line.get("max_offset", 0), known.get(line.get("part", -1), 0))
        size -= end - line.get("min_offset", 0)
    return size > 0


def _written_end(text: str, topic: str, partition: int) -> int | None:
    """The end in the status of a slave of ours; None if it is another broker's, or tells none."""
    try:
        figures = parse_status(text.split("\r\n"))
    except ValueError:
        return None
    for each in () if figures is None else figures.partitions:
        if (each.topic, each.number) == (topic, partition):
            return each.own.end
    return None


def _numbers(text: str, topic: str) -> list[dict[str, int]]:
    """The pairs of word and number in the lines of a topic."""
    found = []
    for line in text.split("\r\n"):
        name, *words = line.split(" ")
        if name == topic:
            pairs = zip(words[::2], words[1::2])
            found.append({key: int(value) for key, value in pairs if value.isdigit()})
    return found
