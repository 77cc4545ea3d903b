"""
The administrative interface of a running broker: ``/api/v1`` on a Unix socket.

A failure here never stops the broker: if the socket cannot be opened, one line is logged.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.resource import Resource

from metamorphosis.errors import MetaQError
from metamorphosis.transactions.administration import TransactionAdministration
from metamorphosis.web.answers import Nothing
from metamorphosis.web.channel import AdminFactory
from metamorphosis.web.transactions import Journal, Transactions
from metamorphosis.web.unixsocket import MODE, reachable, remove_stale, socket_path

BACKLOG = 16


def api(transactions: TransactionAdministration | None) -> Resource:
    """
    The root of all routes.

    :param transactions: None: this broker accepts no transactions.
    """
    root, versions, routes = Nothing(), Nothing(), Nothing()
    root.putChild(b"api", versions)
    versions.putChild(b"v1", routes)
    if transactions is not None:
        routes.putChild(b"transactions", Transactions(transactions))
        routes.putChild(b"journal", Journal(transactions))
    return root


class Administration:
    """
    The socket and its connections. Thread: reactor.

    :param data_path: of the broker; locked by the caller.
    :param transactions: None: this broker accepts no transactions.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, data_path: str, transactions: TransactionAdministration | None
    ) -> None:
        self._reactor = reactor
        self._path = socket_path(data_path)
        self._factory = AdminFactory(api(transactions), reactor)
        self._port: IListeningPort | None = None
        self._reach = ExitStack()

    def start(self) -> None:
        """Open the socket; never fails."""
        try:
            remove_stale(self._path)
            name = self._reach.enter_context(reachable(self._path))
            self._port = self._reactor.listenUNIX(name, self._factory, BACKLOG, MODE)
        except (OSError, MetaQError, CannotListenError) as error:
            self._reach.close()
            self._log.error(
                "The broker cannot be administered: {path}: {error}", path=self._path, error=error
            )

    async def stop(self) -> None:
        """Close the socket and its connections, and remove its file; never fails."""
        port, self._port = self._port, None
        if port is not None:
            self._factory.close()
            with suppress(OSError):  # it was removed
                await maybeDeferred(port.stopListening)
        self._reach.close()
