"""
Random steps of several connections against a model, with lost connections, timeouts, decisions by
hand, full disks, kills and orderly stops. Everything follows from the seed.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable

from twisted.internet.defer import Deferred

from metamorphosis.transactions import recording, redolog
from metamorphosis.transactions.administration import TransactionAdministration
from tests.support.serving import Client
from tests.support.transactional import TransactionalBroker
from tests.support.transactionmodel import Model, Stage
from tests.unit.transactions.test_redolog import BreakingDisk
from tests.unit.transactions.test_steps import StepsTestCase

STEPS = int(os.environ.get("MODEL_STEPS", "12000"))
SEED = 11
CLIENTS = 3

XIDS = [f"XID:{n}:aa:bb:{'app' if n % 2 else 'other'}" for n in range(6)]
KEYS = [*XIDS, *(f"TX:s:{n}" for n in range(4))]
KINDS = ("BEGIN", "BEGIN", "PREPARE", "COMMIT_ONE_PHASE", "COMMIT_TWO_PHASE", "ROLLBACK", "FORGET")
CODES = {"commit": 7, "roll_back": 6, "complete": 8}


class ModelTests(StepsTestCase):
    """See the module."""

    def setUp(self) -> None:
        self.patch(redolog, "FILE_LIMIT", 2000)
        self.patch(recording, "HELD_BYTES", 2000)  # two or three messages
        self.directory = os.path.abspath(self.mktemp())
        self.random = random.Random(SEED)
        self.model = Model()
        self.number = 0
        self.refused = 0
        self.full = False
        self.start()

    def start(self) -> None:
        """A broker on what is there, and its clients."""
        self.disk = BreakingDisk()
        self.broker = TransactionalBroker(
            self.directory, journal_disk=self.disk, max_segment_size=3000
        )
        self.clients: list[Client] = [self.broker.client() for _ in range(CLIENTS)]
        self.administration = TransactionAdministration(self.broker.service, self.broker.clock)

    def test_random(self) -> None:
        """Every reply and every log is that of the model."""
        actions: dict[Callable[[], None], int] = {
            self.any_step: 100,
            self.any_put: 110,
            self.plain_put: 15,
            self.recover: 10,
            self.decide: 6,
            self.lose: 3,
            self.advance: 8,
            self.restart: 2,
            self.compare: 4,
            self.fill_disk: 4,
        }
        chosen = self.random.choices(list(actions), list(actions.values()), k=STEPS)
        for number, action in enumerate(chosen):
            try:
                action()
            except Exception as error:
                raise AssertionError(f"step {number}, {action.__name__}: {error!r}") from error
        self.compare()
        self.restart()
        self.assertGreater(self.refused, STEPS / 1000)
        self.assertGreater(len(self.model.logs[0]), STEPS / 50)

    def any_client(self) -> int:
        """The number of one."""
        return self.random.randrange(CLIENTS)

    def breaking(self) -> bool:
        """Whether the next write of the journal fails."""
        breaks = self.random.random() < (0.6 if self.full else 0.05)
        self.disk.failing["write"] = int(breaks)
        self.disk.error = errno.ENOSPC if self.full else errno.EIO
        self.disk.shortest = self.random.choice((0, 7))
        return breaks

    def was_refused(self, breaks: bool, reply: tuple[int, str]) -> bool:
        """Whether the disk was to blame; it works again from now on."""
        hit = breaks and not self.disk.failing["write"]
        self.disk.failing["write"] = 0
        if hit:
            self.assertEqual(500, reply[0], reply)
            self.refused += 1
        return hit

    def fill_disk(self) -> None:
        """For some steps there is room for hardly anything, or there is room again."""
        self.full = not self.full and self.random.random() < 0.5

    def any_step(self) -> None:
        """A command of any kind, with any key, in any state."""
        client, key = self.any_client(), self.random.choice(KEYS)
        kind, timeout = self.random.choice(KINDS), self.random.choice((0, 0, 3, 5))
        expected = self.model.expected(kind, key, client)
        words: tuple[object, ...] = (timeout,) if kind == "BEGIN" and timeout else ()
        breaks = self.breaking()
        reply = self.step(key, kind, *words, client=self.clients[client])
        if self.was_refused(breaks, reply):
            return
        self.check(reply, expected, (kind, key))
        if expected[0] == 200:
            self.model.carry_out(kind, key, client, timeout)

    def check(self, reply: tuple[int, str], expected: tuple[int, str], what: object) -> None:
        """Status and text."""
        self.assertEqual(expected[0], reply[0], (what, reply))
        self.assertIn(expected[1], reply[1], what)

    def body(self) -> bytes:
        """One that differs from all others."""
        self.number += 1
        return b"%d." % self.number + b"x" * self.random.choice((0, 1, 50))

    def any_put(self) -> None:
        """Into a transaction, which may be none."""
        client, key, body = self.any_client(), self.random.choice(KEYS), self.body()
        partition = self.random.choice((0, 0, 0, 1, 1, 1, -1, 9))
        expected = self.model.put(key, client, partition)
        breaks = self.breaking()
        reply = self.put(key, body, partition=partition, client=self.clients[client])
        if self.was_refused(breaks, reply):
            return
        self.check(reply, expected, (key, partition))
        if expected[0] == 200:
            self.model.open[self.model.slot(key, client)].messages.append((partition, body))

    def plain_put(self) -> None:
        """Between the blocks."""
        partition, body = self.random.randrange(2), self.body()
        head = f"put test {partition} {len(body)} 0 -1 7\r\n".encode()
        self.assertEqual(200, self.reply(self.clients[0].send(head + body))[0])
        self.model.logs[partition].append(body)

    def recover(self) -> None:
        """For all or for some."""
        qualifier = self.random.choice((None, "app", "other", "nobody"))
        words = () if qualifier is None else (qualifier,)
        reply = self.step("null", "RECOVER", *words, client=self.clients[self.any_client()])
        found = sorted(reply[1].split("\r\n")) if reply[1] else []
        self.assertEqual(self.model.prepared(qualifier), found)

    def decide(self) -> None:
        """An administrator decides a prepared one."""
        key = self.random.choice(XIDS)
        found = self.model.open.get((key, -1))
        if found is None or found.stage is not Stage.PREPARED or key in self.model.decided:
            return
        how = self.random.choice(list(CODES))
        done: Deferred[object] = Deferred.fromCoroutine(getattr(self.administration, how)(key))
        self.broker.clock.advance(0)
        self.successResultOf(done)
        self.model.end((key, -1), how == "commit")
        self.model.decided[key] = CODES[how]

    def lose(self) -> None:
        """A connection goes, another comes."""
        client = self.any_client()
        self.breaking()
        self.clients[client].connection.connectionLost()
        self.broker.clock.advance(0)
        self.disk.failing["write"] = 0
        self.model.lose(client)
        self.clients[client] = self.broker.client()

    def advance(self) -> None:
        """Even seconds; timeouts are odd."""
        seconds = self.random.choice((2, 4, 60))
        self.breaking()
        self.broker.clock.advance(seconds)
        self.broker.clock.advance(0)
        self.disk.failing["write"] = 0
        self.model.advance(seconds)

    def restart(self) -> None:
        """In order, or by a kill at any moment between two turns."""
        if self.random.random() < 0.5:
            self.broker.stop()
        self.start()
        self.model.restart()
        self.compare()
        self.recover()

    def compare(self) -> None:
        """All messages."""
        for partition, expected in self.model.logs.items():
            store = self.broker.stores.get("test", partition)
            found = b"" if store is None else b"".join(map(_content, store.segments))
            self.assertEqual(expected, _bodies(found), partition)


def _content(segment: object) -> bytes:
    with open(segment.path, "rb") as file:
        return file.read()


def _bodies(log: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(log):
        end = at + 20 + int.from_bytes(log[at : at + 4], "big")
        found.append(log[at + 20 : end])
        at = end
    return found
