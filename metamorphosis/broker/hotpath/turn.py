"""
The turn in C: what it asks of Python, what it tells Python, and what it leaves.

``native.compiled.Lanes`` (``turnmodule.c``) has a *lane* for each connection whose requests it
answers. ``turn()`` waits for nothing. It receives from the sockets of the set that are ready, takes
the ordinary puts and gets, copies each record once into the memory of its store, writes each store
with one call, sends the replies of each connection with one call, and returns what it leaves. It
goes on with further rounds while sockets are ready, nothing was left and a millisecond is not over.

A lane has two states, and only Python changes them (``lanes``):

    state    event                                                   state
    slow     a request came, nothing is under way (``begin_plain``)  plain: C receives
    plain    something is left; the connection writes, or pauses;    slow: Python receives
             it closes

A lane is either that of a client, of which C takes puts and gets, or that of the master of a pair
(``Session.scan``), of which it takes records, ``sync``, and nothing else. The first ``sync`` of a
connection is not ordinary: it decides which connection is the master's. When a newer one takes
over, the older is aborted, and with that slow: nothing of it is taken after that.

These rules hold, beside those of ``contract`` for each request that is taken:

* A store is asked once a round by ``begin`` whether it may be written at once, and where. None, and
  every put to it is left to ``scan``, whose batches collect. It is told once by ``took`` what was
  written. The same holds of gets, with ``find`` and ``served``.
* A write that is short or fails goes on in ``failed``, as the store does it. For each reply of the
  round the number of its record and the end of its text are kept until the writes are decided.
  Where a record of a connection is not in its file, none of its replies of this round is sent: they
  all go to its ``ReplyQueue``, which refuses exactly those.
* What is left comes in the order in which it has to be served: ``REFUSED``, ``UNSENT`` (replies
  that the socket did not take), ``BYTES`` (received, and not taken: from the first request that is
  not ordinary on), then ``EVENT`` (a slow socket is ready, or a plain one has ended).
* Ids begin with ``MessageIds.start_chunk``, once a round; a record of a master has its id.
* One connection gives at most 256 KiB a round, all together 512 KiB. What is kept of a connection
  is the beginning of an ordinary request of at most 64 KiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from metamorphosis.broker.replies import FileReply
from metamorphosis.errors import StoreError
from metamorphosis.store.messagestore import MessageStore

if TYPE_CHECKING:
    from metamorphosis.broker.hotpath.contract import Routes
    from metamorphosis.store.appender import Appender
    from metamorphosis.store.batch import Batch
    from metamorphosis.store.segment import Segment

EVENT, BYTES, UNSENT, REFUSED = range(4)
"""The kinds of what is left; as in ``handback.h``."""

MOST: Final = 1 << 62
"""More than a segment has."""


class TurnStores:
    """
    The stores, as the turn in C asks for them. Thread: reactor.

    Each method is called once a round for one store, and raises nothing but what is a defect.
    """

    _log = Logger()
    keep = FileReply
    """A reply that C has begun, or not, to send."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def begin(
        self, topic: bytes, partition: bytes, syncs: int
    ) -> tuple[Appender, int, int, int] | None:
        """
        See ``Appender.begin``; the names are as they are spelled on the wire.

        :param syncs: 1: records of a pair's master are to be stored, 0: puts. No store takes both:
            a slave refuses puts.
        """
        stores = self._routes.syncs if syncs else self._routes.puts
        store = stores.get((topic, partition))
        if not isinstance(store, MessageStore):
            return None
        return store.appender.begin()

    def took(self, appender: Appender, data: bytes, count: int) -> None:
        """See ``Appender.took``. The replies have left: an error cannot change them."""
        try:
            appender.took(data, count)
        except Exception:
            self._log.failure("Accounting for {count} records failed", count=count)

    def failed(
        self,
        appender: Appender,
        data: bytes | None,
        ends: Sequence[int],
        written: int,
        number: int,
    ) -> Batch:
        """See ``Appender.failed``; after an error the connections of these puts are shut down."""
        try:
            return appender.failed(data or b"", ends, written, number)
        except Exception:
            self._log.failure("Writing the rest of {count} records failed", count=len(ends))
            raise

    def find(
        self, topic: bytes, partition: bytes, offset: int
    ) -> tuple[MessageStore, Segment, int, int, int, int, int] | None:
        """
        The segment that holds ``offset``, which is retained: its store, it, its descriptor and
        start, the offset below which a get may begin, the one up to which it may read, and the most
        bytes that it returns. None: such a get is not ordinary.
        """
        store = self._routes.reads.get((topic, partition))
        if store is None:
            return None
        try:
            found = store.slice(offset, MOST)
        except StoreError:
            return None
        if found is None:
            return None
        segment, _, length = found
        segment.retain()
        limit = min(store.max_offset, segment.end)
        most = self._routes.max_transfer
        return store, segment, segment.fd, segment.start, limit, offset + length, most

    def served(self, store: MessageStore, segment: Segment, count: int) -> None:
        """So many gets have read from the segment, which is not needed any more."""
        store.get_count += count
        segment.release()
