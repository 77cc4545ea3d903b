"""
The checks of ``--check`` after reading the files: the steps of a start, except listening and
writing. It creates, locks and changes nothing, so it may run beside the broker.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from metamorphosis.broker.filters import unusable_filters
from metamorphosis.config import ini
from metamorphosis.config.faults import Fault
from metamorphosis.config.model import BrokerConfig, Settings
from metamorphosis.config.suspicions import TOPIC
from metamorphosis.daemon.inspection import find_damages, unfinished_journal
from metamorphosis.errors import JournalError, StoreError


@dataclass(frozen=True, slots=True)
class Findings:
    """
    The findings of a check.

    :ivar problems: faults with which the broker does not start, or does not do what the files say.
    :ivar warnings: faults with which it still starts.
    """

    problems: list[str]
    warnings: list[str]


def try_start(config: BrokerConfig, settings: Settings, has_transactions: bool = True) -> Findings:
    """
    Try the steps of a start. Thread: any; blocks as long as a start would.

    :param has_transactions: False for a slave or a member of a pair.
    """
    places = Places(config.path)
    unusable = list(_directories(config, places))
    faults = [*unusable, *_interface(settings), *_filters(config, places)]
    found = Findings([*config.problems, *map(str, faults)], [])
    try:
        if not unusable:
            found.warnings.extend(find_damages(config, settings))
            if not has_transactions:
                found.problems.extend(unfinished_journal(config))
    except (StoreError, JournalError) as error:
        found.problems.append(str(error))
    return found


class Places:
    """The lines of the keys of a ``server.ini``."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as stream:
            self._file = ini.parse(stream.read())

    def fault(self, section: str, key: str, text: str) -> Fault:
        """A fault with the line of the key, if the file has it."""
        found = self._file.sections.get(section)
        option = None if found is None else found.options.get(key)
        return Fault(text, None if option is None else option.line, section, key)


def _directories(config: BrokerConfig, places: Places) -> Iterator[Fault]:
    wrong = directory_problem(config.data_path)
    if wrong:
        yield places.fault("system", "dataPath", wrong)
    for topic in config.topics.values():
        if topic.data_path and topic.data_path != config.data_path:
            wrong = directory_problem(topic.data_path)
            if wrong:
                yield places.fault(f"{TOPIC}{topic.name}", "dataPath", wrong)


def directory_problem(path: str) -> str | None:
    """The reason why a start could not use, or make, this directory of messages; None if it
    could."""
    path = os.path.abspath(path)
    if os.path.isdir(path):
        if os.access(path, os.R_OK | os.W_OK | os.X_OK):
            return None
        return f"{path} cannot be read and written by this user; see to its owner and mode"
    if os.path.lexists(path):
        return f"{path} is not a directory; name another one, or move that file away"
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        return f"{path} cannot be made, because {parent} does not exist: mkdir -p {parent}"
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"{path} cannot be made by this user in {parent}; make it, or see to the mode"
    return None


def _interface(settings: Settings) -> Iterator[Fault]:
    """A fault if the address is not one of this machine. The port is not tried: a running broker
    may have it."""
    interface = settings.interface
    if not interface:
        return
    try:
        with socket.socket(socket.AF_INET6 if ":" in interface else socket.AF_INET) as probe:
            probe.bind((interface, 0))
    except OSError as error:
        text = (
            f"cannot listen on {interface} ({error.strerror}); an address of this machine is right"
        )
        yield Fault(text, None, "network", "interface")


def _filters(config: BrokerConfig, places: Places) -> Iterator[Fault]:
    for topic, group, reason in unusable_filters(config, make=True):
        yield places.fault(f"{TOPIC}{topic}", f"group.{group}", reason)
