"""
Which data path is served by which lane: one lane for each device that they lie on.

With one device everything runs as it costs least, unless told otherwise: nothing could be served
while it hangs but what is in memory, and a put that is alone costs three times as much processor
time with its write in a thread. With several, writes run in the threads of their lane, so that none
of them can stop the reactor, and with it the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from metamorphosis.errors import StoreStalled
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.lane import Lane

OnStall = Callable[[StoreEnvironment, StoreStalled | None], None]


def device_of(path: str) -> object:
    """The device that ``path`` lies on; a path that cannot be looked at counts as one of its
    own."""
    try:
        return os.stat(path).st_dev
    except OSError:
        return path


class Lanes:
    """
    The environments of the stores, by data path. Thread: reactor.

    :param environment: what they have in common.
    :param make_threads: threads of a lane.
    :param always_apart: writes run in threads although there is one device.
    :ivar on_stall: told the environment whose disk stops to answer, and why, or None: it answers
        again.
    """

    _log = Logger()

    def __init__(
        self,
        environment: StoreEnvironment,
        make_threads: Callable[[], IWorkerThreads],
        device_of: Callable[[str], object] = device_of,
        always_apart: bool = False,
    ) -> None:
        self.on_stall: OnStall = lambda where, why: None
        self._common = environment
        self._make_threads = make_threads
        self._device_of = device_of
        self._always_apart = always_apart
        self._lanes: dict[object, tuple[Lane, StoreEnvironment]] = {}
        self._devices: dict[str, object] = {}

    def open(self, paths: Iterable[str]) -> None:
        """Make the lanes of these paths. Paths that come later find theirs, or get one, but whether
        writes run apart is settled here for the first."""
        self._devices = {path: self._device_of(path) for path in paths}
        apart = len(set(self._devices.values())) > 1
        if self._always_apart and not apart:
            self._log.info("Writes run in threads, as writes-in-threads says")
            apart = True
        elif apart:
            self._log.info(
                "Data paths on {count} devices: each has threads of its own for its writes",
                count=len(set(self._devices.values())),
            )
        for path, device in self._devices.items():
            self._lane(path, device, apart)

    def environment(self, path: str) -> StoreEnvironment:
        """The parts that the stores in ``path`` share."""
        if path not in self._devices:
            self._devices[path] = self._device_of(path)
        device = self._devices[path]
        second = bool(self._lanes) and device not in self._lanes
        return self._lane(path, device, apart=second or self._always_apart)

    def _lane(self, path: str, device: object, apart: bool) -> StoreEnvironment:
        if device not in self._lanes:
            common = self._common
            lane = Lane(self._make_threads(), common.clock, path)
            environment = common._replace(
                threads=lane,
                schedule=FlushSchedule(common.clock),
                apart=apart,
                stalled=lambda: lane.stalled,
            )
            lane.on_stall = lambda error: self.on_stall(environment, error)
            self._lanes[device] = lane, environment
        return self._lanes[device][1]

    def __iter__(self) -> Iterator[StoreEnvironment]:
        return iter([environment for _, environment in self._lanes.values()])

    def stop(self) -> Deferred[None]:
        """End the threads when they have done their work; those that hang are left alone."""
        for environment in self:
            environment.schedule.stop()
        stopping = DeferredList([lane.stop() for lane, _ in self._lanes.values()])
        return stopping.addCallback(lambda _: None)
