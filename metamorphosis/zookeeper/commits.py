"""
When what was changed is on the disk, and who waits for it.

Changes collect in the tree and the sessions while the batch before them is committed. A batch is
written on the reactor thread, a few microseconds a row, and only its ``COMMIT``, which waits for
the disk, runs in a worker: so no two threads ever compete for the interpreter.

Batches are numbered. What is sent after a change carries the number of the batch that the change
is in, its *barrier*, and leaves when that batch is ``durable``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from metamorphosis.interfaces import IWorkerThreads

if TYPE_CHECKING:
    from metamorphosis.zookeeper.sessions import Sessions
    from metamorphosis.zookeeper.storage import Storage
    from metamorphosis.zookeeper.tree import Tree


class Waiter(Protocol):
    """Who waits for a batch: a connection."""

    def release(self, durable: int) -> None:
        """Every batch up to ``durable`` is on the disk."""


class Commits:
    """
    The batches of one tree and its sessions, until one of them fails. Thread: reactor.

    :ivar barrier: the newest batch that has a change; who sends waits for it.
    :ivar durable: the newest batch on the disk.
    :ivar committing: the batch that is on its way there, or 0.
    :param later: runs a function at the end of the reactor's turn.
    :param on_failure: told the error of a batch that is not on the disk; nothing that waits is ever
        released after that.
    """

    def __init__(
        self,
        tree: Tree,
        sessions: Sessions,
        storage: Storage,
        threads: IWorkerThreads,
        later: Callable[[Callable[[], None]], object],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.barrier = 0
        self.durable = 0
        self.committing = 0
        self._tree = tree
        self._sessions = sessions
        self._storage = storage
        self._threads = threads
        self._later = later
        self._on_failure = on_failure
        self._changed = False  # since the last batch was written
        self._stopped = False
        self._waiters: dict[int, list[Waiter]] = {}

    def changed(self) -> None:
        """Something in the tree or the sessions has changed."""
        if self._changed:
            return
        self._changed = True
        self.barrier += 1
        if not self.committing:
            self._later(self._write)

    def wait(self, waiter: Waiter) -> None:
        """Call ``waiter.release`` when the present ``barrier`` is durable."""
        self._waiters.setdefault(self.barrier, []).append(waiter)

    def stop(self) -> None:
        """Write nothing any more; what is being committed still may be."""
        self._stopped = True
        self._waiters.clear()

    def _write(self) -> None:
        if self._stopped or self.committing or not self._changed:
            return
        self._changed = False
        self.committing = self.barrier
        try:
            self._storage.write(
                self._tree.take_changes(), self._sessions.take_changes(), self._tree.zxid
            )
        except Exception as error:
            self._fail(error)
            return
        self._threads.submit(self._storage.commit, self._committed)

    def _committed(self, _: None, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        self.durable, self.committing = self.committing, 0
        for waiter in self._waiters.pop(self.durable, ()):
            waiter.release(self.durable)
        # Writing before the replies, or after what they make clients send, measured the same.
        self._write()

    def _fail(self, error: BaseException) -> None:
        self.stop()
        self._on_failure(error)
