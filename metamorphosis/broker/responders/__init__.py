"""
The answers to all commands, one module for each kind: a command in, its reply into the session's
queue.

Everything is answered here except the ordinary puts and gets that ``hotpath.scan`` takes. Those
that it leaves also come here: the first one of a partition, which opens it and registers its topic,
and the odd ones (partition -1, a wrong checksum, nothing to read). No function touches a transport
or waits: the reply to a put names the batch that it waits for.

Source: ``BrokerCommandProcessor``, ``TransactionalCommandProcessor``. Sections 2, 6 and 7 of the
wire specification.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from metamorphosis.broker.dispatch import Dispatch
from metamorphosis.broker.figures import FigureSource
from metamorphosis.broker.hotpath.transactional import TransactionScan
from metamorphosis.broker.responders import sync, transactions
from metamorphosis.broker.responders.gets import Gets
from metamorphosis.broker.responders.offsets import Offsets
from metamorphosis.broker.responders.puts import Puts
from metamorphosis.broker.responders.shared import Shared
from metamorphosis.broker.responders.text import Text
from metamorphosis.broker.responders.transactions import TransactionSteps, refuse_puts
from metamorphosis.config.model import BrokerConfig, Settings, TopicConfig

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from metamorphosis.ids import MessageIds
    from metamorphosis.store.messagestores import MessageStores
    from metamorphosis.transactions.transactions import Transactions


class Responders(Shared):
    """
    The parts that answer commands, and the responders of a plain broker. Thread: reactor.

    :ivar dispatch: answers a command; roles replace entries of its table.
    :ivar long_polls: gets that wait for data.
    :ivar figures: source of the broker's figures, for ``stats`` and others.
    """

    def __init__(
        self,
        config: BrokerConfig,
        settings: Settings,
        url: str,
        stores: MessageStores,
        ids: MessageIds,
        clock: IReactorTime,
        topic_used: Callable[[TopicConfig], Deferred[None] | None],
    ) -> None:
        super().__init__(config, settings, url, stores, ids, clock, topic_used)
        gets = Gets(self, clock, settings.max_long_poll_ms / 1000)
        self.long_polls = gets.long_polls
        self.figures = FigureSource(self)
        self._puts = Puts(self, self.long_polls)
        self.dispatch = Dispatch(
            self._puts.table(),
            gets.table(),
            Offsets(self).table(),
            Text(self.figures).table(),
            sync.table(),
            transactions.table(),
        )

    def answer_transactions(self, transactions: Transactions) -> None:
        """The broker has a journal: answer transactions from now on."""
        steps = TransactionSteps(self, transactions)
        transactions.endings.open_store = self._puts.open
        # As in the original, which counts a recovered transaction as begun.
        self.statistics.tx_begin += len(transactions.open.xa)
        self.statistics.tx_xa_begin += len(transactions.open.xa)
        self.dispatch.replace(steps.table())
        self._puts.in_transaction = steps.put
        self.routes.steps = TransactionScan(
            transactions, self.routes, self.ids, self.dispatch.respond, refuse_puts
        )

    def refuse_work(self) -> None:
        """The broker stops: from now on puts, gets and offsets get 503; held gets get 404."""
        self.stopping = True
        self.long_polls.stop()
        self.routes.clear()
