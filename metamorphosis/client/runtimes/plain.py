"""
What producers, consumers and browsers with plain calls have in common: the core is in a
``LoopThread``, and each call waits for its result.

Thread: any but the loop's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Iterator
from typing import Generic, Protocol, Self, TypeVar

from metamorphosis.client.documented import documented
from metamorphosis.client.producer.publisher import Publisher
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.errors import ClientClosed

T = TypeVar("T")
Core = TypeVar("Core")


def list_of(values: Iterable[T]) -> Iterable[T]:
    """What an iterator of the caller's gives, taken in the caller's thread, which may block."""
    return list(values) if isinstance(values, Iterator) else values


class Closing(Protocol):
    """A core that ends."""

    def close(self) -> Awaitable[object]:
        """Its end."""


C = TypeVar("C", bound=Closing)


class Calls(Generic[Core], ABC):
    """Plain calls of an object of the core, which lives in the thread of its loop."""

    def __init__(self, thread: LoopThread, core: Core, factory: object) -> None:
        """:param factory: is kept, so that it is not dropped while this is used."""
        self._thread = thread
        self._core = core
        self._factory = factory

        self._call = thread.call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Called at the end of a ``with`` block."""


class Plain(Calls[C]):
    """Plain calls of an object of the core that ends."""

    def close(self) -> None:
        """
        End it, when what is under way has met its fate. It may be called again.

        Costs the time of what is under way.

        :raises ClientError: of a producer: a step failed; it is closed all the same.
        """
        try:
            self._call(self._core.close)
        except ClientClosed:
            pass  # the factory was closed first, and closed this as well


P = TypeVar("P", bound=Publisher)


@documented(Publisher)
class Publishing(Plain[P]):
    """``Publisher`` with plain calls."""

    def publish(self, topic: str) -> None:
        self._call(self._core.publish, topic)

    def set_default_topic(self, topic: str) -> None:
        self._call(self._core.set_default_topic, topic)
