"""The four-letter words."""

from __future__ import annotations

from kazoo.client import ENVI_VERSION, ENVI_VERSION_KEY
from twisted.internet.address import IPv6Address
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.words import VERSION
from tests.unit.zookeeper.served import Served, Wire


class WordsTests(SynchronousTestCase):
    """What monitoring reads."""

    def setUp(self) -> None:
        self.served = Served()
        self.client = self.served.client()
        self.client.deliver(self.client.get("/", True) + self.client.create("/e", b"", 1))
        self.served.turn()
        self.client.packets()

    def ask(self, word: bytes) -> str:
        """The answer to a word on a connection of its own."""
        wire = self.served.wire()
        wire.deliver(word)
        self.assertTrue(wire.transport.disconnecting)
        wire.lose()
        return str(wire.transport.value(), "utf-8")

    def pairs(self, word: bytes, separator: str) -> dict[str, str]:
        """The answer as names and values."""
        lines = (line.partition(separator) for line in self.ask(word).splitlines())
        return {name: value for name, _, value in lines}

    def test_ruok(self) -> None:
        """Four letters, no end of line."""
        self.assertEqual(self.ask(b"ruok"), "imok")

    def test_words_are_no_requests(self) -> None:
        """The latency is that of clients, however often monitoring asks."""
        before = self.ask(b"mntr")
        count = self.served.factory.latency.count
        self.assertGreater(count, 0)
        self.assertEqual(self.ask(b"mntr"), before)
        self.assertEqual(self.served.factory.latency.count, count)

    def test_isro(self) -> None:
        """Nobody is read-only here."""
        self.assertEqual(self.ask(b"isro"), "rw")

    def test_unknown_word(self) -> None:
        """A word that ZooKeeper has and we have not, is garbage."""
        wire = self.served.wire()
        wire.deliver(b"kill")
        self.assertTrue(wire.transport.disconnected)
        self.assertEqual(wire.transport.value(), b"")

    def test_srvr(self) -> None:
        """What scripts look for: Mode, zxid and the counts."""
        answer = self.ask(b"srvr")
        self.assertTrue(answer.startswith(f"Zookeeper version: {VERSION}\nLatency min/avg/max: "))
        for line in (
            "Received: 3",
            "Sent: 3",
            "Connections: 2",
            "Outstanding: 0",
            "Zxid: 0x2",
            "Mode: standalone",
            "Node count: 4",
        ):
            self.assertIn(f"\n{line}\n", answer)

    def test_stat(self) -> None:
        """srvr, and the clients."""
        answer = self.ask(b"stat")
        self.assertIn("Clients:\n /127.0.0.1:54321[1](queued=0,recved=3,sent=3)\n", answer)
        self.assertIn("\n\nLatency min/avg/max: ", answer)
        self.assertIn("Mode: standalone\n", answer)

    def test_mntr(self) -> None:
        """Names and values with a tab between."""
        figures = self.pairs(b"mntr", "\t")
        for name, value in (
            ("zk_version", VERSION),
            ("zk_server_state", "standalone"),
            ("zk_packets_received", "3"),
            ("zk_packets_sent", "3"),
            ("zk_num_alive_connections", "2"),
            ("zk_outstanding_requests", "0"),
            ("zk_znode_count", "4"),
            ("zk_watch_count", "1"),
            ("zk_ephemerals_count", "1"),
            ("zk_global_sessions", "1"),
        ):
            self.assertEqual(figures[name], value, name)
        self.assertGreater(int(figures["zk_open_file_descriptor_count"]), 2)

    def test_counts_of_the_gone(self) -> None:
        """What connections did counts when they are gone, too."""
        self.client.lose()
        figures = self.pairs(b"mntr", "\t")
        self.assertEqual((figures["zk_packets_received"], figures["zk_packets_sent"]), ("3", "3"))
        self.assertEqual(figures["zk_num_alive_connections"], "1")

    def test_outstanding_and_watches(self) -> None:
        """Replies that wait for the disk, and watches that wait for something to happen."""
        self.served.threads.hold()
        self.client.deliver(self.client.get("/e", True) + self.client.create("/f"))
        self.client.deliver(self.client.get("/f"))
        figures = self.pairs(b"mntr", "\t")
        self.assertEqual(figures["zk_outstanding_requests"], "2")
        self.assertEqual(figures["zk_watch_count"], "2")

    def test_latency(self) -> None:
        """Milliseconds from the arrival of a request until its reply leaves."""
        self.served.threads.hold()
        self.client.deliver(self.client.create("/f"))
        self.served.turn()
        self.served.clock.advance(0.5)
        self.served.threads.release()
        self.assertIn("Latency min/avg/max: 0.0/125.0/500.0\n", self.ask(b"srvr"))

    def test_cons(self) -> None:
        """Each connection, and its session."""
        session = self.client.protocol.session
        assert session is not None
        lines = self.ask(b"cons").splitlines()
        self.assertEqual(
            lines,
            [
                " /127.0.0.1:54321[1](queued=0,recved=3,sent=3,"
                f"sid={session.id:#x},to={session.timeout})",
                " /127.0.0.1:54321[0](queued=0,recved=0,sent=0)",
                "",
            ],
        )

    def test_cons_of_ipv6(self) -> None:
        """Addresses with colons stand in brackets."""
        wire = Wire(self.served)
        wire.transport.peerAddr = IPv6Address("TCP", "::1", 54321)
        self.assertIn(" /[::1]:54321[0](", self.ask(b"cons"))

    def test_dump(self) -> None:
        """Sessions, and which ephemeral nodes are whose."""
        session = self.client.protocol.session
        assert session is not None
        answer = self.ask(b"dump")
        self.assertIn("Session Sets (1):\n", answer)
        self.assertIn(f"\t{session.id:#x}\ttimeout 4000 ms\n", answer)
        self.assertIn(f"Sessions with Ephemerals (1):\n{session.id:#x}:\n\t/e\n", answer)

    def test_envi(self) -> None:
        """kazoo reads the version of the server from it."""
        version = self.pairs(b"envi", "=")[ENVI_VERSION_KEY]
        found = ENVI_VERSION.match(version)
        assert found is not None
        self.assertEqual(found.group(1), "3.4.6")

    def test_conf(self) -> None:
        """The configuration, a line each."""
        self.assertEqual(self.ask(b"conf"), "clientPort=2181\n")
