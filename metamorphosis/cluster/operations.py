"""
Single operations of ZooKeeper through kazoo's client; ``registry`` has the session.

Each operation ends within a bounded time, in the reactor thread. Without a connection it fails at
once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

from metamorphosis.cluster.kazoobridge import node_stat, split_connect, translated
from metamorphosis.cluster.model import NodeStat, WatchEvent, WatchKind
from metamorphosis.errors import NodeExists, NoNode, RegistryUnavailable

T = TypeVar("T")

OPERATION_SECONDS = 10.0  # the longest that one operation may take

_KINDS = {kind.name: kind for kind in WatchKind} | {"CHILD": WatchKind.CHILDREN}


class KazooOperations:
    """
    The operations of ``IRegistry``. Thread: reactor.

    :param reactor: receives the calls of kazoo's threads; the same reactor as ``clock``.
    :param connect: ``host:port,host:port/chroot``; a missing chroot is created with the first node.
    :raises ConfigError: ``connect`` cannot be understood.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        clock: IReactorTime,
        connect: str,
        operation_seconds: float,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._connect = connect
        self._hosts, self._chroot = split_connect(connect)
        self._operation_seconds = operation_seconds
        self._pending: set[Deferred[Any]] = set()
        self._client: Any = None  # kazoo has no types
        self._connected = False

    def _give_up(self) -> None:
        """The client is being closed: fail every operation in progress."""
        for answer in list(self._pending):
            answer.errback(RegistryUnavailable("the ZooKeeper session is being closed"))

    def create(self, path: str, data: bytes | None, ephemeral: bool) -> Deferred[None]:
        """See ``IRegistry``. Parents hold no data at all, as the original's."""
        return Deferred.fromCoroutine(self._create(self._chroot + path, data, ephemeral))

    async def _create(self, full_path: str, data: bytes | None, ephemeral: bool) -> None:
        try:
            await self._call("create_async", full_path, data, ephemeral=ephemeral)
        except NoNode:
            parent = full_path.rpartition("/")[0]
            if not parent:
                raise
            try:
                await self._create(parent, None, False)
            except NodeExists:
                pass  # another client has made it meanwhile
            await self._call("create_async", full_path, data, ephemeral=ephemeral)

    def get(
        self, path: str, watch: Callable[[WatchEvent], None] | None = None
    ) -> Deferred[tuple[bytes | None, NodeStat]]:
        """See ``IRegistry``."""
        found: Deferred[Any] = self._call_watching("get_async", path, watch)
        return found.addCallback(lambda result: (result[0], node_stat(result[1])))

    def set_data(self, path: str, data: bytes) -> Deferred[None]:
        """See ``IRegistry``."""
        return self._call("set_async", self._chroot + path, data).addCallback(lambda _: None)

    def delete(self, path: str) -> Deferred[None]:
        """See ``IRegistry``."""
        return self._call("delete_async", self._chroot + path).addCallback(lambda _: None)

    def exists(
        self, path: str, watch: Callable[[WatchEvent], None] | None = None
    ) -> Deferred[NodeStat | None]:
        """See ``IRegistry``."""
        found: Deferred[Any] = self._call_watching("exists_async", path, watch)
        return found.addCallback(lambda stat: None if stat is None else node_stat(stat))

    def children(
        self, path: str, watch: Callable[[WatchEvent], None] | None = None
    ) -> Deferred[list[str]]:
        """See ``IRegistry``."""
        found: Deferred[Any] = self._call_watching("get_children_async", path, watch)
        return found.addCallback(sorted)

    def _call_watching(
        self, method: str, path: str, watch: Callable[[WatchEvent], None] | None
    ) -> Deferred[Any]:
        """
        Call a reading method, with a one-shot watch. At the loss of a connection kazoo calls its
        watchers with an event of no kind of ours; the watch has ended then.
        """
        full_path = self._chroot + (path if path != "/" else "")
        if watch is None:
            return self._call(method, full_path)
        told = watch

        def fired(event: Any) -> None:
            if event.type in _KINDS:
                self._reactor.callFromThread(told, WatchEvent(_KINDS[event.type], path))

        return self._call(method, full_path, fired)

    def _call(self, method: str, full_path: str, *args: object, **options: object) -> Deferred[Any]:
        """Run one operation of kazoo; its Deferred always fires, at the latest after the time
        limit."""
        if not self._connected:
            return fail(RegistryUnavailable(f"no connection to ZooKeeper at {self._connect}"))
        answer: Deferred[Any] = Deferred()
        self._pending.add(answer)

        def forget(result: T) -> T:
            self._pending.discard(answer)
            return result

        def late(_: object, seconds: float) -> None:
            raise RegistryUnavailable(f"{method} {full_path}: no answer within {seconds} s")

        answer.addBoth(forget).addTimeout(self._operation_seconds, self._clock, late)
        try:
            result = getattr(self._client, method)(full_path or "/", *args, **options)
        except Exception as error:  # any error of kazoo: bad paths, a closed socket
            answer.errback(translated(error, full_path))
        else:
            result.rawlink(partial(self._reactor.callFromThread, _fire, answer, full_path))
        return answer


def _fire(answer: Deferred[object], path: str, result: Any) -> None:
    """Pass on an ``AsyncResult`` of kazoo, unless the operation has timed out."""
    if answer.called:
        return
    if result.exception is None:
        answer.callback(result.value)
    else:
        answer.errback(translated(result.exception, path))
