"""
The turn in C, as Python sees it: its calls, its reports and the requests that it leaves.

``native.compiled.Lanes`` (``turnmodule.c``) has a *lane* for each connection whose requests it
answers. ``turn()`` receives from the ready sockets of the set, takes the ordinary puts and gets,
copies each record once into the memory of its store, writes each store with one call, sends the
replies of each connection with one call, and returns a list of everything that it leaves. It
continues with further rounds while sockets are ready, nothing was left and a millisecond is not
over. One ready socket is enough where replies to more than 32 KiB of requests
wait. With group commit the master of a pair goes on for up to three milliseconds more while puts
are expected: as many as it has answered, unless none comes for 60 us. Where Python has nothing to
do afterwards, it waits for the next requests as ``lingering.h`` says, four ms at most.

A lane has two states, and only Python changes them (``lanes``):

    state    event                                                   state
    slow     a request came, nothing is pending (``begin_plain``)    plain: C receives
    plain    a part is left to Python; the connection writes,        slow: Python receives
             pauses or closes

A lane belongs either to a client, and C takes its puts and gets, or to the master of a pair
(``Session.scan``), and C takes its records, ``sync``, and no other requests. The first ``sync`` of
a connection is not ordinary: it decides which connection is the master's. When a newer one takes
over, the older one is aborted and thereby slow: C takes nothing more of it.

These rules hold in addition to those of ``contract`` for each request that is taken:

* ``begin`` is called once a round for each store: it says whether and where the store may be
  written at once. If it returns None, every put to that store is left to ``scan``. ``took`` is
  called once with the written data. For gets ``find`` and ``served`` do the same. C does the same
  as ``begin`` and ``took`` itself where the store is in its usual state (``store.fields``), each
  time by the fields as they are then: it remembers nothing of a store from one round to the next.
* A store that cannot be written at once *collects*: ``collected`` adds the records to its batch,
  which is written at the end of the turn or when the store can. The replies wait in C, in request
  order; a later reply of the same connection stands behind them, and a get is left to Python. When
  the batch is decided, ``release`` sends the replies. If it has failed, the connection's replies go
  to its ``ReplyQueue``, which refuses those of missing records. They go there too if the socket
  does not take them, or more bytes wait than one connection may have.
* The master of a pair sends records to its slave first. Its stores collect in another way, which
  ``replication.pairmaster.appending`` describes.
* ``failed`` continues a write that is short or fails, as the store does. For each reply of the
  round the number of its record and the end of its text are kept until the writes have ended. If a
  record of a connection is not in its file, none of the connection's replies of this round is sent:
  they all go to its ``ReplyQueue``, which refuses only the puts of missing records.
* The list of what is left has the order in which it must be served: ``WAITING`` (replies that
  Python keeps until their batches are decided), ``UNSENT`` (replies that the socket did not take),
  ``BYTES`` (received bytes from the first request on that is not ordinary), then ``EVENT`` (a slow
  socket is ready, or a plain one has ended).
* No call between two rounds' writes opens a file. That could close another, if descriptors are
  scarce, and the new file would get the number to which C is about to write.
* Ids begin with ``MessageIds.start_chunk``, once a round; a record of a master has its id.
* A round takes at most 256 KiB from one connection and 512 KiB from all. A lane keeps at most the
  beginning of one ordinary request of up to 64 KiB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from metamorphosis.broker.replies import FileReply
from metamorphosis.errors import StoreError
from metamorphosis.store.appender import UNKNOWN_END
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.states import Life, Worker
from metamorphosis.store.unflushed import MOST, MOST_IN_ALL

if TYPE_CHECKING:
    from metamorphosis.broker.hotpath.contract import Routes, TakesPuts, TakesRecords
    from metamorphosis.store.appender import Appender, Place
    from metamorphosis.store.batch import Batch
    from metamorphosis.store.segment import Segment

EVENT, BYTES, UNSENT, WAITING = range(4)
"""The kinds of items that the turn leaves; as in ``handback.h``."""

FAR: Final = 1 << 62
"""More than a segment has."""


class TurnStores:
    """
    The methods of the stores for the turn in C. Thread: reactor.

    Each method is called once a round for one store. An exception is a defect.

    :param decided: called with each batch that replies wait for in C, when it is decided.
    :ivar routes: where C looks for the store.
    :ivar holding: this worker, and another life than ``opened``, let a store not be written at
        once.
    :ivar unknown_end: why a store was withdrawn, see ``Appender.withdraw``.
    :ivar most: limits of unflushed bytes, in one store, and in all: ``most_in_all``.
    """

    _log = Logger()
    keep = FileReply
    """Makes a reply with a file range; C may have sent a part of it."""
    holding = Worker.HOLDING
    opened = Life.OPEN
    most = MOST
    most_in_all = MOST_IN_ALL
    unknown_end = UNKNOWN_END

    def __init__(self, routes: Routes, decided: Callable[[Batch], None]) -> None:
        self.routes = routes
        self.decided = decided

    def begin(self, store: TakesPuts) -> Place | None:
        """See ``Appender.begin``."""
        return store.appender.begin()

    def took(self, appender: Appender, data: bytes, count: int) -> None:
        """See ``Appender.took``. The replies have left: an error cannot change them."""
        try:
            appender.took(data, count)
        except Exception:
            appender.withdraw()
            self._log.failure(
                "Accounting for {count} records failed; their partition takes no more messages"
                " until the broker is started again",
                count=count,
            )

    def collected(self, appender: TakesRecords, data: bytes, count: int) -> tuple[Batch, int]:
        """See ``Appender.collected``; after an error the connections of the puts are shut down."""
        return appender.collected(data, count)

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
        Find the segment that holds ``offset``, and retain it.

        :returns: its store, the segment, its descriptor and start, the offset below which a get may
            begin, the offset up to which it may read, and the most bytes that it may return. None:
            such a get is not ordinary, or its file would have to be opened.
        """
        store = self.routes.reads.get((topic, partition))
        if store is None or not store.is_open_at(offset):
            return None
        try:
            found = store.slice(offset, FAR)
        except StoreError:
            return None
        if found is None:
            return None
        segment, _, length = found
        segment.retain()
        limit = min(store.max_offset, segment.end)
        most = self.routes.max_transfer
        return store, segment, segment.fd, segment.start, limit, offset + length, most

    def served(self, store: MessageStore, segment: Segment, count: int) -> None:
        """Count gets that have read from the segment, and release it."""
        store.get_count += count
        segment.release()
