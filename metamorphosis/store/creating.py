"""
New partitions on a disk that may hang: directory and file are made in a worker, and what waits for
them waits alone.
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
    One partition whose files are being opened. Thread: reactor, but for ``run``.

    :param open_files: see ``opening.open_segments``.
    :ivar segments: what was opened; None before, and after a failure.
    :ivar error: why nothing was opened.
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
        """Wait for the worker here and now: somebody cannot do without the partition."""
        self._done.wait()

    def ended(self) -> Deferred[None]:
        """Fires when the partition can be had, or fails."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append(deferred)
        return deferred

    def tell(self, error: BaseException | None) -> None:
        """It has come to an end, or is not waited for any longer."""
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if error is None:
                deferred.callback(None)
            else:
                deferred.errback(error)


class Creations:
    """
    Those that are under way. Thread: reactor.

    :param install: makes a store of what was opened; for one that exists by now it does nothing.
    """

    def __init__(self, install: Callable[[Creation], None]) -> None:
        self._install = install
        self._running: dict[tuple[str, int], Creation] = {}

    def find(self, topic: str, partition: int) -> Creation | None:
        """The one of this partition."""
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
        """Whatever waits for this disk (None: any) waits no longer; the workers go on."""
        for creation in list(self._running.values()):
            if environment is None or creation.environment is environment:
                creation.tell(error)

    def _ended(self, creation: Creation, _: object, error: BaseException | None) -> None:
        del self._running[creation.topic.name, creation.partition]
        error = error or creation.error
        if error is None:
            self._install(creation)
        creation.tell(error)
