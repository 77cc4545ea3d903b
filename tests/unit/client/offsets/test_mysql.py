"""
``MySQLOffsetStore`` with a server that is SQLite: the promises of every store, connections that
die, tables that are too narrow. Real servers are in ``integration.test_offset_stores``.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any, Self

import pymysql
from pymysql.constants import CLIENT
from twisted.trial.unittest import TestCase

from metamorphosis.client.offsets.mysql import MySQLOffsetStore
from metamorphosis.errors import OffsetsNotStorable, OffsetStoreError
from metamorphosis.testing.runtime import MemoryRuntime
from tests.contract.test_offset_stores import P0, P1, OffsetStoreContract, stored

_EXACT = re.compile(r"convert\((`\w+`) using utf8mb4\) collate utf8mb4_bin")


class Server:
    """
    One database.

    :ivar kind: of the columns offset and msg_id.
    :ivar connects: connections so far.
    :ivar closes: those that were closed.
    :ivar statements: what was executed.
    :ivar faults: raised by the next statements, one each.
    :ivar warnings: of every statement, as ``show warnings`` has them.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.kind = "bigint(20)"
        self.connects = self.closes = 0
        self.statements: list[str] = []
        self.faults: list[Exception] = []
        self.warnings: list[tuple[str, int, str]] = []
        self.run(
            "create table t (topic text, partition text, group_id text, offset int, msg_id int)"
        )

    def run(self, statement: str) -> list[Any]:
        """Beside all connections."""
        with sqlite3.connect(self.path) as database:
            return database.execute(statement).fetchall()

    def connect(self, **_: object) -> Connection:
        """In place of ``pymysql.connect``."""
        self.connects += 1
        return Connection(self)


class Connection:
    """A connection and its only cursor. What is not committed at its end is lost."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.database = sqlite3.connect(server.path, check_same_thread=False)
        self.found: list[Any] = []

    def cursor(self) -> Self:
        """Itself."""
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        pass

    @property
    def warning_count(self) -> int:
        """Of the last statement."""
        return len(self.server.warnings)

    def show_warnings(self) -> Sequence[tuple[str, int, str]]:
        """Of the last statement."""
        return self.server.warnings

    def execute(self, query: str, args: tuple[Any, ...] = ()) -> int:
        """The number of rows that it found."""
        self.server.statements.append(query)
        if self.server.faults:
            raise self.server.faults.pop(0)
        if query.startswith("show columns"):
            self.found = [("offset", self.server.kind), ("msg_id", self.server.kind)]
            return 2
        done = self.database.execute(_EXACT.sub(r"\1", query).replace("%s", "?"), args)
        self.found = done.fetchall()
        return done.rowcount

    def fetchone(self) -> Any:
        """The first row."""
        return self.found[0] if self.found else None

    def fetchall(self) -> list[Any]:
        """All rows."""
        return self.found

    def commit(self) -> None:
        """Keep the changes."""
        self.database.commit()

    def close(self) -> None:
        """Forget the others."""
        self.server.closes += 1
        self.database.close()


class MySQLContract(OffsetStoreContract, TestCase):
    """The promises of every store, and what is MySQL's own."""

    def setUp(self) -> None:
        """A server with an empty table."""
        self.runtime = MemoryRuntime()
        self.server = Server(self.mktemp())
        self.patch(pymysql, "connect", self.server.connect)

    async def make_store(self) -> Any:
        """One that has not connected yet."""
        return MySQLOffsetStore(self.runtime, "t")

    def rows(self) -> list[Any]:
        """Of the table."""
        return self.server.run("select topic, partition, group_id, offset, msg_id from t")

    async def test_row(self) -> None:
        """The row is that of Java members; a second commit changes it, without reading the columns
        again."""
        store = await self.make_store()
        await store.commit("g", [stored(26, 7)])
        self.assertEqual([("test", "0-0", "g", 26, 7)], self.rows())
        await store.commit("g", [stored(30, 8)])
        self.assertEqual([("test", "0-0", "g", 30, 8)], self.rows())
        looks = [each for each in self.server.statements if each.startswith("show")]
        self.assertEqual((1, 1), (len(looks), self.server.connects))

    async def test_row_of_a_new_group(self) -> None:
        """It is made by ``initialise``, for Java members only update it."""
        store = await self.make_store()
        for offset in (77, 88):
            await store.initialise("test", "g", P0, offset)
        self.assertEqual([("test", "0-0", "g", 77, -1)], self.rows())

    async def test_dead_connection(self) -> None:
        """A server that has hung up is asked once more over a new connection; one that is away is
        an error, and the next call connects again."""
        store = await self.make_store()
        await store.commit("g", [stored(1)])
        gone = pymysql.OperationalError(2006, "MySQL server has gone away")
        self.server.faults = [gone]
        await store.commit("g", [stored(2)])
        self.assertEqual((2, 2), (self.server.connects, self.rows()[0][3]))
        self.server.faults = [gone, gone]
        with self.assertRaisesRegex(OffsetStoreError, "gone away"):
            await store.commit("g", [stored(3)])
        self.assertEqual((3, 2), (self.server.connects, self.rows()[0][3]))
        await store.commit("g", [stored(4)])
        self.assertEqual((4, 4), (self.server.connects, self.rows()[0][3]))

    async def test_close(self) -> None:
        """The connection is closed, if there is one; nothing can be asked afterwards."""
        for commits in (0, 1):
            store = await self.make_store()
            for offset in range(commits):
                await store.commit("g", [stored(offset)])
            await store.close()
            await store.close()
            with self.assertRaises(OffsetStoreError):
                await store.load("test", "g", P0)
            self.assertEqual((commits, commits), (self.server.connects, self.server.closes))

    async def test_all_or_nothing(self) -> None:
        """A commit that fails in the middle leaves nothing behind."""
        store = await self.make_store()
        await store.commit("g", [stored(1), stored(1, partition=P1)])
        execute = Connection.execute

        def fail(self: Connection, query: str, args: tuple[Any, ...] = ()) -> int:
            if P1_TEXT in args:
                raise pymysql.ProgrammingError(1, "no")
            return execute(self, query, args)

        self.patch(Connection, "execute", fail)
        with self.assertRaises(OffsetStoreError):
            await store.commit("g", [stored(9), stored(9, partition=P1)])
        self.assertEqual([1, 1], [row[3] for row in self.rows()])
        self.assertEqual((1, 1), (self.server.connects, self.server.closes), "tried again")
        await store.commit("g", [stored(2)])
        self.assertEqual([2, 1], [row[3] for row in self.rows()])

    async def test_connection(self) -> None:
        """An update counts the rows that it finds, and nothing is stored before the commit;
        whatever else the program asks for."""
        given: list[dict[str, Any]] = []

        def connect(**arguments: Any) -> Connection:
            given.append(arguments)
            return self.server.connect()

        self.patch(pymysql, "connect", connect)
        for flags in (0, CLIENT.MULTI_STATEMENTS):
            more = {"client_flag": flags} if flags else {}
            store = MySQLOffsetStore(self.runtime, "t", host="db", read_timeout=60, **more)
            await store.load("test", "g", P0)
            usual = {
                "host": "db",
                "charset": "utf8mb4",
                "autocommit": False,
                "connect_timeout": 5,
                "read_timeout": 60,
                "write_timeout": 10,
                "client_flag": CLIENT.FOUND_ROWS | flags,
            }
            self.assertEqual(usual, given.pop())

    async def test_table_that_cannot_be_written(self) -> None:
        """That is said by the load, before anything is consumed."""
        store = await self.make_store()
        await store.commit("g", [stored(1)])
        execute = Connection.execute

        def deny(self: Connection, query: str, args: tuple[Any, ...] = ()) -> int:
            if query.startswith("update"):
                raise pymysql.OperationalError(1142, "UPDATE command denied to user 'a'@'h'")
            return execute(self, query, args)

        self.patch(Connection, "execute", deny)
        with self.assertRaisesRegex(OffsetsNotStorable, "grant select, insert, update on `t`"):
            await store.load("test", "g", P0)

    async def test_create_table(self) -> None:
        """Only where the program asks for it."""
        store = await self.make_store()
        created: list[str] = []
        self.patch(Connection, "execute", lambda self, query, args=(): created.append(query))
        await store.create_table()
        (statement,) = created
        self.assertTrue(statement.startswith("create table if not exists `t` ("), statement)

    async def test_no_warnings(self) -> None:
        """They are not asked for: it would take another round trip for each statement."""
        self.patch(Connection, "show_warnings", lambda self: 1 / 0)
        store = await self.make_store()
        for offset in range(2):
            await store.commit("g", [stored(offset)])
        self.assertEqual([1], [row[3] for row in self.rows()])

    async def test_narrow_table(self) -> None:
        """The documented one: warned of once; what does not fit is an error with the remedy, and an
        id that does not fit is unknown."""
        self.server.kind = "int(11)"
        store = await self.make_store()
        for _ in range(2):
            self.assertIsNone(await store.load("test", "g", P0))
        (line,) = self.runtime.log.texts("warn")
        self.assertIn("`t`: offsets above 2147483647 cannot be stored", line)
        self.assertIn("modify `offset` bigint", line)
        await store.commit("g", [stored(5, 1 << 40)])
        self.assertEqual([5, -1], list(self.rows()[0][3:]))
        with self.assertRaisesRegex(OffsetsNotStorable, "mends it: alter table `t`"):
            await store.commit("g", [stored(1 << 31)])
        self.assertEqual(5, self.rows()[0][3])

    async def test_narrow_table_that_is_written_first(self) -> None:
        """Whichever call comes first looks at the columns: what does not fit never gets there."""
        self.server.kind = "int(11)"
        store = await self.make_store()
        await store.initialise("test", "g", P0, 5)
        for call in ("initialise", "commit"):
            store = await self.make_store()
            with self.assertRaisesRegex(OffsetsNotStorable, "mends it: alter table `t`"):
                if call == "commit":
                    await store.commit("g", [stored(1 << 31)])
                else:
                    await store.initialise("test", "g", P1, 1 << 31)
        self.assertEqual([5], [row[3] for row in self.rows()])

    async def test_wide_table(self) -> None:
        """Nothing is said of it."""
        store = await self.make_store()
        await store.load("test", "g", P0)
        self.assertEqual([], self.runtime.log.texts("warn"))

    async def test_server_that_is_not_strict(self) -> None:
        """It stores another value and warns: that is an error; other warnings are none."""
        for _ in range(2):  # for a row that is made, and one that is changed
            store = await self.make_store()
            self.server.warnings = [("Warning", 1264, "Out of range value for column 'offset'")]
            with self.assertRaises(OffsetsNotStorable):
                await store.commit("g", [stored(5)])
            self.assertNotIn(5, [row[3] for row in self.rows()])
            self.server.warnings = [("Note", 1, "something else")]
            await store.commit("g", [stored(4)])
            self.assertEqual([4], [row[3] for row in self.rows()])


P1_TEXT = str(P1)
