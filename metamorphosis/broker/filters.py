"""
Consumer filters: Python classes of users that select the messages of a topic for a group.

``server.ini`` names it in the topic's section, ``group.<group>=<module>:<class>``. A filter is
called on the reactor thread for the messages that its group reads, so it must be quick and must not
block.

Source: ``ConsumerFilterManager``; sections 6.3 of the wire and 10 of the storage specification.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from inspect import iscoroutinefunction
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from metamorphosis.broker.filtering import GroupFilter
from metamorphosis.broker.verdicts import VerdictMemory
from metamorphosis.config.model import BrokerConfig
from metamorphosis.errors import ConfigError, MetaQError
from metamorphosis.interfaces import IConsumerFilter

NO_CLASS_PATH = (
    "appClassPath is not set; the group gets every message. Write <module>:<class> to use a Python"
    " class without appClassPath"
)


class FilterUnavailable(MetaQError):
    """The class of a filter cannot be used. The text is the original's; the log has the reason."""

    def __init__(self) -> None:
        super().__init__("Not unchecked")


class ConsumerFilters:
    """
    The filters of all groups. One instance per class name, made at the first get of a group, kept
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
        self._memory = VerdictMemory()
        self._instances: dict[str, IConsumerFilter | None] = {}
        self._groups: dict[tuple[str, str], GroupFilter] = {}
        self._names: dict[str, dict[str, str]] = {}
        _use_class_path(config)
        self.reconfigure(config)

    def reconfigure(self, config: BrokerConfig) -> None:
        """
        Apply a reload of the table of groups and classes. Classes that failed are tried again,
        others keep their instance and its verdicts about messages.
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
        The filter of ``group`` for ``topic``; ``None`` accepts everything. Applies to sections of
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
            found = GroupFilter(instance, name, topic, group, self._clock, self._memory)
            self._groups[topic, group] = found
        return found

    def has_filter(self, topic: str, group: str) -> bool:
        """Whether ``group`` has a filter for ``topic``, usable or not."""
        return group in self._names.get(topic, ())

    def jump_from(self, topic: str, group: str, partition: int, offset: int) -> int | None:
        """See ``GroupFilter.jump_from``; ``None`` also where the group has no usable filter."""
        try:
            found = self.find(topic, group)
        except FilterUnavailable:
            return None
        return None if found is None else found.jump_from(partition, offset)

    def _instance(self, name: str, topic: str, group: str) -> IConsumerFilter:
        if name not in self._instances:
            self._instances[name] = None
            try:
                self._instances[name] = _make(name)
            except (Exception, SystemExit):
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
            "Filter {name} of group {group} and topic {topic} is not used: {reason}",
            reason=NO_CLASS_PATH,
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


def unusable_filters(config: BrokerConfig, make: bool = False) -> Iterator[tuple[str, str, str]]:
    """
    Topic, group and reason of every filter that will fail its group's gets, or that is not used.

    Imports the modules, which may run any code; every exception of it is reported as a reason.

    :param make: also make an instance of each class; for a process that ends after the check.
    """
    _use_class_path(config)
    has_class_path = bool((config.app_class_path or "").strip())
    for topic in config.topics.values():
        for group, written in topic.filters.items():
            name = written.strip()
            if ":" not in name and not has_class_path:
                if make:  # otherwise ``ConsumerFilters`` logs it
                    yield topic.name, group, f"filter {name} is not used: {NO_CLASS_PATH}"
                continue
            try:
                _make(name) if make else _find(name)
            except (Exception, SystemExit) as error:
                yield (
                    topic.name,
                    group,
                    f"filter {name} cannot be used ({type(error).__name__}: {error}), every get of"
                    " the group will fail; <module>:<class> is right, a class without constructor"
                    " arguments and with a method accept(group, message), in a module that Python"
                    " finds on its path or in the directory appClassPath",
                )


def _find(name: str) -> type:
    """The class ``package.module:Class`` or ``package.module.Class``."""
    module_name, separator, class_name = name.partition(":")
    if not separator:
        module_name, _, class_name = name.rpartition(".")
    importlib.invalidate_caches()
    return cast(type, getattr(importlib.import_module(module_name), class_name))


def _make(name: str) -> IConsumerFilter:
    """An instance of the class."""
    instance = _find(name)()
    accept = getattr(instance, "accept", None)
    if not callable(accept):
        raise TypeError(f"{name} has no method accept(group, message)")
    if iscoroutinefunction(accept):  # every coroutine counts as true
        raise TypeError(f"accept of {name} is a coroutine function")
    return cast(IConsumerFilter, instance)
