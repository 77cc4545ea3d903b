"""
The text of every refusal of a step of a transaction, as the error that a peer sees.

Clients parse ``XAException:code=<number>,msg=<text>``; the text must not contain a line end.

Source: ``TransactionProcessor``, ``XAException``; section 3.4 of the specification of transactions.
"""

from __future__ import annotations

from metamorphosis.errors import BrokerError, InternalServerError
from metamorphosis.transactions.heuristiclog import Heuristic
from metamorphosis.wire.transactionids import TransactionId, XATransactionId

XA_HEURRB = 6
XA_HEURCOM = 7
XA_HEURHAZ = 8
XA_RBOTHER = 104
XAER_RMERR = -3
XAER_NOTA = -4
XAER_PROTO = -6

_OUTCOMES = {
    Heuristic.COMMITTED: (XA_HEURCOM, "committed"),
    Heuristic.ROLLED_BACK: (XA_HEURRB, "rolled back"),
    Heuristic.COMPLETED: (XA_HEURHAZ, "completed"),
}


def xa_error(code: int, text: str) -> BrokerError:
    """An error with a code of X/Open."""
    text = text.replace("\r", " ").replace("\n", " ")
    return InternalServerError(f"XAException:code={code},msg={text}")


def unknown_in_put(transaction: TransactionId) -> BrokerError:
    """A put in a transaction that was not begun: the text without a code, also for XA."""
    kind = "XA" if isinstance(transaction, XATransactionId) else "Local"
    return InternalServerError(f"{kind} transaction '{transaction}' has not been started.")


def unknown(transaction: TransactionId) -> BrokerError:
    """Any other step of a transaction that was not begun."""
    if isinstance(transaction, XATransactionId):
        return xa_error(XAER_NOTA, str(unknown_in_put(transaction)))
    return unknown_in_put(transaction)


def decided_in_put(transaction: TransactionId, outcome: Heuristic) -> BrokerError:
    """A put in a transaction whose outcome an administrator has decided."""
    word = _OUTCOMES[outcome][1]
    return InternalServerError(f"XA transaction '{transaction}' has been heuristically {word}.")


def decided(transaction: TransactionId, outcome: Heuristic) -> BrokerError:
    """Any other step of such a transaction."""
    return xa_error(_OUTCOMES[outcome][0], str(decided_in_put(transaction, outcome)))


def put_after_prepare(transaction: TransactionId) -> BrokerError:
    """A put after prepare; the original accepts it and loses it."""
    return InternalServerError(f"XA transaction '{transaction}' has been prepared.")


def not_prepared() -> BrokerError:
    """A commit in two phases before the first one."""
    return xa_error(
        XAER_PROTO, "Cannot do 2 phase commit if the transaction has not been prepared."
    )


def prepared_already() -> BrokerError:
    """A second prepare."""
    return xa_error(XAER_PROTO, "Cannot call prepare now.")


def local_prepare() -> BrokerError:
    """A prepare of a local transaction, which has no phases."""
    return xa_error(XAER_RMERR, "Prepare not implemented on Local Transactions.")


def not_an_xid(key: TransactionId) -> BrokerError:
    """A forget for a key that is not an XA transaction's."""
    return xa_error(XAER_NOTA, f"{key} is not a valid xid")


def no_id() -> BrokerError:
    """A begin with the key ``null``."""
    return InternalServerError("null is not the key of a transaction")


def being_committed(transaction: TransactionId) -> BrokerError:
    """The key is used again before its commit has ended."""
    return InternalServerError(f"Transaction '{transaction}' is being committed.")


def invalid_partition(partition: int) -> BrokerError:
    """A put in a transaction without a partition."""
    return InternalServerError(f"Invalid partition for transaction command:{partition}")


def out_of_memory(setting: str, limit: int) -> BrokerError:
    """
    No memory is left for open transactions.

    :param setting: the setting that limits it.
    """
    return InternalServerError(
        f"Open transactions take {limit} bytes, as many as {setting} allows;"
        " commit or roll back some of them"
    )


def too_long(transaction: TransactionId, limit: int) -> BrokerError:
    """A transaction would become too long for a commit record."""
    return InternalServerError(
        f"Transaction '{transaction}' cannot have more than {limit} bytes; commit it now, and go on"
        " in another one"
    )


def not_journaled(transaction: TransactionId, error: BaseException | None) -> BrokerError:
    """A record could not be written; the transaction is unchanged."""
    text = f"Transaction '{transaction}' cannot be journaled: {error}"
    if isinstance(transaction, XATransactionId):
        return xa_error(XAER_RMERR, text)
    return InternalServerError(text)


def not_journaled_put(transaction: TransactionId, error: BaseException | None) -> BrokerError:
    """The same for a put: the text without a code, also for XA."""
    return InternalServerError(f"Transaction '{transaction}' cannot be journaled: {error}")


def not_stored(transaction: TransactionId, error: BaseException | None) -> BrokerError:
    """The store refuses messages before the commit was recorded; the transaction is unchanged."""
    text = f"Transaction '{transaction}' cannot be stored: {error}"
    if isinstance(transaction, XATransactionId):
        return xa_error(XAER_RMERR, text)
    return InternalServerError(text)
