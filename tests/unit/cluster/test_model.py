"""Data of the nodes (zookeeper.md 2.4, 2.5, 2.7)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cluster.model import Broker, TopicBroker


class BrokerTests(SynchronousTestCase):
    """URLs and names of brokers."""

    def test_url(self) -> None:
        """meta://host:port without a query."""
        self.assertEqual(Broker(0, "10.1.1.1", 8123).url, "meta://10.1.1.1:8123")
        self.assertEqual(Broker(0, "h", 8123, slave_id=2).url, "meta://h:8123")

    def test_url_of_ipv6_has_brackets(self) -> None:
        """Brackets are added to an IPv6 literal that has none."""
        self.assertEqual(Broker(0, "fe80::1", 8123).url, "meta://[fe80::1]:8123")
        self.assertEqual(Broker(0, "[fe80::1]", 8123).url, "meta://[fe80::1]:8123")

    def test_parse_inverts_url(self) -> None:
        """What was written is read as an equal broker, the case of the host included."""
        for broker in (
            Broker(3, "Host.example", 1),
            Broker(0, "::1", 8123),
            Broker(0, "1.2.3.4", 9),
        ):
            self.assertEqual(Broker.parse(broker.broker_id, broker.url), broker)

    def test_parse_tolerates_query(self) -> None:
        """slaveId makes a slave, other parameters are ignored."""
        self.assertEqual(
            Broker.parse(0, "meta://h:1?x=y&slaveId=3&z"), Broker(0, "h", 1, slave_id=3)
        )
        self.assertEqual(Broker.parse(0, "meta://h:1?x=y"), Broker(0, "h", 1))

    def test_parse_refuses_what_is_no_url(self) -> None:
        """An error that quotes the text for everything else."""
        texts = ("", "h:1", "meta://h", "http://h:1", "meta://:1", "meta://h:x", "meta://[h:1")
        for text in (*texts, "meta://h:1?slaveId=x"):
            error = self.assertRaises(ValueError, Broker.parse, 0, text)
            self.assertTrue(str(error).startswith(f"broker URL {text!r}: "), str(error))

    def test_equality(self) -> None:
        """Id, host, port, kind and slave id decide."""
        broker = Broker(0, "h", 1)
        self.assertEqual(broker, Broker(0, "h", 1, None))
        for other in (
            Broker(1, "h", 1),
            Broker(0, "g", 1),
            Broker(0, "h", 2),
            Broker(0, "h", 1, 0),
        ):
            self.assertNotEqual(broker, other)

    def test_node_name(self) -> None:
        """<id>-m and <id>-s<n>."""
        self.assertEqual(Broker(12, "h", 1).node_name, "12-m")
        self.assertEqual(Broker(12, "h", 1, slave_id=0).node_name, "12-s0")


class TopicBrokerTests(SynchronousTestCase):
    """The JSON of topics-pub and topics-sub."""

    def test_bytes_of_the_original(self) -> None:
        """Compact, numParts first, as recorded."""
        self.assertEqual(
            TopicBroker(4, "0-m").encode(),
            bytes.fromhex(
                "7b 22 6e 75 6d 50 61 72 74 73 22 3a 34 2c"
                "22 62 72 6f 6b 65 72 22 3a 22 30 2d 6d 22 7d"
            ),
        )

    def test_reader_takes_any_order_and_space(self) -> None:
        """What Jackson of another build may write."""
        self.assertEqual(
            TopicBroker.parse(b'{ "broker" : "0-s1",\n"numParts":2}'), TopicBroker(2, "0-s1")
        )

    def test_reader_takes_missing_or_null_broker(self) -> None:
        """Only the count is needed."""
        self.assertEqual(TopicBroker.parse(b'{"numParts":2}'), TopicBroker(2, None))
        self.assertEqual(TopicBroker.parse(b'{"numParts":2,"broker":null}'), TopicBroker(2, None))

    def test_reader_takes_numeric_text(self) -> None:
        """numParts as a string of digits."""
        self.assertEqual(TopicBroker.parse(b'{"numParts":"2"}'), TopicBroker(2, None))

    def test_reader_refuses_the_rest(self) -> None:
        """No data, empty data, text that is not an object, no count: a clear error."""
        for data in (None, b"", b"null", b"4", b"[]", b"{}", b'{"numParts":null}', b"{", b"\xff"):
            error = self.assertRaises(ValueError, TopicBroker.parse, data)
            self.assertIn("numParts", str(error))
