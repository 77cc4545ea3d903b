"""
Values that the original accepts but that cannot work.

Differs: a broker starts with them as the original does, and warns; ``--check`` fails.
"""

from __future__ import annotations

from collections.abc import Iterator

from metamorphosis.config import ini
from metamorphosis.config.faults import Fault
from metamorphosis.config.hostname import is_java_host
from metamorphosis.config.keys import edits
from metamorphosis.config.model import BrokerConfig

TOPIC = "topic="

UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""Read in place of bytes that are not UTF-8."""

_PATHS = ("dataPath", "dataLogPath")

_AT_LEAST_ONE = {
    "numPartitions": "with {value} no message can be put; a number above 0 is right, as in 1",
    "maxSegmentSize": "with {value} every message has a file of its own; 1073741824 is usual",
    "maxTransferSize": "with {value} no message can be read; 1048576 is usual",
}


def suspicions(file: ini.IniFile, config: BrokerConfig) -> Iterator[Fault]:
    """The suspicions about the whole file, for a start."""
    for section in file.sections.values():
        meant = _meant(section)
        if meant:
            text = f"section [{section.name}] is not used by a broker; do you mean [{meant}]?"
            yield Fault(text, section.line)
    system = file.sections.get("system")
    if system is not None:
        yield from _numbers(system, config)
        yield from _paths(system)
        if config.host_name and not is_java_host(config.host_name):
            option = system.options["hostName"]
            yield _fault(
                system,
                option,
                f"Java clients cannot connect to a host named {config.host_name!r}; letters,"
                " digits, hyphens and dots are right, or an address",
            )
    yield from topic_suspicions(file, config)


def topic_suspicions(file: ini.IniFile, config: BrokerConfig) -> Iterator[Fault]:
    """The suspicions about the topic sections, which a reload also reads."""
    for section in file.sections.values():
        if not section.name.startswith(TOPIC):
            continue
        name = section.name.removeprefix(TOPIC)
        wrong = [char for char in name if char in " /" or not char.isprintable()]
        if not name or wrong:
            shown = f"{wrong[0]!r} (U+{ord(wrong[0]):04X})" if wrong else "an empty name"
            yield Fault(
                f"no client can name this topic: {shown} is not possible in the name of one; a name"
                " without blanks and slashes is right",
                section.line,
                section.name,
            )
        yield from _numbers(section, config)
        yield from _paths(section)


def _paths(section: ini.Section) -> Iterator[Fault]:
    """
    Paths with bytes that were not UTF-8: the broker would use another directory than the intended
    one.
    """
    for key in _PATHS:
        option = section.options.get(key)
        if option is not None and UNREADABLE in option.value:
            yield _fault(
                section,
                option,
                f"the path is not UTF-8, so that {option.value!r} would be used, which is another"
                " directory than the one that is meant; save the file as UTF-8",
            )


def _numbers(section: ini.Section, config: BrokerConfig) -> Iterator[Fault]:
    """Numbers below 1 that cannot work, in ``[system]`` or a topic section."""
    name = section.name.removeprefix(TOPIC)
    values = config if section.name == "system" else config.topics.get(name)
    for key, text in _AT_LEAST_ONE.items():
        option = section.options.get(key)
        value = getattr(values, _attribute(key), 1)
        if option is not None and not ini.is_blank(option.value) and value < 1:
            yield _fault(section, option, text.format(value=value))


def _attribute(key: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in key)


def unused(file: ini.IniFile) -> Iterator[str]:
    """Warnings about sections that the broker does not read; other programs may."""
    for section in file.sections.values():
        if not _is_ours(section) and not _meant(section):
            yield f"line {section.line}: section [{section.name}] is not used by a broker"


def _is_ours(section: ini.Section) -> bool:
    return section.name in ("system", "zookeeper") or section.name.startswith(TOPIC)


def _meant(section: ini.Section) -> str:
    """The valid name that a faulty section name probably means."""
    lowered = section.name.lower()
    if _is_ours(section):
        return ""
    if lowered.startswith("topic"):
        return TOPIC + (section.name[len("topic") :].strip(" =:\t-_") or "name")
    return next((each for each in ("system", "zookeeper") if edits(lowered, each) <= 2), "")


def _fault(section: ini.Section, option: ini.Option, text: str) -> Fault:
    return Fault(text, option.line, section.name, option.key)
