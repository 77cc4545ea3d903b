"""
The status codes of a ``result``.

Source: ``HttpStatus``.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """
    The outcome of a request in its ``result``; ``metamorphosis.errors`` has the exception of each
    but the first.
    """

    SUCCESS = 200
    #: ``get`` only: the body is the offset to continue from
    MOVED = 301
    BAD_REQUEST = 400
    #: never sent by a broker
    UNAUTHORIZED = 401
    #: the partition was closed by an operator
    FORBIDDEN = 403
    #: no such partition here, or nothing to read at that offset yet
    NOT_FOUND = 404
    INTERNAL_SERVER_ERROR = 500
    #: no responder for the command, or the broker shuts down
    SERVICE_UNAVAILABLE = 503
    #: never on the wire: set by a client when its own timer expires
    GATEWAY_TIMEOUT = 504
