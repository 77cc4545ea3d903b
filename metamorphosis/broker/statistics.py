"""
Counters of the broker; ``broker.figures`` passes them to ``stats`` and others.

Two kinds, as in the original: counters since the start, which are plain integers of
``BrokerStatistics`` that other modules increment, and realtime counters per topic, kept only for
topics with ``stat=true`` and zeroed every 30 minutes. A ``record_`` method keeps the realtime
counters only; a ``count_`` method increments the counter since the start as well. Reactor thread.

Source: ``StatsManager``, ``MetaStatLog``, ``RealTimeStat``.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from metamorphosis.broker.topics import TopicPatterns
from metamorphosis.config.model import BrokerConfig

RESET_SECONDS = 30 * 60

PUT = "put"
PUT_FAILED = "put_failed"
GET = "get"
GET_MISS = "get_miss"
GET_FAILED = "get_failed"
OFFSET = "offset"
MESSAGE_SIZE = "message_size"


class RealtimeStatistics:
    """
    Events and their summed values by kind and topic, since the last reset.

    The original also distinguishes partitions and groups, which only JMX could show; ``stats`` sums
    over them. The reset is due on a fixed grid of 30 minutes from the start and made when figures
    are read or counted.

    Source: ``MetaStatLog``.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._kinds: dict[str, dict[str, list[int]]] = {}
        self._last_reset = clock.seconds()
        self._next_reset = self._last_reset + RESET_SECONDS

    def add(self, kind: str, topic: str, count: int, value: int) -> None:
        """``count`` events of ``kind`` happened to ``topic``; their sum is ``value``."""
        self._reset_if_due()
        topics = self._kinds.setdefault(kind, {})
        counter = topics.get(topic)
        if counter is None:
            topics[topic] = [count, value]
        else:
            counter[0] += count
            counter[1] += value

    def reset(self) -> None:
        """Zero every counter; figures that were ever counted still show, as zero."""
        self._zero(self._clock.seconds())

    def text(self, kind: str, topic: str | None = None) -> str:
        """
        The value as ``stats`` shows it.

        :param topic: ``None`` sums over all topics.
        """
        self._reset_if_due()
        topics = self._kinds.get(kind)
        if topics is None:
            return "null"
        if topic is None:
            counters = list(topics.values())
        elif topic in topics:
            counters = [topics[topic]]
        else:
            return f"Invalid keyTwo:{topic}"
        duration = max(0, int(self._clock.seconds() - self._last_reset))
        return realtime_value(sum(c for c, _ in counters), sum(v for _, v in counters), duration)

    def _reset_if_due(self) -> None:
        late = self._clock.seconds() - self._next_reset
        if late >= 0:
            due = self._next_reset + late // RESET_SECONDS * RESET_SECONDS
            self._zero(due)
            self._next_reset = due + RESET_SECONDS

    def _zero(self, at: float) -> None:
        for topics in self._kinds.values():
            for counter in topics.values():
                counter[:] = (0, 0)
        self._last_reset = at


class BrokerStatistics:
    """
    Every counter of the broker.

    :ivar cmd_put: puts outside a transaction, failed ones too, and successful puts inside one.
    :ivar cmd_get: gets.
    :ivar cmd_offset: offset requests, and gets answered 301, except those of a consumer filter.
    :ivar get_miss: gets answered 404 or, out of range, 301.
    :ivar get_failed: gets out of range or answered 500; never shown.
    :ivar put_failed: puts answered 500.
    """

    def __init__(self, config: BrokerConfig, clock: IReactorTime) -> None:
        self.cmd_put = 0
        self.cmd_get = 0
        self.cmd_offset = 0
        self.tx_begin = 0
        self.tx_xa_begin = 0
        self.tx_commit = 0
        self.tx_rollback = 0
        self.get_miss = 0
        self.get_failed = 0
        self.put_failed = 0
        self._clock = clock
        self._started = clock.seconds()
        self.realtime = RealtimeStatistics(clock)
        self._patterns = _stat_patterns(config)

    def reconfigure(self, config: BrokerConfig) -> None:
        """Apply a reload of the topics with ``stat=true``."""
        self._patterns = _stat_patterns(config)

    @property
    def uptime(self) -> int:
        """Whole seconds since the start."""
        return max(0, int(self._clock.seconds() - self._started))

    def record_puts(self, topic: str, count: int, size: int) -> None:
        """``count`` puts arrived; their bodies have ``size`` bytes together."""
        if self._patterns.match(topic):
            self.realtime.add(PUT, topic, count, count)
            self.realtime.add(MESSAGE_SIZE, topic, count, size)

    def count_puts(self, topic: str, count: int, size: int) -> None:
        """As ``record_puts``, and in the counter since the start."""
        self.cmd_put += count
        self.record_puts(topic, count, size)

    def count_put_failed(self, topic: str, count: int = 1) -> None:
        """Puts were answered 500."""
        self.put_failed += count
        self._record(PUT_FAILED, topic, count)

    def count_get(self, topic: str, count: int = 1) -> None:
        """Gets arrived."""
        self.cmd_get += count
        self._record(GET, topic, count)

    def count_get_miss(self, topic: str) -> None:
        """A get was answered 404, or 301 because it was out of range."""
        self.get_miss += 1
        self._record(GET_MISS, topic, 1)

    def count_get_failed(self, topic: str) -> None:
        """A get was out of range, or answered 500."""
        self.get_failed += 1
        self._record(GET_FAILED, topic, 1)

    def count_offset(self, topic: str) -> None:
        """An offset request arrived, or a get was answered 301 by its store."""
        self.cmd_offset += 1
        self._record(OFFSET, topic, 1)

    def _record(self, kind: str, topic: str, count: int) -> None:
        if self._patterns.match(topic):
            self.realtime.add(kind, topic, count, count)


def _stat_patterns(config: BrokerConfig) -> TopicPatterns:
    return TopicPatterns(topic.name for topic in config.topics.values() if topic.stat)


def realtime_value(count: int, value: int, duration: int) -> str:
    """
    ``count`` events with the sum ``value`` in ``duration`` whole seconds; monitors parse this by
    position.
    """
    average = _two_decimals(value / count) if count else "invalid"
    rate = _two_decimals(count / duration) if duration else "invalid"
    return (
        f"Count={count},Value={value},Value/Count={average},"
        f"Count/Duration={rate},Duration={duration}"
    )


def _two_decimals(number: float) -> str:
    """
    At most two decimals without trailing zeros, half-even on the exact binary value: 0.125 is 0.12,
    1.005 (really a little less) is 1.
    """
    return f"{number:.2f}".rstrip("0").rstrip(".")
