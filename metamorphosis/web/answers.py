"""
Resources with JSON replies: one function for each method, errors as ``{"error": text}``.

A resource has a function for each method; the value that the function returns, directly or from a
coroutine, is the body. Routes of another subject need a module with its resources, and one line in
``administration.api``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict, is_dataclass

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from metamorphosis.errors import InvalidArgument, MetaQError
from metamorphosis.web.channel import peer_user

Answer = Callable[[Request], object]

BAD_REQUEST, NOT_FOUND, NOT_ALLOWED, CONFLICT, BROKEN, UNABLE = 400, 404, 405, 409, 500, 503

_log = Logger()


class JsonResource(Resource):
    """
    Replies with the values of ``methods``; other methods are refused in JSON.

    :ivar methods: the function for each HTTP method; it may return a coroutine.
    :ivar statuses: the status for each kind of error of this subject.
    """

    def __init__(
        self,
        methods: dict[str, Answer],
        statuses: dict[type[MetaQError], int] | None = None,
    ) -> None:
        super().__init__()
        self.methods = methods
        self.statuses = dict(statuses or {})

    def getChild(self, path: bytes, request: Request) -> Resource:
        """A path below this one, if it is not a child: 404."""
        return Nothing()

    def render(self, request: Request) -> int:
        """Called by Twisted."""
        answer = self.methods.get(request.method.decode("ascii", "replace"))
        if answer is None:
            allowed = ", ".join(sorted(self.methods))
            request.setHeader(b"Allow", allowed.encode())
            _send(request, NOT_ALLOWED, {"error": f"only {allowed} is answered here"})
            return NOT_DONE_YET
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        maybeDeferred(_started, answer, request).addBoth(self._ended, request, gone)
        return NOT_DONE_YET

    def _ended(self, result: object, request: Request, gone: list[Failure]) -> None:
        status = 200
        if isinstance(result, Failure):
            status = self._status(result)
            result = {"error": str(result.value) if status != BROKEN else "see the broker's log"}
        if not gone:
            _send(request, status, result)

    def _status(self, failure: Failure) -> int:
        for kind, status in self.statuses.items():
            if failure.check(kind):
                return status
        if failure.check(InvalidArgument):
            return BAD_REQUEST
        if failure.check(MetaQError):
            return UNABLE
        _log.failure("A request of an administrator failed", failure)
        return BROKEN


class Nothing(JsonResource):
    """The resource for unknown paths: 404."""

    def __init__(self) -> None:
        super().__init__({})

    def render(self, request: Request) -> int:
        """Called by Twisted."""
        path = request.uri.decode("ascii", "replace")[:200]
        _send(request, NOT_FOUND, {"error": f"there is no {path}"})
        return NOT_DONE_YET


def _started(answer: Answer, request: Request) -> object:
    result = answer(request)
    return Deferred.fromCoroutine(result) if isinstance(result, Coroutine) else result


def _send(request: Request, status: int, value: object) -> None:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", b"application/json")
    request.setHeader(b"Cache-Control", b"no-store")
    request.write(json.dumps(value, default=_plain).encode() + b"\n")
    request.finish()


def _plain(value: object) -> dict[str, object]:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{value!r} has no JSON form")


def argument(request: Request, name: str) -> str | None:
    """
    An argument of the query; None without it.

    :raises InvalidArgument: it is given twice, or is not UTF-8.
    """
    values = request.args.get(name.encode(), [])
    if len(values) > 1:
        raise InvalidArgument(f"{name}: given {len(values)} times")
    try:
        return values[0].decode() if values else None
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{name}: {values[0]!r} is not UTF-8") from error


def number(request: Request, name: str, default: int) -> int:
    """
    A number of the query.

    :raises InvalidArgument: the value is not a number.
    """
    text = argument(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidArgument(f"{name}: {text!r} is not a number")
    return int(text)


def user(request: Request) -> str:
    """The user of the requesting process, for the log."""
    uid = peer_user(request.transport) if request.transport is not None else None
    return "unknown" if uid is None else f"user {uid}"
