"""The part of a range that a filter accepts: D-12, O-1."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.filtering import FIRST_BYTES, GroupFilter, Selected, select
from metamorphosis.broker.verdicts import VerdictMemory
from metamorphosis.errors import Moved
from metamorphosis.message import (
    ATTRIBUTE_FLAG,
    Message,
    encode_body,
    encode_jump,
    encode_record,
)
from metamorphosis.wire.commands import GetCommand

YES, NO, NO2, YES2 = (
    encode_record(number, 0, body)
    for number, body in enumerate((b"yes", b"no", b"no again", b"yes again"))
)


def is_yes(_: int, message: Message) -> bool:
    """Accepts the two of the four records above."""
    return message.data.startswith(b"yes")


class SelectTests(SynchronousTestCase):
    """The byte range that a filtered get returns."""

    def check(
        self, records: list[bytes], data: bytes, target: int | None, ended: bool = False
    ) -> None:
        """The reply to a get of these records, whose range starts at offset 1000."""
        selected = select(b"".join(records), 1000, "test", is_yes)
        self.assertEqual(selected, Selected(data, target, ended))

    def test_all_accepted(self) -> None:
        """Accepted records come back unchanged."""
        self.check([YES, YES2], YES + YES2, None)

    def test_accepted_run_ends_at_rejected(self) -> None:
        """The reply ends before the first rejected record and names the offset after them."""
        self.check([YES, NO, YES2], YES, 1000 + len(YES + NO), ended=True)
        self.check([YES, NO, NO2], YES, 1000 + len(YES + NO + NO2))

    def test_rejected_run_is_skipped(self) -> None:
        """
        A range that starts with rejected records moves the consumer to the first accepted one.
        """
        self.check([NO, NO2, YES, NO], b"", 1000 + len(NO + NO2), ended=True)

    def test_all_rejected(self) -> None:
        """Without an accepted record the consumer moves after the last complete one."""
        self.check([NO, NO2, YES[:-1]], b"", 1000 + len(NO + NO2))

    def test_cut_tail(self) -> None:
        """An incomplete record at the end of accepted ones is left out."""
        self.check([YES, YES2[:19]], YES, None)
        self.check([YES, YES2[:25]], YES, None)

    def test_no_whole_record(self) -> None:
        """Without a complete record the incomplete one is sent, and the consumer enlarges its
        maxSize."""
        for size in (1, 19, 20, len(NO) - 1):
            self.check([NO[:size]], NO[:size], None)

    def test_damaged_record(self) -> None:
        """A damaged first record, or an offset between records, is sent unchanged and alone: later
        records were not passed to the filter."""
        damaged = YES[:-1] + b"X"
        self.check([damaged, NO, YES2], damaged, None, ended=True)
        self.check([b"\xff" * 40, YES], b"\xff" * 20, None, ended=True)

    def test_records_before_a_damaged_one(self) -> None:
        """Records before a damaged one are sent first."""
        damaged = YES[:-1] + b"X"
        self.check([YES, damaged], YES, None)
        self.check([NO, damaged], b"", 1000 + len(NO))

    def test_too_long(self) -> None:
        """A body above 2 MiB, which no Java consumer accepts, is passed to the filter and sent
        alone."""
        longest = encode_record(1, 0, b"yes" + b"y" * 2097149)
        self.check([longest, YES], longest + YES, None)
        long = encode_record(1, 0, b"yes" + b"y" * 2097150)
        self.check([long, YES], long, None, ended=True)
        self.check([YES, long], YES, None, ended=True)
        rejected = encode_record(1, 0, b"n" * 2097153)
        self.check([rejected], b"", 1000 + len(rejected))

    def test_message(self) -> None:
        """A filter sees topic, id, flag, attribute and the data without the attribute."""
        seen: list[tuple[int, Message]] = []
        record = encode_record(77, ATTRIBUTE_FLAG, encode_body(b"payload", "marked"))

        def accept(offset: int, message: Message) -> bool:
            seen.append((offset, message))
            return True

        select(record, 500, "test", accept)
        ((offset, message),) = seen
        self.assertEqual(offset, 500)
        self.assertEqual(
            (message.topic, message.id, message.flag, message.attribute, message.data),
            ("test", 77, ATTRIBUTE_FLAG, "marked", b"payload"),
        )


class EverySecond:
    """The filter of the original's own test: it counts, so each message may be passed once only."""

    def __init__(self) -> None:
        self.asked = 0

    def accept(self, group: str, message: Message) -> bool:
        """Whether the count is even."""
        self.asked += 1
        return self.asked % 2 == 0


class GroupFilterTests(SynchronousTestCase):
    """One group's use of a filter."""

    def setUp(self) -> None:
        self.instance = EverySecond()
        self.memory = VerdictMemory()
        self.filter = self.made()
        self.reads: list[int] = []

    def made(self, group: str = "g") -> GroupFilter:
        """A group's use of the one filter."""
        return GroupFilter(self.instance, "Every", "test", group, Clock(), self.memory)

    def get(self, log: bytes, offset: int, size: int = 1 << 20, opaque: int = -7) -> bytes:
        """The body of the reply to a get of partition 0."""
        rest = log[offset : offset + size]

        def read(length: int) -> bytes:
            self.reads.append(length)
            return rest[:length]

        command = GetCommand("test", "g", 0, offset, size, opaque)
        head, body = self.filter.reply(command, len(rest), read).split(b"\r\n", 1)
        self.assertEqual(head, b"value %d %d" % (len(body), opaque))
        return body

    def test_jump(self) -> None:
        """After the accepted run the reply has the offset of the next message, which is
        remembered."""
        log = b"".join(encode_record(number, 0, b"x") for number in range(4))
        self.assertEqual(self.get(log, 0), encode_jump(21))
        self.assertEqual(self.filter.jump_from(0, 0), 21)
        self.assertEqual(self.get(log, 21), log[21:42] + encode_jump(63))
        self.assertEqual(self.filter.jump_from(0, 21), 63)
        self.assertEqual(self.get(log, 63), log[63:])
        for partition, offset in ((0, 63), (0, 42), (1, 0)):
            self.assertIsNone(self.filter.jump_from(partition, offset))

    def test_client_without_jumps(self) -> None:
        """Opaque 0 is the PHP client's: it gets the run alone, then a 301."""
        log = b"".join(encode_record(number, 0, b"x") for number in range(4))
        error = self.assertRaises(Moved, self.get, log, 0, opaque=0)
        self.assertEqual(str(error), "21")
        self.assertEqual(self.get(log, 21, opaque=0), log[21:42])
        error = self.assertRaises(Moved, self.get, log, 42, opaque=0)
        self.assertEqual(str(error), "63")

    def test_each_message_is_asked_once(self) -> None:
        """A consumer that follows the replies receives every second message, whatever its
        maxSize."""
        records = [encode_record(number, 0, b"x" * (number % 7)) for number in range(40)]
        log = b"".join(records)
        starts = [sum(map(len, records[:number])) for number in range(40)]
        for size in range(max(map(len, records)), len(log), 11):
            self.setUp()
            got, offset = b"", 0
            while offset < len(log):
                body = self.get(log, offset, size)
                self.assertEqual(self.get(log, offset, size), body)
                target = self.filter.jump_from(0, offset)
                if target is None:
                    offset += len(body)
                else:
                    self.assertEqual(body[-20:], encode_jump(target))
                    body, offset = body[:-20], target
                self.assertIn(offset, [*starts, len(log)])
                got += body
            self.assertEqual(got, b"".join(records[1::2]))
            self.assertEqual(self.instance.asked, 40)

    def test_filter_that_raises(self) -> None:
        """A message for which the filter raises is rejected, and not passed again."""

        def accept(group: str, message: Message) -> bool:
            self.instance.asked += 1
            raise ValueError(message.id)

        self.instance.accept = accept  # type: ignore[method-assign]
        self.filter = self.made()
        log = encode_record(1, 0, b"x") * 3
        for _ in range(2):
            self.assertEqual(self.get(log, 0), encode_jump(63))
        self.assertEqual(self.instance.asked, 3)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_reload_and_another_group(self) -> None:
        """The verdicts survive a reload; each group has its own."""
        log = encode_record(1, 0, b"x") * 2
        self.assertEqual(self.get(log, 0), encode_jump(21))
        self.filter = self.made()
        self.assertEqual(self.get(log, 0), encode_jump(21))
        self.assertEqual(self.instance.asked, 2)
        self.filter = self.made("other")
        self.get(log, 0)
        self.assertEqual(self.instance.asked, 4)

    def test_the_start_of_a_long_range_is_read_first(self) -> None:
        """A megabyte is not copied for one message, but it is for a long run."""
        record = encode_record(1, 0, b"x" * 1004)
        self.get(record * 200, 0)
        self.assertEqual(self.reads, [FIRST_BYTES])
        self.reads.clear()
        self.instance.accept = lambda group, message: True  # type: ignore[method-assign]
        self.filter = self.made("all")
        self.assertEqual(len(self.get(record * 200, 0)), 200 * 1024)
        self.assertEqual(self.reads, [FIRST_BYTES, 200 * 1024])
