"""
The HTTP part of the administration: all routes, and the site that answers them.

Loaded with the first connection: ``twisted.web`` and what it imports take 3 MiB.
"""

from __future__ import annotations

from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from metamorphosis.transactions.administration import TransactionAdministration
from metamorphosis.web.answers import Nothing
from metamorphosis.web.channel import IDLE_SECONDS
from metamorphosis.web.transactions import Journal, Transactions


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


class AdminSite(Site):
    """
    A site without an access log: changes by administrators are logged where they are made.

    :param reactor: for the timeouts.
    """

    displayTracebacks = False

    def __init__(self, root: IResource, reactor: Any) -> None:
        super().__init__(root, timeout=IDLE_SECONDS, reactor=reactor)

    def startFactory(self) -> None:
        """Open no log file, and start no timer for its clock."""

    def stopFactory(self) -> None:
        """Close no log file."""

    def log(self, request: object) -> None:
        """Write no access log."""
