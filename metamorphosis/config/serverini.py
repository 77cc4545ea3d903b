"""
``server.ini``: loading at the start, reloading in operation.

Source: ``MetaConfig.loadFromFile``, ``MetaConfig.verify``, ``MetaConfig.reload``.

Differs: all faults of the file are reported at once and before any value takes effect; the range of
``brokerId``, policies and cron expressions are also checked here. The original stops at the first
fault, finds some only when a part of the broker starts, and applies half of a faulty reload. ``-f
server.ini`` without a directory works.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from metamorphosis.config import ini, keys
from metamorphosis.config.faults import ConfigFaults, Fault
from metamorphosis.config.hostname import published_host
from metamorphosis.config.model import BrokerConfig, TopicConfig, ZooKeeperConfig, default_data_path
from metamorphosis.config.sections import SectionReader
from metamorphosis.config.suspicions import TOPIC as _TOPIC
from metamorphosis.config.suspicions import suspicions, topic_suspicions, unused

__all__ = ["Reload", "load", "published_host", "reload"]

_GROUP = "group."


@dataclass(frozen=True, slots=True)
class Reload:
    """
    The outcome of a reload.

    :ivar config: the new configuration; only its topics, checksum and time differ from the former.
    :ivar added: names of topics whose section is new, sorted as ``config.topics``; ``changed`` and
        ``removed`` alike.
    """

    config: BrokerConfig
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Content:
    """A file's bytes, path and modification time."""

    path: str
    data: bytes
    modified_ns: int

    @property
    def checksum(self) -> int:
        """All 32 bits of the CRC-32, unsigned."""
        return zlib.crc32(self.data)


def load(path: str) -> BrokerConfig:
    """
    Read the file at the start of a broker.

    :raises ConfigFaults: with every fault of the file.
    """
    if ini.is_blank(path):
        raise ConfigFaults(path, [Fault("Blank file path")])
    content = _read(path)
    file = ini.parse(content.data)
    reader = SectionReader()
    reader.faults += file.faults
    reader.warnings += file.warnings
    system = _system(file, reader, content.path)
    zookeeper = _zookeeper(file, reader)
    # Defaults replace missing values, so that the topic sections are checked in any case.
    config = BrokerConfig(**({"broker_id": 0} | system), zookeeper=zookeeper)
    topics = _topics(file, reader, config.default_topic)
    if not topics and not file.lost_header:
        reader.faults.append(Fault("Empty topics list; a section [topic=<name>] is needed"))
    _raise_faults(content, reader)
    return replace(
        config,
        topics=topics,
        path=content.path,
        checksum=content.checksum,
        modified_ns=content.modified_ns,
        warnings=(*reader.warnings, *unused(file)),
        problems=tuple(map(str, suspicions(file, replace(config, topics=topics)))),
    )


def reload(current: BrokerConfig) -> Reload | None:
    """
    Read the file again, if its modification time has changed.

    Only topic sections count, on top of the global values of the start; an empty topic list is
    accepted, and missing or faulty other sections are ignored.

    Differs: the original remembers the new time before it validates, so a faulty file is not tried
    again until it is touched; and it has applied the topics when it finds a bad policy.

    :return: None when the time has not changed.
    :raises ConfigFaults: the file is faulty; then no value has changed.
    """
    content = _read(current.path)
    if content.modified_ns == current.modified_ns:
        return None
    file = ini.parse(content.data)
    reader = SectionReader()
    reader.faults += file.faults
    reader.warnings += file.warnings
    topics = _topics(file, reader, current.default_topic)
    _raise_faults(content, reader)
    config = replace(
        current,
        topics=topics,
        checksum=content.checksum,
        modified_ns=content.modified_ns,
        warnings=(*reader.warnings, *_waiting_for_restart(file, current)),
        problems=tuple(map(str, topic_suspicions(file, replace(current, topics=topics)))),
    )
    old = current.topics
    return Reload(
        config,
        added=tuple(name for name in topics if name not in old),
        changed=tuple(name for name in topics if name in old and topics[name] != old[name]),
        removed=tuple(name for name in old if name not in topics),
    )


def _read(path: str) -> _Content:
    """Bytes and time of the same file, even while it is being replaced."""
    path = os.path.abspath(path)
    try:
        with open(path, "rb") as stream:
            modified_ns = os.fstat(stream.fileno()).st_mtime_ns
            return _Content(path, stream.read(), modified_ns)
    except FileNotFoundError:
        raise ConfigFaults(path, [Fault(f"File {path} is not exists")]) from None
    except OSError as error:
        raise ConfigFaults(path, [Fault(f"the file cannot be read: {error.strerror}")]) from error


def _raise_faults(content: _Content, reader: SectionReader) -> None:
    """Raise if there are faults."""
    if reader.faults:
        raise ConfigFaults(content.path, reader.faults)


def _system(file: ini.IniFile, reader: SectionReader, path: str) -> dict[str, Any]:
    """The values of ``[system]`` by attribute, and the defaults that depend on others."""
    section = file.sections.get("system")
    values: dict[str, Any] = {}
    if section is not None:
        reader.check_names(section, (key.name for key in keys.SYSTEM), keys.SYSTEM_IGNORED)
        values = reader.values(section, keys.SYSTEM)
    elif not file.lost_header:
        required = ", ".join(key.name for key in keys.SYSTEM if key.required)
        reader.faults.append(Fault(f"section [system] is missing; it gives {required}"))
    values.setdefault("data_path", default_data_path())
    values.setdefault("data_log_path", values["data_path"])
    provided = os.path.join(os.path.dirname(os.path.dirname(path)), "provided")
    if "app_class_path" not in values and os.path.isdir(provided):
        values["app_class_path"] = provided + "/"
    return values


def _zookeeper(file: ini.IniFile, reader: SectionReader) -> ZooKeeperConfig:
    """The values of ``[zookeeper]``; at least one must be given."""
    section = file.sections.get("zookeeper")
    if section is None:
        if not file.lost_header:
            reader.faults.append(
                Fault("section [zookeeper] is missing; zk.zkConnect=<host>:<port> is needed there")
            )
        return ZooKeeperConfig()
    reader.check_names(section, (key.name for key in keys.ZOOKEEPER), keys.ZOOKEEPER_IGNORED)
    given = (section.options.get(key.name) for key in keys.ZOOKEEPER)
    if all(option is None or ini.is_blank(option.value) for option in given):
        reader.fault(section, "Null zookeeper config; zk.zkConnect=<host>:<port> is needed")
    return ZooKeeperConfig(**reader.values(section, keys.ZOOKEEPER))


def _topics(
    file: ini.IniFile, reader: SectionReader, defaults: TopicConfig
) -> dict[str, TopicConfig]:
    """All ``[topic=<name>]`` sections, sorted by UTF-16 code unit as Java sorts strings."""
    topics = {}
    for section in file.sections.values():
        if section.name.startswith(_TOPIC):
            topic = _topic(section, reader, defaults)
            topics[topic.name] = topic
    return dict(sorted(topics.items(), key=lambda item: item[0].encode("utf-16-be", "replace")))


def _topic(section: ini.Section, reader: SectionReader, defaults: TopicConfig) -> TopicConfig:
    """One topic: its own values over the global ones, and the filters of consumer groups."""
    filters = {
        option.key.removeprefix(_GROUP): option.value
        for option in section.options.values()
        if option.key.startswith(_GROUP) and not ini.is_blank(option.value)
    }
    plain = ini.Section(
        section.name,
        section.line,
        {key: option for key, option in section.options.items() if not key.startswith(_GROUP)},
    )
    reader.check_names(plain, (key.name for key in keys.TOPIC), keys.TOPIC_IGNORED)
    values = reader.values(plain, keys.TOPIC)
    return replace(defaults, name=section.name.removeprefix(_TOPIC), filters=filters, **values)


def _waiting_for_restart(file: ini.IniFile, current: BrokerConfig) -> Iterator[str]:
    """Warnings about edited values outside the topic sections, which a reload does not apply."""
    scratch = SectionReader()
    for name, table, values in (
        ("system", keys.SYSTEM, current),
        ("zookeeper", keys.ZOOKEEPER, current.zookeeper),
    ):
        section = file.sections.get(name)
        found = scratch.values(section, table) if section is not None else {}
        for key in table:
            if key.attribute in found and found[key.attribute] != getattr(values, key.attribute):
                yield f"[{name}] {key.name} was changed; that takes effect at the next start"
