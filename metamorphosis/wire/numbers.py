"""
The number grammar of the wire: an optional sign, then ASCII digits, in the range of a Java ``int``
or ``long``.

``int()`` alone accepts more (white space, ``_``, digits of other scripts) and refuses more than
4300 digits, which the original reads if they are leading zeros.

Source: ``Integer.parseInt`` and ``Long.parseLong`` of Java 7 and later.

Differs: the original also accepts the decimal digits of other scripts; here only ``0`` to ``9``.
"""

from __future__ import annotations

from typing import Final

from metamorphosis.errors import LocalProtocolError, RemoteProtocolError

INT32_MIN: Final = -(1 << 31)
INT32_MAX: Final = (1 << 31) - 1
INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1

#: a text of this length is short enough for ``int()``
_SHORT = 64
#: characters of a bad token that an error text shows
_SHOWN = 80


def shown(token: bytes | str) -> str:
    """A token of the peer for an error text: quoted, escaped and cut."""
    if len(token) <= _SHOWN:
        return repr(token)
    return f"{token[:_SHOWN]!r}... ({len(token)} long)"


def parse_int32(token: bytes, field: str) -> int:
    """
    Read a 32-bit number.

    :param field: the name of the number, for the error text
    :raises RemoteProtocolError: the token is not a number or out of range
    """
    value = _parse(token, field)
    if INT32_MIN <= value <= INT32_MAX:
        return value
    raise RemoteProtocolError(f"{field} {shown(token)} is not a 32-bit number")


def parse_int64(token: bytes, field: str) -> int:
    """
    Read a 64-bit number.

    :param field: the name of the number, for the error text
    :raises RemoteProtocolError: the token is not a number or out of range
    """
    value = _parse(token, field)
    if INT64_MIN <= value <= INT64_MAX:
        return value
    raise RemoteProtocolError(f"{field} {shown(token)} is not a 64-bit number")


def check_int32(value: int, field: str) -> int:
    """
    The value, if a 32-bit field of the wire can carry it.

    :raises LocalProtocolError: it cannot
    """
    if INT32_MIN <= value <= INT32_MAX:
        return value
    raise LocalProtocolError(f"{field} {value} does not fit 32 bits")


def check_int64(value: int, field: str) -> int:
    """
    The value, if a 64-bit field of the wire can carry it.

    :raises LocalProtocolError: it cannot
    """
    if INT64_MIN <= value <= INT64_MAX:
        return value
    raise LocalProtocolError(f"{field} {value} does not fit 64 bits")


def _parse(token: bytes, field: str) -> int:
    """
    The number in any range; ``bytes.isdigit`` knows the ASCII digits only and is false for an empty
    text.
    """
    digits = token[1:] if token[:1] in (b"-", b"+") else token
    if not digits.isdigit():
        raise RemoteProtocolError(f"{field} {shown(token)} is not a number")
    if len(token) > _SHORT:
        token = token[: len(token) - len(digits)] + (digits.lstrip(b"0")[:_SHORT] or b"0")
    return int(token)
