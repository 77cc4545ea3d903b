"""The topic sections of a master's ``server.ini`` in a slave's: R13, R14."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config import ini, serverini
from metamorphosis.replication.follower.masterconfig import merge, replace_file

OWN = b"""\
; the slave's
[system]
brokerId=0
numPartitions=1
unflushThreshold=1000
unflushInterval=10000
maxSegmentSize=1073741824
maxTransferSize=1048576
serverPort=8124
# ours
[topic=a]
numPartitions=2
; about b
[topic=b]
[zookeeper]
zk.zkConnect=localhost:2181
"""

MASTER = b"""\
; the master's
[system]
brokerId=0
numPartitions=8
serverPort=8123
hostName=master
unknownKey=1
[zookeeper]
zk.zkConnect=elsewhere:2181
[topic=a]
numPartitions=4
stat=true
[topic=c]
; three words
deletePolicy=delete,24
"""


def topics(data: bytes) -> dict[str, dict[str, str]]:
    """Topic -> its options."""
    return {
        name.removeprefix("topic="): {key: o.value for key, o in section.options.items()}
        for name, section in ini.parse(data).sections.items()
        if name.startswith("topic=")
    }


class MergeTests(SynchronousTestCase):
    """Bytes in, bytes out."""

    def test_row_R13(self) -> None:
        """Only topic sections are merged; everything else of ours stays, to the byte."""
        merged = merge(OWN, MASTER)
        self.assertEqual(
            {
                "a": {"numPartitions": "4", "stat": "true"},
                "b": {},
                "c": {"numPartitions": "8", "deletePolicy": "delete,24"},
            },
            topics(merged),
        )
        before, after = OWN.split(b"[topic=a]\nnumPartitions=2\n")
        self.assertTrue(merged.startswith(before + b"[topic=a]\nnumPartitions=4\nstat=true\n"))
        self.assertIn(after, merged)
        self.assertIn(b"; three words\n", merged)
        for word in (b"8123", b"hostName", b"elsewhere", b"unknownKey", b"the master's"):
            self.assertNotIn(word, merged)

    def test_again(self) -> None:
        """What was merged is merged already."""
        merged = merge(OWN, MASTER)
        self.assertEqual(merged, merge(merged, MASTER))

    def test_nothing_to_take(self) -> None:
        """Files without topics, and no files."""
        for master in (b"", b"\xff\xfe\x00garbage", b"[system]\nnumPartitions=3\n"):
            self.assertEqual(OWN, merge(OWN, master))

    def test_unknown_keys_and_lines(self) -> None:
        """What our broker would refuse becomes a comment, with the lines that continue it."""
        master = b"[topic=a]\nnewKey=1\\\n  more\\\n end\nno option\nnumPartitions=3\ngroup.g=X\n"
        merged = merge(OWN, master)
        self.assertEqual({"numPartitions": "3", "group.g": "X"}, topics(merged)["a"])
        self.assertIn(b";newKey=1\\\n;  more\\\n; end\n;no option\n", merged)

    def test_encodings(self) -> None:
        """Comments in GBK, which may end with a backslash, and broken ones stay as they are."""
        comment = "; 主题 誠".encode("gbk") + b" \x5c\n"
        master = b"[topic=a]\n" + comment + b"; \xff\xfe\nnumPartitions=3\n"
        merged = merge(OWN, master)
        self.assertIn(comment + b"; \xff\xfe\nnumPartitions=3\n", merged)
        self.assertEqual({"numPartitions": "3"}, topics(merged)["a"])

    def test_name_that_cannot_be_read(self) -> None:
        """A topic whose name is not UTF-8 is left where it is."""
        self.assertEqual(OWN, merge(OWN, "[topic=主题]\n".encode("gbk")))

    def test_line_ends(self) -> None:
        """Windows, old ones, and none at the end."""
        master = b"[system]\r\nnumPartitions=5\r\n[topic=z]\r\nstat=true"
        merged = merge(OWN.rstrip(b"\n"), master)
        self.assertEqual({"numPartitions": "5", "stat": "true"}, topics(merged)["z"])
        self.assertIn(b"[topic=z]\r\nnumPartitions=5\r\nstat=true\n", merged)
        self.assertIn(b"zk.zkConnect=localhost:2181\n", merged)

    def test_section_that_comes_twice(self) -> None:
        """On either side: all lines of the master's, in the place of our first one."""
        master = b"[topic=a]\nstat=true\n[topic=b]\n[topic=a]\nnumPartitions=6\n"
        merged = merge(OWN + b"[topic=a]\nstat=false\n", master)
        self.assertEqual({"numPartitions": "6", "stat": "true"}, topics(merged)["a"])
        self.assertEqual(2, merged.count(b"[topic=a]"))

    def test_result_loads(self) -> None:
        """The broker starts with it, whatever the master's keys are."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(merge(OWN, MASTER.replace(b"stat=true", b"stat=true\nfuture=x")))
        config = serverini.load(path)
        self.assertEqual(
            {"a": 4, "b": 1, "c": 8}, {n: t.num_partitions for n, t in config.topics.items()}
        )
        self.assertEqual(8124, config.server_port)


class ReplaceTests(SynchronousTestCase):
    """The file on the disk."""

    def test_mode_and_link_stay(self) -> None:
        """It is written beside the file that a link points to, with its mode."""
        directory = self.mktemp()
        os.mkdir(directory)
        path, link = f"{directory}/server.ini", f"{directory}/link.ini"
        with open(path, "wb") as file:
            file.write(b"old")
        os.chmod(path, 0o640)
        os.symlink("server.ini", link)
        replace_file(link, b"new")
        with open(path, "rb") as file:
            self.assertEqual(b"new", file.read())
        self.assertTrue(os.path.islink(link))
        self.assertEqual(0o640, os.stat(path).st_mode & 0o7777)
        self.assertEqual(["link.ini", "server.ini"], sorted(os.listdir(directory)))
