"""What the log says about a slave that does not take what it is sent; seldom, however often that
happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from metamorphosis.seldom import Seldom

if TYPE_CHECKING:
    from metamorphosis.interfaces import IRuntime

SHOWN: Final = 300
"""Characters of an answer."""


class SlaveComplaints:
    """Thread: reactor."""

    _log = Logger()

    def __init__(self, runtime: IRuntime) -> None:
        self._refused = Seldom(runtime.seconds)
        self._late = Seldom(runtime.seconds)

    def refused(self, status: int, text: bytes) -> None:
        """The slave has not taken a put."""
        if self._refused.may_log():
            self._log.warn(
                "The slave refuses a put: {status} {text}",
                status=status,
                text=text[:SHOWN].decode("utf-8", "replace"),
            )

    def late(self, count: int, limit: float) -> None:
        """The slave has not answered in time."""
        if count and self._late.may_log():
            self._log.warn(
                "The slave has not answered {count} puts within {limit} s", count=count, limit=limit
            )
