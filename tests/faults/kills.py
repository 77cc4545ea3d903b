"""
``kill -9`` of a broker under load, again and again.

After every kill the broker is started on what is left, and the log is judged by what the producers
know: every acknowledged message lies where its acknowledgement said, no message is there twice,
offsets have no gap, ids increase. The log of the broker tells of no error.

The suite runs a few kills (``test_kills``); ``python -m tests.faults.kills --kills 200`` runs many,
``KILLS`` in the environment is the default of the option. ``slowdisk`` does it on a slow disk.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.faults.peer import Peer, get, put
from tests.support.broker import BrokerProcess

TOPICS = {"committed": 0, "direct": 1000}
"""
Topics by unflushThreshold. Both must keep their promises: a kill, unlike a power cut, spares what
was written and not flushed.
"""

PARTITIONS = 3
PRODUCERS = 4
WINDOW = 16
"""Puts in flight on each connection."""

SEGMENT_BYTES = 256 * 1024
"""Small, so that kills also meet the roll to a new segment."""

LONGEST_LOAD = 1.2
"""Seconds from the first acknowledgement to the kill, at most."""

EARLY_KILLS = 0.15
"""The part of the kills that meets a broker that is still starting."""

ANSWER_SECONDS = 20.0

ERRORS = ("Traceback", "#error]", "#critical]", "slow flush in the main thread")
"""What the log of a broker that is killed must not have; the last is of ``slowdisk``."""

HEADER = struct.Struct(">iiqi")


class Place(NamedTuple):
    """Where a message lies."""

    topic: str
    partition: int
    offset: int


class Acknowledged(NamedTuple):
    """What the broker promised to have stored."""

    place: Place
    message_id: int
    digest: bytes


def digest(body: bytes) -> bytes:
    """What is remembered of a body; 200 kills promise a gigabyte."""
    return hashlib.blake2b(body, digest_size=8).digest()


class Producer(threading.Thread):
    """
    Puts unique messages over one connection until it breaks.

    :ivar acknowledged: in the order of the replies.
    :ivar refused: texts of replies other than 200, of which there should be none.
    """

    def __init__(self, port: int, name: str, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self.acknowledged: list[Acknowledged] = []
        self.refused: list[bytes] = []
        self._port = port
        self._random = random.Random(seed)

    def run(self) -> None:
        """Keep ``WINDOW`` puts in flight; the kill ends this with an ``OSError``."""
        try:
            with Peer(self._port) as peer:
                flying: list[tuple[str, int, bytes]] = []
                for number in range(sys.maxsize):
                    if len(flying) >= WINDOW:
                        self._take_reply(peer, *flying.pop(0))
                    topic = self._random.choice(list(TOPICS))
                    partition = self._random.choice((-1, *range(PARTITIONS)))
                    body = b"%s-%d " % (self.name.encode(), number)
                    body += b"x" * self._random.choice((0, 10, 100, 1000, 5000))
                    peer.send(put(topic, partition, body, number % 1000))
                    flying.append((topic, partition, body))
        except OSError:
            pass

    def _take_reply(self, peer: Peer, topic: str, partition: int, body: bytes) -> None:
        reply = peer.reply()
        if reply.status != 200:
            self.refused.append(reply.body)
            return
        message_id, stored_in, offset = (int(number) for number in reply.body.split(b" "))
        if partition not in (-1, stored_in):
            self.refused.append(b"asked for partition %d, got %d" % (partition, stored_in))
        place = Place(topic, stored_in, offset)
        self.acknowledged.append(Acknowledged(place, message_id, digest(body)))


class PartitionJudge:
    """
    What is known of one partition.

    :ivar read_to: the log was judged up to here.
    """

    def __init__(self, topic: str, partition: int) -> None:
        self.read_to = 0
        self._topic = topic
        self._partition = partition
        self._last_id = -1
        self._promised: dict[int, Acknowledged] = {}
        self._kept: dict[int, Acknowledged] = {}

    def promise(self, acknowledged: Acknowledged) -> None:
        """Remember a promise; two messages at one place are a broken one."""
        offset = acknowledged.place.offset
        earlier = self._promised.get(offset) or self._kept.get(offset)
        check(earlier is None, f"one place for two: {earlier}, {acknowledged}")
        self._promised[offset] = acknowledged

    def judge(self, log: Iterator[bytes], keys: set[bytes]) -> int:
        """
        Judge what was added since the last time.

        :param log: pieces of the log from ``read_to``.
        :param keys: what identifies the messages found so far, in all partitions.
        :returns: how many records were found.
        :raises AssertionError: something is lost, double, damaged or out of order.
        """
        found = 0
        for message_id, body in records(log, self._place()):
            place = self._place()
            key = body.split(b" ")[0]
            check(message_id > self._last_id, f"id {message_id} after {self._last_id} at {place}")
            check(key not in keys, f"{key!r} twice, the second at {place}")
            keys.add(key)
            self._compare(place, message_id, body)
            self._last_id = message_id
            self.read_to += HEADER.size + len(body)
            found += 1
        check(not self._promised, f"lost: {list(self._promised.values())[:5]}")
        return found

    def start_again(self) -> None:
        """Judge the log from its beginning again."""
        self.read_to = 0
        self._last_id = -1
        self._promised, self._kept = self._kept | self._promised, {}

    def _compare(self, place: Place, message_id: int, body: bytes) -> None:
        promised = self._promised.pop(place.offset, None)
        if promised is not None:
            stored = Acknowledged(place, message_id, digest(body))
            check(promised == stored, f"promised {promised}, there is {stored}")
            self._kept[place.offset] = promised

    def _place(self) -> Place:
        return Place(self._topic, self._partition, self.read_to)


def check(holds: bool, text: str) -> None:
    """Raise with ``text`` unless it holds, also under ``python -O``."""
    if not holds:
        raise AssertionError(text)


def records(log: Iterator[bytes], at: Place) -> Iterator[tuple[int, bytes]]:
    """Id and body of every record; the log must end with a whole one."""
    rest = b""
    for piece in log:
        rest += piece
        position = 0
        while len(rest) - position >= HEADER.size:
            length, checksum, message_id, _ = HEADER.unpack_from(rest, position)
            end = position + HEADER.size + length
            if end > len(rest):
                break
            body = rest[position + HEADER.size : end]
            computed = zlib.crc32(body) & 0x7FFFFFFF
            check(computed == checksum, f"checksum of {body[:50]!r} behind {at}")
            yield message_id, body
            position = end
        rest = rest[position:]
    check(not rest, f"{len(rest)} bytes behind the last record, read from {at}")


def served_log(peer: Peer, topic: str, partition: int, offset: int) -> Iterator[bytes]:
    """What gets return from ``offset`` to the end."""
    while True:
        reply = peer.ask(get(topic, partition, offset, 1 << 20, 7))
        if reply.status == 404:
            return
        check(reply.status == 0, f"get {topic}-{partition} at {offset}: {reply}")
        yield reply.body
        offset += len(reply.body)


def stored_log(directory: str) -> Iterator[bytes]:
    """The segment files of a partition, each of which must start where the one before ends."""
    offset = 0
    for name in sorted(os.listdir(directory)):
        if name.endswith(".meta"):
            check(int(name[:-5]) == offset, f"{directory}/{name} should start at {offset}")
            with open(os.path.join(directory, name), "rb") as file:
                data = file.read()
            yield data
            offset += len(data)


class KillRun:
    """
    One broker, its data directory and its judges, through many kills.

    :param directory: made if missing.
    :cvar topics: all topics by unflushThreshold; the load goes to ``TOPICS``.
    :cvar broker_type: makes the broker.
    :ivar acknowledged: messages that producers know to be stored.
    :ivar found: messages that were found in the log.
    :ivar round: number of the present load.
    """

    topics = TOPICS
    broker_type: type[BrokerProcess] = BrokerProcess

    def __init__(self, directory: str, seed: int) -> None:
        self.acknowledged = 0
        self.found = 0
        self.broker = self.broker_type(
            directory,
            topics={
                topic: {"numPartitions": PARTITIONS, "unflushThreshold": threshold}
                for topic, threshold in self.topics.items()
            },
            system={"maxSegmentSize": SEGMENT_BYTES},
        )
        self._random = random.Random(seed)
        self.round = 0
        self._keys: set[bytes] = set()
        self._judges = {
            (topic, partition): PartitionJudge(topic, partition)
            for topic in self.topics
            for partition in range(PARTITIONS)
        }

    def kill_once(self) -> None:
        """Load the running broker, kill it, start it again and judge what it serves."""
        self.round += 1
        producers = self.make_producers()
        for producer in producers:
            producer.start()
        wait_for_acknowledgement(producers)
        time.sleep(self._random.uniform(0.0, LONGEST_LOAD))
        self.broker.kill()
        for producer in producers:
            self.collect(producer)
        if self._random.random() < EARLY_KILLS:
            self.broker.start(wait=False)
            time.sleep(self._random.uniform(0.0, 1.0))
            self.broker.kill()
        self.broker.start()
        self._judge_served()
        told = [line for line in self.broker.output().splitlines() if is_error(line)]
        check(not told, f"the broker logged {told[:5]}")

    def make_producers(self) -> list[Producer]:
        """The load of one round."""
        return [
            Producer(self.broker.port, f"{self.round}.{n}", self._random.getrandbits(32))
            for n in range(PRODUCERS)
        ]

    def judge_end(self) -> None:
        """Judge all segment files from their beginning. The broker must not run."""
        self.found = 0
        self._keys.clear()
        for (topic, partition), judge in self._judges.items():
            judge.start_again()
            directory = os.path.join(self.broker.data, f"{topic}-{partition}")
            self.found += judge.judge(stored_log(directory), self._keys)

    def _judge_served(self) -> None:
        with Peer(self.broker.port) as peer:
            for (topic, partition), judge in self._judges.items():
                log = served_log(peer, topic, partition, judge.read_to)
                self.found += judge.judge(log, self._keys)

    def collect(self, producer: Producer) -> None:
        """Take what it knows when it has ended."""
        producer.join()
        check(not producer.refused, f"refused: {producer.refused[:3]}")
        self.acknowledged += len(producer.acknowledged)
        for acknowledged in producer.acknowledged:
            self._judges[acknowledged.place[:2]].promise(acknowledged)


def is_error(line: str) -> bool:
    """Whether the broker logged an error."""
    return any(word in line for word in ERRORS)


def wait_for_acknowledgement(producers: list[Producer]) -> None:
    """Return when the broker has answered a put."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while not any(producer.acknowledged for producer in producers):
        check(time.monotonic() < deadline, f"no put is answered in {ANSWER_SECONDS} s")
        time.sleep(0.01)


def main(run_type: Callable[[str, int], KillRun]) -> None:
    """Kill as often as asked for, say how it went."""
    parser = argparse.ArgumentParser(description=run_type.__doc__)
    parser.add_argument("--kills", type=int, default=int(os.environ.get("KILLS", "200")))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="metamorphosis-kills-")
    print(f"seed {options.seed}, data in {directory}", flush=True)
    run = run_type(directory, options.seed)
    try:
        run.broker.start()
        for number in range(1, options.kills + 1):
            run.kill_once()
            if number % 10 == 0:
                print(f"{number}: {run.acknowledged} promised, {run.found} found", flush=True)
        run.broker.kill()
        run.judge_end()
    finally:
        run.broker.kill()
    print(f"{options.kills} kills, nothing lost, nothing twice")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main(KillRun)
