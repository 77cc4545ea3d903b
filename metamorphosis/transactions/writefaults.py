"""The log lines about failed writes of the journal: the begin and the end of a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from metamorphosis.transactions.redofile import OutcomeUnknown, RedoFile


class WriteFaults:
    """The faults of one journal. Thread: reactor."""

    _log = Logger()

    def __init__(self) -> None:
        self._failing = False

    def written(self, file: RedoFile, error: BaseException | None) -> None:
        """
        A write has ended.

        :param error: the reason of a refusal of its records; None: they were written.
        """
        if error is not None and not self._failing:
            self._failing = True
            self._log.error(
                "Append to {path} failed at {position}, transactions are refused until it works"
                " again: {error}",
                path=file.path,
                position=file.size,
                error=error,
            )
        elif error is None and self._failing:
            self._failing = False
            self._log.info("Append to {path} works again", path=file.path)

    def unknown(self, file: RedoFile, error: OutcomeUnknown) -> None:
        """A write has failed, and its records may be found in the file."""
        self._log.critical(
            "Could not write {path} at {position}, nor cut off what was written: {error}. Whether"
            " the last transactions are committed is unknown until the broker is started again",
            path=file.path,
            position=file.size,
            error=error,
        )
