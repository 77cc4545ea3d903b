"""All partitions of the pair: those with a log here, and those of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from metamorphosis.replication.pairmaster.pairedlog import PairedLog
from metamorphosis.replication.pairmaster.standing import Standing

if TYPE_CHECKING:
    from metamorphosis.broker.responders import Responders
    from metamorphosis.replication.pairmaster.syncs import Syncs
    from metamorphosis.store.messagestore import MessageStore

Place = tuple[str, int]
"""Topic and partition."""


class PairedLogs:
    """
    (topic, partition) -> ``PairedLog``. Thread: reactor.

    :ivar parted: see ``PairedLog``.
    """

    def __init__(self, responders: Responders, syncs: Syncs) -> None:
        self.parted: Callable[[PairedLog], None] = lambda log: None
        self._responders = responders
        self._syncs = syncs
        self._logs: dict[Place, PairedLog] = {}
        for store in responders.stores:
            self._add(store)

    def __iter__(self) -> Iterator[PairedLog]:
        return iter(tuple(self._logs.values()))

    def get(self, place: Place) -> PairedLog | None:
        """The log of a partition; None without a log here."""
        return self._logs.get(place)

    def open(self, place: Place, joined: bool = False, start: int = 0) -> PairedLog:
        """
        The log, created if the partition is new.

        :param joined: neither broker has the partition: it is joined from the start.
        :param start: the first offset, that of the slave's log, which is to be copied.
        :raises StoreError: it cannot be created.
        """
        log = self._logs.get(place)
        if log is None:
            topic, partition = place
            responders = self._responders
            config = responders.rules.topic_config(topic)
            store = responders.stores.get_or_create(config, partition, start)
            responders.long_polls.store_made(store)
            log = self._add(store)
            if joined:
                log.join()
        return log

    def _add(self, store: MessageStore) -> PairedLog:
        log = PairedLog(store, self._syncs, lambda log: self.parted(log))
        self._logs[store.topic, store.partition] = log
        return log

    def places(self) -> list[Place]:
        """The partitions of the configuration, and those with a log here; sorted."""
        rules = self._responders.rules
        places = set(self._logs)
        for topic in self._responders.config.topics:
            places.update((topic, number) for number in range(rules.partition_count(topic)))
        return sorted(places)

    def joined_ends(self, topic: str) -> dict[int, int]:
        """By partition, the ends of a topic's logs that the slave has as well."""
        logs = (each for each in self if each.topic == topic and each.standing is Standing.JOINED)
        return {each.partition: each.store.next_offset for each in logs}

    def count(self, standing: Standing) -> int:
        """The number of logs with this standing."""
        return sum(log.standing is standing for log in self._logs.values())
