"""The client for Twisted."""

from __future__ import annotations

from typing import Any

from metamorphosis.client.session import SessionFactory, client_config
from metamorphosis.client.settings import ClientConfig
from metamorphosis.client.runtimes.tx import TwistedRuntime


class MessageSessionFactory(SessionFactory):
    """See ``SessionFactory``."""

    def __init__(
        self,
        zookeeper: str | None = None,
        broker: str | None = None,
        config: ClientConfig | None = None,
        reactor: Any = None,
        **settings: Any,
    ) -> None:
        settings = {"zookeeper": zookeeper, "broker": broker, **settings}
        super().__init__(TwistedRuntime(reactor), client_config(config, settings))
