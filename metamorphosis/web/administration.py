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
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from metamorphosis.errors import MetaQError
from metamorphosis.transactions.administration import TransactionAdministration
from metamorphosis.web.channel import AdminFactory
from metamorphosis.web.unixsocket import MODE, reachable, remove_stale, socket_path

BACKLOG = 16


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
        self._transactions = transactions
        self._factory = AdminFactory(self._site, reactor)
        self._port: IListeningPort | None = None
        self._reach = ExitStack()

    def _site(self) -> ServerFactory[Any]:
        # Here, because it loads twisted.web: 3 of 44 MiB of a fresh broker, and most brokers are
        # never administered. The first connection waits for that, and all clients: 50 to 100 ms.
        from metamorphosis.web.site import AdminSite, api

        return AdminSite(api(self._transactions), self._reactor)

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
