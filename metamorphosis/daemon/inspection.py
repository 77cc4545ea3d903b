"""
The contents of a broker's data directories that its operator should know of before it serves.

``--check`` shows all of it and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from metamorphosis.config.model import BrokerConfig, Settings
from metamorphosis.store.opening import find_damage, find_partitions
from metamorphosis.transactions.journalfiles import journal_directory
from metamorphosis.transactions.unfinished import find_unfinished, of_directories


def find_damages(config: BrokerConfig, settings: Settings) -> Iterator[str]:
    """
    A line for each damaged last segment, which a start goes on with all the same; nothing with fast
    boot, which checks none. Thread: any; blocks as long as a start would.

    :raises StoreError: what cannot be read would keep the broker from starting.
    """
    if settings.fast_boot:
        return
    paths = {config.data_path, *(topic.data_path for topic in config.topics.values())}
    existing = [path for path in paths if path and os.path.exists(path)]
    for found in sorted({found for path in existing for found in find_partitions(path)}):
        data_path = config.topic(found.topic).data_path or config.data_path
        if os.path.exists(data_path):
            damage = find_damage(data_path, found)
            if damage is not None:
                yield damage


def unfinished_journal(config: BrokerConfig) -> Iterator[str]:
    """
    Why a broker without transactions cannot start over the journal of an earlier one. Thread: any;
    blocks as long as a start would.

    :raises JournalError: the journal cannot be read.
    :raises StoreError: a partition that it names cannot be read.
    """
    directory = journal_directory(config.data_log_path, config.data_path)
    paths = of_directories(lambda topic: config.topic(topic).data_path or config.data_path)
    refusal = find_unfinished(directory, paths).refusal(directory)
    if refusal is not None:
        yield refusal
