"""The log lines of a registration: each fault once until the registration succeeds again."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from metamorphosis.cluster.model import Broker
from metamorphosis.cluster.ownership import Occupied
from metamorphosis.errors import RegistryError, RegistryUnavailable


class RegistrationReports:
    """The log lines of one registration. Thread: reactor."""

    _log = Logger()

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._reported: set[str] = set()

    def registered(self, topics: int, changed: bool) -> None:
        """Every node is held; log a line only if a node was written."""
        self._reported.clear()
        if changed:
            self._log.info(
                "registered in ZooKeeper: broker {id} at {url}, topics: {topics}",
                id=self._broker.broker_id,
                url=self._broker.url,
                topics=topics,
            )

    def withdrawn(self, changed: bool) -> None:
        """No node is held; log a line only if a node was deleted."""
        self._reported.clear()
        if changed:
            self._log.info(
                "withdrawn from ZooKeeper: broker {id} at {url}; clients do not find it until it"
                " registers again",
                id=self._broker.broker_id,
                url=self._broker.url,
            )

    def faults(self, occupied: Sequence[Occupied], others: Sequence[RegistryError]) -> None:
        """Log the faults of a pass. Lost connections are logged by the registry."""
        if occupied and self._is_news(str(occupied[0])):
            self._log.error(
                "brokerId {id} is in use by another broker, or an earlier run of this one is still"
                " known to ZooKeeper: {fault} (nodes: {count}); this broker is {url}. Such nodes"
                " are left alone: we register when they are gone and serve our clients meanwhile."
                " If both brokers are meant to run, give one another brokerId",
                id=self._broker.broker_id,
                fault=occupied[0],
                count=len(occupied),
                url=self._broker.url,
            )
        told = [fault for fault in others if not isinstance(fault, RegistryUnavailable)]
        if told and self._is_news(str(told[0])):
            self._log.error(
                "cannot register in ZooKeeper, still trying: {fault} (faults: {count})",
                fault=told[0],
                count=len(told),
            )

    def _is_news(self, text: str) -> bool:
        known = text in self._reported
        self._reported.add(text)
        return not known
