"""
The rows of the wire specification (section 10) that the decoder decides: the commands in the bytes
of each row, whether they close the connection, and whether more bytes are awaited. The replies are
tested with the broker.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.wire.commands import Command
from tests.support.feeding import Outcome, assert_outcome, generated
from tests.support.wirerows import CLOSED, OPEN, WAITS


@generated("row", "Row {} of the table is read as these commands.", OPEN)
class OpenRowTests(SynchronousTestCase):
    """Rows after which the connection is usable."""

    def check(self, sent: bytes, commands: list[Command]) -> None:
        """In every chunking."""
        assert_outcome(self, sent, Outcome(commands))


@generated("row", "Row {} of the table closes the connection.", CLOSED)
class ClosedRowTests(SynchronousTestCase):
    """Rows after which the peer has closed."""

    def check(self, sent: bytes, commands: list[Command]) -> None:
        """In every chunking, after the commands that came before."""
        assert_outcome(self, sent, Outcome(commands, refused=True))


@generated("row", "Row {} of the table waits for more.", WAITS)
class WaitingRowTests(SynchronousTestCase):
    """Rows after which more input is awaited."""

    def check(self, sent: bytes) -> None:
        """In every chunking."""
        assert_outcome(self, sent, Outcome([], waiting=len(sent)))


class TableTests(SynchronousTestCase):
    """The tables of ``tests.support.wirerows``."""

    def test_every_row_is_here(self) -> None:
        """The table has every row of the specification, once."""
        rows = sorted(int(row[0][:2]) for row in (*OPEN, *CLOSED, *WAITS))
        self.assertEqual(list(range(1, 85)), rows)
