"""
Keeps the pair master in ZooKeeper only while a put can succeed.

    state       event                                                   state
    AWAY        the pair is joined                                      PRESENT: registered
    PRESENT     ``threshold`` failures in a row, the slave connected    PROBING: withdrawn
    PRESENT     the same, the slave not connected                       AWAY: withdrawn
    PRESENT     no put could succeed for ``threshold`` intervals        AWAY: withdrawn
    PROBING     a probe is accepted, and a put may succeed              PRESENT: registered
    PROBING     the connection is lost                                  AWAY

A failure is a put that the slave has refused or not answered in time, or for which the connection
was lost or missing; any put that the slave accepts in time resets the count. A master without puts
has no failures, but producers must not find it either when puts would fail: it is withdrawn after
``threshold`` intervals without a connection or without a joined partition (10 s by default). A
probe is a record of a separate topic. After a refusal the next probe follows after ``interval``,
after a timeout at once. The master is registered again at most once a second, and only while a
partition is joined: with a full disk of its own, for example, none is.

A Java slave deletes the topic nodes of its master shortly after it has begun to listen, which may
be after the joining. So after each connect every node is checked again several times.

Source: ``SamsaCommandProcessor``. Differs: the original does not count puts for which there was no
connection, so that it stays registered while its slave is down; it never probes again when its
registration fails once; and it registers in a new session although its slave is away.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from metamorphosis.replication.pairmaster.frames import head_of
from metamorphosis.replication.pairmaster.sending import ACCEPTED, REFUSED, probe

if TYPE_CHECKING:
    from metamorphosis.cluster.registration import BrokerRegistration
    from metamorphosis.ids import MessageIds
    from metamorphosis.interfaces import IRuntime, Timer
    from metamorphosis.replication.pairmaster.syncs import Syncs

LOOKS: Final = (1.0, 3.0, 10.0, 30.0)
"""Seconds after a connect at which the nodes are checked again."""

LEAST_SECONDS: Final = 0.01
"""Between two probes, even if they are refused at once."""

STEADY_SECONDS: Final = 1.0
"""The shortest time between two registrations."""


IDLE_LOOK_SECONDS: Final = 0.5
"""Between two checks whether a put could succeed."""


class Visibility(Enum):
    """See the module."""

    AWAY = "not registered until the pair is joined"
    PRESENT = "registered"
    PROBING = "not registered until the slave takes a probe"


class Withdrawal:
    """
    Withdraws and resumes the registration. Thread: reactor.

    :param threshold: ``slaveContinuousFailureThreshold``.
    :param interval: seconds, ``checkSlaveIntervalInMills``.
    :param probe_topic: the topic of the probes.
    :param takes_puts: whether a put may succeed by the state of the joining.
    :ivar state: see the module.
    :ivar probes: the number of sent probes.
    """

    _log = Logger()

    def __init__(
        self,
        runtime: IRuntime,
        registration: BrokerRegistration,
        syncs: Syncs,
        ids: MessageIds,
        threshold: int,
        interval: float,
        probe_topic: str,
        takes_puts: Callable[[], bool],
    ) -> None:
        self.state = Visibility.AWAY
        self.probes = 0
        self._runtime = runtime
        self._registration = registration
        self._syncs = syncs
        self._ids = ids
        self._threshold = threshold
        self._interval = max(interval, LEAST_SECONDS)
        self._probe_head = head_of(probe_topic, 0)
        self._takes_puts = takes_puts
        self._timers: list[Timer] = []  # of the checks after a connect
        self._probe_timer: Timer | None = None
        self._earliest = 0.0  # time of the next allowed registration
        self._probing = 0  # number of the present row of probes
        self._limit = max(threshold * self._interval, STEADY_SECONDS)
        self._useless_since: float | None = None  # begin of the time in which no put can succeed
        self._look_timer: Timer | None = None
        self._stopped = False
        syncs.failed = self._failed

    def joined(self) -> None:
        """The pair is joined."""
        self._useless_since = None
        if self.state is Visibility.AWAY and not self._stopped:
            self._come_back()

    def connected(self) -> None:
        """A new connection is established: a slave that has just started may delete our nodes."""
        self._cancel()
        self._timers = [
            self._runtime.call_later(seconds, self._registration.look_again) for seconds in LOOKS
        ]

    def lost(self) -> None:
        """The connection is lost."""
        self._cancel()
        if self.state is Visibility.PROBING:
            self.state = Visibility.AWAY

    def stop(self) -> None:
        """End the probes and the checks."""
        self._stopped = True
        self._probing += 1
        self._cancel()
        if self._look_timer is not None:
            self._look_timer.cancel()

    def _cancel(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._probe_timer is not None:
            self._probe_timer.cancel()

    def _look(self) -> None:
        """Check whether a put could succeed, while it is registered."""
        self._look_timer = None
        if self.state is not Visibility.PRESENT or self._stopped:
            return
        now = self._runtime.seconds()
        if self._syncs.is_connected and self._takes_puts():
            self._useless_since = None
        elif self._useless_since is None:
            self._useless_since = now
        elif now - self._useless_since >= self._limit:
            self._log.warn(
                "Withdrawing from ZooKeeper: no put could succeed for {seconds} s",
                seconds=self._limit,
            )
            self._registration.withdraw()
            self.state = Visibility.AWAY
            return
        self._look_timer = self._runtime.call_later(IDLE_LOOK_SECONDS, self._look)

    def _failed(self, count: int) -> None:
        """Take the number of failures in a row; see ``Syncs``."""
        if count < self._threshold or self._stopped:
            return
        self._syncs.failures = 0
        if self.state is not Visibility.PRESENT:
            return
        self._log.warn(
            "Withdrawing from ZooKeeper: {count} puts in a row were not acknowledged by the slave",
            count=count,
        )
        self._registration.withdraw()
        self.state = Visibility.AWAY
        if self._syncs.is_connected:
            self.state = Visibility.PROBING
            self._probing += 1
            self._probe(self._probing)

    def _probe(self, row: int) -> None:
        if row != self._probing or self.state is not Visibility.PROBING:
            return
        if not self._ids.ready:
            self._probe_later(row)
            return
        self.probes += 1
        asked = probe(self._syncs, self._probe_head, self._ids.take(), self._syncs.timeout)
        asked.addCallback(self._probed, row)

    def _probed(self, answer: tuple[int, bytes], row: int) -> None:
        if row != self._probing or self.state is not Visibility.PROBING:
            return
        status = answer[0]
        if status == REFUSED:
            self._probe_later(row)
        elif status != ACCEPTED:
            self._runtime.call_soon(self._probe, row)
        elif self._takes_puts() and self._runtime.seconds() >= self._earliest:
            self._come_back()
        else:
            self._probe_later(row)

    def _probe_later(self, row: int) -> None:
        self._probe_timer = self._runtime.call_later(self._interval, self._probe, row)

    def _come_back(self) -> None:
        self.state = Visibility.PRESENT
        self._earliest = self._runtime.seconds() + STEADY_SECONDS
        self._syncs.failures = 0
        self._registration.resume()
        self._useless_since = None
        if self._look_timer is None:
            self._look_timer = self._runtime.call_later(IDLE_LOOK_SECONDS, self._look)
