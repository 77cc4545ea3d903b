"""
Changes on their way to the disk, and the replies that wait for them.

Changes collect in the tree and the sessions while the previous batch is committed. A batch is
written on the reactor thread, a few microseconds per row, and only its ``COMMIT``, which waits for
the disk, runs in a worker: so two threads never compete for the interpreter.

``gathering`` decides when the batch after a commit is written; if all clients wait for it, the
reactor thread itself commits, see ``lone``.

Batches are numbered. A packet that is sent after a change has the number of the change's batch, its
*barrier*, and leaves when that batch is ``durable``.

One activity at a time uses the database; ``State`` names it:

    state        event                                            next
    IDLE         a change, at the end of the turn: begun          COMMITTING
    IDLE         the same, and another process has a lock         LOCKED
    IDLE         tidy                                             TIDYING
    LOCKED       the lock is gone: the batch is written           COMMITTING
    COMMITTING   on the disk: waiters are released                GATHERING, or IDLE
    GATHERING    the next batch has gathered                      IDLE; goes on if there is more
    TIDYING      done                                             IDLE; goes on if there is more
    any          the disk fails, or ``stop``                      STOPPED
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from metamorphosis.gathering import Gathering
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.lone import LoneClient

if TYPE_CHECKING:
    from metamorphosis.zookeeper.sessions import Sessions
    from metamorphosis.zookeeper.storage import Storage
    from metamorphosis.zookeeper.tree import Tree

NOTED_SECONDS = 1.0
"""A longer lock of another process is logged."""

REACTOR_CHANGES = 64
"""Changes that the reactor itself may commit: more take longer to write than a thread to start."""


class State(Enum):
    """The activity that uses the database; see the module's text."""

    IDLE = "nothing"
    LOCKED = "another process has a lock on it"
    COMMITTING = "a batch is on its way to the disk"
    GATHERING = "nothing; the clients that were answered may send more for the next batch"
    TIDYING = "free pages are returned to the file system"
    STOPPED = "it is no longer used"


class Waiter(Protocol):
    """A connection that waits for a batch."""

    def release(self, durable: int) -> None:
        """Every batch up to ``durable`` is on the disk."""


class Commits:
    """
    The batches of one tree and its sessions, until one of them fails. Thread: reactor.

    :ivar barrier: the newest batch with a change; packets sent now wait for it.
    :ivar durable: the newest batch on the disk.
    :ivar committing: the batch that is being committed, or waits for a lock; 0: none.
    :param clock: the reactor's; a batch is written at the end of its turn.
    :param on_failure: called with the error of a batch that is not on the disk; after that no
        waiter is released.
    :param gather: batches adapt to measured behaviour of the clients; see ``gathering`` and
        ``lone``.
    """

    _log = Logger()

    def __init__(
        self,
        tree: Tree,
        sessions: Sessions,
        storage: Storage,
        threads: IWorkerThreads,
        clock: IReactorTime,
        on_failure: Callable[[BaseException], None],
        gather: bool = False,
    ) -> None:
        self.barrier = 0
        self.durable = 0
        self.committing = 0
        self._tree = tree
        self._sessions = sessions
        self._storage = storage
        self._threads = threads
        self._clock = clock
        self._on_failure = on_failure
        self._state = State.IDLE
        self._collected = 0  # changes since the last batch was written
        self._flying = 0  # changes in the batch that is being committed
        self._gathering = Gathering(clock, lambda: self._collected, self._gathered, gather)
        self._lone = LoneClient(gather, REACTOR_CHANGES)
        self._untidy = False  # ``tidy`` was called during a batch
        self._waiters: dict[int, list[Waiter]] = {}

    @property
    def slow(self) -> int:
        """The number of batches that took the disk longer than a second."""
        return self._storage.slow_commits

    def changed(self) -> None:
        """Note that the tree or the sessions have changed."""
        self._collected += 1
        if self._collected > 1:
            return
        self.barrier += 1
        if self._state is State.IDLE:
            self._clock.callLater(0, self._write)

    def wait(self, waiter: Waiter) -> None:
        """Call ``waiter.release`` when the present ``barrier`` is durable."""
        self._waiters.setdefault(self.barrier, []).append(waiter)

    def stop(self) -> None:
        """Write no more batches; the one being committed may still succeed."""
        self._state = State.STOPPED
        self._waiters.clear()

    def tidy(self) -> None:
        """Do the deferred work of the storage, between two batches. Called about once a second."""
        if not self._storage.untidy:
            return
        if self._state is State.IDLE:
            self._tidy()
        else:
            self._untidy = True

    def _tidy(self) -> None:
        self._state = State.TIDYING
        self._untidy = False
        self._threads.submit(self._storage.tidy, self._tidied)

    def _tidied(self, _: None, error: BaseException | None) -> None:
        if self._state is State.TIDYING:
            if error is not None:
                self._fail(error)
            else:
                self._go_on()

    def _go_on(self) -> None:
        """The database is free: tidy or write next."""
        self._state = State.IDLE
        if self._untidy:
            self._tidy()
        else:
            self._write()

    def _write(self) -> None:
        if self._state is not State.IDLE or not self._collected:
            return
        self.committing = self.barrier
        try:
            is_open = self._storage.begin()
        except Exception as error:
            self._fail(error)
            return
        if is_open:
            self._commit()
        else:
            self._state = State.LOCKED
            self._threads.submit(self._storage.wait_and_begin, self._begun)

    def _begun(self, seconds: float | None, error: BaseException | None) -> None:
        """The wait for the other process's lock has ended, with or without success."""
        if self._state is not State.LOCKED:
            return
        if seconds is not None and seconds > NOTED_SECONDS:
            self._log.warn(
                "Another process had a lock on {path} for {seconds:.1f} s; changes waited for it",
                path=self._storage.path,
                seconds=seconds,
            )
        if error is not None:
            self._fail(error)
        else:
            self._commit()

    def _commit(self) -> None:
        """Write all changes into the open batch, and commit it."""
        self._state = State.COMMITTING
        self._flying, self._collected = self._collected, 0
        try:
            self._storage.write(
                self._tree.take_changes(), self._sessions.take_changes(), self._tree.zxid
            )
        except Exception as error:
            self._fail(error)
            return
        if not self._lone.flush_here(self._flying):
            self._threads.submit(self._storage.commit, self._committed)
            return
        try:
            seconds = self._storage.commit()
        except Exception as error:
            self._committed(None, error)
        else:
            self._committed(seconds, None)

    def _committed(self, seconds: float | None, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        seconds = seconds or 0.0
        self._lone.flush_seconds = seconds
        self.durable, self.committing = self.committing, 0
        for waiter in self._waiters.pop(self.durable, ()):
            waiter.release(self.durable)
        if self._state is not State.COMMITTING:
            return
        if self._gathering.begin(self._flying, seconds):
            self._state = State.GATHERING
        else:
            self._go_on()

    def _gathered(self) -> None:
        """The next batch may be written."""
        if self._state is State.GATHERING:
            self._go_on()

    def _fail(self, error: BaseException) -> None:
        self.stop()
        self._on_failure(error)
