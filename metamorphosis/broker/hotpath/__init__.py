"""
The hot path of ``put`` and ``get``, of ``sync`` and of transactions, and the choice of the
implementation.

``contract`` has the rules, ``pure`` is the reference in Python, ``native`` takes puts in C where
that part is built. ``syncs`` takes the requests of a pair's master, ``transactional`` those of
transactions.
"""

from __future__ import annotations

from metamorphosis.broker.hotpath import native, pure, syncs
from metamorphosis.broker.hotpath.contract import Routes, Scan
from metamorphosis.native import compiled

scan: Scan = pure.scan if compiled is None else native.scan
"""The implementation that this process uses."""

scan_syncs: Scan = syncs.scan if compiled is None else compiled.take_syncs
"""The same for ``sync``, which a master sends to its slave."""

__all__ = ["Routes", "Scan", "scan", "scan_syncs"]
