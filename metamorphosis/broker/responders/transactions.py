"""
``transaction``, which this broker does not have yet.

Source: ``SamsaCommandProcessor``, section 6.5 of the wire specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.broker.dispatch import Table
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result

if TYPE_CHECKING:
    from metamorphosis.broker.session import Session

UNSUPPORTED = {
    wire.TransactionType.BEGIN: "Unsupported beginTransaction",
    wire.TransactionType.PREPARE: "Unsupported prepareTransaction",
    wire.TransactionType.COMMIT_ONE_PHASE: "Unsupported commitTransaction",
    wire.TransactionType.COMMIT_TWO_PHASE: "Unsupported commitTransaction",
    wire.TransactionType.ROLLBACK: "Unsupported rollbackTransaction",
    wire.TransactionType.FORGET: "Unsupported forgetTransaction",
    wire.TransactionType.RECOVER: "Unsupported getPreparedTransactions",
}


def table() -> Table:
    """What is answered here."""
    return {wire.TransactionCommand: refuse}


def refuse(command: wire.TransactionCommand, session: Session) -> None:
    """END has no reply."""
    text = UNSUPPORTED.get(command.type)
    if text is not None:
        session.replies.add(result(500, command.opaque, text))
