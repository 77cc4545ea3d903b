"""
``kill -9`` of a broker while clients mix local and XA transactions and plain puts.

After every start each transaction is there once and whole, or not at all, or prepared and listed;
plain puts stand where they were acknowledged; nothing is there twice.

The suite runs a few kills (``test_transactionkills``); ``python -m tests.faults.transactionkills
--kills 500`` runs many, ``KILLS`` in the environment is the default of the option.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator

from tests.faults.kills import Place, check, records, served_log
from tests.faults.peer import Peer, Reply
from tests.support.broker import BrokerProcess
from tests.support.knowledge import Known, KnownTransaction, block_stands

TOPICS = {"committed": 0, "direct": 1000}
"""Topics by unflushThreshold."""

PARTITIONS = 2
CLIENTS = 6
LONGEST_LOAD = 1.0
"""Seconds from the start of the load to the kill, at most."""

EARLY_KILLS = 0.15
"""The part of the kills that meets a broker that is still recovering."""

SEGMENT_BYTES = 128 * 1024

Partition = tuple[str, int]
PLACES: list[Partition] = [(topic, n) for topic in TOPICS for n in range(PARTITIONS)]


class Mixer(threading.Thread):
    """
    Transacts over one connection until it breaks.

    :ivar transactions: all that it began.
    :ivar plain: acknowledged puts by place.
    :ivar sent: every body.
    :ivar refused: replies that are not 200, of which there should be none.
    :ivar plain_topics: topics of the puts outside of transactions.
    """

    def __init__(self, port: int, name: str, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self.transactions: list[KnownTransaction] = []
        self.plain: dict[Place, bytes] = {}
        self.sent: set[bytes] = set()
        self.refused: list[bytes] = []
        self.plain_topics = list(TOPICS)
        self._port = port
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)

    def run(self) -> None:
        """The kill ends this with an ``OSError``."""
        try:
            with Peer(self._port) as peer:
                while not self.refused:
                    self._random.choice((self._put, self._local, self._xa))(peer)
        except OSError:
            pass

    def _ask(self, peer: Peer, request: bytes) -> Reply:
        reply = peer.ask(request)
        if reply.status != 200:
            self.refused.append(request[:80] + b" -> " + reply.body)
        return reply

    def _body(self) -> bytes:
        body = f"{self.name}-{next(self._numbers)} ".encode()
        body += b"x" * self._random.choice((0, 10, 200, 3000))
        self.sent.add(body)
        return body

    def _put(self, peer: Peer) -> None:
        topic = self._random.choice(self.plain_topics)
        partition = self._random.randrange(PARTITIONS)
        body = self._body()
        head = f"put {topic} {partition} {len(body)} 0 -1 7\r\n".encode()
        reply = self._ask(peer, head + body)
        if reply.status == 200:
            self.plain[Place(topic, partition, int(reply.body.split(b" ")[2]))] = body

    def _begin(self, peer: Peer, key: str) -> KnownTransaction:
        transaction = KnownTransaction(key)
        self.transactions.append(transaction)
        self._ask(peer, f"transaction {key} s BEGIN 7\r\n".encode())
        for _ in range(self._random.randrange(1, 6)):
            topic, partition = self._random.choice(PLACES)
            body = self._body()
            head = f"put {topic} {partition} {len(body)} 0 -1 {key} 7\r\n".encode()
            if self._ask(peer, head + body).status == 200:
                transaction.bodies.setdefault((topic, partition), []).append(body)
        return transaction

    def _step(
        self, peer: Peer, transaction: KnownTransaction, kind: str, before: Known, after: Known
    ) -> bool:
        transaction.known = before
        reply = self._ask(peer, f"transaction {transaction.key} s {kind} 7\r\n".encode())
        if reply.status == 200:
            transaction.known = after
        return reply.status == 200

    def _local(self, peer: Peer) -> None:
        transaction = self._begin(peer, f"TX:{self.name}:{next(self._numbers)}")
        if self._random.random() < 0.8:
            self._step(peer, transaction, "COMMIT_ONE_PHASE", Known.COMMITTING, Known.COMMITTED)
        else:
            self._step(peer, transaction, "ROLLBACK", Known.OPEN, Known.ROLLED_BACK)

    def _xa(self, peer: Peer) -> None:
        transaction = self._begin(peer, f"XID:{next(self._numbers)}:aa:bb:{self.name}")
        if not self._step(peer, transaction, "PREPARE", Known.PREPARING, Known.PREPARED):
            return
        fate = self._random.random()
        if fate < 0.6:
            self._step(peer, transaction, "COMMIT_TWO_PHASE", Known.DECIDING, Known.COMMITTED)
        elif fate < 0.8:
            self._step(peer, transaction, "ROLLBACK", Known.ROLLING_BACK, Known.ROLLED_BACK)


class TransactionKillRun:
    """
    One broker and everything that its clients know, through many kills.

    :ivar committed: transactions that were found whole.
    :ivar listed: transactions that were found prepared, once each time.
    """

    def __init__(self, directory: str, seed: int, mode: int = 1) -> None:
        self.committed = 0
        self.listed = 0
        self.broker = BrokerProcess(
            directory,
            topics={
                topic: {"numPartitions": PARTITIONS, "unflushThreshold": threshold}
                for topic, threshold in TOPICS.items()
            },
            system={
                "maxSegmentSize": SEGMENT_BYTES,
                "flushTxLogAtCommit": mode,
                "checkpointInterval": 200,
            },
        )
        self._random = random.Random(seed)
        self._round = 0
        self._open: dict[str, KnownTransaction] = {}
        self._sent: set[bytes] = set()
        self._there: dict[Partition, list[bytes]] = {place: [] for place in PLACES}
        self._indices: dict[Partition, dict[bytes, int]] = {place: {} for place in PLACES}
        self._ends = dict.fromkeys(PLACES, 0)
        self._plain: dict[Place, bytes] = {}

    def kill_once(self) -> None:
        """Load the running broker, kill it, start it again and judge what it serves."""
        self._round += 1
        mixers = [self.make_mixer(number) for number in range(CLIENTS)]
        for mixer in mixers:
            mixer.start()
        time.sleep(self._random.uniform(0.05, LONGEST_LOAD))
        self.kill()
        for mixer in mixers:
            self._collect(mixer)
        if self._random.random() < EARLY_KILLS:
            self.broker.start(wait=False)
            time.sleep(self._random.uniform(0.0, 1.0))
            self.kill()
        self.broker.start()
        with Peer(self.broker.port) as peer:
            self._judge(peer)
            self._resolve(peer)

    def make_mixer(self, number: int) -> Mixer:
        """One client of a round."""
        return Mixer(self.broker.port, f"{self._round}.{number}", self._random.getrandbits(32))

    def kill(self) -> None:
        """End the broker, at any moment."""
        self.broker.kill()

    def _collect(self, mixer: Mixer) -> None:
        mixer.join()
        check(not mixer.refused, f"refused: {mixer.refused[:3]}")
        self._sent |= mixer.sent
        self._open.update((each.key, each) for each in mixer.transactions)
        check(not self._plain.keys() & mixer.plain.keys(), "one place for two")
        self._plain |= mixer.plain

    def _judge(self, peer: Peer) -> None:
        for place in PLACES:
            self._read(peer, place)
        check(not self._plain, f"lost: {list(self._plain)[:5]}")
        listed = peer.ask(b"transaction null s RECOVER 7\r\n").body.decode().split("\r\n")
        names = set(filter(None, listed))
        check(len(listed) == len(set(listed)), f"twice: {listed}")
        check(names <= self._open.keys(), f"unknown: {names - self._open.keys()}")
        for transaction in self._open.values():
            stored = {self._stands(*each) for each in transaction.bodies.items()}
            transaction.judge(stored, transaction.key in names)
        self.committed += sum(t.known is Known.COMMITTED for t in self._open.values())
        self._open = {key: t for key, t in self._open.items() if t.known is Known.PREPARED}
        self.listed += len(self._open)

    def _stands(self, place: object, bodies: list[bytes]) -> bool:
        assert isinstance(place, tuple)
        return block_stands(self._there[place], self._indices[place], bodies)

    def _read(self, peer: Peer, place: Partition) -> None:
        """Everything that is new; what was found once stays."""
        there, indices = self._there[place], self._indices[place]
        for offset, body in self.messages(peer, Place(*place, self._ends[place])):
            at = Place(*place, offset)
            check(body in self._sent, f"never sent, or twice: {body[:40]!r} at {at}")
            self._sent.discard(body)
            promised = self._plain.pop(at, body)
            check(promised == body, f"promised {promised[:40]!r} at {at}, there is {body[:40]!r}")
            indices[body] = len(there)
            there.append(body)
            self._ends[place] = offset + 20 + len(body)

    def messages(self, peer: Peer, start: Place) -> Iterator[tuple[int, bytes]]:
        """Offset and body of everything that is served from ``start`` on."""
        offset = start.offset
        for _, body in records(served_log(peer, *start), start):
            yield offset, body
            offset += 20 + len(body)

    def _resolve(self, peer: Peer) -> None:
        """Some of what is prepared lives through the next kill."""
        for key, transaction in self._open.items():
            fate = self._random.choice(("COMMIT_TWO_PHASE", "ROLLBACK", None))
            if fate is None:
                continue
            reply = peer.ask(f"transaction {key} s {fate} 7\r\n".encode())
            check(reply.status == 200, f"{key}: {reply}")
            committed = fate == "COMMIT_TWO_PHASE"
            transaction.known = Known.COMMITTED if committed else Known.ROLLED_BACK


def main() -> None:
    """Kill as often as asked for, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=int(os.environ.get("KILLS", "500")))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="metamorphosis-kills-")
    print(f"seed {options.seed}, data in {directory}", flush=True)
    run = TransactionKillRun(directory, options.seed)
    try:
        run.broker.start()
        for number in range(1, options.kills + 1):
            run.kill_once()
            if number % 10 == 0:
                print(f"{number}: {run.committed} committed, {run.listed} listed", flush=True)
    finally:
        run.broker.kill()
    print(f"{options.kills} kills, each transaction whole, prepared or gone")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
