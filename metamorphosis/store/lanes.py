"""
The lane of each data path: one lane for each device with data paths.

With one device, writes run on the reactor thread unless configured otherwise: while that device
hangs, only gets from memory could be served anyway, and a single put costs three times as much
processor time with its write in a thread. With several devices, writes run in the threads of their
lane, so that a hung device cannot stop the reactor and the other devices with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from metamorphosis.errors import StoreStalled
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.lane import Lane

OnStall = Callable[[StoreEnvironment, StoreStalled | None], None]


def device_of(path: str) -> object:
    """The device of ``path``; a path whose status cannot be read counts as a device of its own."""
    try:
        return os.stat(path).st_dev
    except OSError:
        return path


class Lanes:
    """
    The environments of the stores, by data path. Thread: reactor.

    :param environment: the parts that all lanes share.
    :param make_threads: makes the threads of a lane.
    :param always_apart: writes run in threads even with one device.
    :ivar on_stall: called with the environment of a disk that stops answering and the reason, or
        with None when it answers again.
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
        """Make the lanes of these paths, and decide for them whether writes run apart. Later paths
        use the lane of their device or get a new one."""
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
        """The parts that the stores below ``path`` share."""
        if path not in self._devices:
            self._devices[path] = self._device_of(path)
        device = self._devices[path]
        second = bool(self._lanes) and device not in self._lanes
        return self._lane(path, device, apart=second or self._always_apart)

    def _lane(self, path: str, device: object, apart: bool) -> StoreEnvironment:
        if device not in self._lanes:
            common = self._common
            lane = Lane(self._make_threads(), common.clock, path)
            environment = replace(
                common,
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
        """End the threads after their work; threads that hang are not waited for."""
        for environment in self:
            environment.schedule.stop()
        stopping = DeferredList([lane.stop() for lane, _ in self._lanes.values()])
        return stopping.addCallback(lambda _: None)
