"""
The client under a random mixture of faults: two producers, three consumers in two groups, two
brokers behind wires that can be broken, one ZooKeeper.

``python -m tests.faults.client_soak --seconds 120 --seed 7 --zookeeper debian --face tx``. At the
end everything is healed, the groups catch up, and the ledger is judged against the brokers' logs,
which are read from offset 0 without the client.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.offsets.localfile import LocalFileOffsetStore
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore
from tests.faults import wire
from tests.faults.faces import AsyncioStage, Stage, TwistedStage
from tests.faults.kills import check
from tests.faults.ledger import Key, Ledger, Reader, WatchedStore, flip, read_logs
from tests.faults.wire import FaultyWire
from tests.faults.world import READING, TICK_MS
from tests.integration.broker import BrokerProcess
from tests.integration.embedded import EmbeddedZooKeeper
from tests.integration.zookeeper import ZooKeeperServer, free_port

TOPIC = "soak"
PARTITIONS = 3
BROKERS = 2
GROUPS = ("ours", "files", "ours")
"""Of the three consumers; one group stores in ZooKeeper, the other in a file."""
SENDERS = 4
"""Coroutines of each producer."""
SEGMENT_BYTES = 64 << 10
CATCH_UP_SECONDS = 120.0
PAUSES = (0.2, 2.0)
"""Seconds of health between two faults."""
DURATIONS = (0.2, 3.0)
"""Seconds that a fault lasts."""


class Directory:
    """Stands in for a test case: makes names of directories."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._numbers = count()

    def mktemp(self) -> str:
        """The next one."""
        return os.path.join(self.path, str(next(self._numbers)))


class Broker:
    """A broker's process and the wire in front of it, which has its published address."""

    def __init__(self, directory: str, number: int, zookeeper: ZooKeeperServer) -> None:
        self.number = number
        self.host = f"127.0.0.{number + 2}"
        self.wire: FaultyWire | None = None
        self.process = BrokerProcess(
            directory,
            topics={TOPIC: {"numPartitions": PARTITIONS}},
            system={
                "brokerId": number,
                "hostName": self.host,
                "maxSegmentSize": SEGMENT_BYTES,
            },
            zookeeper=zookeeper,
            zookeeper_keys={"zk.zkSessionTimeoutMs": 1500},
            settings={"network": {"interface": "127.0.0.1"}},
        )

    def start(self) -> None:
        """Wire and process."""
        port = self.process.port
        self.process.start()
        self.wire = FaultyWire(("127.0.0.1", port), (self.host, port))

    def end(self, kill: bool) -> None:
        """Both."""
        if self.wire is not None:
            self.wire.close()
        if kill:
            self.process.kill()
        elif self.process.process is not None:
            self.process.stop()

    def move(self) -> None:
        """The next start is at another port."""
        self.process.port = free_port()
        self.process.system = {**self.process.system, "serverPort": self.process.port}


class Member:
    """One consumer with a factory of its own, who may leave and come back."""

    def __init__(self, soak: Soak, number: int) -> None:
        self.factory: Any = None
        self._soak = soak
        self._number = number
        self._group = GROUPS[number]
        self._numbers = count()

    async def join(self) -> None:
        """A new factory and consumer."""
        soak = self._soak
        self.factory = soak.stage.factory(zookeeper=soak.zookeeper.connect_string)
        store: Any
        if self._group == "files":
            store = LocalFileOffsetStore(self.factory.runtime, os.path.join(soak.path, "offsets"))
        else:
            store = ZooKeeperOffsetStore(self.factory.registry, self.factory.paths)
        watched = WatchedStore(soak.ledger, store)
        settings = {**READING, "stop_timeout_ms": 10000, "max_fetch_retries": 1000}
        consumer = self.factory.create_consumer(self._group, store=watched, **settings)
        name = f"{self._group}.{self._number}.{next(self._numbers)}"
        reader = Reader(soak.ledger, consumer, name, soak.behave)
        reader.subscribe([TOPIC], max_size=16 << 10)
        self.factory.runtime.start(self._complete(consumer))

    async def _complete(self, consumer: Any) -> None:
        try:
            await consumer.complete_subscribe()
        except Exception as error:  # it goes on trying
            self._soak.ledger.errors[f"complete_subscribe: {type(error).__name__}"] += 1

    async def leave(self) -> None:
        """Close what ``join`` made."""
        await self.factory.close()


class Soak:
    """
    One run.

    :ivar happened: how often each fault was made.
    """

    def __init__(self, stage: Stage, path: str, seed: int, debian: bool) -> None:
        self.stage = stage
        self.path = path
        self.ledger = Ledger()
        self.happened: Counter[str] = Counter()
        self.zookeeper = make_zookeeper(path, debian)
        self.brokers = [
            Broker(os.path.join(path, f"broker{number}"), number, self.zookeeper)
            for number in range(BROKERS)
        ]
        self.members = [Member(self, number) for number in range(len(GROUPS))]
        self._random = random.Random(seed)
        self._sending = True
        self._factory: Any = None
        self._numbers = count()
        self._began = time.monotonic()

    # -- what is disturbed

    def behave(self, message: ReceivedMessage) -> Any:
        """Of the listeners: one call in a hundred fails, some take their time."""
        chance = random.random()
        if chance < 0.01:
            raise RuntimeError("a listener that fails")
        return self._slowly(chance) if chance < 0.03 else None

    async def _slowly(self, chance: float) -> None:
        await self.stage.sleep(0.05)
        if chance < 0.012:
            raise RuntimeError("a listener that fails late")

    async def _send(self, producer: Any, retries: int) -> None:
        while self._sending:
            value = b"%d " % next(self._numbers)
            value += b"x" * self._random.choice((0, 10, 100, 1000, 5000, 20000))
            await self.ledger.send(producer, TOPIC, value, self.stage.sleep, retries)
            await self.stage.sleep(0.02)

    # -- the run

    async def run(self, seconds: float) -> None:
        """
        Everything.

        :raises AssertionError: something was lost, made up or done in the wrong order.
        """
        try:
            await self._begin()
            senders = await self._start_senders()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await self.stage.sleep(self._random.uniform(*PAUSES))
                await self._disturb()
            self._say("healed")
            self._sending = False
            for each in senders:
                await each
            await self._catch_up()
            for member in self.members:
                await member.leave()
            await self._factory.close()
            self.ledger.judge(await self._logs())
        finally:
            for broker in self.brokers:
                broker.end(kill=True)
            self.zookeeper.kill()

    async def _begin(self) -> None:
        await self.stage.blocking(self.zookeeper.start)
        for broker in self.brokers:
            await self.stage.blocking(broker.start)
        for member in self.members:
            await member.join()

    async def _start_senders(self) -> list[Any]:
        self._factory = self.stage.factory(zookeeper=self.zookeeper.connect_string)
        senders = []
        for retries in (0, 3):
            producer = await self._factory.create_producer(TOPIC, retries=retries)
            senders += [
                self._factory.runtime.start(self._send(producer, retries)) for _ in range(SENDERS)
            ]
        return senders

    async def _catch_up(self) -> None:
        """Until every group has everything that is in the logs."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            logs = await self._logs()
            stored = {value for log in logs.values() for _, value in log}
            missing = {group: stored - set(self.ledger.values[group]) for group in set(GROUPS)}
            if not any(missing.values()):
                return
            if time.monotonic() > deadline:
                counts = {group: len(values) for group, values in missing.items()}
                raise AssertionError(f"not delivered in {CATCH_UP_SECONDS:g} s: {counts}")
            await self.stage.sleep(1.0)

    async def _logs(self) -> dict[Key, list[tuple[int, bytes]]]:
        logs: dict[Key, list[tuple[int, bytes]]] = {}
        for broker in self.brokers:
            port = broker.process.port
            logs |= await self.stage.blocking(read_logs, port, broker.number, [TOPIC], PARTITIONS)
        return logs

    # -- faults

    async def _disturb(self) -> None:
        faults: dict[Callable[[], Awaitable[None]], int] = {
            self._kill: 3,
            self._hang: 2,
            self._break_wire: 6,
            self._stop_zookeeper: 2,
            self._freeze_zookeeper: 2,
            self._empty_zookeeper: 1,
            self._expire: 3,
            self._damage: 1,
            self._swap_member: 3,
        }
        (fault,) = self._random.choices(list(faults), list(faults.values()))
        self.happened[fault.__name__.strip("_")] += 1
        await fault()

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)

    async def _last(self) -> None:
        await self.stage.sleep(self._random.uniform(*DURATIONS))

    def _a_broker(self) -> Broker:
        return self._random.choice(self.brokers)

    async def _kill(self) -> None:
        broker = self._a_broker()
        moves = self._random.random() < 0.4
        self._say(f"broker {broker.number} killed" + (", comes back elsewhere" if moves else ""))
        broker.end(kill=True)
        await self._last()
        if moves:
            broker.move()
        await self.stage.blocking(broker.start)

    async def _hang(self) -> None:
        broker = self._a_broker()
        self._say(f"broker {broker.number} hangs")
        broker.process.signal(signal.SIGSTOP)
        await self._last()
        broker.process.signal(signal.SIGCONT)

    async def _break_wire(self) -> None:
        broker = self._a_broker()
        fault = self._random.choice(
            (wire.SILENT, wire.DEAF, wire.GARBAGE, wire.HALF, wire.CLOSE, wire.LOSE)
        )
        self._say(f"wire of broker {broker.number}: {fault}")
        assert broker.wire is not None
        broker.wire.fault = fault
        await self._last()
        broker.wire.fault = wire.PASS

    async def _stop_zookeeper(self) -> None:
        self._say("ZooKeeper stopped")
        await self.stage.blocking(self.zookeeper.stop)
        await self._last()
        await self.stage.blocking(self.zookeeper.start)

    async def _freeze_zookeeper(self) -> None:
        self._say("ZooKeeper frozen")
        await self.stage.blocking(self.zookeeper.pause)
        await self._last()
        self.zookeeper.resume()

    async def _empty_zookeeper(self) -> None:
        self._say("ZooKeeper loses everything")
        await self.stage.blocking(self.zookeeper.stop)
        self.zookeeper.wipe()
        await self.stage.blocking(self.zookeeper.start)

    async def _expire(self) -> None:
        factories = [self._factory, *(member.factory for member in self.members)]
        session = self._random.choice(factories).registry.session_id()
        self._say(f"session {session:#x} expires")
        if session:
            try:
                await self.stage.blocking(self.zookeeper.expire, session)
            except (OSError, RuntimeError) as error:
                self._say(f"it did not: {error}")

    async def _damage(self) -> None:
        """Flip a byte of a message in an older segment; the last one would be cut at the start."""
        broker = self._a_broker()
        self._say(f"a message of broker {broker.number} is damaged")
        await self.stage.blocking(broker.end, False)
        values = list(self.ledger.acknowledged.items())
        for value, ((topic, partition), offset) in self._random.sample(values, len(values)):
            directory = os.path.join(broker.process.data, f"{topic}-{partition.number}")
            if partition.broker_id == broker.number and offset < last_segment(directory):
                flip(directory, offset + 20)
                self.ledger.damaged.add(value)
                break
        await self.stage.blocking(broker.start)

    async def _swap_member(self) -> None:
        member = self._random.choice(self.members)
        self._say(f"consumer {self.members.index(member)} leaves and joins")
        await member.leave()
        await member.join()


def last_segment(directory: str) -> int:
    """Where it begins."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return max((int(name[:-5]) for name in names if name.endswith(".meta")), default=0)


def make_zookeeper(path: str, debian: bool) -> ZooKeeperServer:
    """Debian's, or ours."""
    if debian:
        return ZooKeeperServer(os.path.join(path, "zookeeper"))
    return EmbeddedZooKeeper(os.path.join(path, "zookeeper"), tick_time=TICK_MS)


def perform(face: str, run: Callable[[Stage], Awaitable[None]], directory: Directory) -> None:
    """Run it on a loop of this face to its end."""
    if face == "aio":
        asyncio.run(run(AsyncioStage(directory)))  # type: ignore[arg-type]
        return

    def main(reactor: object) -> Deferred[None]:
        return Deferred.fromCoroutine(run(TwistedStage(directory)))  # type: ignore[arg-type]

    try:
        react(main)
    except SystemExit as end:
        check(not end.code, "it failed, see above and the log")


def main() -> None:
    """Run as long as asked for, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    seconds = float(os.environ.get("CLIENT_SECONDS", "120"))
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--zookeeper", choices=("ours", "debian"), default="ours")
    parser.add_argument("--face", choices=("aio", "tx"), default="aio")
    options = parser.parse_args()
    path = tempfile.mkdtemp(prefix="metamorphosis-client-soak-")
    print(f"seed {options.seed}, data and log in {path}", flush=True)
    log = open(os.path.join(path, "log"), "w", encoding="utf-8")
    logging.basicConfig(stream=log, level=logging.INFO, format="%(asctime)s %(message)s")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(log)], redirectStandardIO=False)
    random.seed(options.seed)
    soaks: list[Soak] = []

    async def run(stage: Stage) -> None:
        soaks.append(Soak(stage, path, options.seed, options.zookeeper == "debian"))
        await soaks[0].run(options.seconds)

    perform(options.face, run, Directory(path))
    ledger = soaks[0].ledger
    print(f"faults: {dict(soaks[0].happened)}")
    print(f"errors of sends: {dict(ledger.errors)}")
    total = sum(sum(values.values()) for values in ledger.values.values())
    print(f"{len(ledger.acknowledged)} promised, {total} delivered, nothing lost or made up")
    shutil.rmtree(path)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
