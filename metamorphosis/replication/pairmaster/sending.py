"""Records that are sent to the slave and are not puts: its missing records, and single records that
test the slave."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, succeed

from metamorphosis.errors import PeerMisbehaved, PeerRefused, PeerUnreachable
from metamorphosis.message import HEADER, checksum

if TYPE_CHECKING:
    from metamorphosis.errors import PeerError
    from metamorphosis.replication.pairmaster.flights import Flight
    from metamorphosis.replication.pairmaster.frames import Pieces
    from metamorphosis.replication.pairmaster.syncs import Syncs

WINDOW_BYTES: Final = 4 << 20
"""Bytes of missing records that may be pending at a time."""

ANSWER_SECONDS: Final = 30.0
"""Time limit of the replies to a piece of the missing records."""

PROBE_BODY: Final = b"test"

ACCEPTED: Final = 200
REFUSED: Final = 500
TIMED_OUT: Final = -1
NOT_SENT: Final = -2


class Question:
    """
    One record, sent for its reply. Thread: reactor. A ``flights.Sender``.

    :ivar answer: fires with a status of this module, and the text of the reply.
    """

    def __init__(self, syncs: Syncs) -> None:
        self.answer: Deferred[tuple[int, bytes]] = Deferred()
        self._syncs = syncs

    def ask(self, head: bytes, pieces: Pieces, seconds: float) -> Deferred[tuple[int, bytes]]:
        """Send it; never fails."""
        if self._syncs.send(self, head, pieces, seconds) is None:
            return succeed((NOT_SENT, b""))
        return self.answer

    def accepted(self, flight: Flight, record: int, offsets: list[int]) -> None:
        """See ``Sender``."""
        self.answered(flight, record, offsets[0], b"")

    def answered(self, flight: Flight, record: int, offset: int | None, text: bytes) -> None:
        """See ``Sender``."""
        flight.done = flight.count
        self._tell(REFUSED if offset is None else ACCEPTED, text)

    def overdue(self, flight: Flight) -> int:
        """See ``Sender``."""
        self._tell(TIMED_OUT, b"")
        return 0

    def lost(self, flight: Flight) -> int:
        """See ``Sender``."""
        self._tell(NOT_SENT, b"")
        return 0

    def _tell(self, status: int, text: bytes) -> None:
        if not self.answer.called:
            self.answer.callback((status, text))


def probe(
    syncs: Syncs, head: bytes, message_id: int, seconds: float
) -> Deferred[tuple[int, bytes]]:
    """
    Test whether the slave stores records; a Java slave stores this one.

    :param head: of the topic of probes.
    """
    header = HEADER.pack(len(PROBE_BODY), checksum(PROBE_BODY), message_id, 0)
    return Question(syncs).ask(head, [header, PROBE_BODY], seconds)


def knock(syncs: Syncs, head: bytes, message_id: int) -> Deferred[tuple[int, bytes]]:
    """
    Make the slave open a partition, by a record with a wrong checksum, which is not stored.

    A Java slave that was started with its journal in the directory of its partitions (the default)
    does not show some of them until a record arrives for them.
    """
    header = HEADER.pack(len(PROBE_BODY), checksum(PROBE_BODY) ^ 1, message_id, 0)
    return Question(syncs).ask(head, [header, PROBE_BODY], ANSWER_SECONDS)


class Sending:
    """
    The slave's missing records of one partition. Thread: reactor. A ``flights.Sender``.

    The slave must store each at the next offset; after a deviation no more are sent.

    :ivar end: the end of the slave's log by its last reply.
    """

    def __init__(self, syncs: Syncs, head: bytes, end: int) -> None:
        self.end = end
        self._syncs = syncs
        self._head = head
        self._under_way = 0  # bytes
        self._silent = False  # the slave does not reply
        self._error: PeerError | None = None
        self._waiting: Deferred[None] | None = None

    async def send(self, pieces: Pieces, size: int) -> None:
        """
        Send these next, when the window allows.

        :raises PeerError: the slave has not stored the earlier ones.
        """
        while self._under_way and self._under_way + size > WINDOW_BYTES and self._error is None:
            await self._change()
        self._check()
        if self._syncs.send(self, self._head, pieces, ANSWER_SECONDS) is None:
            raise PeerUnreachable("the connection to the slave was lost")
        self._under_way += size

    async def finish(self) -> None:
        """
        Wait until every record has a reply, of any kind: before, the state of the slave's log is
        unknown.

        :raises PeerError: as ``send``; ``PeerUnreachable`` if some have no reply.
        """
        while self._under_way and not self._silent:
            await self._change()
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _change(self) -> Deferred[None]:
        self._waiting = Deferred()
        return self._waiting

    # See flights.Sender

    def accepted(self, flight: Flight, record: int, offsets: list[int]) -> None:
        """See ``Sender``; replies of a partition come in order, except after a refusal."""
        count = len(offsets)
        sizes = flight.sizes[record : record + count]
        expected = list(accumulate(sizes, initial=self.end))
        if record != flight.done or offsets != expected[:-1]:
            where = f"stored at {offsets[0]} what belongs at {self.end}"
            self._fail(PeerMisbehaved(f"the slave has {where}"))
        self.end = expected[-1]
        self._pass(flight, record, count)
        self._wake()

    def answered(self, flight: Flight, record: int, offset: int | None, text: bytes) -> None:
        """See ``Sender``."""
        if offset is not None:
            self.accepted(flight, record, [offset])
            return
        self._pass(flight, record, 1)
        self._fail(PeerRefused("sync", REFUSED, text.decode("utf-8", "replace")))

    def overdue(self, flight: Flight) -> int:
        """See ``Sender``."""
        self._silent = True
        self._fail(PeerUnreachable(f"the slave has not answered for {ANSWER_SECONDS:g} s"))
        return 0

    def lost(self, flight: Flight) -> int:
        """See ``Sender``."""
        self._silent = True
        self._fail(PeerUnreachable("the connection to the slave was lost"))
        return 0

    def _pass(self, flight: Flight, record: int, count: int) -> None:
        """Note the replies to these records. A Java slave's refusal may overtake the replies to
        earlier records, which are still to come."""
        self._under_way -= sum(flight.sizes[record : record + count])
        flight.early.update(dict.fromkeys(range(record, record + count)))
        while flight.done in flight.early:
            del flight.early[flight.done]
            flight.done += 1

    def _fail(self, error: PeerError) -> None:
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
