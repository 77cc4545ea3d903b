"""
Every interface of the project. An interface has at least two providers; a test verifies each of
them, and test doubles pass the same contract tests as the real provider.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable, Sequence

    from twisted.internet.defer import Deferred

    from metamorphosis.cluster.model import ConnectionFault, NodeStat, SessionEvent, WatchEvent
    from metamorphosis.partitions import Partition, StoredOffset

T = TypeVar("T")


class Timer(Protocol):
    """A call that is planned."""

    def cancel(self) -> object:
        """Cancel the call; no effect if it was made or cancelled before."""


class Failed(Protocol):
    """The argument of an errback."""

    @property
    def value(self) -> BaseException:
        """The error."""


class Futures(Protocol):
    """
    txaio's functions for the futures of one runtime. At most one pair of callbacks per future;
    chaining is not used.
    """

    def create_future(self) -> Awaitable[T]:
        """A future without a result."""

    def resolve(self, future: Awaitable[T], result: T) -> object:
        """Set its result; it must have none."""

    def reject(self, future: Awaitable[T], error: BaseException) -> object:
        """Set an error as its result."""

    def is_called(self, future: Awaitable[T]) -> bool:
        """Whether it has a result, or was cancelled."""

    def cancel(self, future: Awaitable[T]) -> object:
        """Cancel it: its result is no longer wanted."""

    def add_callbacks(
        self,
        future: Awaitable[T],
        callback: Callable[[T], object] | None,
        errback: Callable[[Failed], object] | None,
    ) -> object:
        """Call one of them when it has a result."""


class IWorkerThreads(Interface):
    """Runs blocking calls away from the reactor. Providers: ``threads.WorkerThreads``,
    ``threads.SynchronousThreads``."""

    def submit(  # type: ignore[no-untyped-def]
        work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ):
        """
        Run ``work()`` in a thread, then ``done(result, error)`` on the reactor thread.

        Work starts in the order of submission. Completions that arrive together share one wake-up
        of the reactor and are delivered in the order in which they finished. ``done`` must not
        raise; if it does, that is logged.
        """

    def stop() -> Deferred[None]:
        """Finish all submitted work, deliver the results, end the threads, then fire. Later submits
        raise."""


class IRegistry(Interface):
    """
    The coordination service. Providers: ``cluster.registry.ZooKeeperRegistry``,
    ``testing.registry.MemoryRegistry``. Paths are absolute; all calls and callbacks: reactor
    thread.

    Every Deferred fails with a ``RegistryError``; ``RegistryUnavailable`` means that the outcome is
    unknown. Watches fire once, and end silently with the connection: read again at every CONNECTED.
    """

    def start() -> Deferred[None]:
        """Start connecting, and retry without end. Fires at once; ``on_session`` reports
        connections."""

    def stop() -> Deferred[None]:
        """Close the session, which removes its ephemeral nodes. Fires within a bounded time, never
        fails."""

    def on_session(listener: Callable[[SessionEvent], None]) -> None:
        """Call ``listener`` for every change of the session's state from now on."""

    def create(path: str, data: bytes | None, ephemeral: bool) -> Deferred[None]:
        """Create a node, and its missing parents as persistent nodes without data. ``NodeExists``
        if it exists."""

    def get(
        path: str, watch: Callable[[WatchEvent], None] | None = None
    ) -> Deferred[tuple[bytes | None, NodeStat]]:
        """Data and stat; ``NoNode`` if absent (then no watch is set)."""

    def set_data(path: str, data: bytes) -> Deferred[None]:
        """Overwrite the data of any version. ``NoNode`` if absent."""

    def delete(path: str) -> Deferred[None]:
        """Delete a node of any version. ``NoNode``, ``NotEmpty``."""

    def exists(
        path: str, watch: Callable[[WatchEvent], None] | None = None
    ) -> Deferred[NodeStat | None]:
        """The stat, or None; the one-shot watch also fires when the node is created."""

    def children(
        path: str, watch: Callable[[WatchEvent], None] | None = None
    ) -> Deferred[list[str]]:
        """Names of the children, sorted. ``NoNode`` if absent."""

    def session_id() -> int:
        """The id of the session, also while it is suspended; 0 without one. Compare with
        ``NodeStat.owner``."""

    def fault() -> ConnectionFault | None:
        """The reason why there is no connection; None while there is one, or if the reason is
        unknown."""


class IDeletePolicy(Interface):
    """The treatment of segments that are older than the retention. Providers: ``DiscardPolicy``,
    ``ArchivePolicy``."""

    retention_ms = Attribute(
        "A segment whose file was last modified longer ago than this is disposed of."
    )

    def dispose(path: str) -> None:
        """Delete or archive the segment file. Runs in a worker thread and may block. ``OSError`` on
        failure."""


class IConsumerFilter(Interface):
    """A user's server-side filter, named in ``server.ini`` as
    ``group.<group>=<module>:<class>``."""

    def accept(group: str, message: Any) -> bool:
        """Whether ``group`` gets this ``metamorphosis.message.Message``. An exception counts as
        no."""


class IRuntime(Interface):
    """
    The runtime of the client's core. Providers: ``client.tx.TwistedRuntime``,
    ``client.aio.AsyncioRuntime``, and ``MemoryRuntime`` of the tests.

    A *future* is what the runtime's users await: a ``Deferred`` or an ``asyncio.Future``. Thread:
    the loop's, except ``call_from_thread``.
    """

    api: Futures = Attribute("txaio's functions for the futures of this runtime.")

    def seconds() -> float:
        """A monotonic clock."""

    def call_later(seconds: float, function: Callable[..., object], *args: object) -> Timer:
        """Call the function after that time."""

    def call_soon(function: Callable[..., object], *args: object) -> None:
        """Call the function after the present call of the loop, in the order of the calls."""

    def call_from_thread(function: Callable[..., object], *args: object) -> None:
        """``call_soon`` from any thread."""

    def start(coroutine: Coroutine[object, None, T]) -> Awaitable[T]:
        """Run a coroutine that awaits this runtime's futures; returns the future of its result. An
        error that is not awaited is logged."""

    def hand_out(
        coroutine: Coroutine[object, None, T],
    ) -> tuple[Awaitable[T], Callable[[], bool]]:
        """``start``, and a function that tells whether who awaits the future has its result: in
        asyncio a task that is cancelled just when it has come gets the cancellation instead."""

    def abandon(closers: Iterable[Callable[[], Awaitable[object] | None]]) -> None:
        """Close the parts of a garbage-collected object, one after the other, on the loop; their
        results may be awaitable. Thread: any, also that of the garbage collector."""

    def adopt(awaitable: object) -> Awaitable[Any]:
        """The result of a user's function as a future of this runtime; it may be a Deferred, an
        asyncio future, a coroutine, any other awaitable, or a plain value."""

    def is_cancelled() -> bool:
        """Whether the loop is cancelling the running coroutine, so that its end is not a listener's
        failure."""

    def connect(host: str, port: int, receiver: Any, timeout: float) -> Awaitable[None]:
        """
        Open a TCP connection without delay, with ``receiver`` (see ``client.network.links``) at its
        end.
        A future that fires after ``receiver.connected(link)``, or fails with an ``OSError``;
        cancelling it gives up the attempt.
        """

    def threads(count: int, name: str) -> Any:
        """``IWorkerThreads`` that report to this runtime, except that ``stop`` gives a future."""

    def registry(connect: str, session_timeout: int) -> IRegistry:
        """ZooKeeper: ``IRegistry`` whose results are futures of this runtime. ``session_timeout``
        in ms."""

    def adopt_registry(registry: IRegistry) -> IRegistry:
        """The same for an existing ``IRegistry``, such as ``MemoryRegistry``."""

    def logger(name: str) -> Any:
        """A ``client.network.links.Log`` that writes to the log usual for this runtime."""


class IOffsetStore(Interface):
    """
    Keeps the positions of groups. Providers: the modules of ``client.offsets``, and users' own.

    Every method may return a plain value or an awaitable; after an error it is unknown whether the
    offsets are stored, and the caller tries again.
    """

    def load(topic: str, group: str, partition: Partition) -> Awaitable[StoredOffset | None]:
        """The last committed position, or None."""

    def initialise(topic: str, group: str, partition: Partition, offset: int) -> Awaitable[None]:
        """Store a first offset; called once after ``load`` has returned None. Does not replace an
        offset."""

    def commit(group: str, offsets: Sequence[StoredOffset]) -> Awaitable[None]:
        """Store all of them; an empty sequence has no effect. Other offsets are unchanged."""

    def close() -> Awaitable[None]:
        """Close the store; called when the factory that made it closes. A shared store is closed by
        its owner."""


class OffsetStore(Protocol):
    """``IOffsetStore`` for type checkers, be it without their plugin for zope.interface."""

    def load(
        self, topic: str, group: str, partition: Partition
    ) -> Awaitable[StoredOffset | None] | StoredOffset | None:
        """The position that was committed last, or None."""

    def initialise(
        self, topic: str, group: str, partition: Partition, offset: int
    ) -> Awaitable[None] | None:
        """``load`` found nothing, and the group begins there."""

    def commit(self, group: str, offsets: Sequence[StoredOffset]) -> Awaitable[None] | None:
        """Store all of them."""

    def close(self) -> Awaitable[None] | None:
        """The owner of the store shuts down."""
