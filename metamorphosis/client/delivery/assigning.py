"""
News for the program: the partitions that its consumer gets and gives away.

The original has no such listeners.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from metamorphosis.client.delivery.subscription import UserCalls, finish
from metamorphosis.client.model import Partition
from metamorphosis.client.network.flow import Slots, within
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.interfaces import IRuntime

AssignmentListener = Callable[[list[tuple[str, Partition]]], object]
"""Takes (topic, partition) pairs; may return something to wait for."""

NO_LIMIT_SECONDS: Final = 1e9


class AssignmentNews:
    """
    Each partition is told once when it comes and once when it goes; one call of a listener at a
    time. A listener that fails or hangs is logged and stops nothing. Thread: the loop's.

    :ivar known: the partitions that were told as assigned.
    """

    def __init__(
        self, runtime: IRuntime, log: Log, config: ConsumerConfig, calls: UserCalls
    ) -> None:
        self.known: set[tuple[str, Partition]] = set()
        self.on_assigned: AssignmentListener | None = None
        self.on_revoked: AssignmentListener | None = None
        self._runtime = runtime
        self._log = log
        self._group = config.group
        self._limit = config.stop_timeout_ms / 1000 or NO_LIMIT_SECONDS
        self._calls = calls
        self._turn = Slots(runtime, 1)

    async def assigned(self, keys: Iterable[tuple[str, Partition]]) -> None:
        """These came, and are ``known`` already."""
        await self._tell(self.on_assigned, keys, "assigned")

    async def revoked(self, keys: Iterable[tuple[str, Partition]]) -> None:
        """These go; those that are not ``known`` are not told."""
        gone = self.known.intersection(keys)
        self.known -= gone
        await self._tell(self.on_revoked, gone, "revoked")

    async def _tell(
        self,
        listener: AssignmentListener | None,
        keys: Iterable[tuple[str, Partition]],
        what: str,
    ) -> None:
        told = sorted(keys)
        if listener is None or not told:
            return
        if not self._turn.try_acquire():
            await self._turn.acquire()
        try:
            waiting: Awaitable[None] = self._runtime.start(self._call(listener, told))
            await within(self._runtime, waiting, self._limit, f"the listener for {what} partitions")
        except Exception:
            self._log.failure(
                "Group {group}: the listener for {what} partitions failed",
                group=self._group,
                what=what,
            )
        finally:
            self._turn.release()

    async def _call(self, listener: AssignmentListener, keys: list[tuple[str, Partition]]) -> None:
        await finish(self._runtime, listener(keys), self._calls)
