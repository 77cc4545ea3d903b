"""The relation of a partition to the slave's; ``pairedlog`` has its transitions."""

from __future__ import annotations

from enum import Enum


class Standing(Enum):
    """The relation of a partition to the slave's; see the module."""

    APART = "not compared since something happened"
    JOINING = "being compared, or brought level"
    JOINED = "the same"
    DIVERGED = "different, and left alone"


JOINED = Standing.JOINED
