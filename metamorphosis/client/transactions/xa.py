"""
The names and codes of X/Open XA, and how a broker says them. Pure.

A branch of a global transaction is named by an ``Xid``; the broker keeps it by its *key*, which has
the *unique qualifier* of the application in addition: ``recover`` finds the branches of one
application only.

Source: ``XAException``, ``XAResource`` of the Java Transaction API, ``TransactionContext``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from metamorphosis.errors import RemoteProtocolError
from metamorphosis.wire.transactionids import XATransactionId, parse_transaction_id

XA_OK: Final = 0
XA_RDONLY: Final = 3
"""Prepared, and there is nothing to commit: the broker has forgotten the branch."""
XA_HEURRB: Final = 6
XA_HEURCOM: Final = 7
XA_HEURHAZ: Final = 8
XA_RBROLLBACK: Final = 100
XA_RBOTHER: Final = 104
XA_RBTIMEOUT: Final = 106
XAER_RMERR: Final = -3
XAER_NOTA: Final = -4
XAER_INVAL: Final = -5
XAER_PROTO: Final = -6
XAER_RMFAIL: Final = -7
XAER_DUPID: Final = -8
XAER_OUTSIDE: Final = -9

TMNOFLAGS: Final = 0
TMJOIN: Final = 0x00200000
TMENDRSCAN: Final = 0x00800000
TMSTARTRSCAN: Final = 0x01000000
TMSUSPEND: Final = 0x02000000
TMSUCCESS: Final = 0x04000000
TMRESUME: Final = 0x08000000
TMFAIL: Final = 0x20000000

ROLLED_BACK: Final = range(XA_RBROLLBACK, 108)
"""Codes that say that the branch has been rolled back."""

_ERROR: Final = re.compile(r"XAException:code=(-?\d{1,9}),msg=(.*)")


class Xid(NamedTuple):
    """
    The name of a branch.

    :ivar format_id: how a transaction manager makes names; 32 bits.
    :ivar gtrid: of the global transaction; 1 to 64 bytes.
    :ivar bqual: of the branch in it; at most 64 bytes.
    """

    format_id: int
    gtrid: bytes
    bqual: bytes

    def __str__(self) -> str:
        return f"{self.format_id}:{self.gtrid.hex()}:{self.bqual.hex()}"

    def with_qualifier(self, unique_qualifier: str) -> XATransactionId:
        """As the broker knows it."""
        return XATransactionId(self.format_id, self.gtrid, self.bqual, unique_qualifier)


def code_of(text: str) -> tuple[int, str] | None:
    """Code and text of a broker's ``XAException:code=<n>,msg=<text>``; None: it is not one."""
    found = _ERROR.match(text)
    return None if found is None else (int(found[1]), found[2])


def recovered_xids(body: bytes, unique_qualifier: str) -> list[Xid]:
    """
    The branches that a broker lists, each once.

    A Java broker lists all branches when it mistakes a qualifier of digits for a timeout: those of
    others are left out.

    :raises RemoteProtocolError: no list of keys.
    """
    found: dict[Xid, None] = {}
    for key in body.decode("utf-8", "replace").split("\r\n"):
        if not key:
            continue
        parsed = parse_transaction_id(key)
        if not isinstance(parsed, XATransactionId):
            raise RemoteProtocolError(f"{key[:80]!r} is not the key of an XA transaction")
        if parsed.unique_qualifier == unique_qualifier:
            found[Xid(parsed.format_id, parsed.global_id, parsed.branch)] = None
    return list(found)
