"""
A replicated broker under faults: the master of a pair, its slave, an asynchronous slave, all ours,
with producers, readers, and groups of consumers that come and go and commit their positions, while
members are killed and frozen, the line between them swallows and breaks, disks are full and
ZooKeeper is away.

After every fault nobody does anything but start what was killed. At the end every acknowledged
message is on each member at the offset and with the id of its acknowledgement, and was given to
each group, what any reader saw is there too, no message is there twice, and the logs are the same
byte for byte.

The suite runs a few faults (``test_replication``); ``make replication-faults FAULTS=500`` runs
many.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from tests.faults.kills import PartitionJudge, check, stored_log
from tests.faults.peer import Peer
from tests.faults.replicationgroups import Groups
from tests.faults.replicationload import PARTITIONS, TOPICS, Producer, Reader
from tests.faults.wire import CLOSE, DEAF, GARBAGE, HALF, LOSE, PASS, SILENT, FaultyWire
from tests.integration import setclock
from tests.integration.setclock import SetClock
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.replicated import Member
from tests.support.zookeeper import free_port

PRODUCERS = 3
TICK_MS = 100
"""Sessions of the embedded ZooKeeper end after 0.2 to 2 seconds."""

SESSION_MS = 1000
SEND_TIMEOUT_MS = 400
THRESHOLD = 20
"""Failures in a row after which the master of the pair withdraws."""

SEGMENT_BYTES = 256 * 1024
PROGRESS = 20
"""So many puts have to be acknowledged after a fault, before the next one."""

PROGRESS_SECONDS = 30.0
LEVEL_SECONDS = 60.0

MASTER, SLAVE, FOLLOWER = "master", "slave", "follower"
"""The members: of the pair, and the asynchronous slave."""

DISASTERS = ("Traceback", "Replication diverged", "Replication gap", "Replication damaged")
"""What no member may log."""


class Cluster:
    """
    The members, their ZooKeeper, and the line between the two of the pair.

    :param directory: made if missing.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.zookeeper = EmbeddedZooKeeper(f"{self.directory}/zookeeper", tick_time=TICK_MS)
        slave = self._member(SLAVE, "gregor", {})
        self.wire = FaultyWire(("127.0.0.1", slave.port))
        self.members = {
            SLAVE: slave,
            MASTER: self._member(
                MASTER,
                "samsa",
                {
                    "slave": self.wire.address,
                    "sendToSlaveTimeoutInMills": SEND_TIMEOUT_MS,
                    "checkSlaveIntervalInMills": 50,
                    "slaveContinuousFailureThreshold": THRESHOLD,
                },
            ),
            FOLLOWER: self._member(FOLLOWER, "slave", {"slaveId": 0, "slaveMaxDelayInMills": 50}),
        }

        self.clock: SetClock | None = None
        if setclock.missing() is None:
            self.clock = SetClock(f"{self.directory}/clock")
            for member in self.members.values():
                member.variables = self.clock.variables()

    def _member(self, name: str, role: str, properties: dict[str, Any]) -> Member:
        return Member(
            f"{self.directory}/{name}",
            role,
            properties,
            topics={
                topic: {"numPartitions": PARTITIONS, "unflushThreshold": threshold}
                for topic, threshold in TOPICS.items()
            },
            system={"maxSegmentSize": SEGMENT_BYTES},
            zookeeper=self.zookeeper,
            zookeeper_keys={"zk.zkSessionTimeoutMs": SESSION_MS},
        )

    def start(self) -> None:
        """ZooKeeper first, then the slave of the pair; no member needs that order."""
        self.zookeeper.start()
        self.start_members(*self.members)

    def start_members(self, *names: str) -> None:
        """All at the same time."""
        for name in names:
            self.members[name].start(wait=False)
        for name in names:
            member = self.members[name]
            member.wait_until(member.serves, "serve")

    def end(self) -> None:
        """End everything at once."""
        self.wire.close()
        for member in self.members.values():
            member.kill()
        self.zookeeper.kill()

    def log_of(self, name: str, topic: str, number: int) -> bytes:
        """The bytes of a partition of a member that does not run."""
        path = os.path.join(self.members[name].data, f"{topic}-{number}")
        return b"".join(stored_log(path)) if os.path.isdir(path) else b""


class Faults:
    """
    What can happen; each method returns when it is over, but for what the members make of it.

    :param cluster: to which it happens.
    :param groups: whose members come and go.
    :param pace: how long pauses are, 1: as written here.
    """

    def __init__(self, cluster: Cluster, groups: Groups, seed: int, pace: float = 1.0) -> None:
        self._cluster = cluster
        self._groups = groups
        self._members = cluster.members
        self._random = random.Random(seed)
        self._pace = pace
        self.kinds: list[Callable[[], str]] = [
            self.kill_one,
            self.kill_one,
            self.kill_several,
            self.freeze_shortly,
            self.freeze_for_long,
            self.restart_one,
            self.line,
            self.line,
            self.full_disk,
            self.zookeeper_away,
            self.zookeeper_empty,
            self.move_master,
            self.kill_while_frozen,
            self.consumer_returns,
        ]
        if cluster.clock is not None:
            self.kinds.append(self.clock_set)

    def happen(self) -> str:
        """One of them; what it was."""
        return self._random.choice(self.kinds)()

    def _pause(self, longest: float) -> None:
        time.sleep(self._random.uniform(0.0, longest) * self._pace)

    def _one(self) -> str:
        return self._random.choice((MASTER, SLAVE, FOLLOWER))

    def kill_one(self) -> str:
        """SIGKILL, and a start sooner or later."""
        name = self._one()
        self._members[name].kill()
        self._pause(1.0)
        self._members[name].start()
        return f"{name} killed"

    def kill_several(self) -> str:
        """Two or three at once; they start in any order."""
        names = self._random.sample((MASTER, SLAVE, FOLLOWER), self._random.choice((2, 2, 3)))
        for name in names:
            self._members[name].kill()
        self._pause(0.5)
        if self._random.random() < 0.5:
            self._random.shuffle(names)
            first = names.pop()
            self._members[first].start()
            names.append(first)
        self._cluster.start_members(*(each for each in names if not self._members[each].process))
        return f"{', '.join(names)} killed"

    def restart_one(self) -> str:
        """An orderly one."""
        name = self._one()
        status = self._members[name].stop()
        check(status == 0, f"{name} ended with status {status}")
        self._pause(0.5)
        self._members[name].start()
        return f"{name} restarted"

    def _freeze(self, seconds: float) -> str:
        name = self._one()
        self._members[name].signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._members[name].signal(signal.SIGCONT)
        return name

    def freeze_shortly(self) -> str:
        """Shorter than every timeout."""
        return f"{self._freeze(self._random.uniform(0.05, 0.3))} frozen shortly"

    def freeze_for_long(self) -> str:
        """Longer than the ZooKeeper session and the timeouts."""
        seconds = SESSION_MS / 1000 + self._random.uniform(0.2, 1.5)
        return f"{self._freeze(seconds)} frozen for {seconds:.1f} s"

    def kill_while_frozen(self) -> str:
        """It never goes on."""
        name = self._one()
        self._members[name].signal(signal.SIGSTOP)
        self._pause(1.0)
        self._members[name].kill()
        self._members[name].start()
        return f"{name} killed while frozen"

    def line(self) -> str:
        """Between the two of the pair; then it breaks, or continues normally."""
        wire = self._cluster.wire
        fault = self._random.choice((SILENT, DEAF, GARBAGE, HALF, CLOSE, LOSE))
        wire.fault = fault
        self._pause(1.5)
        wire.fault = PASS
        if fault in (SILENT, DEAF, HALF) or self._random.random() < 0.5:
            wire.cut()  # what was swallowed never comes: a real line would have ended, too
        return f"line {fault}"

    def full_disk(self) -> str:
        """No file of a member can grow."""
        name = self._one()
        pid = self._members[name].pid
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
        self._pause(1.0)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        return f"disk of {name} full"

    def zookeeper_away(self) -> str:
        """It comes back with all it had."""
        self._cluster.zookeeper.kill()
        self._pause(1.5)
        self._cluster.zookeeper.start()
        return "ZooKeeper away"

    def zookeeper_empty(self) -> str:
        """It comes back with nothing."""
        zookeeper = self._cluster.zookeeper
        zookeeper.kill()
        shutil.rmtree(zookeeper.data)
        self._pause(1.0)
        zookeeper.start()
        return "ZooKeeper empty"

    def clock_set(self) -> str:
        """The time of day of all members goes back, or forward."""
        assert self._cluster.clock is not None
        seconds = self._random.choice((-3600, -60, -1, 60))
        self._cluster.clock.step(seconds)
        return f"clock set by {seconds} s"

    def consumer_returns(self) -> str:
        """One leaves its group, and another one joins it."""
        return self._groups.come_and_go(self._random)

    def move_master(self) -> str:
        """The master starts under another address; its slaves have to find it."""
        master = self._members[MASTER]
        master.kill()
        master.move(free_port())
        self._pause(0.5)
        master.start()
        return "master moved"


class ReplicationRun:
    """
    The cluster, its load and its faults.

    :param say: gets a line now and then.
    :param pace: see ``Faults``.
    :ivar happened: every fault so far.
    """

    def __init__(
        self,
        directory: str,
        seed: int,
        say: Callable[[str], object] = lambda line: None,
        pace: float = 1.0,
    ) -> None:
        self.cluster = Cluster(directory)
        self.happened: list[str] = []
        zookeeper = self.cluster.zookeeper.connect_string
        self.groups = Groups(zookeeper, TOPICS, f"{self.cluster.directory}/groups")
        self._faults = Faults(self.cluster, self.groups, seed, pace)
        self._say = say
        members = self.cluster.members
        self.producers = [
            Producer(f"p{number}", seed + number, lambda: members[MASTER].port)
            for number in range(PRODUCERS)
        ]
        self.readers = [
            Reader(name, lambda name=name: members[name].port)  # type: ignore[misc]
            for name in (MASTER, SLAVE, FOLLOWER)
        ]

    @property
    def acknowledged(self) -> int:
        """How many messages were."""
        return sum(len(producer.acknowledged) for producer in self.producers)

    def promised(self) -> set[bytes]:
        """The keys of what was acknowledged."""
        return set().union(*(producer.promised for producer in self.producers))

    def start(self) -> None:
        """Everything runs, and the first puts are acknowledged."""
        self.cluster.start()
        for thread in (*self.producers, *self.readers):
            thread.start()
        self.groups.start()
        self._progress("the start")

    def end(self) -> None:
        """End everything at once."""
        self.groups.end()
        self.cluster.end()

    def fault(self) -> None:
        """One fault, and what must come after it."""
        began = time.monotonic()
        happened = self._faults.happen()
        over = time.monotonic()
        self.happened.append(happened)
        self._progress(happened)
        now = time.monotonic()
        self._say(
            f"{len(self.happened)}: {happened} ({over - began:.1f} s), then {now - over:.1f} s;"
            f" {self.acknowledged} acknowledged"
        )

    def _progress(self, what: str) -> None:
        """Puts are acknowledged again, and no reader has seen what it must not."""
        wanted = self.acknowledged + PROGRESS
        self._until(lambda: self.acknowledged >= wanted, PROGRESS_SECONDS, f"no puts after {what}")

    def _until(self, holds: Callable[[], bool], seconds: float, text: str) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            for reader in self.readers:
                if reader.fault is not None:
                    raise reader.fault
            if time.monotonic() > deadline:
                answers = [producer.answers.most_common(3) for producer in self.producers]
                raise AssertionError(f"{text}; faults {self.happened[-5:]}; answers {answers}")
            time.sleep(0.02)

    def finish(self) -> None:
        """
        End the load, let the members get level, end them and judge.

        :raises AssertionError: something is lost, twice, different, or was seen and is gone.
        """
        for producer in self.producers:
            producer.ending.set()
        for producer in self.producers:
            producer.join()
        self._until(self._level, LEVEL_SECONDS, "the members do not get level")
        promised = self.promised()
        self._until(lambda: self.groups.have(promised), LEVEL_SECONDS, "a group does not get all")
        self.groups.end()
        for reader in self.readers:
            reader.ending.set()
        for reader in self.readers:
            reader.join()
        for name in (FOLLOWER, MASTER, SLAVE):
            status = self.cluster.members[name].stop()
            check(status == 0, f"{name} ended with status {status}")
        self.judge()

    def _level(self) -> bool:
        ends = [_ends(self.cluster.members[name].port) for name in (MASTER, SLAVE, FOLLOWER)]
        return ends[0] is not None and ends[0] == ends[1] == ends[2]

    def judge(self) -> None:
        """The files of all members, which do not run."""
        stored = [self._judge_member(name) for name in (MASTER, SLAVE, FOLLOWER)]
        self.groups.judge(self.promised(), stored[0])
        for topic in TOPICS:
            for number in range(PARTITIONS):
                logs = {
                    name: self.cluster.log_of(name, topic, number)
                    for name in (MASTER, SLAVE, FOLLOWER)
                }
                sizes = {name: len(log) for name, log in logs.items()}
                check(len(set(logs.values())) == 1, f"{topic}-{number} differs: {sizes}")
        self._judge_lines()

    def _judge_member(self, name: str) -> set[bytes]:
        keys: set[bytes] = set()
        judges = {
            (topic, number): PartitionJudge(topic, number)
            for topic in TOPICS
            for number in range(PARTITIONS)
        }
        for producer in self.producers:
            for each in producer.acknowledged:
                judges[each.place[:2]].promise(each)
        for (topic, number), judge in judges.items():
            log = self.cluster.log_of(name, topic, number)
            judge.judge(iter([log]), keys)
            self._judge_seen(topic, number, log)
        for producer in self.producers:
            strange = producer.refused & keys
            check(not strange, f"{name} has what was refused: {sorted(strange)[:5]}")
        return keys

    def _judge_seen(self, topic: str, number: int, log: bytes) -> None:
        """What a reader was shown is there now."""
        for reader in self.readers:
            end = max(reader.seen[topic, number], default=0)
            text = f"{reader.name} showed {topic}-{number} at {end}"
            check(end <= len(log), f"{text}, which ends at {len(log)}")
            for offset, (message_id, _) in reader.seen[topic, number].items():
                there = int.from_bytes(log[offset + 8 : offset + 16], "big", signed=True)
                check(there == message_id, f"{reader.name} showed another message at {offset}")

    def _judge_lines(self) -> None:
        for name, member in self.cluster.members.items():
            for word in DISASTERS:
                lines = [line for line in member.output().splitlines() if word in line]
                check(not lines, f"{name} logged {lines[:2]}")


def _ends(port: int) -> list[bytes] | None:
    """The ends of all partitions of a broker; None: it does not say."""
    try:
        with Peer(port) as peer:
            return [
                peer.ask(b"offset %b g %d %d 7\r\n" % (topic.encode(), number, (1 << 63) - 1)).body
                for topic in TOPICS
                for number in range(PARTITIONS)
            ]
    except OSError:
        return None


def main() -> None:
    """As many faults as asked for; how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=int(os.environ.get("FAULTS", "500")))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="metamorphosis-replication-")
    print(f"seed {options.seed}, data in {directory}", flush=True)
    run = ReplicationRun(directory, options.seed, lambda line: print(line, flush=True))
    try:
        run.start()
        for _ in range(options.faults):
            run.fault()
        run.finish()
    except BaseException:
        print(f"the members' logs are in {directory}", file=sys.stderr)
        raise
    finally:
        run.end()
    shutil.rmtree(directory)
    print(f"{options.faults} faults, {run.acknowledged} messages acknowledged: all are everywhere")


if __name__ == "__main__":
    main()
