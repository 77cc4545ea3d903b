"""
Reading both configuration files again: the changes to apply, and their description.

A reload applies the topic sections of ``server.ini``, as in the original, and the closed partitions
of our settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from metamorphosis.config import serverini
from metamorphosis.config import settings as settingsfile
from metamorphosis.config.model import BrokerConfig, Settings

if TYPE_CHECKING:
    from metamorphosis.store.messagestore import MessageStore

RELOADABLE = ("closed_partitions", "path", "warnings")
SHOWN_NAMES = 10


@dataclass(frozen=True, slots=True)
class Reloaded:
    """
    The configuration from now on.

    :ivar changes: the changes in words.
    :ivar fixed: keys of the settings file that changed and that only a restart applies.
    """

    config: BrokerConfig
    settings: Settings
    changes: str
    fixed: tuple[str, ...]


def read_again(config: BrokerConfig, settings: Settings) -> Reloaded:
    """
    Read the files that ``config`` and ``settings`` came from.

    :raises ConfigFaults: with every fault of the first faulty file.
    """
    reload = serverini.reload(config)
    read = settingsfile.load_for(config.path, _given_path(config, settings))
    changes = _topic_changes(reload)
    if read.closed_partitions != settings.closed_partitions:
        changes.append(f"closed partitions: {_ranges(read) or 'none'}")
    return Reloaded(
        config if reload is None else reload.config,
        replace(settings, **{name: getattr(read, name) for name in RELOADABLE}),
        "; ".join(changes) or "nothing changed",
        _fixed(settings, read),
    )


def hidden_partitions(config: BrokerConfig, stores: Iterable[MessageStore]) -> list[str]:
    """
    Warnings about messages that consumers do not get: they are in partitions beyond the configured
    number.
    """
    hidden: dict[str, list[MessageStore]] = {}
    for store in stores:
        count = config.topic(store.topic).num_partitions
        if store.partition >= count and store.max_offset > store.min_offset:
            hidden.setdefault(store.topic, []).append(store)
    return [_hidden(config, topic, found) for topic, found in sorted(hidden.items())]


def _hidden(config: BrokerConfig, topic: str, stores: list[MessageStore]) -> str:
    numbers = sorted(store.partition for store in stores)
    size = sum(store.max_offset - store.min_offset for store in stores)
    return (
        f"[topic={topic}] numPartitions is {config.topic(topic).num_partitions}, so that nobody is"
        f" offered the messages in {_spans(numbers)}, {size:,} bytes; set it to"
        f" {numbers[-1] + 1} until they are read"
    )


def _spans(numbers: list[int]) -> str:
    """``partition 7``, ``partitions 4-7, 9``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    return f"partition{'s' if len(numbers) > 1 else ''} {', '.join(texts)}"


def shortened(names: Iterable[str]) -> str:
    """The first few of ``names`` in order, and the number of the rest."""
    ordered = sorted(names)
    more = len(ordered) - SHOWN_NAMES
    return ", ".join(ordered[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _given_path(config: BrokerConfig, settings: Settings) -> str | None:
    """The path of a settings file given on the command line; None: the file beside ``server.ini``,
    which may be created or removed."""
    beside = settings.path == settingsfile.default_path(config.path)
    return None if beside else settings.path


def _topic_changes(reload: serverini.Reload | None) -> list[str]:
    if reload is None:
        return []
    kinds = (("added", reload.added), ("changed", reload.changed), ("removed", reload.removed))
    return [f"topics {kind}: {shortened(names)}" for kind, names in kinds if names]


def _ranges(settings: Settings) -> str:
    """``test 0-3,7; other 1-1``."""
    return "; ".join(
        f"{topic} {','.join(f'{first}-{last}' for first, last in ranges)}"
        for topic, ranges in sorted(settings.closed_partitions.items())
    )


def _fixed(old: Settings, new: Settings) -> tuple[str, ...]:
    return tuple(
        field.name.replace("_", "-")
        for field in fields(Settings)
        if field.name not in RELOADABLE and getattr(old, field.name) != getattr(new, field.name)
    )
