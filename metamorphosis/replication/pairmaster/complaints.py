"""What the log says about a slave that does not take what it is sent; seldom, however often that
happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

if TYPE_CHECKING:
    from metamorphosis.interfaces import IRuntime

SECONDS: Final = 10.0
"""Between two lines of one kind."""

SHOWN: Final = 300
"""Characters of an answer."""


class SlaveComplaints:
    """Thread: reactor."""

    _log = Logger()

    def __init__(self, runtime: IRuntime) -> None:
        self._runtime = runtime
        self._refused = self._late = float("-inf")  # when it was said last

    def refused(self, status: int, text: bytes) -> None:
        """The slave has not taken a put."""
        now = self._runtime.seconds()
        if now - self._refused >= SECONDS:
            self._refused = now
            self._log.warn(
                "The slave refuses a put: {status} {text}",
                status=status,
                text=text[:SHOWN].decode("utf-8", "replace"),
            )

    def late(self, count: int, limit: float) -> None:
        """The slave has not answered in time."""
        now = self._runtime.seconds()
        if count and now - self._late >= SECONDS:
            self._late = now
            self._log.warn(
                "The slave has not answered {count} puts within {limit} s", count=count, limit=limit
            )
