"""The parts that the responders share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from metamorphosis.broker.filters import ConsumerFilters
from metamorphosis.broker.hotpath import Routes
from metamorphosis.broker.statistics import BrokerStatistics
from metamorphosis.broker.topics import TopicRules
from metamorphosis.config.model import BrokerConfig, Settings, TopicConfig
from metamorphosis.errors import ServiceUnavailable

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from metamorphosis.ids import MessageIds
    from metamorphosis.store.messagestores import MessageStores

SHUTTING_DOWN = "线程池繁忙"


class Shared:
    """
    The stores, the rules and the counters that commands are answered from. Thread: reactor.

    :param url: this broker's ``meta://<host>:<port>``, in the text of refusals.
    :param topic_used: called at a put that the hot path does not know yet, so that the topic can be
        registered; must not raise. Returns a Deferred that fires when a new topic has been
        registered, None for a known one.
    :ivar routes: the partitions that the hot path serves without the responders.
    :ivar stopping: puts, gets and offsets are refused with 503.
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
        self.config = config
        self.url = url
        self.stores = stores
        self.ids = ids
        self.topic_used = topic_used
        self.clock = clock
        self.routes = Routes(config.max_transfer_size, settings.max_body_bytes)
        self.rules = TopicRules(config, settings)
        self.rules.on_change(self.routes.clear)
        self.statistics = BrokerStatistics(config, clock)
        self.filters = ConsumerFilters(config, clock)
        self.stopping = False

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """Apply a reload."""
        self.config = config
        self.rules.reconfigure(config, settings)
        self.statistics.reconfigure(config)
        self.filters.reconfigure(config)
        self.routes.max_transfer = config.max_transfer_size
        self.routes.clear()

    def refuse_if_stopping(self) -> None:
        """
        :raises ServiceUnavailable: the broker stops.
        """
        if self.stopping:
            raise ServiceUnavailable(SHUTTING_DOWN)
