"""Signals, file limit and refused starts."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import metamorphosis
from metamorphosis.daemon.process import (
    Signals,
    StartRefused,
    raise_file_limit,
    use_monotonic_timers,
    use_pid_file,
)
from metamorphosis.errors import MetaQError
from tests.support.settable import DAY, SettableReactor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(metamorphosis.__file__)))


class StoppableReactor(MemoryReactorClock):
    """
    Counts stops; a second one is refused, as the real one does. ``callFromThread`` calls later.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0

    def stop(self) -> None:
        """Stop once."""
        if self.stops:
            raise ReactorNotRunning
        self.stops += 1

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        """In the next turn."""
        self.callLater(0, function, *args)


class SignalsTests(SynchronousTestCase):
    """Signal handlers that were never given to the process."""

    def setUp(self) -> None:
        """Handlers as they are once the reactor runs."""
        self.reactor = StoppableReactor()
        self.calls: list[str] = []
        self.handlers: dict[int, Callable[[int, Any], None]] = {}
        signals = Signals(
            self.reactor,
            hurry=lambda: self.calls.append("hurry"),
            reload=lambda: self.calls.append("reload"),
            install=self.handlers.__setitem__,
        )
        signals.install()

    def run_reactor(self) -> None:
        """Twisted has installed its handlers; now ours follow."""
        for function, args, kwargs in self.reactor.whenRunningHooks:
            function(*args, **kwargs)

    def receive(self, number: int) -> None:
        """What Python does for a signal, and the turn of the reactor after it."""
        self.handlers[number](number, None)
        self.reactor.advance(0)

    def test_only_hangup_is_taken_before_the_reactor(self) -> None:
        """SIGTERM and SIGINT are left alone until Twisted has set its own handlers."""
        self.assertEqual(set(self.handlers), {signal.SIGHUP})
        self.run_reactor()
        self.assertEqual(set(self.handlers), {signal.SIGHUP, signal.SIGTERM, signal.SIGINT})

    def test_sigterm_stops(self) -> None:
        """SIGTERM stops the reactor, which stops the services."""
        self.run_reactor()
        self.receive(signal.SIGTERM)
        self.assertEqual((self.reactor.stops, self.calls), (1, []))

    def test_second_ending_hurries(self) -> None:
        """SIGINT after SIGTERM does not stop again but hurries."""
        self.run_reactor()
        self.receive(signal.SIGTERM)
        self.receive(signal.SIGINT)
        self.assertEqual((self.reactor.stops, self.calls), (1, ["hurry"]))

    def test_hangup_reloads(self) -> None:
        """SIGHUP reloads and stops nothing."""
        self.receive(signal.SIGHUP)
        self.assertEqual((self.reactor.stops, self.calls), (0, ["reload"]))

    def test_handlers_do_nothing_themselves(self) -> None:
        """A handler interrupts anything, so all it does is to ask the reactor for a call."""
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual(self.calls, [])


class StartRefusedTests(SynchronousTestCase):
    """How ``twistd`` and Python see a refused start."""

    def test_ends_the_process_with_status_1(self) -> None:
        """Python ends with this status and prints nothing, because the code is a number."""
        with self.assertRaises(SystemExit) as raised:
            raise StartRefused("port 8123 is taken")
        self.assertEqual(raised.exception.code, 1)

    def test_is_an_exception_for_twistd(self) -> None:
        """``twistd`` cleans up after an ``Exception`` and shows its text to a daemon's parent."""
        self.assertIsInstance(StartRefused("x"), Exception)
        self.assertIsInstance(StartRefused("x"), MetaQError)
        self.assertEqual(str(StartRefused("port 8123 is taken")), "port 8123 is taken")


class FileLimitTests(SynchronousTestCase):
    """The number of files that may be open."""

    def test_soft_limit_becomes_the_hard_one(self) -> None:
        """A thousand clients and a thousand partitions need more than the usual 1024 files."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        raise_file_limit()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (before[1], before[1]))


FAULTS = """
import resource, sys
from metamorphosis.daemon.process import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    raise SystemExit(77)
def turn():
    bodies = [bytes(8192) for _ in range(200)]
    return b"".join(bodies)
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


class KeptMemoryTests(SynchronousTestCase):
    """Memory that a turn frees is there for the next."""

    def faults(self, mode: str) -> int:
        """Page faults of fifty turns of 200 messages in a process of its own."""
        found = subprocess.run(
            [sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, cwd=ROOT
        )
        if found.returncode == 77:
            raise SkipTest("this C library has no mallopt")
        return int(found.stdout)

    def test_pages_are_not_faulted_in_again(self) -> None:
        """Without it every turn faults in pages anew: up to hundreds, as the kernel's are large."""
        kept = self.faults("keep")
        self.assertLess(kept, 200)
        self.assertGreater(self.faults("plain"), 2 * kept)


class MonotonicTimersTests(SynchronousTestCase):
    """A real reactor that is given another clock."""

    def test_clock_set(self) -> None:
        """
        Calls that were pending keep what is left to them, new ones and loops come in time, whatever
        the time of day.
        """
        reactor = SettableReactor()
        self.addCleanup(reactor.discard)
        now = [100.0]
        called: list[str] = []
        reactor.callLater(1, self.fail).cancel()
        reactor.callLater(5, called.append, "pending")
        reactor.turn()  # into the heap
        reactor.callLater(2, self.fail).cancel()
        moved = reactor.callLater(50, called.append, "moved")
        reactor.callLater(6, called.append, "new")
        use_monotonic_timers(reactor, lambda: now[0])
        reactor.now -= DAY
        loop = LoopingCall(called.append, "loop")
        loop.clock = reactor
        loop.start(4, now=False)
        moved.reset(3)
        for now[0], expected in (
            (102.9, []),
            (103.0, ["moved"]),
            (104.0, ["moved", "loop"]),
            (105.0, ["moved", "loop", "pending"]),
            (106.0, ["moved", "loop", "pending", "new"]),
        ):
            reactor.turn()
            self.assertEqual(expected, called)
        loop.stop()

    def test_twice(self) -> None:
        """The second time changes nothing, and a clock of a test is left alone."""
        reactor = SettableReactor()
        self.addCleanup(reactor.discard)
        call = reactor.callLater(10, self.fail)
        use_monotonic_timers(reactor, float)
        use_monotonic_timers(reactor, float)
        self.assertEqual(10, call.getTime())
        clock = MemoryReactorClock()
        use_monotonic_timers(clock)
        self.assertEqual(0, clock.seconds())


class PidFileTests(SynchronousTestCase):
    """What a pid file keeps from starting."""

    def left(self, content: bytes, age: float = 0, foreground: bool = False) -> bool:
        """Whether a file of that age, in seconds, is there for ``twistd`` to look at."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(content)
        written = time.time() - age
        os.utime(path, (written, written))
        options = {"pidfile": path, "nodaemon": foreground}
        use_pid_file(options)
        self.assertEqual(options["pidfile"], path)
        return os.path.exists(path)

    def test_twist(self) -> None:
        """It knows no pid files."""
        options: dict[str, object] = {}
        use_pid_file(options)
        self.assertEqual(options, {})

    def test_stale(self) -> None:
        """Nothing in it, no number, or our own number, which is the same in a container after each
        restart."""
        for content in (b"", b"\n", b"\0\0\0", b"none", b"%d" % os.getpid()):
            for foreground in (False, True):
                self.assertFalse(self.left(content, foreground=foreground), content)

    def test_number_of_a_younger_process(self) -> None:
        """The process with that number began after the file was written."""
        self.assertFalse(self.left(b"%d\n" % os.getppid(), age=10**9))

    def test_number_of_a_process_that_runs(self) -> None:
        """That one may have written it: ``twistd`` refuses to start."""
        self.assertTrue(self.left(b"%d" % os.getppid()))

    def test_number_of_no_process(self) -> None:
        """``twistd`` finds out by itself."""
        self.assertTrue(self.left(b"99999999"))

    def test_foreground(self) -> None:
        """Without a name of its own a process in the foreground has none; a daemon has."""
        for nodaemon, expected in ((True, ""), (False, "twistd.pid")):
            options = {"pidfile": "twistd.pid", "nodaemon": nodaemon}
            use_pid_file(options)
            self.assertEqual(options["pidfile"], expected)
