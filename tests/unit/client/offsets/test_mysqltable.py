"""What an offset table can hold, and what would mend it; the servers are in integration."""

from __future__ import annotations

import inspect
from typing import Any

import pymysql
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.model import Partition
from metamorphosis.client.offsets.mysql import MySQLOffsetStore, OffsetTable
from metamorphosis.client.offsets.mysqlconnection import MySQLConnection
from metamorphosis.client.offsets.mysqltable import Columns, NotStored, mending, widened
from metamorphosis.errors import InvalidConfig, OffsetsNotStorable, OffsetStoreError
from metamorphosis.testing.runtime import MemoryRuntime


def columns(offset: str, msg_id: str) -> Columns:
    """As ``show columns`` tells them."""
    rows: list[Any] = [("id", "int(11)"), ("offset", offset), ("MSG_ID", msg_id)]
    return Columns.of(rows)


class ConnectionTests(SynchronousTestCase):
    """The arguments of a connection."""

    def test_names(self) -> None:
        """A misspelt one is guessed before anything is opened; each is one of ``pymysql``."""
        runtime = MemoryRuntime()
        for wrong, expected in (("hots", "host is one"), ("xyz", "those there are: auth_plugin")):
            settings: dict[str, Any] = {wrong: "db"}
            with self.assertRaisesRegex(InvalidConfig, f"{wrong} is not an argument.*{expected}"):
                MySQLOffsetStore(runtime, **settings)
        known = inspect.signature(pymysql.connections.Connection.__init__).parameters
        self.assertEqual(set(), MySQLConnection.__optional_keys__ - known.keys())

    def test_table(self) -> None:
        """One that is no name, and flags that are no number, are refused before anything is
        opened; a table may be of another database."""
        for wrong in ("", "a`b"):
            with self.assertRaisesRegex(InvalidConfig, "a name without back-quotes expected"):
                OffsetTable(wrong, {})
        with self.assertRaisesRegex(InvalidConfig, "client_flag 'x'"):
            OffsetTable("t", {"client_flag": "x"})
        self.assertEqual("`db`.`t`", OffsetTable("db.t", {}).table)


class ErrorTests(SynchronousTestCase):
    """What a server says, as the group hears it."""

    def error(self, raised: BaseException) -> OffsetStoreError:
        """Of the first call, when the server answers it so."""

        calls: list[object] = []

        def connect(**_: object) -> None:
            calls.append(1)
            raise raised

        self.patch(pymysql, "connect", connect)
        table = OffsetTable("t", {})
        error = self.assertRaises(OffsetStoreError, table.load, "test", "g", Partition(0, 0))
        self.assertEqual(1, len(calls), "only a connection that was open may have died")
        return error

    def test_passing(self) -> None:
        """A server that is away, or a network: the group tries again, and nothing mends a table."""
        for raised in (
            pymysql.OperationalError(2003, "Can't connect"),
            pymysql.InterfaceError(0, ""),
            ConnectionResetError(104, "reset"),
            OSError(1290, "a number that MySQL uses, too"),
        ):
            found = self.error(raised)
            self.assertIs(OffsetStoreError, type(found), raised)
            self.assertNotIn("mends", str(found))
            self.assertIn(str(raised.args[-1]), str(found))

    def test_without_a_text(self) -> None:
        """The kind of the error is told."""
        self.assertIn("`t`: InterfaceError", str(self.error(pymysql.InterfaceError())))

    def test_lasting(self) -> None:
        """The statement that mends it is in the text."""
        found = self.error(pymysql.OperationalError(1290, "The server is --read-only"))
        self.assertIs(OffsetsNotStorable, type(found))
        self.assertIn("this statement mends it: set global read_only = off", str(found))


class ColumnTests(SynchronousTestCase):
    """Ranges."""

    def test_ranges(self) -> None:
        """By type, with and without width and sign; what is not an integer holds everything."""
        for kind, least, most in (
            ("int(11)", -(1 << 31), (1 << 31) - 1),
            ("int unsigned", 0, (1 << 32) - 1),
            ("mediumint(9)", -(1 << 23), (1 << 23) - 1),
            ("bigint(20)", -(1 << 63), (1 << 63) - 1),
            ("bigint(20) unsigned", 0, (1 << 64) - 1),
            ("decimal(30,0)", float("-inf"), float("inf")),
        ):
            self.assertEqual((least, most), columns(kind, "bigint").offset)

    def test_ids(self) -> None:
        """One that does not fit is unknown; nothing else changes it."""
        narrow = columns("bigint", "int(11)")
        self.assertEqual([7, -7, -1], [narrow.stored_id(each) for each in (7, -7, 1 << 40)])
        for border in (-(1 << 31), (1 << 31) - 1):
            self.assertEqual(border, narrow.stored_id(border))
        self.assertEqual(0, columns("bigint", "bigint unsigned").stored_id(-1))

    def test_offsets(self) -> None:
        """One that does not fit is an error."""
        narrow = columns("int", "int")
        narrow.check((1 << 31) - 1)
        columns("int unsigned", "int").check(0)
        error = self.assertRaises(NotStored, narrow.check, 1 << 31)
        self.assertIn("ends at 2147483647", str(error))
        self.assertTrue(narrow.are_narrow)
        self.assertFalse(columns("bigint", "int").are_narrow)


class StatementTests(SynchronousTestCase):
    """Numbers and texts of MariaDB and MySQL."""

    def test_statements(self) -> None:
        """The column or user of the text is in the statement."""
        for number, text, expected in (
            (1264, "Out of range value for column 'msg_id' at row 1", widened("`t`")),
            (1264, "Out of range value for column 'id' at row 1", "modify `id` bigint"),
            (1406, "Data too long for column 'topic' at row 1", "modify `topic` varchar(255)"),
            (1364, "Field 'id' doesn't have a default value", "modify `id` int"),
            (1364, "Field 'zone' doesn't have a default value", "alter column `zone` set default"),
            (1054, "Unknown column 'offset' in 'field list'", "add `offset` bigint"),
            (
                1142,
                "UPDATE command denied to user 'a'@'h' for table 't'",
                "grant select, insert, update on `t` to 'a'@'h'",
            ),
            (1264, "Out of range value", widened("`t`")),
            (1054, "Unknown column 'zone' in 'field list'", "add `zone` varchar(255)"),
            (1143, "command denied", "on `t` to current_user"),
            (1146, "Table 'd.t' doesn't exist", "create table if not exists `t` ("),
            (1366, "Incorrect string value", "convert to character set utf8mb4"),
            (1290, "The server is running with the --read-only option", "read_only = off"),
        ):
            self.assertIn(expected, mending(number, text, "`t`") or "")

    def test_others(self) -> None:
        """A server that is away, a wrong password: the table is not to blame."""
        for number in (0, 1045, 2003, 2006, 2013):
            self.assertIsNone(mending(number, "x", "`t`"))
