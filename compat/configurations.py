"""
Seeded ``server.ini`` files, integer expressions and schedules: what the original is asked to read
beside ours.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

INTEGERS = ["1", "2", "8123", "1024*1024", "0x400", "010", "(1+2)*3", "1<<10", "7%4", "~-9"]
ODD_INTEGERS = ["2147483648+9", "4*1024*1024*1024+3", "1.5", "abc", "1 ; c", "1g", "'5'", "1_0", ""]
BOOLEANS = ["true", "false", "!true", "1==1", "1>2", "true && false", "yes", "TRUE", "1", ""]
TEXTS = ["/tmp/x", "a\\tb", "C:\\\\data", "C:\\new", "x=y", "a:b", "\\u00e9", "caf\u00e9"]
TEXTS += [" x ", "", "; none", "#x", '"quoted"', "a\\\\", "\\q", "x;y", "[z]"]
SCHEDULES = ["0 0 6,18 * * ?", "0 0/30 * * * ?", "0 0 0 L * ?", ""]
POLICIES = ["delete,168", "archive,24", "delete,1h", "archive,24,true", ""]

REQUIRED = {
    "brokerId": "0",
    "numPartitions": "1",
    "unflushThreshold": "1000",
    "unflushInterval": "10000",
    "maxSegmentSize": "1073741824",
    "maxTransferSize": "1048576",
}
INTEGER_KEYS = ["serverPort", "dashboardHttpPort", "numPartitions", "unflushThreshold"]
INTEGER_KEYS += ["unflushInterval", "maxSegmentSize", "maxTransferSize", "getProcessThreadCount"]
INTEGER_KEYS += ["putProcessThreadCount", "quartzThreadCount", "maxCheckpoints"]
INTEGER_KEYS += ["checkpointInterval", "maxTxTimeoutTimerCapacity", "maxTxTimeoutInSeconds"]
SYSTEM = dict.fromkeys(INTEGER_KEYS, INTEGERS + ODD_INTEGERS)
SYSTEM |= dict.fromkeys(["dataPath", "dataLogPath", "log", "topics", "path"], TEXTS)
SYSTEM |= dict.fromkeys(["acceptSubscribe", "acceptPublish", "stat"], BOOLEANS)
SYSTEM |= dict.fromkeys(["updateConsumerOffsets", "loadMessageStoresInParallel"], BOOLEANS)
SYSTEM |= {"deletePolicy": POLICIES, "deleteWhen": SCHEDULES, "flushTxLogAtCommit": ["0", "1", "2"]}
SYSTEM |= {"brokerId": ["1", "1023", "5*2"], "hostName": ["localhost", "10.0.0.1", "", " h "]}
ZOOKEEPER = {
    "zk.zkConnect": ["a:1", "h1:2181,h2:2181", "", " x "],
    "zk.zkSessionTimeoutMs": INTEGERS,
    "zk.zkConnectionTimeoutMs": INTEGERS,
    "zk.zkSyncTimeMs": INTEGERS,
    "zk.zkEnable": BOOLEANS,
}
TOPIC = {key: SYSTEM[key] for key in "numPartitions unflushInterval unflushThreshold".split()}
TOPIC |= dict.fromkeys(["stat", "acceptSubscribe", "acceptPublish"], BOOLEANS)
TOPIC |= dict.fromkeys(["dataPath", "group.g", "group.", "group.a b", "topic"], TEXTS)
TOPIC |= {"deletePolicy": POLICIES, "deleteWhen": SCHEDULES}
NAMES = ["t", "u", "a/b", "w*", "caf\u00e9", "x y", "", "a\\tb"]
STRAY = ["bare", "=x", "k=", "[open", "[]", "numpartitions=2", "zk.zkConnect=1", "\\", "; c\\", "#"]
STRAY += ["[system]", "[System]", "[topic=]", "\ufeff", "unflushInterval", "brokerId=1"]

MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
WEEKDAYS = "SUN MON TUE WED THU FRI SAT".split()
OPERATORS = "+ - * / % & | ^ << >> == != < <= > >= && ||".split()
OPERANDS = ["1", "2", "10", "010", "0x1F", "1024", "2147483648", "9223372036854775807", "true", "0"]


class Generator:
    """One seed, one sequence."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def _some(self, keys: dict[str, list[str]], most: int) -> dict[str, str]:
        chosen = self.random.sample(list(keys), self.random.randint(0, most))
        return {key: self.random.choice(keys[key]) for key in chosen}

    def ini(self) -> str:
        """A file; most are right, some have a value or a line that is not."""
        sections = [
            ("system", REQUIRED | self._some(SYSTEM, 4)),
            ("zookeeper", {"zk.zkConnect": "127.0.0.1:2181"} | self._some(ZOOKEEPER, 2)),
        ]
        for name in self.random.sample(NAMES, self.random.randint(1, 3)):
            sections.append((f"topic={name}", self._some(TOPIC, 3)))
        if self.random.random() < 0.2:
            sections.append(("topic=t", {"numPartitions": "9"}))
        self.random.shuffle(sections)
        lines = []
        for name, keys in sections:
            lines.append(self.random.choice(["[%s]", "[ %s ]", " [%s]"]) % name)
            for key, value in keys.items():
                lines.append(key + self.random.choice(["=", " = ", ":", "\t="]) + value)
            lines.append(self.random.choice(["", "; comment", "# comment"]))
        if self.random.random() < 0.15:
            lines.insert(self.random.randrange(len(lines)), self.random.choice(STRAY))
        return self.random.choice(["\n", "\n", "\r\n"]).join(lines)

    def expression(self, depth: int = 4) -> str:
        """Integers and conditions."""
        kind = self.random.random()
        if depth == 0 or kind < 0.3:
            return self.random.choice(OPERANDS)
        if kind < 0.4:
            return self.random.choice("-~!") + self.expression(depth - 1)
        if kind < 0.55:
            return f"({self.expression(depth - 1)})"
        sign = self.random.choice(OPERATORS)
        return f"{self.expression(depth - 1)} {sign} {self.expression(depth - 1)}"

    def schedule(self) -> str:
        """Six or seven fields."""
        days = [self._field(1, 31), "L", "LW", "L-3", f"{self.random.randint(1, 28)}W"]
        weekday = self.random.choice([*WEEKDAYS, *"1234567"])
        weekdays = [self._field(1, 7, WEEKDAYS), f"{weekday}L", f"{weekday}#2", f"{weekday}#5"]
        of_month, of_week = self.random.choice(days), "?"
        if self.random.random() < 0.5:
            of_month, of_week = "?", self.random.choice(weekdays)
        fields = [self._field(0, 59), self._field(0, 59), self._field(0, 23), of_month]
        fields += [self._field(1, 12, MONTHS), of_week]
        fields += self.random.choice([[], [], [], ["*"], ["2027-2029"], ["2028/2"], ["2020"]])
        return " ".join(fields)

    def _field(self, low: int, high: int, names: list[str] | None = None) -> str:
        if self.random.random() < 0.4:
            return "*"
        return ",".join(self._items(low, high, names))

    def _items(self, low: int, high: int, names: list[str] | None) -> Iterable[str]:
        for _ in range(self.random.choice([1, 1, 1, 2, 3])):
            first, last = self.random.randint(low, high), self.random.randint(low, high)
            step = self.random.randint(1, max(1, high // 3))
            forms = [f"{first}", f"{first}-{last}", f"*/{step}", f"{first}-{last}/{step}"]
            if names:
                forms += [names[first - 1], f"{names[first - 1].lower()}-{names[last - 1]}"]
            yield self.random.choice(forms)
