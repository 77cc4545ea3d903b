"""The figures of a slave's partitions, for ``stats replication``."""

from __future__ import annotations

from metamorphosis.replication.follower.partition import PartitionCopy, Standing
from metamorphosis.replication.logs import LogEnds
from metamorphosis.replication.status import PartitionFigures

GOES_ON = (Standing.COPYING, Standing.COMPARING, Standing.WAITING)


def figures_of(copy: PartitionCopy) -> PartitionFigures:
    """The figures of a partition that is copied, or should be."""
    own = copy.own
    standing = copy.standing
    other = None if copy.master is None else copy.master.end
    if copy.is_level or standing is Standing.COPYING and other is not None and other < own.end:
        other = own.end  # it was copied later
    stands = "" if standing in GOES_ON else copy.reason or standing.value
    return PartitionFigures(
        own.topic,
        own.partition,
        own.ends,
        other,
        copy.seconds_behind,
        standing.name.lower(),
        stands,
    )


def lacking_figures(topic: str, partition: int, why: str) -> PartitionFigures:
    """The figures of a partition that our ``server.ini`` does not have."""
    return PartitionFigures(topic, partition, LogEnds(0, 0), state="lacking", stands=why)
