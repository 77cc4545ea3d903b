"""
A process with our client in the place of ``compat.Driver``: the same commands as JSON lines on
standard input, the same events on standard output.

    python -m compat.member tx|aio
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sys
from threading import Thread
from typing import Any

from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.network.flow import Event

SYNC_TIME_MS = 1000
"""The pause between two attempts to rebalance; that of the Java members here."""


class Member:
    """Runs the commands of one process. Thread: the loop's, but for ``read``."""

    def __init__(self, runtime: Any, factory: Any) -> None:
        self._runtime = runtime
        self._factory = factory
        self._factories: dict[str, Any] = {}
        self._consumers: dict[str, Any] = {}
        self._ended = Event(runtime)

    async def run(self) -> None:
        """Until the end of standard input."""
        Thread(target=self.read, daemon=True).start()
        await self._ended.wait()
        for factory in self._factories.values():
            await factory.close()

    def read(self) -> None:
        """Give each line to the loop. Thread: an own one."""
        for line in sys.stdin:
            self._runtime.call_from_thread(self._begin, json.loads(line))
        self._runtime.call_from_thread(self._ended.set)

    def _begin(self, call: dict[str, Any]) -> None:
        self._runtime.start(self._run(call))

    async def _run(self, call: dict[str, Any]) -> None:
        try:
            await getattr(self, "do_" + call["do"].replace("-", "_"))(call)
        except Exception as error:
            reply(call, "failed", error=f"{type(error).__name__}: {error}")
        else:
            reply(call, "done")

    async def do_open(self, call: dict[str, Any]) -> None:
        """ "factory", "zookeeper", "root", "timeout" of the session in ms."""
        factory = self._factory(
            zookeeper=call["zookeeper"],
            zookeeper_root=call["root"],
            zookeeper_session_timeout_ms=call.get("timeout", 6000),
            zookeeper_sync_time_ms=SYNC_TIME_MS,
        )
        self._factories[call["factory"]] = factory
        await factory.start()

    async def do_close(self, call: dict[str, Any]) -> None:
        """ "factory"."""
        await self._factories.pop(call["factory"]).close()

    async def do_consume(self, call: dict[str, Any]) -> None:
        """
        "factory", "consumer", "group", "topic", "strategy" or none: events "message" until
        "stop-consumer".
        """
        consumer = self._factories[call["factory"]].create_consumer(
            call["group"],
            commit_offset_period_ms=200,
            max_delay_fetch_time_ms=200,
            load_balance_strategy=call.get("strategy", "DEFAULT"),
        )

        def received(message: ReceivedMessage) -> None:
            data = message.data
            reply(
                call,
                "message",
                id=message.id,
                partition=str(message.partition),
                attribute=message.attribute,
                length=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )

        consumer.subscribe(call["topic"], 1 << 20, received)
        self._consumers[call["consumer"]] = consumer
        await consumer.complete_subscribe()

    async def do_stop_consumer(self, call: dict[str, Any]) -> None:
        """ "consumer"."""
        await self._consumers.pop(call["consumer"]).close()


def reply(call: dict[str, Any], event: str, **fields: object) -> None:
    """One event of a call."""
    print(json.dumps({"call": call["call"], "event": event, **fields}), flush=True)


def main(face: str) -> None:
    """Run on Twisted or on asyncio."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    if face == "aio":
        asyncio.run(_on_asyncio())
    else:
        from twisted.internet.task import react
        from twisted.logger import globalLogBeginner, textFileLogObserver

        log = textFileLogObserver(sys.stderr)
        globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)
        react(_on_twisted)


async def _on_asyncio() -> None:
    from metamorphosis.client.aio import MessageSessionFactory
    from metamorphosis.client.runtimes.aio import AsyncioRuntime

    await Member(AsyncioRuntime(), MessageSessionFactory).run()


async def _on_twisted(reactor: Any) -> None:
    from metamorphosis.client.runtimes.tx import TwistedRuntime
    from metamorphosis.client.tx import MessageSessionFactory

    await Member(TwistedRuntime(reactor), MessageSessionFactory).run()


if __name__ == "__main__":
    main(sys.argv[1])
