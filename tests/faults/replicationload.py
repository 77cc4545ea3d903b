"""
What works on a replicated broker while faults happen to it: producers that remember what was
promised to them, and readers that remember what they were shown.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.faults.kills import Acknowledged, Place, check, digest, records
from tests.faults.peer import Peer, Reply, get, put

TOPICS = {"committed": 0, "direct": 1000}
"""Topics by unflushThreshold."""

PARTITIONS = 2
WINDOW = 8
"""Puts in flight on each connection."""

PATIENCE = 4.0
"""Seconds without a reply after which a client gives its connection up."""

NOTHING_STORED = b"Slave is disconnected "
"""The refusal that says that the message is on neither side."""


class Producer(threading.Thread):
    """
    Puts unique messages, each once, over one connection after the other.

    :param port: where the master listens now.
    :ivar acknowledged: in the order of the replies.
    :ivar promised: keys of those messages.
    :ivar refused: keys of messages that are certainly stored nowhere.
    :ivar answers: how often each answer came.
    """

    def __init__(self, name: str, seed: int, port: Callable[[], int]) -> None:
        super().__init__(name=name, daemon=True)
        self.acknowledged: list[Acknowledged] = []
        self.promised: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.answers: Counter[bytes] = Counter()
        self.ending = threading.Event()
        self._port = port
        self._random = random.Random(seed)
        self._numbers = itertools.count()

    def run(self) -> None:
        """Until ``ending`` is set."""
        while not self.ending.is_set():
            try:
                with Peer(self._port(), PATIENCE) as peer:
                    self._produce(peer)
            except OSError:
                self.ending.wait(0.05)

    def _produce(self, peer: Peer) -> None:
        flying: list[tuple[str, int, bytes]] = []
        while not self.ending.is_set():
            refused = self.answers[NOTHING_STORED]
            while len(flying) < WINDOW:
                flying.append(self._send(peer))
            self._take(peer.reply(), *flying.pop(0))
            pause = 0.02 if self.answers[NOTHING_STORED] > refused else 0.001
            time.sleep(pause)
        for each in flying:
            self._take(peer.reply(), *each)

    def _send(self, peer: Peer) -> tuple[str, int, bytes]:
        topic = self._random.choice(list(TOPICS))
        partition = self._random.choice((-1, *range(PARTITIONS)))
        body = b"%s-%d " % (self.name.encode(), next(self._numbers))
        body += b"x" * self._random.choice((0, 10, 100, 1000, 20000))
        peer.send(put(topic, partition, body, 7))
        return topic, partition, body

    def _take(self, reply: Reply, topic: str, partition: int, body: bytes) -> None:
        if reply.status != 200:
            self.answers[reply.body] += 1
            if reply.body == NOTHING_STORED:
                self.refused.add(body.split(b" ")[0])
            return
        message_id, stored_in, offset = (int(number) for number in reply.body.split(b" "))
        check(partition in (-1, stored_in), f"asked for {partition}, got {stored_in}")
        place = Place(topic, stored_in, offset)
        self.acknowledged.append(Acknowledged(place, message_id, digest(body)))
        self.promised.add(body.split(b" ", 1)[0])


class Reader(threading.Thread):
    """
    Reads all partitions of one member from their beginning, again and again over one connection
    after the other.

    :param port: where the member listens now.
    :ivar seen: partition -> offset -> id and digest of the message there.
    :ivar fault: what no reader may see.
    """

    def __init__(self, name: str, port: Callable[[], int]) -> None:
        super().__init__(name=name, daemon=True)
        self.seen: dict[tuple[str, int], dict[int, tuple[int, bytes]]] = {
            (topic, number): {} for topic in TOPICS for number in range(PARTITIONS)
        }
        self.fault: AssertionError | None = None
        self.ending = threading.Event()
        self._ends = dict.fromkeys(self.seen, 0)
        self._port = port

    def run(self) -> None:
        """Until ``ending`` is set."""
        while not self.ending.is_set() and self.fault is None:
            try:
                with Peer(self._port(), PATIENCE) as peer:
                    while not self.ending.is_set():
                        self._read_all(peer)
                        self.ending.wait(0.05)
            except OSError:
                self.ending.wait(0.1)
            except AssertionError as error:
                self.fault = error

    def _read_all(self, peer: Peer) -> None:
        for (topic, number), seen in self.seen.items():
            end = self._ends[topic, number]
            reply = peer.ask(get(topic, number, end, 1 << 18, 7))
            if reply.status:
                text = f"{self.name}: get {topic}-{number} at {end}: {reply}"
                check(reply.status in (404, 503), text)
                continue
            self._ends[topic, number] = self._note(seen, Place(topic, number, end), reply.body)

    @staticmethod
    def _note(seen: dict[int, tuple[int, bytes]], place: Place, data: bytes) -> int:
        """Where the whole records in ``data`` end."""
        whole = 0
        while whole + 20 <= len(data):
            end = whole + 20 + int.from_bytes(data[whole : whole + 4], "big")
            if end > len(data):
                break
            whole = end
        offset = place.offset
        for message_id, body in records(iter([data[:whole]]), place):
            seen[offset] = message_id, digest(body)
            offset += 20 + len(body)
        return offset
