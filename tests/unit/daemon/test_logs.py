"""Level, format and file of the log."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from metamorphosis import tap
from metamorphosis.daemon import logs
from metamorphosis.daemon.logs import MovableFile, json_line, make_observer, use_log_options
from metamorphosis.zookeeper import tap as zookeeper_tap


class FileTests(SynchronousTestCase):
    """A file that logrotate moves."""

    def setUp(self) -> None:
        """A directory of its own."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, "metaq.log")
        self.file = MovableFile(self.path)
        self.addCleanup(lambda: self.file.close())

    def write(self, line: str) -> None:
        """Append a line."""
        self.file.write(line)
        self.file.flush()

    def content(self, path: str | None = None) -> str:
        """What a file has."""
        with open(path or self.path, encoding="utf-8") as file:
            return file.read()

    def test_moved(self) -> None:
        """The next line begins a new file; no line is lost."""
        self.write("one\n")
        moved = f"{self.path}.1"
        os.rename(self.path, moved)
        self.write("two\n")
        self.write("three\n")
        self.assertEqual((self.content(moved), self.content()), ("one\n", "two\nthree\n"))

    def test_moved_and_made_again(self) -> None:
        """As logrotate does with ``create``."""
        self.write("one\n")
        os.rename(self.path, f"{self.path}.1")
        with open(self.path, "w", encoding="utf-8"):
            pass
        self.write("two\n")
        self.assertEqual(self.content(), "two\n")

    def test_cut(self) -> None:
        """As logrotate does with ``copytruncate``: the file does not become sparse."""
        self.write("one\n")
        os.truncate(self.path, 0)
        self.write("two\n")
        self.assertEqual(self.content(), "two\n")

    def test_removed(self) -> None:
        """It comes again."""
        self.write("one\n")
        os.remove(self.path)
        self.write("two\n")
        self.assertEqual(self.content(), "two\n")

    def test_no_new_one(self) -> None:
        """Lines continue to where the old file is, until a new one can be made."""
        moved = f"{self.directory}.away"
        os.rename(self.directory, moved)
        self.write("one\n")
        self.write("two\n")
        self.assertEqual(self.content(os.path.join(moved, "metaq.log")), "one\ntwo\n")
        os.mkdir(self.directory)
        self.write("three\n")
        self.assertEqual(self.content(), "three\n")

    def test_goes_on(self) -> None:
        """A start appends; bytes that are not text are escaped."""
        self.write("one\n")
        self.file.close()
        self.file = MovableFile(self.path)
        self.write("\udcff\n")
        self.assertEqual(self.content(), "one\n\\udcff\n")


class LineTests(SynchronousTestCase):
    """What the lines are."""

    def observer(self, path: str, level: str = "info", form: str = "text") -> ILogObserver:
        """The observer for a file."""
        observer = make_observer(path, level, form)
        verifyObject(ILogObserver, observer)
        return observer

    def lines(self, level: str, form: str) -> list[str]:
        """What becomes of one event of each level."""
        path = self.mktemp()
        log = Logger("a.b", observer=self.observer(path, level, form))
        for each in LogLevel.iterconstants():
            log.emit(each, "{name} at {number}", name=each.name, number=5)
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()

    def test_levels(self) -> None:
        """The level that is asked for, and those above."""
        for level, count in (("debug", 5), ("info", 4), ("warn", 3), ("error", 2), ("critical", 1)):
            self.assertEqual(len(self.lines(level, "text")), count)
            self.assertEqual(len(self.lines(level, "json")), count)

    def test_text(self) -> None:
        """The lines of ``twistd``."""
        self.assertIn("[a.b#warn] warn at 5", self.lines("warn", "text")[0])

    def test_json(self) -> None:
        """An object a line."""
        found = json.loads(self.lines("warn", "json")[0])
        self.assertRegex(found.pop("time"), r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(found, {"level": "warn", "source": "a.b", "text": "warn at 5"})

    def test_json_of_a_failure(self) -> None:
        """Its traceback is a field, so that an event stays a line; so are line ends."""
        event: dict[str, Any] = {
            "log_time": 1764489600.123,
            "log_level": LogLevel.critical,
            "log_namespace": "a",
            "log_format": "two\nlines",
            "log_failure": Failure(ValueError("broken")),
        }
        line = json_line(event)
        self.assertEqual(line.count("\n"), 1)
        found = json.loads(line)
        self.assertEqual((found["time"], found["text"]), ("2025-11-30T08:00:00.123Z", "two\nlines"))
        self.assertIn("ValueError: broken", found["failure"])
        self.assertEqual(json.loads(json_line({}))["level"], "info")

    def test_standard_output(self) -> None:
        """A hyphen."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        Logger("a", observer=self.observer("-")).info("hello")
        self.assertIn("[a#info] hello", output.getvalue())


class OptionTests(SynchronousTestCase):
    """Together with those of ``twistd``."""

    names = {"log-level": None, "log-format": None, "log-file": None}

    def use(self, nodaemon: bool = True, **given: object) -> dict[str, Any]:
        """Options of the service, with a hyphen as underscore, and others of ``twistd``."""
        ours = {**self.names}
        theirs: dict[str, Any] = {"nodaemon": nodaemon, "logfile": None}
        theirs.update(syslog=False, logger=None)
        for name, value in given.items():
            target = ours if name.replace("_", "-") in ours else theirs
            target[name.replace("_", "-")] = value
        use_log_options(ours, theirs)
        return theirs

    def refused(self, **given: object) -> str:
        """The reason."""
        return str(self.assertRaises(SystemExit, self.use, **given))

    def place(self, **given: object) -> tuple[str, str, str]:
        """Where the log goes, its level and format."""
        found: list[tuple[str, str, str]] = []
        self.patch(logs, "make_observer", lambda *what: found.append(what))
        self.use(**given)
        return found[0]

    def test_twistd_finds_it(self) -> None:
        """By its name, which is all that ``twistd`` takes."""
        options = ServerOptions()
        path = self.mktemp()
        options.parseOptions(["-n", "metaq-zookeeper", "--data", "x", "--log-file", path])
        Logger("a", observer=options["logger"]()).info("hello")
        with open(path, encoding="utf-8") as file:
            self.assertIn("[a#info] hello", file.read())

    def test_none(self) -> None:
        """Nothing changes."""
        self.assertIsNone(self.use()["logger"])

    def test_places(self) -> None:
        """The file of ours, that of ``twistd``, or its default."""
        for given, expected in (
            ({"log_file": "a"}, ("a", "info", "text")),
            ({"log_level": "warn"}, ("-", "warn", "text")),
            ({"log_format": "json", "nodaemon": False}, ("twistd.log", "info", "json")),
            ({"log_format": "json", "logfile": "b"}, ("b", "info", "json")),
        ):
            self.assertEqual(self.place(**given), expected)

    def test_refused(self) -> None:
        """Values that are wrong, and options that say something else."""
        for given, reason in (
            ({"log_level": "loud"}, "--log-level loud: one of debug, info, warn, error, critical"),
            ({"log_format": "xml"}, "--log-format xml: one of text, json expected"),
            ({"log_file": "a", "logfile": "b"}, "--log-file and --logfile of twistd"),
            ({"log_level": "info", "syslog": True}, "--log-level and --syslog of twistd"),
            ({"log_file": "/no/such/file"}, "--log-file /no/such/file: No such file or directory"),
        ):
            self.assertIn(reason, self.refused(**given))

    def test_twist(self) -> None:
        """Its own options are named."""
        ours = {**self.names, "log-level": "info"}
        for parent in (None, {}):
            error = self.assertRaises(SystemExit, use_log_options, ours, parent)
            self.assertIn("twist --log-level=info --log-format=json", str(error))

    def test_both_services(self) -> None:
        """They have the options."""
        for options in (tap.Options(), zookeeper_tap.Options()):
            for name in self.names:
                self.assertIn(name, options)
