"""The states of a store; ``messagestore`` has their transitions."""

from __future__ import annotations

from enum import Enum


class Worker(Enum):
    """The work on the last segment outside of the reactor thread."""

    IDLE = "nothing; a commit writes"
    FLUSHING = "a flush during which writes are allowed; a commit writes"
    HOLDING = "a flush, a roll or a write during which none are, or gathering: batches collect"


class Life(Enum):
    """Whether a store takes messages."""

    OPEN = "takes messages"
    CLOSING = "takes none, and stores what has collected"
    CLOSED = "has closed its descriptors"
