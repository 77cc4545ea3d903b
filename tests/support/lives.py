"""
A broker that runs several times on one disk, and the knowledge of its clients.

``Lives.judge`` compares the replies with the messages of the next run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from metamorphosis.message import HEADER, checksum
from metamorphosis.store.messagestore import MessageStore
from tests.support.crashdisk import CrashDisk, Killed, Platters
from tests.support.knowledge import Known, KnownTransaction, block_stands
from tests.support.serving import Client
from tests.support.transactional import TransactionalBroker

Place = tuple[int, int]  # partition, offset


class Lives:
    """
    See the module.

    :param directory: absolute.
    :param threshold: ``unflushThreshold`` of the topic; beyond 0 plain puts may be lost with the
        power.
    :param mode: ``flushTxLogAtCommit``. In modes 0 and 2 nothing is promised of the transactions in
        which something happened between the last force and a power cut.
    :ivar settled: what was known of each transaction at the last force.
    :ivar uncertain: those of which nothing is promised any more.
    """

    def __init__(self, directory: str, seed: int = 0, threshold: int = 0, mode: int = 1) -> None:
        self.directory = directory
        self.threshold = threshold
        self.mode = mode
        self.platters = Platters(directory, random.Random(seed))
        self.transactions: dict[str, KnownTransaction] = {}
        self.plain: dict[Place, bytes] = {}
        self.sent: set[bytes] = set()
        self.disk = CrashDisk(self.platters)
        self.broker: TransactionalBroker
        self.client: Client
        self.number = 0
        self.settled: dict[str, Known] = {}
        self.uncertain: set[str] = set()
        self.power_was_cut = False
        self.silent = False  # a request was not answered, so that nothing more is sent

    # Lives

    def start(
        self,
        die_at: int = 0,
        torn: bool = False,
        fail_at: int = 0,
        fill_at: int = 0,
        honest: bool = True,
    ) -> bool:
        """Begin a run; returns whether it served."""
        self.disk = CrashDisk(self.platters, die_at, torn, fail_at, fill_at, honest)
        try:
            self.broker = TransactionalBroker(
                self.directory,
                self.mode,
                self.disk,
                disk=self.disk,
                max_segment_size=400,
                unflush_threshold=self.threshold,
                unflush_interval=10**9,
            )
        except BaseException:
            if not self.disk.dead:
                raise
            return False
        self.client = self.broker.client()
        self.silent = self.disk.dead
        if self.disk.dead:
            return False
        self.settle()  # a recovery forces what it finds
        return True

    def settle(self) -> None:
        """Note that all answered steps are on the disk."""
        self.settled = {key: each.known for key, each in self.transactions.items()}

    def end(self, power: bool = False) -> None:
        """End the process, with a power cut of its machine if requested."""
        self.disk.end()
        if power:
            self.power_was_cut = True
            self.platters.cut_power()
            if self.mode != 1:
                now = {key: each.known for key, each in self.transactions.items()}
                self.uncertain.update(dict(now.items() - self.settled.items()))

    # Steps; what comes back after the death was not sent

    def ask(self, data: bytes) -> tuple[int, bytes] | None:
        """Status and text, None without an answer."""
        try:
            answer = self.client.send(data)
            for _ in range(20):
                if answer or self.disk.dead:
                    break
                self.broker.clock.advance(0.1)
                answer = self.client.received()
        except Killed:
            answer = b""
        if self.disk.dead or not answer:
            self.silent = True
            return None
        head, _, text = answer.partition(b"\r\n")
        return int(head.split(b" ")[1]), text

    def begin(self, key: str) -> None:
        """A transaction."""
        self.transactions[key] = KnownTransaction(key)
        self.ask(f"transaction {key} s BEGIN 7\r\n".encode())

    def put(self, key: str | None, partition: int, size: int = 8) -> None:
        """A message in a transaction, or a plain one."""
        if self.silent:
            return
        self.number += 1
        body = b"%d." % self.number
        body = body.ljust(size, b"x")
        self.sent.add(body)
        word = f" {key}" if key else ""
        head = f"put test {partition} {len(body)} 0 -1{word} 7\r\n".encode()
        reply = self.ask(head + body)
        if reply is None or reply[0] != 200:
            return
        if key:
            self.transactions[key].bodies.setdefault(partition, []).append(body)
        else:
            place = (partition, int(reply[1].split(b" ")[2]))
            lossy = self.power_was_cut and self.threshold
            assert lossy or place not in self.plain, f"two at {place}"
            self.plain[place] = body

    def step(self, key: str, kind: str, before: Known, after: Known) -> None:
        """A step that changes the clients' knowledge; a dead broker gets none."""
        if self.silent:
            return
        transaction = self.transactions[key]
        was, transaction.known = transaction.known, before
        reply = self.ask(f"transaction {key} s {kind} 7\r\n".encode())
        if reply is not None:
            transaction.known = after if reply[0] == 200 else was

    def prepare(self, key: str) -> None:
        """An XA transaction."""
        self.step(key, "PREPARE", Known.PREPARING, Known.PREPARED)

    def commit(self, key: str) -> None:
        """In the phases that are left."""
        if self.transactions[key].known is Known.PREPARED:
            self.step(key, "COMMIT_TWO_PHASE", Known.DECIDING, Known.COMMITTED)
        else:
            self.step(key, "COMMIT_ONE_PHASE", Known.COMMITTING, Known.COMMITTED)

    def roll_back(self, key: str) -> None:
        """Roll back any transaction."""
        prepared = self.transactions[key].known is Known.PREPARED
        before = Known.ROLLING_BACK if prepared else Known.OPEN
        self.step(key, "ROLLBACK", before, Known.ROLLED_BACK)

    def pause(self) -> None:
        """Let time pass until a force of every second has run."""
        self.guarded(lambda: self.broker.clock.advance(1.1))
        if self.mode == 2 and not self.disk.dead and not self.broker.broken:
            self.settle()

    def checkpoint(self) -> None:
        """Run the periodic checkpoint."""
        self.guarded(self.broker.service.checkpoint)

    def stop(self) -> None:
        """An orderly stop, during which the process may die."""
        self.guarded(self.broker.stop)
        self.disk.end()

    def guarded(self, call: Callable[[], Any]) -> None:
        """Make a call during which the process may die."""
        try:
            call()
        except Killed:
            pass

    # Judging

    def stores(self) -> Iterator[MessageStore]:
        """The existing partitions."""
        for partition in (0, 1):
            store = self.broker.stores.get("test", partition)
            if store is not None:
                yield store

    def log(self) -> dict[int, list[tuple[int, bytes]]]:
        """Offset and body of all readable messages, by partition."""
        for store in self.stores():
            store.flush()
        self.broker.clock.pump([0.1] * 20)
        return {store.partition: list(self._records(store)) for store in self.stores()}

    def _records(self, store: MessageStore) -> Iterator[tuple[int, bytes]]:
        for segment in store.segments:
            with open(segment.path, "rb") as file:
                data = file.read()
            position = 0
            while position + HEADER.size <= len(data):
                length, crc, message_id, _ = HEADER.unpack_from(data, position)
                body = data[position + HEADER.size :][: max(length, 0)]
                if len(body) != length or checksum(body) != crc:
                    assert self.power_was_cut, f"damage at {position} of {segment.path}"
                    position += 1  # consumers pass over what lost its pages
                    continue
                if message_id and length:  # zeros are pages that came too late
                    yield segment.start + position, body
                position += HEADER.size + length

    def listed(self) -> list[str]:
        """The reply to RECOVER."""
        reply = self.ask(b"transaction null s RECOVER 7\r\n")
        assert reply is not None and reply[0] == 200, reply
        return reply[1].decode().split("\r\n") if reply[1] else []

    def judge(self) -> None:
        """
        :raises AssertionError: a promise was not kept.
        """
        listed = self.listed()
        assert len(listed) == len(set(listed)), f"twice: {listed}"
        log = self.log()
        bodies = [body for records in log.values() for _, body in records]
        for key in self.uncertain:
            for uncertain in self.transactions[key].bodies.values():
                bodies = [body for body in bodies if body not in uncertain]
        assert len(bodies) == len(set(bodies)), f"twice: {sorted(bodies)}"
        assert self.sent.issuperset(bodies), f"never sent: {set(bodies) - self.sent}"
        if not (self.power_was_cut and self.threshold):
            for (partition, offset), body in self.plain.items():
                found = dict(log.get(partition, ())).get(offset)
                assert found == body, f"{body!r} at {partition}-{offset}, there is {found!r}"
        for transaction in self.transactions.values():
            if transaction.key not in self.uncertain:
                self._judge(transaction, log, transaction.key in listed)
        assert set(listed) <= set(self.transactions), listed

    def _judge(
        self, transaction: KnownTransaction, log: dict[int, list[tuple[int, bytes]]], listed: bool
    ) -> None:
        stored = set()
        for partition, bodies in transaction.bodies.items():
            there = [body for _, body in log.get(partition, ())]
            places = {body: index for index, body in enumerate(there)}
            stored.add(block_stands(there, places, bodies))
        transaction.judge(stored, listed)

    def commit_all(self) -> None:
        """
        Commit every transaction that was not ended.

        :raises AssertionError: one cannot be committed.
        """
        for key, transaction in self.transactions.items():
            if transaction.known in (Known.OPEN, Known.PREPARED):
                self.commit(key)
                assert transaction.known is Known.COMMITTED, f"cannot be committed: {transaction}"

    def resolve(self) -> None:
        """Commit all prepared transactions, and continue to use the broker."""
        for key in self.listed():
            self.commit(key)
        self.put(None, 0)
        self.put(None, 1)
