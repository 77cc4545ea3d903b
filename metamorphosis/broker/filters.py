"""
Consumer filters: a user's Python class that says which messages of a topic a group gets.

``server.ini`` names it in the topic's section, ``group.<group>=<module>:<class>``. A filter is
called on the reactor thread for the messages that its group reads, so it must be quick and must not
block.

Source: ``ConsumerFilterManager``; sections 6.3 of the wire and 10 of the storage specification.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from metamorphosis.config.model import BrokerConfig
from metamorphosis.errors import ConfigError, CorruptRecord, MetaQError
from metamorphosis.interfaces import IConsumerFilter
from metamorphosis.message import MAX_BODY_BYTES, Message, iterate_records

LOG_SECONDS = 10
"""
A failing filter is logged at most this often per group; a busy group would otherwise fill the disk.
"""

NOTHING_ACCEPTED = "nothing accepted"
ACCEPTED = "accepted"
NO_WHOLE_RECORD = "no whole record"


class Filtered(NamedTuple):
    """
    What a filtered get is answered with.

    :ivar kind: ``ACCEPTED`` or ``NO_WHOLE_RECORD``: a ``value`` with ``data``;
        ``NOTHING_ACCEPTED``: 301 to ``offset``.
    :ivar data: the bytes of the reply, empty with 301.
    :ivar offset: where the consumer's next get starts.
    """

    kind: str
    data: bytes
    offset: int


class FilterUnavailable(MetaQError):
    """The class of a filter cannot be used. The text is the original's; the log says why."""

    def __init__(self) -> None:
        super().__init__("Not unchecked")


def apply_filter(
    data: bytes, offset: int, topic: str, accept: Callable[[Message], bool]
) -> Filtered:
    """
    Leave the leading accepted records of a get's byte range.

    Differs: the original returns all accepted records re-packed, and a consumer, which adds the
    bytes it received to its offset, then goes on in the middle of a record. Here nothing is left
    out before the last byte of a reply: rejected records at the front are skipped by a 301, and a
    reply ends before the next rejected one. If not one record is complete, the original answers 301
    to the same offset for ever; here the consumer gets the cut record and enlarges its maxSize.

    :param data: what an unfiltered get would return.
    :param offset: of the first byte of ``data`` in the log.
    :param accept: asked once per record until the answer is known; does not raise.
    :raises CorruptRecord: the first record is damaged; the text is the detail of the reply.
        Whatever precedes a damaged record is answered first.
    """
    kind = NO_WHOLE_RECORD
    position = 0
    try:
        for message in _records(data, topic):
            wanted = ACCEPTED if accept(message) else NOTHING_ACCEPTED
            if kind not in (wanted, NO_WHOLE_RECORD):
                break
            kind = wanted
            position += message.record_bytes
    except CorruptRecord:
        if position == 0:
            raise
    if kind == NO_WHOLE_RECORD:
        return Filtered(kind, data, offset)
    return Filtered(kind, data[:position] if kind == ACCEPTED else b"", offset + position)


def _records(data: bytes, topic: str) -> Iterator[Message]:
    """The complete records; a damaged one raises ``CorruptRecord`` with the original's text."""
    messages = iterate_records(data, topic, max_body=len(data))
    while True:
        try:
            message = next(messages, None)
        except CorruptRecord as error:
            raise CorruptRecord("Invalid message") from error
        if message is None:
            return
        if len(message.body) > MAX_BODY_BYTES:
            raise CorruptRecord(f"Too much long payload length:{len(message.body)}")
        yield message


class GroupFilter:
    """One group's use of a filter, as a function of the message that never raises."""

    _log = Logger()

    def __init__(
        self, instance: IConsumerFilter, name: str, topic: str, group: str, clock: IReactorTime
    ) -> None:
        self._accept = instance.accept
        self._name = name
        self._topic = topic
        self._group = group
        self._clock = clock
        self._quiet_until = clock.seconds()
        self._unlogged = 0

    def __call__(self, message: Message) -> bool:
        """Whether the group wants the message; a filter that raises does not."""
        try:
            return bool(self._accept(self._group, message))
        except Exception:
            self._log_failure(Failure())
            return False

    def _log_failure(self, failure: Failure) -> None:
        now = self._clock.seconds()
        if now < self._quiet_until:
            self._unlogged += 1
            return
        self._log.failure(
            "Filter message for consumer failed,topic={topic},group={group},filterClass={name}: "
            "the message is rejected ({unlogged} more were since the last line like this)",
            failure=failure,
            topic=self._topic,
            group=self._group,
            name=self._name,
            unlogged=self._unlogged,
        )
        self._quiet_until = now + LOG_SECONDS
        self._unlogged = 0


class ConsumerFilters:
    """
    The filters of all groups. One instance per class name, made when a group first reads, kept
    until the process ends.

    ``appClassPath`` is a directory of Python modules here, searched after everything else, as the
    original asks the parent class loader first. A class that could not be made is not tried again
    until the configuration is reloaded.

    Differs: without ``appClassPath`` the original filters nothing. Here the spelling
    ``<module>:<class>``, which cannot name a Java class, works without it; a name with dots only is
    ignored without it, as the original does, so that a ``server.ini`` of a Java broker keeps its
    meaning.

    :raises ConfigError: ``appClassPath`` is set and no directory.
    """

    _log = Logger()

    def __init__(self, config: BrokerConfig, clock: IReactorTime) -> None:
        self._clock = clock
        self._instances: dict[str, IConsumerFilter | None] = {}
        self._groups: dict[tuple[str, str], GroupFilter] = {}
        self._names: dict[str, dict[str, str]] = {}
        _use_class_path(config)
        self.reconfigure(config)

    def reconfigure(self, config: BrokerConfig) -> None:
        """
        Apply a reload: which group has which class. Classes that failed are tried again, others
        keep their instance.
        """
        self._instances = {name: made for name, made in self._instances.items() if made is not None}
        self._groups.clear()
        self._names = {}
        for topic in config.topics.values():
            names = {
                group: name.strip()
                for group, name in topic.filters.items()
                if name.strip() and self._is_enabled(name, topic.name, group, config)
            }
            if names:
                self._names[topic.name] = names

    def has_filters(self, topic: str) -> bool:
        """Whether any group of ``topic`` has a filter."""
        return topic in self._names

    def find(self, topic: str, group: str) -> GroupFilter | None:
        """
        What ``group`` accepts of ``topic``; ``None`` accepts everything. Applies to sections of
        exactly this name.

        :raises FilterUnavailable: the group has a filter that cannot be used; delivering unfiltered
            would be wrong.
        """
        name = self._names.get(topic, {}).get(group)
        if name is None:
            return None
        found = self._groups.get((topic, group))
        if found is None:
            instance = self._instance(name, topic, group)
            found = GroupFilter(instance, name, topic, group, self._clock)
            self._groups[topic, group] = found
        return found

    def _instance(self, name: str, topic: str, group: str) -> IConsumerFilter:
        if name not in self._instances:
            self._instances[name] = None
            try:
                self._instances[name] = _make(name)
            except Exception:
                self._log.failure(
                    "Cannot use filter class {name} of group {group} and topic {topic}; every get "
                    "of this group fails until this is put right and the configuration reloaded. "
                    "Right is <module>:<class>, a class without constructor arguments and with a "
                    "method accept(group, message), in a module that Python finds on its path or "
                    "in the directory appClassPath",
                    name=name,
                    group=group,
                    topic=topic,
                )
            else:
                self._log.info(
                    "Created filter {name} for group:{group} and topic:{topic}",
                    name=name,
                    group=group,
                    topic=topic,
                )
        instance = self._instances[name]
        if instance is None:
            raise FilterUnavailable()
        return instance

    def _is_enabled(self, name: str, topic: str, group: str, config: BrokerConfig) -> bool:
        if ":" in name or (config.app_class_path or "").strip():
            return True
        self._log.warn(
            "Filter {name} of group {group} and topic {topic} is not used, because appClassPath is "
            "not set; the group gets every message. Write <module>:<class> to use a Python class "
            "without appClassPath",
            name=name,
            group=group,
            topic=topic,
        )
        return False


def _use_class_path(config: BrokerConfig) -> None:
    """
    Let Python find modules in ``appClassPath``; read at the start only, like all of ``[system]``.
    """
    directory = (config.app_class_path or "").strip()
    if not directory:
        return
    if not os.path.isdir(directory):
        raise ConfigError(
            f"{config.path}: [system] appClassPath={directory} is not a directory; right is one "
            "with the Python modules of consumer filters, or to leave the key out"
        )
    path = os.path.abspath(directory)
    if path not in sys.path:
        sys.path.append(path)


def _make(name: str) -> IConsumerFilter:
    """An instance of the class ``package.module:Class`` or ``package.module.Class``."""
    module_name, separator, class_name = name.partition(":")
    if not separator:
        module_name, _, class_name = name.rpartition(".")
    importlib.invalidate_caches()
    instance = getattr(importlib.import_module(module_name), class_name)()
    if not callable(getattr(instance, "accept", None)):
        raise TypeError(f"{name} has no method accept(group, message)")
    return cast(IConsumerFilter, instance)
