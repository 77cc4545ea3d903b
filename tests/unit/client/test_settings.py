"""Defaults of the original, and settings that make no sense."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.model import Partition
from metamorphosis.client.offsets.localfile import OffsetFile
from metamorphosis.client.offsets.mysqltable import CREATE
from metamorphosis.client.settings import (
    AT_TIME,
    INVALID_IN_GROUP,
    MAX_OFFSET,
    ClientConfig,
    ConsumerConfig,
    broadcast_config,
    normalise_url,
)
from metamorphosis.errors import InvalidConfig, InvalidConsumerConfig
from tests.unit.client.test_faces import words
from tools import settings as settings_tool


class ClientConfigTests(SynchronousTestCase):
    """``MetaClientConfig``, ``ZKConfig`` and the system properties."""

    def test_defaults(self) -> None:
        """Those of the original."""
        config = ClientConfig(zookeeper="localhost:2181")
        expected = {
            "broker": None,
            "zookeeper_root": "/meta",
            "zookeeper_session_timeout_ms": 30000,
            "zookeeper_connection_timeout_ms": 30000,
            "zookeeper_sync_time_ms": 5000,
            "recover_message_interval_ms": 300000,
            "recover_thread_count": os.cpu_count(),
            "partitions_info": {},
            "send_timeout_ms": 3000,
            "stats_timeout_ms": 3000,
            "connect_timeout_ms": 80000,
            "heartbeat_idle_ms": 10000,
            "heartbeat_timeout_ms": 5000,
            "heartbeat_failures": 3,
            "loopback_connection": False,
            "duplicate_cache_size": 4096,
            "max_body_bytes": 2097152,
            "recover_path": Path.home() / ".meta_recover",
            "local_message_path": Path.home() / ".meta_localmessage",
            "async_storage_path": Path.home() / ".meta_async_storage",
            "ordered_save_to_local_when_failed": False,
            "xa_producer_host_name": None,
        }
        self.assertEqual(expected, {name: getattr(config, name) for name in expected})
        self.assertFalse(config.direct)

    def test_direct_mode(self) -> None:
        """A broker alone; its URL is brought into one form."""
        config = ClientConfig(broker=" host:8123/ ")
        self.assertEqual("meta://host:8123", config.broker)
        self.assertTrue(config.direct)

    def refused(self, expected: str, **settings: Any) -> None:
        """The settings are refused with a text that contains this."""
        error = self.assertRaises(InvalidConfig, ClientConfig, **settings)
        self.assertIn(expected, str(error))
        self.assertIsInstance(error, ValueError)

    def test_no_target(self) -> None:
        """Neither ZooKeeper nor a broker, or both."""
        self.refused("no zookeeper and no broker")
        self.refused("zookeeper is '  '; a host is missing", zookeeper="  ")
        self.refused("both zookeeper and broker", zookeeper="a:1", broker="a:1")

    def test_broker_that_is_none(self) -> None:
        """No port, another scheme, nothing."""
        for broker in ("host", "http://host:80", "", "host:port", "meta://:8123"):
            self.refused("host:port", broker=broker)

    def test_numbers(self) -> None:
        """The text names the setting, the value and what would be right."""
        self.refused("send_timeout_ms is 0; milliseconds from 1", broker="a:1", send_timeout_ms=0)
        self.refused("heartbeat_failures is '3'", broker="a:1", heartbeat_failures="3")
        self.refused("max_body_bytes is True", broker="a:1", max_body_bytes=True)
        self.refused("max_reply_bytes is 1.5", broker="a:1", max_reply_bytes=1.5)

    def test_root(self) -> None:
        """As the broker reads ``zk.zkRoot``."""
        for wrong in ("", " ", "/a//b", "/a\n"):
            expected = f"zookeeper_root is {wrong!r}; a path"
            self.refused(expected, zookeeper="a:1", zookeeper_root=wrong)
        root = ClientConfig(zookeeper="a:1", zookeeper_root="other/").zookeeper_root
        self.assertEqual("/other", root)
        self.assertEqual("/", ClientConfig(zookeeper="a:1", zookeeper_root="/").zookeeper_root)

    def test_paths(self) -> None:
        """Texts become paths."""
        settings: dict[str, Any] = {"broker": "a:1", "recover_path": "x"}
        self.assertEqual(Path("x"), ClientConfig(**settings).recover_path)

    def test_replaced(self) -> None:
        """A copy, checked like any other; a misspelt name is guessed."""
        config = ClientConfig(broker="a:1").replaced(send_timeout_ms=5)
        self.assertEqual(5, config.send_timeout_ms)
        error = self.assertRaises(InvalidConfig, config.replaced, send_timout_ms=5)
        self.assertIn("send_timeout_ms is one", str(error))
        self.assertRaises(InvalidConfig, config.replaced, send_timeout_ms=-5)

    def test_frozen(self) -> None:
        """The value cannot be changed."""
        config = ClientConfig(broker="a:1")
        self.assertRaises(AttributeError, setattr, config, "broker", "b:1")

    def test_table_of_the_caller(self) -> None:
        """What becomes of it later does not change the settings."""
        info = {"orders": "0:1"}
        config = ClientConfig(broker="a:1", partitions_info=info)
        info["bills"] = "0:1"
        self.assertEqual({"orders": "0:1"}, config.partitions_info)
        with self.assertRaises(TypeError):
            config.partitions_info["bills"] = "0:1"  # type: ignore[index]


class ConsumerConfigTests(SynchronousTestCase):
    """``ConsumerConfig``."""

    def test_defaults(self) -> None:
        """Those of the original."""
        expected = {
            "consumer_id": None,
            "fetch_runner_count": os.cpu_count(),
            "fetch_timeout_ms": 10000,
            "max_delay_fetch_time_ms": 5000,
            "commit_offset_period_ms": 5000,
            "max_fetch_retries": 5,
            "max_increase_fetch_data_retries": 5,
            "offset": 0,
            "offset_at_ms": None,
            "always_consume_from_max_offset": False,
            "partition": None,
            "load_balance_strategy": "DEFAULT",
            "long_poll_ms": 5000,
        }
        config = ConsumerConfig(group="g")
        self.assertEqual(expected, {name: getattr(config, name) for name in expected})

    def refused(self, expected: str, **settings: Any) -> None:
        """The settings are refused with a text that contains this."""
        error = self.assertRaises(InvalidConsumerConfig, ConsumerConfig, **settings)
        self.assertIn(expected, str(error))

    def test_conformance_53(self) -> None:
        """No group, bad characters, no runners, no time, a negative period: the original's
        errors."""
        self.refused("Blank group", group="")
        self.refused("Blank group", group="  ")
        self.refused("Blank group", group=None)
        for character in INVALID_IN_GROUP:
            self.refused(f"Group name has invalid character {character}", group=f"a{character}b")
        self.refused("fetch_runner_count is 0", group="g", fetch_runner_count=0)
        self.refused("fetch_timeout_ms is 0", group="g", fetch_timeout_ms=0)
        self.refused("commit_offset_period_ms is -1", group="g", commit_offset_period_ms=-1)

    def test_allowed_characters(self) -> None:
        """What is not in the list may be in a group."""
        for group in ("a@b", "a-b_c|d", "a{b}", "a\\b", "gruppe\u00e4"):
            self.assertEqual(group, ConsumerConfig(group=group).group)

    def test_strategy(self) -> None:
        """One of two, in any case of letters."""
        config = ConsumerConfig(group="g", load_balance_strategy="consist")
        self.assertEqual("CONSIST", config.load_balance_strategy)
        self.refused("DEFAULT or CONSIST", group="g", load_balance_strategy="other")
        self.refused("DEFAULT or CONSIST", group="g", load_balance_strategy=1)

    def test_partition(self) -> None:
        """Of direct mode."""
        self.assertEqual("0-3", ConsumerConfig(group="g", partition="0-3").partition)
        self.refused("partition is '3'", group="g", partition="3")
        for partition in ("0-x", "x-0", "-", "0"):
            self.refused(f"partition is {partition!r}", group="g", partition=partition)

    def test_consumer_id(self) -> None:
        """It is the name of a node."""
        self.assertEqual("a b", ConsumerConfig(group="g", consumer_id="a b").consumer_id)
        for name in (" ", "", "a/b", "a\nb"):
            self.refused(f"consumer_id is {name!r}; a name", group="g", consumer_id=name)

    def test_two_places_to_begin(self) -> None:
        """A time and something else: the error names both."""
        both = "both offset_at_ms and {} are given"
        self.refused(both.format("offset"), group="g", offset_at_ms=5, offset=7)
        always = "always_consume_from_max_offset"
        self.refused(both.format(always), group="g", offset_at_ms=5, **{always: True})
        self.assertEqual(5, ConsumerConfig(group="g", offset_at_ms=5).offset_at_ms)

    def test_from_max_offset(self) -> None:
        """A new group starts at the end, or everyone always."""
        config = ConsumerConfig(group="g").from_max_offset()
        self.assertEqual(
            (MAX_OFFSET, False), (config.offset, config.always_consume_from_max_offset)
        )
        self.assertTrue(config.from_max_offset(True).always_consume_from_max_offset)
        self.assertEqual(9223372036854775807, MAX_OFFSET)

    def test_start(self) -> None:
        """An offset, or a time that stands for one."""
        self.assertEqual(7, ConsumerConfig(group="g", offset=7).start)
        self.assertEqual(AT_TIME, ConsumerConfig(group="g", offset_at_ms=0).start)

    def test_broadcast(self) -> None:
        """Each machine is a group of its own, named by its address."""
        config = ConsumerConfig(group="g", offset=7)
        for host, group in (
            ("10.0.0.1", "g-10-0-0-1"),
            ("[fe80::1%eth0]", "g-fe80--1-eth0"),
            ("name", "g-name"),
        ):
            found = broadcast_config(config, host)
            self.assertEqual((group, 7), (found.group, found.offset))
        self.assertNotEqual("g-None", broadcast_config(config).group)


class GeneratedTests(SynchronousTestCase):
    """What ``make settings`` writes."""

    def test_types(self) -> None:
        """The keyword arguments for type checkers."""
        written = settings_tool.TYPES.read_text("utf-8")
        self.assertEqual(words(settings_tool.types()), words(written), "run 'make settings'")

    def test_tables(self) -> None:
        """Every setting has a row, with a meaning."""
        written = settings_tool.PAGE.read_text("utf-8")
        self.assertEqual(settings_tool.page(written), written, "run 'make settings'")
        for config in (ClientConfig, ConsumerConfig):
            for each in fields(config):
                self.assertRegex(written, rf"(?m)^\| `{each.name}` \| `[^`]+` \| .+ \| .+ \|$")

    def test_defaults_for_readers(self) -> None:
        """As they are in the configurations."""
        found = {
            each.name: each.default for all_ in settings_tool.settings().values() for each in all_
        }
        self.assertEqual("67108864 (64 MiB)", found["max_reply_bytes"])
        self.assertEqual("the number of processors", found["recover_thread_count"])
        self.assertEqual("`~/.meta_recover`", found["recover_path"])
        self.assertEqual("`/meta`", found["zookeeper_root"])
        self.assertIsNone(found["group"])

    def test_offset_stores_of_the_page(self) -> None:
        """The statement is that of ``create_table``, the file one that the store reads, and the
        programs can be parsed."""
        blocks: dict[str, list[str]] = {"python": [], "sql": [], "json": []}
        text = settings_tool.PAGE.read_text("utf-8")
        for language, block in re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", text):
            blocks[language].append(block)
        for program in blocks["python"]:
            ast.parse(program)
        self.assertEqual(
            [CREATE.format(table="meta_topic_partition_group_offset") + ";\n"], blocks["sql"]
        )
        path = Path(self.mktemp())
        path.write_text(blocks["json"][0], "utf-8")
        stored = OffsetFile(path).load("orders", "billing", Partition(0, 1))
        self.assertEqual((4711, 815), (stored.offset, stored.message_id) if stored else None)

    def test_a_setting_needs_a_text(self) -> None:
        """The tool does not write an empty row."""
        tree = ast.parse("class ClientConfig:\n    a: int = 5\n    b: int = 6\n    'Text.'\n")
        config = tree.body[0]
        assert isinstance(config, ast.ClassDef)
        with self.assertRaisesRegex(ValueError, "ClientConfig.a has no documentation"):
            settings_tool._fields(config)


class UrlTests(SynchronousTestCase):
    """Where a broker is."""

    def test_forms(self) -> None:
        """With and without scheme, query, brackets; names keep their case."""
        for text, expected in (
            ("host:1", "meta://host:1"),
            ("meta://Host:1", "meta://Host:1"),
            ("meta://host:1?slaveId=0", "meta://host:1"),
            ("[::1]:8123", "meta://[::1]:8123"),
            (" meta://10.0.0.1:8123/ ", "meta://10.0.0.1:8123"),
        ):
            self.assertEqual(expected, normalise_url(text))
