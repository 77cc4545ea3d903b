"""
The topics that the broker accepts, the number of their partitions, and the partitions that the
operator has closed.

All methods: reactor thread. The hot path keeps its own table of routes; a listener of ``on_change``
clears it.

Source: ``MessageStoreManager`` (patterns, ranges), ``MetaConfig`` (closed partitions).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from random import randrange

from twisted.logger import Logger

from metamorphosis.broker import refusals
from metamorphosis.config.model import BrokerConfig, Settings, TopicConfig

ANY_PARTITION = -1
"""A producer sends this to leave the choice to the broker."""

CACHE_LIMIT = 10_000
"""Names that a cache keeps at most: a peer that invents topics must not fill the memory."""

LONGEST_TOPIC = 255
"""
A longer name cannot be that of a directory; the limit also keeps the match of a pattern with many
``*`` from taking seconds.
"""

Ranges = tuple[tuple[int, int], ...]


class TopicPatterns:
    """
    A set of section names as patterns, matched in full: ``*`` stands for any text.

    Differs: the original compiles the rest of a name as a regular expression without quoting it, so
    that ``a+b`` accepts ``aab`` but never ``a+b``. Here a name also, and always, accepts itself;
    names that the original accepted stay accepted, because a refusal would lose the messages of a
    producer that worked before.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names: set[str] = set()
        self._patterns: list[re.Pattern[str]] = []
        self._known: dict[str, bool] = {}
        self.add(names)

    def add(self, names: Iterable[str]) -> None:
        """Also accept these names from now on."""
        for name in names:
            if name not in self._names:
                self._names.add(name)
                self._patterns += _compile(name)
        self._known.clear()

    def match(self, topic: str) -> bool:
        """Whether any pattern covers the whole of ``topic``; remembered."""
        found = self._known.get(topic)
        if found is None:
            found = topic in self._names or (
                len(topic) <= LONGEST_TOPIC and any(p.fullmatch(topic) for p in self._patterns)
            )
            if len(self._known) >= CACHE_LIMIT:
                self._known.clear()
            self._known[topic] = found
        return found


def _compile(name: str) -> list[re.Pattern[str]]:
    """The patterns that a section name stands for besides itself; empty for a plain name."""
    if re.escape(name) == name:
        return []
    patterns = [re.compile(re.escape(name).replace(r"\*", ".*"))]
    try:
        patterns.append(re.compile(name.replace("*", ".*")))
    except re.error:
        pass  # a name like "a(b": the original does not start; here it is taken literally
    return patterns


class TopicRules:
    """
    The rules of ``server.ini`` and of the operator for topics.

    :param randrange: chooses a number below its argument; injected by tests.
    """

    _log = Logger()

    def __init__(
        self,
        config: BrokerConfig,
        settings: Settings,
        randrange: Callable[[int], int] = randrange,
    ) -> None:
        self._config = config
        self._randrange = randrange
        self._patterns = TopicPatterns(config.topics)
        self._listeners: list[Callable[[], None]] = []
        self._closed: Mapping[str, Ranges] = {}
        self._read_closed(settings)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever an earlier answer of these rules may no longer hold."""
        self._listeners.append(listener)

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """
        Apply a reload. Topics of removed sections stay accepted until the process ends, because
        their stores stay open; they fall back to the global values.
        """
        self._config = config
        self._patterns.add(config.topics)
        self._read_closed(settings)
        self._changed()

    def accepts(self, topic: str) -> bool:
        """Whether a section that was configured since the process started covers ``topic``."""
        return self._patterns.match(topic)

    def topic_config(self, topic: str) -> TopicConfig:
        """The section of ``topic``, or the global values."""
        return self._config.topic(topic)

    def partition_count(self, topic: str) -> int:
        """
        The number of partitions of ``topic``; the global number without a section of exactly this
        name.
        """
        section = self._config.topics.get(topic)
        return self._config.num_partitions if section is None else section.num_partitions

    def random_partition(self, topic: str) -> int:
        """
        Any open partition of ``topic``, ``ANY_PARTITION`` if there is none.

        Differs: the original does not exclude closed partitions (D-14), so producers that leave the
        choice to the broker keep filling a partition that the operator has closed.
        """
        count = self.partition_count(topic)
        if count <= 0:
            return ANY_PARTITION
        if topic not in self._closed:
            return self._randrange(count)
        candidates = [p for p in range(count) if not self.is_closed(topic, p)]
        return candidates[self._randrange(len(candidates))] if candidates else ANY_PARTITION

    def place(self, url: str, topic: str, requested: int) -> int:
        """
        The partition to which a put goes: checks 1 to 4 of a put in the original's order.

        :param url: this broker's own, for the text of a refusal.
        :raises Forbidden: the partition, or every partition, is closed.
        :raises InternalServerError: topic not accepted, or partition out of range.
        """
        if self.is_closed(topic, requested):
            raise refusals.put_closed(url, topic, self._config.broker_id, requested)
        partition = self.random_partition(topic) if requested == ANY_PARTITION else requested
        if not self.accepts(topic):
            detail = refusals.topic_not_accepted(topic)
            raise refusals.put_failed(url, topic, partition, detail)
        count = self.partition_count(topic)
        if 0 <= partition < count:
            return partition
        if requested == ANY_PARTITION and count > 0:
            raise refusals.put_closed(url, topic, self._config.broker_id, partition)
        raise refusals.put_failed(url, topic, partition, refusals.wrong_partition(partition))

    def is_closed(self, topic: str, partition: int) -> bool:
        """Whether the operator has closed this partition for puts and gets."""
        ranges = self._closed.get(topic, ())
        return any(start <= partition <= end for start, end in ranges)

    def closed_partitions(self, topic: str) -> Ranges:
        """The closed ranges of ``topic``, both ends included."""
        return self._closed.get(topic, ())

    def _read_closed(self, settings: Settings) -> None:
        closed = {
            topic: tuple(r for r in ranges if self._closable(topic, *r))
            for topic, ranges in settings.closed_partitions.items()
        }
        for topic in sorted({*closed, *self._closed}):
            before, after = self._closed.get(topic, ()), closed.get(topic, ())
            if before != after:
                self._log.info(
                    "Closed partitions of topic {topic}: {after} (before: {before})",
                    topic=topic,
                    after=_text(after),
                    before=_text(before),
                )
        self._closed = closed

    def _closable(self, topic: str, start: int, end: int) -> bool:
        if topic not in self._config.topics:
            self._log.warn(
                "Closed no partition of topic=[{topic}]: it is empty or has no section in {path}",
                topic=topic,
                path=self._config.path,
            )
            return False
        if 0 <= start <= end:
            return True
        self._log.warn(
            "Closed no partition of topic={topic}: start={start},end={end} is no range",
            topic=topic,
            start=start,
            end=end,
        )
        return False

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()


def _text(ranges: Ranges) -> str:
    """The ranges in the notation of the settings file."""
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in ranges) or "none"
