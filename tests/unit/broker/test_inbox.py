"""The memory of a connection for an incomplete frame, and the number of its copies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.inbox import FIRST_GROWTH, SMALL_CHUNK, Inbox, ReceiveBuffer


def fill(inbox: Inbox, data: bytes) -> int:
    """Put ``data`` into the room, as the transport does; returns the number of bytes."""
    inbox.room()[: len(data)] = data
    return inbox.add(len(data))


class InboxTests(SynchronousTestCase):
    """One buffer for all connections, a separate one for a long frame."""

    def setUp(self) -> None:
        self.common = ReceiveBuffer(100_000)
        self.inbox = Inbox(self.common)

    def test_left_over_stands_before_the_next_bytes(self) -> None:
        """A frame that arrives in two reads is whole, although the buffer was used for others in
        between."""
        self.assertEqual(fill(self.inbox, b"onetw"), 5)
        self.inbox.keep(3)
        other = Inbox(self.common)
        fill(other, b"xxxxxxxxxx")
        self.assertEqual(fill(self.inbox, b"o"), 3)
        self.assertEqual(bytes(self.inbox.view[:3]), b"two")

    def test_long_frame_moves_to_its_own_buffer_and_back(self) -> None:
        """A long frame is not copied with every read, and its buffer is released with it."""
        frame = bytes(range(256)) * 1000
        self.inbox.needed = len(frame)
        position = held = 0
        buffers = set()
        while held < len(frame):
            room = len(self.inbox.room())
            piece = frame[position : position + min(room, 10_000)]
            held = fill(self.inbox, piece)
            position += len(piece)
            self.inbox.keep(0)
            buffers.add(id(self.inbox.data))
        self.assertEqual(bytes(self.inbox.view[:held]), frame)
        self.assertLess(len(buffers), 8)
        self.inbox.needed = 0
        self.inbox.keep(len(frame))
        self.assertIs(self.inbox.data, self.common.data)

    def test_announced_length_allocates_nothing(self) -> None:
        """A peer that announces 64 MiB and sends little causes a small allocation."""
        fill(self.inbox, b"x" * 10)
        self.inbox.needed = 64 << 20
        self.inbox.keep(0)
        self.assertEqual(len(self.inbox.data), FIRST_GROWTH)

    def test_short_frames_stay_in_the_common_buffer(self) -> None:
        """Up to the size of a small chunk incomplete bytes are copied."""
        fill(self.inbox, b"x" * 10)
        self.inbox.needed = SMALL_CHUNK
        self.inbox.keep(0)
        self.assertIs(self.inbox.data, self.common.data)
