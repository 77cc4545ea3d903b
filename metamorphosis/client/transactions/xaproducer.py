"""
Producers for XA: they publish topics, and make the resources that a transaction manager uses.

Source: ``SimpleXAMessageProducer``.
"""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING

from metamorphosis.client.checked import checked
from metamorphosis.client.producer.publisher import Publisher
from metamorphosis.client.settings import normalise_url
from metamorphosis.client.topics.selectors import RoundRobinSelector, Selector
from metamorphosis.client.transactions.branches import Branches
from metamorphosis.client.transactions.resource import XAResource
from metamorphosis.client.transactions.xa import XAER_RMFAIL
from metamorphosis.errors import XAError

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

QUALIFIER_PREFIX = "XAMessageProducer"


class XAProducer(Publisher):
    """
    Makes XA resources. Made by the session factory. Thread: the loop's.

    :param selector: chooses the partition of a message; round robin unless given.
    :param unique_qualifier: of the application; the same after each restart, or it does not find
        the branches that it has prepared. None: ``XAMessageProducer-<host name>``, with the setting
        ``xa_producer_host_name`` if it is set.
    :param in_order: the broker gets the next message of a branch after it has answered the last.
    :param timeout: seconds for the answer to each step.
    """

    def __init__(
        self,
        session: Session,
        selector: Selector | None = None,
        *,
        unique_qualifier: str | None = None,
        in_order: bool = False,
        timeout: float = 5.0,
    ) -> None:
        super().__init__(session)
        if unique_qualifier is None:
            host = session.config.xa_producer_host_name or socket.gethostname()
            unique_qualifier = f"{QUALIFIER_PREFIX}-{host}"
        self._selector = RoundRobinSelector() if selector is None else selector
        self._in_order = in_order
        self._branches = Branches(session, unique_qualifier, timeout)

    @property
    def unique_qualifier(self) -> str:
        """The qualifier of its branches: the name by which the application finds them again."""
        return self._branches.unique_qualifier

    @checked()
    def resource(self, target: str | None = None) -> XAResource:
        """
        A resource whose branches live on one broker.

        Costs a connection to the broker, if there is none.

        :param target: the broker; None: one of those that have all the topics that were published,
            connected ones first.
        :returns: the resource; it need not be closed.
        :raises XAError: ``XAER_RMFAIL``: there is no such broker.
        :raises ClientClosed: after ``close``.
        """
        self._check_open()
        url = self._any_broker() if target is None else normalise_url(target)
        self._branches.connection(url)
        return XAResource(
            self._session, self._branches, url, self._selector, self._in_order, self._timeout
        )

    def _any_broker(self) -> str:
        common: set[str] | None = None
        connected: set[str] = set()
        for topic in self._published:
            published = self._directory.topics[topic]
            urls = {each.url for each in published.brokers.values()}
            connected |= {each.url for each in published.brokers.values() if each.is_connected}
            common = urls if common is None else common & urls
        if not common:
            topics = ", ".join(sorted(self._published)) or "none"
            raise XAError(
                XAER_RMFAIL, f"no broker has all of the topics that were published: {topics}"
            )
        return random.choice(sorted(common & connected or common))

    async def _end(self) -> None:
        """Branches stay as they are: their transaction manager decides."""
        self._branches.close()
