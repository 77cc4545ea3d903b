"""
The long form of ``tests.unit.store.test_calls``: ``python -m tests.faults.disk_calls``, for
``DISK_SECONDS`` (3600).

One seed after the other, in both modes, each call of the disk fails, is short and hangs. The first
seed is random and printed; ``--seed`` repeats a run exactly.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time

from tests.unit.store.calls import Broken, Life
from tests.unit.store.shadowdisk import KINDS


def try_seed(path: str, seed: int) -> int:
    """
    All calls of one seed, all kinds, both modes.

    :returns: how many lives that were.
    :raises Broken: a promise was not kept; the text says in which life.
    """
    lives = 0
    for threshold in (0, 3):
        shutil.rmtree(path, ignore_errors=True)
        calls = Life(path, seed, threshold).run()
        for number in range(1, calls + 1):
            for kind in KINDS:
                shutil.rmtree(path, ignore_errors=True)
                lives += 1
                try:
                    Life(path, seed, threshold, number, kind).run()
                except Broken as error:
                    where = f"seed {seed}, threshold {threshold}, call {number}, {kind}"
                    raise Broken(f"{where}: {error}") from error
    return lives


def main() -> int:
    """The status of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    seed = parser.parse_args().seed
    deadline = time.monotonic() + float(os.environ.get("DISK_SECONDS", "3600"))
    print(f"first seed {seed}", flush=True)
    lives = 0
    with tempfile.TemporaryDirectory(prefix="metamorphosis-disk-") as directory:
        path = os.path.join(directory, "data")
        while time.monotonic() < deadline:
            try:
                lives += try_seed(path, seed)
            except Broken as error:
                print(error)
                return 1
            seed += 1
    print(f"{lives} lives, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
