"""A database that has less than was acknowledged: refused, told how to continue, left as it is."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import sys
from types import FrameType
from typing import Any

import metamorphosis.zookeeper.storage
from metamorphosis.zookeeper.losses import LOG, SET_ASIDE
from metamorphosis.zookeeper.marker import FILE_NAME as MARKER
from metamorphosis.zookeeper.marker import SLOT_BYTES
from metamorphosis.zookeeper.opening import APPLICATION, PAGE_BYTES
from metamorphosis.zookeeper.storage import FILE_NAME, Storage, StorageError
from tests.unit.zookeeper.stored import TICK, StorageTestCase, contents, copied, grow

FRAME = 24 + PAGE_BYTES
LOG_HEADER = 32

EARLIER_RELEASE = f"""
    PRAGMA journal_mode = WAL;
    BEGIN;
    CREATE TABLE node (
        path TEXT PRIMARY KEY, data BLOB, acl TEXT,
        czxid INTEGER, ctime INTEGER, mzxid INTEGER, mtime INTEGER, pzxid INTEGER,
        version INTEGER, creates INTEGER, aversion INTEGER, owner INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE session (id INTEGER PRIMARY KEY, password BLOB, timeout INTEGER);
    CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
    CREATE TABLE probe (space BLOB);
    PRAGMA application_id = {APPLICATION};
    PRAGMA user_version = 1;
    INSERT INTO state VALUES ('zxid', 77);
    INSERT INTO node VALUES ('/', X'', NULL, 0, 0, 0, 0, 1, 0, 2, 0, 0);
    INSERT INTO node VALUES ('/a', X'01', '[[1, "world", "anyone"]]', 3, 4, 5, 6, 7, 8, 9, 10, 0);
    INSERT INTO node VALUES ('/e', NULL, NULL, 3, 4, 5, 6, 7, 8, 9, 10, 5);
    INSERT INTO session VALUES (5, X'000102030405060708090A0B0C0D0E0F', 4000);
    COMMIT;
"""
"""What releases without a marker made."""


class LossTests(StorageTestCase):
    """What a directory holds that was killed after six batches, and what is done to it then."""

    def setUp(self) -> None:
        super().setUp()
        running = os.path.join(self.directory, "running")
        os.mkdir(running)
        storage = self.open(running)
        tree, _ = storage.load(TICK)
        grow(storage, tree, "abcdef")
        self.killed = copied(running, os.path.join(self.directory, "killed"))
        self.path = os.path.join(self.killed, FILE_NAME)
        self.assertGreater(os.path.getsize(self.path + LOG), 6 * FRAME)

    def refused(self, *texts: str) -> None:
        """A start is refused with these texts in its line, and changes no file."""
        before = contents(self.killed)
        for _ in range(2):
            with self.assertRaises(StorageError) as raised:
                self.open(self.killed)
            text = str(raised.exception)
            self.assertNotIn("\n", text)
            for each in (self.path, "--accept-loss", *texts):
                self.assertIn(each, text)
            self.assertEqual(contents(self.killed), before)

    def accepted(self) -> Storage:
        """The loss is accepted once; the next start needs no option."""
        storage = self.open(self.killed, accept_loss=True)
        self.assertIsNotNone(storage.accepted)
        storage.load(TICK)
        storage.close()
        again = self.open(self.killed)
        self.assertIsNone(again.accepted)
        return again

    def names(self, storage: Storage) -> str:
        """The nodes under the root."""
        names = storage.load(TICK)[0].nodes["/"].children
        return "".join(sorted(set(names) - {"zookeeper"}))

    def test_nothing_is_missing(self) -> None:
        """A database that was killed is a good one, with the option, too."""
        self.assertEqual(self.names(self.open(self.killed)), "abcdef")
        storage = self.open(self.killed, accept_loss=True)
        self.assertIsNone(storage.accepted)
        self.assertEqual(self.names(storage), "abcdef")

    def test_empty_database(self) -> None:
        """sqlite would delete the log beside it and begin with an empty tree."""
        os.truncate(self.path, 0)
        self.refused("it is empty", "zxid 0x6")
        with open(self.path + LOG, "rb") as file:
            log = file.read()
        self.assertEqual(self.names(self.accepted()), "")
        with open(self.path + LOG + SET_ASIDE, "rb") as file:
            self.assertEqual(file.read(), log)

    def test_no_database(self) -> None:
        """The same without the file."""
        os.remove(self.path)
        self.refused("it is gone", "zxid 0x6")
        self.assertEqual(self.names(self.accepted()), "")

    def test_neither_database_nor_log(self) -> None:
        """Only the marker has the acknowledged zxid."""
        os.remove(self.path)
        os.remove(self.path + LOG)
        self.refused("it is gone", "zxid 0x6")
        self.assertEqual(self.names(self.accepted()), "")

    def test_no_log(self) -> None:
        """The log was taken for something that may be removed."""
        os.remove(self.path + LOG)
        self.refused("zxid 0x6")
        self.assertEqual(self.names(self.accepted()), "")

    def test_empty_database_of_an_earlier_release(self) -> None:
        """Without a marker the log beside it tells."""
        os.remove(os.path.join(self.killed, MARKER))
        os.truncate(self.path, 0)
        self.refused("it is empty", "-wal")

    def test_damaged_frames(self) -> None:
        """A bit of any frame of the log: what follows it is missing, and that is noticed."""
        with open(self.path + LOG, "rb") as file:
            good = file.read()
        chance = random.Random(5)
        frames = (len(good) - LOG_HEADER) // FRAME
        self.assertGreater(frames, 6)
        for frame in range(frames):
            data = bytearray(good)
            at = LOG_HEADER + frame * FRAME + chance.choice((0, 4, 8, 16, chance.randrange(FRAME)))
            data[at] ^= 1 << chance.randrange(8)
            with open(self.path + LOG, "wb") as file:
                file.write(data)
            self.refused("zxid 0x6 were acknowledged")
        with open(self.path + LOG, "wb") as file:
            file.write(good)
        self.assertEqual(self.names(self.open(self.killed)), "abcdef")

    def test_accepting_a_damaged_frame(self) -> None:
        """The changes before it are kept, and a copy of the whole log stays."""
        with open(self.path + LOG, "r+b") as file:
            file.seek(-FRAME, os.SEEK_END)
            file.write(b"\xff" * 8)
        self.refused("it ends with zxid 0x5")
        with open(self.path + LOG, "rb") as file:
            log = file.read()
        self.assertEqual(self.names(self.accepted()), "abcde")
        with open(self.path + LOG + SET_ASIDE, "rb") as file:
            self.assertEqual(file.read(), log)

    def test_backup(self) -> None:
        """A copy that is older: refused, accepted once, and refused again when it is put back once
        more."""
        storage = self.open(self.killed)
        backup = os.path.join(self.directory, "backup")
        with sqlite3.connect(backup) as target:
            storage._database.backup(target)
        target.close()
        tree, _ = storage.load(TICK)
        grow(storage, tree, "gh")
        storage.close()
        shutil.copyfile(backup, self.path)
        self.refused("it ends with zxid 0x6", "zxid 0x8")
        storage = self.accepted()
        tree, _ = storage.load(TICK)
        self.assertEqual(tree.zxid, 6)
        grow(storage, tree, "i")
        storage.close()
        self.assertEqual(self.names(self.open(self.killed)), "abcdefi")
        self.storages.pop().close()
        shutil.copyfile(backup, self.path)
        self.refused("it ends with zxid 0x6", "zxid 0x7")

    def test_backup_without_marker(self) -> None:
        """After all files were removed and a backup was put there, no option is needed."""
        storage = self.open(self.killed)
        backup = os.path.join(self.directory, "backup")
        with sqlite3.connect(backup) as target:
            storage._database.backup(target)
        target.close()
        storage.close()
        for name in os.listdir(self.killed):
            os.remove(os.path.join(self.killed, name))
        shutil.copyfile(backup, self.path)
        self.assertEqual(self.names(self.open(self.killed)), "abcdef")

    def test_another_database(self) -> None:
        """One of another directory, whatever its zxid."""
        other = os.path.join(self.directory, "other")
        os.mkdir(other)
        storage = self.open(other)
        tree, _ = storage.load(TICK)
        grow(storage, tree, "klmnopqrst")
        storage.close()
        os.remove(self.path + LOG)
        shutil.copyfile(os.path.join(other, FILE_NAME), self.path)
        self.refused("another database")
        self.assertEqual(self.names(self.accepted()), "klmnopqrst")

    def damage_marker(self, *slots: int) -> None:
        """Write over them."""
        with open(os.path.join(self.killed, MARKER), "r+b") as file:
            for slot in slots:
                file.seek(slot * SLOT_BYTES)
                file.write(b"\xff" * 100)

    def test_one_slot_of_the_marker(self) -> None:
        """One slot that is torn, either one, leaves the other, and the database is good."""
        for slot in (0, 1):
            shutil.copytree(self.killed, f"{self.killed}-{slot}")
            self.damage_marker(slot)
            storage = self.open(self.killed)
            self.assertEqual(self.names(storage), "abcdef")
            storage.close()
            shutil.rmtree(self.killed)
            os.rename(f"{self.killed}-{slot}", self.killed)

    def test_damaged_marker(self) -> None:
        """The acknowledged zxid is unknown."""
        self.damage_marker(0, 1)
        self.refused(f"{MARKER} is damaged")
        self.assertEqual(self.names(self.accepted()), "abcdef")

    def test_empty_marker(self) -> None:
        """It was never empty."""
        os.truncate(os.path.join(self.killed, MARKER), 0)
        self.refused(f"{MARKER} is damaged")

    def test_earlier_release(self) -> None:
        """A database of a release without marker is good, gets one, and can shrink."""
        os.mkdir(os.path.join(self.directory, "earlier"))
        earlier = os.path.join(self.directory, "earlier")
        database = sqlite3.connect(os.path.join(earlier, FILE_NAME), isolation_level=None)
        database.executescript(EARLIER_RELEASE)
        database.close()
        storage = self.open(earlier)
        tree, sessions = storage.load(TICK)
        self.assertEqual(tree.zxid, 77)
        node = tree.nodes["/a"]
        numbers = node.czxid, node.ctime, node.mzxid, node.mtime, node.pzxid
        self.assertEqual((node.data, numbers), (b"\1", (3, 4, 5, 6, 7)))
        self.assertEqual((node.version, node.creates, node.aversion), (8, 9, 10))
        self.assertEqual(node.acl, ((1, "world", "anyone"),))
        self.assertEqual(tree.ephemerals, {5: {"/e"}})
        self.assertEqual(
            (sessions.by_id[5].password, sessions.by_id[5].timeout), (bytes(range(16)), 4000)
        )
        self.assertEqual(storage._database.execute("PRAGMA auto_vacuum").fetchone(), (2,))
        storage.close()
        os.truncate(os.path.join(earlier, FILE_NAME), 0)
        with self.assertRaises(StorageError) as raised:
            self.open(earlier)
        self.assertIn("zxid 0x4d", str(raised.exception))

    def test_not_a_marker_of_a_directory(self) -> None:
        """A marker that cannot be read is the disk's fault, not the database's."""
        path = os.path.join(self.killed, MARKER)
        os.remove(path)
        os.mkdir(path)
        with self.assertRaises(StorageError) as raised:
            self.open(self.killed)
        self.assertNotIn("backup", str(raised.exception))


class KillTests(StorageTestCase):
    """Kill -9 at every line of the code that touches the files."""

    def test_every_moment(self) -> None:
        """Whenever the process ends, the next start takes the files, and they have what had been
        acknowledged."""
        running = os.path.join(self.directory, "running")
        os.mkdir(running)
        moments: list[tuple[dict[str, bytes], int, str]] = []
        seen = acknowledged = 0
        files = os.path.dirname(metamorphosis.zookeeper.storage.__file__)

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            """Keep what a kill would leave now."""
            if not frame.f_code.co_filename.startswith(files):
                return None
            name = os.path.basename(frame.f_code.co_filename)
            if name not in ("opening.py", "marker.py", "storage.py", "losses.py"):
                return None
            nonlocal seen
            if event in ("line", "return"):
                seen += 1
                now = contents(running)
                if not moments or moments[-1][:2] != (now, acknowledged):
                    target = os.path.join(self.directory, f"killed-{len(moments)}")
                    moments.append((now, acknowledged, copied(running, target)))
            return trace

        former = sys.gettrace()
        for names in ("abc", "de"):
            sys.settrace(trace)
            try:
                storage = Storage(running)
                tree, _ = storage.load(TICK)
                for name in names:
                    grow(storage, tree, name)
                    acknowledged = tree.zxid
                    storage.tidy()
                storage.close()
            finally:
                sys.settrace(former)
        self.assertGreater(seen, 200)
        self.assertGreater(len(moments), 20)
        for _, zxid, directory in moments:
            survivor = Storage(directory)
            found, _ = survivor.load(TICK)
            survivor.close()
            self.assertGreaterEqual(found.zxid, zxid, directory)
            shutil.rmtree(directory)
