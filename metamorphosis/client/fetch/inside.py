"""
Readable records between the beginning of a damaged record and the end that its length claims: they
are messages that were sent inside of it, or messages that would be passed over. Pure.
"""

from __future__ import annotations

from metamorphosis.client.fetch.boundaries import ID_SPAN, Steps, find_record, is_empty, is_record
from metamorphosis.message import HEADER, HEADER_BYTES

_STEP_UNITS = 4096
"""Work between two yields."""


def ids_fit(own: int, following: int | None) -> bool:
    """
    Whether the ids of a damaged record and of the one that follows it may both be right. Where they
    are not, both may be wrong, and no id of a record in between shows what it is.
    """
    return following is None or following in range(own, own + ID_SPAN)


def ids_between(own: int, following: int | None, sure: bool) -> tuple[range, ...]:
    """
    The ids of records that were stored after the damaged one and before the one that follows it: a
    message that a body holds has an older id, or one of another broker. Where the two ids do not
    fit together one of them is damaged, and either of them may be right.

    :param own: id of the damaged record; a readable record with the same one shows that it is
        wrong there.
    :param following: id of the record at the claimed end; None: the log or the segment ends there.
    :param sure: a readable record is at the claimed end.
    """
    after = range(own, own + ID_SPAN)
    if following is None:
        return (after,)
    if sure and ids_fit(own, following):
        return (range(own, following),)
    return after, range(following - ID_SPAN, following)


class RecordsInside:
    """
    Looks for a record that is a message of its own. Places are distances from the beginning of the
    damaged record.

    It is one if its id tells so (``ids_between``); if it crosses the claimed end; if it begins
    before the body; or if the records from the first one on lead without a gap to the claimed end,
    unless they fill the body.

    :param claimed: the end by the length.
    :param distrusted: every record that begins before this place is a message of its own.
    :param max_body: longest body accepted, bytes.
    """

    def __init__(
        self, claimed: int, ids: tuple[range, ...], distrusted: int, max_body: int
    ) -> None:
        self._claimed = claimed
        self._ids = ids
        self._distrusted = distrusted
        self._max_body = max_body
        self._place = 1
        # Where the first record begins, as long as no gap follows it. Nothing may be concluded from
        # it where the end is far away: there only a message that is too long ends.
        self._row: int | None = None
        self._is_near = claimed <= HEADER_BYTES + max_body

    def hold_a_message(self, data: bytes | bytearray, base: int, stop: int) -> Steps[bool]:
        """
        Whether one of those that begin before place ``stop`` is a message of its own; goes on where
        the call before ended.

        :param data: from place ``base`` on, with the whole of each accepted record that begins
            before ``stop``.
        """
        work = 0
        while self._place < stop:
            if not self._goes_on(data, base):
                start = self._place - base
                found = yield from find_record(data, start, stop - base, self._max_body)
                if found is None:
                    self._place = stop
                    return False
                self._row = base + found if self._place == 1 else 0
                self._place = base + found
            length, _, message_id, _ = HEADER.unpack_from(data, self._place - base)
            if self._place < self._distrusted or any(message_id in ids for ids in self._ids):
                return True
            self._place += HEADER_BYTES + length
            if self._place > self._claimed or self._leads_up():
                return True
            work += 16 + (length >> 11)
            if work >= _STEP_UNITS:
                work = 0
                yield
        return False

    def _goes_on(self, data: bytes | bytearray, base: int) -> bool:
        """Whether another record follows the one before without a gap."""
        position, end = self._place - base, self._place + HEADER_BYTES
        if self._row is None or position + HEADER_BYTES > len(data):
            return False
        if is_empty(data, position):
            return end <= self._claimed
        return is_record(data, position, self._max_body)

    def _leads_up(self) -> bool:
        at_end = self._is_near and self._place == self._claimed
        return at_end and self._row is not None and self._row > HEADER_BYTES
