"""
Rows C35, C36, C41-C60 and C62-C65 of the storage-and-config specification, as far as configuration
and retention go. Every fault is reported by ``ConfigFaults`` with a text that contains the
original's message.
"""

from __future__ import annotations

import os
import zipfile
from datetime import UTC, datetime

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config import serverini
from metamorphosis.config.faults import ConfigFaults
from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.config.policies import PolicyText, parse_policy
from metamorphosis.cron import CronExpression
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import make_store, open_segments
from metamorphosis.store.retention import Retention
from metamorphosis.threads import SynchronousThreads
from tests.support.inifiles import MINIMAL, SYSTEM, TOPICS, ZOOKEEPER, IniTestCase

REQUIRED = (
    "brokerId numPartitions unflushThreshold unflushInterval maxSegmentSize maxTransferSize".split()
)
M1 = bytes.fromhex("000000053610a68600000000000000010000000068656c6c6f")
M2 = bytes.fromhex("000000053a771143000000000000000200000000776f726c64")


def with_system(*lines: str) -> str:
    """S with more lines in [system]."""
    return SYSTEM + "".join(f"{line}\n" for line in lines) + ZOOKEEPER + TOPICS


class LoadingTests(IniTestCase):
    """Content of the file."""

    def test_c41_minimal_file(self) -> None:
        """C41: S gives topic test, ports 8123 and 8120, and dataLogPath as dataPath."""
        config = self.load(MINIMAL)
        self.assertEqual(list(config.topics), ["test"])
        self.assertEqual((config.server_port, config.dashboard_http_port), (8123, 8120))
        self.assertEqual(config.data_log_path, config.data_path)

    def test_c42_required_keys(self) -> None:
        """C42: each required key must be there and not blank."""
        for key in REQUIRED:
            lines = [line for line in MINIMAL.splitlines() if not line.startswith(f"{key}=")]
            self.assertIn(f"Blank value for {key}", self.fault("\n".join(lines)))
            lines.insert(1, f"{key}= ")
            self.assertIn(f"Blank value for {key}", self.fault("\n".join(lines)))

    def test_c43_no_topics(self) -> None:
        """C43: a file without topic sections is refused."""
        self.assertIn("Empty topics list", self.fault(SYSTEM + ZOOKEEPER))

    def test_c44_missing_sections(self) -> None:
        """C44: [system] and [zookeeper] must be there."""
        self.assertIn("[system] is missing", self.fault(ZOOKEEPER + TOPICS))
        self.assertIn("[zookeeper] is missing", self.fault(SYSTEM + TOPICS))

    def test_c45_empty_zookeeper_section(self) -> None:
        """C45: a section without values is refused; with any value the server has a default."""
        for section in ("[zookeeper]\n", "[zookeeper]\nzk.zkConnect=\nzk.zkEnable=\n"):
            self.assertIn("Null zookeeper config", self.fault(SYSTEM + section + TOPICS))
        config = self.load(SYSTEM + "[zookeeper]\nzk.zkSyncTimeMs=1\n" + TOPICS)
        self.assertEqual(config.zookeeper.connect, "localhost:2181")

    def test_c46_unknown_system_key(self) -> None:
        """C46: an unknown key is refused with the nearest known one."""
        self.assertEqual(
            self.fault(with_system("dataPaths=/x")),
            "Invalid config key:dataPaths,do you mean 'dataPath'?",
        )
        self.assertIn("Invalid config key:zk.zkConnect", self.fault(with_system("zk.zkConnect=a")))

    def test_c47_unknown_keys_elsewhere(self) -> None:
        """C47: the same holds in [zookeeper] and in topics."""
        self.assertEqual(
            self.fault(SYSTEM + ZOOKEEPER + "zk.zkConect=a\n" + TOPICS),
            "Invalid config key:zk.zkConect,do you mean 'zk.zkConnect'?",
        )
        self.assertEqual(
            self.fault(MINIMAL + "numPartition=2\n"),
            "Invalid config key:numPartition,do you mean 'numPartitions'?",
        )

    def test_c48_ignored_keys(self) -> None:
        """C48: names that only the original's class knows are accepted without effect."""
        lines = (
            "topics=q slaveConfig=x zkConfig=x topicConfigMap=x propertyChangeSupport=x log=1"
            " lastModified=x path=/x configFileChecksum=1 closedPartitionMap=x serialVersionUID=1"
        ).split()
        config = self.load(with_system(*lines))
        self.assertEqual((config.path, list(config.topics)), (self.path, ["test"]))
        self.assertNotEqual(config.checksum, 1)
        text = SYSTEM + ZOOKEEPER + "serialVersionUID=1\nbrokerId=x\ndataPath=y\nlog=1\n" + TOPICS
        self.assertEqual(self.load(text).broker_id, 0)

    def test_c49_strict_booleans(self) -> None:
        """C49: booleans other than the text of a topic's stat are lower case."""
        for text in (
            with_system("stat=TRUE"),
            with_system("acceptPublish=yes"),
            MINIMAL + "acceptPublish=TRUE\n",
        ):
            self.assertIn("true or false is expected, in lower case", self.fault(text))

    def test_c50_stat_of_a_topic(self) -> None:
        """C50: a topic's stat is true for true in any case, else false."""
        self.assertTrue(self.load(MINIMAL + "stat=TRUE\n").topics["test"].stat)
        self.assertFalse(self.load(MINIMAL + "stat=yes\n").topics["test"].stat)

    def test_c51_integers(self) -> None:
        """C51: the table of 6.2 for maxSegmentSize."""
        for text, value in (
            ("1024*1024*1024", 1073741824),
            ("4*1024*1024*1024", 0),
            ("2147483648", -2147483648),
        ):
            config = self.load(MINIMAL.replace("Size=1048576", f"Size={text}", 1))
            self.assertEqual(config.max_segment_size, value)
        for text, part in (
            ("1.5", "found the decimal number 1.5"),
            ("1e3", "found the decimal number 1e3"),
            ("1g", "Syntax error:illegal expression at 2"),
            ("1 ; c", "Syntax error:illegal expression at 3"),
            ("abc", "found the unknown name abc"),
            ("true", "'true' is a boolean; an integer is expected"),
        ):
            self.assertIn(part, self.fault(MINIMAL.replace("Size=1048576", f"Size={text}", 1)))

    def test_c52_data_log_path(self) -> None:
        """C52: dataLogPath follows dataPath unless it is given."""
        self.assertEqual(self.load(with_system("dataPath=/d")).data_log_path, "/d")
        config = self.load(with_system("dataPath=/d", "dataLogPath=/l"))
        self.assertEqual((config.data_path, config.data_log_path), ("/d", "/l"))

    def test_c53_order_of_topics(self) -> None:
        """C53: topics are sorted by code unit."""
        config = self.load(SYSTEM + ZOOKEEPER + "[topic=b]\n[topic=a]\n[topic=C]\n")
        self.assertEqual(list(config.topics), ["C", "a", "b"])

    def test_c54_slash_in_a_topic(self) -> None:
        """C54: a slash makes the parent a topic, too."""
        config = self.load(SYSTEM + ZOOKEEPER + "[topic=a/b]\n")
        self.assertEqual(list(config.topics), ["a", "a/b"])

    def test_c55_syntax_errors(self) -> None:
        """C55: each kind of bad line is refused with its number."""
        for text, number, line in (
            (MINIMAL + "word\n", 11, "word"),
            (MINIMAL + "=5\n", 11, "=5"),
            ("a=1\n" + MINIMAL, 1, "a=1"),
            (MINIMAL + "[]\n", 11, "[]"),
            ("[system\n" + MINIMAL.partition("\n")[2], 1, "[system"),
            ("[system] ; c\n" + MINIMAL.partition("\n")[2], 1, "[system] ; c"),
            ("\ufeff" + MINIMAL, 1, "\ufeff[system]"),
        ):
            error = self.faults(text)
            self.assertIn(f"Parse configuration failed,path={self.path}", str(error))
            self.assertIn(f"parse error (at line: {number}): {line}", str(error))
            self.assertEqual(len(error.faults), 1)

    def test_c56_values(self) -> None:
        """C56: no inline comments, escapes, continuation, operators, merging."""
        config = self.load(
            "[zookeeper]\nzk.zkConnect: h\n[topic=t]\ngroup.a=1 ; x\ngroup.p=C:\\data\\new\n"
            "group.c=/data/\\\n  q=1\ngroup.f=x=y:z\n[topic=u]\n[topic=t]\ngroup.a=2\n" + SYSTEM
        )
        self.assertEqual(config.zookeeper.connect, "h")
        self.assertEqual(
            dict(config.topics["t"].filters),
            {"a": "2", "p": "C:data\new", "c": "/data/q=1", "f": "x=y:z"},
        )
        config = self.load(MINIMAL + "group.a=1 ; x\n")
        self.assertEqual(config.topics["test"].filters["a"], "1 ; x")

    def test_c57_broker_id(self) -> None:
        """C57: ids beyond 0..1023 are refused (here with the file, there by the broker)."""
        for value in ("1024", "-1"):
            text = self.fault(MINIMAL.replace("brokerId=0", f"brokerId={value}"))
            self.assertIn("worker Id can't be greater than 1023 or less than 0", text)
        self.assertEqual(self.load(MINIMAL.replace("brokerId=0", "brokerId=1023")).broker_id, 1023)

    def test_c60_paths(self) -> None:
        """C60: a path without directory works (there it does not); a missing file is named."""
        self.write(MINIMAL)
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            config = serverini.load("server.ini")
        finally:
            os.chdir(before)
        self.assertEqual(config.path, self.path)
        missing = os.path.join(self.directory, "missing.ini")
        error = self.assertRaises(ConfigFaults, serverini.load, missing)
        self.assertIn(f"File {missing} is not exists", str(error))


class ReloadingTests(IniTestCase):
    """Reading the file again in operation."""

    def reload(self, before: str, after: str) -> serverini.Reload:
        """Load one text, reload another."""
        current = self.load(before)
        self.write(after)
        os.utime(self.path, ns=(0, current.modified_ns + 1_000_000_000))
        reloaded = serverini.reload(current)
        assert reloaded is not None
        return reloaded

    def test_c62_topics(self) -> None:
        """C62: a reload brings and changes topics and forgets those that went."""
        start = SYSTEM + ZOOKEEPER + "[topic=t1]\n[topic=t2]\nnumPartitions=2\n"
        reloaded = self.reload(
            start, SYSTEM + ZOOKEEPER + "[topic=t2]\nnumPartitions=4\n[topic=t9]\n"
        )
        self.assertEqual(list(reloaded.config.topics), ["t2", "t9"])
        self.assertEqual(
            (reloaded.added, reloaded.changed, reloaded.removed), (("t9",), ("t2",), ("t1",))
        )
        self.assertEqual(reloaded.config.topic("t2").num_partitions, 4)
        self.assertEqual(reloaded.config.topic("t1").num_partitions, 1)

    def test_c63_faulty_reload(self) -> None:
        """C63: a bad policy refuses the reload as a whole (D-20 is fixed)."""
        error = self.assertRaises(
            ConfigFaults, self.reload, MINIMAL, MINIMAL + "deletePolicy=bad,1\n[topic=t10]\n"
        )
        self.assertIn("UnknownDeletePolicyException: 'bad'", str(error))
        self.assertIn("line 11, [topic=test] deletePolicy", str(error))

    def test_c64_global_values_stay(self) -> None:
        """C64: a changed [system] has no effect, on new topics neither."""
        changed = MINIMAL.replace("numPartitions=1", "numPartitions=8") + "[topic=new]\n"
        reloaded = self.reload(MINIMAL, changed)
        self.assertEqual(reloaded.config.num_partitions, 1)
        self.assertEqual(reloaded.config.topic("new").num_partitions, 1)

    def test_c65_unchanged_time(self) -> None:
        """C65: with the same modification time nothing happens."""
        current = self.load(MINIMAL)
        self.write(MINIMAL + "[topic=new]\n")
        os.utime(self.path, ns=(0, current.modified_ns))
        self.assertIsNone(serverini.reload(current))


class PolicyTests(SynchronousTestCase):
    """Policy strings and schedules."""

    def test_c58_policies(self) -> None:
        """C58: the valid and invalid policies of 5.1."""
        hour = 3600 * 1000
        self.assertEqual(parse_policy("delete,168"), PolicyText("delete", 168 * hour))
        self.assertEqual(parse_policy("delete,10s"), PolicyText("delete", 10000))
        self.assertEqual(parse_policy("archive,3,true"), PolicyText("archive", 3 * hour, True))
        self.assertEqual(parse_policy("delete,-1"), PolicyText("delete", -hour))
        self.assertEqual(parse_policy("delete,0"), PolicyText("delete", 0))
        for text, part in {
            "x,1": "UnknownDeletePolicyException: 'x'",
            " delete,1": "UnknownDeletePolicyException: ' delete'",
            "": "UnknownDeletePolicyException: ''",
            "delete": "New delete policy `delete` failed",
            "delete,": "New delete policy `delete` failed",
            "archive": "New delete policy `archive` failed",
            "delete,7d": "New delete policy `delete` failed",
            "delete, 168": "New delete policy `delete` failed",
            "delete,10H": "New delete policy `delete` failed",
            "delete,m": "New delete policy `delete` failed",
        }.items():
            self.assertIn(part, str(self.assertRaises(ValueError, parse_policy, text)))

    def test_c59_schedules(self) -> None:
        """C59: the valid and invalid cron expressions."""
        for text in ("0 0 6,18 * * *", "0 6 * * ?", "0 0 25 * * ?"):
            error = self.assertRaises(ValueError, CronExpression.parse, text)
            self.assertIn(f"CronExpression '{text}' is invalid,.", str(error))
        after = datetime(2026, 11, 21, tzinfo=UTC)
        for text, expected in {
            "0 0 6,18 * * ?": (2026, 11, 21),
            "0 0 6 * * ? 2099": (2099, 1, 1),
            "0 0 6 ? * MON-FRI": (2026, 11, 23),
            "0 0 6 L * ?": (2026, 11, 30),
            "0 0 6 ? * 2#1": (2026, 12, 7),
            "0 0 6 15W * ?": (2026, 12, 15),
        }.items():
            self.assertEqual(
                CronExpression.parse(text).next_after(after),
                datetime(*expected, 6, tzinfo=UTC),
            )


class DeletionTests(SynchronousTestCase):
    """What a run does to the files."""

    def setUp(self) -> None:
        """A data path, and a clock that begins at 1000 s."""
        self.data_path = os.path.abspath(self.mktemp())
        self.directory = os.path.join(self.data_path, "t-0")
        os.makedirs(self.directory)
        self.clock = Clock()
        self.clock.advance(1000)

    def write(self, start: int, content: bytes) -> str:
        """A segment that was modified 2 s ago; its name."""
        name = f"{start:020d}.meta"
        path = os.path.join(self.directory, name)
        with open(path, "wb") as stream:
            stream.write(content)
        os.utime(path, (998, 998))
        return name

    def open(self) -> MessageStore:
        """The store of the directory."""
        environment = StoreEnvironment(SynchronousThreads(), self.clock, FlushSchedule(self.clock))
        segments = open_segments(self.data_path, "t", 0)
        store = make_store(TopicConfig("t"), 0, segments, environment)
        self.addCleanup(lambda: self.successResultOf(store.close()))
        return store

    def run_policy(self, store: MessageStore, policy: str) -> None:
        """One run with this policy."""
        config = BrokerConfig(0, delete_policy=policy)
        Retention([store], config, self.clock, SynchronousThreads(), self.clock.seconds).run()

    def test_c35_delete(self) -> None:
        """C35: the expired first segment goes, the last is kept, a second run removes nothing."""
        self.write(0, M1)
        last = self.write(25, M2)
        store = self.open()
        for _ in range(2):
            self.run_policy(store, "delete,1s")
            self.assertEqual(os.listdir(self.directory), [last])
            self.assertEqual((store.min_offset, store.max_offset), (25, 50))

    def test_c36_archive(self) -> None:
        """C36: expired segments become zip files of one entry, which a reopened store ignores."""
        first, second, last = self.write(0, M1), self.write(25, M2), self.write(50, b"")
        store = self.open()
        self.run_policy(store, "archive,1s,true")
        self.assertEqual(
            sorted(os.listdir(self.directory)), [f"{first}.zip", f"{second}.zip", last]
        )
        for name, content in ((first, M1), (second, M2)):
            with zipfile.ZipFile(os.path.join(self.directory, f"{name}.zip")) as packed:
                self.assertEqual(packed.namelist(), [name])
                self.assertEqual(packed.read(name), content)
        for opened in (store, self.open()):
            self.assertEqual((opened.min_offset, opened.max_offset), (50, 50))
