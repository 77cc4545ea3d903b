"""
The tokens of a line, and the body, turned into a command: the number of tokens of each word, the
optional ones, their meaning.

The first character of the line alone chooses the command, as in the original: every word that
starts with ``q`` is ``quit``, every word that starts with ``v`` and is not ``value`` is
``version``; any other word must be exact.

Source: ``MetamorphosisWireFormatType``.

Differs: the original compares the low 8 bits of the first UTF-16 unit, so that U+0176 counts as
``v``; here the first byte is compared.

Differs: the original ignores all tokens after the opaque of a ``get``; here a single token of
digits there is the time that the request may be held (``docs/protocol.md``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from metamorphosis.errors import RemoteProtocolError
from metamorphosis.wire.commands import (
    NO_CHECKSUM,
    BooleanCommand,
    Command,
    DataCommand,
    GetCommand,
    OffsetCommand,
    PutCommand,
    QuitCommand,
    StatsCommand,
    SyncCommand,
    TransactionCommand,
    TransactionType,
    VersionCommand,
)
from metamorphosis.wire.numbers import parse_int32, parse_int64, shown
from metamorphosis.wire.transactionids import TransactionId, parse_transaction_id

#: most digits of the time that a ``get`` may be held: eleven days
WAIT_DIGITS: Final = 9

#: tokens of the line, the word included, and the body
Parse = Callable[[list[bytes], bytes], Command]


class Form(NamedTuple):
    """The rules for the frames of one word."""

    #: index of the token with the length of the body; 0: frames have no body
    length_token: int
    #: makes the command; raises ``RemoteProtocolError`` for a frame that no peer may send
    parse: Parse

    @property
    def is_request(self) -> bool:
        """Whether such a frame with a body is answered."""
        return self.length_token == 3


def form_of(word: bytes) -> Form:
    """
    The form of the frames that begin with this word.

    :raises RemoteProtocolError: there is no such command
    """
    form = _FORMS.get(word) or _FORMS_BY_FIRST.get(word[:1])
    if form is None:
        raise RemoteProtocolError(f"unknown command {shown(word)}")
    return form


def check_count(tokens: list[bytes], least: int) -> None:
    """
    Check that a line has at least ``least`` tokens.

    :raises RemoteProtocolError: there are fewer
    """
    if len(tokens) < least:
        raise RemoteProtocolError(
            f"{shown(b' '.join(tokens))} has {len(tokens)} tokens, {least} are needed"
        )


def _bad_count(tokens: list[bytes], right: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"{shown(b' '.join(tokens))} has {len(tokens)} tokens, not {right}")


def _text(token: bytes) -> str:
    """The text of a token; malformed UTF-8 becomes U+FFFD, as in the original."""
    return token.decode("utf-8", "replace")


def _transaction_id(token: bytes) -> TransactionId:
    return parse_transaction_id(_text(token))


def _parse_put(tokens: list[bytes], body: bytes) -> PutCommand:
    """
    6, 7 or 8 tokens. With 7, the sixth is a checksum if it begins with a digit or ``-``, else a
    transaction key.
    """
    checksum = NO_CHECKSUM
    transaction_id = None
    count = len(tokens)
    if count == 8:
        checksum = parse_int32(tokens[5], "checksum")
        transaction_id = _transaction_id(tokens[6])
    elif count == 7:
        first = tokens[5][:1]
        if first.isdigit() or first == b"-":
            checksum = parse_int32(tokens[5], "checksum")
        else:
            transaction_id = _transaction_id(tokens[5])
    elif count != 6:
        raise _bad_count(tokens, "6, 7 or 8")
    return PutCommand(
        _text(tokens[1]),
        parse_int32(tokens[2], "partition"),
        body,
        parse_int32(tokens[4], "flag"),
        checksum,
        transaction_id,
        parse_int32(tokens[-1], "opaque"),
    )


def _parse_sync(tokens: list[bytes], body: bytes) -> SyncCommand:
    """7 tokens from masters before 1.4.4, else 8, with the checksum."""
    count = len(tokens)
    if count not in (7, 8):
        raise _bad_count(tokens, "7 or 8")
    return SyncCommand(
        _text(tokens[1]),
        parse_int32(tokens[2], "partition"),
        body,
        parse_int32(tokens[4], "flag"),
        parse_int64(tokens[5], "message id"),
        parse_int32(tokens[6], "checksum") if count == 8 else NO_CHECKSUM,
        parse_int32(tokens[-1], "opaque"),
    )


def _parse_get(tokens: list[bytes], _: bytes) -> GetCommand:
    check_count(tokens, 7)
    return GetCommand(
        _text(tokens[1]),
        _text(tokens[2]),
        parse_int32(tokens[3], "partition"),
        parse_int64(tokens[4], "offset"),
        parse_int32(tokens[5], "max size"),
        parse_int32(tokens[6], "opaque"),
        _wait_ms(tokens),
    )


def _wait_ms(tokens: list[bytes]) -> int:
    """The one token after the opaque of a ``get``; other tokens there are ignored."""
    if len(tokens) == 8 and len(tokens[7]) <= WAIT_DIGITS and tokens[7].isdigit():
        return int(tokens[7])
    return 0


def _parse_offset(tokens: list[bytes], _: bytes) -> OffsetCommand:
    check_count(tokens, 6)
    return OffsetCommand(
        _text(tokens[1]),
        _text(tokens[2]),
        parse_int32(tokens[3], "partition"),
        parse_int64(tokens[4], "offset"),
        parse_int32(tokens[5], "opaque"),
    )


def _parse_version(tokens: list[bytes], _: bytes) -> VersionCommand:
    if len(tokens) == 1:
        return VersionCommand()
    return VersionCommand(parse_int32(tokens[1], "opaque"))


def _parse_stats(tokens: list[bytes], _: bytes) -> StatsCommand:
    """A single argument is the item, not the opaque."""
    if len(tokens) == 1:
        return StatsCommand()
    item = _text(tokens[1])
    if len(tokens) == 2:
        return StatsCommand(item)
    return StatsCommand(item, parse_int32(tokens[2], "opaque"))


def _parse_quit(tokens: list[bytes], _: bytes) -> QuitCommand:
    return QuitCommand()


def _parse_transaction(tokens: list[bytes], _: bytes) -> TransactionCommand:
    """
    5, 6 or 7 tokens. With 6, the fifth is a timeout if it has only digits or is empty (then it
    fails to parse), else a unique qualifier.
    """
    timeout = 0
    unique_qualifier = None
    count = len(tokens)
    if count == 7:
        timeout = parse_int32(tokens[4], "timeout")
        unique_qualifier = _text(tokens[5])
    elif count == 6:
        if not tokens[4] or tokens[4].isdigit():
            timeout = parse_int32(tokens[4], "timeout")
        else:
            unique_qualifier = _text(tokens[4])
    elif count != 5:
        raise _bad_count(tokens, "5, 6 or 7")
    return TransactionCommand(
        _transaction_id(tokens[1]),
        _text(tokens[2]),
        _transaction_type(tokens[3]),
        parse_int32(tokens[-1], "opaque"),
        timeout,
        unique_qualifier,
    )


def _transaction_type(token: bytes) -> TransactionType:
    found = TransactionType.__members__.get(_text(token))
    if found is None:
        raise RemoteProtocolError(f"unknown transaction type {shown(token)}")
    return found


def _parse_result(tokens: list[bytes], body: bytes) -> BooleanCommand:
    check_count(tokens, 4)
    return BooleanCommand(
        parse_int32(tokens[1], "status"), body or None, parse_int32(tokens[3], "opaque")
    )


def _parse_value(tokens: list[bytes], body: bytes) -> DataCommand:
    check_count(tokens, 3)
    return DataCommand(body, parse_int32(tokens[2], "opaque"))


_FORMS: Final[dict[bytes, Form]] = {
    b"put": Form(3, _parse_put),
    b"get": Form(0, _parse_get),
    b"offset": Form(0, _parse_offset),
    b"transaction": Form(0, _parse_transaction),
    b"result": Form(2, _parse_result),
    b"stats": Form(0, _parse_stats),
    b"sync": Form(3, _parse_sync),
    b"value": Form(1, _parse_value),
}

_FORMS_BY_FIRST: Final[dict[bytes, Form]] = {
    b"v": Form(0, _parse_version),
    b"q": Form(0, _parse_quit),
}
