"""
The hot path of ``put`` and ``get``, and which implementation of it runs; beside it, that of
transactions.

``contract`` says what must hold, ``pure`` is the one in Python, the reference, ``native`` the one
that takes puts in C, where that part is built. ``transactional`` is that of transactions.
"""

from __future__ import annotations

from metamorphosis.broker.hotpath import native, pure, syncs
from metamorphosis.broker.hotpath.contract import Routes, Scan
from metamorphosis.native import compiled

scan: Scan = pure.scan if compiled is None else native.scan
"""The implementation that this process uses."""

scan_syncs: Scan = syncs.scan if compiled is None else compiled.take_syncs
"""The same for what a master sends its slave."""

__all__ = ["Routes", "Scan", "scan", "scan_syncs"]
