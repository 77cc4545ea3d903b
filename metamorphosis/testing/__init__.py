"""
Tests of producers and consumers without a broker: see ``docs/testing.md``.

``MemoryCluster`` is the usual way in. The parts can be used alone: ``MemoryBroker`` answers the
bytes of a connection, ``MemoryRegistry`` is a client of a ZooKeeper in memory, ``MemoryRuntime`` a
clock and connections that the test moves by hand.
"""

from __future__ import annotations

from metamorphosis.testing.broker import MemoryBroker
from metamorphosis.testing.cluster import MemoryCluster
from metamorphosis.testing.partition import MemoryPartition
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.testing.runtime import MemoryLink, MemoryLog, MemoryRuntime

__all__ = [
    "MemoryBroker",
    "MemoryCluster",
    "MemoryLink",
    "MemoryLog",
    "MemoryPartition",
    "MemoryRegistry",
    "MemoryRuntime",
    "MemoryTree",
]
