"""
Replies of two brokers made comparable: what differs between any two runs is masked, everything else
stays.
"""

from __future__ import annotations

import re
from collections import defaultdict

from compat.exchange import Reply

ID_POSITION = 8  # of a record; 8 bytes

_URL = re.compile(rb"meta://[^'/]*:\d+")
_STORED = re.compile(rb"-?\d+ (\d+) (-?\d+)\Z")
# uptime, threads and the like; the checksum covers ports and paths of server.ini
_OWN = re.compile(
    rb"^(pid|port|uptime|version|curr_connections|threads|config_checksum) .*$", re.MULTILINE
)
_TIMES = re.compile(rb"Count/Duration=[^,\r]*,Duration=\d+")

_NULL = re.compile(rb"com\.taobao\.metamorphosis\.transaction\.NullTransactionId@[0-9a-f]+")


class Normaliser:
    """
    One broker's side. It learns from the put replies where records are, and masks their ids in what
    is read.
    """

    def __init__(self, history: bool = True) -> None:
        """
        Without ``history`` counters are masked too: the two brokers have not had the same requests.
        """
        self._records: dict[tuple[bytes, bytes], set[int]] = defaultdict(set)
        self._history = history

    def __call__(self, request: bytes, reply: Reply | bytes) -> tuple[object, ...]:
        """Something to compare; equal for two brokers that behave the same."""
        if isinstance(reply, bytes):
            return (reply,)
        tokens = request.partition(b"\r\n")[0].split(b" ")
        body = _URL.sub(b"<broker>", reply.body)
        if tokens[0] == b"put":
            body = self._stored(tokens, reply.status, body)
        elif tokens[0] == b"get" and reply.status == 0:
            body = self._read((tokens[1], tokens[3]), int(tokens[4]), reply.body)
        elif tokens[0] == b"stats":
            body = self._statistics(tokens, reply.body)
        elif tokens[0] == b"transaction":
            body = _NULL.sub(b"null", body)
            if tokens[1:2] == [b"null"] and tokens[3:4] in ([b"BEGIN"], [b"FORGET"]):
                return (reply.status, reply.opaque)  # the original's text is a cast that failed
        elif tokens[0].startswith(b"v"):
            body = b"<version>"
        return (reply.status, reply.opaque, body)

    def _stored(self, tokens: list[bytes], status: int, body: bytes) -> bytes:
        found = _STORED.match(body)
        if status != 200 or not found:
            return body
        self._records[tokens[1], found.group(1)].add(int(found.group(2)))
        return b"<id> %b %b" % found.groups()

    def _read(self, partition: tuple[bytes, bytes], offset: int, body: bytes) -> bytes:
        masked = bytearray(body)
        for record in self._records[partition]:
            first = record + ID_POSITION - offset
            for position in range(max(first, 0), min(first + 8, len(masked))):
                masked[position] = 0
        return bytes(masked)

    def _statistics(self, tokens: list[bytes], body: bytes) -> bytes:
        if tokens[1:2] == [b"config"]:
            return b"<configuration>"
        body = body.replace(b"\r\n", b"\n")
        body = re.sub(rb"(?m)^metamorphosis .*\n", b"", body)  # a line of ours, which comes last
        body = _OWN.sub(rb"\1 <own>", body)
        body = _TIMES.sub(b"<times>", body)
        if not self._history:
            body = re.sub(rb"(?m)^(cmd|tx|get|put|total)(_\w+) \d+$", rb"\1\2 <n>", body)
            body = re.sub(rb"message_count \d+", b"message_count <n>", body)
            body = re.sub(rb"(?m)(realtime_\w+) (null|Count=.*|Invalid.*)$", rb"\1 <r>", body)
        # topics and partitions come in the order of a hash table
        return b"\n".join(sorted(body.split(b"\n")))
