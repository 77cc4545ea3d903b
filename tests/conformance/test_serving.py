"""Rows C37 to C40 of the storage conformance table: gets, closed partitions and refused puts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.serving import Broker
from tests.unit.broker.test_hotpath import put

FAILED = "Put message to [broker 'meta://localhost:8123'] [partition 'test-%d'] failed."


class ServingRows(SynchronousTestCase):
    """Each row as it stands in section 12."""

    def reply(self, status: int, text: str, opaque: int = 1) -> bytes:
        """A ``result`` frame."""
        return b"result %d %d %d\r\n%b" % (status, len(text.encode()), opaque, text.encode())

    def test_c37_get_at_and_behind_the_end(self) -> None:
        """404 at the end, 404 or 301 after it, 301 at 2^63-1 and before the start, 400, 404."""
        for told in (False, True):
            broker = Broker(self.mktemp(), update_consumer_offsets=told, max_segment_size=25)
            client = broker.client()
            for _ in range(2):
                client.send(put(b"hello"))
            store = broker.stores.get("test", 0)
            assert store is not None
            store.remove_segment(store.immutable_segments()[0])

            def get(offset: int, size: int = 100, partition: int = 0) -> bytes:
                line = b"get test g %d %d %d 1\r\n" % (partition, offset, size)
                return client.send(line)

            at_end = self.reply(404, "Could not find message at position 50")
            self.assertEqual(get(50), at_end)
            behind = self.reply(404, "Could not find message at position 51")
            self.assertEqual(get(51), self.reply(301, "50") if told else behind)
            self.assertEqual(get((1 << 63) - 1), self.reply(301, "50"))
            self.assertEqual(get(24), self.reply(301, "25"))
            self.assertEqual(get(25, 0), self.reply(400, "Bad request,invalid max size:0"))
            missing = "The topic `test` in partition `-1` is not exists"
            self.assertEqual(get(25, partition=-1), self.reply(404, missing))
            self.assertTrue(get(25).startswith(b"value 25 1\r\n"))

    def test_c38_closed_partitions(self) -> None:
        """403 for put and get with their texts, offset continues; after opening all is normal."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"hello"))
        get = b"get test g 0 0 100 1\r\n"
        client.send(get)
        broker.close_partitions("test", (0, 0))
        text = FAILED % 0 + "Detail:partition[0-0] has been closed"
        self.assertEqual(client.send(put(b"hello")), self.reply(403, text))
        self.assertEqual(client.send(get), self.reply(403, "Partition[0-0] has been closed"))
        self.assertEqual(client.send(b"offset test g 0 0 1\r\n"), self.reply(200, "0"))
        broker.close_partitions("test")
        self.assertTrue(client.send(put(b"hello")).startswith(b"result 200 "))
        self.assertTrue(client.send(get).startswith(b"value 50 "))

    def test_c39_wrong_checksum(self) -> None:
        """500 with the original's text, and nothing is stored."""
        broker = Broker(self.mktemp())
        client = broker.client()
        detail = "Checksum failure,message may be corrupted when transfering on networking."
        refused = self.reply(500, FAILED % 0 + "Detail:" + detail)
        self.assertEqual(client.send(put(b"hello", checksum=b"5")), refused)
        client.send(put(b"hello"))
        self.assertEqual(client.send(put(b"hello", checksum=b"5")), refused)
        self.assertEqual(broker.stores.get("test", 0).max_offset, 25)  # type: ignore[union-attr]

    def test_c40_wrong_partition(self) -> None:
        """500 with the partition that was asked for."""
        client = Broker(self.mktemp()).client()
        refused = self.reply(500, FAILED % 2 + "Detail:wrong partition 2")
        self.assertEqual(client.send(put(b"hello", partition=b"2")), refused)
