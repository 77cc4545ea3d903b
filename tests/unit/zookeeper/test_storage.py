"""The database: what comes back, what is refused, what a failure leaves."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.acl import OPEN, Acl
from metamorphosis.zookeeper.nodes import Node
from metamorphosis.zookeeper.sessions import Session
from metamorphosis.zookeeper.storage import FILE_NAME, Storage, StorageError
from metamorphosis.zookeeper.tree import Tree

TICK = 2000
BIG = (1 << 63) - 1


def fields(node: Node) -> tuple[object, ...]:
    """Everything of a node."""
    stats = node.czxid, node.ctime, node.mzxid, node.mtime, node.pzxid
    counts = node.version, node.creates, node.aversion, node.owner
    return node.data, node.acl, *stats, *counts, sorted(node.children)


class StorageTestCase(SynchronousTestCase):
    """A directory."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, FILE_NAME)
        self.storages: list[Storage] = []

    def tearDown(self) -> None:
        for storage in self.storages:
            storage.close()

    def open(self) -> Storage:
        """The database; closed after the test."""
        self.storages.append(Storage(self.directory))
        return self.storages[-1]

    def restarted(self) -> Storage:
        """The database as another process finds it after kill -9: opened without a close."""
        copy = os.path.abspath(self.mktemp())
        os.mkdir(copy)
        for name in os.listdir(self.directory):
            if not name.endswith("-shm"):
                shutil.copyfile(os.path.join(self.directory, name), os.path.join(copy, name))
        self.storages.append(Storage(copy))
        return self.storages[-1]


class KeepingTests(StorageTestCase):
    """What was committed comes back."""

    def setUp(self) -> None:
        super().setUp()
        self.storage = self.open()
        self.tree, self.sessions = self.storage.load(TICK)

    def keep(self) -> None:
        """Commit what changed."""
        changes = self.tree.take_changes(), self.sessions.take_changes()
        self.storage.write(*changes, self.tree.zxid)
        self.storage.commit()

    def create(self, path: str, data: bytes | None = b"", acl: Acl = OPEN, owner: int = 0) -> Node:
        """A node under a zxid of its own."""
        self.tree.begin(1_700_000_000_000)
        return self.tree.nodes[self.tree.create(path, data, acl, owner)]

    def found(self) -> Tree:
        """The tree after kill -9."""
        return self.restarted().load(TICK)[0]

    def test_empty_directory(self) -> None:
        """A new database has the nodes that are always there, and knows no session."""
        self.assertEqual(sorted(self.tree.nodes), ["/", "/zookeeper", "/zookeeper/quota"])
        self.assertEqual((self.tree.zxid, self.sessions.by_id), (0, {}))

    def test_every_field(self) -> None:
        """A node comes back as it was, and is found among its parent's children."""
        node = self.create("/a", b"data")
        self.create("/a/b")
        node.czxid, node.ctime, node.mzxid, node.mtime, node.pzxid = BIG, BIG - 1, 2, 3, 4
        node.version, node.creates, node.aversion, node.owner = 1 << 31, 6, 7, BIG
        self.keep()
        tree = self.found()
        self.assertEqual(fields(tree.nodes["/a"]), fields(node))
        self.assertEqual(tree.nodes["/a"].children, {"b": None})
        self.assertEqual(tree.ephemerals, {BIG: {"/a"}})
        self.assertEqual(tree.data_size, self.tree.data_size)

    def test_null_and_empty_data(self) -> None:
        """They are different values, over a restart too."""
        for name, data in (("null", None), ("empty", b""), ("zero", b"\0"), ("all", bytes(256))):
            self.create(f"/{name}", data)
        self.keep()
        tree = self.found()
        found = {path: tree.nodes[f"/{path}"].data for path in ("null", "empty", "zero", "all")}
        self.assertEqual(found, {"null": None, "empty": b"", "zero": b"\0", "all": bytes(256)})

    def test_large_data(self) -> None:
        """The most that a frame can bring."""
        data = os.urandom(1_048_500)
        self.create("/large", data)
        self.keep()
        self.assertEqual(self.found().nodes["/large"].data, data)

    def test_acls(self) -> None:
        """Others than the open one come back in order, whatever is in their names."""
        acl: Acl = ((1, "digest", 'jürgen:"\\\u2028='), (31, "ip", "10.0.0.0/8"), (0, "world", ""))
        self.create("/a", acl=acl)
        self.create("/open")
        self.keep()
        nodes = self.found().nodes
        self.assertEqual(nodes["/a"].acl, acl)
        self.assertIs(nodes["/open"].acl, OPEN)

    def test_paths(self) -> None:
        """Names in any script, and those that sort around the slash."""
        for path in ("/ä", "/消息", "/a", "/a/b", "/a!", "/a!/b", "/a0", "/ A", "/%'\""):
            self.create(path)
        self.keep()
        self.assertEqual(set(self.found().nodes), set(self.tree.nodes))

    def test_changes_and_removals(self) -> None:
        """The last state counts; what was created and removed in one batch was never there."""
        for name in "abc":
            self.create(f"/{name}")
        self.keep()
        self.tree.set_data("/a", b"new")
        self.tree.delete("/b")
        self.create("/d")
        self.tree.delete("/d")
        self.keep()
        tree = self.found()
        self.assertEqual(sorted(tree.nodes["/"].children), ["a", "c", "zookeeper"])
        self.assertEqual(tree.nodes["/a"].data, b"new")

    def test_sequence_survives_all_children(self) -> None:
        """The number of creates is kept although no child is left."""
        self.create("/a")
        self.create("/a/b")
        self.tree.delete("/a/b")
        self.keep()
        self.assertEqual(self.found().nodes["/a"].creates, 1)

    def test_zxid_of_a_failed_write(self) -> None:
        """A batch without nodes keeps the zxid that was handed out."""
        self.tree.begin(0)
        self.keep()
        self.assertEqual(self.found().zxid, 1)

    def test_sessions(self) -> None:
        """Ids, passwords and timeouts come back; sessions that ended do not."""
        kept, ended = (self.sessions.create(4000, 0.0, 1_700_000_000_000) for _ in range(2))
        self.keep()
        self.sessions.remove(ended)
        self.sessions.resume(kept, 6000, 0.0)
        self.keep()
        _, sessions = self.restarted().load(TICK)
        (found,) = sessions.by_id.values()
        self.assertEqual((found.id, found.password, found.timeout), (kept.id, kept.password, 6000))
        self.assertEqual((sessions.min_timeout, sessions.max_timeout), (4000, 40000))

    def test_uncommitted_batch(self) -> None:
        """What was written and not committed is not there after kill -9."""
        self.create("/a")
        self.storage.write(self.tree.take_changes(), {}, 1)
        tree = self.found()
        self.assertEqual((sorted(tree.nodes["/"].children), tree.zxid), (["zookeeper"], 0))

    def test_close_and_open(self) -> None:
        """An orderly end leaves one file."""
        self.create("/a")
        self.keep()
        self.storage.close()
        self.assertEqual(os.listdir(self.directory), [FILE_NAME])
        self.assertIn("/a", self.open().load(TICK)[0].nodes)

    def test_log_is_bounded(self) -> None:
        """The write-ahead log does not grow with the number of batches."""
        node = self.create("/a", b"x" * 100_000)
        for _ in range(200):
            self.storage.write({"/a": node}, {}, 1)
            self.storage.commit()
        self.assertLess(os.path.getsize(f"{self.path}-wal"), 6 << 20)

    def test_backup_of_a_running_server(self) -> None:
        """sqlite's own backup reads while a batch is open, and gets what was committed."""
        self.create("/a")
        self.keep()
        self.create("/b")
        self.storage.write(self.tree.take_changes(), {}, 2)
        backup = os.path.abspath(self.mktemp())
        os.mkdir(backup)
        source = sqlite3.connect(self.path)
        target = sqlite3.connect(os.path.join(backup, FILE_NAME))
        source.backup(target)
        source.close()
        target.close()
        self.storage.commit()
        copy = Storage(backup)
        self.addCleanup(copy.close)
        self.assertEqual(sorted(copy.load(TICK)[0].nodes["/"].children), ["a", "zookeeper"])

    def test_every_commit_is_flushed(self) -> None:
        """The modes on which durability rests."""
        modes = ("journal_mode", "synchronous")
        database = self.storage._database
        found = [database.execute(f"PRAGMA {mode}").fetchone() for mode in modes]
        self.assertEqual(found, [("wal",), (2,)])


class FailingTests(StorageTestCase):
    """A disk that takes no more."""

    def setUp(self) -> None:
        super().setUp()
        self.storage = self.open()
        tree, _ = self.storage.load(TICK)
        self.storage.write(tree.take_changes(), {}, 1)
        self.storage.commit()
        self.limit(1)

    def limit(self, pages: int) -> None:
        """The file may have so many pages, or as many as it has: sqlite says it is full."""
        self.storage._database.execute(f"PRAGMA max_page_count = {pages}")

    def batch(self, data: bytes) -> dict[str, Node | None]:
        """One node more."""
        return {"/a": Node(data, OPEN, 2, 0, 2, 0, 2)}

    def test_full_disk(self) -> None:
        """The batch fails and leaves nothing; when there is room the next one is kept."""
        with self.assertRaises(sqlite3.Error):
            self.storage.write(self.batch(b"x" * 100_000), {}, 2)
            self.storage.commit()
        tree, _ = self.storage.load(TICK)
        self.assertEqual((sorted(tree.nodes["/"].children), tree.zxid), (["zookeeper"], 1))
        self.assertRaises(sqlite3.Error, self.storage.probe, 3)
        self.limit(1 << 30)
        self.storage.probe(3)
        self.storage.write(self.batch(b"x" * 100_000), {}, 4)
        self.storage.commit()
        tree, _ = self.restarted().load(TICK)
        self.assertEqual((len(tree.nodes["/a"].data or b""), tree.zxid), (100_000, 4))

    def test_failed_commit(self) -> None:
        """An error of COMMIT itself ends the transaction, too."""
        with sqlite3.connect(self.path) as other:
            self.storage.write(self.batch(b""), {}, 2)
            self.storage._database.execute("ROLLBACK")
        other.close()
        self.assertRaises(sqlite3.Error, self.storage.commit)
        self.storage.write(self.batch(b""), {}, 2)
        self.storage.commit()
        self.assertIn("/a", self.restarted().load(TICK)[0].nodes)

    def test_probe_keeps_the_zxid(self) -> None:
        """The zxids of what failed are not handed out again."""
        self.limit(1 << 30)
        self.storage.probe(17)
        self.assertEqual(self.restarted().load(TICK)[0].zxid, 17)


class RefusalTests(StorageTestCase):
    """Files that cannot be used: an error that names the file, and the file stays as it is."""

    def refused(self) -> str:
        """The text with which the file is refused."""
        with self.assertRaises(StorageError) as raised:
            self.open().load(TICK)
        text = str(raised.exception)
        self.assertIn(self.path, text)
        self.assertNotIn("\n", text)
        return text

    def write(self, data: bytes) -> None:
        """Put something in the place of the database."""
        with open(self.path, "wb") as file:
            file.write(data)

    def committed(self) -> None:
        """A database with some nodes."""
        storage = self.open()
        tree, _ = storage.load(TICK)
        for number in range(300):
            tree.begin(0)
            tree.create(f"/{number}", bytes(200), OPEN)
        storage.write(tree.take_changes(), {1: Session(1, bytes(16), 4000)}, tree.zxid)
        storage.commit()
        storage.close()

    def test_no_database(self) -> None:
        """Any other file."""
        self.write(b"this is not a database, whatever its name says " * 100)
        self.assertIn("put a backup in its place", self.refused())

    def test_other_database(self) -> None:
        """A database of somebody else."""
        with sqlite3.connect(self.path) as database:
            database.execute("CREATE TABLE theirs (x)")
        database.close()
        self.assertIn("none of an embedded ZooKeeper", self.refused())

    def test_other_version(self) -> None:
        """A database of a later version of ours."""
        self.committed()
        with sqlite3.connect(self.path) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
        self.assertIn("format 99", self.refused())

    def test_damaged_pages(self) -> None:
        """Pages that were overwritten are found at the start, wherever they are."""
        self.committed()
        with open(self.path, "rb") as file:
            good = file.read()
        for page in range(1, len(good) // 4096):
            data = bytearray(good)
            data[page * 4096 : page * 4096 + 100] = b"\xff" * 100
            self.write(bytes(data))
            self.refused()
        self.write(good)
        self.assertEqual(len(self.open().load(TICK)[0].nodes), 303)

    def test_cut_file(self) -> None:
        """A file whose end is missing."""
        self.committed()
        os.truncate(self.path, os.path.getsize(self.path) // 2)
        self.refused()

    def test_node_without_parent(self) -> None:
        """A tree that cannot be."""
        self.committed()
        with sqlite3.connect(self.path) as database:
            database.execute("UPDATE node SET path = '/no/such' WHERE path = '/7'")
        database.close()
        self.assertIn("node /no/such has no parent", self.refused())

    def test_nonsense_in_a_row(self) -> None:
        """An ACL that is none."""
        self.committed()
        with sqlite3.connect(self.path) as database:
            database.execute("UPDATE node SET acl = '[[1]]' WHERE path = '/7'")
        database.close()
        self.refused()

    def test_no_room(self) -> None:
        """A disk without room is no reason to touch the file, and nobody is told to."""
        room = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, room)
        former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGXFSZ, former)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, room[1]))
        text = self.refused()
        self.assertIn("the disk, not the file", text)
        self.assertNotIn("backup", text)

    def test_directory_in_its_place(self) -> None:
        """It cannot be opened."""
        os.mkdir(self.path)
        self.refused()
