"""
``heuristic.log``, rewritten at every change of the outcomes that administrators decided.

Differs: the original writes it once per ``checkpointInterval``, so that a crash loses outcomes, and
answers FORGET before the write.

Source: ``HeuristicTransactionJournal``; section 11.2 of the specification of transactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from metamorphosis.errors import JournalError
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.store.disk import Disk
from metamorphosis.transactions.heuristiclog import Heuristic
from metamorphosis.transactions.journalfiles import write_heuristic_log
from metamorphosis.transactions.redofile import Written
from metamorphosis.wire.transactionids import XATransactionId

Outcomes = Mapping[XATransactionId, Heuristic]


class OutcomeFile:
    """
    The writes of the file. Thread: reactor.

    :param directory: the directory of the journal.
    :param threads: for the writes, one at a time; changes during one are written together.
    """

    _log = Logger()

    def __init__(self, directory: str, threads: IWorkerThreads, disk: Disk) -> None:
        self._directory = directory
        self._threads = threads
        self._disk = disk
        self._next: Outcomes | None = None
        self._waiting: list[Deferred[None]] = []  # for the write of ``_next``
        self._writing: list[Deferred[None]] | None = None  # for the one that runs

    def write(self, outcomes: Outcomes) -> Deferred[None]:
        """
        Write all outcomes that are decided when the write begins.

        :param outcomes: the same mapping each time.
        :returns: fires when the file is on the disk; with a ``JournalError``, which is logged
            already, if that fails.
        """
        self._next = outcomes
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if self._writing is None:
            self._write()
        return done

    def forget(
        self, outcomes: dict[XATransactionId, Heuristic], xid: XATransactionId
    ) -> Written | None:
        """
        Write all outcomes except one.

        :returns: completes when that is done; a failure restores the outcome. None: there is no
            such outcome.
        """
        outcome = outcomes.pop(xid, None)
        if outcome is None:
            return None
        forgotten = Written()

        def remembered(failure: Failure) -> None:
            outcomes.setdefault(xid, outcome)
            forgotten.complete(failure.value)

        self.write(outcomes).addCallbacks(forgotten.complete, remembered)
        return forgotten

    def _write(self) -> None:
        outcomes, self._next = self._next, None
        if outcomes is None:
            return
        self._writing, self._waiting = self._waiting, []
        # An outcome that a failed write has restored is in the next one.
        work = partial(write_heuristic_log, self._disk, self._directory, dict(outcomes))
        self._threads.submit(work, self._written)

    def _written(self, _: object, error: BaseException | None) -> None:
        waiting, self._writing = self._writing or [], None
        if error is None:
            for done in waiting:
                done.callback(None)
        else:
            self._fail(waiting, error)
        if self._writing is None:
            self._write()

    def _fail(self, waiting: list[Deferred[None]], error: BaseException) -> None:
        self._log.error(
            "Could not write the outcomes that were decided by hand to {directory}: {error}",
            directory=self._directory,
            error=error,
        )
        text = f"Could not write the outcomes that were decided by hand to {self._directory}"
        for done in waiting:
            done.errback(JournalError(f"{text}: {error}"))
