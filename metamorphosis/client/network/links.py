"""The interfaces of a connection between runtime and core, and the form of the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

MEANWHILE: Final = "brokers and partitions known so far are used"
"""For the log: the client goes on while ZooKeeper is away."""

Waiter = Callable[[int, bytes, int], None]
"""Gets status, body and opaque of an answer, exactly once for each request; see ``replies`` for the
statuses of this side. Must not raise."""


class Link(Protocol):
    """A TCP connection. Thread: the loop's."""

    def write(self, data: bytes) -> None:
        """Send; what the socket does not take at once is queued."""

    def close(self) -> None:
        """Close when everything written has left."""

    def abort(self) -> None:
        """Close at once."""

    def pause_reading(self) -> None:
        """No ``data_received`` until ``resume_reading``."""

    def resume_reading(self) -> None:
        """Go on."""


class Receiver(Protocol):
    """The end of a ``Link`` that belongs to the core. Thread: the loop's."""

    def connected(self, link: Link) -> None:
        """First of all."""

    def room(self) -> memoryview | None:
        """Where the next bytes should be put, to be reported by ``received``; None: they go to
        ``data_received``. A link need not ask. It writes nothing there after ``received``: the
        bytes are part of a reply then."""

    def received(self, count: int) -> None:
        """So many bytes were put into the ``room`` that was asked for last."""

    def data_received(self, data: bytes) -> None:
        """Bytes, in pieces of any size."""

    def disconnected(self, reason: str) -> None:
        """Last of all and once, also after ``Link.close``; not in ``close`` or ``abort`` itself."""

    def pause_sending(self) -> None:
        """The link's queue is full; it still takes what is written."""

    def resume_sending(self) -> None:
        """The link's queue has room again."""


class Log(Protocol):
    """Texts with fields in braces, as ``twisted.logger`` has them."""

    def debug(self, format: str, **fields: object) -> None:
        """For the search for an error."""

    def info(self, format: str, **fields: object) -> None:
        """A normal change."""

    def warn(self, format: str, **fields: object) -> None:
        """An operation failed and is tried again."""

    def error(self, format: str, **fields: object) -> None:
        """An operation failed and is not tried again."""

    def failure(self, format: str, **fields: object) -> None:
        """``error`` with the exception that is being handled and its traceback."""
