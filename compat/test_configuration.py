"""
The original and ours read the same values from the same ``server.ini``, expressions and schedules.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from compat.configurations import Generator
from metamorphosis.config import expressions, serverini
from metamorphosis.config.faults import ConfigFaults
from metamorphosis.config.model import BrokerConfig
from metamorphosis.cron import CronExpression
from tests.support import peers

SEED = 1462
FILES = 600
EXPRESSIONS = 1500
SCHEDULES = 1000
TIMES = 4  # of each schedule
REFUSED = object()

# what the original finds only when a part of the broker starts, or never
EARLIER = re.compile("number above 0 is needed|to 65535 is needed|or more is needed")
# getters of the original that are no keys, and two whose default depends on the number of cores
NO_KEYS = {"configFilePath", "configFileChecksum", "lastModified", "slave", "slaveId"}
NO_KEYS |= {"getProcessThreadCount", "putProcessThreadCount"}


def snake(name: str) -> str:
    """``numPartitions`` -> ``num_partitions``."""
    return re.sub("[A-Z]", lambda found: "_" + found.group().lower(), name)


class ConfigurationTests(SynchronousTestCase):
    """Our reader and the original's."""

    skip = peers.missing()

    def events(self, command: str, name: str, **arguments: object) -> list[dict[str, Any]]:
        """The original's result for each item of a list."""
        return peers.driver().call(command, **arguments).named(name)

    def different(self, config: BrokerConfig, event: dict[str, Any]) -> list[object]:
        """Every value that the two read differently."""
        pairs: list[tuple[object, str, object]] = [
            (config, key, value) for key, value in event["system"].items()
        ]
        pairs += [(config, "checksum", event["system"]["configFileChecksum"])]
        for key, value in event["zookeeper"].items():
            pairs.append((config.zookeeper, key.removeprefix("zk").removesuffix("Ms"), value))
        for name, values in event["topics"].items():
            for key, value in values.items():
                pairs.append((config.topics[name], key.replace("topic", "name"), value))
        found: list[object] = []
        for owner, key, value in pairs:
            ours = getattr(owner, snake(key).lstrip("_")) if key not in NO_KEYS else value
            if ours != value:
                found.append((key, value, ours))
        if sorted(event["topics"]) != sorted(config.topics):
            found.append(("topics", sorted(event["topics"]), sorted(config.topics)))
        return found

    def test_server_ini(self) -> None:
        """The original accepts every file that ours accepts, with the same values; ours refuses
        more files, at the start."""
        generator, directory = Generator(SEED), self.mktemp()
        os.makedirs(directory)
        paths = [os.path.abspath(os.path.join(directory, f"{n}.ini")) for n in range(FILES)]
        for path in paths:
            with open(path, "w", encoding="utf-8", newline="") as file:
                file.write(generator.ini())
        self.patch(os, "environ", os.environ | {"HOME": peers.driver().directory})
        both = 0
        for path, event in zip(paths, self.events("configuration", "configuration", paths=paths)):
            try:
                config = serverini.load(path)
            except ConfigFaults as faults:
                if "error" not in event:
                    for fault in faults.faults:
                        self.assertRegex(str(fault), EARLIER, path)
                continue
            self.assertNotIn("error", event, path)
            self.assertEqual(self.different(config, event), [], path)
            both += 1
        self.assertGreater(both, FILES // 5)

    def test_expressions(self) -> None:
        """Integers and conditions have the same value; an expression that ours refuses cannot be a
        key's value."""
        generator = Generator(SEED)
        texts = [generator.expression() for _ in range(EXPRESSIONS)]
        both = 0
        for text, event in zip(texts, self.events("evaluate", "value", expressions=texts)):
            original = REFUSED if "error" in event else event["text"]
            ours: object = REFUSED
            for read in (expressions.integer, expressions.boolean):
                try:
                    ours = str(read(text)).replace("True", "true").replace("False", "false")
                except expressions.ExpressionError:
                    continue
            if REFUSED not in (original, ours):
                self.assertEqual(ours, original, text)
                both += 1
            elif ours is not REFUSED:
                # a shift right of a comparison is beyond the original's grammar
                self.assertRegex(text, "[<>]=? .*(<<|>>)")
            elif original is not REFUSED:
                # a side that the original does not look at
                self.assertRegex(text, "[&|]{2}")
        self.assertGreater(both, EXPRESSIONS // 4)

    def test_schedules(self) -> None:
        """The next times of cron expressions are those of Quartz."""
        generator = Generator(SEED)
        texts = [generator.schedule() for _ in range(SCHEDULES)]
        after = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
        arguments = {"after": int(after) * 1000, "zone": "UTC", "count": TIMES}
        events = self.events("cron", "times", expressions=texts, **arguments)
        both = 0
        for text, event in zip(texts, events):
            try:
                expression = CronExpression.parse(text)
            except ValueError:
                self.assertIn("error", event, text)
                continue
            self.assertNotIn("error", event, text)
            times: list[float] = []
            while len(times) < TIMES:
                following = expression.next_timestamp(times[-1] if times else after, UTC)
                if following is None:
                    break
                times.append(following)
            self.assertEqual([time * 1000 for time in times], event["times"], text)
            both += 1
        self.assertGreater(both, SCHEDULES // 2)
