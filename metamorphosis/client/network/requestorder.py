"""
Whether a broker executes the requests of a connection in the order in which they were sent.

Ours does; the original executes them on several threads. Each link sends one request to find out,
which both brokers answer: ``stats replication`` is an item of our broker, and for the original the
name of a topic. Before the reply the order counts as unknown, which is treated as not kept.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol

from metamorphosis.client.network.links import Waiter
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.replies import SUCCESS

_OURS: Final = b"\r\nrole "
"""The beginning of a line that only our broker has in its reply."""


class Order(Enum):
    """The order of requests on a link."""

    UNKNOWN = "unknown"
    ASKED = "asked"
    KEPT = "kept"
    NOT_KEPT = "not kept"


class Asked(Protocol):
    """The part of a connection that this module uses."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a link."""

    def request(self, opaque: int, frame: bytes, waiter: Waiter, timeout: float) -> None:
        """Send a frame; see ``BrokerConnection``."""


class RequestOrder:
    """
    The order of one connection's requests. Thread: the loop's.

    :param limit: seconds for the reply.
    :ivar state: see ``Order``.
    """

    __slots__ = ("_connection", "_limit", "state")

    def __init__(self, connection: Asked, limit: float) -> None:
        self.state = Order.UNKNOWN
        self._connection = connection
        self._limit = limit

    def begin(self) -> None:
        """Forget the order: a new link, possibly to another broker, has begun."""
        self.state = Order.UNKNOWN

    def is_kept(self) -> bool:
        """Whether the order is known to be kept; sends the request if it is unknown."""
        if self.state is Order.UNKNOWN and self._connection.is_connected:
            self.state = Order.ASKED
            opaque = next_opaque()
            frame = b"stats replication %d\r\n" % opaque
            self._connection.request(opaque, frame, self._answered, self._limit)
        return self.state is Order.KEPT and self._connection.is_connected

    def _answered(self, status: int, body: bytes, opaque: int) -> None:
        if self.state is Order.ASKED:
            is_ours = status == SUCCESS and _OURS in body
            self.state = Order.KEPT if is_ours else Order.NOT_KEPT
