"""How many seeds a test tries that plays a model at random."""

from __future__ import annotations

import os

SHARE = int(os.environ.get("SEEDS_SHARE", "1"))
"""One in so many: see ``SHORTER`` of ``tests.stageprocess``."""


def seeds(count: int) -> range:
    """The seeds from 0 on: ``count``, or the share of them that this run tries."""
    return range(max(1, count // SHARE))
