"""
The base of all producers: published topics, and the close.

Source: ``SimpleMessageProducer``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.network.flow import Event
from metamorphosis.errors import ClientClosed

if TYPE_CHECKING:
    from metamorphosis.client.session import Session


Publish = Callable[[str, object], Awaitable[None]]
"""``publish`` or ``set_default_topic`` of the directory."""


class Publisher:
    """
    A child of the session factory. Thread: the loop's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._runtime = session.runtime
        self._api = session.runtime.api
        self._log = session.log
        self._directory = session.directory
        self._timeout = session.config.send_timeout_ms / 1000
        self._published: set[str] = set()
        self._closed = False
        self._ended = Event(self._runtime)
        self._end_error: Exception | None = None
        session.add_child(self)

    @checked(as_future)
    def publish(self, topic: str) -> Awaitable[None]:
        """
        Prepare to send messages of a topic: returns when its partitions are known and its brokers
        connected, or given up on for now.

        Costs a few reads of ZooKeeper for a topic that is new here, and its brokers' connections.

        :raises InvalidArgument: no name of a topic.
        :raises NotConnected: ZooKeeper does not answer; sends work as soon as it does.
        :raises ClientClosed: after ``close``.
        """
        return self._runtime.start(self._publish(topic, self._directory.publish))

    @checked(as_future)
    def set_default_topic(self, topic: str) -> Awaitable[None]:
        """
        Publish a topic whose partitions also take the messages of all topics that were not
        published in this factory.

        Costs what ``publish`` costs.

        :raises InvalidState: the factory has another default topic.
        :raises InvalidArgument: no name of a topic.
        :raises NotConnected: ZooKeeper does not answer; sends work as soon as it does.
        :raises ClientClosed: after ``close``.
        """
        return self._runtime.start(self._publish(topic, self._directory.set_default_topic))

    async def _publish(self, topic: str, publish: Publish) -> None:
        self._check_open()
        self._published.add(topic)
        await publish(topic, self)

    def _check_open(self) -> None:
        """
        :raises ClientClosed: the text is the original's.
        """
        if self._closed:
            raise ClientClosed("Producer has been shutdown")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self.close()

    def close(self) -> Awaitable[None]:
        """
        Take no more messages, wait for the fate of those under way, release the topics. Idempotent;
        cancelling a future of it does not cancel the close.

        Costs the time of the answers that are awaited; nothing is tried again.

        :raises ClientError: a step of the close failed; the producer is closed all the same.
        """
        if not self._closed:
            self._closed = True
            self._runtime.start(self._close())
        return self._runtime.start(self._wait_for_end())

    async def _close(self) -> None:
        try:
            await self._end()
        except Exception as error:
            self._end_error = error
        for topic in self._published:
            self._directory.release(topic, self)
        self._session.remove_child(self)
        self._ended.set()

    async def _wait_for_end(self) -> None:
        await self._ended.wait()
        if self._end_error is not None:
            raise self._end_error

    async def _end(self) -> None:
        """Wait for what is under way; called once."""
