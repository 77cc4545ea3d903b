"""The table of nodes: each path has one row, created nodes lie side by side, older tables."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.acl import OPEN
from metamorphosis.zookeeper.losses import LOG
from metamorphosis.zookeeper.nodes import Node
from metamorphosis.zookeeper.nodetable import NodeTable
from metamorphosis.zookeeper.opening import PAGE_BYTES, VERSION
from metamorphosis.zookeeper.rows import COLUMNS, BadRow
from metamorphosis.zookeeper.storage import StorageError
from tests.unit.zookeeper.stored import TICK, StorageTestCase, grow, keep

FRAME = 24 + PAGE_BYTES


def node(data: bytes = b"") -> Node:
    """A node with nothing of note."""
    return Node(data, OPEN, 1, 0, 1, 0, 1)


class RowTests(SynchronousTestCase):
    """The rows of paths, whatever happens to their nodes."""

    def setUp(self) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(self.database.close)
        columns = ", ".join(COLUMNS["node"][1:])
        self.database.execute(f"CREATE TABLE node (id INTEGER PRIMARY KEY, {columns})")
        self.table = NodeTable(self.database)

    def rows(self) -> list[tuple[int, str, bytes]]:
        """Id, path and data of every row."""
        return self.database.execute("SELECT id, path, data FROM node ORDER BY id").fetchall()

    def test_order_of_creation(self) -> None:
        """Rows are numbered as nodes are created, wherever their paths sort."""
        self.table.write({"/c": node(), "/a": node()})
        self.table.write({"/b": node()})
        self.assertEqual([row[1] for row in self.rows()], ["/c", "/a", "/b"])
        self.assertEqual(list(self.table.load()), ["/c", "/a", "/b"])

    def test_a_change_keeps_the_row(self) -> None:
        """Before and after a restart."""
        self.table.write({"/a": node(), "/b": node()})
        self.table.write({"/a": node(b"1")})
        self.assertEqual(self.rows(), [(1, "/a", b"1"), (2, "/b", b"")])
        table = NodeTable(self.database)
        table.load()
        table.write({"/b": node(b"2")})
        self.assertEqual(self.rows(), [(1, "/a", b"1"), (2, "/b", b"2")])

    def test_numbers_go_on(self) -> None:
        """A node that is created after a restart takes the row of no other."""
        self.table.write({"/a": node(), "/b": node(), "/c": node()})
        self.table.write({"/b": None})
        table = NodeTable(self.database)
        table.load()
        table.write({"/d": node()})
        self.assertEqual([row[1] for row in self.rows()], ["/a", "/c", "/d"])

    def test_removed_and_created_anew(self) -> None:
        """One row, of the new node; a path that never had a row may be removed, too."""
        self.table.write({"/a": node(b"1"), "/b": node()})
        self.table.write({"/a": None, "/never": None})
        self.assertEqual([row[1] for row in self.rows()], ["/b"])
        self.table.write({"/a": node(b"2")})
        self.assertEqual([row[1:] for row in self.rows()], [("/b", b""), ("/a", b"2")])

    def test_batch_that_was_rolled_back(self) -> None:
        """What it removed can be removed or changed again, what it created created again."""
        self.table.write({"/a": node(), "/b": node()})
        for _ in range(2):
            self.database.execute("BEGIN")
            self.table.write({"/a": None, "/b": None, "/c": node()})
            self.database.execute("ROLLBACK")
            self.table.rolled_back()
        self.table.write({"/a": node(b"1"), "/b": None, "/c": node(b"3")})
        self.assertEqual([row[1:] for row in self.rows()], [("/a", b"1"), ("/c", b"3")])

    def test_path_of_two_rows(self) -> None:
        """A table that was edited is refused: which of the two would count is not known."""
        self.table.write({"/a": node(), "/b": node()})
        self.database.execute("UPDATE node SET path = '/a'")
        error = self.assertRaises(BadRow, self.table.load)
        self.assertEqual(str(error), "table node, id 2, column path: '/a' is not unique")


class RollBackTests(StorageTestCase):
    """The storage tells the table that a batch was rolled back."""

    def test_refused_removal(self) -> None:
        """The row that stays is still known as that of its path."""
        storage = self.open()
        tree, _ = storage.load(TICK)
        grow(storage, tree, "a")
        storage.begin()
        storage.write({"/a": None}, {}, 2)
        storage._database.execute("ROLLBACK")
        self.assertRaises(sqlite3.Error, storage.commit)
        storage.begin()
        storage.write({"/a": node(b"new")}, {}, 3)
        storage.commit()
        found, _ = self.restarted().load(TICK)
        self.assertEqual(found.nodes["/a"].data, b"new")

    def test_failed_shrinking(self) -> None:
        """It is none of the last batch, whose removed rows stay removed."""
        storage = self.open()
        tree, _ = storage.load(TICK)
        grow(storage, tree, "ab")
        storage.begin()
        storage.write({"/a": None}, {}, 2)
        storage.commit()
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        storage._shrink()
        other.execute("ROLLBACK")
        storage.begin()
        storage.write({"/a": node()}, {}, 3)
        storage.commit()
        self.assertEqual(list(self.restarted().load(TICK)[0].nodes)[-2:], ["/b", "/a"])


class PageTests(StorageTestCase):
    """The pages that a batch writes."""

    def test_nodes_of_many_parents(self) -> None:
        """Sixteen nodes below sixteen parents fill pages one after the other: 16 rows of 100 bytes
        in two or three, with theirs of the parents, and the zxid."""
        storage = self.open()
        tree, _ = storage.load(TICK)
        for parent in range(16):
            tree.begin(0)
            tree.create(f"/{parent}", b"", OPEN)
        keep(storage, tree)
        for number in range(100):
            for parent in range(16):
                tree.begin(0)
                tree.create(f"/{parent}/{number}", bytes(50), OPEN)
            keep(storage, tree)
        before = os.path.getsize(self.path + LOG)
        for parent in range(16):
            tree.begin(0)
            tree.create(f"/{parent}/last", bytes(50), OPEN)
        keep(storage, tree)
        self.assertLessEqual((os.path.getsize(self.path + LOG) - before) // FRAME, 10)


class FormerTableTests(StorageTestCase):
    """Databases of releases that sorted nodes by path."""

    def edit(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements as another program would; returns what the last one finds."""
        database = sqlite3.connect(self.path, isolation_level=None)
        found: list[tuple[object, ...]] = []
        for statement in statements:
            found = database.execute(statement).fetchall()
        database.close()
        return found

    def former(self, data: bytes = b"data") -> None:
        """Make the database one of format 1, with three nodes more."""
        storage = self.open()
        tree, _ = storage.load(TICK)
        grow(storage, tree, "cab", data)
        storage.close()
        self.edit(
            "ALTER TABLE node RENAME TO later",
            "CREATE TABLE node (path TEXT PRIMARY KEY, data BLOB, acl TEXT, czxid INTEGER,"
            " ctime INTEGER, mzxid INTEGER, mtime INTEGER, pzxid INTEGER, version INTEGER,"
            " creates INTEGER, aversion INTEGER, owner INTEGER) WITHOUT ROWID",
            f"INSERT INTO node SELECT {', '.join(COLUMNS['node'][1:])} FROM later",
            "DROP TABLE later",
            "PRAGMA user_version = 1",
        )

    def test_rewritten(self) -> None:
        """Nodes and zxid are as they were; a release of format 1 would refuse it."""
        self.former()
        storage = self.open()
        self.assertEqual(storage._database.execute("PRAGMA user_version").fetchone(), (VERSION,))
        tree, _ = storage.load(TICK)
        self.assertEqual(tree.zxid, 3)
        self.assertEqual(tree.nodes["/c"].data, b"data")
        grow(storage, tree, "d")
        found = self.restarted().load(TICK)[0]
        self.assertEqual(sorted(found.nodes["/"].children), ["a", "b", "c", "d", "zookeeper"])

    def test_edited(self) -> None:
        """One that has other columns is refused, and stays as it is."""
        self.former()
        self.edit("ALTER TABLE node ADD COLUMN more")
        error = self.assertRaises(StorageError, self.open)
        self.assertIn("table node has 13 columns but 14 values were supplied", str(error))
        self.edit("ALTER TABLE node DROP COLUMN more")
        self.assertIn("/c", self.open().load(TICK)[0].nodes)

    def test_no_room(self) -> None:
        """On a full disk it stays as it is, and is rewritten when there is room."""
        self.former(bytes(100_000))
        room = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, room)
        former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGXFSZ, former)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, room[1]))
        error = self.assertRaises(StorageError, self.open)
        self.assertIn("the disk, not the file", str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
        self.assertEqual(self.edit("PRAGMA user_version"), [(1,)])
        self.assertEqual(self.open().load(TICK)[0].nodes["/c"].data, bytes(100_000))
