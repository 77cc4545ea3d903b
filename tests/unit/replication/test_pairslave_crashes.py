"""
The crash matrix of the slave of a pair: its process dies at each call of the disk, one after the
other, or its machine loses its power there. After the next start every acknowledged record stands
where it was acknowledged, the log holds whole records of the master in its order, and a master that
begins there continues.
"""

from __future__ import annotations

import gc
import os
import random
import shutil

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import HEADER, HEADER_BYTES
from tests.support.crashdisk import CrashDisk, Killed, Platters
from tests.support.scriptedsamsa import ScriptedSamsa
from tests.support.scriptedwire import MemoryWire
from tests.support.serving import Client
from tests.support.slaves import SlaveBroker

SEED = 20261130
SEGMENT = 150  # bytes: a few records, so that segments roll


class Life:
    """One process of the slave, and its master."""

    def __init__(self, directory: str, disk: CrashDisk, threshold: int) -> None:
        self.slave = SlaveBroker(
            directory, unflush_threshold=threshold, max_segment_size=SEGMENT, disk=disk
        )
        loaded: list[None] = []
        self.slave.stores.load().addCallback(loaded.append)
        assert loaded == [None]
        client = Client(self.slave)
        transport: StringTransport = client.transport
        self.samsa = ScriptedSamsa(first_id=-5468920081952014336)
        self.wire = MemoryWire(
            self.samsa, client.connection, transport, lambda: self.slave.clock.advance(0)
        )

    def logs(self) -> dict[tuple[str, int], bytes]:
        """Every partition, over all its segments."""
        found = {}
        for store in self.slave.stores:
            pieces = []
            for segment in store.segments:
                with open(segment.path, "rb") as file:
                    pieces.append(file.read(segment.end - segment.start))
            found[store.topic, store.partition] = b"".join(pieces)
        return found

    def work(self) -> None:
        """Chunks of records, for two partitions, with time for flushes between them."""
        for chunk in range(3):
            for number in range(4):
                self.samsa.put("test", number % 2, b"%d-%d" % (chunk, number) + bytes(40))
            self.wire.pump()
            self.slave.clock.advance(1)
            self.wire.pump()


class CrashTests(SynchronousTestCase):
    """Every call of the disk, in both modes."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())

    def live(self, die_at: int, threshold: int, torn: bool, power: bool) -> tuple[Life, bool]:
        """A life that ends at that call; whether it did."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.mkdir(self.directory)
        platters = Platters(self.directory, random.Random(SEED + die_at))
        disk = CrashDisk(platters, die_at, torn)
        life = Life(self.directory, disk, threshold)
        died = False
        try:
            life.work()
        except Killed:
            died = True
        disk.end()
        if power:
            platters.cut_power()
        return life, died

    def run_all(self, threshold: int, power: bool) -> int:
        """The matrix of one mode; returns how many calls there were."""
        for torn in (False, True)[power:]:
            die_at, died = 0, True
            while died:
                die_at += 1
                life, died = self.live(die_at, threshold, torn, power)
                self.check(life, die_at, threshold, power)
                del life
            gc.collect()
        return die_at

    def check(self, life: Life, die_at: int, threshold: int, power: bool) -> None:
        """What the next start finds."""
        after = Life(
            self.directory, CrashDisk(Platters(self.directory, random.Random(1))), threshold
        )
        logs = after.logs()
        sent = life.samsa.sent.values()
        for each in sent:
            if each.status == 200:
                assert each.told is not None
                at = HEADER.unpack_from(logs[each.place], each.told)
                self.assertEqual(each.message_id, at[2], f"call {die_at}, {each}")
        if power:
            return  # of what was not acknowledged any page may be there
        for place, data in logs.items():
            ids = [each.message_id for each in sent if each.place == place]
            found = self.ids(data)
            self.assertEqual(ids[: len(found)], found, f"call {die_at}, {place}")
        for number in range(2):
            again = after.samsa.put("test", number, b"again")
            after.wire.pump()
            after.samsa.verify()
            assert again is not None
            end = len(logs.get(again.place, b""))
            self.assertEqual((200, end), (again.status, again.told), f"call {die_at}")

    def ids(self, data: bytes) -> list[int]:
        """Of all records; there are whole ones only."""
        found, at = [], 0
        while at < len(data):
            length, _, message_id, _ = HEADER.unpack_from(data, at)
            found.append(message_id)
            at += HEADER_BYTES + length
        self.assertEqual(len(data), at)
        return found

    def test_killed(self) -> None:
        """Acknowledged when written: what the process has written stays."""
        self.assertGreater(self.run_all(1000, power=False), 15)

    def test_killed_with_group_commit(self) -> None:
        """Acknowledged when flushed."""
        self.assertGreater(self.run_all(0, power=False), 15)

    def test_power_cut_with_group_commit(self) -> None:
        """What was flushed is there after a power cut as well."""
        self.assertGreater(self.run_all(0, power=True), 15)
