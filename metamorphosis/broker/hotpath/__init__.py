"""
The hot path of ``put`` and ``get``, and which implementation of it runs.

``contract`` says what must hold, ``pure`` is the one in Python, the reference. A compiled one will
be chosen here.
"""

from __future__ import annotations

from metamorphosis.broker.hotpath.contract import Routes, Scan
from metamorphosis.broker.hotpath.pure import scan as _pure

scan: Scan = _pure
"""The implementation that this process uses."""

__all__ = ["Routes", "Scan", "scan"]
