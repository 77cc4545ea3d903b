"""
Transactions of the original: its client on our broker, and directories that the two brokers serve
in turn.
"""

from __future__ import annotations

import base64
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from compat.clientcase import name, shared_broker, wait_until
from compat.exchange import Connection, Reply
from tests.support import peers, zookeeper

TOPIC = "t"
HEADER = struct.Struct(">iiqi")


def bodies(port: int, partition: int = 0) -> list[bytes]:
    """Every message that a reader finds in the partition."""
    connection, log = Connection(port), b""
    while True:
        request = f"get {TOPIC} g {partition} {len(log)} 1000000 1\r\n"
        reply = connection.ask(request.encode())
        if reply.status == 404:
            break
        assert reply.status == 0, reply
        log += reply.body
    connection.close()
    found = []
    while log:
        end = HEADER.size + HEADER.unpack_from(log)[0]
        found.append(log[HEADER.size : end])
        log = log[end:]
    return found


class JavaClientTests(SynchronousTestCase):
    """The Java client on our broker."""

    skip = peers.missing()

    def setUp(self) -> None:
        """A broker of all tests, and a factory of this one."""
        self.broker = shared_broker(peers.OurBroker, "java-transactions", {TOPIC: {}})
        self.driver = peers.driver()
        self.factory = self.open(self.driver)
        self.marker = name("m")

    def open(self, driver: peers.JavaDriver) -> str:
        """Producers of both kinds."""
        made = name("factory")
        driver.call(
            "open-transactions",
            factory=made,
            zookeeper=self.broker.zookeeper.connect_string,
            root=self.broker.root,
            topic=TOPIC,
            qualifier=made,
        )
        self.addCleanup(driver.call, "close-transactions", factory=made)
        return made

    def messages(self, count: int) -> list[bytes]:
        """Bodies of this test only."""
        return [f"{self.marker}/{number}".encode() for number in range(count)]

    def found(self) -> list[bytes]:
        """The bodies of this test in the log."""
        return [body for body in bodies(self.broker.port) if body.startswith(self.marker.encode())]

    def run_local(self, sent: list[bytes], end: str, **more: Any) -> peers.Call:
        """A local transaction."""
        given = [base64.b64encode(body).decode() for body in sent]
        return self.driver.call(
            "local-transaction",
            factory=self.factory,
            topic=TOPIC,
            messages=given,
            end=end,
            **more,
        )

    def run_xa(self, xid: str, *steps: str, sent: Sequence[bytes] = (), **more: Any) -> peers.Call:
        """Steps of an XA transaction."""
        given = [base64.b64encode(body).decode() for body in sent]
        return self.driver.call(
            "xa-transaction",
            factory=self.factory,
            topic=TOPIC,
            xid=xid,
            steps=steps,
            messages=given,
            **more,
        )

    def test_local(self) -> None:
        """Committed messages are stored in order; rolled back ones are not; offsets are -1."""
        sent = self.messages(10)
        call = self.run_local(sent[:6], "commit")
        self.assertEqual({-1}, {event["offset"] for event in call.named("sent")})
        self.run_local(sent[6:8], "rollback")
        self.assertEqual(sent[:6], self.found())
        self.run_local(sent[8:], "commit")
        self.assertEqual(sent[:6] + sent[8:], self.found())

    def test_local_timeout(self) -> None:
        """The transaction times out before its commit, and the client gets the error."""
        with self.assertRaises(peers.CallFailed) as caught:
            self.run_local(self.messages(2), "commit", timeout=1, pause=2700)
        self.assertIn("has not been started", str(caught.exception))
        self.assertEqual([], self.found())

    def test_client_dies(self) -> None:
        """A local transaction ends with its connection; a prepared XA transaction stays."""
        driver, self.driver = self.driver, peers.JavaDriver(os.path.abspath(self.mkdir()))
        self.addCleanup(setattr, self, "driver", driver)
        sent = self.messages(3)
        made = name("factory")
        self.driver.call(
            "open-transactions",
            factory=made,
            zookeeper=self.broker.zookeeper.connect_string,
            root=self.broker.root,
            topic=TOPIC,
            qualifier=self.factory,
        )
        factory, self.factory = self.factory, made
        self.run_local(sent[:1], "none")
        self.run_xa(self.marker, "start", "send", "end", "prepare", sent=sent[1:])
        self.driver.end()
        self.driver, self.factory = driver, factory
        call = self.run_xa(self.marker, "recover", "commit", "recover")
        recovered = [event["xids"] for event in call.named("recovered")]
        self.assertEqual([[self.marker], []], recovered)
        self.assertEqual(sent[1:], self.found())

    def mkdir(self) -> str:
        """A directory of the test."""
        path = self.mktemp()
        os.makedirs(path)
        return path

    def test_two_phases(self) -> None:
        """Prepared, listed, committed, gone."""
        sent = self.messages(3)
        call = self.run_xa(self.marker, "start", "send", "end", "prepare", "recover", sent=sent)
        self.assertEqual([0], [event["vote"] for event in call.named("vote")])
        self.assertEqual([[self.marker]], [e["xids"] for e in call.named("recovered")])
        self.assertEqual([], self.found())
        call = self.run_xa(self.marker, "commit", "recover", "commit")
        self.assertEqual(sent, self.found())
        self.assertEqual([[]], [event["xids"] for event in call.named("recovered")])
        self.assertEqual([-4], [event["code"] for event in call.named("refused")])

    def test_other_ends(self) -> None:
        """One phase, rollback before and after prepare, an empty branch, a wrong order."""
        sent = self.messages(4)
        one, two, three, four = (f"{self.marker}-{number}" for number in range(4))
        self.run_xa(one, "start", "send", "end", "commit-one-phase", sent=sent[:1])
        self.run_xa(two, "start", "send", "end", "rollback", sent=sent[1:2])
        self.run_xa(three, "start", "send", "end", "prepare", "rollback", sent=sent[2:3])
        call = self.run_xa(four, "start", "end", "prepare", "commit", "recover")
        self.assertEqual([3], [event["vote"] for event in call.named("vote")])
        self.assertEqual([-4], [event["code"] for event in call.named("refused")])
        self.assertEqual([[]], [event["xids"] for event in call.named("recovered")])
        self.assertEqual(sent[:1], self.found())
        call = self.run_xa(four, "start", "send", "end", "commit", "rollback", sent=sent[3:])
        self.assertEqual([-6], [event["code"] for event in call.named("refused")])
        self.assertEqual(sent[:1], self.found())

    def test_xa_timeout(self) -> None:
        """Before prepare it ends the transaction, after prepare it does not."""
        sent = self.messages(2)
        late, soon = self.marker + "-late", self.marker + "-soon"
        steps = ("start", "send", "end")
        call = self.run_xa(late, *steps, "pause", "prepare", sent=sent[:1], timeout=1, pause=2700)
        self.assertEqual([-4], [event["code"] for event in call.named("refused")])
        call = self.run_xa(
            soon, *steps, "prepare", "pause", "commit", sent=sent[1:], timeout=1, pause=2700
        )
        self.assertEqual([], call.named("refused"))
        self.assertEqual(sent[1:], self.found())


class DirectoryTests(SynchronousTestCase):
    """T49 to T53: one data directory and journal, served in turn."""

    skip = peers.missing()

    def setUp(self) -> None:
        """Everything that the two share."""
        self.directory = os.path.abspath(self.mktemp())
        self.port = zookeeper.free_port()
        self.root = f"/{name('journal')}"
        self.lives = 0

    def broker(self, kind: type[peers.Broker], **system: object) -> peers.Broker:
        """The next broker of the directory."""
        zk = zookeeper.shared()
        system = {"numPartitions": 2, **system}
        broker = kind(self.directory, zk, self.root, {TOPIC: {}}, system=system, port=self.port)
        broker.start()
        self.addCleanup(broker.kill)
        self.lives += 1
        return broker

    def ask(self, text: str, body: bytes = b"") -> Reply:
        """A request on a connection of its own; it must be granted."""
        reply = self.connection.ask(text.encode() + b"\r\n" + body)
        self.assertEqual(200, reply.status, (text, reply))
        return reply

    def put(self, body: bytes, key: str = "", partition: int = 0) -> None:
        """A message."""
        word = f" {key}" if key else ""
        self.ask(f"put {TOPIC} {partition} {len(body)} 0 -1{word} 7", body)

    def transact(self, key: str, *ends: str) -> list[bytes]:
        """A transaction over both partitions; its bodies."""
        self.ask(f"transaction {key} s BEGIN 7")
        sent = [f"{key}/{self.lives}/{number}".encode() for number in range(4)]
        for number, body in enumerate(sent):
            self.put(body, key, number % 2)
        for end in ends:
            self.ask(f"transaction {key} s {end} 7")
        return sent

    def recovered(self) -> list[str]:
        """The prepared transactions."""
        text = self.ask("transaction null s RECOVER 7").body.decode()
        return text.split("\r\n") if text else []

    def live(self, kind: type[peers.Broker], **system: object) -> peers.Broker:
        """A run of a broker with finished and unfinished transactions."""
        broker = self.broker(kind, **system)
        self.connection = Connection(self.port)
        self.addCleanup(self.connection.close)
        return broker

    def traffic(self) -> None:
        """Commits of both kinds, rollbacks, plain puts, open transactions, and one prepared."""
        life = self.lives
        both = [
            self.transact(f"TX:s{life}:1", "COMMIT_ONE_PHASE"),
            self.transact(f"XID:1:0{life}:aa:q", "PREPARE", "COMMIT_TWO_PHASE"),
        ]
        self.transact(f"TX:s{life}:2", "ROLLBACK")
        self.transact(f"XID:2:0{life}:aa:q", "PREPARE", "ROLLBACK")
        for partition in (0, 1):
            plain = f"plain/{life}/{partition}".encode()
            self.put(plain, partition=partition)
            for sent in both:
                self.expected[partition] += sent[partition::2]
            self.expected[partition].append(plain)
        key = f"XID:3:0{life}:aa:q"
        self.prepared[key] = self.transact(key, "PREPARE")
        self.transact(f"TX:s{life}:3")
        self.transact(f"XID:4:0{life}:aa:q")

    expected: dict[int, list[bytes]]
    prepared: dict[str, list[bytes]]

    def take_turns(self, *kinds: type[peers.Broker], killed: bool = False) -> None:
        """Each broker finds the prepared transactions and adds one; the last broker commits all."""
        self.expected, self.prepared = {0: [], 1: []}, {}
        for number, kind in enumerate(kinds, 1):
            broker = self.live(kind)
            wait_until(lambda: self.recovered() == list(self.prepared), f"{kind.kind}: RECOVER")
            self.traffic()
            if number == len(kinds):
                break
            self.connection.close()
            if killed:
                broker.kill()
            else:
                broker.stop()
        self.assertEqual(list(self.prepared), self.recovered())
        for key, sent in self.prepared.items():
            self.ask(f"transaction {key} s COMMIT_TWO_PHASE 7")
            for partition in (0, 1):
                self.expected[partition] += sent[partition::2]
        self.check()
        self.connection.close()
        broker.stop()
        self.live(peers.OurBroker)
        self.assertEqual([], self.recovered())
        self.check()

    def check(self) -> None:
        """Exactly the committed or acknowledged messages are stored, in order. The original answers
        a commit before its messages can be read."""
        for partition in (0, 1):
            count = len(self.expected[partition])
            wait_until(partial(self.has, partition, count), "all messages")
            self.assertEqual(self.expected[partition], bodies(self.port, partition))

    def has(self, partition: int, count: int) -> bool:
        """Whether at least ``count`` messages can be read."""
        return len(bodies(self.port, partition)) >= count

    def test_t49_from_java(self) -> None:
        """The original is killed; ours lists the prepared transactions and has rolled back the open
        ones."""
        self.take_turns(peers.JavaBroker, peers.OurBroker, killed=True)

    def test_t50_to_java(self) -> None:
        """Ours stops; the original lists and commits."""
        self.take_turns(peers.OurBroker, peers.JavaBroker)

    def test_t51_there_and_back(self) -> None:
        """Java, ours, Java, ours: one prepared in each life, committed in the last."""
        self.take_turns(peers.JavaBroker, peers.OurBroker, peers.JavaBroker, peers.OurBroker)

    def test_t52_t53_checkpoint(self) -> None:
        """
        Two prepared transactions, and a checkpoint of the original after the first: the original
        would forget it. Our redo files have numbers above that of the checkpoint.
        """
        self.expected, self.prepared = {0: [], 1: []}, {}
        broker = self.live(peers.JavaBroker, checkpointInterval=500)
        for number in (1, 2):
            key = f"XID:9:0{number}:aa:q"
            self.prepared[key] = self.transact(key, "PREPARE")
        journal = os.path.join(self.directory, "log", "transactions")

        def written() -> bool:
            return any(
                file.startswith("checkpoint.") and os.path.getsize(os.path.join(journal, file))
                for file in os.listdir(journal)
            )

        wait_until(written, "a checkpoint")
        broker.kill()
        self.connection.close()
        self.live(peers.OurBroker)
        self.assertEqual(list(self.prepared), self.recovered())
        numbers = [int(file[5:]) for file in os.listdir(journal) if file.startswith("redo.")]
        self.assertTrue(numbers and min(numbers) > 1, numbers)
        for key, sent in self.prepared.items():
            self.ask(f"transaction {key} s COMMIT_TWO_PHASE 7")
            for partition in (0, 1):
                self.expected[partition] += sent[partition::2]
        self.check()

    def three_prepared(self) -> list[str]:
        """Their keys."""
        keys = [f"XID:7:0{number}:aa:q" for number in (1, 2, 3)]
        for key in keys:
            self.transact(key, "PREPARE")
        return keys

    def check_decided(self, keys: list[str]) -> None:
        """Each kind of end is refused with the code of its outcome until it is forgotten."""
        wait_until(lambda: sorted(self.recovered()) == sorted(keys), "RECOVER")
        for key, code in zip(keys, (7, 6, 8), strict=True):
            for kind in ("PREPARE", "COMMIT_TWO_PHASE", "ROLLBACK"):
                reply = self.connection.ask(f"transaction {key} s {kind} 7\r\n".encode())
                self.assertEqual(500, reply.status)
                self.assertTrue(reply.body.startswith(b"XAException:code=%d," % code), reply)
            self.ask(f"transaction {key} s FORGET 7")
        self.assertEqual([], self.recovered())

    def test_t31_decided_by_java(self) -> None:
        """Heuristic decisions made at the original are known to ours."""
        broker = self.live(peers.JavaBroker)
        keys = self.three_prepared()
        for how, key in zip(("commit", "rollback", "complete"), keys, strict=True):
            peers.driver().call(
                "decide",
                port=broker.jmx_port,  # type: ignore[attr-defined]
                operation=f"{how}TransactionHeuristically",
                key=key,
            )
        self.connection.close()
        broker.stop()
        self.live(peers.OurBroker)
        self.check_decided(keys)
        self.assertEqual(2, len(bodies(self.port)))

    def test_t31_decided_by_ours(self) -> None:
        """Heuristic decisions made at ours are known to the original."""
        broker = self.live(peers.OurBroker)
        keys = self.three_prepared()
        for how, key in zip(("commit", "rollback", "complete"), keys, strict=True):
            command = [sys.executable, "-m", "metamorphosis.cli", "tx", how, "--data", broker.data]
            done = subprocess.run([*command, key], capture_output=True, text=True, timeout=30)
            self.assertEqual(0, done.returncode, done)
        self.connection.close()
        broker.stop()
        self.live(peers.JavaBroker)
        self.check_decided(keys)
        self.put(b"opens the partition, which the original leaves closed at its start")
        wait_until(lambda: len(bodies(self.port)) == 3, "the messages that were committed")
