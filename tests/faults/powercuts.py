"""
Power cuts while clients mix local and XA transactions and plain puts, in flush mode 1.

Data and journal stand on a file system of its own, which loses everything that was not forced
(``loopdisk``), at a random moment while the broker is under load. After every start each
transaction is there once and whole, or not at all, or prepared and listed; every acknowledged
commit is there; the plain puts of the topic with ``unflushThreshold=0`` stand where they were
acknowledged.

The suite makes a few cuts (``test_powercuts``); ``make power-cuts`` makes many.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Iterator

from twisted.trial.unittest import SkipTest

from tests.faults.kills import HEADER, Place, served_log
from tests.faults.loopdisk import LoopDisk
from tests.faults.peer import Peer
from tests.faults.transactionkills import TOPICS, Mixer, TransactionKillRun


class PowerCutRun(TransactionKillRun):
    """
    One broker on one disk, through many power cuts.

    :raises SkipTest: there is no such disk here.
    """

    def __init__(self, directory: str, seed: int, size: str = "512M") -> None:
        self.disk = LoopDisk(directory, size)
        super().__init__(directory, seed)
        data = os.path.join(self.disk.path, "data")
        journal = os.path.join(self.disk.path, "journal")
        self.broker.system = {**self.broker.system, "dataPath": data, "dataLogPath": journal}

    def make_mixer(self, number: int) -> Mixer:
        """Plain puts of the other topic may be lost with the power."""
        mixer = super().make_mixer(number)
        mixer.plain_topics = [name for name, threshold in TOPICS.items() if not threshold]
        return mixer

    def kill(self) -> None:
        """
        The process dies, then its disk loses what is in the page cache; then the power is back.

        In this order, because ``fdatasync`` may succeed without having forced anything when the
        file system is shut down under it (seen with Linux 6.18).
        """
        self.broker.kill()
        self.disk.cut_power()
        self.disk.unmount()
        self.disk.mount()

    def messages(self, peer: Peer, start: Place) -> Iterator[tuple[int, bytes]]:
        """
        Pages may be missing of what was not forced: what was not acknowledged may be zeros, or no
        message, which consumers pass over.
        """
        log = b"".join(served_log(peer, *start))
        at = 0
        while at + HEADER.size <= len(log):
            length, checksum, message_id, _ = HEADER.unpack_from(log, at)
            end = at + HEADER.size + length
            body = log[at + HEADER.size : end]
            whole = message_id != 0 and 0 < length == len(body)
            if whole and zlib.crc32(body) & 0x7FFFFFFF == checksum:
                yield start.offset + at, body
                at = end
            else:
                at += 1


def main() -> None:
    """Cut the power as often as asked for, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=int(os.environ.get("CUTS", "200")))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="metamorphosis-cuts-")
    print(f"seed {options.seed}, data in {directory}", flush=True)
    try:
        run = PowerCutRun(directory, options.seed, "4G")
    except SkipTest as error:
        parser.exit(2, f"{error}\n")
    try:
        run.broker.start()
        for number in range(1, options.cuts + 1):
            run.kill_once()
            if number % 10 == 0:
                print(f"{number}: {run.committed} committed, {run.listed} listed", flush=True)
    finally:
        run.broker.kill()
        run.disk.remove()
    print(f"{options.cuts} power cuts, each transaction whole, prepared or gone")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
