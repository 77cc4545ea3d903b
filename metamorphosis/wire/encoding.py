"""
Commands in, bytes out, in the form the Java classes write: numbers canonical, every ``put`` with a
checksum (-1 when there is none), every ``version`` and ``stats`` with its opaque.

``encode`` checks every field, for every command of both directions. The broker's ``result`` and
``value_head`` are faster and do not check their numbers.

Source: the ``encode`` methods of the command classes, ``ByteUtils``.

Differs: a unique qualifier that has only digits and comes without timeout is written with the
timeout 0 before it; the form of the original is read as a timeout, also by the original.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from metamorphosis.errors import LocalProtocolError
from metamorphosis.wire.commands import (
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
    VersionCommand,
)
from metamorphosis.wire.numbers import INT32_MAX, check_int32, check_int64, shown
from metamorphosis.wire.parsing import WAIT_DIGITS
from metamorphosis.wire.transactionids import (
    LocalTransactionId,
    TransactionId,
    XATransactionId,
)


def encode(command: Command) -> bytes:
    """
    The whole frame.

    :raises LocalProtocolError: a field holds what the wire cannot carry
    """
    head = encode_head(command)
    if isinstance(command, PutCommand | SyncCommand | DataCommand):
        return head + command.body
    if isinstance(command, BooleanCommand) and command.message is not None:
        return head + command.message
    return head


def encode_head(command: Command) -> bytes:
    """
    The line with its CRLF, for bodies that should not be copied. The body must follow it:
    ``message`` of a ``BooleanCommand``, else ``body``.

    :raises LocalProtocolError: a field holds what the wire cannot carry
    """
    return _HEADS[type(command)](command)


def result(status: int, opaque: int, text: bytes | str | None = None) -> bytes:
    """A whole ``result`` frame; an empty text is the same as none."""
    if not text:
        return b"result %d 0 %d\r\n" % (status, opaque)
    if isinstance(text, str):
        text = text.encode("utf-8", "replace")
    return b"result %d %d %d\r\n%b" % (status, len(text), opaque, text)


def value_head(length: int, opaque: int) -> bytes:
    """The line before ``length`` bytes of the log."""
    return b"value %d %d\r\n" % (length, opaque)


def _token(text: str, field: str) -> bytes:
    """
    :raises LocalProtocolError: the text would end the token or the line, or cannot be encoded
    """
    try:
        token = text.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"{field} {shown(text)} holds half a surrogate pair") from None
    if b" " in token or b"\r\n" in token:
        raise LocalProtocolError(f"{field} {shown(text)} contains a space or a line end")
    return token


def _length(body: bytes) -> int:
    if len(body) > INT32_MAX:
        raise LocalProtocolError(f"body of {len(body)} bytes is longer than a length can say")
    return len(body)


def _transaction_key(transaction_id: TransactionId) -> bytes:
    """
    :raises LocalProtocolError: the key would be read as another one, or as none
    """
    if isinstance(transaction_id, LocalTransactionId):
        check_int32(transaction_id.value, "number of the transaction")
        _no_colon(transaction_id.session_id, "session id of the transaction")
    elif isinstance(transaction_id, XATransactionId):
        check_int32(transaction_id.format_id, "format of the transaction")
        _no_colon(transaction_id.unique_qualifier, "unique qualifier of the transaction")
    return _token(str(transaction_id), "transaction key")


def _no_colon(text: str, field: str) -> None:
    if ":" in text:
        raise LocalProtocolError(f"{field} {shown(text)} contains a colon")


def _put_head(command: PutCommand) -> bytes:
    """Seven tokens, eight with a transaction key."""
    head = b"put %b %d %d %d %d" % (
        _token(command.topic, "topic"),
        check_int32(command.partition, "partition"),
        _length(command.body),
        check_int32(command.flag, "flag"),
        check_int32(command.checksum, "checksum"),
    )
    if command.transaction_id is not None:
        head += b" " + _transaction_key(command.transaction_id)
    return b"%b %d\r\n" % (head, check_int32(command.opaque, "opaque"))


def _sync_head(command: SyncCommand) -> bytes:
    return b"sync %b %d %d %d %d %d %d\r\n" % (
        _token(command.topic, "topic"),
        check_int32(command.partition, "partition"),
        _length(command.body),
        check_int32(command.flag, "flag"),
        check_int64(command.message_id, "message id"),
        check_int32(command.checksum, "checksum"),
        check_int32(command.opaque, "opaque"),
    )


def _get_head(command: GetCommand) -> bytes:
    """The token ``wait_ms``, which only our brokers read, is left out when it is 0."""
    head = b"get %b %b %d %d %d %d" % (
        _token(command.topic, "topic"),
        _token(command.group, "group"),
        check_int32(command.partition, "partition"),
        check_int64(command.offset, "offset"),
        check_int32(command.max_size, "max size"),
        check_int32(command.opaque, "opaque"),
    )
    if not command.wait_ms:
        return head + b"\r\n"
    if not 0 < command.wait_ms < 10**WAIT_DIGITS:
        raise LocalProtocolError(f"wait of {command.wait_ms} ms is not 0 to {10**WAIT_DIGITS - 1}")
    return b"%b %d\r\n" % (head, command.wait_ms)


def _offset_head(command: OffsetCommand) -> bytes:
    return b"offset %b %b %d %d %d\r\n" % (
        _token(command.topic, "topic"),
        _token(command.group, "group"),
        check_int32(command.partition, "partition"),
        check_int64(command.offset, "offset"),
        check_int32(command.opaque, "opaque"),
    )


def _version_head(command: VersionCommand) -> bytes:
    return b"version %d\r\n" % check_int32(command.opaque, "opaque")


def _stats_head(command: StatsCommand) -> bytes:
    """A blank item is an empty token, which makes two spaces."""
    item = command.item or ""
    return b"stats %b %d\r\n" % (
        _token(item, "item") if item.strip() else b"",
        check_int32(command.opaque, "opaque"),
    )


def _quit_head(command: QuitCommand) -> bytes:
    return b"quit\r\n"


def _transaction_head(command: TransactionCommand) -> bytes:
    """The timeout only if there is one, the unique qualifier only if it is not blank."""
    words = [
        b"transaction",
        _transaction_key(command.transaction_id),
        _token(command.session_id, "session id"),
        command.type.value.encode(),
    ]
    timeout = check_int32(command.timeout, "timeout")
    qualifier = command.unique_qualifier or ""
    if timeout > 0 or qualifier.isdecimal():
        words.append(b"%d" % max(timeout, 0))
    if qualifier.strip():
        words.append(_token(qualifier, "unique qualifier"))
    words.append(b"%d" % check_int32(command.opaque, "opaque"))
    return b" ".join(words) + b"\r\n"


def _boolean_head(command: BooleanCommand) -> bytes:
    return b"result %d %d %d\r\n" % (
        check_int32(command.status, "status"),
        _length(command.message or b""),
        check_int32(command.opaque, "opaque"),
    )


def _data_head(command: DataCommand) -> bytes:
    return value_head(_length(command.body), check_int32(command.opaque, "opaque"))


_HEADS: Final[dict[type, Callable[[Any], bytes]]] = {
    PutCommand: _put_head,
    SyncCommand: _sync_head,
    GetCommand: _get_head,
    OffsetCommand: _offset_head,
    VersionCommand: _version_head,
    StatsCommand: _stats_head,
    QuitCommand: _quit_head,
    TransactionCommand: _transaction_head,
    BooleanCommand: _boolean_head,
    DataCommand: _data_head,
}
