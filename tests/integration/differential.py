"""
The same random steps on Debian's ZooKeeper and on ours; the long form of the differential test is
``python -m tests.integration.differential``, for ``ZOOKEEPER_SECONDS`` (300), with a random seed
that is printed; ``--seed`` repeats a run.

Compared are, after each step, every frame of every client in its order: result, error, header,
Stat, watch events; at the end the whole tree. What cannot be equal is made so: times are left out
once they make sense, sessions are numbered in the order of their beginning, and zxids count from
the first one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import struct
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.integration import zookeepersteps as steps
from tests.support import rawzookeeper as raw
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.rawzookeeper import RawClient, Stat
from tests.support.zookeeper import ZooKeeperServer

TICK_TIME = 300  # ms; sessions live for 2 to 20 of them
LONG_TIMEOUT = 20 * TICK_TIME
SHORT_TIMEOUT = 4 * TICK_TIME
EXPIRY_SECONDS = 20.0
CLOSE_SECONDS = 2.0  # less than sessions live: nobody pings meanwhile
CLOCK_TOLERANCE_MS = 600_000
REMEMBERED_STEPS = 12


class Difference(AssertionError):
    """The servers do not agree."""


class World:
    """One server, the clients on it, and what they saw since somebody last took it."""

    def __init__(self, server: ZooKeeperServer) -> None:
        self.server = server
        self.is_ours = isinstance(server, EmbeddedZooKeeper)
        self.clients: list[RawClient] = []
        self.seen: list[Any] = []
        self.sessions: dict[int, int] = {0: 0}
        self.zxid = 0
        self.eras: list[tuple[int, int]] = []  # from this zxid on, so much is taken off

    def start(self) -> None:
        """Start the server; every client begins a session."""
        self.server.start()
        self.clients = [self.begin() for _ in range(steps.CLIENTS)]
        last = self.clients[0].ping().zxid
        self.eras = [(0, last)]
        self.zxid = last
        self.clients[0].frames.clear()

    def stop(self) -> None:
        """End all."""
        for client in self.clients:
            client.close()
        self.server.kill()

    def begin(self, timeout: int = LONG_TIMEOUT) -> RawClient:
        """A client with a new session."""
        client = RawClient(self.server.port, timeout)
        session = client.connect()
        self.sessions[session.id] = len(self.sessions)
        self.seen.append(("session", session.protocol, session.timeout, session.length))
        return client

    # ---- steps

    def take(self, step: steps.Step) -> None:
        """Do it; a step with two halves is ended by ``finish``."""
        getattr(self, type(step).__name__.lower())(step)

    def finish(self, step: steps.Step) -> list[Any]:
        """Everything that was seen because of the step."""
        if isinstance(step, steps.Expire):
            self.wait_for_expiry()
        self.collect(sort=isinstance(step, (steps.Expire, steps.NewSession)))
        seen, self.seen = self.seen, []
        return seen

    def requests(self, step: steps.Requests) -> None:
        """Send all, then read as many answers."""
        client = self.clients[step.client]
        client.send_together(step.requests)
        for opcode, _ in step.requests:
            self.read_reply(client, opcode)

    def read_reply(self, client: RawClient, opcode: int) -> None:
        """One answer; what it said, and the events before it, are noted."""
        reply = client.receive_reply()
        self.note_events(client, sort=False)
        self.zxid = max(self.zxid, reply.zxid)
        said = tuple(map(self.plain, raw.fields(opcode, reply)))
        number = reply.xid if reply.xid < 0 else "next"
        self.seen.append((opcode, number, self.relative(reply.zxid), reply.error, said))

    def authenticate(self, step: steps.Authenticate) -> None:
        """The reply has a number of its own."""
        client = self.clients[step.client]
        client.send(raw.AUTH, raw.auth("digest", step.user.encode()), raw.AUTH_XID)
        self.read_reply(client, raw.AUTH)

    def setwatches(self, step: steps.SetWatches) -> None:
        """As a client does after a reconnect; the zxid is one of the last."""
        client = self.clients[step.client]
        since = max(self.zxid - step.age, 0)
        body = raw.set_watches(since, step.nodes, step.absent, step.parents)
        client.send(raw.SET_WATCHES, body, raw.SET_WATCHES_XID)
        self.read_reply(client, raw.SET_WATCHES)

    def newsession(self, step: steps.NewSession) -> None:
        """The events of the closed session's ephemerals have no order."""
        client = self.clients[step.client]
        client.send(raw.CLOSE)
        reply = client.receive_reply()
        client.frames.clear()
        client.events.clear()
        self.zxid = max(self.zxid, reply.zxid)
        self.seen.append(("closed", self.relative(reply.zxid), reply.error, reply.body))
        if not client.closed_by_server():
            self.seen.append("the connection stays open")
        client.close()
        self.clients[step.client] = self.begin()

    def reconnect(self, step: steps.Reconnect) -> None:
        """
        The old connection is closed by the client or by the server. The original leaves it open
        once in ten thousand times: a connection that has ended takes the entry of the next one of
        its session along.
        """
        old = self.clients[step.client]
        old.socket.settimeout(CLOSE_SECONDS)
        if step.first_closes:
            old.close()
        new = RawClient(self.server.port, LONG_TIMEOUT)
        session = new.connect(old.session, self.zxid)
        kept = session.id == old.session.id and session.password == old.session.password
        self.seen.append(("reconnect", kept, session.timeout))
        if not step.first_closes and not old.closed_by_server() and self.is_ours:
            self.seen.append("the old connection stays open")
        old.close()
        self.clients[step.client] = new

    def wrongpassword(self, step: steps.WrongPassword) -> None:
        """
        Refused. What becomes of the right client's connection is not compared: the original
        closes it, which is a fault.
        """
        thief = RawClient(self.server.port, LONG_TIMEOUT)
        right = self.clients[step.client].session
        session = thief.connect(right._replace(password=b"wrong".ljust(16)), self.zxid)
        self.seen.append(("refused", tuple(session), thief.closed_by_server()))
        thief.close()
        self.reconnect(steps.Reconnect(step.client, first_closes=True))

    def expire(self, step: steps.Expire) -> None:
        """The first half: nodes of a session that falls silent."""
        silent = self.begin(SHORT_TIMEOUT)
        requests = tuple(
            (raw.CREATE, raw.create(path, b"", flags=raw.EPHEMERAL)) for path in step.paths
        )
        silent.send_together(requests)
        for opcode, _ in requests:
            self.read_reply(silent, opcode)
        silent.close()
        self.collect(sort=False)

    def wait_for_expiry(self) -> None:
        """The second half: the end of a session takes a zxid."""
        deadline = time.monotonic() + EXPIRY_SECONDS
        before = self.zxid
        while self.clients[0].ping().zxid == before:
            for client in self.clients[1:]:
                client.ping()
            if time.monotonic() > deadline:
                raise Difference("the silent session does not end")
            time.sleep(0.05)

    def restart(self, step: steps.Restart) -> None:
        """Kill, start, and every session goes on; the zxids do so too, perhaps after a gap."""
        self.server.kill()
        self.server.start()
        for number in range(steps.CLIENTS):
            self.reconnect(steps.Reconnect(number, first_closes=True))
        last = self.clients[0].ping().zxid
        if last < self.zxid:
            raise Difference(f"zxid {last:#x} after {self.zxid:#x} was handed out")
        self.eras.append((self.zxid + 1, self.eras[-1][1] + last - self.zxid))
        self.zxid = last

    # ---- what was seen

    def collect(self, sort: bool) -> None:
        """Whatever the servers still have to say to each client arrives before a ping's answer."""
        for client in self.clients:
            client.send(raw.PING, xid=raw.PING_XID)
        for number, client in enumerate(self.clients):
            reply = client.receive_reply()
            self.zxid = max(self.zxid, reply.zxid)
            self.seen.append(f"client {number}")
            self.note_events(client, sort)
            self.seen.append((self.relative(reply.zxid), reply.error))

    def note_events(self, client: RawClient, sort: bool) -> None:
        """The events that a client got, in their order or without one."""
        events = client.take_events()
        client.frames.clear()
        self.seen.extend(sorted(events) if sort else events)

    def relative(self, zxid: int) -> int:
        """A zxid, counted from the first one of the run."""
        return zxid - max(era for era in self.eras if era[0] <= max(zxid, 0))[1]

    def plain(self, value: Any) -> Any:
        """A field without what differs on every run."""
        if isinstance(value, Stat):
            return self.plain_stat(value)
        if isinstance(value, (tuple, list)):
            return tuple(map(self.plain, value))
        return value

    def plain_stat(self, stat: Stat) -> Stat:
        """The times make sense, and are left out."""
        now = time.time() * 1000
        for moment in (stat.ctime, stat.mtime):
            if moment and abs(moment - now) > CLOCK_TOLERANCE_MS:
                raise Difference(f"a time that is not now: {stat}")
        if stat.version == 0 and stat.ctime != stat.mtime:
            raise Difference(f"never changed, and yet later than its creation: {stat}")
        return stat._replace(
            czxid=self.relative(stat.czxid) if stat.czxid else 0,
            mzxid=self.relative(stat.mzxid) if stat.mzxid else 0,
            pzxid=self.relative(stat.pzxid) if stat.pzxid else 0,
            ctime=0,
            mtime=0,
            owner=self.sessions.get(stat.owner, stat.owner),
        )

    def tree(self) -> dict[str, Any]:
        """Everything below the root of the steps, as one who may read anything sees it."""
        client = self.clients[0]
        for user in steps.USERS:
            client.call(raw.AUTH, raw.auth("digest", user.encode()), raw.AUTH_XID)
        found: dict[str, Any] = {}
        waiting = [steps.ROOT]
        while waiting:
            path = waiting.pop()
            listed = client.ask(raw.GET_CHILDREN2, raw.watched(path))
            read = client.ask(raw.GET_DATA, raw.watched(path))
            found[path] = self.plain((listed, read, client.ask(raw.GET_ACL, raw.text(path))))
            if listed[1]:
                assert isinstance(listed[1][0], list)
                waiting += [f"{path}/{name}" for name in listed[1][0]]
        return found


class Comparison:
    """
    Two worlds that go through the same steps.

    :param worlds: the one that is right, and the one that is to be.
    """

    def __init__(self, right: World, ours: World) -> None:
        self.right = right
        self.ours = ours
        self.taken = 0
        self.last: deque[steps.Step] = deque(maxlen=REMEMBERED_STEPS)

    def start(self) -> None:
        """Start both; they begin with the root of the steps."""
        self.right.start()
        self.ours.start()
        self.take(steps.Requests(0, ((raw.CREATE, raw.create(steps.ROOT, b"")),)))

    def stop(self) -> None:
        """End both."""
        self.right.stop()
        self.ours.stop()

    def take(self, step: steps.Step) -> None:
        """One step on both; :exc:`Difference` unless both saw the same."""
        self.taken += 1
        self.last.append(step)
        begun = time.monotonic()
        try:
            self.right.take(step)
            self.ours.take(step)
            self.compare(self.right.finish(step), self.ours.finish(step))
        except (OSError, raw.Closed, AssertionError, struct.error) as error:
            seconds = f"after {time.monotonic() - begun:.1f} s"
            what = "".join(traceback.format_exception(error))
            raise Difference(f"{self.story()}\n{seconds}, {what}") from error

    def compare(self, right: list[Any], ours: list[Any]) -> None:
        """The first thing that is not equal, in full."""
        for number in range(max(len(right), len(ours))):
            pair = [seen[number] if number < len(seen) else None for seen in (right, ours)]
            if pair[0] != pair[1]:
                raise Difference("right: {!r}\nours:  {!r}".format(*pair))

    def story(self) -> str:
        """The last steps, for an error message."""
        numbers = range(self.taken - len(self.last) + 1, self.taken + 1)
        return "\n".join(f"{number}: {step}" for number, step in zip(numbers, self.last))

    def compare_trees(self) -> int:
        """Both trees are the same; how many nodes they have."""
        right, ours = self.right.tree(), self.ours.tree()
        for path in sorted(right.keys() | ours.keys()):
            if right.get(path) != ours.get(path):
                raise Difference(f"{path}\nright: {right.get(path)}\nours:  {ours.get(path)}")
        return len(right)


def run(
    directory: str, seed: int, enough: Callable[[int], bool], slow: bool, right_only: bool = False
) -> tuple[int, int]:
    """
    Compare until there were ``enough`` steps.

    :param right_only: Debian's with itself, to see whether the test is right.
    :returns: how many steps and nodes.
    """
    right = World(ZooKeeperServer(os.path.join(directory, "right"), TICK_TIME))
    kind = ZooKeeperServer if right_only else EmbeddedZooKeeper
    comparison = Comparison(right, World(kind(os.path.join(directory, "ours"), TICK_TIME)))
    generator = steps.Generator(seed, slow)
    try:
        comparison.start()
        while not enough(comparison.taken):
            comparison.take(generator.step())
        comparison.take(generator.expire())
        comparison.take(steps.Restart())
        return comparison.taken, comparison.compare_trees()
    except Difference as error:
        raise Difference(f"seed {seed}, step {comparison.taken}\n{error}") from error
    finally:
        comparison.stop()


def main() -> int:
    """The long form: seed after seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    seconds = float(os.environ.get("ZOOKEEPER_SECONDS", "300"))
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--steps", type=int, default=3000, help="with one seed (3000)")
    parser.add_argument("--right-only", action="store_true", help="Debian's with itself")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    seed = options.seed
    while time.monotonic() < deadline:
        directory = tempfile.mkdtemp(prefix="metamorphosis-differential-")
        print(f"seed {seed}", end=": ", flush=True)
        try:
            done = run(directory, seed, lambda n: n >= options.steps, True, options.right_only)
        except Difference as error:
            print(f"{error}\nfiles in {directory}")
            return 1
        print("{} steps, {} nodes".format(*done), flush=True)
        shutil.rmtree(directory)
        seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
