"""
Routes of the transactions.

============================================ ====================================================
GET /transactions?state=&limit=              ``{"transactions": [...], "left_off": n}``
GET /transactions/<key>                      one transaction
POST /transactions/<key>/commit              decide its outcome; also rollback, complete
POST /transactions/<key>/forget              remove a remembered outcome
GET /journal                                 the redo files, and the number of transactions
POST /journal/checkpoint                     ``{"begun": whether a new file was, "journal": ...}``
============================================ ====================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request

from metamorphosis.transactions.administration import (
    AlreadyDecided,
    NotDecided,
    NotPrepared,
    TransactionAdministration,
    UnknownTransaction,
)
from metamorphosis.transactions.views import TransactionView
from metamorphosis.web.answers import (
    CONFLICT,
    NOT_FOUND,
    JsonResource,
    Nothing,
    argument,
    number,
    user,
)

STATUSES = {
    UnknownTransaction: NOT_FOUND,
    NotPrepared: CONFLICT,
    AlreadyDecided: CONFLICT,
    NotDecided: CONFLICT,
}

LIMIT = 1000
"""Default limit of transactions in one reply."""

Decide = Callable[[str], Awaitable[TransactionView]]

_log = Logger()


class Transactions(JsonResource):
    """``/transactions``."""

    def __init__(self, administration: TransactionAdministration) -> None:
        super().__init__({"GET": self._list})
        self._administration = administration

    def _list(self, request: Request) -> dict[str, object]:
        found = self._administration.transactions(argument(request, "state"))
        limit = number(request, "limit", LIMIT)
        return {"transactions": found[:limit], "left_off": max(len(found) - limit, 0)}

    def getChild(self, path: bytes, request: Request) -> Resource:
        """``/transactions/<key>``."""
        try:
            return _Transaction(self._administration, path.decode())
        except UnicodeDecodeError:
            return Nothing()


class _Transaction(JsonResource):
    """``/transactions/<key>``, and its actions."""

    def __init__(self, administration: TransactionAdministration, key: str) -> None:
        super().__init__({"GET": lambda request: administration.transaction(key)}, STATUSES)
        for name, decide in (
            ("commit", administration.commit),
            ("rollback", administration.roll_back),
            ("complete", administration.complete),
        ):
            action = partial(self._decide, name, decide, key)
            self.putChild(name.encode(), JsonResource({"POST": action}, STATUSES))
        forget = partial(self._forget, administration, key)
        self.putChild(b"forget", JsonResource({"POST": forget}, STATUSES))

    async def _decide(
        self,
        name: str,
        decide: Decide,
        key: str,
        request: Request,
    ) -> TransactionView:
        _log.info("{user} asks: {name} {key}", user=user(request), name=name, key=key)
        return await decide(key)

    async def _forget(
        self, administration: TransactionAdministration, key: str, request: Request
    ) -> dict[str, str]:
        _log.info("{user} asks: forget {key}", user=user(request), key=key)
        await administration.forget(key)
        return {"key": key}


class Journal(JsonResource):
    """``/journal``."""

    def __init__(self, administration: TransactionAdministration) -> None:
        super().__init__({"GET": lambda request: administration.journal()})
        checkpoint = JsonResource({"POST": self._checkpoint})
        self.putChild(b"checkpoint", checkpoint)
        self._administration = administration

    def _checkpoint(self, request: Request) -> dict[str, object]:
        begun = self._administration.checkpoint()
        return {"begun": begun, "journal": self._administration.journal()}
