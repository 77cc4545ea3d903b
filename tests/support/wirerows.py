"""The rows of the wire conformance table, and what a decoder makes of each."""

from __future__ import annotations

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
    TransactionType,
    VersionCommand,
)
from metamorphosis.wire.transactionids import (
    NULL_TRANSACTION_ID,
    LocalTransactionId,
    TransactionId,
    XATransactionId,
)

HELLO = b"hello"
ATTRIBUTED = b"\x00\x00\x00\x09attributehello world"
TX = LocalTransactionId("s", 1)
XA = XATransactionId(1, b"\x0a", b"\x0b", "u")
XA_EMPTY = XATransactionId(7, b"", b"", "q")


def put(
    opaque: int,
    topic: str = "test",
    partition: int = 0,
    body: bytes = HELLO,
    flag: int = 0,
    checksum: int = -1,
    key: TransactionId | None = None,
) -> PutCommand:
    """The rows differ from this in few fields."""
    return PutCommand(topic, partition, body, flag, checksum, key, opaque)


def step(
    opaque: int,
    key: TransactionId,
    kind: TransactionType,
    timeout: int = 0,
    qualifier: str | None = None,
    session: str = "s",
) -> TransactionCommand:
    """A ``transaction`` command."""
    return TransactionCommand(key, session, kind, opaque, timeout, qualifier)


def get(opaque: int, topic: str, partition: int, offset: int, size: int) -> GetCommand:
    """A ``get`` of the group ``g``."""
    return GetCommand(topic, "g", partition, offset, size, opaque)


#: row, bytes, commands: the connection stays open
OPEN: list[tuple[str, bytes, list[Command]]] = [
    ("01", b"version\r\n", [VersionCommand(2147483647)]),
    ("02", b"version -2147483648\r\n", [VersionCommand(-2147483648)]),
    ("03", b"version +7 junk\r\n", [VersionCommand(7)]),
    ("04", b"vxyz 12\r\n", [VersionCommand(12)]),
    (
        "12 of which the broker executes what precedes quit",
        b"version 1\r\nquit\r\nversion 2\r\n",
        [VersionCommand(1), QuitCommand(), VersionCommand(2)],
    ),
    (
        "14",
        b"result 200 0 5\r\nvalue 5 9\r\nhelloversion 8\r\n",
        [BooleanCommand(200, None, 5), DataCommand(HELLO, 9), VersionCommand(8)],
    ),
    ("15", b"get test g 0 0 100 15\r\n", [get(15, "test", 0, 0, 100)]),
    ("16", b"put test 0 5 0 1234 16\r\nhello", [put(16, checksum=1234)]),
    ("17", b"get test g 0 0 100 17\r\n", [get(17, "test", 0, 0, 100)]),
    ("18", b"offset test g 0 0 18\r\n", [OffsetCommand("test", "g", 0, 0, 18)]),
    ("19", b"put test 0 5 0 907060870 19\r\nhello", [put(19, checksum=907060870)]),
    ("20", b"put test 0 5 0 20\r\nhello", [put(20)]),
    ("21", b"put test 0 5 0 -1 21\r\nhello", [put(21)]),
    ("22", b"put test 0 0 0 22\r\n", [put(22, body=b"")]),
    (
        "23",
        b"put test 0 24 1 2086354397 23\r\n" + ATTRIBUTED,
        [put(23, body=ATTRIBUTED, flag=1, checksum=2086354397)],
    ),
    ("24", b"put test 2 5 0 24\r\nhello", [put(24, partition=2)]),
    ("25", b"put nosuch 0 5 0 25\r\nhello", [put(25, "nosuch")]),
    ("26", b"put nosuch -1 5 0 26\r\nhello", [put(26, "nosuch", -1)]),
    ("27", b"put nopub 0 5 0 27\r\nhello", [put(27, "nopub")]),
    ("28", b"put wildfoo 0 5 0 28\r\nhello", [put(28, "wildfoo")]),
    ("29", b"get test g 0 0 25 29\r\n", [get(29, "test", 0, 0, 25)]),
    ("30", b"get test g 0 0 1 30 extra tokens\r\n", [get(30, "test", 0, 0, 1)]),
    ("31", b"get test g 0 95 2147483647 31\r\n", [get(31, "test", 0, 95, 2147483647)]),
    ("32", b"get test g 0 138 100 32\r\n", [get(32, "test", 0, 138, 100)]),
    ("33", b"get test g 0 139 100 33\r\n", [get(33, "test", 0, 139, 100)]),
    ("34", b"get test g 0 140 100 34\r\n", [get(34, "test", 0, 140, 100)]),
    (
        "35",
        b"get test g 0 9223372036854775807 100 35\r\n",
        [get(35, "test", 0, 9223372036854775807, 100)],
    ),
    ("36", b"get test g 0 -1 100 36\r\n", [get(36, "test", 0, -1, 100)]),
    ("37", b"get test g 0 0 0 37\r\n", [get(37, "test", 0, 0, 0)]),
    ("38", b"get test g 5 0 0 38\r\n", [get(38, "test", 5, 0, 0)]),
    ("39", b"get nopub  0 0 100 39\r\n", [GetCommand("nopub", "", 0, 0, 100, 39)]),
    ("41", b"offset test g 0 100 41\r\n", [OffsetCommand("test", "g", 0, 100, 41)]),
    ("42", b"offset test g 0 139 42\r\n", [OffsetCommand("test", "g", 0, 139, 42)]),
    ("43", b"offset nosuch g 0 0 43\r\n", [OffsetCommand("nosuch", "g", 0, 0, 43)]),
    ("44", b"stats help\r\n", [StatsCommand("help", 2147483647)]),
    ("45", b"stats  45\r\nquit\r\n", [StatsCommand("", 45), QuitCommand()]),
    ("46", b"stats 46\r\n", [StatsCommand("46", 2147483647)]),
    ("47", b"stats slow 47\r\n", [StatsCommand("slow", 47)]),
    (
        "48",
        b"sync test 0 5 0 9999 -1 48\r\nhello",
        [SyncCommand("test", 0, HELLO, 0, 9999, -1, 48)],
    ),
    (
        "50",
        b"transaction TX:s:1 other BEGIN 50\r\n",
        [step(50, TX, TransactionType.BEGIN, session="other")],
    ),
    ("51", b"put test 0 5 0 -1 TX:s:1 51\r\nhello", [put(51, key=TX)]),
    ("52", b"put test -1 5 0 -1 TX:s:1 52\r\nhello", [put(52, partition=-1, key=TX)]),
    ("53", b"put test 9 5 0 TX:s:1 53\r\nhello", [put(53, partition=9, key=TX)]),
    ("54", b"transaction TX:s:1 s END 54\r\n", [step(54, TX, TransactionType.END)]),
    ("55", b"transaction TX:s:1 s PREPARE 55\r\n", [step(55, TX, TransactionType.PREPARE)]),
    (
        "56",
        b"transaction TX:s:1 s COMMIT_ONE_PHASE 56\r\n",
        [step(56, TX, TransactionType.COMMIT_ONE_PHASE)],
    ),
    ("57", b"transaction TX:s:1 s ROLLBACK 57\r\n", [step(57, TX, TransactionType.ROLLBACK)]),
    ("58", b"transaction TX:s:1 s FORGET 58\r\n", [step(58, TX, TransactionType.FORGET)]),
    (
        "59",
        b"transaction XID:1:0A:0b:u s BEGIN 3 u 59\r\n",
        [step(59, XA, TransactionType.BEGIN, 3, "u")],
    ),
    (
        "60",
        b"put test 0 5 0 1234 XID:1:0a:0b:u 60\r\nhello",
        [put(60, checksum=1234, key=XA)],
    ),
    (
        "61",
        b"transaction XID:1:0a:0b:u s COMMIT_TWO_PHASE u 61\r\n",
        [step(61, XA, TransactionType.COMMIT_TWO_PHASE, 0, "u")],
    ),
    (
        "62",
        b"transaction XID:1:0a:0b:u s PREPARE u 62\r\n",
        [step(62, XA, TransactionType.PREPARE, 0, "u")],
    ),
    (
        "63",
        b"transaction null s RECOVER u 63\r\n",
        [step(63, NULL_TRANSACTION_ID, TransactionType.RECOVER, 0, "u")],
    ),
    (
        "64",
        b"transaction null s RECOVER x 64\r\n",
        [step(64, NULL_TRANSACTION_ID, TransactionType.RECOVER, 0, "x")],
    ),
    (
        "65",
        b"transaction XID:1:0a:0b:u s COMMIT_TWO_PHASE u 65\r\n",
        [step(65, XA, TransactionType.COMMIT_TWO_PHASE, 0, "u")],
    ),
    (
        "66",
        b"transaction XID:1:0a:0b:u s ROLLBACK u 66\r\n",
        [step(66, XA, TransactionType.ROLLBACK, 0, "u")],
    ),
    ("67", b"get test g 0 139 1000 67\r\n", [get(67, "test", 0, 139, 1000)]),
    ("68", b"put test 0 5 0 -1 XID:7:::q 68\r\nhello", [put(68, key=XA_EMPTY)]),
    (
        "69",
        b"transaction XID:7:::q s BEGIN 69\r\n",
        [step(69, XA_EMPTY, TransactionType.BEGIN)],
    ),
    (
        "70",
        b"transaction XID:7:::q s PREPARE 70\r\n",
        [step(70, XA_EMPTY, TransactionType.PREPARE)],
    ),
    ("80", b"put test 0 5 0 80 \r\nhello", [put(80)]),
    ("81", b"put slow 0 5 0 81\r\nhello", [put(81, "slow")]),
    ("82", b"get slow g 0 0 100 82\r\n", [get(82, "slow", 0, 0, 100)]),
    (
        "83",
        b"get slow g 0 9223372036854775807 100 83\r\n",
        [get(83, "slow", 0, 9223372036854775807, 100)],
    ),
    ("84", b"put test -1 5 0 84\r\nhello", [put(84, partition=-1)]),
]

#: row, bytes, the commands in front of what closes the connection
CLOSED: list[tuple[str, bytes, list[Command]]] = [
    ("05", b"version 2147483648\r\n", []),
    ("06", b"version  7\r\n", []),
    ("07", b"version 1\n\r\n", []),
    ("08", b"unknown\r\n", []),
    ("09", b"\r\n", []),
    ("10", b" version 1\r\n", []),
    ("11", b"VERSION 1\r\n", []),
    ("13", b"version 1\r\ngarbage\r\nversion 2\r\n", [VersionCommand(1)]),
    ("40", b"get test g 0 0 100\r\n", []),
    ("49", b"sync test 0 5 0 9999\r\nhello", []),
    ("71", b"transaction TX:s:1 s BEGIN\r\n", []),
    ("72", b"transaction TX:s:1 s begin 5\r\n", []),
    ("73", b"transaction TX:s s BEGIN 5\r\n", []),
    ("74", b"put test 0 5 0 abc 74\r\nhello", []),
    ("75", b"put test 0 -1 0 75\r\n", []),
    ("76", b"put test 0 5 0\r\nhello", []),
    ("79", b"put test 0 5 0  79\r\nhello", []),
]

#: row, bytes: nothing arrives, the connection stays open and waits
WAITS: list[tuple[str, bytes]] = [
    ("77", b"put test 0 5\r\n"),
    ("78", b"put test 0 5 0 78\r\nhel"),
]
