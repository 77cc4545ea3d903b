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
from tests.faults import wire
from tests.faults.client_cast import (
    GROUPS,
    PARTITIONS,
    TOPIC,
    Broker,
    Directory,
    Member,
    last_segment,
    make_zookeeper,
)
from tests.faults.faces import AsyncioStage, Stage, TwistedStage
from tests.faults.kills import check
from tests.faults.ledger import Key, Ledger, flip, read_logs

BROKERS = 2
SENDERS = 4
"""Coroutines of each producer."""
CATCH_UP_SECONDS = 120.0
PAUSES = (0.2, 4.0)
"""Seconds of health between two faults of a lane."""
DURATIONS = (0.2, 3.0)
"""Seconds that a fault lasts."""


Faults = dict[Callable[[], Awaitable[None]], int]
"""With how likely they are."""


class Soak:
    """
    One run.

    :ivar happened: how often each fault was made.
    :ivar random: whatever is left to chance in a run's course.
    """

    def __init__(self, stage: Stage, path: str, seed: int, debian: bool) -> None:
        self.stage = stage
        self.path = path
        self.ledger = Ledger()
        self.happened: Counter[str] = Counter()
        self.failures: list[Exception] = []
        self.zookeeper = make_zookeeper(path, debian)
        self.brokers = [
            Broker(os.path.join(path, f"broker{number}"), number, self.zookeeper)
            for number in range(BROKERS)
        ]
        self.members = [Member(self, number) for number in range(len(GROUPS))]
        self.random = random.Random(seed)
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
            value += b"x" * self.random.choice((0, 10, 100, 1000, 5000, 20000))
            await self.ledger.send(producer, TOPIC, value, self.stage.sleep, retries)
            await self.stage.sleep(0.02)

    async def guarded(self, coroutine: Awaitable[None]) -> None:
        """Something beside the run that must not fail."""
        try:
            await coroutine
        except Exception as error:
            self.failures.append(error)

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
            start = self._factory.runtime.start
            lanes = [start(self._disturb(each, end)) for each in self._lanes()]
            for lane in lanes:
                await lane
            self._say("healed")
            self._sending = False
            for each in senders:
                await each
            await self._catch_up()
            for member in self.members:
                await member.leave()
            await self._factory.close()
            self.ledger.judge(await self._logs())
            check(not self.failures, f"{self.failures}")
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
            logs |= await self.stage.blocking(
                read_logs, broker.process, broker.number, [TOPIC], PARTITIONS
            )
        return logs

    # -- faults

    def _lanes(self) -> list[Faults]:
        """Faults that happen one after the other, beside those of the other lanes."""
        brokers: Faults = {self._kill: 3, self._hang: 2, self._break_wire: 6, self._damage: 1}
        zookeeper: Faults = {
            self._stop_zookeeper: 2,
            self._freeze_zookeeper: 2,
            self._empty_zookeeper: 1,
            self._expire: 4,
        }
        return [brokers, zookeeper, {self._swap_member: 1}]

    async def _disturb(self, faults: Faults, end: float) -> None:
        while time.monotonic() < end:
            await self.stage.sleep(self.random.uniform(*PAUSES))
            (fault,) = self.random.choices(list(faults), list(faults.values()))
            self.happened[fault.__name__.strip("_")] += 1
            await fault()

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)

    async def _last(self) -> None:
        await self.stage.sleep(self.random.uniform(*DURATIONS))

    def _a_broker(self) -> Broker:
        return self.random.choice(self.brokers)

    async def _kill(self) -> None:
        broker = self._a_broker()
        moves = self.random.random() < 0.4
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
        fault = self.random.choice(
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
        session = self.random.choice(factories).registry.session_id()
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
        for value, ((topic, partition), offset) in self.random.sample(values, len(values)):
            directory = os.path.join(broker.process.data, f"{topic}-{partition.number}")
            if partition.broker_id == broker.number and offset < last_segment(directory):
                flip(directory, offset + 20)
                self.ledger.damaged.add(value)
                break
        await self.stage.blocking(broker.start)

    async def _swap_member(self) -> None:
        member = self.random.choice(self.members)
        self._say(f"consumer {self.members.index(member)} leaves and joins")
        await member.leave()
        await member.join()


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
