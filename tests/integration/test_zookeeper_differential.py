"""The same random requests get the same answers from Debian's ZooKeeper and from ours."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import differential
from tests.integration import zookeepersteps as steps
from tests.support import rawzookeeper as raw
from tests.support import zookeeper

SEED = 20261121
STEPS = 1800


class DifferentialTests(SynchronousTestCase):
    """A part of ``make zookeeper-differential``: four clients, reconnects, a session that expires,
    and a restart after ``kill -9``."""

    skip = zookeeper.missing()
    timeout = 240

    def test_same_frames_and_same_tree(self) -> None:
        """Every frame of every client is the same, and so is the final tree."""
        print(f"seed {SEED}, {STEPS} steps")
        taken, nodes = differential.run(self.mktemp(), SEED, lambda n: n >= STEPS, slow=False)
        self.assertGreaterEqual(taken, STEPS)
        self.assertGreater(nodes, 20)


class GeneratorTests(SynchronousTestCase):
    """The generated steps are useful."""

    def test_same_seed_same_steps(self) -> None:
        """A difference can be reproduced by its seed."""
        made = [
            [generator.step() for _ in range(500)]
            for generator in (steps.Generator(5, True), steps.Generator(5, True))
        ]
        self.assertEqual(made[0], made[1])
        self.assertNotEqual(made[0][:50], [steps.Generator(6, True).step() for _ in range(50)])

    def test_everything_occurs(self) -> None:
        """Every kind of step occurs, and every request except those that end a session."""
        generator = steps.Generator(SEED, slow=True)
        made = [generator.step() for _ in range(3000)]
        kinds = Counter(type(step) for step in made)
        self.assertEqual(len(kinds), 8)
        opcodes = Counter(
            opcode
            for step in made
            if isinstance(step, steps.Requests)
            for opcode, _ in step.requests
        )
        expected = {raw.CREATE, raw.DELETE, raw.EXISTS, raw.GET_DATA, raw.SET_DATA, raw.GET_ACL}
        expected |= {raw.SET_ACL, raw.GET_CHILDREN, raw.SYNC, raw.GET_CHILDREN2, raw.MULTI}
        self.assertEqual(set(opcodes), expected | {raw.CREATE2})
