"""The database: what comes back, what is refused, what a failure leaves."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper import opening
from metamorphosis.zookeeper import storage as storage_module
from metamorphosis.zookeeper.acl import OPEN, Acl
from metamorphosis.zookeeper.databaseerrors import Kind, kind_of, unusable
from metamorphosis.zookeeper.losses import LOG
from metamorphosis.zookeeper.marker import FILE_NAME as MARKER
from metamorphosis.zookeeper.marker import Marker
from metamorphosis.zookeeper.nodes import Node
from metamorphosis.zookeeper.opening import PAGE_BYTES
from metamorphosis.zookeeper.sessions import Session
from metamorphosis.zookeeper.storage import FILE_NAME, Storage, StorageError
from metamorphosis.zookeeper.tree import Tree
from tests.unit.zookeeper.stored import TICK, StorageTestCase, copied, grow, keep

BIG = (1 << 63) - 1


def fields(node: Node) -> tuple[object, ...]:
    """Everything of a node."""
    stats = node.czxid, node.ctime, node.mzxid, node.mtime, node.pzxid
    counts = node.version, node.creates, node.aversion, node.owner
    return node.data, node.acl, *stats, *counts, sorted(node.children)


class KeepingTests(StorageTestCase):
    """What was committed comes back."""

    def setUp(self) -> None:
        super().setUp()
        self.storage = self.open()
        self.tree, self.sessions = self.storage.load(TICK)

    def keep(self) -> None:
        """Commit what changed."""
        changes = self.tree.take_changes(), self.sessions.take_changes()
        self.storage.begin()
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
        self.storage.begin()
        self.storage.write(self.tree.take_changes(), {BIG: Session(BIG, bytes(16), 4000)}, 2)
        self.storage.commit()
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
        self.storage.begin()
        self.storage.write(self.tree.take_changes(), {}, 1)
        tree = self.found()
        self.assertEqual((sorted(tree.nodes["/"].children), tree.zxid), (["zookeeper"], 0))

    def test_close(self) -> None:
        """No file of the directory is open afterwards."""
        directory = os.path.dirname(self.storage.path)

        def opened() -> list[str]:
            paths = (os.path.realpath(entry.path) for entry in os.scandir("/proc/self/fd"))
            return [path for path in paths if path.startswith(directory)]

        self.assertNotEqual([], opened())
        self.storage.close()
        self.assertEqual([], opened())

    def test_close_and_open(self) -> None:
        """An orderly end leaves one file."""
        self.create("/a")
        self.keep()
        self.storage.close()
        self.assertEqual(sorted(os.listdir(self.directory)), [MARKER, FILE_NAME])
        self.assertIn("/a", self.open().load(TICK)[0].nodes)

    def test_batch_that_the_kernel_never_wrote(self) -> None:
        """After a failed flush and kill -9 the log has a batch that the disk may not have. What is
        acknowledged later survives a power cut that loses it."""
        self.create("/a")
        self.keep()
        log = self.storage.path + LOG
        before = os.path.getsize(log)
        self.create("/doubtful")
        self.keep()
        doubtful = os.path.getsize(log) - before
        storage = self.restarted()
        tree, _ = storage.load(TICK)
        grow(storage, tree, "b")
        directory = os.path.dirname(storage.path)
        after_a_power_cut = copied(directory, os.path.abspath(self.mktemp()))
        with open(os.path.join(after_a_power_cut, FILE_NAME + LOG), "r+b") as file:
            file.seek(before)
            file.write(bytes(doubtful))
        tree, _ = self.open(after_a_power_cut).load(TICK)
        self.assertIn("/b", tree.nodes)

    def test_log_on_a_nearly_full_disk(self) -> None:
        """It is left as it is at the start: to copy it could take the room for the next batches."""
        self.create("/a", bytes(100_000))
        self.keep()
        grown = os.path.getsize(self.storage.path + LOG)
        for free, expected in ((2 * grown, False), (2 * grown + 1, True)):
            self.patch(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
            path = self.restarted().path
            self.assertEqual(expected, os.path.getsize(path) > 100_000)

    def test_log_is_bounded(self) -> None:
        """The write-ahead log does not grow with the number of batches."""
        node = self.create("/a", b"x" * 100_000)
        for _ in range(200):
            self.storage.begin()
            self.storage.write({"/a": node}, {}, 1)
            self.storage.commit()
        self.assertLess(os.path.getsize(f"{self.path}-wal"), 6 << 20)

    def test_backup_of_a_running_server(self) -> None:
        """sqlite's own backup reads while a batch is open, and gets what was committed."""
        self.create("/a")
        self.keep()
        self.create("/b")
        self.storage.begin()
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

    def test_slow_commits_are_counted(self) -> None:
        """Those above a second, which ``mntr`` says."""
        self.create("/a")
        self.keep()
        self.assertEqual(self.storage.slow_commits, 0)
        self.patch(storage_module, "SLOW_SECONDS", -1.0)
        self.create("/b")
        self.keep()
        self.assertEqual(self.storage.slow_commits, 1)

    def test_tidy_flushes_the_marker(self) -> None:
        """For a power cut: once after a batch, and not again without another."""
        flushed: list[int] = []
        self.patch(os, "fdatasync", flushed.append)
        self.create("/a")
        self.keep()
        self.assertEqual(flushed, [])
        for _ in range(2):
            self.storage.tidy()
            self.assertEqual(len(flushed), 1)

    def test_marker_is_made_once(self) -> None:
        """A start does not make it anew."""
        path = os.path.join(self.directory, MARKER)
        before = os.stat(path).st_ino
        self.storage.close()
        self.open()
        self.assertEqual(os.stat(path).st_ino, before)

    def test_every_commit_is_flushed(self) -> None:
        """The modes on which durability rests."""
        modes = ("journal_mode", "synchronous")
        database = self.storage._database
        found = [database.execute(f"PRAGMA {mode}").fetchone() for mode in modes]
        self.assertEqual(found, [("wal",), (2,)])


class FailingTests(StorageTestCase):
    """A disk that is full."""

    def setUp(self) -> None:
        super().setUp()
        self.storage = self.open()
        tree, _ = self.storage.load(TICK)
        self.storage.begin()
        self.storage.write(tree.take_changes(), {}, 1)
        self.storage.commit()
        self.limit(1)

    def limit(self, pages: int) -> None:
        """Limit the number of pages, by default to the present one: sqlite reports a full disk."""
        self.storage._database.execute(f"PRAGMA max_page_count = {pages}")

    def batch(self, data: bytes) -> dict[str, Node | None]:
        """One node more."""
        return {"/a": Node(data, OPEN, 2, 0, 2, 0, 2)}

    def test_full_disk(self) -> None:
        """The batch fails and leaves nothing; when there is room the next one is kept."""
        with self.assertRaises(sqlite3.Error):
            self.storage.begin()
            self.storage.write(self.batch(b"x" * 100_000), {}, 2)
            self.storage.commit()
        tree, _ = self.storage.load(TICK)
        self.assertEqual((sorted(tree.nodes["/"].children), tree.zxid), (["zookeeper"], 1))
        self.assertRaises(sqlite3.Error, self.storage.probe, 3)
        self.limit(1 << 30)
        self.storage.probe(3)
        self.storage.begin()
        self.storage.write(self.batch(b"x" * 100_000), {}, 4)
        self.storage.commit()
        tree, _ = self.restarted().load(TICK)
        self.assertEqual((len(tree.nodes["/a"].data or b""), tree.zxid), (100_000, 4))

    def test_failed_commit(self) -> None:
        """An error of COMMIT itself ends the transaction, too."""
        with sqlite3.connect(self.path) as other:
            self.storage.begin()
            self.storage.write(self.batch(b""), {}, 2)
            self.storage._database.execute("ROLLBACK")
        other.close()
        self.assertRaises(sqlite3.Error, self.storage.commit)
        self.storage.begin()
        self.storage.write(self.batch(b""), {}, 2)
        self.storage.commit()
        self.assertIn("/a", self.restarted().load(TICK)[0].nodes)

    def test_probe_keeps_the_zxid(self) -> None:
        """The zxids of what failed are not handed out again."""
        self.limit(1 << 30)
        self.storage.probe(17)
        self.assertEqual(self.restarted().load(TICK)[0].zxid, 17)

    def test_failed_probe_leaves_no_transaction(self) -> None:
        """After a probe that failed the next one, and the next batch, begin anew."""
        for _ in range(2):
            with self.assertRaises(sqlite3.OperationalError) as raised:
                self.storage.probe(3)
            self.assertIn("full", str(raised.exception))
            self.assertFalse(self.storage._database.in_transaction)
        self.limit(1 << 30)
        self.assertTrue(self.storage.begin())
        self.storage.write(self.batch(b""), {}, 4)
        self.storage.commit()
        self.assertEqual(self.restarted().load(TICK)[0].zxid, 4)

    def refuse(self, table: str) -> None:
        """sqlite refuses rows of a table, and leaves the transaction open."""
        self.storage._database.execute(
            f"CREATE TEMP TRIGGER refuse BEFORE INSERT ON {table}"
            " BEGIN SELECT RAISE(FAIL, 'refused'); END"
        )

    def test_refused_statement_of_a_probe(self) -> None:
        """The transaction of a probe ends although sqlite left it open."""
        self.limit(1 << 30)
        self.refuse("probe")
        for _ in range(2):
            error = self.assertRaises(sqlite3.Error, self.storage.probe, 3)
            self.assertIn("refused", str(error))
            self.assertFalse(self.storage._database.in_transaction)

    def test_refused_row(self) -> None:
        """So does that of a batch."""
        self.limit(1 << 30)
        self.refuse("node")
        for _ in range(2):
            self.assertTrue(self.storage.begin())
            self.assertRaises(sqlite3.Error, self.storage.write, self.batch(b""), {}, 2)
            self.assertFalse(self.storage._database.in_transaction)

    def test_refused_commit(self) -> None:
        """And that of a COMMIT which sqlite refuses; nothing is noted as acknowledged."""
        self.limit(1 << 30)
        execute = self.storage._database.execute
        execute("PRAGMA foreign_keys = ON")
        execute("CREATE TEMP TABLE above (x PRIMARY KEY)")
        execute("CREATE TEMP TABLE below (x REFERENCES above DEFERRABLE INITIALLY DEFERRED)")
        self.storage.begin()
        self.storage.write(self.batch(b""), {}, 2)
        execute("INSERT INTO below VALUES (1)")
        self.assertRaises(sqlite3.IntegrityError, self.storage.commit)
        self.assertFalse(self.storage._database.in_transaction)
        self.assertEqual(Marker(self.directory).read().zxid, 1)  # type: ignore[union-attr]

    def test_probe_asks_for_room(self) -> None:
        """A disk that takes a zxid and not the largest request does not work yet."""
        (pages,) = self.storage._database.execute("PRAGMA page_count").fetchone()
        self.limit(pages + 800)
        self.assertRaises(sqlite3.OperationalError, self.storage.probe, 3)
        self.limit(pages + 1200)
        self.storage.probe(3)

    def test_marker_that_cannot_be_written(self) -> None:
        """What could not be noted is not acknowledged; the database may have it."""
        self.limit(1 << 30)
        self.storage.begin()
        self.storage.write(self.batch(b""), {}, 2)
        marker = self.storage._marker
        marker.close()
        self.assertRaises(OSError, self.storage.commit)
        self.restarted().load(TICK)


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

    @property
    def marker(self) -> str:
        """The path of the marker."""
        return os.path.join(self.directory, MARKER)

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
        storage.begin()
        storage.write(tree.take_changes(), {1: Session(1, bytes(16), 4000)}, tree.zxid)
        storage.commit()
        storage.close()

    def test_no_database(self) -> None:
        """Any other file."""
        self.write(b"this is not a database, whatever its name says " * 100)
        self.assertIn("put a backup in its place", self.refused())

    def test_other_database(self) -> None:
        """A database of another program."""
        with sqlite3.connect(self.path) as database:
            database.execute("CREATE TABLE theirs (x)")
        database.close()
        self.assertIn("none of an embedded ZooKeeper", self.refused())

    def test_other_version(self) -> None:
        """A database of a later version of ours, or of none."""
        for version in (99, 0):
            text = self.edited(f"PRAGMA user_version = {version}")
            self.assertIn(f"it has format {version}, this version reads 2", text)

    def test_damaged_pages(self) -> None:
        """Pages that were overwritten are found at the start, wherever they are."""
        self.committed()
        with open(self.path, "rb") as file:
            good = file.read()
        for start in range(PAGE_BYTES, len(good), PAGE_BYTES):
            data = bytearray(good)
            data[start : start + 100] = b"\xff" * 100
            self.write(bytes(data))
            self.refused()
        self.write(good)
        self.assertEqual(len(self.open().load(TICK)[0].nodes), 303)

    def test_cut_file(self) -> None:
        """A file whose end is missing."""
        self.committed()
        os.truncate(self.path, os.path.getsize(self.path) // 2)
        self.refused()

    def good(self) -> bytes:
        """A database with some nodes, in its place and as bytes."""
        if not os.path.exists(self.path):
            self.committed()
        with open(self.path, "rb") as file:
            return file.read()

    def edited(self, statement: str) -> str:
        """The text with which a database is refused that was edited by hand."""
        good = self.good()
        database = sqlite3.connect(self.path, isolation_level=None)
        database.execute(statement)
        database.close()
        text = self.refused()
        for storage in self.storages:
            storage.close()
        self.storages.clear()
        self.write(good)
        return text

    def test_nodes_that_were_edited(self) -> None:
        """Each wrong value is named with its row and column, whatever it would do later."""
        for change, found in (
            ("acl = '[[1]]'", "acl: '[[1]]' is not a list of"),
            ("acl = 'x'", "acl: 'x' is not"),
            ("acl = '7'", "acl: '7' is not"),
            ("acl = X'ff'", "acl: b'\\xff' is not"),
            ("acl = 7", "acl: '7' is not"),
            ("acl = '{}'", "acl: '{}' is not"),
            ("acl = '[[1, 2, \"x\"]]'", "acl: '[[1, 2, \"x\"]]' is not"),
            ("data = 'text'", "data: 'text' is not a BLOB"),
            ("data = 1.5", "data: 1.5 is not a BLOB"),
            (f"data = '{'x' * 10_000}'", "data: 'xxx"),
            ("czxid = 'x'", "czxid: 'x' is not an INTEGER"),
            ("ctime = 1.5", "ctime: 1.5 is not an INTEGER"),
            ("owner = NULL", "owner: None is not an INTEGER"),
            ("version = X'01'", "version: b'\\x01' is not an INTEGER"),
        ):
            text = self.edited(f"UPDATE node SET {change} WHERE path = '/7'")
            self.assertIn(f"table node, path '/7', column {found}", text)
            self.assertLess(len(text), 900)
        for change, found in (
            ("path = '7'", "table node, column path: '7' is not the path of a node"),
            ("path = '/7/'", "table node, column path: '/7/' is not"),
            ("path = X'37'", "table node, column path: b'7' is not"),
            ("path = '/no/such'", "node /no/such has no parent"),
            ("owner = 99", "node /7 belongs to session 0x63, which is missing"),
        ):
            self.assertIn(found, self.edited(f"UPDATE node SET {change} WHERE path = '/7'"))

    def test_sessions_that_were_edited(self) -> None:
        """The same of sessions."""
        for change, found in (
            ("password = X'01'", ", id 1, column password: b'\\x01' is not a BLOB of 16 bytes"),
            ("password = NULL", ", id 1, column password: None is not"),
            ("timeout = 'soon'", ", id 1, column timeout: 'soon' is not a number of milliseconds"),
            ("timeout = -4000", ", id 1, column timeout: -4000 is not"),
            ("timeout = 1 << 31", ", id 1, column timeout: 2147483648 is not"),
            ("id = 0", ", column id: 0 is not the number of a session"),
        ):
            text = self.edited(f"UPDATE session SET {change}")
            self.assertIn(f"table session{found}", text)

    def test_tables_that_were_edited(self) -> None:
        """What a batch would trip over later is found at the start."""
        for statement, found in (
            ("DROP TABLE session", "table session has the columns -, not id, password, timeout"),
            ("ALTER TABLE node ADD COLUMN more", "table node has the columns id, path, data"),
            ("DROP TABLE probe", "table probe has the columns -, not space"),
            ("DROP TABLE state", ""),
            ("DELETE FROM state WHERE name = 'identity'", "another database"),
        ):
            self.assertIn(found, self.edited(statement))

    def test_zxid_that_was_edited(self) -> None:
        """The number by which a loss is noticed, of a database without marker."""
        self.good()
        for statement, found in (
            ("UPDATE state SET value = 'x'", "column value: 'x' is not a number"),
            ("UPDATE state SET value = -1", "column value: -1 is not a number"),
            ("DELETE FROM state", "column value: None is not a number"),
        ):
            if os.path.exists(self.marker):
                os.remove(self.marker)
            self.assertIn(
                f"table state, name 'zxid', {found}",
                self.edited(f"{statement} WHERE name = 'zxid'"),
            )

    def test_text_that_is_not_utf8(self) -> None:
        """What sqlite cannot decode."""
        self.edited("UPDATE node SET path = CAST(X'2fff' AS TEXT) WHERE path = '/7'")

    def test_locked(self) -> None:
        """A lock of another process is not a reason to touch the file."""
        self.committed()
        self.patch(opening, "LOCK_SECONDS", 0)
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        text = self.refused()
        self.assertIn("another process has a lock on it", text)
        self.assertNotIn("backup", text)

    def test_no_room(self) -> None:
        """A full disk is not a reason to change the file, and the text does not advise it."""
        room = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, room)
        former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGXFSZ, former)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, room[1]))
        text = self.refused()
        self.assertIn("the disk, not the file", text)
        self.assertNotIn("backup", text)

    def test_directory_in_its_place(self) -> None:
        """It cannot be opened, and the text does not say that it is damaged."""
        os.mkdir(self.path)
        text = self.refused()
        self.assertIn("see the permissions", text)
        self.assertNotIn("backup", text)


class KindTests(SynchronousTestCase):
    """The text for operators for each kind of error."""

    def error(self, code: int) -> sqlite3.Error:
        """One of sqlite's."""
        error = sqlite3.OperationalError("words of sqlite")
        error.sqlite_errorcode = code
        return error

    def test_kinds(self) -> None:
        """Only a file that shows that it is bad is to be moved away; extended codes count as their
        kind."""
        for code, kind in (
            (sqlite3.SQLITE_FULL, Kind.DISK),
            (sqlite3.SQLITE_IOERR, Kind.DISK),
            (sqlite3.SQLITE_IOERR_FSYNC, Kind.DISK),
            (sqlite3.SQLITE_READONLY, Kind.DISK),
            (sqlite3.SQLITE_READONLY_DIRECTORY, Kind.DISK),
            (sqlite3.SQLITE_CANTOPEN, Kind.ACCESS),
            (sqlite3.SQLITE_PERM, Kind.ACCESS),
            (sqlite3.SQLITE_AUTH, Kind.ACCESS),
            (sqlite3.SQLITE_BUSY, Kind.LOCKED),
            (sqlite3.SQLITE_BUSY_RECOVERY, Kind.LOCKED),
            (sqlite3.SQLITE_LOCKED, Kind.LOCKED),
            (sqlite3.SQLITE_PROTOCOL, Kind.LOCKED),
            (sqlite3.SQLITE_NOMEM, Kind.MEMORY),
            (sqlite3.SQLITE_CORRUPT, Kind.DAMAGED),
            (sqlite3.SQLITE_CORRUPT_INDEX, Kind.DAMAGED),
            (sqlite3.SQLITE_NOTADB, Kind.DAMAGED),
            (sqlite3.SQLITE_ERROR, Kind.DAMAGED),
        ):
            text = str(unusable("FILE", self.error(code)))
            self.assertEqual(text, f"Could not use FILE (words of sqlite): {kind.value}")
            self.assertEqual("backup" in text, kind is Kind.DAMAGED)

    def test_errors_of_the_system(self) -> None:
        """They are never the file's fault."""
        self.assertIs(kind_of(OSError(5, "Input/output error")), Kind.DISK)
        self.assertIs(kind_of(PermissionError(13, "Permission denied")), Kind.ACCESS)

    def test_findings(self) -> None:
        """A text about what is in the file."""
        self.assertIs(kind_of("row 3 missing from index"), Kind.DAMAGED)
        self.assertIn("FILE (a b)", str(unusable("FILE", "a\n  b")))


class LockTests(StorageTestCase):
    """Another process that has a lock on the database."""

    def setUp(self) -> None:
        super().setUp()
        self.storage = self.open()
        self.tree, _ = self.storage.load(TICK)
        keep(self.storage, self.tree)
        self.other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(self.other.close)

    def test_begin_does_not_wait(self) -> None:
        """It says that there is a lock; nothing is open then."""
        self.other.execute("BEGIN IMMEDIATE")
        self.assertFalse(self.storage.begin())
        self.assertFalse(self.storage._database.in_transaction)
        self.assertEqual(self.storage._database.execute("PRAGMA busy_timeout").fetchone(), (0,))
        self.other.execute("COMMIT")
        self.assertTrue(self.storage.begin())

    def test_waiting(self) -> None:
        """It begins as soon as there is none, and says how long that took."""
        self.assertLess(self.storage.wait_and_begin(), 1.0)
        self.assertTrue(self.storage._database.in_transaction)
        patience = self.storage._database.execute("PRAGMA busy_timeout").fetchone()
        self.assertEqual(patience, (opening.LOCK_SECONDS * 1000,))

    def test_waiting_in_vain(self) -> None:
        """After a while it is an error that says what it is."""
        self.patch(storage_module, "LOCK_SECONDS", 0)
        self.other.execute("BEGIN IMMEDIATE")
        with self.assertRaises(StorageError) as raised:
            self.storage.wait_and_begin()
        self.assertIn("another process has had a lock on it", str(raised.exception))

    def test_other_errors_are_not_locks(self) -> None:
        """A database that is gone for good."""
        self.storage._database.execute("BEGIN")
        self.assertRaises(sqlite3.OperationalError, self.storage.begin)

    def test_tidy_meanwhile(self) -> None:
        """What can wait is left for later."""
        self.patch(storage_module, "KEPT_BYTES", -(1 << 20))
        self.other.execute("BEGIN IMMEDIATE")
        self.storage.tidy()
        self.assertFalse(self.storage._database.in_transaction)


class ShrinkingTests(StorageTestCase):
    """After a mass deletion the file gives its pages back, some at a time."""

    def test_shrinking(self) -> None:
        """It ends near what the nodes need, step by step, and what is kept is there."""
        storage = self.open()
        tree, _ = storage.load(TICK)
        for number in range(3000):
            tree.begin(0)
            tree.create(f"/{number}", bytes(5000), OPEN)
        keep(storage, tree)
        storage.tidy()
        self.assertFalse(storage.untidy)
        for number in range(2990):
            tree.begin(0)
            tree.delete(f"/{number}")
        keep(storage, tree)
        (full,) = storage._database.execute("PRAGMA page_count").fetchone()
        self.assertTrue(storage.untidy)
        steps = 0
        while storage.untidy:
            storage.tidy()
            (pages,) = storage._database.execute("PRAGMA page_count").fetchone()
            step = storage_module.VACUUM_BYTES // PAGE_BYTES + 32
            self.assertGreaterEqual(pages, full - (steps + 1) * step)
            steps += 1
        self.assertGreater(steps, 3)
        self.assertLess(os.path.getsize(self.path), 2 << 20)
        self.assertEqual(len(self.restarted().load(TICK)[0].nodes), 13)

    def test_database_of_larger_pages(self) -> None:
        """Those of earlier releases keep theirs; sizes are counted in bytes, whatever they are."""
        self.patch(opening, "PAGE_BYTES", 4096)
        storage = self.open()
        tree, _ = storage.load(TICK)
        storage = self.restarted()
        self.assertEqual(storage._database.execute("PRAGMA page_size").fetchone(), (4096,))
        self.assertEqual(storage._database.execute("PRAGMA wal_autocheckpoint").fetchone(), (1024,))
        for number in range(1500):
            tree.begin(0)
            tree.create(f"/{number}", bytes(5000), OPEN)
        keep(storage, tree)
        for number in range(1500):
            tree.begin(0)
            tree.delete(f"/{number}")
        keep(storage, tree)
        (free,) = storage._database.execute("PRAGMA freelist_count").fetchone()
        storage.tidy()
        left = (free - 1024,)
        self.assertEqual(storage._database.execute("PRAGMA freelist_count").fetchone(), left)

    def test_small_databases_keep_their_pages(self) -> None:
        """Pages that are soon needed again are not given back."""
        storage = self.open()
        tree, _ = storage.load(TICK)
        for create in (True, False):
            for number in range(200):
                tree.begin(0)
                if create:
                    tree.create(f"/{number}", bytes(3000), OPEN)
                else:
                    tree.delete(f"/{number}")
            keep(storage, tree)
        (before,) = storage._database.execute("PRAGMA page_count").fetchone()
        storage.tidy()
        self.assertFalse(storage.untidy)
        self.assertEqual(storage._database.execute("PRAGMA page_count").fetchone(), (before,))
