"""Log lines about records that the slave refuses or does not answer, at a limited rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from metamorphosis.seldom import Seldom

if TYPE_CHECKING:
    from metamorphosis.interfaces import IRuntime

SHOWN: Final = 300
"""Characters of a reply in the log line."""


class SlaveComplaints:
    """Thread: reactor."""

    _log = Logger()

    def __init__(self, runtime: IRuntime) -> None:
        self._refused = Seldom(runtime.seconds)
        self._late = Seldom(runtime.seconds)

    def refused(self, status: int, text: bytes) -> None:
        """The slave has refused a put."""
        if self._refused.may_log():
            self._log.warn(
                "The slave refuses a put: {status} {text}",
                status=status,
                text=text[:SHOWN].decode("utf-8", "replace"),
            )

    def late(self, count: int, limit: float) -> None:
        """The slave has not replied in time."""
        if count and self._late.may_log():
            self._log.warn(
                "The slave has not answered {count} puts within {limit} s", count=count, limit=limit
            )
