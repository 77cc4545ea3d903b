"""The states of a store; ``messagestore`` has their transitions."""

from __future__ import annotations

from enum import Enum


class Worker(Enum):
    """The work on the last segment outside of the reactor thread."""

    IDLE = "nothing; a commit writes"
    FLUSHING = "a flush that does not mind writes; a commit writes"
    HOLDING = "a flush, a roll or a write that must not be disturbed; or gathering: batches collect"


class Life(Enum):
    """Whether a store takes messages."""

    OPEN = "takes messages"
    CLOSING = "takes none, and stores what has collected"
    CLOSED = "has given its descriptors back"
