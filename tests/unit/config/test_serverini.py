"""Loading and reloading ``server.ini``."""

from __future__ import annotations

import os
import zlib

from metamorphosis.config import serverini
from metamorphosis.config.faults import ConfigFaults
from metamorphosis.errors import ConfigError
from tests.support.inifiles import MINIMAL, SYSTEM, TOPICS, ZOOKEEPER, IniTestCase


def with_system(*lines: str) -> str:
    """The minimal file with more lines in ``[system]``."""
    return SYSTEM + "".join(f"{line}\n" for line in lines) + ZOOKEEPER + TOPICS


class LoadTests(IniTestCase):
    """Good files."""

    def test_every_system_key(self) -> None:
        """Each key of [system] reaches its attribute."""
        config = self.load(
            "[system]\nbrokerId=7\nserverPort=1+1\ndashboardHttpPort=3\ndataPath=/d\n"
            "appClassPath=/\ndataLogPath=/l\nhostName=h\nnumPartitions=4\nunflushThreshold=0\n"
            "unflushInterval=-1\nmaxSegmentSize=0x10\nmaxTransferSize=8\ngetProcessThreadCount=9\n"
            "putProcessThreadCount=10\ndeletePolicy=archive,3,true\ndeleteWhen=0 0 1 * * ?\n"
            "quartzThreadCount=11\nmaxCheckpoints=12\ncheckpointInterval=1<<40\n"
            "maxTxTimeoutTimerCapacity=14\nflushTxLogAtCommit=2\nmaxTxTimeoutInSeconds=15\n"
            "acceptSubscribe=false\nacceptPublish=!true\nstat=true\nupdateConsumerOffsets=1<2\n"
            "loadMessageStoresInParallel=true\n" + ZOOKEEPER + TOPICS
        )
        self.assertEqual(
            (
                config.broker_id,
                config.server_port,
                config.dashboard_http_port,
                config.data_path,
                config.app_class_path,
                config.data_log_path,
                config.host_name,
                config.num_partitions,
                config.unflush_threshold,
                config.unflush_interval,
                config.max_segment_size,
                config.max_transfer_size,
                config.get_process_thread_count,
                config.put_process_thread_count,
                config.delete_policy,
                config.delete_when,
                config.quartz_thread_count,
                config.max_checkpoints,
                config.checkpoint_interval,
                config.max_tx_timeout_timer_capacity,
                config.flush_tx_log_at_commit,
                config.max_tx_timeout_in_seconds,
            ),
            (7, 2, 3, "/d", "/", "/l", "h", 4, 0, -1, 16, 8, 9, 10, "archive,3,true")
            + ("0 0 1 * * ?", 11, 12, 1 << 40, 14, 2, 15),
        )
        self.assertEqual(
            (
                config.accept_subscribe,
                config.accept_publish,
                config.stat,
                config.update_consumer_offsets,
                config.load_message_stores_in_parallel,
            ),
            (False, False, True, True, True),
        )
        self.assertEqual(config.warnings, ())

    def test_every_zookeeper_key(self) -> None:
        """Each key of [zookeeper] reaches its attribute."""
        config = self.load(
            SYSTEM + "[zookeeper]\nzk.zkConnect=a:1,b:2/c\nzk.zkSessionTimeoutMs=1\n"
            "zk.zkConnectionTimeoutMs=2\nzk.zkSyncTimeMs=3\nzk.zkEnable=false\nzk.zkRoot=m/\n"
            + TOPICS
        ).zookeeper
        self.assertEqual(
            (config.connect, config.session_timeout, config.connection_timeout, config.sync_time),
            ("a:1,b:2/c", 1, 2, 3),
        )
        self.assertEqual((config.enable, config.root), (False, "/m"))

    def test_root(self) -> None:
        """A leading slash is added, one trailing slash goes."""
        roots = {"/": "", "/a/": "/a", "a//": "/a/", "/a/b": "/a/b", "": "/meta"}
        for text, root in roots.items():
            config = self.load(SYSTEM + ZOOKEEPER + f"zk.zkRoot={text}\n" + TOPICS)
            self.assertEqual(config.zookeeper.root, root, text)

    def test_every_topic_key(self) -> None:
        """Each key of a topic section reaches its attribute."""
        topic = self.load(
            SYSTEM + ZOOKEEPER + "[topic=t]\nnumPartitions=2\nstat=true\ndeletePolicy=delete,1\n"
            "deleteWhen=0 0 2 * * ?\ndataPath=/t\nunflushInterval=3\nunflushThreshold=4\n"
            "acceptSubscribe=false\nacceptPublish=false\ngroup.g1=m:C\ngroup.=m:D\ngroup.g2= \n"
            "topic=x\nfilterClassNames=y\n"
        ).topics["t"]
        self.assertEqual(
            (topic.name, topic.num_partitions, topic.stat, topic.delete_policy, topic.delete_when),
            ("t", 2, True, "delete,1", "0 0 2 * * ?"),
        )
        self.assertEqual(
            (topic.data_path, topic.unflush_interval, topic.unflush_threshold), ("/t", 3, 4)
        )
        self.assertEqual((topic.accept_subscribe, topic.accept_publish), (False, False))
        self.assertEqual(dict(topic.filters), {"g1": "m:C", "": "m:D"})

    def test_blank_topic_values(self) -> None:
        """A blank value in a topic section means the global value."""
        config = self.load(
            with_system("stat=true", "deletePolicy=archive,1", "dataPath=/d", "acceptPublish=false")
            + "numPartitions=\nstat=\ndeletePolicy=\ndeleteWhen=\ndataPath=\nunflushInterval=\n"
            "unflushThreshold=\nacceptSubscribe=\nacceptPublish=\n"
        )
        self.assertEqual(config.topics["test"], config.topic("test"))
        self.assertEqual(config.topic("other").delete_policy, "archive,1")
        topic = config.topics["test"]
        self.assertEqual(
            (topic.num_partitions, topic.stat, topic.delete_policy, topic.data_path),
            (1, True, "archive,1", "/d"),
        )
        self.assertFalse(topic.accept_publish)

    def test_blank_optional_value(self) -> None:
        """A blank value of an optional key is the default."""
        config = self.load(with_system("serverPort=", "hostName=", "dataPath=", "deleteWhen="))
        self.assertEqual((config.server_port, config.host_name), (8123, None))
        self.assertEqual(config.data_path, os.path.join(os.path.expanduser("~"), "meta"))
        self.assertEqual(config.delete_when, "0 0 6,18 * * ?")

    def test_checksum_and_time(self) -> None:
        """The unsigned CRC-32 of the bytes, and the time of the file that was read."""
        config = self.load(MINIMAL)
        self.assertEqual(config.checksum, zlib.crc32(MINIMAL.encode()))
        self.assertEqual(config.modified_ns, os.stat(self.path).st_mtime_ns)
        self.assertEqual(config.path, self.path)

    def test_provided_directory(self) -> None:
        """A directory provided beside the file's directory holds the filters, unless told."""
        conf = os.path.join(self.directory, "conf")
        provided = os.path.join(self.directory, "provided")
        os.makedirs(conf)
        self.path = os.path.join(conf, "server.ini")
        self.assertIsNone(self.load(MINIMAL).app_class_path)
        os.makedirs(provided)
        self.assertEqual(self.load(MINIMAL).app_class_path, provided + "/")
        self.assertEqual(self.load(with_system("appClassPath=/")).app_class_path, "/")

    def test_non_ascii_topics_sort_like_java(self) -> None:
        """Characters beyond the basic plane sort by their surrogates."""
        topics = "[topic=\uffee]\n[topic=\U0001f600]\n[topic=a]\n"
        config = self.load(SYSTEM + ZOOKEEPER + topics)
        self.assertEqual(list(config.topics), ["a", "\U0001f600", "\uffee"])


class WarningTests(IniTestCase):
    """Accepted values with a warning."""

    def test_unused_sections(self) -> None:
        """A warning for every section that is not read, with a similar known name."""
        config = self.load(MINIMAL + "[slave]\nx=1\n[Topic=a]\n[topic test]\n[sytem]\n[topic]\n")
        self.assertEqual(config.warnings, ("line 11: section [slave] is not used by a broker",))
        unused = "is not used by a broker; do you mean"
        self.assertEqual(
            config.problems,
            (
                f"line 13: section [Topic=a] {unused} [topic=a]?",
                f"line 14: section [topic test] {unused} [topic=test]?",
                f"line 15: section [sytem] {unused} [system]?",
                f"line 16: section [topic] {unused} [topic=name]?",
            ),
        )

    def test_numbers_nobody_means(self) -> None:
        """Line, key, and the right range; the start uses the number as the original does."""
        text = MINIMAL.replace("numPartitions=1", "numPartitions=-2")
        text = text.replace("maxTransferSize=1048576", "maxTransferSize=0")
        config = self.load(text + "numPartitions=0\n")
        self.assertEqual((-2, 0), (config.num_partitions, config.max_transfer_size))
        self.assertEqual(3, len(config.problems))
        for problem, place in zip(
            config.problems,
            (
                "[system] numPartitions: with -2 no message",
                "[system] maxTransferSize: with 0 no message",
                "[topic=test] numPartitions: with 0 no message",
            ),
            strict=True,
        ):
            self.assertRegex(problem, "^line [0-9]+, ")
            self.assertIn(place, problem)

    def test_paths_that_are_not_utf8(self) -> None:
        """Bytes of another encoding would be another directory: of [system], of a topic."""
        text = with_system("dataPath=/data/\xe9", "dataLogPath=/log/\xe9")
        text += "dataPath=/more/\xe9\n[topic=good]\ndataPath=/data/ok\n"
        self.assertEqual((), self.load(text).problems)
        problems = self.load(text.encode("latin-1")).problems
        self.assertEqual(3, len(problems))
        for problem, place in zip(
            problems,
            (
                "[system] dataPath: the path is not UTF-8, so that '/data/\ufffd' would be used",
                "[system] dataLogPath: the path is not UTF-8",
                "[topic=test] dataPath: the path is not UTF-8",
            ),
            strict=True,
        ):
            self.assertRegex(problem, "^line [0-9]+, ")
            self.assertIn(place, problem)

    def test_topics_nobody_can_name(self) -> None:
        """Names that the wire and ZooKeeper cannot have."""
        for name, expected in (("my topic", "' ' (U+0020)"), ("a/b", "'/' (U+002F)")):
            problems = self.load(SYSTEM + ZOOKEEPER + f"[topic={name}]\n").problems
            self.assertIn(
                f"[topic={name}]: no client can name this topic: {expected}", problems[-1]
            )

    def test_truncated_integer(self) -> None:
        """A number beyond 32 bits is taken like the original does, with a warning."""
        config = self.load(MINIMAL.replace("1048576", "4*1024*1024*1024", 1))
        self.assertEqual(config.max_segment_size, 0)
        self.assertEqual(
            config.warnings,
            (
                "line 6, [system] maxSegmentSize: 4*1024*1024*1024 does not fit 32 bits, 0 is taken"
                " as the original does",
            ),
        )
        [problem] = config.problems
        self.assertIn("line 6, [system] maxSegmentSize: with 0 every message has a file", problem)

    def test_host_that_java_refuses(self) -> None:
        """A host name that java.net.URI does not take is pointed at."""
        [problem] = self.load(with_system("hostName=my_host")).problems
        self.assertIn("line 8, [system] hostName: Java clients cannot connect", problem)
        self.assertIn("'my_host'", problem)

    def test_repeated_key(self) -> None:
        """A key that stands twice is pointed at."""
        [warning] = self.load(with_system("brokerId=3")).warnings
        self.assertIn("brokerId stands on line 2 and on line 8", warning)


class FaultTests(IniTestCase):
    """Faulty files."""

    def test_all_at_once(self) -> None:
        """Every fault is reported with its line, section and key, what is missing last."""
        error = self.faults(
            "[system]\nbrokerId=1024\nnumPartitions=yes\nunflushThreshold=1\nunflushInterval=1.5\n"
            "maxSegmentSize=1\ndataPaths=/x\nfoo\ndeletePolicy=delete,7d\ndeleteWhen=0 6 * * ?\n"
            "[zookeeper]\nzk.zkConect=a:1\n[topic=t]\nacceptPublish=yes\n"
        )
        self.assertEqual(
            [(fault.line, fault.section, fault.key) for fault in error.faults],
            [
                (2, "system", "brokerId"),
                (3, "system", "numPartitions"),
                (5, "system", "unflushInterval"),
                (7, "system", "dataPaths"),
                (8, "", ""),
                (9, "system", "deletePolicy"),
                (10, "system", "deleteWhen"),
                (11, "zookeeper", ""),
                (12, "zookeeper", "zk.zkConect"),
                (14, "topic=t", "acceptPublish"),
                (None, "system", "maxTransferSize"),
            ],
        )

    def test_text(self) -> None:
        """Several faults are listed below a headline, a single one stands in it."""
        error = self.faults(with_system("a=1", "b"))
        self.assertEqual(
            str(error).splitlines()[0],
            f"Parse configuration failed,path={self.path}: 2 faults",
        )
        self.assertTrue(str(error).splitlines()[1].startswith("  line 8, [system] a: Invalid"))
        self.assertTrue(str(error).splitlines()[2].startswith("  line 9: parse error"))
        error = self.faults(with_system("b"))
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertIsInstance(error, ConfigError)

    def test_ranges(self) -> None:
        """Values with which the original fails later, or never ends, are refused at once."""
        for line, part in (
            ("serverPort=65536", "0 to 65535"),
            ("serverPort=-1", "found -1"),
            ("getProcessThreadCount=0", "above 0"),
            ("putProcessThreadCount=-1", "above 0"),
            ("quartzThreadCount=0", "Initialize quartz scheduler failed"),
            ("maxCheckpoints=0", "above 0"),
            ("checkpointInterval=0", "above 0"),
            ("flushTxLogAtCommit=3", "Invalid flushLogTxCommit,only supports 0,1 or 2"),
        ):
            self.assertIn(part, self.fault(with_system(line)), line)

    def test_limits(self) -> None:
        """The smallest and largest good values are taken."""
        config = self.load(
            with_system(
                "serverPort=65535",
                "getProcessThreadCount=1",
                "putProcessThreadCount=1",
                "quartzThreadCount=1",
                "maxCheckpoints=1",
                "checkpointInterval=1",
                "flushTxLogAtCommit=0",
            ).replace("2181", "65535\nzk.zkSyncTimeMs=0\nzk.zkSessionTimeoutMs=0\n")
        )
        self.assertEqual((config.server_port, config.flush_tx_log_at_commit), (65535, 0))
        self.assertEqual(config.zookeeper.sync_time, 0)
        self.assertEqual(self.load(with_system("serverPort=0")).server_port, 0)

    def test_class_path(self) -> None:
        """A directory of filters that does not exist is refused with the rest."""
        text = self.fault(with_system("appClassPath=/does/not/exist"))
        self.assertIn("Initializing ConsumerFilterManager failed: '/does/not/exist'", text)

    def test_zookeeper_values(self) -> None:
        """Times and the server list are checked."""
        for line, part in (
            ("zk.zkSyncTimeMs=-1", "0 or more is needed, found -1"),
            ("zk.zkConnect=a:b", "'a:b' is not host:port"),
            ("zk.zkConnect=a:1,:2", "':2' is not host:port"),
            ("zk.zkConnect=a:65536/x", "the port of 'a:65536' is not within 1 to 65535"),
            ("zk.zkConnect=a:0", "the port of 'a:0' is not within"),
            ("zk.zkConnect=a;b", "a semicolon does not part servers, a comma does"),
            ("zk.zkConnect=http://a:1", "ZooKeeper has no URL"),
            ("zk.zkSessionTimeoutMs=-1", "0 or more is needed, found -1"),
            ("zk.zkConnectionTimeoutMs=-1", "0 or more is needed, found -1"),
        ):
            self.assertIn(part, self.fault(SYSTEM + f"[zookeeper]\n{line}\n" + TOPICS), line)

    def test_global_policy_is_checked(self) -> None:
        """The global policy and schedule are checked even if every topic overrides them."""
        text = with_system("deletePolicy=x,1", "deleteWhen=nonsense")
        faults = self.faults(text + "deletePolicy=delete,1\ndeleteWhen=0 0 6 * * ?\n").faults
        self.assertEqual([fault.key for fault in faults], ["deletePolicy", "deleteWhen"])

    def test_schedule_in_the_past(self) -> None:
        """A schedule that never comes again is refused, as in the original."""
        text = self.fault(with_system("deleteWhen=0 0 6 * * ? 2012"))
        self.assertEqual(text, "Schedule delete job failed: '0 0 6 * * ? 2012' never fires again")

    def test_no_faults_follow_from_a_lost_header(self) -> None:
        """When a header has no name, nothing is said to be missing."""
        for text in (
            MINIMAL.replace("[topic=test]", "[]"),
            MINIMAL.replace("[zookeeper]", "[ "),
            MINIMAL.replace("[system]", "[]"),
        ):
            self.assertIn("parse error", self.fault(text))

    def test_bad_header_is_one_fault(self) -> None:
        """A comment after a header is one fault; the section is read nevertheless."""
        self.assertIn("parse error (at line: 1)", self.fault(MINIMAL.replace("]", "] ; c", 1)))

    def test_unreadable(self) -> None:
        """A path that is not a file is named with the system's reason."""
        error = self.assertRaises(ConfigFaults, serverini.load, self.directory)
        self.assertIn(f"path={self.directory}: the file cannot be read: Is a directory", str(error))

    def test_blank_path(self) -> None:
        """A blank path is refused as such."""
        error = self.assertRaises(ConfigFaults, serverini.load, " ")
        self.assertIn("Blank file path", str(error))


class ReloadTests(IniTestCase):
    """Reading the file again."""

    def again(self, text: str | bytes) -> serverini.Reload:
        """Load the minimal file, write another, reload."""
        current = self.load(MINIMAL)
        self.write(text)
        os.utime(self.path, ns=(0, current.modified_ns + 1))
        reloaded = serverini.reload(current)
        assert reloaded is not None
        return reloaded

    def test_same_time(self) -> None:
        """A file of the same modification time is not read again."""
        current = self.load(MINIMAL)
        self.write("nonsense")
        os.utime(self.path, ns=(0, current.modified_ns))
        self.assertIsNone(serverini.reload(current))

    def test_what_changed(self) -> None:
        """Topics that came, changed and went are named."""
        current = self.load(MINIMAL + "[topic=b]\n[topic=c]\n")
        text = MINIMAL.replace("test", "a") + "[topic=b]\nnumPartitions=2\n[topic=c]\n"
        self.write(text)
        os.utime(self.path, ns=(0, 1))
        reloaded = serverini.reload(current)
        assert reloaded is not None
        self.assertEqual(
            (reloaded.added, reloaded.changed, reloaded.removed), (("a",), ("b",), ("test",))
        )
        self.assertEqual(list(reloaded.config.topics), ["a", "b", "c"])
        self.assertEqual(reloaded.config.topics["b"].num_partitions, 2)
        self.assertEqual(reloaded.config.checksum, zlib.crc32(text.encode()))
        self.assertEqual(reloaded.config.modified_ns, 1)

    def test_touched(self) -> None:
        """A file that is only newer changes nothing but the time."""
        reloaded = self.again(MINIMAL)
        self.assertEqual((reloaded.added, reloaded.changed, reloaded.removed), ((), (), ()))
        self.assertIsNone(serverini.reload(reloaded.config))

    def test_other_sections_are_not_needed(self) -> None:
        """Without [system], [zookeeper] and topics the file is accepted."""
        reloaded = self.again("")
        self.assertEqual(dict(reloaded.config.topics), {})
        self.assertEqual(reloaded.removed, ("test",))

    def test_other_sections_are_not_looked_at(self) -> None:
        """Faults of [system] do not stop a reload."""
        reloaded = self.again("[system]\nbrokerId=x\nnonsense=1\n[topic=n]\n")
        self.assertEqual(reloaded.added, ("n",))

    def test_changes_that_wait(self) -> None:
        """Values outside the topics keep their state, and it is said that they were edited."""
        text = MINIMAL.replace("numPartitions=1", "numPartitions=8").replace("localhost", "other")
        reloaded = self.again(text)
        self.assertEqual(reloaded.config.num_partitions, 1)
        self.assertEqual(reloaded.config.topics["test"].num_partitions, 1)
        self.assertEqual(
            reloaded.config.warnings,
            (
                "[system] numPartitions was changed; that takes effect at the next start",
                "[zookeeper] zk.zkConnect was changed; that takes effect at the next start",
            ),
        )

    def test_faults_change_nothing(self) -> None:
        """A faulty file is refused as a whole, and tried again at the next reload."""
        current = self.load(MINIMAL)
        for _ in range(2):
            self.write(MINIMAL + "[topic=n]\n[topic=m]\nstart\ndeleteWhen=x\n")
            os.utime(self.path, ns=(0, 1))
            error = self.assertRaises(ConfigFaults, serverini.reload, current)
            self.assertEqual([fault.line for fault in error.faults], [13, 14])
        self.write(MINIMAL + "[topic=n]\n")
        os.utime(self.path, ns=(0, 1))
        reloaded = serverini.reload(current)
        assert reloaded is not None
        self.assertEqual(reloaded.added, ("n",))

    def test_missing_file(self) -> None:
        """A file that is gone is a fault, not a crash."""
        current = self.load(MINIMAL)
        os.unlink(self.path)
        error = self.assertRaises(ConfigFaults, serverini.reload, current)
        self.assertIn("is not exists", str(error))
