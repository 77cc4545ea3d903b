"""
Seeded random streams. The law: whatever the bytes and however they are cut, the decoder delivers
the same commands and then waits for more or raises ``RemoteProtocolError``; nothing else ever
leaves it, and what it delivers can be written again.
"""

from __future__ import annotations

import os
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.wire.encoding import encode
from tests.support.feeding import Outcome, decoded, decoded_in_place
from tests.support.randomcommands import LIMITS, command, cut, garbage

#: random streams to try; the long form of this test sets more
STREAMS = int(os.environ.get("METAMORPHOSIS_FUZZ_STREAMS", "3000"))


class GarbageTests(SynchronousTestCase):
    """With fixed seeds, so that a failure comes again."""

    def test_garbage_is_decoded_or_refused_however_it_is_cut(self) -> None:
        """No stream of bytes makes the decoder fail in another way or depend on chunk borders."""
        seen = {"refused": 0, "waiting": 0, "decoded": 0}
        for seed in range(STREAMS):
            random = Random(seed)
            data = garbage(random)
            whole = decoded([data], LIMITS)
            self.assertEqual(whole, decoded(cut(random, data), LIMITS), f"seed {seed}")
            self.assertEqual(whole, decoded_in_place(bytearray(data), LIMITS), f"seed {seed}")
            seen["refused"] += whole.refused
            seen["waiting"] += whole.waiting > 0
            seen["decoded"] += len(whole.commands) > 0
            for found in whole.commands:
                self.assertFalse(decoded([encode(found)], LIMITS).refused, f"seed {seed}")
        # a generator that reaches only one outcome would prove nothing
        for outcome, count in seen.items():
            self.assertTrue(count > STREAMS // 10, f"{outcome}: {count} of {STREAMS}")

    def test_what_was_written_is_read_back(self) -> None:
        """Streams of random commands survive the way through bytes, in any chunks."""
        for seed in range(STREAMS // 10):
            random = Random(seed)
            commands = [command(random) for _ in range(10)]
            data = b"".join(map(encode, commands))
            self.assertEqual(Outcome(commands), decoded(cut(random, data)), f"seed {seed}")
            self.assertEqual(Outcome(commands), decoded_in_place(data), f"seed {seed}")
