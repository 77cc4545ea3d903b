"""
The figures of a running broker: the one source for ``stats``, metrics and dashboard.

``FigureSource`` takes each figure from its place, and ``Figures`` are the figures of one moment.
Each reader formats them itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from metamorphosis.broker.statistics import BrokerStatistics
from metamorphosis.config.model import BrokerConfig

if TYPE_CHECKING:
    from metamorphosis.broker.responders.shared import Shared
    from metamorphosis.store.messagestore import MessageStore

VERSION = "1.4.6.2"
"""The release of the original that this broker replaces; shown by ``version`` and ``stats``."""


class StoreFigures(Protocol):
    """The figures of a ``MessageStore``."""

    @property
    def topic(self) -> str:
        """Its topic."""

    @property
    def partition(self) -> int:
        """Its partition."""

    @property
    def min_offset(self) -> int:
        """First readable offset."""

    @property
    def max_offset(self) -> int:
        """End of the readable part."""

    @property
    def message_count(self) -> int:
        """Appends since the start plus messages found in the last segment then."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments, flushed or not."""


PLAIN = ("role master", "state running")
"""The lines of ``stats replication`` of a broker without a role."""


@dataclass(frozen=True, slots=True)
class Figures:
    """
    The figures of a broker at one moment.

    :ivar stores: every open store, in any order.
    :ivar connections: the number of open connections, that of the request included.
    :ivar port: the port on which the broker listens, also where the configuration says 0.
    :ivar version: the release of the original that this broker replaces.
    :ivar slave: whether the broker is an asynchronous slave.
    :ivar replication: the lines of ``stats replication``.
    """

    config: BrokerConfig
    statistics: BrokerStatistics
    stores: Iterable[StoreFigures]
    connections: int
    port: int
    version: str
    slave: bool = False
    replication: Callable[[], Iterable[str]] = lambda: PLAIN
    pid: int = field(default_factory=os.getpid)
    threads: int = field(default_factory=threading.active_count)


class FigureSource:
    """
    Takes the figures. Thread: reactor.

    :ivar connection_count: the number of connected clients; set by the factory.
    :ivar port: the port on which the broker listens; set by the factory.
    :ivar slave: whether the broker is an asynchronous slave; set by the role.
    :ivar replication: makes the lines of ``stats replication``; set by the role.
    """

    def __init__(self, shared: Shared) -> None:
        self.connection_count: Callable[[], int] = lambda: 0
        self.port = shared.config.server_port
        self.slave = False
        self.replication: Callable[[], Iterable[str]] = lambda: PLAIN
        self._shared = shared
        self._tallied: dict[MessageStore, tuple[int, int, int]] = {}

    def take(self) -> Figures:
        """The figures of this moment."""
        self.tally()
        return Figures(
            config=self._shared.config,
            statistics=self._shared.statistics,
            stores=tuple(self._shared.stores),
            connections=self.connection_count(),
            port=self.port,
            version=VERSION,
            slave=self.slave,
            replication=self.replication,
        )

    def tally(self) -> None:
        """
        Add the counts of the stores since the last call to the statistics.

        The hot path only increments integers of a store; this runs before figures are taken and
        every few seconds.
        """
        statistics = self._shared.statistics
        for store in self._shared.stores:
            now = (store.put_count, store.put_bytes, store.get_count)
            puts, size, gets = self._tallied.get(store, (0, 0, 0))
            if now[0] != puts:
                statistics.count_puts(store.topic, now[0] - puts, now[1] - size)
            if now[2] != gets:
                statistics.count_get(store.topic, now[2] - gets)
            self._tallied[store] = now
