"""
The replies to ``stats``: lines ended by CRLF, the first ``STATS``, the last ``END``, items
separated by one space.

Monitors and the web dashboard parse them by position. Topics are sorted (the original's order is
arbitrary).

Source: ``StatsManager.getStatsInfo``, ``BrokerCommandProcessor.processStatsConfig``.
"""

from __future__ import annotations

from dataclasses import dataclass

from metamorphosis import __version__
from metamorphosis.broker.figures import Figures, StoreFigures
from metamorphosis.broker.statistics import (
    GET,
    GET_MISS,
    MESSAGE_SIZE,
    OFFSET,
    PUT,
    PUT_FAILED,
)

REALTIME_KINDS = (PUT, GET, OFFSET, GET_MISS, PUT_FAILED, MESSAGE_SIZE)

REPLICATION = "replication"

HELP = (
    "*EMPTY* Returns broker info.",
    "help Returns help menu.",
    "topics Returns topics statistics detail info.",
    "offsets Returns partitions detail info.",
    "realtime Returns realtime statistics detail info.",
    "config Returns broker's config file content.",
)


@dataclass(slots=True)
class _TopicTotals:
    """The stores of one topic together."""

    partitions: int = 0
    messages: int = 0
    size: int = 0

    def add(self, store: StoreFigures) -> None:
        self.partitions += 1
        self.messages += store.message_count
        self.size += store.size_bytes


def stats_reply(item: str, figures: Figures) -> tuple[int, bytes]:
    """
    Status and body of the reply to ``stats <item>``.

    Differs: the figures of the broker end with the version of this product, behind all lines of the
    original, so that a monitor which counts lines finds them where they were.

    Differs: ``replication`` is an item that only this broker has. The original takes it for the
    name of a topic; the lines about such a topic follow if there is one.

    :param item: blank, one of the seven words, or else the name of a topic; case matters. ``reset``
        zeroes the realtime counters.
    """
    if item == "config":
        return config_reply(figures.config.path)
    lines = ["STATS", *_lines(item, figures), "END", ""]
    return 200, "\r\n".join(lines).encode("utf-8", "replace")


def config_reply(path: str) -> tuple[int, bytes]:
    """
    The configuration file as it is now on disk, byte for byte; asynchronous slaves take their
    configuration from it.

    Differs: the original leaves a second request with the same opaque within 5 s unanswered.
    """
    try:
        with open(path, "rb") as file:
            return 200, file.read()
    except FileNotFoundError:
        text = f"Config file not found:{path}"
    except OSError as error:
        text = f"Read config file error:{error.strerror or error}"
    return 500, text.encode("utf-8", "replace")


def _lines(item: str, figures: Figures) -> list[str]:
    if not item.strip():
        return _general(figures)
    if item == "topics":
        return _topics(figures)
    if item == "offsets":
        return _offsets(figures)
    if item == "realtime":
        realtime = figures.statistics.realtime
        return [f"realtime_{kind} {realtime.text(kind)}" for kind in REALTIME_KINDS]
    if item == "help":
        return list(HELP)
    if item == "reset":
        figures.statistics.realtime.reset()
        return ["reset ok"]
    if item == REPLICATION:
        return _replication(figures)
    return _topic(item, figures)


def _general(figures: Figures) -> list[str]:
    statistics, config = figures.statistics, figures.config
    names = set(config.topics)
    messages = 0
    for store in figures.stores:
        names.add(store.topic)
        messages += store.message_count
    return [
        f"pid {figures.pid}",
        f"broker_id {config.broker_id}",
        f"port {figures.port}",
        f"uptime {statistics.uptime}",
        f"version {figures.version}",
        f"slave {_boolean(figures.slave)}",
        f"curr_connections {figures.connections}",
        f"threads {figures.threads}",
        f"cmd_put {statistics.cmd_put}",
        f"cmd_get {statistics.cmd_get}",
        f"cmd_offset {statistics.cmd_offset}",
        f"tx_begin {statistics.tx_begin}",
        f"tx_xa_begin {statistics.tx_xa_begin}",
        f"tx_commit {statistics.tx_commit}",
        f"tx_rollback {statistics.tx_rollback}",
        f"get_miss {statistics.get_miss}",
        f"put_failed {statistics.put_failed}",
        f"total_messages {messages}",
        f"topics {len(names)}",
        f"config_checksum {config.checksum}",
        f"metamorphosis {__version__}",
    ]


def _topics(figures: Figures) -> list[str]:
    totals: dict[str, _TopicTotals] = {}
    for store in figures.stores:
        totals.setdefault(store.topic, _TopicTotals()).add(store)
    config = figures.config
    lines = []
    for topic in sorted(totals):
        total, section = totals[topic], config.topics.get(topic, config)
        lines.append(
            f"{topic} partitions {total.partitions} message_count {total.messages}"
            f" message_bytes {total.size} accept_publish {_boolean(section.accept_publish)}"
            f" accept_subscribe {_boolean(section.accept_subscribe)}"
        )
    return lines + [f"{topic} *Empty*" for topic in config.topics if topic not in totals]


def _offsets(figures: Figures) -> list[str]:
    stores = sorted(figures.stores, key=lambda store: (store.topic, store.partition))
    return [
        f"{store.topic} part {store.partition}"
        f" min_offset {store.min_offset} max_offset {store.max_offset}"
        for store in stores
    ]


def _replication(figures: Figures) -> list[str]:
    lines = list(figures.replication())
    known = any(store.topic == REPLICATION for store in figures.stores)
    if known or REPLICATION in figures.config.topics:
        lines += _topic(REPLICATION, figures)
    return lines


def _topic(topic: str, figures: Figures) -> list[str]:
    total = _TopicTotals()
    for store in figures.stores:
        if store.topic == topic:
            total.add(store)
    result = 0 if total.partitions else 2 if topic in figures.config.topics else 1
    realtime = figures.statistics.realtime
    return [
        topic,
        f"resultCode {result}",
        f"partitions {total.partitions}",
        f"message_count {total.messages}",
        f"bytes {total.size}",
        *(f"topic_realtime_{kind} {realtime.text(kind, topic)}" for kind in REALTIME_KINDS),
    ]


def _boolean(value: bool) -> str:
    return "true" if value else "false"
