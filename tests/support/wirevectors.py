"""
Frames and what they mean: from the original's unit tests, from the examples of the wire
specification (whose sections are named), all of them seen on a running original broker, and the
edges of every rule.
"""

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
    XATransactionId,
)

NO_PROCESSOR = (
    "未注册请求处理器，请求处理器类为com.taobao.metamorphosis.network.SyncCommand".encode()
)
CHECKSUM_FAILURE = (
    b"Put message to [broker 'meta://localhost:8123'] [partition 'test-0'] failed."
    b"Detail:Checksum failure,message may be corrupted when transfering on networking."
)
WITH_ATTRIBUTE = b"\x00\x00\x00\x09attributehello world"


def local(number: int, session_id: str = "sessionId") -> LocalTransactionId:
    """``TX:<session id>:<number>``."""
    return LocalTransactionId(session_id, number)


def transaction(
    kind: TransactionType, timeout: int = 0, unique_qualifier: str | None = None
) -> TransactionCommand:
    """The command of the original's unit tests of ``TransactionCommand``."""
    return TransactionCommand(local(99), "sessionId", kind, 100, timeout, unique_qualifier)


#: name, bytes, command: holds in both directions
CANONICAL: list[tuple[str, bytes, Command]] = [
    # the original's unit tests
    ("put", b"put test 1 5 0 -1 0\r\nhello", PutCommand("test", 1, b"hello", 0, -1, None, 0)),
    (
        "put in transaction",
        b"put test 1 5 0 -1 TX:test:1 0\r\nhello",
        PutCommand("test", 1, b"hello", 0, -1, local(1, "test"), 0),
    ),
    (
        "put with checksum",
        b"put test 1 5 0 100 0\r\nhello",
        PutCommand("test", 1, b"hello", 0, 100, None, 0),
    ),
    (
        "put with checksum in transaction",
        b"put test 1 5 0 9999 TX:test:100 0\r\nhello",
        PutCommand("test", 1, b"hello", 0, 9999, local(100, "test"), 0),
    ),
    (
        "get",
        b"get test boyan-group 1 1000 1048576 -3\r\n",
        GetCommand("test", "boyan-group", 1, 1000, 1048576, -3),
    ),
    (
        "get that waits",
        b"get test g 1 1000 1048576 -3 5000\r\n",
        GetCommand("test", "g", 1, 1000, 1048576, -3, 5000),
    ),
    (
        "get that waits a millisecond",
        b"get test g 1 1000 1048576 -3 1\r\n",
        GetCommand("test", "g", 1, 1000, 1048576, -3, 1),
    ),
    (
        "offset",
        b"offset test boyan-test 1 1000 -1\r\n",
        OffsetCommand("test", "boyan-test", 1, 1000, -1),
    ),
    (
        "sync",
        b"sync test 1 5 0 9999 777 0\r\nhello",
        SyncCommand("test", 1, b"hello", 0, 9999, 777, 0),
    ),
    ("result", b"result 404 9 99\r\nnot found", BooleanCommand(404, b"not found", 99)),
    ("result without text", b"result 404 0 99\r\n", BooleanCommand(404, None, 99)),
    ("value", b"value 5 99\r\nhello", DataCommand(b"hello", 99)),
    ("value of 100 bytes", b"value 100 -1999\r\n" + bytes(100), DataCommand(bytes(100), -1999)),
    ("version", b"version -10\r\n", VersionCommand(-10)),
    ("quit", b"quit\r\n", QuitCommand()),
    ("stats of all", b"stats  -1000\r\n", StatsCommand("", -1000)),
    ("stats of topics", b"stats topics -1000\r\n", StatsCommand("topics", -1000)),
    (
        "transaction",
        b"transaction TX:sessionId:99 sessionId COMMIT_ONE_PHASE 100\r\n",
        transaction(TransactionType.COMMIT_ONE_PHASE),
    ),
    (
        "transaction with timeout",
        b"transaction TX:sessionId:99 sessionId BEGIN 3 100\r\n",
        transaction(TransactionType.BEGIN, 3),
    ),
    (
        "transaction with qualifier",
        b"transaction TX:sessionId:99 sessionId BEGIN unique-qualifier 100\r\n",
        transaction(TransactionType.BEGIN, 0, "unique-qualifier"),
    ),
    (
        "transaction with both",
        b"transaction TX:sessionId:99 sessionId BEGIN 3 unique-qualifier 100\r\n",
        transaction(TransactionType.BEGIN, 3, "unique-qualifier"),
    ),
    # worked examples of sections 2 to 5
    (
        "put of section 2 1",
        bytes.fromhex("7075742074657374203020352030203132333420370d0a68656c6c6f"),
        PutCommand("test", 0, b"hello", 0, 1234, None, 7),
    ),
    (
        "put with attribute of section 4 2",
        b"put test 0 24 1 2086354397 21\r\n" + WITH_ATTRIBUTE,
        PutCommand("test", 0, WITH_ATTRIBUTE, 1, 2086354397, None, 21),
    ),
    (
        "put reply",
        b"result 200 24 7\r\n-5468927032769380352 0 0",
        BooleanCommand(200, b"-5468927032769380352 0 0", 7),
    ),
    (
        "put refused for its checksum",
        b"result 500 156 7\r\n" + CHECKSUM_FAILURE,
        BooleanCommand(500, CHECKSUM_FAILURE, 7),
    ),
    (
        "sync to no slave",
        b"result 503 92 48\r\n" + NO_PROCESSOR,
        BooleanCommand(503, NO_PROCESSOR, 48),
    ),
    (
        "shutting down",
        b"result 503 15 1\r\n" + "线程池繁忙".encode(),
        BooleanCommand(503, "线程池繁忙".encode(), 1),
    ),
    (
        "slave status probe",
        b"sync _metaq_slave_status_test 0 4 0 -3 1481845749 1\r\ntest",
        SyncCommand("_metaq_slave_status_test", 0, b"test", 0, -3, 1481845749, 1),
    ),
    (
        "recover",
        b"transaction null sessionId RECOVER XAMessageProducer-host -2147483648\r\n",
        TransactionCommand(
            NULL_TRANSACTION_ID,
            "sessionId",
            TransactionType.RECOVER,
            -2147483648,
            0,
            "XAMessageProducer-host",
        ),
    ),
    (
        "XA prepare",
        b"transaction XID:1:0a:0b:u s PREPARE u 62\r\n",
        TransactionCommand(
            XATransactionId(1, b"\x0a", b"\x0b", "u"), "s", TransactionType.PREPARE, 62, 0, "u"
        ),
    ),
    (
        "put in XA transaction",
        b"put test 0 5 0 -1 XID:7:::q 68\r\nhello",
        PutCommand("test", 0, b"hello", 0, -1, XATransactionId(7, b"", b"", "q"), 68),
    ),
    # edges
    ("empty body", b"put test 0 0 0 0 1\r\n", PutCommand("test", 0, b"", 0, 0, None, 1)),
    (
        "CRLF in a body",
        b"put test -1 12 -1 -1 1\r\n\r\nquit\r\n\r\n\r\n",
        PutCommand("test", -1, b"\r\nquit\r\n\r\n\r\n", -1, -1, None, 1),
    ),
    ("empty topic", b"put  0 1 0 -1 1\r\n\xff", PutCommand("", 0, b"\xff", 0, -1, None, 1)),
    (
        "topic in UTF-8",
        "put 测试 0 1 0 -1 1\r\nx".encode(),
        PutCommand("测试", 0, b"x", 0, -1, None, 1),
    ),
    (
        "lone CR and LF in a topic",
        b"put a\rb\nc 0 1 0 -1 1\r\nx",
        PutCommand("a\rb\nc", 0, b"x", 0, -1, None, 1),
    ),
    ("tab is no separator", b"stats a\tb 1\r\n", StatsCommand("a\tb", 1)),
    (
        "put with the key null",
        b"put test 0 1 0 -1 null 1\r\nx",
        PutCommand("test", 0, b"x", 0, -1, NULL_TRANSACTION_ID, 1),
    ),
    (
        "smallest numbers",
        b"get t g -2147483648 -9223372036854775808 -2147483648 -2147483648\r\n",
        GetCommand("t", "g", -(2**31), -(2**63), -(2**31), -(2**31)),
    ),
    (
        "largest numbers",
        b"get t g 2147483647 9223372036854775807 2147483647 2147483647\r\n",
        GetCommand("t", "g", 2**31 - 1, 2**63 - 1, 2**31 - 1, 2**31 - 1),
    ),
    ("empty group", b"get test  0 0 100 39\r\n", GetCommand("test", "", 0, 0, 100, 39)),
    ("empty value", b"value 0 3\r\n", DataCommand(b"", 3)),
    ("CRLF in a value", b"value 4 3\r\n\r\n\r\n", DataCommand(b"\r\n\r\n", 3)),
]

#: name, bytes, command: read so, but written otherwise
READ_ONLY: list[tuple[str, bytes, Command]] = [
    (
        "put of clients before 1 4 4",
        b"put test 1 5 0 0\r\nhello",
        PutCommand("test", 1, b"hello", 0, -1, None, 0),
    ),
    (
        "put in transaction before 1 4 4",
        b"put test 1 5 0 TX:test:100 0\r\nhello",
        PutCommand("test", 1, b"hello", 0, -1, local(100, "test"), 0),
    ),
    (
        "put with the key null before 1 4 4",
        b"put test 1 5 0 null 0\r\nhello",
        PutCommand("test", 1, b"hello", 0, -1, NULL_TRANSACTION_ID, 0),
    ),
    (
        "sync of masters before 1 4 4",
        b"sync test 1 5 0 9999 0\r\nhello",
        SyncCommand("test", 1, b"hello", 0, 9999, -1, 0),
    ),
    (
        "put with a space behind",
        b"put test 0 5 0 7 \r\nhello",
        PutCommand("test", 0, b"hello", 0, -1, None, 7),
    ),
    (
        "get with many spaces behind",
        b"get t g 0 0 1 7    \r\n",
        GetCommand("t", "g", 0, 0, 1, 7),
    ),
    ("get with more tokens", b"get t g 0 0 1 7 extra  x\r\n", GetCommand("t", "g", 0, 0, 1, 7)),
    ("get with a wait that is none", b"get t g 0 0 1 7 5s\r\n", GetCommand("t", "g", 0, 0, 1, 7)),
    ("get with a long wait", b"get t g 0 0 1 7 1234567890\r\n", GetCommand("t", "g", 0, 0, 1, 7)),
    ("get with wait and more", b"get t g 0 0 1 7 5000 x\r\n", GetCommand("t", "g", 0, 0, 1, 7)),
    ("offset with more tokens", b"offset t g 0 9 7 x\r\n", OffsetCommand("t", "g", 0, 9, 7)),
    ("value with more tokens", b"value 1 7 x\r\nb", DataCommand(b"b", 7)),
    ("result with more tokens", b"result 200 1 7 x y\r\nb", BooleanCommand(200, b"b", 7)),
    ("version without opaque", b"version\r\n", VersionCommand(2147483647)),
    ("version with more tokens", b"version 7 junk\r\n", VersionCommand(7)),
    ("v is version", b"v\r\n", VersionCommand(2147483647)),
    ("vxyz is version", b"vxyz 12\r\n", VersionCommand(12)),
    ("valued is version", b"valued 12\r\n", VersionCommand(12)),
    ("Value is version", b"vALUE 12\r\n", VersionCommand(12)),
    ("q is quit", b"q\r\n", QuitCommand()),
    ("quitter is quit", b"quitter 1 2 3\r\n", QuitCommand()),
    ("quit with any tokens", b"quit \xff  x\r\n", QuitCommand()),
    ("stats without all", b"stats\r\n", StatsCommand(None, 2147483647)),
    ("stats of the dashboard", b"stats \r\n", StatsCommand(None, 2147483647)),
    ("stats takes one argument for the item", b"stats 11\r\n", StatsCommand("11", 2147483647)),
    ("stats with more tokens", b"stats a 5 x\r\n", StatsCommand("a", 5)),
    ("plus sign", b"version +7\r\n", VersionCommand(7)),
    ("leading zeros", b"version 007\r\n", VersionCommand(7)),
    ("minus zero", b"version -0\r\n", VersionCommand(0)),
    ("very many leading zeros", b"version -" + b"0" * 4000 + b"8\r\n", VersionCommand(-8)),
    (
        "length with plus and zeros",
        b"put test 0 +0005 0 7\r\nhello",
        PutCommand("test", 0, b"hello", 0, -1, None, 7),
    ),
    (
        "malformed UTF-8",
        b"stats a\xffb\xe6\xb5 7\r\n",
        StatsCommand("a\ufffdb\ufffd", 7),
    ),
    (
        "local key with colons behind",
        b"put test 0 1 0 -1 TX::+05:: 7\r\nx",
        PutCommand("test", 0, b"x", 0, -1, local(5, ""), 7),
    ),
    (
        "XA key in upper case and odd",
        b"put test 0 1 0 -1 XID:1:aBC:c: 7\r\nx",
        PutCommand("test", 0, b"x", 0, -1, XATransactionId(1, b"\xab", b"", ""), 7),
    ),
    (
        "negative timeout reads as a qualifier",
        b"transaction TX:sessionId:99 sessionId BEGIN -1 0100\r\n",
        transaction(TransactionType.BEGIN, 0, "-1"),
    ),
    (
        "qualifier of digits reads as a timeout",
        b"transaction TX:sessionId:99 sessionId RECOVER 0099 100\r\n",
        transaction(TransactionType.RECOVER, 99),
    ),
    (
        "negative timeout before a qualifier",
        b"transaction TX:sessionId:99 sessionId BEGIN -5 q 100\r\n",
        transaction(TransactionType.BEGIN, -5, "q"),
    ),
    (
        "empty session id and qualifier",
        b"transaction TX:sessionId:99  BEGIN 5  100\r\n",
        TransactionCommand(local(99), "", TransactionType.BEGIN, 100, 5, ""),
    ),
]

#: name, bytes: the connection is closed, nothing is answered
REFUSED: list[tuple[str, bytes]] = [
    ("unknown word", b"unknown\r\n"),
    ("empty line", b"\r\n"),
    ("spaces only", b"   \r\n"),
    ("space in front", b" version 1\r\n"),
    ("upper case", b"VERSION 1\r\n"),
    ("puts", b"puts test 0 5 0 7\r\nhello"),
    ("p", b"p\r\n"),
    ("gets", b"gets t g 0 0 1 7\r\n"),
    ("offse", b"offse t g 0 0 7\r\n"),
    ("transactions", b"transactions TX:s:1 s BEGIN 5\r\n"),
    ("resul", b"resul 200 0 1\r\n"),
    ("stat", b"stat x 1\r\n"),
    ("syn", b"syn test 0 5 0 9999 -1 48\r\nhello"),
    ("tab behind the word", b"put\ttest 0 5 0 7\r\nhello"),
    ("wide letter whose low byte is v", "\u0176 1\r\n".encode()),
    ("CRLF behind a body", b"\r\n"),
    # token counts
    ("put without length", b"put test 0\r\n"),
    ("put of 4 tokens", b"put test 0 5\r\nhello"),
    ("put of 5 tokens", b"put test 0 5 0\r\nhello"),
    ("put of 9 tokens", b"put test 0 5 0 -1 TX:s:1 7 8\r\nhello"),
    ("put with doubled space", b"put test 0 5 0  7\r\nhello"),
    ("put with empty checksum", b"put test 0 5 0  TX:s:1 7\r\nhello"),
    ("sync without length", b"sync test 0\r\n"),
    ("sync of 6 tokens", b"sync test 0 5 0 9999\r\nhello"),
    ("sync of 9 tokens", b"sync test 0 5 0 9999 -1 48 1\r\nhello"),
    ("get of 6 tokens", b"get test g 0 0 100\r\n"),
    ("get with empty last token", b"get test g 0 0 100  \r\n"),
    ("offset of 5 tokens", b"offset test g 0 0\r\n"),
    ("transaction of 4 tokens", b"transaction TX:s:1 s BEGIN\r\n"),
    ("transaction of 8 tokens", b"transaction TX:s:1 s BEGIN 3 u 5 6\r\n"),
    ("transaction without key", b"transaction\r\n"),
    ("result of 2 tokens", b"result 200\r\n"),
    ("result of 3 tokens", b"result 200 0\r\n"),
    ("result of 3 tokens and body", b"result 200 2\r\nxx"),
    ("value of 1 token", b"value\r\n"),
    ("value of 2 tokens", b"value 2\r\nxx"),
    # numbers
    ("opaque above int32", b"version 2147483648\r\n"),
    ("opaque below int32", b"version -2147483649\r\n"),
    ("opaque far above", b"version " + b"9" * 4000 + b"\r\n"),
    ("empty opaque", b"version  7\r\n"),
    ("opaque with LF", b"version 1\n\r\n"),
    ("opaque with CR", b"version 1\r\r\n"),
    ("opaque with tab", b"version \t1\r\n"),
    ("opaque with underscore", b"version 1_0\r\n"),
    ("opaque in hex", b"version 0x1\r\n"),
    ("opaque with point", b"version 1.0\r\n"),
    ("two signs", b"version +-1\r\n"),
    ("sign only", b"version -\r\n"),
    ("digits of another script", "version ٣\r\n".encode()),
    ("offset above int64", b"get t g 0 9223372036854775808 1 1\r\n"),
    ("offset below int64", b"get t g 0 -9223372036854775809 1 1\r\n"),
    ("partition above int32", b"get t g 2147483648 0 1 1\r\n"),
    ("max size above int32", b"get t g 0 0 2147483648 1\r\n"),
    ("message id above int64", b"sync t 0 1 0 9223372036854775808 -1 1\r\nx"),
    ("negative length", b"put test 0 -1 0 75\r\n"),
    ("length above int32", b"put test 0 2147483648 0 75\r\n"),
    ("length above the limit", b"put test 0 8193 0 75\r\n"),
    ("length no number", b"put test 0 x 0 75\r\n"),
    ("empty length", b"value  75\r\n"),
    ("negative length of a result", b"result 200 -1 75\r\n"),
    ("status no number", b"result OK 0 75\r\n"),
    ("flag no number", b"put test 0 5 x 7\r\nhello"),
    ("checksum no number", b"put test 0 5 0 -x 7\r\nhello"),
    ("checksum with plus in 7 tokens", b"put test 0 5 0 +5 7\r\nhello"),
    ("bad opaque of stats", b"stats topics abc\r\n"),
    ("three spaces in stats", b"stats   12\r\n"),
    # transactions
    ("key of another kind", b"put test 0 5 0 abc 74\r\nhello"),
    ("key NULL", b"put test 0 5 0 -1 NULL 74\r\nhello"),
    ("local key of 2 parts", b"transaction TX:s s BEGIN 5\r\n"),
    ("local key without number", b"transaction TX:s: s BEGIN 5\r\n"),
    ("local key of 4 parts", b"transaction TX:s:t:1 s BEGIN 5\r\n"),
    ("local key of int64", b"transaction TX:s:2147483648 s BEGIN 5\r\n"),
    ("XA key of 4 parts", b"transaction XID:1:0a:0b s BEGIN 5\r\n"),
    ("XA key of 6 parts", b"transaction XID:1:0a:0b:u:v s BEGIN 5\r\n"),
    ("XA format no number", b"transaction XID::0a:0b:u s BEGIN 5\r\n"),
    ("XA key not hex", b"transaction XID:1:0g:0b:u s BEGIN 5\r\n"),
    ("XA key with white space", b"transaction XID:1:0a\t\t:0b:u s BEGIN 5\r\n"),
    ("lower case type", b"transaction TX:s:1 s begin 5\r\n"),
    ("unknown type", b"transaction TX:s:1 s COMMIT 5\r\n"),
    ("empty slot 4", b"transaction TX:s:1 s BEGIN  5\r\n"),
    ("slot 4 above int32", b"transaction TX:s:1 s BEGIN 2147483648 5\r\n"),
    ("timeout no number", b"transaction TX:s:1 s BEGIN x u 5\r\n"),
    ("line above the limit", b"version " + b"0" * 4089 + b"\r\n"),
    ("endless line", b"x" * 4098),
]

#: name, bytes: nothing happens, more is awaited
WAITING: list[tuple[str, bytes]] = [
    ("no line end", b"version 1"),
    ("CR only", b"version 1\r"),
    ("LF only", b"version 1\n"),
    ("half a body", b"put test 0 5 0 78\r\nhel"),
    ("no body", b"put test 0 5 0 78\r\n"),
    ("too few tokens before the body", b"put test 0 5\r\n"),
    ("bad flag before the body", b"put test 0 5 x y z 1 2 3 4\r\nhell"),
    ("half a value", b"value 5 9\r\nhell"),
    ("half a result", b"result 404 9 99\r\nnot foun"),
    ("longest body accepted", b"sync test 1 8192 0 9999 777 0\r\n"),
    ("longest line accepted", b"version " + b"0" * 4088 + b"\r"),
]
