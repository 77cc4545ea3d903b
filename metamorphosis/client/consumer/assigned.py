"""The partitions that a consumer has at present: which they are, news of them, their pauses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from metamorphosis.client.checked import checked
from metamorphosis.client.consumer.joining import Joining
from metamorphosis.client.delivery.assigning import AssignmentListener, AssignmentNews
from metamorphosis.client.fetch.fetching import Fetching
from metamorphosis.client.model import Partition, Position
from metamorphosis.errors import InvalidState


class Assigned:
    """A part of ``Consumer``. Thread: the loop's."""

    def __init__(self, fetching: Fetching, news: AssignmentNews, joining: Joining) -> None:
        self._fetching = fetching
        self._news = news
        self._joining = joining

    @property
    def assignment(self) -> Mapping[tuple[str, Partition], Position]:
        """
        The present partitions of this consumer, and its position in each: (topic, partition) ->
        ``Position``, whose ``offset`` (bytes) has been processed and need not be stored yet.
        """
        assignment = self._joining.assignment
        return {} if assignment is None else assignment.assignment

    @checked()
    def on_assigned(self, listener: AssignmentListener) -> Self:
        """
        ``listener`` is called when this consumer has got partitions, with a sorted list of (topic,
        partition). Its result is awaited, if it can be, for ``stop_timeout_ms`` at most; until then
        no message of these partitions is delivered. ``seek`` and ``pause`` are possible in it.

        A balance with the group may give partitions away and get them again: it is called anew.

        Costs nothing.

        :returns: this consumer.
        :raises InvalidArgument: ``listener`` cannot be called.
        """
        self._news.on_assigned = listener
        return self

    @checked()
    def on_revoked(self, listener: AssignmentListener) -> Self:
        """
        ``listener`` is called when partitions are given away, also by ``close``, with a sorted list
        of (topic, partition): after the last message of theirs was delivered, and before positions
        are stored and another member gets them. Its result is awaited, if it can be, for
        ``stop_timeout_ms`` at most. ``ack`` is possible in it, for ``auto_ack=False``.

        After the end of a ZooKeeper session another member may have had them before.

        Costs nothing.

        :returns: this consumer.
        :raises InvalidArgument: ``listener`` cannot be called.
        """
        self._news.on_revoked = listener
        return self

    @property
    def paused(self) -> frozenset[tuple[str, Partition]]:
        """The partitions that ``pause`` holds back: (topic, partition)."""
        return self._fetching.paused

    @checked()
    def pause(self, topic: str, partition: Partition) -> None:
        """
        Deliver no further message of a partition before ``resume``. The listener call under way
        ends and counts; messages that the program has from ``for`` or ``poll`` can be acknowledged.
        The consumer keeps the partition, its position, and the pause through balances, until the
        partition goes to another member. Kept messages of rejected ones come all the same.

        Costs nothing; what was fetched ahead is fetched again after ``resume``.

        :raises InvalidState: the partition is not in ``assignment``.
        """
        self._check_assigned(topic, partition)
        self._fetching.pause(topic, partition)

    @checked()
    def resume(self, topic: str, partition: Partition) -> None:
        """
        Deliver the messages of a partition again, from its position on; without effect where it is
        not paused.

        Costs a request to the broker.

        :raises InvalidState: the partition is not in ``assignment``.
        """
        self._check_assigned(topic, partition)
        self._fetching.resume(topic, partition)

    def _check_assigned(self, topic: str, partition: Partition) -> None:
        if (topic, partition) not in self.assignment:
            raise InvalidState(f"{topic} {partition} is not this consumer's at present")
