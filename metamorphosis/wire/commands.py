"""
One frozen value for each command and reply of the protocol, independent of the bytes on the wire.
The docstring of each has its grammar line; the rules are in ``decoding`` and ``encoding``.

Source: the classes of the same names in ``com.taobao.metamorphosis.network``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from metamorphosis.wire.transactionids import TransactionId

#: the opaque of a ``version`` or ``stats`` that has none; the reply echoes it
MISSING_OPAQUE: Final = 2147483647

#: the checksum field of a message without one; a real checksum is never negative
NO_CHECKSUM: Final = -1

#: bytes of a body that ``repr`` shows
_SHOWN = 32


class TransactionType(StrEnum):
    """The step that a ``transaction`` command asks for; the names are those of the wire."""

    BEGIN = "BEGIN"
    PREPARE = "PREPARE"
    COMMIT_ONE_PHASE = "COMMIT_ONE_PHASE"
    COMMIT_TWO_PHASE = "COMMIT_TWO_PHASE"
    ROLLBACK = "ROLLBACK"
    RECOVER = "RECOVER"
    FORGET = "FORGET"
    END = "END"


class _Value:
    """Gives commands a ``repr`` that cuts bodies, which may be megabytes of user data."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, bytes) and len(value) > _SHOWN:
                shown.append(f"{field.name}={value[:_SHOWN]!r}... ({len(value)} bytes)")
            else:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, slots=True, repr=False)
class PutCommand(_Value):
    """
    Store one message.

    ``put <topic> <partition> <len> <flag> [<checksum>] [<transaction key>] <opaque>``, CRLF,
    ``<len>`` bytes.
    """

    topic: str
    #: -1: the broker chooses
    partition: int
    body: bytes
    #: stored unchanged; bit 0: the body starts with an attribute
    flag: int
    #: of the body, or ``NO_CHECKSUM``
    checksum: int
    #: None: no key was sent; ``NullTransactionId``: the key ``null`` was sent
    transaction_id: TransactionId | None
    opaque: int


@dataclass(frozen=True, slots=True, repr=False)
class SyncCommand(_Value):
    """
    A synchronous master sends a message to its slave, with the id that the message has on the
    master.

    ``sync <topic> <partition> <len> <flag> <message id> [<checksum>] <opaque>``, CRLF, ``<len>``
    bytes.
    """

    topic: str
    partition: int
    body: bytes
    flag: int
    message_id: int
    #: the checksum that the producer sent to the master, or ``NO_CHECKSUM``
    checksum: int
    opaque: int


@dataclass(frozen=True, slots=True, repr=False)
class GetCommand(_Value):
    """
    Read the log of a partition from an offset on.

    ``get <topic> <group> <partition> <offset> <max size> <opaque> [<wait ms>]``; the original
    ignores the last token.
    """

    topic: str
    group: str
    partition: int
    #: bytes from the start of the partition; 2**63 - 1 asks for the end
    offset: int
    #: bytes
    max_size: int
    opaque: int
    #: ms for which the broker may hold the request while there is nothing to read
    wait_ms: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class OffsetCommand(_Value):
    """
    Ask for a readable offset near the given one.

    ``offset <topic> <group> <partition> <offset> <opaque>``
    """

    topic: str
    group: str
    partition: int
    offset: int
    opaque: int


@dataclass(frozen=True, slots=True, repr=False)
class VersionCommand(_Value):
    """
    Ask for the version; every client's heartbeat.

    ``version [<opaque>]``
    """

    opaque: int = MISSING_OPAQUE


@dataclass(frozen=True, slots=True, repr=False)
class StatsCommand(_Value):
    """
    Ask for statistics.

    ``stats [<item> [<opaque>]]``; an opaque without an item follows two spaces.
    """

    #: None and ``""`` ask for the same
    item: str | None = None
    opaque: int = MISSING_OPAQUE


@dataclass(frozen=True, slots=True, repr=False)
class QuitCommand(_Value):
    """
    Ask the broker to close the connection; there is no reply.

    ``quit``
    """


@dataclass(frozen=True, slots=True, repr=False)
class TransactionCommand(_Value):
    """
    A step of a transaction.

    ``transaction <key> <session id> <type> [<timeout>] [<unique qualifier>] <opaque>``
    """

    transaction_id: TransactionId
    session_id: str
    type: TransactionType
    opaque: int
    #: seconds, for ``BEGIN``; 0 or less: none
    timeout: int = 0
    unique_qualifier: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class BooleanCommand(_Value):
    """
    The reply to everything but a successful ``get``.

    ``result <status> <len> <opaque>``, CRLF, ``<len>`` bytes of UTF-8.
    """

    status: int
    #: None when the length is 0, as the Java client sees it
    message: bytes | None
    opaque: int


@dataclass(frozen=True, slots=True, repr=False)
class DataCommand(_Value):
    """
    The reply to a ``get`` that found data: a piece of the log.

    ``value <len> <opaque>``, CRLF, ``<len>`` bytes.
    """

    body: bytes
    opaque: int


Request = (
    PutCommand
    | SyncCommand
    | GetCommand
    | OffsetCommand
    | VersionCommand
    | StatsCommand
    | QuitCommand
    | TransactionCommand
)
Reply = BooleanCommand | DataCommand
Command = Request | Reply
