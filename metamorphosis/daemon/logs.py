"""
Level, format and file of the log: options of both services beside those of ``twistd``.

Without these options ``twistd`` decides about the log. ``twist`` has its own options for the log,
so ours are refused there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import IO, Any

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
)

LEVELS = tuple(level.name for level in LogLevel.iterconstants())
FORMATS = ("text", "json")

PARAMETERS = [
    ["log-level", None, None, f"The lowest level that is logged: {', '.join(LEVELS)} (info)."],
    ["log-format", None, None, "text, or json: one object a line (text)."],
    [
        "log-file",
        None,
        None,
        "The file of the log. It may be moved away at any time, as logrotate does: the next line"
        " begins a new file. - means standard output. Without this option twistd chooses the file.",
    ],
]
"""For ``optParameters``."""

DEFAULT_FILE = "twistd.log"


class MovableFile:
    """
    A file to which lines are appended. After it was moved away or removed, the next line goes to a
    new file of the same name. If that file cannot be made, lines still go to the old file.

    :param path: absolute, because ``twistd`` changes its directory.
    :raises OSError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = self._open()

    def write(self, line: str) -> None:
        """Append a line, after a ``stat`` that checks whether the file was moved away."""
        if self._is_away():
            try:
                file = self._open()
            except OSError:
                pass
            else:
                self._file.close()
                self._file = file
        self._file.write(line)

    def flush(self) -> None:
        """Write buffered lines."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> IO[str]:
        return open(self._path, "a", encoding="utf-8", errors="backslashreplace")

    def _is_away(self) -> bool:
        try:
            there = os.stat(self._path)
        except OSError:
            return True
        return not os.path.samestat(there, os.fstat(self._file.fileno()))


def json_line(event: LogEvent) -> str:
    """
    An event as one JSON object: time (ISO 8601, UTC), level, source, text, and the traceback of a
    failure.
    """
    when = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    level = event.get("log_level")
    found = {
        "time": f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03}Z",
        "level": "info" if level is None else level.name,
        "source": str(event.get("log_namespace", "")),
        "text": formatEvent(event),
    }
    failure = event.get("log_failure")
    if failure is not None:
        found["failure"] = failure.getTraceback()
    return json.dumps(found, ensure_ascii=True) + "\n"


def use_log_options(options: Any, parent: Any) -> None:
    """
    Let ``twistd`` log according to the options of a service.

    :param options: of the service.
    :param parent: the options of ``twistd``, which uses them after the options of its service were
        read; None, or the options of ``twist``.
    :raises SystemExit: a value is wrong, or contradicts an option of ``twistd``.
    """
    given = [name for name, *_ in PARAMETERS if options[name] is not None]
    if not given:
        return
    level = _one_of("log-level", options["log-level"] or "info", LEVELS)
    form = _one_of("log-format", options["log-format"] or "text", FORMATS)
    if parent is None or "nodaemon" not in parent:
        raise SystemExit(
            f"--{given[0]} is for twistd; twist has options of its own for the log, which go before"
            " the name of the service: twist --log-level=info --log-format=json --log-file=FILE"
        )
    for name in ("syslog", "logger"):
        if parent[name]:
            raise SystemExit(f"--{given[0]} and --{name} of twistd: give one of them")
    if options["log-file"] is not None and parent["logfile"] is not None:
        raise SystemExit("--log-file and --logfile of twistd: give one of them")
    path = options["log-file"] or parent["logfile"]
    if path is None:
        path = "-" if parent["nodaemon"] else DEFAULT_FILE
    _chosen[:] = [make_observer(path, level, form)]
    parent["logger"] = f"{__name__}.{chosen_observer.__name__}"


_chosen: list[ILogObserver] = []
"""The observer of this process: ``twistd`` accepts only the name of a function."""


def chosen_observer() -> ILogObserver:
    """The observer that the options ask for."""
    return _chosen[0]


def make_observer(path: str, level: str, form: str) -> ILogObserver:
    """
    An observer that writes to a file. The file is opened now, so that a wrong path ends the start.

    :param path: ``-``: standard output.
    :raises SystemExit: the file cannot be opened.
    """
    output: Any
    if path == "-":
        output = sys.stdout
    else:
        try:
            output = MovableFile(os.path.abspath(path))
        except OSError as error:
            raise SystemExit(f"--log-file {path}: {error.strerror}") from None
    line_of = json_line if form == "json" else formatEventAsClassicLogText
    observer = FileLogObserver(output, line_of)
    enough = LogLevelFilterPredicate(LogLevel.lookupByName(level))
    return FilteringLogObserver(observer, [enough])


def _one_of(name: str, value: str, choices: Iterable[str]) -> str:
    if value not in choices:
        raise SystemExit(f"--{name} {value}: one of {', '.join(choices)} expected")
    return value
