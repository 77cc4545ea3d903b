"""The client for asyncio."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Any

from metamorphosis.client.runtimes.aio import AsyncioRuntime
from metamorphosis.client.session import SessionFactory, client_config
from metamorphosis.client.settings import ClientConfig


class MessageSessionFactory(SessionFactory):
    """See ``SessionFactory``."""

    def __init__(
        self,
        zookeeper: str | None = None,
        broker: str | None = None,
        config: ClientConfig | None = None,
        loop: AbstractEventLoop | None = None,
        **settings: Any,
    ) -> None:
        settings = {"zookeeper": zookeeper, "broker": broker, **settings}
        super().__init__(AsyncioRuntime(loop), client_config(config, settings))
