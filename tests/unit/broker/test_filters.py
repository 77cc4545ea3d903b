"""Consumer filters: how they are found and called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis import seldom
from metamorphosis.broker.filters import ConsumerFilters, FilterUnavailable, unusable_filters
from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import ConfigError
from metamorphosis.message import Message

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
class Async:
    async def accept(self, group, message):
        return False
class Leaving:
    def accept(self, group, message):
        raise SystemExit(1)
"""

MESSAGE = Message("test", 1, 0, b"")


class ConsumerFiltersTests(SynchronousTestCase):
    """The filter of a group."""

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
        return found.is_accepted

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
        """The filter gets the group's name; any true or false value is a valid result."""
        filters = ConsumerFilters(
            self.configuration(**{"g": f"{self.module}:Echo", "": f"{self.module}:Echo"}),
            self.clock,
        )
        self.assertIs(self.found(filters, "g")(MESSAGE), True)
        self.assertIs(self.found(filters, "")(MESSAGE), False)

    def test_class_path_comes_last(self) -> None:
        """The directory cannot replace a module that is on Python's own path."""
        self.filters(g=f"{self.module}:Odd")
        self.assertEqual(sys.path[-1], self.directory)
        self.filters(g=f"{self.module}:Odd")
        self.assertEqual(sys.path.count(self.directory), 1)

    def test_look_for_unusable_ones(self) -> None:
        """It finds the classes in the class path, whether or not a broker has been made before."""
        config = self.configuration(g=f"{self.module}:Odd", h=f"{self.module}:Missing")
        found = [(topic, group) for topic, group, _ in unusable_filters(config)]
        self.assertEqual([("test", "h")], found)

    def test_class_path_is_no_directory(self) -> None:
        """A class path that is not a directory is refused at start, with file, key and the right
        form."""
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
        """The class cannot be used: every get fails with the original's detail, the log has the
        reason once."""
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
        """A module or class does not exist."""
        self.unavailable("com.example.JavaFilter")
        self.unavailable(f"{self.module}:Missing")
        self.unavailable("OnlyAName")
        self.unavailable(":")

    def test_class_that_is_no_filter(self) -> None:
        """A class whose constructor raises, without ``accept``, or with one that is a coroutine
        function."""
        self.unavailable(f"{self.module}:Unready")
        self.unavailable(f"{self.module}:NoFilter")
        self.unavailable(f"{self.module}:Async")

    def test_module_that_is_a_script(self) -> None:
        """A module that ends the process when it is imported."""
        name = f"{self.write_module('raise SystemExit(1)')}:Odd"
        self.unavailable(name)
        [(topic, group, reason)] = unusable_filters(self.configuration(g=name))
        self.assertEqual((topic, group), ("test", "g"))
        self.assertIn("SystemExit: 1", reason)

    def test_module_that_does_not_compile(self) -> None:
        """A module with a syntax error."""
        self.unavailable(self.write_module("def broken(:") + ":Odd")

    def test_reload_tries_failed_classes_again(self) -> None:
        """A reload loads a module that was missing before, without a restart."""
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
            self.clock.advance(seldom.SECONDS)
            self.assertFalse(accept(MESSAGE))
        self.assertEqual([event["unlogged"] for event in events], [0, 4])
        text = events[0]["log_format"].format(**events[0])
        for word in ("test", "group=g", f"{self.module}:Broken"):
            self.assertIn(word, text)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_exit_rejects(self) -> None:
        """A filter that would end the process rejects the message."""
        accept = self.found(self.filters(g=f"{self.module}:Leaving"), "g")
        self.assertFalse(accept(MESSAGE))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)
