"""
The replies of one connection: in request order, each as soon as the outcome that it waits for is
known.

Theory of operation. The replies to one received chunk stand in a ``ReplyGroup``, the groups in a
``ReplyQueue``. A *run* is a sequence of replies in a group that wait for the same outcome
(``Awaited``): a batch that is being written, a place that is filled later (``Slot``), a record that
a journal forces, a batch that a second broker must have too. ``drain`` sends from the front of the
queue up to the first reply that must wait. When the outcome that a run waits for is a failure, the
run's own function turns its replies into refusals, before they leave.

Law: no reply leaves before an earlier one. A get that is held (``longpoll``) gives up its place:
its reply does not hold back later ones, but it never leaves before the reply to an earlier request.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from metamorphosis.store.batch import PENDING, STORED, Outcome

if TYPE_CHECKING:
    from metamorphosis.store.segment import Segment


class FileReply:
    """
    A ``value`` reply whose body is a range of a segment file.

    It keeps the file open until ``release``, even if retention deletes the file meanwhile.
    """

    __slots__ = ("head", "length", "position", "segment")

    def __init__(self, head: bytes, segment: Segment, position: int, length: int) -> None:
        self.head = head
        self.segment = segment
        self.position = position
        self.length = length
        segment.retain()

    def release(self) -> None:
        """Let go of the file: the range was sent, or never will be."""
        self.segment.release()


Reply = bytes | FileReply


class Awaited(Protocol):
    """
    An outcome that replies wait for.

    :ivar state: once it is no longer ``PENDING`` it never changes again.
    :ivar waiters: called once each when the state has changed.
    """

    state: Outcome
    waiters: list[Callable[[], None]]


Refuse = Callable[[Any, int, list[Reply]], list[Reply]]
"""
Makes the refusals that replace the replies of a run whose ``Awaited`` has failed, one for one.

Its arguments: the ``Awaited`` that has failed, the number in it of the record that the first reply
stands for (the others follow it one by one), and the replies as they were prepared.
"""

Run = tuple[Awaited | None, int, int, Refuse | None]
"""The outcome (None: the replies wait for nothing), index of the first reply, number of its record
in the ``Awaited``, and the function that makes the refusals."""


class Transport(Protocol):
    """The destination of replies. If it also has ``write_file``, file ranges are passed to that."""

    def write(self, data: bytes) -> None:
        """Send."""


class ReplyGroup:
    """
    The replies to one received chunk; they leave together.

    :ivar replies: encoded replies and file ranges, in request order.
    :ivar runs: each extends to the start of the next. Replies before the first run wait for
        nothing.
    :ivar files: there is a ``FileReply`` among them.
    :ivar failed: something awaited has failed.
    :ivar size: bytes of the answered requests, and of their replies as far as ``ReplyQueue.add``
        has got them while the chunk was being taken in; for back-pressure.
    :ivar number: groups stand in the queue in the order of their numbers.
    """

    __slots__ = ("failed", "files", "number", "replies", "runs", "size")

    def __init__(self, number: int = 0) -> None:
        self.replies: list[Reply] = []
        self.runs: list[Run] = []
        self.files = False
        self.failed = False
        self.size = 0
        self.number = number

    def add(
        self,
        reply: Reply,
        awaited: Awaited | None = None,
        record: int = 0,
        refuse: Refuse | None = None,
    ) -> None:
        """
        One more reply.

        :param awaited: the outcome that the reply waits for.
        :param record: the number in ``awaited`` of the record that the reply stands for.
        :param refuse: makes the refusal if ``awaited`` fails.
        """
        runs = self.runs
        index = len(self.replies)
        if runs:
            last, start, first, _ = runs[-1]
            follows = last is awaited and (awaited is None or record - first == index - start)
        else:
            follows = awaited is None
        if not follows:
            runs.append((awaited, index, record, refuse))
        self.replies.append(reply)
        if type(reply) is FileReply:
            self.files = True

    def undecided(self) -> Awaited | None:
        """The first outcome that is still pending. If None, ``failed`` is final."""
        for run in self.runs:
            awaited = run[0]
            if awaited is not None and awaited.state is not STORED:
                if awaited.state is PENDING:
                    return awaited
                self.failed = True
        return None

    def put_right(self) -> None:
        """Replace the replies whose outcome is a failure with refusals."""
        runs = self.runs
        ends = [run[1] for run in runs[1:]] + [len(self.replies)]
        for (awaited, start, record, refuse), end in zip(runs, ends):
            if awaited is not None and refuse is not None and awaited.state is not STORED:
                self.replies[start:end] = refuse(awaited, record, self.replies[start:end])

    def discard(self) -> None:
        """The replies will never be sent."""
        if self.files:
            for reply in self.replies:
                if isinstance(reply, FileReply):
                    reply.release()
        self.replies.clear()
        self.runs.clear()


class Slot:
    """
    A place in request order for a reply that is not known yet, and the ``Awaited`` of that reply.

    :ivar state: ``STORED`` when it has been filled.
    """

    __slots__ = ("_group", "_index", "state", "waiters")

    def __init__(self, group: ReplyGroup) -> None:
        self.state: Outcome = PENDING
        self.waiters: list[Callable[[], None]] = []
        self._group = group
        self._index = len(group.replies)
        group.add(b"", self)

    def fill(self, reply: Reply) -> None:
        """
        Set the reply. Harmless after the connection has ended.

        :raises RuntimeError: the slot was filled before.
        """
        if self.state is not PENDING:
            raise RuntimeError("A reply was given twice.")
        self.state = STORED
        group = self._group
        if self._index < len(group.replies):
            group.replies[self._index] = reply
            if isinstance(reply, FileReply):
                group.files = True
        elif isinstance(reply, FileReply):
            reply.release()
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class ReplyQueue:
    """
    All replies of one connection that have not left. Thread: reactor.

    :param wake: called when a reply may be ready; lets ``drain`` be called soon.
    :ivar size: bytes of the requests whose replies stand here, and of long replies, see
        ``ReplyGroup.size``.
    """

    __slots__ = ("_awaited", "_groups", "_number", "_open", "_wake", "size")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.size = 0
        self._wake = wake
        self._groups: list[ReplyGroup] = []  # an empty deque has 760 bytes
        self._open: ReplyGroup | None = None  # for the chunk that is being taken in
        self._number = 0
        self._awaited: Awaited | None = None  # the pending outcome that calls ``_decided``

    def __bool__(self) -> bool:
        """Whether a reply has not been sent yet."""
        return bool(self._groups)

    def __len__(self) -> int:
        """The number of replies that have not been sent yet."""
        return sum(len(group.replies) for group in self._groups)

    # Replies in

    def begin(self) -> ReplyGroup:
        """A chunk is being taken in: replies go to this group until ``end``."""
        self._number += 1
        self._open = group = ReplyGroup(self._number)
        return group

    def end(self, size: int) -> bool:
        """
        The chunk has been taken in; returns whether there are replies to it.

        :param size: bytes of its requests.
        """
        group, self._open = self._open, None
        if group is None or not group.replies:
            return False
        group.size += size
        self.size += group.size
        self._groups.append(group)
        return True

    def add(
        self,
        reply: Reply,
        awaited: Awaited | None = None,
        record: int = 0,
        refuse: Refuse | None = None,
    ) -> None:
        """Add a reply after all others; see ``ReplyGroup.add``."""
        group = self._last()
        group.add(reply, awaited, record, refuse)
        if group is self._open and isinstance(reply, bytes):
            group.size += len(reply)

    def reserve(self) -> Slot:
        """A place after all replies so far, to be filled later."""
        return Slot(self._last())

    def _last(self) -> ReplyGroup:
        """The group for the next reply: a new one unless a chunk is being taken in."""
        if self._open is not None:
            return self._open
        self._number += 1
        group = ReplyGroup(self._number)
        self._groups.append(group)
        self._wake()
        return group

    @property
    def place(self) -> int:
        """The position of the request that is being taken in among the others; for ``add_late``."""
        return self._number

    def add_late(self, reply: Reply, place: int) -> None:
        """
        Answer a request that was held: after the replies to all earlier requests, and before those
        to later ones.
        """
        if self._open is not None and self._open.number == place:
            self._open.add(reply)
            return
        group = ReplyGroup(place)
        group.add(reply)
        groups = self._groups
        index = 0
        while index < len(groups) and groups[index].number <= place:
            index += 1
        groups.insert(index, group)
        self._wake()

    # Replies out

    def drain(self, transport: Transport) -> int:
        """
        Send every reply that waits for nothing, in order, with as few writes as the files between
        them allow. When the transport fails, ``clear`` still counts all requests.

        :returns: by how much ``size`` is less after this call.
        """
        groups = self._groups
        ready: list[Any] = []
        answered = leaving = 0
        while leaving < len(groups):
            group = groups[leaving]
            awaited = group.undecided()
            if awaited is not None:
                if awaited is not self._awaited:
                    self._awaited = awaited
                    awaited.waiters.append(self._decided)
                break
            if group.failed:
                group.put_right()
            leaving += 1
            answered += group.size
            if group.files:
                del groups[:leaving]
                leaving = 0
                send_mixed(transport, ready + group.replies)
                ready = []
            else:
                ready += group.replies
        del groups[:leaving]
        if ready:
            transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        self.size -= answered
        return answered

    def _decided(self) -> None:
        """The awaited outcome is known."""
        self._awaited = None
        self._wake()

    def clear(self) -> int:
        """Discard all replies; returns what ``size`` was."""
        if self._open is not None:  # taking its chunk in has failed
            self._groups.append(self._open)
            self._open = None
        for group in self._groups:
            group.discard()
        self._groups.clear()
        size, self.size = self.size, 0
        return size


def send_mixed(transport: Transport, replies: list[Reply]) -> None:
    """Send replies with file ranges among them."""
    texts: list[bytes] = []
    for reply in replies:
        if isinstance(reply, FileReply):
            if texts:
                transport.write(b"".join(texts))
                texts = []
            _send_file(transport, reply)
        else:
            texts.append(reply)
    if texts:
        transport.write(b"".join(texts))


def _send_file(transport: Transport, reply: FileReply) -> None:
    write_file = getattr(transport, "write_file", None)
    if write_file is not None:
        write_file(reply.head, reply.segment, reply.position, reply.length)
    else:
        data = os.pread(reply.segment.fd, reply.length, reply.position)
        transport.write(reply.head + data)
    reply.release()
