"""
Support for tests of producers and consumers without a broker: see ``docs/testing.md``.

Most tests use ``MemoryCluster``. The parts can be used alone: ``MemoryBroker`` answers the bytes of
a connection, ``MemoryRegistry`` is a client of a ZooKeeper in memory, ``MemoryRuntime`` has a clock
and connections that the test controls.
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
