"""
Our own settings file: same syntax and strictness as ``server.ini``, other sections and keys.

It is a separate file because a Java slave copies its master's ``server.ini`` and refuses unknown
keys.
"""

from __future__ import annotations

import os
import re
from typing import Any

from metamorphosis.config import ini
from metamorphosis.config.expressions import boolean, integer
from metamorphosis.config.faults import ConfigFaults, Fault
from metamorphosis.config.keys import Key, nearest
from metamorphosis.config.model import OnDivergence, Settings
from metamorphosis.config.sections import SectionReader

FILE_NAME = "metamorphosis.ini"
CLOSED_PARTITIONS = "closed-partitions"

_NUMBER_HINT = "a number above 0 is needed"


def divergence(text: str) -> OnDivergence:
    """
    The value of ``on-divergence``.

    :raises ValueError: with the valid words.
    """
    try:
        return OnDivergence(text)
    except ValueError:
        raise ValueError(f"stop or copy-again is needed, found {text}") from None


def congestion_control(text: str) -> str:
    """
    :raises ValueError: it cannot be the name of a congestion control.
    """
    if _CONGESTION_CONTROL.fullmatch(text) is None:
        raise ValueError(
            "auto, system, or the name of a congestion control such as cubic is needed,"
            f" found {text}"
        )
    return text


_CONGESTION_CONTROL = re.compile(r"[a-z0-9_]{1,15}", re.ASCII)

#: Every key by section; defaults are those of ``Settings``.
SECTIONS: dict[str, tuple[Key, ...]] = {
    "store": (
        Key("flush-delay-ms", "flush_delay_ms", integer, low=0, hint="0 or more is needed"),
        Key("sync-threads", "sync_threads", integer, low=1, high=64, hint="1 to 64 are needed"),
        Key("fast-boot", "fast_boot", boolean),
        Key("writes-in-threads", "writes_in_threads", boolean),
    ),
    "transactions": (
        Key("max-transaction-bytes", "max_transaction_bytes", integer, low=1, hint=_NUMBER_HINT),
    ),
    "replication": (
        Key("on-divergence", "on_divergence", divergence),
        Key("max-waiting-bytes", "max_waiting_bytes", integer, low=1, hint=_NUMBER_HINT),
        Key("probe-topic", "probe_topic", str),
    ),
    "network": (
        Key("interface", "interface", str),
        Key("max-line-bytes", "max_line_bytes", integer, low=1024, hint="1024 or more is needed"),
        Key("max-body-bytes", "max_body_bytes", integer, low=1, hint=_NUMBER_HINT),
        Key("max-connection-bytes", "max_connection_bytes", integer, low=1, hint=_NUMBER_HINT),
        Key("max-total-bytes", "max_total_bytes", integer, low=1, hint=_NUMBER_HINT),
        Key("idle-seconds", "idle_seconds", integer, low=1, hint=_NUMBER_HINT),
        Key("max-long-poll-ms", "max_long_poll_ms", integer, low=0, hint="0 or more is needed"),
        Key("busy-poll-us", "busy_poll_us", integer, low=0, high=1000, hint="0 to 1000 are needed"),
        Key("congestion-control", "congestion_control", congestion_control),
    ),
}
_RANGE = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", re.ASCII)


def default_path(server_ini: str) -> str:
    """The default path of a broker's settings: beside its ``server.ini``."""
    return os.path.join(os.path.dirname(os.path.abspath(server_ini)), FILE_NAME)


def load_for(server_ini: str, path: str | None = None) -> Settings:
    """
    The settings of a broker: of ``path`` if it is given, else of the file beside ``server.ini`` if
    there is one, else the defaults.

    :raises ConfigFaults: with every fault of the file; also when a given path does not exist.
    """
    if path is None:
        path = default_path(server_ini)
        if not os.path.exists(path):
            return Settings()
    return load(path)


def load(path: str) -> Settings:
    """
    Read one settings file.

    :raises ConfigFaults: with every fault of the file.
    """
    path = os.path.abspath(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except FileNotFoundError:
        raise ConfigFaults(path, [Fault(f"File {path} is not exists")]) from None
    except OSError as error:
        raise ConfigFaults(path, [Fault(f"the file cannot be read: {error.strerror}")]) from error
    file = ini.parse(data)
    reader = SectionReader()
    reader.faults += file.faults
    values: dict[str, Any] = {}
    for section in file.sections.values():
        values.update(_section(section, reader))
    if reader.faults:
        raise ConfigFaults(path, reader.faults)
    return Settings(**values, path=path, warnings=(*file.warnings, *reader.warnings))


def _section(section: ini.Section, reader: SectionReader) -> dict[str, Any]:
    """The values of one section by attribute."""
    if section.name == CLOSED_PARTITIONS:
        return {"closed_partitions": _closed_partitions(section, reader)}
    keys = SECTIONS.get(section.name)
    if keys is None:
        best = nearest(section.name, [*SECTIONS, CLOSED_PARTITIONS])
        reader.fault(section, f"no such section, do you mean [{best}]?")
        return {}
    reader.check_names(section, (key.name for key in keys))
    return reader.values(section, keys)


def _closed_partitions(
    section: ini.Section, reader: SectionReader
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Ranges of closed partitions by topic, both ends included."""
    closed = {}
    for option in section.options.values():
        if ini.is_blank(option.value):
            continue
        try:
            closed[option.key] = parse_ranges(option.value)
        except ValueError as error:
            reader.fault(section, str(error), option)
    return closed


def parse_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """
    Partitions such as ``0-3,7`` as pairs of first and last.

    :raises ValueError: the text has another form.
    """
    ranges = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ValueError(f"{part!r} is not a range of partitions; 0-3,7 would be one")
        ranges.append((first, last))
    return tuple(ranges)
