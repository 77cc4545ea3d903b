"""The four-letter words, beside the recorded answers of ZooKeeper 3.4.14."""

from __future__ import annotations

import getpass
import json
import os
import re
import struct
import time

from kazoo.client import ENVI_VERSION, ENVI_VERSION_KEY
from twisted.internet.address import IPv6Address
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.members import Latency
from metamorphosis.zookeeper.words import VERSION
from tests.support.zookeeperpeer import handshake
from tests.support.zookeeperserved import Served, Wire, frame
from tests.unit.zookeeper.wordsteps import STEPS, TIMEOUT, WORDS, shape

RECORDED = os.path.join(os.path.dirname(__file__), "words_3_4_14.json")


class AskingTestCase(SynchronousTestCase):
    """A server, and its requests."""

    served: Served

    def ask(self, word: bytes) -> str:
        """The answer to a word on a connection of its own, which is closed in order."""
        wire = self.served.wire()
        wire.deliver(word)
        self.assertTrue(wire.transport.disconnecting)
        self.assertFalse(wire.transport.disconnected, "a reset")
        wire.lose()
        return str(wire.transport.value(), "utf-8")

    def pairs(self, word: bytes, separator: str) -> dict[str, str]:
        """The answer as names and values."""
        lines = (line.partition(separator) for line in self.ask(word).splitlines())
        return {name: value for name, _, value in lines}


class RecordedTests(AskingTestCase):
    """The same requests and words in the same order, line by line: what the recorded server gave.
    The order of connections and paths is that of a hash table there."""

    def setUp(self) -> None:
        with open(RECORDED, encoding="utf-8") as file:
            self.recorded = json.load(file)
        self.served = Served()
        self.served.clock.advance(1_700_000_000)
        self.client = self.served.wire()
        self.client.deliver(frame(handshake(timeout=TIMEOUT)))
        self.served.turn()
        session = self.client.protocol.session
        assert session is not None
        self.number = session.id
        self.xid = 0

    def compare(self, name: str, answer: str, recorded: str) -> None:
        """Ours beside the recorded."""
        ours = shape(answer, self.number).split("\n")
        theirs = shape(recorded, self.number).split("\n")
        self.assertEqual(sorted(ours), sorted(theirs), name)

    def step(self, operation: int, body: bytes, xid: int | None) -> None:
        """One request and its reply."""
        if xid is None:
            self.xid += 1
            xid = self.xid
        self.client.deliver(frame(struct.pack(">ii", xid, operation) + body))
        self.served.turn()

    def test_cons_after_each_operation(self) -> None:
        """Its name, xid and zxid, and the counts."""
        names, recorded = zip(*self.recorded["steps"])
        self.assertEqual(names, ("handshake", *(name for name, *_ in STEPS)))
        self.compare("handshake", self.ask(b"cons"), recorded[0])
        for (name, operation, body, xid), answer in zip(STEPS, recorded[1:]):
            self.step(operation, body, xid)
            self.compare(name, self.ask(b"cons"), answer)

    def test_words(self) -> None:
        """All words, those that are none, and what the two resets leave."""
        self.ask(b"cons")
        for _, operation, body, xid in STEPS:
            self.step(operation, body, xid)
            self.ask(b"cons")
        self.assertEqual([word for word, _ in self.recorded["words"]], list(WORDS))
        for word, recorded in self.recorded["words"]:
            answer = self.ask(word.encode())
            if word == "envi":
                answer = re.sub("(?m)=.*$", "=", answer)
                recorded = re.sub(r"(?m)^java\..*\n", "", recorded)
                answer = answer.replace("python.version=\n", "")
            self.compare(word, answer, recorded)


class WordsTests(AskingTestCase):
    """What monitoring reads."""

    def setUp(self) -> None:
        self.served = Served()
        self.client = self.served.client()
        self.client.deliver(self.client.get("/", True) + self.client.create("/e", b"", 1))
        self.served.turn()
        self.client.packets()

    def test_words_are_no_requests(self) -> None:
        """The latency is that of clients, however often monitoring asks."""
        latency = self.served.members.latency
        count = latency.count
        self.assertGreater(count, 0)
        self.ask(b"mntr")
        self.assertEqual(latency.count, count)

    def test_unknown_word(self) -> None:
        """It is closed without an answer, in order, and said in the log as garbage is."""
        logged: list[str] = []

        def observe(event: LogEvent) -> None:
            logged.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.assertEqual(self.ask(b"kill"), "")
        self.assertEqual(self.ask(b"kill, and more than four letters"), "")
        (first, _) = logged
        self.assertIn("a frame of 1802071148 bytes", first)

    def test_word_with_an_end_of_line(self) -> None:
        """``echo`` adds one."""
        for end in (b"\n", b"\r\n"):
            self.assertEqual(self.ask(b"ruok" + end), "imok")

    def test_whole_numbers(self) -> None:
        """Monitors parse them: each figure but the version and the state."""
        self.served.threads.hold()
        self.client.deliver(self.client.create("/f"))
        self.served.turn()
        self.served.clock.advance(0.0127)
        self.served.threads.release()
        figures = self.pairs(b"mntr", "\t")
        for name in sorted(set(figures) - {"zk_version", "zk_server_state"}):
            self.assertGreaterEqual(int(figures[name]), 0, name)
        self.assertEqual((figures["zk_max_latency"], figures["zk_avg_latency"]), ("12", "3"))
        self.assertGreater(int(figures["zk_open_file_descriptor_count"]), 2)
        self.assertEqual(figures["zk_version"], VERSION)

    def test_counts_of_the_gone(self) -> None:
        """What connections did counts when they are gone, too."""
        self.client.lose()
        figures = self.pairs(b"mntr", "\t")
        self.assertEqual((figures["zk_packets_received"], figures["zk_packets_sent"]), ("4", "3"))
        self.assertEqual(figures["zk_num_alive_connections"], "1")

    def test_resets(self) -> None:
        """Each resets its own: the sum continues when connections are reset, and the reverse."""
        self.ask(b"crst")
        figures = self.pairs(b"mntr", "\t")
        self.assertEqual((figures["zk_packets_received"], figures["zk_packets_sent"]), ("5", "4"))
        self.client.deliver(self.client.get("/"))
        self.ask(b"srst")
        self.assertIn("(queued=0,recved=1,sent=1,", self.ask(b"cons"))
        figures = self.pairs(b"mntr", "\t")
        self.assertEqual((figures["zk_packets_received"], figures["zk_packets_sent"]), ("2", "2"))

    def test_reset_of_the_latency(self) -> None:
        """The worst of yesterday is forgotten."""
        self.served.members.latency.add(7.5)
        self.assertEqual(self.pairs(b"mntr", "\t")["zk_max_latency"], "7500")
        self.ask(b"srst")
        self.assertEqual(self.pairs(b"mntr", "\t")["zk_max_latency"], "0")

    def test_outstanding_and_watches(self) -> None:
        """Replies that wait for the disk, and watches that wait for something to happen."""
        self.served.threads.hold()
        self.client.deliver(self.client.get("/e", True) + self.client.create("/f"))
        self.client.deliver(self.client.get("/f"))
        figures = self.pairs(b"mntr", "\t")
        self.assertEqual(figures["zk_outstanding_requests"], "2")
        self.assertEqual(figures["zk_watch_count"], "2")

    def test_watches(self) -> None:
        """By session and by path; only of nodes, as in ZooKeeper. A connection without any has no
        line."""
        other = self.served.client()
        other.deliver(other.get("/e", True) + other.get("/", True))
        self.served.client()
        first, second = (
            wire.protocol.session.id if wire.protocol.session else 0
            for wire in (self.client, other)
        )
        self.assertEqual(self.ask(b"wchs"), "2 connections watching 2 paths\nTotal watches:3\n")
        self.assertEqual(self.ask(b"wchc"), f"{first:#x}\n\t/\n{second:#x}\n\t/\n\t/e\n\n")
        self.assertEqual(
            self.ask(b"wchp"), f"/\n\t{first:#x}\n\t{second:#x}\n/e\n\t{second:#x}\n\n"
        )

    def test_slow_commits(self) -> None:
        """How many took longer than a second."""
        self.served.storage.slow_commits = 3
        self.assertEqual(self.pairs(b"mntr", "\t")["zk_fsync_threshold_exceed_count"], "3")

    def test_latency_of_a_connection(self) -> None:
        """Its last, least, average and greatest; when the last reply left."""
        self.served.clock.advance(1000)
        self.served.threads.hold()
        self.client.deliver(self.client.create("/f"))
        self.served.turn()
        self.served.clock.advance(0.5)
        self.served.threads.release()
        line, _ = self.ask(b"cons").split("\n", 1)
        self.assertIn("lop=CREA,", line)
        self.assertIn("lresp=1000500,llat=500,minlat=0,avglat=125,maxlat=500)", line)
        self.assertIn("Latency min/avg/max: 0/125/500\n", self.ask(b"srvr"))

    def test_least_latency(self) -> None:
        """The first counts, and then whichever is quicker."""
        latency = Latency()
        seen = []
        for seconds in (0.5, 0.75, 0.25, 0.5):
            latency.add(seconds)
            seen.append((latency.least, latency.most))
        self.assertEqual(seen, [(0.5, 0.5), (0.5, 0.75), (0.25, 0.75), (0.25, 0.75)])
        self.assertEqual((latency.count, latency.total, latency.last), (4, 2.0, 0.5))

    def test_cons_without_a_reply(self) -> None:
        """Requests that wait for the disk, or have no number, or are cut: every line is one."""
        self.ask(b"crst")
        self.client.deliver(frame(struct.pack(">ii", -2, 11)))
        self.assertIn("lop=PING,est=", self.ask(b"cons"))
        self.assertNotIn("lcxid", self.ask(b"cons"))
        self.served.threads.hold()
        wire = self.served.wire()
        wire.deliver(frame(handshake()) + wire.create("/g"))
        self.assertIn("lop=CREA,", self.ask(b"cons"))
        self.assertIn("lcxid=0x1,lzxid=0xffffffffffffffff,lresp=0,", self.ask(b"cons"))
        self.served.threads.release()
        self.served.turn()
        self.assertIn("lop=CREA,", self.ask(b"cons"))
        self.client.deliver(frame(b"\0\0\0"))
        self.assertEqual(len(self.ask(b"cons").splitlines()), 4)

    def test_cons_of_ipv6(self) -> None:
        """Addresses with colons stand in brackets."""
        wire = Wire(self.served)
        wire.transport.peerAddr = IPv6Address("TCP", "::1", 54321)
        self.assertIn(" /[::1]:54321[0](", self.ask(b"cons"))

    def test_dump(self) -> None:
        """Sessions that expire together are listed together; owners of ephemeral nodes."""
        other = self.served.client()
        self.served.clock.advance(1.5)
        third = self.served.client()
        numbers = [
            wire.protocol.session.id if wire.protocol.session else 0
            for wire in (self.client, other, third)
        ]
        lines = self.ask(b"dump").splitlines()
        self.assertEqual(lines[:2], ["SessionTracker dump:", "Session Sets (2):"])
        self.assertRegex(lines[2], r"^2 expire at \w{3} \w{3} \d\d \d\d:\d\d:05 \w+ \d{4}:$")
        self.assertEqual(lines[3:5], [f"\t{number:#x}" for number in numbers[:2]])
        self.assertRegex(lines[5], r"^1 expire at .*:06 .*:$")
        self.assertEqual(
            lines[6:],
            [
                f"\t{numbers[2]:#x}",
                "ephemeral nodes dump:",
                "Sessions with Ephemerals (1):",
                f"{numbers[0]:#x}:",
                "\t/e",
            ],
        )

    def test_envi(self) -> None:
        """kazoo reads the version of the server from it."""
        version = self.pairs(b"envi", "=")[ENVI_VERSION_KEY]
        found = ENVI_VERSION.match(version)
        assert found is not None
        self.assertEqual(found.group(1), "3.4.6")

    def test_envi_of_a_user(self) -> None:
        """Who runs it and where; a user without a name, as in a container, is a number."""
        pairs = self.pairs(b"envi", "=")
        self.assertEqual(pairs["user.name"], getpass.getuser())
        self.assertEqual(pairs["user.dir"], os.getcwd())
        for error in (KeyError, OSError):

            def nameless(error: type[Exception] = error) -> str:
                raise error("no such user")

            self.patch(getpass, "getuser", nameless)
            self.assertEqual(self.pairs(b"envi", "=")["user.name"], str(os.getuid()))

    def test_start_of_a_connection(self) -> None:
        """In milliseconds since 1970."""
        before = int(time.time() * 1000)
        self.served.client()
        line = self.ask(b"cons").splitlines()[1]
        found = re.search(r",est=(\d+),", line)
        assert found is not None
        self.assertTrue(before <= int(found.group(1)) <= int(time.time() * 1000), line)
