"""
The contract of offset stores on a real ZooKeeper and a real MariaDB, and their own properties:
restart, hang, and shared rows with the original.
"""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from metamorphosis.client.model import Partition
from metamorphosis.client.offsets.mysql import DEFAULT_TABLE, MySQLOffsetStore
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore
from metamorphosis.client.runtimes.tx import TwistedRuntime
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.cluster.model import SessionEvent, SessionState
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import InvalidConfig, OffsetsNotStorable, OffsetStoreError
from tests.contract.test_offset_stores import P0, P1, OffsetStoreContract, stored
from tests.support import mariadb, zookeeper

_roots = itertools.count(1)

#: the documented table, with the columns as wide as they have to be
ORIGINAL_TABLE = """\
create table meta_topic_partition_group_offset (
  `id` int(11) not null auto_increment,
  `topic` varchar(255) not null,
  `partition` varchar(255) not null,
  `group_id` varchar(255) not null,
  `offset` bigint not null,
  `msg_id` bigint not null,
  primary key (`id`),
  key `TOPIC_PART_GRP_IDX` (`topic`,`partition`,`group_id`)
) engine=InnoDB default charset=utf8"""


class ZooKeeperStoreTests(OffsetStoreContract, TestCase):
    """``ZooKeeperOffsetStore`` on a server."""

    skip = zookeeper.missing()

    async def setUp(self) -> None:
        """A root of the test's own."""
        self.paths = Paths(f"/offsets-{next(_roots)}")
        runtime = TwistedRuntime(reactor)
        self.registry = runtime.registry(zookeeper.shared().connect_string, 10000)
        there: Deferred[None] = Deferred()

        def heard(event: SessionEvent) -> None:
            if event.state is SessionState.CONNECTED and not there.called:
                there.callback(None)

        self.registry.on_session(heard)
        self.addCleanup(self.registry.stop)
        await self.registry.start()
        await there

    async def make_store(self) -> Any:
        """Another store in the same session."""
        return ZooKeeperOffsetStore(self.registry, self.paths)


class MySQLCase(TestCase):
    """A database of the test's own, with the original's table."""

    skip = mariadb.missing()
    group = "g"

    def setUp(self) -> None:
        """The server is that of the whole process."""
        self.server = self.make_server()
        self.database = self.server.new_database()
        self.server.execute(ORIGINAL_TABLE, self.database)
        self.runtime = TwistedRuntime(reactor)

    def make_server(self) -> mariadb.MariaDBServer:
        """Shared."""
        return mariadb.shared()

    async def make_store(self, **options: Any) -> Any:
        """Another store on the same table, closed with the test."""
        arguments = self.server.arguments(self.database) | options
        store = MySQLOffsetStore(self.runtime, **arguments)
        self.addCleanup(lambda: Deferred.fromCoroutine(store.close()))
        return store

    def rows(self) -> list[Any]:
        """Everything in the table."""
        columns = "`topic`, `partition`, `group_id`, `offset`, `msg_id`"
        return self.server.execute(
            f"select {columns} from {DEFAULT_TABLE} order by `id`", self.database
        )

    def insert(self, group: str, offset: int, message_id: int = -1, topic: str = "test") -> None:
        """A row as the original makes it."""
        self.server.execute(
            f"insert into {DEFAULT_TABLE} (topic,`partition`,group_id,`offset`,msg_id)"
            f" values ('{topic}','0-0','{group}',{offset},{message_id})",
            self.database,
        )


class MySQLStoreTests(MySQLCase, OffsetStoreContract):
    """``MySQLOffsetStore`` (row 73)."""

    async def test_initialise_makes_the_row(self) -> None:
        """Row 73: the row has the group's own name, so that Java's updates find it; it is inserted
        once."""
        store = await self.make_store()
        for _ in range(2):
            await store.initialise("test", "g", P0, 77)
        self.assertEqual([("test", "0-0", "g", 77, -1)], self.rows())
        self.assertEqual(stored(77), await store.load("test", "g", P0))

    async def test_initialise_at_the_end(self) -> None:
        """A group that starts at the end has the largest offset."""
        store = await self.make_store()
        await store.initialise("test", "g", P0, MAX_OFFSET)
        self.assertEqual(stored(MAX_OFFSET), await store.load("test", "g", P0))

    async def test_missing_row_is_inserted(self) -> None:
        """A commit for a partition without a row inserts it; the original loses the commit."""
        store = await self.make_store()
        await store.commit("g", [stored(999, 100)])
        self.assertEqual([("test", "0-0", "g", 999, 100)], self.rows())

    async def test_unchanged_row(self) -> None:
        """A commit of unchanged values still finds its row."""
        store = await self.make_store()
        for _ in range(3):
            await store.commit("g", [stored(999, 100)])
        self.assertEqual(1, len(self.rows()))

    async def test_two_rows_of_the_original(self) -> None:
        """The table has no unique key: of duplicate rows all are updated."""
        self.insert("g", 0)
        self.insert("g", 0)
        store = await self.make_store()
        await store.commit("g", [stored(999, 100)])
        self.assertEqual([("test", "0-0", "g", 999, 100)] * 2, self.rows())

    async def test_rows_of_consumer_ids(self) -> None:
        """Rows that a defect of the original leaves are neither read nor changed."""
        row = ("test", "0-0", "g_10.0.0.1-7-1-1", 0, -1)
        self.insert(row[2], 0)
        store = await self.make_store()
        self.assertIsNone(await store.load("test", "g", P0))
        await store.commit("g", [stored(999, 100)])
        self.assertEqual([row, ("test", "0-0", "g", 999, 100)], self.rows())

    async def test_one_transaction(self) -> None:
        """A commit that fails halfway stores nothing."""
        store = await self.make_store()
        await store.commit("g", [stored(10, 1)])
        with self.assertRaises(OffsetStoreError) as caught:
            await store.commit("g", [stored(20, 2), stored(1 << 63, 3, partition=P1)])
        self.assertIn("offset", str(caught.exception))
        self.assertEqual(stored(10, 1), await store.load("test", "g", P0))

    async def test_hostile_names(self) -> None:
        """Names with quotes are stored as data."""
        store = await self.make_store()
        topic = "a';drop-table-x;--%s\\\u4e3b"
        await store.commit("g", [stored(10, 1, topic=topic)])
        self.assertEqual(10, (await store.load(topic, "g", P0)).offset)

    async def test_other_table(self) -> None:
        """A table of another name or database, made on request."""
        table = f"{self.database}.offsets"
        arguments = self.server.arguments() | {"unix_socket": self.server.socket}
        store = MySQLOffsetStore(self.runtime, table, **arguments)
        self.addCleanup(lambda: Deferred.fromCoroutine(store.close()))
        with self.assertRaises(OffsetStoreError) as caught:
            await store.load("test", "g", P0)
        self.assertIn("`offsets`", str(caught.exception))
        for _ in range(2):
            await store.create_table()
        await store.commit("g", [stored(MAX_OFFSET, -MAX_OFFSET)])
        self.assertEqual(MAX_OFFSET, (await store.load("test", "g", P0)).offset)

    def test_impossible_table(self) -> None:
        """Names that cannot be quoted are refused at once."""
        for table in ("", "a`b"):
            self.assertRaises(InvalidConfig, MySQLOffsetStore, self.runtime, table)

    async def test_wrong_password(self) -> None:
        """The error has the server's text."""
        store = await self.make_store(user="nobody", password="wrong")
        with self.assertRaises(OffsetStoreError) as caught:
            await store.load("test", "g", P0)
        self.assertIn("Access denied", str(caught.exception))

    async def test_closed(self) -> None:
        """After ``close`` every call is an error."""
        store = await self.make_store()
        await store.load("test", "g", P0)
        await store.close()
        with self.assertRaises(OffsetStoreError):
            await store.load("test", "g", P0)


class TableTests(MySQLCase):
    """Tables that cannot hold every value, on a strict server and on another one: ids do not
    matter, offsets do."""

    documented = ORIGINAL_TABLE.replace("bigint", "int(11)")
    large_id = 1_400_000_000_000_000_000

    def table(self, statement: str) -> None:
        """Replace the usual table."""
        self.server.execute(f"drop table {DEFAULT_TABLE}", self.database)
        self.server.execute(statement, self.database)

    async def make_lenient(self) -> Any:
        """A store whose server truncates values to the column's range."""
        return await self.make_store(sql_mode="NO_ENGINE_SUBSTITUTION")

    async def fails(self, outcome: Any, *texts: str) -> None:
        """The value cannot be stored, and the error has the statement that repairs the table."""
        with self.assertRaises(OffsetsNotStorable) as caught:
            await outcome
        for text in texts:
            self.assertIn(text, str(caught.exception))
        statement = str(caught.exception).partition("this statement mends it: ")[2]
        self.server.execute(statement, self.database)

    async def test_documented_table(self) -> None:
        """``int(11)``: an offset that fits is stored, with the id -1 if the id does not fit."""
        for make in (self.make_store, self.make_lenient):
            self.table(self.documented)
            store = await make()
            self.assertIsNone(await store.load("test", "g", P0))
            await store.initialise("test", "g", P0, 0)
            await store.commit("g", [stored(1000, self.large_id), stored(5, 7, partition=P1)])
            self.assertEqual(
                [("test", "0-0", "g", 1000, -1), ("test", "0-1", "g", 5, 7)], self.rows()
            )

    async def test_documented_table_beyond_two_gigabytes(self) -> None:
        """The error has the statement; the next attempt works."""
        for make in (self.make_store, self.make_lenient):
            self.table(self.documented)
            store = await make()
            await store.commit("g", [stored(10, 1)])
            await self.fails(
                store.commit("g", [stored(1 << 31, self.large_id)]), "2147483647", "alter table"
            )
            await store.commit("g", [stored(1 << 31, self.large_id)])
            self.assertEqual(stored(1 << 31, self.large_id), await store.load("test", "g", P0))

    async def test_start_that_does_not_fit(self) -> None:
        """The fault is found when the partition is claimed."""
        self.table(self.documented)
        store = await self.make_store()
        await self.fails(store.initialise("test", "g", P0, MAX_OFFSET), "`offset` bigint")
        await store.initialise("test", "g", P0, MAX_OFFSET)

    async def test_names_that_do_not_fit(self) -> None:
        """Truncated names would never be found, and be inserted with every commit: an error."""
        for make in (self.make_store, self.make_lenient):
            self.table(ORIGINAL_TABLE.replace("`group_id` varchar(255)", "`group_id` varchar(3)"))
            store = await make()
            await self.fails(store.initialise("test", "readers", P0, 5), "group_id", "varchar(255)")
            await store.initialise("test", "readers", P0, 5)
            self.assertEqual([("test", "0-0", "readers", 5, -1)], self.rows())

    async def test_names_in_another_alphabet(self) -> None:
        """A column of ``latin1`` cannot hold Chinese: an error."""
        for make in (self.make_store, self.make_lenient):
            self.table(ORIGINAL_TABLE.replace("charset=utf8", "charset=latin1"))
            store = await make()
            topic = "\u4e3b"
            await self.fails(
                store.initialise(topic, "g", P0, 5), "convert to character set utf8mb4"
            )
            await store.initialise(topic, "g", P0, 5)
            self.assertEqual(5, (await store.load(topic, "g", P0)).offset)

    async def test_id_without_increment(self) -> None:
        """The id column exists, and has no auto-increment."""
        self.table(ORIGINAL_TABLE.replace(" auto_increment", ""))
        store = await self.make_store()
        await self.fails(store.initialise("test", "g", P0, 5), "modify `id`")
        await store.initialise("test", "g", P0, 5)

    async def test_missing(self) -> None:
        """The table or a column is missing."""
        self.table(ORIGINAL_TABLE.replace("  `msg_id` bigint not null,\n", ""))
        store = await self.make_store()
        await self.fails(store.load("test", "g", P0), "add `msg_id` bigint")
        self.assertIsNone(await store.load("test", "g", P0))
        self.server.execute(f"drop table {DEFAULT_TABLE}", self.database)
        await self.fails(store.load("test", "g", P0), "create table")
        self.assertIsNone(await store.load("test", "g", P0))

    async def test_no_right_to_write(self) -> None:
        """The fault is found by the load, which only reads."""
        self.insert("g", 7)
        user = "'reader'@'127.0.0.1'"
        self.server.execute(f"create or replace user {user}")
        self.server.execute(f"grant select on {self.database}.* to {user}")
        store = await self.make_store(user="reader", password="")
        await self.fails(store.load("test", "g", P0), "denied", "grant select, insert, update")
        self.assertEqual(stored(7), await store.load("test", "g", P0))

    async def test_warning_of_a_narrow_table(self) -> None:
        """One warning, with the statement; a table that is wide enough has none."""
        lines: list[Any] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        store = await self.make_store()
        await store.load("test", "g", P0)
        self.assertEqual([], [formatEvent(each) for each in lines if "MySQL" in formatEvent(each)])
        self.table(self.documented)
        store = await self.make_store()
        for _ in range(2):
            await store.load("test", "g", P0)
        told = [formatEvent(each) for each in lines if "MySQL" in formatEvent(each)]
        self.assertEqual(1, len(told))
        self.assertIn("offsets above 2147483647 cannot be stored", told[0])


class MySQLFaultTests(MySQLCase):
    """The server restarts, is away, hangs."""

    def make_server(self) -> mariadb.MariaDBServer:
        """One for the test alone."""
        server = mariadb.MariaDBServer(self.mktemp())
        server.start()
        self.addCleanup(server.kill)
        return server

    async def test_restart(self) -> None:
        """A dead idle connection is replaced without an error."""
        store = await self.make_store()
        await store.commit("g", [stored(10, 1)])
        await deferToThread(self.server.stop)
        await deferToThread(self.server.start)
        await store.commit("g", [stored(20, 2)])
        self.assertEqual(stored(20, 2), await store.load("test", "g", P0))

    async def test_killed_and_away(self) -> None:
        """While the server is away every call fails soon; when it is back the next one works."""
        store = await self.make_store()
        await store.commit("g", [stored(10, 1)])
        await deferToThread(self.server.kill)
        for _ in range(2):
            with self.assertRaises(OffsetStoreError) as caught:
                await store.commit("g", [stored(20, 2)])
            self.assertIn("127.0.0.1", str(caught.exception))
        await deferToThread(self.server.start)
        await store.commit("g", [stored(20, 2)])
        self.assertEqual(stored(20, 2), await store.load("test", "g", P0))

    async def test_hanging(self) -> None:
        """With a hanging server calls end at the time limits, and work when it continues."""
        store = await self.make_store(read_timeout=0.5, connect_timeout=1)
        await store.commit("g", [stored(10, 1)])
        self.server.pause()
        self.addCleanup(lambda: self.server.process and self.server.resume())
        with self.assertRaises(OffsetStoreError):
            await store.commit("g", [stored(20, 2)])
        self.server.resume()
        await store.commit("g", [stored(30, 3)])
        self.assertEqual(stored(30, 3), await store.load("test", "g", P0))

    async def test_idle_connection_closed(self) -> None:
        """``wait_timeout`` of the server causes no error."""
        store = await self.make_store()
        await store.load("test", "g", P0)
        for row in self.server.execute("show processlist"):
            if row[3] == self.database:
                self.server.execute(f"kill {row[0]}")
        self.assertIsNone(await store.load("test", "g", Partition(3, 4)))
