"""
The long form of the fuzz tests: ``python -m tests.faults.fuzz``, for ``FUZZ_SECONDS`` (300).

A fifth of the time random streams go to the decoder alone, the rest bad clients attack a running
broker. The seed is random and printed; ``--seed`` repeats a run, the decoder's exactly, the
broker's as far as threads allow.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time

from metamorphosis.wire.encoding import encode
from tests.faults.live_fuzz import TOPICS, FuzzRun, resident_kib, wait_until_alone
from tests.support.broker import BrokerProcess
from tests.support.feeding import decoded, decoded_in_place
from tests.support.randomcommands import LIMITS, cut, garbage


def fuzz_decoder(seconds: float, seed: int) -> int:
    """
    Random streams, however they are cut, decode to the same commands, which can be written again.

    :returns: how many streams.
    """
    deadline = time.monotonic() + seconds
    streams = 0
    while time.monotonic() < deadline:
        rng = random.Random(seed + streams)
        data = garbage(rng)
        whole = decoded([data], LIMITS)
        for other in (decoded(cut(rng, data), LIMITS), decoded_in_place(bytearray(data), LIMITS)):
            if other != whole:
                raise AssertionError(f"seed {seed + streams}: {data!r}: {whole}, in chunks {other}")
        for command in whole.commands:
            if decoded([encode(command)], LIMITS).refused:
                raise AssertionError(f"seed {seed + streams}: {command!r} is not read back")
        streams += 1
    return streams


def fuzz_broker(seconds: float, seed: int) -> None:
    """Attack a broker; its directory stays if that fails."""
    directory = tempfile.mkdtemp(prefix="metamorphosis-fuzz-")
    print(f"broker in {directory}", flush=True)
    broker = BrokerProcess(directory, topics=TOPICS)
    broker.start()
    try:
        run = FuzzRun(broker.port, seed)
        run.run(seconds)
        left = wait_until_alone(broker.port)
        size = resident_kib(broker.pid) // 1024
        print(
            f"{run.attacks} attacks, {len(run.good.stored)} good puts, slowest reply "
            f"{run.good.slowest * 1000:.0f} ms, {left} connections left, {size} MiB resident"
        )
        if left:
            raise AssertionError(f"{left} connections of dead clients are left")
    finally:
        broker.kill()
    with open(broker.log, encoding="utf-8", errors="replace") as file:
        if "Traceback" in file.read():
            raise AssertionError(f"unexpected errors in {broker.log}")
    shutil.rmtree(directory)


def main() -> None:
    """Fuzz the decoder, then a broker."""
    parser = argparse.ArgumentParser(description=__doc__)
    seconds = float(os.environ.get("FUZZ_SECONDS", "300"))
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    print(f"{fuzz_decoder(options.seconds / 5, options.seed)} streams decoded", flush=True)
    fuzz_broker(options.seconds * 4 / 5, options.seed)


if __name__ == "__main__":
    main()
