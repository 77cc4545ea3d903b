"""The core's log lines in the standard library's ``logging``."""

from __future__ import annotations

import logging


class StandardLog:
    """
    A ``client.links.Log``.

    Fields are put into the text only if the level is enabled.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, format: str, **fields: object) -> None:
        """See ``Log``."""
        self._write(logging.DEBUG, format, fields)

    def info(self, format: str, **fields: object) -> None:
        """See ``Log``."""
        self._write(logging.INFO, format, fields)

    def warn(self, format: str, **fields: object) -> None:
        """See ``Log``."""
        self._write(logging.WARNING, format, fields)

    def error(self, format: str, **fields: object) -> None:
        """See ``Log``."""
        self._write(logging.ERROR, format, fields)

    def failure(self, format: str, **fields: object) -> None:
        """See ``Log``."""
        self._write(logging.ERROR, format, fields, exc_info=True)

    def _write(
        self, level: int, format: str, fields: dict[str, object], exc_info: bool = False
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", format.format(**fields), exc_info=exc_info)
