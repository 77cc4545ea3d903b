"""
The text forms of transaction ids.

================================================  ===============================================
``null``                                          no transaction; sent with ``RECOVER``
``TX:<session id>:<n>``                           local; ``n`` is 32 bits wide on the wire
``XID:<format>:<gtrid hex>:<bqual hex>:<qual>``   XA; the hex fields may be empty
================================================  ===============================================

``str(id)`` is the canonical form, as in the broker's texts: plain decimals, lower-case hex.

Source: ``TransactionId``, ``LocalTransactionId``, ``XATransactionId``, ``HexSupport``.
"""

from __future__ import annotations

from dataclasses import dataclass

from metamorphosis.errors import RemoteProtocolError
from metamorphosis.wire.numbers import parse_int32, shown


@dataclass(frozen=True, slots=True)
class NullTransactionId:
    """
    The key ``null``. A ``put`` with this key is a ``put`` in a transaction that was not begun,
    which differs from a ``put`` without a key.
    """

    def __str__(self) -> str:
        return "null"


@dataclass(frozen=True, slots=True)
class LocalTransactionId:
    """A transaction of one broker and one connection."""

    #: made by the client; contains no ``:``
    session_id: str
    #: counted by the client
    value: int

    def __str__(self) -> str:
        return f"TX:{self.session_id}:{self.value}"


@dataclass(frozen=True, slots=True)
class XATransactionId:
    """A branch of a global transaction. Two ids are equal when all four fields are."""

    format_id: int
    global_id: bytes
    branch: bytes
    #: distinguishes the clients of one broker in ``RECOVER``; contains no ``:``
    unique_qualifier: str

    def __str__(self) -> str:
        hexes = f"{self.global_id.hex()}:{self.branch.hex()}"
        return f"XID:{self.format_id}:{hexes}:{self.unique_qualifier}"


TransactionId = NullTransactionId | LocalTransactionId | XATransactionId

NULL_TRANSACTION_ID = NullTransactionId()


def parse_transaction_id(key: str) -> TransactionId:
    """
    Read a transaction key.

    :raises RemoteProtocolError: the key has none of the three forms
    """
    if key == "null":
        return NULL_TRANSACTION_ID
    if key.startswith("XID:"):
        return _parse_xa(key)
    if key.startswith("TX:"):
        return _parse_local(key)
    raise RemoteProtocolError(f"transaction key {shown(key)} is not null, TX:... or XID:...")


def _parse_local(key: str) -> LocalTransactionId:
    """Three parts; colons at the end do not count: the original's split drops them."""
    parts = key.rstrip(":").split(":")
    if len(parts) != 3:
        raise RemoteProtocolError(f"transaction key {shown(key)} is not TX:<session id>:<number>")
    return LocalTransactionId(parts[1], _number(parts[2], "number"))


def _parse_xa(key: str) -> XATransactionId:
    """
    Five parts, the empty ones included. Clients up to 1.4.4 sent four, which 1.4.6 refuses too.
    """
    parts = key.split(":")
    if len(parts) != 5:
        raise RemoteProtocolError(
            f"transaction key {shown(key)} is not XID:<format>:<hex>:<hex>:<qualifier>"
        )
    return XATransactionId(
        _number(parts[1], "format"), _bytes(parts[2]), _bytes(parts[3]), parts[4]
    )


def _number(text: str, field: str) -> int:
    return parse_int32(text.encode("ascii", "replace"), f"transaction key: {field}")


def _bytes(text: str) -> bytes:
    """
    Two hex digits for each byte, in either case; a single one at the end is dropped.

    Differs: the original also reads ``+f`` and ``-f`` as a byte.
    """
    digits = text[: len(text) & ~1]
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        value = b""
    # fromhex skips white space, which is not a hex digit here
    if len(value) * 2 != len(digits):
        raise RemoteProtocolError(f"transaction key: {shown(text)} is not hexadecimal")
    return value
