"""
The promises of every ``IOffsetStore`` (client.md 11, rows 72 to 74). Stores that need a server run
the same tests in ``tests.integration.test_offset_stores``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyClass, verifyObject

from metamorphosis.client.model import Partition, StoredOffset
from metamorphosis.client.offsets.localfile import LocalFileOffsetStore
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore, parse_offset
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import InvalidConfig, OffsetStoreError, RegistryUnavailable
from metamorphosis.interfaces import IOffsetStore
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.testing.runtime import MemoryRuntime

P0, P1 = Partition(0, 0), Partition(0, 1)


def stored(offset: int, message_id: int = -1, **where: Any) -> StoredOffset:
    """An offset in partition 0-0 of ``test``, unless ``topic`` or ``partition`` say otherwise."""
    return StoredOffset(where.get("topic", "test"), where.get("partition", P0), offset, message_id)


class OffsetStoreContract:
    """
    The promises. A subclass says how a store is made; it keeps ``group`` for itself.

    :ivar group: of this test.
    """

    group = "g"

    async def make_store(self) -> Any:
        """Another view of the same store, ready."""
        raise AssertionError("subclasses say how")

    async def test_provides(self) -> None:
        """The object and its class have every method with the interface's signature."""
        store = await self.make_store()
        verifyObject(IOffsetStore, store)
        verifyClass(IOffsetStore, type(store))

    async def test_nothing_stored(self) -> None:
        """A partition that was never committed has no offset."""
        store = await self.make_store()
        self.assertIsNone(await store.load("test", self.group, P0))

    async def test_commit_and_load(self) -> None:
        """Offset and message id are returned; ids may be negative, offsets as large as the type
        allows."""
        store = await self.make_store()
        for offset, message_id in (
            (26, -5468924757061664768),
            (0, -1),
            (999, 100),
            (MAX_OFFSET, MAX_OFFSET),
            (130835445, -(1 << 63)),
        ):
            await store.commit(self.group, [stored(offset, message_id)])
            found = await store.load("test", self.group, P0)
            self.assertEqual(stored(offset, message_id), found)

    async def test_several_in_one_commit(self) -> None:
        """Row 73: several topics and partitions at once, each where it belongs."""
        store = await self.make_store()
        offsets = [
            stored(10, 1),
            stored(20, 2, partition=P1),
            stored(30, 3, topic="other"),
            stored(40, 4, topic="other", partition=Partition(12, 34)),
        ]
        await store.commit(self.group, offsets)
        for each in offsets:
            self.assertEqual(each, await store.load(each.topic, self.group, each.partition))

    async def test_others_stay(self) -> None:
        """A commit does not change other entries, of this group or of others."""
        store = await self.make_store()
        other = f"{self.group}-other"
        await store.commit(other, [stored(5, 5)])
        await store.commit(self.group, [stored(10, 1), stored(20, 2, partition=P1)])
        await store.commit(self.group, [stored(30, 3, partition=P1)])
        self.assertEqual(stored(10, 1), await store.load("test", self.group, P0))
        self.assertEqual(stored(30, 3, partition=P1), await store.load("test", self.group, P1))
        self.assertEqual(stored(5, 5), await store.load("test", other, P0))

    async def test_names_differ_in_case(self) -> None:
        """``test`` and ``Test`` are two topics, and groups likewise."""
        store = await self.make_store()
        await store.commit(self.group, [stored(10, 1), stored(20, 2, topic="Test")])
        await store.commit(self.group.upper(), [stored(30, 3)])
        self.assertEqual(10, (await store.load("test", self.group, P0)).offset)
        self.assertEqual(20, (await store.load("Test", self.group, P0)).offset)
        self.assertEqual(30, (await store.load("test", self.group.upper(), P0)).offset)

    async def test_empty_commit(self) -> None:
        """Nothing to store changes nothing."""
        store = await self.make_store()
        await store.commit(self.group, [stored(10, 1)])
        await store.commit(self.group, [])
        self.assertEqual(stored(10, 1), await store.load("test", self.group, P0))

    async def test_backwards(self) -> None:
        """A smaller offset replaces a larger one: an operator may have set it back."""
        store = await self.make_store()
        await store.commit(self.group, [stored(1000, 9)])
        await store.commit(self.group, [stored(10, 1)])
        self.assertEqual(stored(10, 1), await store.load("test", self.group, P0))

    async def test_initialise(self) -> None:
        """Before ``initialise`` no position is stored; after two calls none or the given one,
        without an id."""
        store = await self.make_store()
        for _ in range(2):
            await store.initialise("test", self.group, P0, 77)
        self.assertIn(await store.load("test", self.group, P0), (None, stored(77)))
        await store.commit(self.group, [stored(999, 100)])
        self.assertEqual(stored(999, 100), await store.load("test", self.group, P0))

    async def test_initialise_replaces_nothing(self) -> None:
        """``initialise`` does not replace a stored position."""
        store = await self.make_store()
        await store.commit(self.group, [stored(999, 100)])
        await store.initialise("test", self.group, P0, 0)
        self.assertEqual(stored(999, 100), await store.load("test", self.group, P0))

    async def test_another_view(self) -> None:
        """A second store loads the commits of the first; closing the first has no effect on it."""
        store = await self.make_store()
        await store.commit(self.group, [stored(10, 1)])
        await store.close()
        again = await self.make_store()
        self.assertEqual(stored(10, 1), await again.load("test", self.group, P0))


class MemoryContract(OffsetStoreContract, TestCase):
    """``MemoryOffsetStore``."""

    def setUp(self) -> None:
        """One for the whole process of the test."""
        self.store = MemoryOffsetStore()

    async def make_store(self) -> Any:
        """The same."""
        return self.store


class ZooKeeperContract(OffsetStoreContract, TestCase):
    """``ZooKeeperOffsetStore`` on a ``MemoryTree``."""

    def setUp(self) -> None:
        """An empty ZooKeeper."""
        self.tree = MemoryTree()
        self.registry = MemoryRegistry(self.tree)
        self.registry.start()
        self.path = Paths().offset("g", "test", "0-0")

    async def make_store(self) -> Any:
        """Another store on the same registry."""
        return ZooKeeperOffsetStore(self.registry, Paths())

    async def test_format(self) -> None:
        """Row 72: a persistent node with ``<msgId>-<offset>``."""
        store = await self.make_store()
        await store.commit("g", [stored(26, -5468924757061664768)])
        node = self.tree.nodes[self.path]
        self.assertEqual((b"-5468924757061664768-26", 0), (node.data, node.owner))

    async def test_initialise_writes_nothing(self) -> None:
        """Row 72: no node before the first commit, for Java fails at one without a number."""
        store = await self.make_store()
        await store.initialise("test", "g", P0, 0)
        self.assertEqual(["/"], list(self.tree.nodes))

    async def test_values_of_others(self) -> None:
        """Row 72: values written by Java, its tools and old clients."""
        store = await self.make_store()
        self.tree.create(self.path, None, 0)
        for text, message_id, offset in (
            (b"1374246091000-2048", 1374246091000, 2048),
            (b"-1-0", -1, 0),
            (b"-5468924757061664768-26", -5468924757061664768, 26),
            (b"661", -1, 661),
            (b"0-130835445", 0, 130835445),
        ):
            self.tree.set_data(self.path, text)
            self.assertEqual(stored(offset, message_id), await store.load("test", "g", P0))

    async def test_no_value(self) -> None:
        """No data and empty data both mean no position; the original fails at empty data."""
        store = await self.make_store()
        self.tree.create(self.path, None, 0)
        self.assertIsNone(await store.load("test", "g", P0))
        self.tree.set_data(self.path, b"")
        self.assertIsNone(await store.load("test", "g", P0))

    async def test_garbage(self) -> None:
        """Other content is an error that names the path and the right form."""
        store = await self.make_store()
        self.tree.create(self.path, b"x", 0)
        for text in (b"abc", b"12-", b"--3", b"1-2-3-x", b"1.5-3", "\u0661".encode(), b"\xff"):
            self.tree.set_data(self.path, text)
            with self.assertRaises(OffsetStoreError) as caught:
                await store.load("test", "g", P0)
            self.assertIn(self.path, str(caught.exception))
            self.assertIn("<msgId>-<offset>", str(caught.exception))
        self.tree.set_data(self.path, b"x" * 5000)
        with self.assertRaises(OffsetStoreError) as caught:
            await store.load("test", "g", P0)
        self.assertLess(len(str(caught.exception)), 300)

    def test_parse_rule(self) -> None:
        """The last hyphen parts, unless it is the first character."""
        self.assertEqual((-1, -5), parse_offset("-5"))
        self.assertEqual((5, 3), parse_offset("5-3"))
        for text in ("", "-", "5-", "5--3", " 5"):
            self.assertRaises(ValueError, parse_offset, text)

    async def test_one_of_several_fails(self) -> None:
        """The error is raised after the others were written."""
        store = await self.make_store()
        self.registry.faults = lambda operation, path: (
            RegistryUnavailable("no") if path == self.path else None
        )
        with self.assertRaises(RegistryUnavailable):
            await store.commit("g", [stored(1), stored(2, partition=P1)])
        self.assertEqual(2, (await store.load("test", "g", P1)).offset)

    async def test_one_write(self) -> None:
        """A position that exists is written at once: it is committed every five seconds."""
        store = await self.make_store()
        await store.commit("g", [stored(1)])
        asked: list[tuple[str, str]] = []
        self.registry.faults = lambda operation, path: asked.append((operation, path))
        await store.commit("g", [stored(2)])
        self.assertEqual([("set_data", self.path)], asked)

    async def test_created_meanwhile(self) -> None:
        """Another client creates the node between our read and our create."""
        store = await self.make_store()

        def hurry(operation: str, path: str) -> None:
            if operation == "create" and path not in self.tree.nodes:
                self.tree.create(path, b"-1-5", 0)

        self.registry.faults = hurry
        await store.commit("g", [stored(10, 1)])
        self.assertEqual(b"1-10", self.tree.nodes[self.path].data)


class LocalFileContract(OffsetStoreContract, TestCase):
    """``LocalFileOffsetStore``."""

    def setUp(self) -> None:
        """A file that does not exist."""
        self.runtime = MemoryRuntime()
        self.path = Path(self.mktemp())

    async def make_store(self) -> Any:
        """Another store, as of another process."""
        return LocalFileOffsetStore(self.runtime, self.path)

    def content(self) -> Any:
        """Of the file."""
        return json.loads(self.path.read_bytes())

    async def test_format(self) -> None:
        """Row 74: the original's members, without flags of acknowledgement."""
        store = await self.make_store()
        await store.commit("g", [stored(123, 77, topic="t", partition=P1)])
        self.assertEqual(
            {
                "g": [
                    {
                        "topic": "t",
                        "partition": {"brokerId": 0, "partition": 1},
                        "offset": 123,
                        "messageId": 77,
                        "modified": False,
                    }
                ]
            },
            self.content(),
        )
        self.assertNotIn(b"\n", self.path.read_bytes())

    async def test_old_file(self) -> None:
        """Row 74: files with flags, without message ids, with line breaks anywhere."""
        self.path.write_text(
            '{"test-grp":[{"topic":"te\nst","partition":{"brokerId":100,"partition":0,'
            '"acked":false,"rollback":true,"autoAck":true},"offset":0},'
            '\r\n{"offset":"130835445","modified":true,'
            '"topic":"test","partition":{"partition":0,"brokerId":101}}],"empty":null}'
        )
        store = await self.make_store()
        for broker_id, offset in ((100, 0), (101, 130835445)):
            partition = Partition(broker_id, 0)
            found = await store.load("test", "test-grp", partition)
            self.assertEqual(stored(offset, partition=partition), found)
        self.assertIsNone(await store.load("test", "empty", P0))

    async def test_unknown_members_stay(self) -> None:
        """A commit leaves the entries of others exactly as they were."""
        entry = {"topic": "t", "partition": {"brokerId": 0, "partition": 9}, "offset": 5, "new": []}
        self.path.write_text(json.dumps({"g": [entry], "h": [entry]}))
        store = await self.make_store()
        await store.commit("g", [stored(10, 1)])
        self.assertEqual([entry], self.content()["h"])
        self.assertEqual(entry, self.content()["g"][0])
        self.assertEqual(2, len(self.content()["g"]))

    async def test_two_stores_on_one_file(self) -> None:
        """Neither store overwrites the commits of the other."""
        first, second = await self.make_store(), await self.make_store()
        await first.commit("g", [stored(10, 1)])
        await second.commit("g", [stored(20, 2, partition=P1)])
        await first.commit("h", [stored(30, 3)])
        self.assertEqual(20, (await first.load("test", "g", P1)).offset)
        self.assertEqual(30, (await second.load("test", "h", P0)).offset)

    async def test_made_when_missing(self) -> None:
        """An empty file holds no offsets."""
        store = await self.make_store()
        self.assertEqual(b"", self.path.read_bytes())
        self.assertIsNone(await store.load("test", "g", P0))

    async def test_removed_meanwhile(self) -> None:
        """After the file is removed there are no offsets."""
        store = await self.make_store()
        await store.commit("g", [stored(10, 1)])
        self.path.unlink()
        self.assertIsNone(await store.load("test", "g", P0))
        await store.commit("g", [stored(20, 2)])
        self.assertEqual(20, (await store.load("test", "g", P0)).offset)

    async def test_broken_file(self) -> None:
        """Unreadable content is an error that names the file, and is not overwritten."""
        store = await self.make_store()
        for text in (
            "{",
            "[]",
            '{"g":[{"topic":"test"}]}',
            '{"g":[7]}',
            '{"g":[{"topic":"t","partition":{"brokerId":0,"partition":"x"},"offset":0}]}',
        ):
            self.path.write_text(text)
            for asked in (
                store.load("test", "g", P0),
                store.commit("g", [stored(10, 1)]),
            ):
                with self.assertRaises(OffsetStoreError) as caught:
                    await asked
                self.assertIn(str(self.path), str(caught.exception))
            self.assertEqual(text, self.path.read_text())

    async def test_other_charsets(self) -> None:
        """Java wrote in the charset of its machine."""
        for charset in ("utf-8", "utf-8-sig", "gbk"):
            place = '"partition":{"brokerId":0,"partition":0},"offset":5'
            text = f'{{"\u7ec4":[{{"topic":"\u4e3b\u9898",{place}}}]}}'
            self.path.write_bytes(text.encode(charset))
            store = await self.make_store()
            found = await store.load("\u4e3b\u9898", "\u7ec4", P0)
            self.assertEqual(5, found.offset, charset)

    async def test_power_failure(self) -> None:
        """The new file is whole on the disk before it takes the place of the old one."""
        store = await self.make_store()
        await store.commit("g", [stored(1)])
        before, steps = self.path.read_bytes(), []
        fsync = os.fsync

        def sync(descriptor: int) -> None:
            where = os.readlink(f"/proc/self/fd/{descriptor}")
            is_file = os.path.isfile(where)
            steps.append(Path(where).read_bytes() if is_file else "directory")
            if is_file:
                self.assertEqual(before, self.path.read_bytes())
            fsync(descriptor)

        self.patch(os, "fsync", sync)
        await store.commit("g", [stored(1000)])
        self.assertEqual([self.path.read_bytes(), "directory"], steps)
        self.assertNotEqual(before, self.path.read_bytes())

    def test_impossible_file(self) -> None:
        """A missing directory is an error at once."""
        path = self.path / "below" / "offsets"
        error = self.assertRaises(InvalidConfig, LocalFileOffsetStore, self.runtime, path)
        self.assertIn(str(path), str(error))

    async def test_default_path(self) -> None:
        """The original's, in the home directory."""
        home = self.path
        home.mkdir()
        self.patch(os, "environ", {**os.environ, "HOME": str(home)})
        store = LocalFileOffsetStore(self.runtime)
        await store.commit("g", [stored(10, 1)])
        self.assertTrue((home / ".meta_offsets").exists())

    async def test_replaced_at_once(self) -> None:
        """The file is replaced atomically: a failed write leaves the old one, and no temporary
        file."""
        store = await self.make_store()
        await store.commit("g", [stored(10, 1)])

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", full)
        with self.assertRaises(OffsetStoreError) as caught:
            await store.commit("g", [stored(20, 2)])
        self.assertIn("No space left", str(caught.exception))
        self.assertEqual(10, (await store.load("test", "g", P0)).offset)
        files = [path.name for path in self.path.parent.glob(f"{self.path.name}*")]
        self.assertEqual([self.path.name, f"{self.path.name}.lock"], sorted(files))

    async def test_closed(self) -> None:
        """After ``close`` every call is an error; closing again is not."""
        store = await self.make_store()
        await store.close()
        await store.close()
        with self.assertRaises(OffsetStoreError):
            await store.load("test", "g", P0)

    async def test_held_lock(self) -> None:
        """A lock that is never released is an error after a time limit."""
        import fcntl

        from metamorphosis.client.offsets import localfile

        store = await self.make_store()
        self.patch(localfile, "LOCK_SECONDS", 0.0)
        with open(f"{self.path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self.assertRaises(OffsetStoreError) as caught:
                await store.commit("g", [stored(10, 1)])
        self.assertIn(".lock", str(caught.exception))
        await store.commit("g", [stored(10, 1)])
