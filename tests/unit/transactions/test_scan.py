"""The hot path of transactions against its oracle: the same commands the long way round."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable
from itertools import product

from metamorphosis.broker import connection
from metamorphosis.broker.hotpath.contract import STEP_VECTORS
from metamorphosis.broker.hotpath.transactional import TransactionScan, take_run
from metamorphosis.broker.replies import ReplyGroup
from metamorphosis.message import checksum
from metamorphosis.transactions import recording, redolog
from tests.support.transactional import TransactionalBroker
from tests.unit.broker.test_hotpath import log
from tests.unit.transactions.test_redolog import BreakingDisk
from tests.unit.transactions.test_steps import LOCAL, XA, StepsTestCase

SEED = 20261130
CLIENTS = 3

KEYS = (b"TX:s:1", b"TX:s:1", b"TX:\xc3\xa4:-2", b"TX::0", b"XID:1:aa:bb:q", b"XID:-7:::q")
ODD = (
    b"TX:s:01",
    b"TX:s:1:",
    b"TX:s:+1",
    b"TX:\xff:1",
    b"TX:s",
    b"XID:1:AA:bb:q",
    b"null",
    b"XID:1",
)
TYPES = (b"BEGIN", b"BEGIN", b"BEGIN", b"PREPARE", b"COMMIT_ONE_PHASE", b"COMMIT_ONE_PHASE")
RARE = (b"COMMIT_TWO_PHASE", b"ROLLBACK", b"FORGET", b"END", b"RECOVER", b"NOTHING", b"begin")


def put(rng: random.Random, key: bytes) -> bytes:
    """A put in a transaction: seven times of eight as the Java client writes it."""
    body = rng.randbytes(rng.choice((0, 1, 5, 100, 300)))
    topic, partition, flag = b"test", rng.choice((b"0", b"0", b"0", b"1")), b"0"
    given, length = b"%d" % checksum(body), b"%d" % len(body)
    opaque = b"%d" % rng.choice((0, 7, -1, -2147483648, 2147483647))
    odd = rng.randrange(8 * 8)
    if odd == 0:
        given = rng.choice((b"-1", b"5", b"007", b"+1", b"-0", b"0", b"4294967295"))
    elif odd == 1:
        flag = rng.choice((b"1", b"-1", b"00", b"-0", b"+1", b"2147483647", b"-2147483648"))
    elif odd == 2:
        length = b"0" + length
    elif odd == 3:
        opaque = rng.choice((b"+7", b"007", b"-0"))
    elif odd == 4:
        partition = rng.choice((b"00", b"+1", b"-1", b"2", b"900"))
    elif odd == 5:
        topic = rng.choice((b"nosuch", b"wild7", b"t\xc3\xa4t"))
    elif odd == 6:
        return b"put %b %b %b %b %b %b\r\n%b" % (topic, partition, length, flag, key, opaque, body)
    elif odd == 7:
        key = rng.choice(ODD)
    words = (topic, partition, length, flag, given, key, opaque)
    return b"put %b %b %b %b %b %b %b\r\n%b" % (*words, body)


def step(rng: random.Random, key: bytes) -> bytes:
    """A step of a transaction."""
    kind = rng.choice(TYPES) if rng.randrange(8) else rng.choice(RARE)
    more = rng.choice((b"", b"", b"", b"5 ", b"0 ", b"-5 ", b"q ", b"7 q "))
    return b"transaction %b s %b %b%d\r\n" % (key, kind, more, rng.randrange(-2, 2))


def commands(rng: random.Random) -> bytes:
    """Some commands of one client."""
    key = rng.choice(KEYS) if rng.randrange(20) else rng.choice(ODD[:2])
    kind = rng.randrange(10)
    if kind < 5:
        return b"".join(put(rng, key) for _ in range(rng.choice((1, 2, 10))))
    if kind < 8:
        return step(rng, key)
    if kind == 8:
        return b"put test 0 5 0 -1 7\r\nhello"
    return b"".join(put(rng, rng.choice(KEYS)) for _ in range(4))


def in_python(broker: TransactionalBroker) -> None:
    """Let it use the reference although there may be a module in C."""
    steps = broker.responders.routes.steps
    assert isinstance(steps, TransactionScan)
    steps.take_run = take_run


class SameTests(StepsTestCase):
    """What is taken is answered, stored and journaled as the responders would."""

    def start(self, slow: bool, pure: bool = False) -> TransactionalBroker:
        """A broker with little memory; with the hot path that is used, in Python, or none."""
        topics: dict[str, dict[str, object]] = {
            "test": {"num_partitions": 2},
            "wild*": {},
            "t\xe4t": {},
        }
        self.disks.append(BreakingDisk())
        broker = TransactionalBroker(
            self.mktemp(), journal_disk=self.disks[-1], max_bytes=25_000, slow=slow, topics=topics
        )
        if pure:
            in_python(broker)
        return broker

    def journal(self, broker: TransactionalBroker) -> list[tuple[str, bytes]]:
        """Names and contents of the redo files."""
        found = []
        for file in broker.journal.files:
            with open(file.path, "rb") as opened:
                found.append((os.path.basename(file.path), opened.read()))
        return found

    def known(self, broker: TransactionalBroker) -> list[object]:
        """What can be seen of the open transactions."""
        return [
            (each.key, each.state, each.bytes, each.records, each.partitions, list(each.blocks()))
            for each in broker.transactions.open
        ]

    def same_of_all(self, values: Iterable[object], what: str) -> None:
        """Every broker has the same."""
        first, *others = values
        for other in others:
            self.assertEqual(first, other, what)

    def test_same_as_the_long_way(self) -> None:
        """
        Any commands of several clients, cut anywhere, on a disk that sometimes is full: the same
        replies, redo files, logs and memory with and without the hot path.
        """
        self.patch(connection, "TURN_COMMANDS", 1 << 30)  # without it all are commands
        self.patch(redolog, "FILE_LIMIT", 3000)
        self.patch(recording, "HELD_BYTES", 2500)
        self.replies = b""
        for seed in range(SEED, SEED + 12):
            self.disks: list[BreakingDisk] = []
            self.same(random.Random(seed), f"seed {seed}")
        for text in (b"result 200", b"cannot be journaled", b"max-transaction-bytes"):
            self.assertGreater(self.replies.count(text), 20, text)

    def same(self, rng: random.Random, what: str) -> None:
        """One life of two brokers."""
        brokers = (self.start(False), self.start(True), self.start(False, pure=True))
        clients = [[broker.client() for _ in range(CLIENTS)] for broker in brokers]
        left = [b""] * CLIENTS
        for _ in range(150):
            number = rng.randrange(CLIENTS)
            data = left[number] + commands(rng)
            cut = rng.choice((len(data), len(data), rng.randrange(len(data) + 1)))
            left[number] = data[cut:]
            full = rng.randrange(12) == 0
            for disk in self.disks:
                disk.failing["write"] = int(full)
            replies = [each[number].send(data[:cut]) for each in clients]
            self.same_of_all(replies, what)
            self.same_of_all(map(self.journal, brokers), what)
            self.same_of_all(map(self.known, brokers), what)
            self.same_of_all((each.transactions.open.bytes for each in brokers), what)
            self.same_of_all((each[number].closed for each in clients), what)
            if clients[0][number].closed:  # the peer did what no client does
                left[number] = b""
                for broker, each in zip(brokers, clients):
                    each[number].connection.connectionLost()
                    each[number] = broker.client()
            self.replies += replies[0]
            seconds = rng.choice((0, 0, 0, 1, 3))
            for broker in brokers:
                broker.clock.advance(seconds)
        self.same_of_all(map(log, brokers), what)
        self.same_of_all((broker.ids.next_id for broker in brokers), what)
        self.assertGreater(len(brokers[0].responders.routes.places), 1, what)


class PutsTests(StepsTestCase):
    """Single properties."""

    settings = {"max_bytes": 1 << 20}

    def one(self, key: str = LOCAL, body: bytes = b"hello") -> bytes:
        """An ordinary put."""
        return b"put test 0 %d 0 -1 %b 7\r\n%b" % (len(body), key.encode(), body)

    def taken(self, data: bytes) -> tuple[int, ReplyGroup]:
        """What the hot path does with it, and nothing else."""
        steps = self.broker.responders.routes.steps
        assert steps is not None
        queue = self.client.connection.session.replies
        group = queue.begin()
        past = steps(data, data, 0, len(data), self.client.connection.session, group)
        queue.end(len(data))
        return past, group

    def begun(self) -> None:
        """What ``STEP_VECTORS`` expect."""
        self.broker = TransactionalBroker(self.mktemp(), **self.settings)
        self.client = self.broker.client()
        for key in ("TX:s:1", "XID:1:aa:bb:q", "XID:2:aa:bb:q"):
            self.step(key, "BEGIN")
        self.put("XID:2:aa:bb:q")
        self.step("XID:2:aa:bb:q", "PREPARE")

    def test_vectors(self) -> None:
        """What is ordinary is taken and answered; anything else is left, and leaves no trace."""
        for vector, pure in product(STEP_VECTORS, (False, True)):
            self.begun()
            if pure:
                in_python(self.broker)
            before = [(each.state, each.bytes) for each in self.broker.transactions.open]
            next_id, redo = self.broker.ids.next_id, self.broker.redo()
            past, group = self.taken(vector.request)
            self.assertEqual(len(vector.request) if vector.ordinary else 0, past, vector)
            if vector.reply:
                (reply,) = group.replies
                assert isinstance(reply, bytes)
                self.assertTrue(reply.startswith(b"result 200 "), vector)
                self.assertEqual(vector.reply, reply.partition(b"\r\n")[0].split(b" ")[-1])
            elif not vector.ordinary:
                self.broker.journal.commit()
                after = [(each.state, each.bytes) for each in self.broker.transactions.open]
                self.assertEqual(
                    (before, next_id, redo, []),
                    (after, self.broker.ids.next_id, self.broker.redo(), group.replies),
                    vector,
                )

    def test_a_run(self) -> None:
        """Puts of one transaction that follow each other are one run and one write; another
        transaction ends it."""
        self.hold()
        for key in (LOCAL, XA):
            self.step(key, "BEGIN")
            self.put(key)
        data = self.one() * 3 + self.one(XA) + self.one()
        past, group = self.taken(data)
        self.assertEqual(3 * len(self.one()), past)
        ((awaited, start, record, _),) = group.runs
        self.assertEqual((0, 0, 3), (start, record, len(group.replies)))
        writes = self.broker.journal.writes
        self.broker.clock.advance(0)
        self.broker.journal.commit()
        self.assertEqual(writes + 1, self.broker.journal.writes)
        assert awaited is not None
        self.assertEqual("STORED", awaited.state.name)

    def test_held(self) -> None:
        """The replies of a run whose records are held wait for nothing, whatever those before it
        wait for."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        plain = b"put test 1 5 0 7\r\nplain"
        self.client.send(plain)
        writes = self.broker.journal.writes
        past, group = self.taken(self.one() * 3)
        self.assertEqual((3 * len(self.one()), 3, []), (past, len(group.replies), group.runs))
        self.client.connection.session.replies.clear()
        self.assertEqual(4, self.client.send(plain + self.one() * 3).count(b"result 200 "))
        self.assertEqual(writes, self.broker.journal.writes)

    def test_every_split(self) -> None:
        """A put cut in two at any byte is taken once and answered once."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        one = self.one()
        for cut in range(1, len(one)):
            self.assertEqual(b"", self.client.send(one[:cut]))
            self.assertRegex(self.client.send(one[cut:]), rb"^result 200 \d+ 7\r\n\d+ 0 -1$")
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"hello"] * len(one), self.messages())

    def test_big_chunk(self) -> None:
        """Of a chunk that is not copied nothing is kept: the receive buffer is used again."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        bodies = [b"%d" % number * 1000 for number in range(9)]
        chunk = b"".join(self.one(body=body) for body in bodies) * 4
        self.client.send(chunk)
        self.client.send(b"version 1\r\n" * 5000)
        self.assertOk(self.step(LOCAL, "COMMIT_ONE_PHASE"))
        self.assertEqual([b"hello", *bodies * 4], self.messages())

    def test_ids_carry(self) -> None:
        """More than 4096 messages of one millisecond have ids that differ, on either way."""
        for pure in (False, True):
            self.broker = TransactionalBroker(self.mktemp(), max_bytes=1 << 24)
            self.client = self.broker.client()
            if pure:
                in_python(self.broker)
            self.step(LOCAL, "BEGIN")
            self.put(LOCAL)
            ids = re.findall(rb"\r\n(\d+) 0 -1", self.client.send(self.one() * 9000))
            self.assertEqual(9000, len(set(ids)))
            self.assertEqual(sorted(ids, key=int), ids)
            self.assertEqual({0}, {int(each) >> 12 & 0x3FF for each in ids})

    def test_closed_partition(self) -> None:
        """One that the operator closes refuses the very next put."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.broker.close_partitions("test", (0, 0))
        self.assertEqual(403, self.put(LOCAL)[0])
        self.broker.close_partitions("test")
        self.assertEqual(200, self.put(LOCAL)[0])

    def test_no_ids(self) -> None:
        """While no id may be taken a put is refused, on either way."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.broker.ids.ready = False
        self.assertEqual(0, self.taken(self.one())[0])
        self.assertEqual((500, "The last message id could not be written."), self.put(LOCAL))
        self.broker.ids.ready = True
        self.assertEqual(200, self.put(LOCAL)[0])

    def test_stopping(self) -> None:
        """A broker that stops refuses puts and begins with 503."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.broker.responders.refuse_work()
        self.assertEqual(503, self.put(LOCAL)[0])
        self.assertEqual(503, self.step("TX:s:9", "BEGIN")[0])

    def test_journal_takes_nothing(self) -> None:
        """A transaction whose first record has no file is left as it was begun."""
        self.step(LOCAL, "BEGIN")
        self.put(LOCAL)
        self.step(LOCAL, "ROLLBACK")
        self.step(LOCAL, "BEGIN")
        self.broker.journal._forces.broken = OSError("I/O")
        past, group = self.taken(self.one())
        self.assertEqual((0, []), (past, group.replies))
        self.assertIn("cannot be journaled", self.put(LOCAL)[1])
        (transaction,) = self.broker.transactions.open
        self.assertEqual(([], None), (transaction.records, transaction.file))

    def test_turns(self) -> None:
        """Many short runs and steps of one client do not hold up the others for long."""
        self.patch(connection, "TURN_COMMANDS", 10)
        other = self.broker.client()
        for key in (LOCAL, XA):
            self.step(key, "BEGIN")
            self.put(key)
        ends: list[int] = []
        pair = self.one() + self.one(XA)
        steps = self.broker.responders.routes.steps
        assert steps is not None

        def counted(*arguments: object) -> int:
            ends[-1] += 1
            return steps(*arguments)  # type: ignore[arg-type, return-value]

        self.broker.responders.routes.steps = counted  # type: ignore[assignment]
        room = self.client.connection.inbox.room()
        data = pair * 30
        room[: len(data)] = data
        ends.append(0)
        self.assertFalse(self.client.connection.received(len(data)))
        self.assertEqual([10], ends)
        self.broker.responders.routes.steps = steps
        self.broker.clock.pump([0] * 50)
        self.assertEqual(60, self.client.received().count(b"result 200 "))
        self.assertTrue(other.send(b"version 1\r\n").startswith(b"result 200 "))
