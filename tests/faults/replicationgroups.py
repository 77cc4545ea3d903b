"""
Groups that read a replicated broker while faults happen to it: consumers that find master and slave
in ZooKeeper, commit their positions there, and come and go. What a group was given is its ledger:
nothing that a producer was promised may be missing in it.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

from metamorphosis.client.blocking import MessageSessionFactory
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.errors import MetaQError
from tests.faults.kills import check

GROUPS = {"pair": 2, "alone": 1}
"""How many consumers each has."""

SESSION_MS = 1000

SETTINGS: dict[str, Any] = {
    "zookeeper_session_timeout_ms": SESSION_MS,
    "zookeeper_sync_time_ms": 500,
    "heartbeat_idle_ms": 500,
    "heartbeat_timeout_ms": 500,
}

READING: dict[str, Any] = {
    "fetch_timeout_ms": 1000,
    "long_poll_ms": 300,
    "max_delay_fetch_time_ms": 200,
    "commit_offset_period_ms": 100,
    "stop_timeout_ms": 5000,
}


class Ledger:
    """
    What one group was given; consumers may write from any thread.

    :ivar given: key of a message -> how often.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self.given: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def take(self, messages: list[ReceivedMessage]) -> None:
        """The listener."""
        with self._lock:
            self.given.update(message.data.split(b" ", 1)[0] for message in messages)

    def missing(self, promised: Iterable[bytes]) -> set[bytes]:
        """Of these keys, those that were never given."""
        with self._lock:
            return {key for key in promised if key not in self.given}

    def judge(self, promised: Iterable[bytes], stored: set[bytes]) -> None:
        """
        :param promised: keys of what was acknowledged.
        :param stored: keys of what is in the log at the end.
        :raises AssertionError: something was passed over, or made up.
        """
        missing = self.missing(promised)
        check(not missing, f"group {self.group} never got {len(missing)}: {sorted(missing)[:5]}")
        strange = set(self.given) - stored
        check(not strange, f"group {self.group} got what is not stored: {sorted(strange)[:5]}")


class GroupMember:
    """
    One consumer with a factory of its own. Thread: that of the test.

    :param zookeeper: its address.
    :param directory: for what a client keeps on disk.
    """

    def __init__(self, zookeeper: str, topics: Iterable[str], ledger: Ledger, directory: str):
        self.ledger = ledger
        self._zookeeper = zookeeper
        self._topics = tuple(topics)
        self._directory = directory
        self._factory: MessageSessionFactory | None = None

    def join(self) -> None:
        """Its group; it goes on trying by itself if that does not succeed now."""
        os.makedirs(self._directory, exist_ok=True)
        self._factory = MessageSessionFactory(
            zookeeper=self._zookeeper,
            recover_path=self._directory,
            zookeeper_connection_timeout_ms=60_000,
            refused_timeout_ms=60_000,
            **SETTINGS,
        )
        self._factory.start()
        consumer = self._factory.create_consumer(self.ledger.group, **READING)
        for topic in self._topics:
            consumer.subscribe(topic, listener=self.ledger.take, batch=True)
        try:
            consumer.complete_subscribe()
        except MetaQError:
            pass

    def leave(self) -> None:
        """Close everything; what was read is committed if ZooKeeper is there."""
        factory, self._factory = self._factory, None
        if factory is not None:
            factory.close()


class Groups:
    """
    All of them.

    :param topics: that are read.
    :ivar ledgers: one a group.
    """

    def __init__(self, zookeeper: str, topics: Iterable[str], directory: str) -> None:
        self.ledgers = [Ledger(name) for name in GROUPS]
        self._members = [
            GroupMember(zookeeper, topics, ledger, os.path.join(directory, f"{ledger.group}-{n}"))
            for ledger in self.ledgers
            for n in range(GROUPS[ledger.group])
        ]
        # What clients say of the faults is no news.
        logging.getLogger("metamorphosis").addHandler(logging.NullHandler())

    def start(self) -> None:
        """Every member joins."""
        for member in self._members:
            member.join()

    def end(self) -> None:
        """Every member leaves."""
        for member in self._members:
            member.leave()

    def come_and_go(self, chance: random.Random) -> str:
        """One of them leaves, and comes back as somebody else."""
        member = chance.choice(self._members)
        member.leave()
        member.join()
        return f"a consumer of group {member.ledger.group} left and came back"

    def have(self, promised: Iterable[bytes]) -> bool:
        """Whether each group was given all of these."""
        keys = set(promised)
        return not any(ledger.missing(keys) for ledger in self.ledgers)

    def judge(self, promised: Iterable[bytes], stored: set[bytes]) -> None:
        """See ``Ledger``."""
        keys = set(promised)
        for ledger in self.ledgers:
            ledger.judge(keys, stored)
