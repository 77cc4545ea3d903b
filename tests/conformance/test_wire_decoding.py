"""
The conformance table of the wire specification (section 10), as far as the decoder decides it: for
each row what its bytes are, whether they close the connection, or whether more is awaited. What is
answered is the broker's part and tested there.
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
        """In every chunking, behind the commands that came before."""
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
        """No row of the specification was forgotten or is here twice."""
        rows = sorted(int(row[0][:2]) for row in (*OPEN, *CLOSED, *WAITS))
        self.assertEqual(list(range(1, 85)), rows)
