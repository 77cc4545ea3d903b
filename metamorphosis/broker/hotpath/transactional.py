"""
The hot path of transactions in Python; ``contract.ScanSteps`` has the rules.

Puts that follow each other in one transaction are a run: its transaction is found once, and its
records go to the journal together. A step is only parsed here, which is most of its cost on the
slow path; the responders carry it out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from metamorphosis.broker.hotpath.contract import ORDINARY_LINE
from metamorphosis.errors import BrokerError, RemoteProtocolError
from metamorphosis.message import HEADER, crc32
from metamorphosis.native import compiled
from metamorphosis.transactions.records import encode_append
from metamorphosis.transactions.transaction import OVERHEAD, State
from metamorphosis.wire.commands import TransactionCommand, TransactionType
from metamorphosis.wire.transactionids import TransactionId, parse_transaction_id

if TYPE_CHECKING:
    from metamorphosis.broker.hotpath.contract import Routes
    from metamorphosis.broker.replies import Refuse, ReplyGroup
    from metamorphosis.broker.session import Session
    from metamorphosis.ids import MessageIds
    from metamorphosis.transactions.transaction import Message, Partition
    from metamorphosis.transactions.transactions import Transactions

# Canonical numbers only, and a checksum: the bytes of the put are what the journal gets. Digits as
# in ``pure``.
_PUT = re.compile(
    rb"put ([^ \r]+) (\d{1,9}) (0|[1-9]\d{0,8}) (-?[1-9]\d{0,8}|0) (-1|[1-9]\d{0,9}|0)"
    rb" ((?:TX|XID):[^ \r]+) (-?[1-9]\d{0,9}|0)\r\n"
)
_STEP = re.compile(
    rb"transaction ((?:TX|XID):[^ \r]+) ([^ \r]+) ([A-Z_]+) (?:(\d{1,9}) )?(-?[1-9]\d{0,9}|0)\r\n"
)
_TYPES = {each.value.encode(): each for each in TransactionType}
_HEADER = HEADER.pack
_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1
_P, _T = ord("p"), ord("t")


def take_run(
    data: bytes | bytearray,
    start: int,
    end: int,
    key: bytes,
    places: Mapping[tuple[bytes, bytes], Partition],
    max_body: int,
    room: int,
    overhead: int,
    next_id: int,
    messages: list[Message],
    records: list[bytes],
    replies: list[bytes],
) -> int:
    """
    Take ordinary puts of one transaction from the front of ``data[start:end]``, until another frame
    begins or ids carry. No reference to ``data`` is kept.

    One long function, because it makes as few calls as it can for each put. The module in C has the
    same function.

    :param key: the transaction's id as it is spelled on the wire.
    :param room: bytes that the transaction may grow by.
    :param overhead: bytes of memory that a message takes beside its record.
    :param next_id: the id of the first message.
    :param messages: the messages that are taken are appended here, their journal records to
        ``records``, their replies to ``replies``.
    :returns: the position after the last one.
    """
    match = _PUT.match
    position = start
    while position < end:
        found = match(data, position, end)
        if found is None:
            break
        topic, partition, length_text, flag, given, put_key, opaque = found.groups()
        place = places.get((topic, partition))
        if place is None or put_key != key:
            break
        body_at = found.end()
        length = int(length_text)
        past = body_at + length
        if past > end or length > max_body or body_at - position > ORDINARY_LINE:
            break
        checksum = crc32(data[body_at:past]) & 0x7FFFFFFF
        if given != b"-1" and int(given) != checksum:
            break
        if len(opaque) > 9 and not _INT32_MIN <= int(opaque) <= _INT32_MAX:
            break
        record = encode_append(next_id, data[position:past])
        room -= len(record) + overhead
        if room < 0:
            break
        records.append(record)
        messages.append((place, _HEADER(length, checksum, next_id, int(flag)), record))
        text = b"%d %b -1" % (next_id, partition)
        replies.append(b"result 200 %d %b\r\n%b" % (len(text), opaque, text))
        next_id += 1
        position = past
        if not next_id & 0xFFF:
            break
    return position


class TransactionScan:
    """
    Takes puts and steps of transactions. Thread: reactor.

    :param respond: ``Dispatch.respond``.
    :param refuse: makes the refusals of puts of a transaction that cannot be written.
    :ivar take_run: the implementation that is used.
    """

    __slots__ = ("_ids", "_intake", "_open", "_refuse", "_respond", "_routes", "take_run")

    def __init__(
        self,
        transactions: Transactions,
        routes: Routes,
        ids: MessageIds,
        respond: Callable[[TransactionCommand, Session], None],
        refuse: Callable[[TransactionId], Refuse],
    ) -> None:
        self._open = transactions.open
        self._intake = transactions.intake
        self._routes = routes
        self._ids = ids
        self._respond = respond
        self._refuse = refuse
        # A native module that was built from older sources lacks this function.
        self.take_run = getattr(compiled, "take_run", take_run)

    def __call__(
        self,
        data: bytes | bytearray,
        source: bytes | memoryview,
        start: int,
        end: int,
        session: Session,
        group: ReplyGroup,
    ) -> int:
        """See ``contract.ScanSteps``."""
        first = data[start]
        if first == _P:
            return self._puts(data, start, end, session, group)
        return self._step(data, start, end, session) if first == _T else start

    def _step(self, data: bytes | bytearray, start: int, end: int, session: Session) -> int:
        """Take one step in ordinary form; returns the position after it."""
        found = _STEP.match(data, start, end)
        if found is None:
            return start
        key, session_id, name, timeout, opaque = found.groups()
        kind = _TYPES.get(name)
        number = int(opaque)
        past = found.end()
        if kind is None or past - start > ORDINARY_LINE or not _INT32_MIN <= number <= _INT32_MAX:
            return start
        transaction = self._open.find(session, key)
        try:
            if transaction is not None:
                transaction_id: TransactionId = transaction.id
            else:
                transaction_id = parse_transaction_id(str(key, "utf-8", "replace"))
        except RemoteProtocolError:
            return start
        seconds = 0 if timeout is None else int(timeout)
        text = str(session_id, "utf-8", "replace")
        self._respond(TransactionCommand(transaction_id, text, kind, number, seconds), session)
        return past

    def _puts(
        self,
        data: bytes | bytearray,
        start: int,
        end: int,
        session: Session,
        group: ReplyGroup,
    ) -> int:
        """
        Take a run of ordinary puts in one transaction; returns the position after it. One long
        function, most of it arguments. No state changes before all puts are checked.
        """
        found = _PUT.match(data, start, end)
        ids = self._ids
        if found is None or not ids.ready:
            return start
        key = found[6]
        transaction = self._open.find(session, key)
        if transaction is None or transaction.state > State.IN_USE:
            return start
        room = self._intake.room(transaction)
        next_id = ids.start_chunk()
        messages: list[Message] = []
        records: list[bytes] = []
        replies: list[bytes] = []
        position = start
        while position < end:
            before = len(records)
            past = self.take_run(
                data,
                position,
                end,
                key,
                self._routes.places,
                self._routes.max_body,
                room,
                OVERHEAD,
                next_id,
                messages,
                records,
                replies,
            )
            taken = len(records) - before
            if not taken:
                break
            position = past
            next_id += taken
            if next_id & 0xFFF:
                break
            next_id = ids.carry(next_id)
            room -= sum(map(len, records[before:])) + OVERHEAD * taken
        if not messages:
            return start
        try:
            fit, written = self._intake.take(transaction, messages, records)
        except BrokerError:
            return start
        transaction.state = State.IN_USE
        runs = group.runs
        if fit and runs and runs[-1][0] is not None:
            runs.append((None, len(group.replies), 0, None))
        if written is not None:
            runs.append((written, len(group.replies) + fit, 0, self._refuse(transaction.id)))
        group.replies += replies
        ids.next_id = next_id
        return position
