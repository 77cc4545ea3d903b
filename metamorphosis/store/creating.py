"""
New partitions on a disk that may hang: a worker makes directory and file, and only the puts of the
new partition wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Event

from twisted.internet.defer import Deferred

from metamorphosis.config.model import TopicConfig
from metamorphosis.errors import MetaQError
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.segment import Segment

OpenFiles = Callable[[], list[Segment]]


class Creation:
    """
    One partition whose files are being opened. Thread: reactor, except ``run``.

    :param open_files: see ``opening.open_segments``.
    :ivar segments: the opened files; None before, and after a failure.
    :ivar error: the reason of a failure.
    """

    def __init__(
        self,
        topic: TopicConfig,
        partition: int,
        environment: StoreEnvironment,
        open_files: OpenFiles,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.environment = environment
        self.segments: list[Segment] | None = None
        self.error: BaseException | None = None
        self._open_files = open_files
        self._done = Event()
        self._waiting: list[Deferred[None]] = []

    def run(self) -> None:
        """Open the files. Thread: worker."""
        try:
            self.segments = self._open_files()
        except BaseException as error:
            self.error = error
        self._done.set()

    def block(self) -> None:
        """Block until the worker is done: the caller needs the partition at once."""
        self._done.wait()

    def ended(self) -> Deferred[None]:
        """Fires when the partition is open; fails with the error."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append(deferred)
        return deferred

    def tell(self, error: BaseException | None) -> None:
        """Tell those who wait that the creation has ended or is given up."""
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if error is None:
                deferred.callback(None)
            else:
                deferred.errback(error)


class Creations:
    """
    The creations in progress. Thread: reactor.

    :param install: makes a store of the opened files; does nothing for a store that exists by now.
    """

    def __init__(self, install: Callable[[Creation], None]) -> None:
        self._install = install
        self._running: dict[tuple[str, int], Creation] = {}

    def find(self, topic: str, partition: int) -> Creation | None:
        """The creation of this partition, if one is in progress."""
        return self._running.get((topic, partition))

    def begin(
        self,
        topic: TopicConfig,
        partition: int,
        environment: StoreEnvironment,
        open_files: OpenFiles,
    ) -> Creation:
        """Start a worker for a partition that has none."""
        creation = Creation(topic, partition, environment, open_files)
        self._running[topic.name, partition] = creation
        environment.threads.submit(creation.run, partial(self._ended, creation))
        return creation

    def fail(self, environment: StoreEnvironment | None, error: MetaQError) -> None:
        """Fail the waits for this disk (None: for any); the workers continue."""
        for creation in list(self._running.values()):
            if environment is None or creation.environment is environment:
                creation.tell(error)

    def _ended(self, creation: Creation, _: object, error: BaseException | None) -> None:
        del self._running[creation.topic.name, creation.partition]
        error = error or creation.error
        if error is None:
            self._install(creation)
        creation.tell(error)
