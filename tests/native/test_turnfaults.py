"""
The turn in C while one of its system calls fails, is interrupted, or does less than it was asked
for: the n-th call, for each n of a scene. No reply is lost, or promises a record that is not in the
file; nothing stays open.

Needs a module that was built with the double of those calls (``tests.native.sanitized``).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Callable
from typing import Any

from metamorphosis.message import iterate_records
from metamorphosis.native import compiled
from tests.support.lanes import Peer, Served
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_lanes import LaneCase

CALLS = {
    "recv": (0, errno.EINTR, errno.ECONNRESET),
    "send": (0, errno.EINTR, errno.EAGAIN, errno.EPIPE),
    "sendfile": (0, errno.EINTR, errno.EAGAIN, errno.EIO),
    "pwrite": (0, errno.EINTR, errno.ENOSPC, errno.EIO),
    "epoll_wait": (0, errno.EINTR),
    "realloc": (errno.ENOMEM,),
}
REPLY = re.compile(rb"result (\d+) \d+ (\d+)\r\n(?:(\d+) (\d) (\d+))?")
ROUNDS, PUTS = 3, 4


class DoubleCase(LaneCase):
    """A scene that is played once for each of its system calls."""

    calls = CALLS
    scenes = 60  # at least so many calls

    def setUp(self) -> None:
        """The test's plan for the system calls."""
        assert compiled is not None
        library = ctypes.CDLL(compiled.__file__)
        self.assertTrue(hasattr(library, "double_plan"), "built without the double")
        self.plan: Any = library.double_plan
        self.left: Any = library.double_left
        self.patch(os, "fdatasync", lambda descriptor: None)

    def play(self, scene: Callable[[str, int, int], bool]) -> None:
        """
        With each call of the scene, in each way in which it can fail.

        :param scene: plays with this plan: call, number, error; whether the planned call came.
        """
        seen = 0
        for name, errors in self.calls.items():
            for error in errors:
                nth = 1
                while scene(name, nth, error):
                    nth += 1
                    seen += 1
        self.assertGreater(seen, self.scenes)


class FaultTests(DoubleCase):
    """Stores that are written at once."""

    options: dict[str, Any] = {}

    def test_each_call(self) -> None:
        """Each call of the scene fails once."""
        self.play(self.scene)

    def scene(self, name: str, nth: int, error: int) -> bool:
        """Clients put and get; whether the planned call came."""
        served = self.serve(**self.options)
        served.advance(1)
        peers = [self.plain(served) for _ in range(3)]
        served.advance(1)
        self.plan(name.encode(), nth, error)
        came = [b"" for _ in peers]
        for number in range(ROUNDS):
            for who, peer in enumerate(peers):
                self.send(peer, who, number)
            self.turn(served)
            for who, peer in enumerate(peers):
                came[who] += peer.received()
        failed: bool = self.left() == 0
        self.plan(b"none", 0, 0)
        served.turn()
        what = f"{name} {nth} {error}"
        for who, peer in enumerate(peers):
            self.check(served, peer, who, came[who] + peer.received(), what)
        for store in served.broker.stores:
            self.assertFalse(any(segment.in_use for segment in store.segments), what)
            self.assertEqual(os.path.getsize(store.last.path), store.last.size, what)
        served.close()
        return failed

    def turn(self, served: Served) -> None:
        """What was sent is answered."""
        served.turn()

    def send(self, peer: Peer, who: int, number: int) -> None:
        """Puts to both partitions with a get among them, and half a put that the next round
        completes."""
        puts = [
            put(b"%d-%d-%d" % (who, number, each), partition=b"%d" % (each % 2), opaque=b"7")
            for each in range(PUTS)
        ]
        stream = puts[0] + b"get test g 0 0 25 9\r\n" + b"".join(puts[1:])
        begun, ended = (
            put(b"%d-half-%d" % (who, each), opaque=b"8") for each in (number + 1, number)
        )
        try:
            if number:
                stream = ended[20:] + stream
            peer.send(stream + (begun[:20] if number < ROUNDS - 1 else b""))
        except OSError:
            pass  # it was cut off

    def check(self, served: Served, peer: Peer, who: int, came: bytes, what: str) -> None:
        """All replies arrive, unless the connection has ended; every acknowledged record is in its
        file."""
        value = re.compile(rb"value 25 9\r\n.{25}", re.DOTALL)
        replies = REPLY.findall(value.sub(b"", came))
        bodies = []
        for number in range(ROUNDS):
            bodies += [b"%d-half-%d" % (who, number)] if number else []
            bodies += [b"%d-%d-%d" % (who, number, each) for each in range(PUTS)]
        if peer.transport.connected:
            self.assertEqual(len(value.findall(came)), ROUNDS, what)
            self.assertEqual(len(replies), len(bodies), what)
        files = served.files()
        log = b"".join(files.values())
        for body, (status, _, number, partition, offset) in zip(bodies, replies):
            if status == b"200":
                data = files[f"test-{int(partition)}/0"][int(offset) :]
                record = next(iterate_records(data))
                self.assertEqual((bytes(record.body), record.id), (body, int(number)), what)
            else:
                self.assertEqual(status, b"500", what)
                self.assertNotIn(body, log, what)


class GroupCommitFaultTests(FaultTests):
    """Stores that collect: the replies wait for a flush."""

    options = {"unflush_threshold": 0}
    scenes = 40

    def turn(self, served: Served) -> None:
        """The first flush ends when other puts have come."""
        served.broker.threads.hold()
        served.turn()
        served.broker.threads.release()
        served.turn()
