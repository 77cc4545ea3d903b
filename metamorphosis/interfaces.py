"""
Every interface of the project. An interface is here only when it has two providers; each provider
is verified by a test, and doubles pass the same contract tests as the real thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from metamorphosis.cluster.model import NodeStat, SessionEvent, WatchEvent

T = TypeVar("T")


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
        """Finish everything submitted, deliver it, end the threads, then fire. Later submits
        raise."""


class IRegistry(Interface):
    """
    The coordination service as the broker needs it. Providers:
    ``cluster.registry.ZooKeeperRegistry``, ``cluster.memoryregistry.MemoryRegistry``. Paths are
    absolute; all calls and callbacks: reactor thread.

    Every Deferred fails with a ``RegistryError``; ``RegistryUnavailable`` means that the outcome is
    unknown. Watches fire once, and are silently gone with the connection: look again at every
    CONNECTED.
    """

    def start() -> Deferred[None]:
        """Begin connecting, and keep trying for ever. Fires at once; connection news come by
        ``on_session``."""

    def stop() -> Deferred[None]:
        """Close the session, which removes its ephemeral nodes. Fires within a bounded time, never
        fails."""

    def on_session(listener: Callable[[SessionEvent], None]) -> None:
        """Call ``listener`` for every change of the session's state from now on."""

    def create(path: str, data: bytes | None, ephemeral: bool) -> Deferred[None]:
        """Create a node, and its missing parents as persistent nodes without data. ``NodeExists``
        if it is there."""

    def get(
        path: str, watch: Callable[[WatchEvent], None] | None = None
    ) -> Deferred[tuple[bytes | None, NodeStat]]:
        """Data and stat; ``NoNode`` if absent (then no watch is left)."""

    def set_data(path: str, data: bytes) -> Deferred[None]:
        """Overwrite the data whatever its version. ``NoNode`` if absent."""

    def delete(path: str) -> Deferred[None]:
        """Delete whatever the version. ``NoNode``, ``NotEmpty``."""

    def exists(
        path: str, watch: Callable[[WatchEvent], None] | None = None
    ) -> Deferred[NodeStat | None]:
        """The stat, or None; the one-shot watch also sees the node come into being."""

    def children(
        path: str, watch: Callable[[WatchEvent], None] | None = None
    ) -> Deferred[list[str]]:
        """Names of the children, sorted. ``NoNode`` if absent."""

    def session_id() -> int:
        """The id of the session, also while it is suspended; 0 without one. Compare with
        ``NodeStat.owner``."""


class IDeletePolicy(Interface):
    """What happens to a segment that is older than the retention. Providers: ``DiscardPolicy``,
    ``ArchivePolicy``."""

    retention_ms = Attribute(
        "A segment whose file was last modified longer ago than this is handled."
    )

    def dispose(path: str) -> None:
        """Delete or archive the segment file. Runs in a worker thread and may block. ``OSError``
        when it fails."""


class IConsumerFilter(Interface):
    """A user's server-side filter, named in ``server.ini`` as
    ``group.<group>=<module>:<class>``."""

    def accept(group: str, message: Any) -> bool:
        """Whether ``group`` wants this ``metamorphosis.message.Message``. An exception means no."""
