"""
How far the listener of a partition is: what is acknowledged, what waits for that, what failed how
often. Pure but for the log.

Source: ``TopicPartitionRegInfo``, ``FetchRequest``, ``Partition`` (its flags).

Differs: a message that fails is tried again after a pause, and as often, wherever in a batch it
stood; the original fetches at once when others of the batch came before it, and gives it one more
try.

Differs: acknowledged positions carry the id of the last message in front of them; the original's
that of the last decoded one, be it the one that failed.

Differs: ``ack`` may come later than the listener's return, and does not end the batch; the original
knows it only inside the listener, and fetches what is behind the message anew.
"""

from __future__ import annotations

from collections import deque

from metamorphosis.client.delivery.duplicates import CAPACITY, DuplicateCache
from metamorphosis.client.model import Position, ReceivedMessage
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.errors import InvalidState


class Progress:
    """
    Thread: the loop's.

    :ivar position: what is acknowledged; it is committed by others.
    :ivar resume_offset: where the next fetch begins; the position's, or further on when messages
        wait for their ``ack``.
    :ivar retries: how often the message that failed last has; 0 when the pause is over that this
        is for.
    :ivar rolled_back: since the delivery began the user went back, or elsewhere.
    :ivar abandoned: nothing is acknowledged any more: the partition is somebody else's.
    """

    __slots__ = (
        "_duplicates",
        "_failures",
        "_handed",
        "_unacked",
        "abandoned",
        "auto_ack",
        "position",
        "resume_offset",
        "retries",
        "rolled_back",
    )

    def __init__(self, position: Position, auto_ack: bool, duplicates: DuplicateCache) -> None:
        self.position = position
        self.auto_ack = auto_ack
        self.resume_offset = position.offset
        self.retries = 0
        self.rolled_back = False
        self.abandoned = False
        self._duplicates = duplicates
        # Offset -> how often that message has failed. It is kept until the message is acknowledged:
        # after a rollback those in front of it are delivered, and succeed, first.
        self._failures: dict[int, int] = {}
        self._handed = -1  # manual: offset of the last message the listener got
        self._unacked: deque[tuple[int, int]] = deque(maxlen=CAPACITY)  # manual: offset, id

    def move_to(self, offset: int) -> None:
        """The next readable message is there, the broker or a damaged record says."""
        if not self._awaits_ack and not self.abandoned:
            self.position.offset = offset
            self.position.modified = True
        self.resume_offset = offset
        self.retries = 0

    def is_poison(self, message: ReceivedMessage, max_retries: int) -> bool:
        """Whether it failed more often than that."""
        return self._failures.get(message.offset, 0) > max_retries

    def before_poison(
        self, messages: list[ReceivedMessage], max_retries: int
    ) -> list[ReceivedMessage]:
        """Those in front of the first that ``is_poison``."""
        if self._failures:
            for index, message in enumerate(messages):
                if self.is_poison(message, max_retries):
                    return messages[:index]
        return messages

    def failures_of(self, message: ReceivedMessage) -> int:
        """How often it has failed since it came first."""
        return self._failures.get(message.offset, 0)

    # -- outcomes

    def hand(self, message: ReceivedMessage) -> None:
        """Manual acknowledgement: the listener gets it now."""
        self._handed = message.offset
        self._unacked.append((message.offset, message.id))  # no message: it keeps its piece

    def done(self, messages: list[ReceivedMessage]) -> None:
        """The listener returned from these; they are the next ones."""
        if not messages or self.rolled_back:
            return
        last = messages[-1]
        self.resume_offset = last.next_offset
        self.retries = 0
        if self.auto_ack and not self.abandoned:
            self._advance(last)
            self.remember(messages)

    def finished(self, message: ReceivedMessage) -> None:
        """
        The listener finished it: whoever commits in the middle of a stretch may know. ``done``
        follows.
        """
        if self.auto_ack and not self.abandoned and not self.rolled_back:
            self._advance(message)

    def passed(self, last: ReceivedMessage) -> None:
        """Everything up to here was processed or not wanted."""
        if self.rolled_back:
            return
        self.resume_offset = last.next_offset
        self.retries = 0
        if not self._awaits_ack and not self.abandoned:
            self._advance(last)

    def failed(self, message: ReceivedMessage) -> None:
        """It is to be delivered once more."""
        self._again(message, self._count(message))

    def suspect(self, messages: list[ReceivedMessage]) -> None:
        """One of them failed, nobody knows which: once more, without counting it."""
        self._again(messages[0], 1)

    def rejected(self, message: ReceivedMessage) -> None:
        """It was put aside for good. What waits for its ``ack`` before it is acknowledged, too."""
        self.resume_offset = message.next_offset
        self.retries = 0
        self._failures.pop(message.offset, None)
        if not self.abandoned:
            self._unacked.clear()
            self._handed = -1
            self._advance(message)
            self.remember([message])

    def remember(self, messages: list[ReceivedMessage]) -> None:
        """They are duplicates when they come again."""
        self._duplicates.add(messages)

    # -- manual acknowledgement

    def ack(self, message: ReceivedMessage) -> None:
        """
        This message and all before it are processed.

        :raises InvalidState: it is not waiting for that.
        """
        self._check_manual(message)
        self._advance(message)
        done: dict[int, int] = {}
        while self._unacked and self._unacked[0][0] <= message.offset:
            offset, message_id = self._unacked.popleft()
            done[message_id] = offset
        self._duplicates.add_places(message.topic, message.partition, done)

    def roll_back(self, message: ReceivedMessage) -> None:
        """
        Everything behind the last ``ack`` is delivered again; it counts as a failure of this
        message.

        :raises InvalidState: this message is not waiting for its ``ack``.
        """
        self._check_manual(message)
        self._unacked.clear()
        self._handed = -1
        self.retries = self._count(message)
        self.rolled_back = True
        self.resume_offset = self.position.offset

    def seek(self, offset: int) -> None:
        """The user wants to go on there; what is under way does not count."""
        self.move_to(offset)
        self.position.offset = offset
        self.position.message_id = -1
        # The end is stored when it is known where that is; until then the old place is safer.
        self.position.modified = offset != MAX_OFFSET
        self._unacked.clear()
        self._handed = -1
        self._failures.clear()
        self.rolled_back = True
        self._duplicates.forget(self.position.topic, self.position.partition)

    def _check_manual(self, message: ReceivedMessage) -> None:
        what = f"{message.topic} {message.partition} offset {message.offset}"
        if self.auto_ack:
            raise InvalidState(
                f"{what} is acknowledged automatically; subscribe with auto_ack=False"
            )
        if self.abandoned:
            raise InvalidState(f"{what}: the partition belongs to another consumer now")
        if message.offset < self.position.offset:
            raise InvalidState(f"{what} has been acknowledged")
        if message.offset > self._handed:
            raise InvalidState(f"{what} was rolled back and is delivered again")

    @property
    def _awaits_ack(self) -> bool:
        """Whether the listener got messages that it has to acknowledge."""
        return self._handed >= self.position.offset

    # -- details

    def _count(self, message: ReceivedMessage) -> int:
        """One failure more; how many there are."""
        count = self._failures[message.offset] = self._failures.get(message.offset, 0) + 1
        return count

    def _again(self, message: ReceivedMessage, retries: int) -> None:
        self.retries = retries
        self.resume_offset = message.offset
        if self._handed >= message.offset:
            self._handed = message.offset - 1
            while self._unacked and self._unacked[-1][0] >= message.offset:
                self._unacked.pop()

    def _advance(self, last: ReceivedMessage) -> None:
        position = self.position
        position.offset = last.next_offset
        position.message_id = last.id
        position.modified = True
        if self._failures:
            end = position.offset
            self._failures = {each: n for each, n in self._failures.items() if each >= end}
