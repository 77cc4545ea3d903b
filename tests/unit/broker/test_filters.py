"""Consumer filters: finding them, asking them, and what a filtered get answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.filters import (
    ACCEPTED,
    LOG_SECONDS,
    NO_WHOLE_RECORD,
    NOTHING_ACCEPTED,
    ConsumerFilters,
    Filtered,
    FilterUnavailable,
    apply_filter,
)
from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import ConfigError, CorruptRecord
from metamorphosis.message import ATTRIBUTE_FLAG, Message, encode_body, encode_record

YES, NO, NO2, YES2 = (
    encode_record(number, 0, body)
    for number, body in enumerate((b"yes", b"no", b"no again", b"yes again"))
)


def is_yes(message: Message) -> bool:
    """Accepts the two of the four records above."""
    return message.data.startswith(b"yes")


class ApplyFilterTests(SynchronousTestCase):
    """The byte range that a filtered get returns: D-12, O-1."""

    def check(self, records: list[bytes], kind: str, data: bytes, offset: int) -> None:
        """The range of these records, which starts at offset 1000, is answered like this."""
        self.assertEqual(
            apply_filter(b"".join(records), 1000, "test", is_yes), Filtered(kind, data, offset)
        )

    def test_all_accepted(self) -> None:
        """Accepted records come back unchanged."""
        self.check([YES, YES2], ACCEPTED, YES + YES2, 1000 + len(YES + YES2))

    def test_accepted_run_ends_at_rejected(self) -> None:
        """
        The reply ends before the first rejected record, so the consumer's next offset is a record.
        """
        self.check([YES, NO, YES2], ACCEPTED, YES, 1000 + len(YES))

    def test_rejected_run_is_skipped(self) -> None:
        """
        A range that starts with rejected records moves the consumer to the first accepted one.
        """
        self.check([NO, NO2, YES, NO], NOTHING_ACCEPTED, b"", 1000 + len(NO + NO2))

    def test_all_rejected(self) -> None:
        """Without an accepted record the consumer moves behind the last complete one."""
        self.check([NO, NO2, YES[:-1]], NOTHING_ACCEPTED, b"", 1000 + len(NO + NO2))

    def test_cut_tail(self) -> None:
        """An incomplete record at the end of accepted ones is left out."""
        self.check([YES, YES2[:19]], ACCEPTED, YES, 1000 + len(YES))
        self.check([YES, YES2[:25]], ACCEPTED, YES, 1000 + len(YES))

    def test_no_whole_record(self) -> None:
        """
        If no record is complete, the cut itself goes out and the consumer enlarges its maxSize.
        """
        for size in (1, 19, 20, len(NO) - 1):
            self.check([NO[:size]], NO_WHOLE_RECORD, NO[:size], 1000)

    def test_reading_on_delivers_each_accepted_record_once(self) -> None:
        """A consumer that follows the replies, whatever its maxSize, gets every accepted record."""
        records = [YES, NO, NO2, YES2, YES, YES2, NO, NO, YES, NO2]
        log = b"".join(records)
        for size in range(max(map(len, records)), len(log) + 1):
            offset, got = 0, b""
            while offset < len(log):
                answer = apply_filter(log[offset : offset + size], offset, "test", is_yes)
                self.assertGreater(answer.offset, offset)
                got += answer.data
                offset = answer.offset
            self.assertEqual(got, YES + YES2 + YES + YES2 + YES)

    def test_damaged_record(self) -> None:
        """
        A damaged first record, or an offset between records, is an error with the original's text.
        """
        damaged = YES[:-1] + b"X"
        error = self.assertRaises(CorruptRecord, apply_filter, damaged, 0, "test", is_yes)
        self.assertEqual(str(error), "Invalid message")
        negative = b"\xff" * 40
        error = self.assertRaises(CorruptRecord, apply_filter, negative, 0, "test", is_yes)
        self.assertEqual(str(error), "Invalid message")

    def test_records_before_a_damaged_one(self) -> None:
        """What precedes a damaged record is answered; the error comes when it is reached."""
        damaged = YES[:-1] + b"X"
        self.check([YES, damaged], ACCEPTED, YES, 1000 + len(YES))
        self.check([NO, damaged], NOTHING_ACCEPTED, b"", 1000 + len(NO))

    def test_too_long(self) -> None:
        """A body above 2 MiB, which no Java consumer takes, is an error that tells its length."""
        longest = encode_record(1, 0, b"y" * 2097152)
        self.assertEqual(apply_filter(longest, 0, "test", lambda message: True).kind, ACCEPTED)
        long = encode_record(1, 0, b"y" * 2097153)
        error = self.assertRaises(CorruptRecord, apply_filter, long, 0, "test", is_yes)
        self.assertEqual(str(error), "Too much long payload length:2097153")

    def test_message(self) -> None:
        """A filter sees topic, id, flag, attribute and the data without the attribute."""
        seen: list[Message] = []
        record = encode_record(77, ATTRIBUTE_FLAG, encode_body(b"payload", "marked"))

        def accept(message: Message) -> bool:
            seen.append(message)
            return True

        apply_filter(record, 0, "test", accept)
        (message,) = seen
        self.assertEqual(
            (message.topic, message.id, message.flag, message.attribute, message.data),
            ("test", 77, ATTRIBUTE_FLAG, "marked", b"payload"),
        )


MODULE = """
made = []
class Odd:
    def __init__(self):
        made.append(self)
    def accept(self, group, message):
        return message.id % 2 == 1
class Echo:
    def accept(self, group, message):
        return group
class Broken:
    def accept(self, group, message):
        raise ValueError("no opinion")
class Unready:
    def __init__(self):
        raise RuntimeError("not today")
class NoFilter:
    pass
"""

MESSAGE = Message("test", 1, 0, b"")


class ConsumerFiltersTests(SynchronousTestCase):
    """Which filter a group has."""

    modules = 0

    def setUp(self) -> None:
        self.clock = Clock()
        self.addCleanup(setattr, sys, "path", list(sys.path))
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.module = self.write_module(MODULE)

    def write_module(self, text: str) -> str:
        """Write a module of a new name into the class path."""
        ConsumerFiltersTests.modules += 1
        name = f"user_filters_{ConsumerFiltersTests.modules}"
        with open(os.path.join(self.directory, f"{name}.py"), "w", encoding="utf-8") as file:
            file.write(text)
        self.addCleanup(sys.modules.pop, name, None)
        return name

    def configuration(self, class_path: bool = True, **classes: str) -> BrokerConfig:
        """Topic ``test`` with these classes by group."""
        return BrokerConfig(
            broker_id=0,
            app_class_path=self.directory if class_path else None,
            topics={"test": TopicConfig("test", filters=classes), "plain": TopicConfig("plain")},
        )

    def filters(self, **classes: str) -> ConsumerFilters:
        """The filters of such a configuration."""
        return ConsumerFilters(self.configuration(**classes), self.clock)

    def found(self, filters: ConsumerFilters, group: str) -> Callable[[Message], bool]:
        """The filter of a group that has one."""
        found = filters.find("test", group)
        assert found is not None
        return found

    def test_no_filter(self) -> None:
        """Other topics, other groups and blank classes have no filter."""
        filters = self.filters(g=f"{self.module}:Odd", blank="  ")
        for topic, group in (("test", "other"), ("test", "blank"), ("plain", "g"), ("none", "g")):
            self.assertIsNone(filters.find(topic, group))
        self.assertTrue(filters.has_filters("test"))
        self.assertFalse(filters.has_filters("plain"))

    def test_colon_and_dots(self) -> None:
        """
        A class is named with a colon or a dot before it, from the directory of the class path.
        """
        for name in (f"{self.module}:Odd", f"{self.module}.Odd"):
            accept = self.found(self.filters(g=name), "g")
            self.assertTrue(accept(MESSAGE))
            self.assertFalse(accept(Message("test", 2, 0, b"")))

    def test_group_is_passed(self) -> None:
        """The filter learns which group asks, and any true or false value will do as its answer."""
        filters = ConsumerFilters(
            self.configuration(**{"g": f"{self.module}:Echo", "": f"{self.module}:Echo"}),
            self.clock,
        )
        self.assertIs(self.found(filters, "g")(MESSAGE), True)
        self.assertIs(self.found(filters, "")(MESSAGE), False)

    def test_class_path_comes_last(self) -> None:
        """The directory cannot replace a module that Python finds elsewhere."""
        self.filters(g=f"{self.module}:Odd")
        self.assertEqual(sys.path[-1], self.directory)
        self.filters(g=f"{self.module}:Odd")
        self.assertEqual(sys.path.count(self.directory), 1)

    def test_class_path_is_no_directory(self) -> None:
        """
        A class path that is no directory is refused at start, with file, key and what would be
        right.
        """
        config = replace(
            self.configuration(), app_class_path="/nowhere/filters", path="/etc/server.ini"
        )
        error = self.assertRaises(ConfigError, ConsumerFilters, config, self.clock)
        for word in ("/etc/server.ini", "appClassPath=/nowhere/filters", "directory"):
            self.assertIn(word, str(error))

    def test_one_lazy_instance(self) -> None:
        """A class is instantiated when a group first reads, once for all groups and topics."""
        name = f"{self.module}:Odd"
        filters = self.filters(g=name, h=name)
        self.assertNotIn(self.module, sys.modules)
        self.assertIs(filters.find("test", "g"), filters.find("test", "g"))
        self.found(filters, "h")
        self.assertEqual(len(sys.modules[self.module].made), 1)

    def test_without_class_path(self) -> None:
        """
        Without appClassPath the colon spelling works; a Java name is ignored with a warning, as by
        the original.
        """
        sys.path.append(self.directory)
        with capturedLogs() as events:
            filters = ConsumerFilters(
                self.configuration(
                    class_path=False, g=f"{self.module}:Odd", java="com.example.Filter"
                ),
                self.clock,
            )
        self.assertTrue(self.found(filters, "g")(MESSAGE))
        self.assertIsNone(filters.find("test", "java"))
        (warning,) = events
        self.assertEqual(warning["log_level"], LogLevel.warn)
        self.assertIn("com.example.Filter", warning["log_format"].format(**warning))

    def unavailable(self, name: str) -> None:
        """
        The class cannot be used: every get fails with the original's detail, the log tells once
        why.
        """
        filters = self.filters(g=name)
        with capturedLogs() as events:
            for _ in range(3):
                error = self.assertRaises(FilterUnavailable, filters.find, "test", "g")
                self.assertEqual(str(error), "Not unchecked")
        (event,) = events
        text = event["log_format"].format(**event)
        for word in (name, "group g", "topic test", "accept(group, message)"):
            self.assertIn(word, text)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_missing_class(self) -> None:
        """A module or class that is not there."""
        self.unavailable("com.example.JavaFilter")
        self.unavailable(f"{self.module}:Missing")
        self.unavailable("OnlyAName")
        self.unavailable(":")

    def test_class_that_is_no_filter(self) -> None:
        """A class whose constructor raises, or without ``accept``."""
        self.unavailable(f"{self.module}:Unready")
        self.unavailable(f"{self.module}:NoFilter")

    def test_module_that_does_not_compile(self) -> None:
        """A module with a syntax error."""
        self.unavailable(self.write_module("def broken(:") + ":Odd")

    def test_reload_tries_failed_classes_again(self) -> None:
        """Who puts a missing module in place and reloads need not restart the broker."""
        name = "user_filters_late"
        filters = self.filters(g=f"{name}:Odd", h=f"{self.module}:Odd")
        self.found(filters, "h")
        self.assertRaises(FilterUnavailable, filters.find, "test", "g")
        self.flushLoggedErrors()
        with open(os.path.join(self.directory, f"{name}.py"), "w", encoding="utf-8") as file:
            file.write(MODULE)
        self.addCleanup(sys.modules.pop, name, None)
        self.assertRaises(FilterUnavailable, filters.find, "test", "g")
        filters.reconfigure(self.configuration(g=f"{name}:Odd", h=f"{self.module}:Odd"))
        self.assertTrue(self.found(filters, "g")(MESSAGE))
        self.found(filters, "h")
        self.assertEqual(len(sys.modules[self.module].made), 1)

    def test_reload_changes_groups(self) -> None:
        """A reload gives groups other classes, or none."""
        filters = self.filters(g=f"{self.module}:Odd", h=f"{self.module}:Odd")
        self.assertFalse(self.found(filters, "g")(Message("test", 2, 0, b"")))
        filters.reconfigure(self.configuration(g=f"{self.module}:Echo"))
        self.assertTrue(self.found(filters, "g")(Message("test", 2, 0, b"")))
        self.assertIsNone(filters.find("test", "h"))
        filters.reconfigure(replace(self.configuration(), topics={}))
        self.assertIsNone(filters.find("test", "g"))

    def test_exception_rejects(self) -> None:
        """
        A filter that raises rejects the message; the log names topic, group and class, but not for
        each message.
        """
        accept = self.found(self.filters(g=f"{self.module}:Broken"), "g")
        with capturedLogs() as events:
            for _ in range(5):
                self.assertFalse(accept(MESSAGE))
            self.clock.advance(LOG_SECONDS)
            self.assertFalse(accept(MESSAGE))
        self.assertEqual([event["unlogged"] for event in events], [0, 4])
        text = events[0]["log_format"].format(**events[0])
        for word in ("test", "group=g", f"{self.module}:Broken"):
            self.assertIn(word, text)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
