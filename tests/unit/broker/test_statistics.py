"""Counters and the text of ``stats``."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import NamedTuple

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis import __version__
from metamorphosis.broker.figures import Figures
from metamorphosis.broker.statistics import (
    MESSAGE_SIZE,
    PUT,
    RESET_SECONDS,
    BrokerStatistics,
    RealtimeStatistics,
    realtime_value,
)
from metamorphosis.broker.statstext import config_reply, stats_reply
from metamorphosis.config.model import BrokerConfig, TopicConfig


class Store(NamedTuple):
    """The figures of a store."""

    topic: str
    partition: int
    min_offset: int = 0
    max_offset: int = 0
    message_count: int = 0
    size_bytes: int = 0


CONFIG = BrokerConfig(
    broker_id=3,
    topics={
        "nopub": TopicConfig("nopub", accept_publish=False, accept_subscribe=False),
        "slow": TopicConfig("slow"),
        "test": TopicConfig("test", stat=True),
        "wild*": TopicConfig("wild*", stat=True),
    },
    checksum=4294967295,
)


class RealtimeValueTests(SynchronousTestCase):
    """The rendering of a realtime counter."""

    def test_C68_rendering(self) -> None:
        """Two messages of 100 and 33 bytes after 3 seconds."""
        self.assertEqual(
            realtime_value(2, 133, 3),
            "Count=2,Value=133,Value/Count=66.5,Count/Duration=0.67,Duration=3",
        )

    def test_invalid(self) -> None:
        """Without events there is no average, in the first second no rate."""
        self.assertEqual(
            realtime_value(0, 0, 0),
            "Count=0,Value=0,Value/Count=invalid,Count/Duration=invalid,Duration=0",
        )

    def test_half_even_on_the_binary_value(self) -> None:
        """Exact halves in binary are rounded to even, others to the nearest."""

        def average(count: int, value: int) -> str:
            return realtime_value(count, value, 0).split(",")[2].split("=")[1]

        self.assertEqual(average(8, 1), "0.12")  # 0.125
        self.assertEqual(average(8, 3), "0.38")  # 0.375
        self.assertEqual(average(200, 201), "1")  # 1.005, in binary 1.00499...
        self.assertEqual(average(200, 3), "0.01")  # 0.015, in binary 0.01499...
        self.assertEqual(average(200, 5), "0.03")  # 0.025, in binary 0.02500...0001
        self.assertEqual(average(1000, 1), "0")
        self.assertEqual(average(10, 1), "0.1")
        self.assertEqual(average(1, 100), "100")

    def test_large(self) -> None:
        """Large values have neither grouping nor an exponent."""
        self.assertEqual(
            realtime_value(1, 123456789012345, 1),
            "Count=1,Value=123456789012345,Value/Count=123456789012345,Count/Duration=1,Duration=1",
        )


class RealtimeStatisticsTests(SynchronousTestCase):
    """Realtime counters and their reset."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.realtime = RealtimeStatistics(self.clock)

    def counts(self, kind: str = PUT, topic: str | None = None) -> str:
        """Count and duration in ``stats``."""
        fields = self.realtime.text(kind, topic).split(",")
        return f"{fields[0]} {fields[-1]}"

    def test_never_counted(self) -> None:
        """A kind that was never counted is ``null``; a topic without events names itself."""
        self.assertEqual(self.realtime.text(PUT), "null")
        self.assertEqual(self.realtime.text(PUT, "test"), "null")
        self.realtime.add(PUT, "test", 1, 1)
        self.assertEqual(self.realtime.text(PUT, "other"), "Invalid keyTwo:other")
        self.assertEqual(self.realtime.text(MESSAGE_SIZE, "test"), "null")

    def test_sum(self) -> None:
        """All topics together, or one."""
        self.realtime.add(PUT, "a", 2, 2)
        self.realtime.add(PUT, "b", 3, 3)
        self.realtime.add(PUT, "a", 1, 1)
        self.assertEqual(self.counts(), "Count=6 Duration=0")
        self.assertEqual(self.counts(topic="a"), "Count=3 Duration=0")

    def test_reset_keeps_keys(self) -> None:
        """After a reset a counted kind shows zero, not ``null``, and the duration starts again."""
        self.realtime.add(PUT, "a", 2, 2)
        self.clock.advance(10.9)
        self.assertEqual(self.counts(), "Count=2 Duration=10")
        self.realtime.reset()
        self.assertEqual(self.counts(topic="a"), "Count=0 Duration=0")

    def test_reset_after_half_an_hour(self) -> None:
        """Every 30 minutes the counters start again from zero."""
        self.realtime.add(PUT, "a", 2, 2)
        self.clock.advance(RESET_SECONDS - 1)
        self.assertEqual(self.counts(), "Count=2 Duration=1799")
        self.clock.advance(1)
        self.assertEqual(self.counts(), "Count=0 Duration=0")

    def test_reset_made_late(self) -> None:
        """A reset counts from the time at which it was due, also when the counters are read
        later."""
        self.realtime.add(PUT, "a", 2, 2)
        self.clock.advance(2 * RESET_SECONDS + 7)
        self.realtime.add(PUT, "a", 1, 1)
        self.clock.advance(2)
        self.assertEqual(self.counts(), "Count=1 Duration=9")
        self.clock.advance(RESET_SECONDS - 9)
        self.assertEqual(self.counts(), "Count=0 Duration=0")

    def test_reset_by_hand_leaves_the_schedule(self) -> None:
        """``stats reset`` does not postpone the next regular reset, as in the original."""
        self.clock.advance(RESET_SECONDS - 5)
        self.realtime.reset()
        self.realtime.add(PUT, "a", 1, 1)
        self.clock.advance(5)
        self.assertEqual(self.counts(), "Count=0 Duration=0")


class BrokerStatisticsTests(SynchronousTestCase):
    """The counters of each event."""

    def setUp(self) -> None:
        self.statistics = BrokerStatistics(CONFIG, Clock())

    def realtime(self) -> list[str]:
        """The realtime kinds that were ever counted."""
        return sorted(self.statistics.realtime._kinds)

    def test_uptime(self) -> None:
        """Whole seconds, from 0 on."""
        clock = Clock()
        clock.advance(1000)
        statistics = BrokerStatistics(CONFIG, clock)
        seen = []
        for seconds in (0, 0.9, 0.2, 100):
            clock.advance(seconds)
            seen.append(statistics.uptime)
        self.assertEqual(seen, [0, 0, 1, 101])

    def test_topic_without_stat(self) -> None:
        """A topic without ``stat=true`` has counters since the start only."""
        self.statistics.count_puts("slow", 3, 30)
        self.statistics.count_put_failed("slow")
        self.statistics.count_get("slow", 4)
        self.statistics.count_get_miss("slow")
        self.statistics.count_get_failed("slow")
        self.statistics.count_offset("slow")
        self.assertEqual(self.realtime(), [])
        s = self.statistics
        self.assertEqual(
            (s.cmd_put, s.put_failed, s.cmd_get, s.get_miss, s.get_failed, s.cmd_offset),
            (3, 1, 4, 1, 1, 1),
        )

    def test_topic_with_stat(self) -> None:
        """A topic with ``stat=true`` has realtime counters too, by section name or pattern."""
        self.statistics.count_puts("test", 2, 133)
        self.statistics.count_get("wild7")
        self.assertEqual(self.realtime(), ["get", "message_size", "put"])
        self.assertIn("Count=2,Value=133", self.statistics.realtime.text(MESSAGE_SIZE, "test"))
        self.assertIn("Count=2,Value=2", self.statistics.realtime.text(PUT, "test"))

    def test_every_kind_with_stat(self) -> None:
        """Each kind counts its event of the topic, under its own name."""
        s = self.statistics
        for count in (s.count_get_miss, s.count_get_failed, s.count_offset):
            count("test")
        s.count_put_failed("test")
        kinds = ["get_failed", "get_miss", "offset", "put_failed"]
        self.assertEqual(self.realtime(), kinds)
        for kind in kinds:
            self.assertIn("Count=1,Value=1", s.realtime.text(kind, "test"), kind)

    def test_record_moves_realtime_only(self) -> None:
        """``record_`` methods are for callers that count since the start themselves."""
        self.statistics.record_puts("test", 2, 133)
        self.assertEqual(self.statistics.cmd_put, 0)
        self.assertEqual(self.realtime(), ["message_size", "put"])

    def test_reload(self) -> None:
        """A reload changes the counted topics and keeps the counts."""
        self.statistics.count_get("test")
        config = replace(CONFIG, topics={"slow": TopicConfig("slow", stat=True)})
        self.statistics.reconfigure(config)
        self.statistics.count_get("test")
        self.statistics.count_get("slow")
        self.assertIn("Count=1,", self.statistics.realtime.text("get", "test"))
        self.assertIn("Count=1,", self.statistics.realtime.text("get", "slow"))


class StatsReplyTests(SynchronousTestCase):
    """The text of each item, wire specification 7.1."""

    maxDiff = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.statistics = BrokerStatistics(CONFIG, self.clock)
        self.stores: list[Store] = []

    def figures(self, config: BrokerConfig = CONFIG) -> Figures:
        """The figures of the broker."""
        return Figures(
            config,
            self.statistics,
            self.stores,
            connections=2,
            port=8123,
            version="1.4.6.2",
            pid=28304,
            threads=35,
        )

    def lines(self, item: str) -> list[str]:
        """The lines between STATS and END."""
        status, body = stats_reply(item, self.figures())
        self.assertEqual(status, 200)
        lines = body.decode().split("\r\n")
        self.assertEqual((lines[0], lines[-2:]), ("STATS", ["END", ""]))
        return lines[1:-2]

    def test_row_44_help(self) -> None:
        """Row 44: the fixed text of 252 bytes."""
        self.assertEqual(
            stats_reply("help", self.figures())[1],
            b"STATS\r\n*EMPTY* Returns broker info.\r\nhelp Returns help menu.\r\n"
            b"topics Returns topics statistics detail info.\r\n"
            b"offsets Returns partitions detail info.\r\n"
            b"realtime Returns realtime statistics detail info.\r\n"
            b"config Returns broker's config file content.\r\nEND\r\n",
        )
        self.assertEqual(len(stats_reply("help", self.figures())[1]), 252)

    def test_replication(self) -> None:
        """An item of ours; a topic of that name is shown as well."""
        self.assertEqual(["role master", "state running"], self.lines("replication"))
        self.stores.append(Store("replication", 0, 0, 100, 5, 100))
        self.assertEqual(
            ["role master", "state running", "replication", "resultCode 0", "partitions 1"],
            self.lines("replication")[:5],
        )

    def test_counters_begin_at_nothing(self) -> None:
        """Each counter since the start begins at 0."""
        for line in self.lines(""):
            name, value = line.split(" ")
            if name.startswith(("cmd_", "tx_", "get_", "put_", "total_", "uptime")):
                self.assertEqual("0", value, line)
        self.assertEqual(0, self.statistics.get_failed)

    def test_row_45_general(self) -> None:
        """Row 45: the 20 lines of a blank item, in order."""
        s = self.statistics
        s.cmd_put, s.cmd_get, s.cmd_offset, s.get_miss, s.put_failed = 23, 24, 15, 13, 8
        s.tx_begin, s.tx_xa_begin, s.tx_commit, s.tx_rollback = 4, 3, 2, 1
        self.stores = [
            Store("test", 0, message_count=5),
            Store("test", 1, message_count=1),
            Store("wildfoo", 0, message_count=1),
        ]
        self.clock.advance(185.7)
        expected = [
            "pid 28304",
            "broker_id 3",
            "port 8123",
            "uptime 185",
            "version 1.4.6.2",
            "slave false",
            "curr_connections 2",
            "threads 35",
            "cmd_put 23",
            "cmd_get 24",
            "cmd_offset 15",
            "tx_begin 4",
            "tx_xa_begin 3",
            "tx_commit 2",
            "tx_rollback 1",
            "get_miss 13",
            "put_failed 8",
            "total_messages 7",
            "topics 5",
            "config_checksum 4294967295",
            f"metamorphosis {__version__}",
        ]
        self.assertEqual(self.lines(""), expected)
        self.assertEqual(self.lines(" \t"), expected)

    def test_process_figures(self) -> None:
        """Process id and threads are those of this process unless given."""
        figures = Figures(CONFIG, self.statistics, [], 0, 8123, "1.4.6.2", slave=True)
        lines = stats_reply("", figures)[1].decode().split("\r\n")
        self.assertEqual(lines[1], f"pid {os.getpid()}")
        self.assertEqual(lines[6], "slave true")
        self.assertEqual(lines[8], f"threads {threading.active_count()}")

    def test_row_46_unknown_topic(self) -> None:
        """Row 46: an unknown item is a topic without values."""
        self.assertEqual(
            self.lines("46"),
            [
                "46",
                "resultCode 1",
                "partitions 0",
                "message_count 0",
                "bytes 0",
                "topic_realtime_put null",
                "topic_realtime_get null",
                "topic_realtime_offset null",
                "topic_realtime_get_miss null",
                "topic_realtime_put_failed null",
                "topic_realtime_message_size null",
            ],
        )

    def test_row_47_configured_topic(self) -> None:
        """Row 47: a configured topic without a store has result code 2."""
        self.assertEqual(
            self.lines("slow")[:5],
            ["slow", "resultCode 2", "partitions 0", "message_count 0", "bytes 0"],
        )

    def test_topic_with_stores(self) -> None:
        """A topic with stores sums over its partitions and has result code 0."""
        self.stores = [
            Store("test", 0, message_count=11, size_bytes=270),
            Store("test", 1, message_count=1, size_bytes=25),
            Store("other", 0, message_count=9, size_bytes=900),
        ]
        self.statistics.count_puts("test", 1, 5)
        lines = self.lines("test")
        self.assertEqual(
            lines[:5], ["test", "resultCode 0", "partitions 2", "message_count 12", "bytes 295"]
        )
        self.assertEqual(
            lines[5],
            "topic_realtime_put Count=1,Value=1,Value/Count=1,Count/Duration=invalid,Duration=0",
        )
        self.assertEqual(self.lines("other")[5], "topic_realtime_put Invalid keyTwo:other")

    def test_C68_unknown_topic_beside_counted_ones(self) -> None:
        """Once a kind was counted, an unknown topic shows the key that is missing."""
        self.statistics.count_puts("test", 1, 5)
        lines = self.lines("nosuch")
        self.assertEqual(lines[1], "resultCode 1")
        self.assertEqual(lines[5], "topic_realtime_put Invalid keyTwo:nosuch")
        self.assertEqual(lines[6], "topic_realtime_get null")

    def test_topics(self) -> None:
        """One line per topic with a store, then one per configured topic without."""
        self.stores = [
            Store("test", 1, message_count=1, size_bytes=25),
            Store("nopub", 0, message_count=2, size_bytes=50),
            Store("test", 0, message_count=3, size_bytes=75),
        ]
        self.assertEqual(
            self.lines("topics"),
            [
                "nopub partitions 1 message_count 2 message_bytes 50"
                " accept_publish false accept_subscribe false",
                "test partitions 2 message_count 4 message_bytes 100"
                " accept_publish true accept_subscribe true",
                "slow *Empty*",
                "wild* *Empty*",
            ],
        )

    def test_offsets(self) -> None:
        """Seven fields per store, which the monitor relies on."""
        self.stores = [Store("test", 10, 50, 81), Store("test", 9), Store("a", 0, 1, 2)]
        self.assertEqual(
            self.lines("offsets"),
            [
                "a part 0 min_offset 1 max_offset 2",
                "test part 9 min_offset 0 max_offset 0",
                "test part 10 min_offset 50 max_offset 81",
            ],
        )

    def test_C67_realtime(self) -> None:
        """Without events all six lines are ``null``."""
        self.assertEqual(
            self.lines("realtime"),
            [
                "realtime_put null",
                "realtime_get null",
                "realtime_offset null",
                "realtime_get_miss null",
                "realtime_put_failed null",
                "realtime_message_size null",
            ],
        )

    def test_C68_realtime(self) -> None:
        """Two puts of 100 and 33 bytes, 3 seconds later."""
        self.statistics.count_puts("test", 2, 133)
        self.statistics.count_put_failed("test")
        self.clock.advance(3)
        lines = self.lines("realtime")
        self.assertEqual(
            lines[5],
            "realtime_message_size "
            "Count=2,Value=133,Value/Count=66.5,Count/Duration=0.67,Duration=3",
        )
        self.assertEqual(monitored_value(lines), "1")

    def test_reset(self) -> None:
        """``reset`` zeroes the realtime counters and not those since the start."""
        self.statistics.count_puts("test", 2, 133)
        self.clock.advance(5)
        self.assertEqual(self.lines("reset"), ["reset ok"])
        self.assertEqual(
            self.lines("realtime")[0],
            "realtime_put Count=0,Value=0,Value/Count=invalid,Count/Duration=invalid,Duration=0",
        )
        self.assertEqual(self.statistics.cmd_put, 2)

    def test_case_matters(self) -> None:
        """``HELP`` is a topic."""
        self.assertEqual(self.lines("HELP")[:2], ["HELP", "resultCode 1"])

    def test_topic_in_any_script(self) -> None:
        """A topic that is not ASCII comes back in UTF-8."""
        self.assertEqual(self.lines("主题")[0], "主题")


def monitored_value(lines: list[str]) -> str:
    """What the original's monitor reads from ``stats realtime``."""
    line = next(line for line in lines if line.startswith("realtime_put_failed"))
    return line.split(" ")[1].split(",")[1].split("=")[1]


class ConfigReplyTests(SynchronousTestCase):
    """``stats config``."""

    def test_raw_bytes(self) -> None:
        """The file's bytes unchanged, without STATS and END, with each request."""
        path = self.mktemp()
        content = b"[system]\r\nbrokerId=0\n; \xd6\xd0 \xff\x00"
        with open(path, "wb") as file:
            file.write(content)
        self.assertEqual(config_reply(path), (200, content))
        config = replace(CONFIG, path=path)
        figures = Figures(config, BrokerStatistics(config, Clock()), [], 0, 8123, "1.4.6.2")
        self.assertEqual(stats_reply("config", figures), (200, content))
        self.assertEqual(stats_reply("config", figures), (200, content))

    def test_missing(self) -> None:
        """A missing file is named in a 500."""
        self.assertEqual(
            config_reply("/nowhere/server.ini"),
            (500, b"Config file not found:/nowhere/server.ini"),
        )

    def test_unreadable(self) -> None:
        """Any other failure to read is a 500 with the system's reason."""
        path = self.mktemp()
        os.mkdir(path)
        self.assertEqual(config_reply(path), (500, b"Read config file error:Is a directory"))
