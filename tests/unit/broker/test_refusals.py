"""The texts of refusals, byte for byte."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker import refusals

URL = "meta://localhost:8123"


class RefusalTests(SynchronousTestCase):
    """Status and text of each, wire specification 6 and the lengths of section 10."""

    def test_put_failed(self) -> None:
        """An I/O error has no detail, anything else has one without a space before it."""
        plain = "Put message to [broker 'meta://localhost:8123'] [partition 'test-0'] failed."
        self.assertEqual(str(refusals.put_failed(URL, "test", 0)), plain)
        self.assertEqual(str(refusals.put_failed(URL, "test", 0, "null")), plain + "Detail:null")
        self.assertEqual(refusals.put_failed(URL, "test", 0).status, 500)

    def test_checksum(self) -> None:
        """Row 16: 156 bytes."""
        error = refusals.put_failed(URL, "test", 0, refusals.CHECKSUM_FAILURE)
        self.assertEqual(len(str(error)), 156)

    def test_lengths(self) -> None:
        """Rows 24 and 25: 100 and 122 bytes."""
        wrong = refusals.put_failed(URL, "test", 2, refusals.wrong_partition(2))
        self.assertEqual(len(str(wrong)), 100)
        refused = refusals.put_failed(URL, "nosuch", 0, refusals.topic_not_accepted("nosuch"))
        self.assertEqual(len(str(refused)), 122)

    def test_closed(self) -> None:
        """403 with 113 bytes for a put, small p; with 30 bytes for a get, capital P."""
        put, get = refusals.put_closed(URL, "test", 0, 1), refusals.get_closed(0, 1)
        self.assertEqual((put.status, len(str(put))), (403, 113))
        self.assertEqual((get.status, str(get)), (403, "Partition[0-1] has been closed"))

    def test_C37_get(self) -> None:
        """The refusals of a get by status and text."""
        self.assertEqual(
            [
                (error.status, str(error))
                for error in (
                    refusals.no_store("test", -1),
                    refusals.invalid_max_size(0),
                    refusals.moved(139),
                    refusals.nothing_there(140),
                )
            ],
            [
                (404, "The topic `test` in partition `-1` is not exists"),
                (400, "Bad request,invalid max size:0"),
                (301, "139"),
                (404, "Could not find message at position 140"),
            ],
        )
