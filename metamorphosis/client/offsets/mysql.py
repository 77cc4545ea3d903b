"""
Offsets in a MySQL table, shared with Java members of the group.

Source: ``MysqlOffsetStorage``.

Differs: a new group's row is created with the group's name; the original creates it with the
consumer's id and never finds it again. A row that is missing at a commit is inserted; the original
loses the progress. Errors are raised, after one more try over a new connection; the original treats
a failed load as "no offset". An id that is too large for its column, such as the documented
``int``, is stored as -1 instead of failing the commit; a table that cannot store offsets fails the
load, with the statement that corrects it. ``offset`` and ``partition`` are quoted: the first is a
reserved word in newer servers. Names that differ only in case have separate rows, with every
collation of the column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeVar, Unpack

import pymysql
from pymysql.constants import CLIENT
from zope.interface import implementer

from metamorphosis.client.checked import checked
from metamorphosis.client.model import Partition, StoredOffset
from metamorphosis.client.offsets import Worker
from metamorphosis.client.offsets.mysqlconnection import MySQLConnection, check_names
from metamorphosis.client.offsets.mysqltable import (
    CREATE,
    SILENT,
    Columns,
    NotStored,
    Row,
    mending,
    widened,
)
from metamorphosis.errors import InvalidConfig, OffsetsNotStorable, OffsetStoreError
from metamorphosis.interfaces import IOffsetStore, IRuntime

T = TypeVar("T")


class Cursor(Protocol):
    """The part of a ``pymysql`` cursor that is used here."""

    warning_count: int

    def execute(self, query: str, args: tuple[str | int, ...] | None = None) -> int:
        """Run a statement; returns the number of rows that it found."""

    def fetchone(self) -> Row | None:
        """The next row of the result."""

    def fetchall(self) -> Sequence[Row]:
        """All rows of the result."""


class Connection(Protocol):
    """The part of a ``pymysql`` connection that is used here."""

    def cursor(self) -> AbstractContextManager[Cursor]:
        """A new cursor, which is closed with its context."""

    def show_warnings(self) -> Sequence[tuple[str, int, str]]:
        """The warnings of the last statement: level, number, text."""

    def commit(self) -> None:
        """Commit the transaction."""

    def close(self) -> None:
        """Close the connection."""


DEFAULT_TABLE: Final = "meta_topic_partition_group_offset"

#: seconds; limits of a call to a server that hangs
TIMEOUTS: Final = {"connect_timeout": 5, "read_timeout": 10, "write_timeout": 10}

#: the first three comparisons use the index, the others distinguish ``a`` from ``A``
_WHERE: Final = (
    "where `topic`=%s and `partition`=%s and `group_id`=%s"
    " and convert(`topic` using utf8mb4) collate utf8mb4_bin=%s"
    " and convert(`group_id` using utf8mb4) collate utf8mb4_bin=%s"
)


@implementer(IOffsetStore)
class MySQLOffsetStore:
    """
    One connection in a separate thread, opened by the first call and again after every error.

    :param table: may be ``database.table``.
    :param connection: arguments of ``pymysql.connect``, as ``MySQLConnection`` has them; the
        timeouts of ``TIMEOUTS`` hold unless others are given.
    :raises InvalidConfig: no such argument, or a name of a table that cannot be.
    """

    @checked(error=InvalidConfig)
    def __init__(
        self,
        runtime: IRuntime,
        table: str = DEFAULT_TABLE,
        **connection: Unpack[MySQLConnection],
    ) -> None:
        check_names(connection)
        self._log = runtime.logger("metamorphosis.client")
        self._offsets = OffsetTable(table, connection)
        self._is_warned = False
        self._worker = Worker(runtime, "mysql-offsets")

    @checked()
    async def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """
        See ``IOffsetStore``.

        :raises OffsetsNotStorable: the table cannot store the commits that will follow.
        """
        stored = await self._worker.run(lambda: self._offsets.load(topic, group, partition))
        if self._offsets.is_narrow and not self._is_warned:
            self._is_warned = True
            self._log.warn(
                "MySQL table {table}: offsets above {most} cannot be stored; this makes room:"
                " {statement}",
                table=self._offsets.table,
                most=self._offsets.largest,
                statement=widened(self._offsets.table),
            )
        return stored

    @checked()
    async def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> None:
        """See ``IOffsetStore``; inserts the row that Java members only update."""
        await self._worker.run(lambda: self._offsets.initialise(topic, group, partition, offset))

    @checked()
    async def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """See ``IOffsetStore``. One transaction."""
        if offsets:
            await self._worker.run(lambda: self._offsets.commit(group, offsets))

    async def create_table(self) -> None:
        """Create the table if it does not exist; no other method does."""
        await self._worker.run(self._offsets.create)

    async def close(self) -> None:
        """See ``IOffsetStore``."""
        await self._worker.close(self._offsets.disconnect)


class OffsetTable:
    """The table over one connection. Thread: one at a time; each call blocks."""

    def __init__(self, table: str, connection: Mapping[str, object]) -> None:
        if not table or "`" in table:
            raise InvalidConfig(f"MySQL table {table!r}: a name without back-quotes expected")
        self.table = ".".join(f"`{part}`" for part in table.split("."))
        self._arguments: dict[str, object] = {
            "charset": "utf8mb4",
            **TIMEOUTS,
            **connection,
        }
        flags = self._arguments.pop("client_flag", 0)
        if not isinstance(flags, int):
            raise InvalidConfig(f"client_flag {flags!r}: a number of pymysql.constants.CLIENT")
        # FOUND_ROWS: an update returns the number of rows found, not of rows changed
        self._arguments |= {"client_flag": flags | CLIENT.FOUND_ROWS, "autocommit": False}
        self._connection: Connection | None = None
        self._columns: Columns | None = None  # of the table, read over this connection

    @property
    def is_narrow(self) -> bool:
        """Whether the table is known to be too narrow for large offsets."""
        return self._columns is not None and self._columns.are_narrow

    @property
    def largest(self) -> int:
        """The largest offset of a narrow table."""
        assert self._columns is not None
        return int(self._columns.offset[1])

    def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """The first row that matches; also tests a write, so that a commit will not fail."""

        def load(cursor: Cursor) -> Row | None:
            self._look(cursor)
            key = _key(topic, group, partition)
            cursor.execute(f"select `offset`, `msg_id` from {self.table} {_WHERE} limit 1", key)
            row = cursor.fetchone()
            if row is not None:  # without a row ``initialise`` will try
                same = "set `offset`=`offset`, `msg_id`=`msg_id`"
                cursor.execute(f"update {self.table} {same} {_WHERE}", key)
            return row

        row = self._run(load)
        return None if row is None else StoredOffset(topic, partition, int(row[0]), int(row[1]))

    def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> None:
        """Insert a row without message id, unless a row exists."""

        def initialise(cursor: Cursor) -> None:
            key = _key(topic, group, partition)
            cursor.execute(f"select 1 from {self.table} {_WHERE} limit 1", key)
            if cursor.fetchone() is None:
                self._insert(cursor, key, offset, -1)

        self._run(initialise)

    def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """Update every row that matches; insert a row if none does."""

        def commit(cursor: Cursor) -> None:
            columns = self._look(cursor)
            for each in offsets:
                key = _key(each.topic, group, each.partition)
                columns.check(each.offset)
                found = cursor.execute(
                    f"update {self.table} set `offset`=%s, `msg_id`=%s {_WHERE}",
                    (each.offset, columns.stored_id(each.message_id), *key),
                )
                self._check_warnings(cursor)
                if not found:
                    self._insert(cursor, key, each.offset, each.message_id)

        self._run(commit)

    def create(self) -> None:
        """Create the table if it does not exist."""
        self._run(lambda cursor: cursor.execute(CREATE.format(table=self.table)))

    def disconnect(self) -> None:
        """Close an open connection; the next call opens another."""
        connection, self._connection, self._columns = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except (pymysql.Error, OSError):
                pass  # the connection was broken

    def _insert(self, cursor: Cursor, key: tuple[str, ...], offset: int, message_id: int) -> None:
        columns = self._look(cursor)
        columns.check(offset)
        cursor.execute(
            f"insert into {self.table} (`topic`, `partition`, `group_id`, `offset`, `msg_id`)"
            " values (%s, %s, %s, %s, %s)",
            (*key[:3], offset, columns.stored_id(message_id)),
        )
        self._check_warnings(cursor)

    def _look(self, cursor: Cursor) -> Columns:
        """The ranges of the columns; read once for each connection."""
        if self._columns is None:
            cursor.execute(f"show columns from {self.table}")
            self._columns = Columns.of(cursor.fetchall())
        return self._columns

    def _check_warnings(self, cursor: Cursor) -> None:
        """:raises NotStored: a server that is not strict has stored another value."""
        if cursor.warning_count and self._connection is not None:
            for _, number, text in self._connection.show_warnings():
                if number in SILENT:
                    raise NotStored(number, text)

    def _run(self, work: Callable[[Cursor], T]) -> T:
        """
        Run ``work`` in a transaction; once more over a new connection if the old one is dead.

        A second run is safe: the work is idempotent.
        """
        fresh = self._connection is None
        try:
            return self._attempt(work)
        except (pymysql.OperationalError, pymysql.InterfaceError) as error:
            if fresh:
                raise self._failed(error) from error
        except (pymysql.Error, OSError, NotStored) as error:
            raise self._failed(error) from error
        try:
            return self._attempt(work)
        except (pymysql.Error, OSError, NotStored) as error:
            raise self._failed(error) from error

    def _attempt(self, work: Callable[[Cursor], T]) -> T:
        try:
            if self._connection is None:
                connect: Callable[..., Connection] = pymysql.connect
                self._connection = connect(**self._arguments)
            with self._connection.cursor() as cursor:
                result = work(cursor)
            self._connection.commit()
            return result
        except BaseException:
            self.disconnect()
            raise

    def _failed(self, error: Exception) -> OffsetStoreError:
        text = " ".join(str(part) for part in error.args) or type(error).__name__
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        statement = mending(number, text, self.table)
        if statement is None or isinstance(error, OSError):
            return OffsetStoreError(f"MySQL table {self.table}: {text}")
        return OffsetsNotStorable(
            f"MySQL table {self.table}: {text}; this statement mends it: {statement}"
        )


def _key(topic: str, group: str, partition: Partition) -> tuple[str, ...]:
    return topic, str(partition), group, topic, group
