"""Where the turn in C writes: at the end of the store as it is in that moment."""

from __future__ import annotations

import random
from typing import Any

from metamorphosis.message import iterate_records
from metamorphosis.store.descriptors import Descriptors
from tests.support.lanes import Served
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_lanes import LaneCase

SEED = 20261130


def bodies(served: Served, partition: int) -> list[bytes]:
    """Of all records of a partition, in order."""
    found = []
    for name, data in served.files().items():
        if name.startswith(f"test-{partition}/"):
            found += [bytes(each.body) for each in iterate_records(data)]
    return found


class PlaceTests(LaneCase):
    """The state of a store changes between two rounds."""

    def test_few_descriptors(self) -> None:
        """With fewer of them than partitions, each record is in the file of its own partition: no
        call within a round closes a file that the round writes to."""
        topics = {"test": {"num_partitions": 4}}
        served = Served(self.mktemp(), True, topics=topics, unflush_threshold=1000)
        self.addCleanup(served.close)
        peer = served.connect()
        for number in range(4):
            peer.send(put(b"first", partition=b"%d" % number))
            served.turn()
        served.advance(1)
        descriptors = Descriptors(2)
        for store in served.broker.stores:
            store.last.close()
            patched: Any = store.environment
            object.__setattr__(patched, "descriptors", descriptors)
        rng = random.Random(SEED)
        sent: list[list[bytes]] = [[b"first"] for _ in range(4)]
        for number in range(300):
            for partition in rng.sample(range(4), rng.randrange(1, 4)):
                if rng.randrange(3):
                    sent[partition].append(b"%d" % number)
                    peer.send(put(b"%d" % number, partition=b"%d" % partition))
                else:
                    peer.send(b"get test g %d 0 25 7\r\n" % partition)
            served.turn()
            served.advance(rng.choice((0, 0, 1)))
        self.assertEqual([bodies(served, number) for number in range(4)], sent)
        self.assertNotIn(b"result 500", peer.received())
