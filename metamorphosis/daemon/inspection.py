"""
Faults in a broker's data directories that its operator should know before it serves.

``--check`` shows them and changes nothing.
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
    A line for each damaged last segment; a start accepts such a segment. Empty with fast boot,
    which checks no segment. Thread: any; blocks as long as a start would.

    :raises StoreError: a directory or file cannot be read, so the broker would not start.
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
    The reason why a broker without transactions cannot start with the journal of an earlier one, if
    there is one. Thread: any; blocks as long as a start would.

    :raises JournalError: the journal cannot be read.
    :raises StoreError: a partition that it names cannot be read.
    """
    directory = journal_directory(config.data_log_path, config.data_path)
    paths = of_directories(lambda topic: config.topic(topic).data_path or config.data_path)
    refusal = find_unfinished(directory, paths).refusal(directory)
    if refusal is not None:
        yield refusal
