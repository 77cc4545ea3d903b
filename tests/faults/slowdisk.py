"""
``kill -9`` of a broker, as ``kills`` does it, on a disk that is slow for one topic.

All partitions of the topic with group commit flush 10 ms longer than the disk does. That must not
stall the others: no such flush runs in the reactor's thread, and the puts of another topic with
group commit are answered as if the slow one were not there.

The suite runs a few kills (``test_kills``); ``make slow-kills`` runs many.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults.kills import TOPICS, KillRun, Producer, check, main
from tests.faults.peer import Peer, put
from tests.support.broker import BrokerProcess

SLOW = "committed"
"""The topic of ``TOPICS`` with group commit."""

QUICK = "quick"
"""Another topic with group commit, in which only watchers put."""

SLOW_MS = 10

SOURCE = Path(__file__).with_suffix(".c")


def missing() -> str | None:
    """The reason why no disk can be made slow here, for a test's ``skip``, or ``None``."""
    return None if shutil.which("cc") else "no cc: Debian package gcc"


class SlowDiskBroker(BrokerProcess):
    """A broker with such a disk; a small C library is preloaded into it."""

    def __init__(self, directory: str, **options: Any) -> None:
        super().__init__(directory, **options)
        os.makedirs(self.directory, exist_ok=True)
        self._library = os.path.join(self.directory, "slowdisk.so")
        command = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", self._library, str(SOURCE)], check=True)

    def environment(self) -> dict[str, str]:
        """With the library and its settings."""
        slow = {"SLOW_FILES": f"/{SLOW}-", "SLOW_MS": str(SLOW_MS)}
        return {**super().environment(), "LD_PRELOAD": self._library, **slow}


class Watcher(Producer):
    """
    Puts one message after another into one topic.

    :ivar seconds: from each put to its reply.
    """

    def __init__(self, port: int, name: str, topic: str) -> None:
        super().__init__(port, name, 0)
        self.seconds: list[float] = []
        self.topic = topic

    def run(self) -> None:
        """The kill ends this with an ``OSError``."""
        with suppress(OSError), Peer(self._port) as peer:
            for number in itertools.count():
                body = b"%s-%d " % (self.name.encode(), number)
                began = time.monotonic()
                peer.send(put(self.topic, -1, body, number % 1000))
                self._take_reply(peer, self.topic, -1, body)
                self.seconds.append(time.monotonic() - began)


class SlowDiskRun(KillRun):
    """
    Kills of a broker with such a disk.

    :ivar seconds: those of all watchers by topic.
    """

    topics = {**TOPICS, QUICK: 0}
    broker_type = SlowDiskBroker

    def __init__(self, directory: str, seed: int) -> None:
        super().__init__(directory, seed)
        self.seconds: dict[str, list[float]] = {SLOW: [], QUICK: []}

    def make_producers(self) -> list[Producer]:
        """The load, and a watcher for each topic with group commit."""
        port, number = self.broker.port, self.round
        watchers = [Watcher(port, f"{number}.{topic}", topic) for topic in self.seconds]
        return [*super().make_producers(), *watchers]

    def collect(self, producer: Producer) -> None:
        """Take what it knows, and what it measured."""
        super().collect(producer)
        if isinstance(producer, Watcher):
            self.seconds[producer.topic] += producer.seconds

    def judge_end(self) -> None:
        """
        See ``KillRun``; and the watcher of the slow topic waited for its disk, the other did not.
        The difference of the two does not depend on how busy the machine is.
        """
        super().judge_end()
        slow, quick = (statistics.median(self.seconds[topic]) for topic in (SLOW, QUICK))
        told = f"puts take {slow * 1e3:.1f} ms on the slow disk, {quick * 1e3:.1f} ms beside it"
        check(slow - quick > SLOW_MS / 2e3, told)
        print(told, flush=True)


if __name__ == "__main__":
    main(SlowDiskRun)
