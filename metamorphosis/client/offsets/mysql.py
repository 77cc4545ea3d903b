"""
Offsets in a MySQL table, shared with Java members of the group.

Source: ``MysqlOffsetStorage``.

Differs: a new group's row is made with the group's name; the original makes it with the consumer's
id and never finds it again. A row that is missing at a commit is inserted; the original's progress
is lost. Errors are errors, after one more try over a new connection; the original takes a failed
load for "no offset". ``offset`` and ``partition`` are quoted: the first is a reserved word in newer
servers. Names that differ in case only have rows of their own, whatever the column's collation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import pymysql
from pymysql.constants import CLIENT
from zope.interface import implementer

from metamorphosis.client.checked import checked
from metamorphosis.client.model import Partition, StoredOffset
from metamorphosis.client.offsets import Worker
from metamorphosis.errors import InvalidConfig, OffsetStoreError
from metamorphosis.interfaces import IOffsetStore

T = TypeVar("T")

DEFAULT_TABLE: Final = "meta_topic_partition_group_offset"

#: seconds; without them nothing bounds a call to a server that hangs
TIMEOUTS: Final = {"connect_timeout": 5, "read_timeout": 10, "write_timeout": 10}

#: The documented columns, but for ``bigint``: the documented ``int`` ends at 2 GiB, and so would
#: progress.
CREATE: Final = """\
create table if not exists {table} (
  `id` int not null auto_increment primary key,
  `topic` varchar(255) not null,
  `partition` varchar(255) not null,
  `group_id` varchar(255) not null,
  `offset` bigint not null,
  `msg_id` bigint not null,
  key `TOPIC_PART_GRP_IDX` (`topic`(150), `partition`(50), `group_id`(150))
) engine=InnoDB default charset=utf8"""

#: the first three comparisons find the row in the index, the others tell ``a`` from ``A``
_WHERE: Final = (
    "where `topic`=%s and `partition`=%s and `group_id`=%s"
    " and convert(`topic` using utf8mb4) collate utf8mb4_bin=%s"
    " and convert(`group_id` using utf8mb4) collate utf8mb4_bin=%s"
)


@implementer(IOffsetStore)
class MySQLOffsetStore:
    """
    One connection in a thread of its own, made with the first call and again after every error.

    :param table: may be ``database.table``.
    :param connection: arguments of ``pymysql.connect``: host, port, unix_socket, user, password,
        database, ssl, ...; the timeouts of ``TIMEOUTS`` hold unless others are given.
    """

    @checked(error=InvalidConfig)
    def __init__(self, runtime: Any, table: str = DEFAULT_TABLE, **connection: Any) -> None:
        self._offsets = OffsetTable(table, connection)
        self._worker = Worker(runtime, "mysql-offsets")

    @checked()
    async def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """See ``IOffsetStore``."""
        return await self._worker.run(lambda: self._offsets.load(topic, group, partition))

    @checked()
    async def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> None:
        """See ``IOffsetStore``; the row that Java members only ever update."""
        await self._worker.run(lambda: self._offsets.initialise(topic, group, partition, offset))

    @checked()
    async def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """See ``IOffsetStore``. One transaction."""
        if offsets:
            await self._worker.run(lambda: self._offsets.commit(group, offsets))

    async def create_table(self) -> None:
        """Make the table if there is none; nothing else does."""
        await self._worker.run(self._offsets.create)

    async def close(self) -> None:
        """See ``IOffsetStore``."""
        await self._worker.close(self._offsets.disconnect)


class OffsetTable:
    """The table behind one connection. Thread: one at a time, and each call blocks."""

    def __init__(self, table: str, connection: dict[str, Any]) -> None:
        if not table or "`" in table:
            raise InvalidConfig(f"MySQL table {table!r}: a name without back-quotes expected")
        self._table = ".".join(f"`{part}`" for part in table.split("."))
        self._arguments = {"charset": "utf8mb4"} | TIMEOUTS | connection
        flags = self._arguments.pop("client_flag", 0)
        # an update says how many rows it found, not how many it made different
        self._arguments |= {"client_flag": flags | CLIENT.FOUND_ROWS, "autocommit": False}
        self._connection: Any = None

    def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """The first row that matches."""

        def load(cursor: Any) -> Any:
            cursor.execute(
                f"select `offset`, `msg_id` from {self._table} {_WHERE} limit 1",
                _key(topic, group, partition),
            )
            return cursor.fetchone()

        row = self._run(load)
        return None if row is None else StoredOffset(topic, partition, int(row[0]), int(row[1]))

    def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> None:
        """Insert a row without message id, unless there is one."""

        def initialise(cursor: Any) -> None:
            key = _key(topic, group, partition)
            cursor.execute(f"select 1 from {self._table} {_WHERE} limit 1", key)
            if cursor.fetchone() is None:
                self._insert(cursor, key, offset, -1)

        self._run(initialise)

    def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """Update every row that matches, insert where none does."""

        def commit(cursor: Any) -> None:
            for each in offsets:
                key = _key(each.topic, group, each.partition)
                found = cursor.execute(
                    f"update {self._table} set `offset`=%s, `msg_id`=%s {_WHERE}",
                    (each.offset, each.message_id, *key),
                )
                if not found:
                    self._insert(cursor, key, each.offset, each.message_id)

        self._run(commit)

    def create(self) -> None:
        """Make the table if there is none."""
        self._run(lambda cursor: cursor.execute(CREATE.format(table=self._table)))

    def disconnect(self) -> None:
        """Close the connection, if there is one; the next call makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except (pymysql.Error, OSError):
                pass  # it was broken already

    def _insert(self, cursor: Any, key: tuple[str, ...], offset: int, message_id: int) -> None:
        cursor.execute(
            f"insert into {self._table} (`topic`, `partition`, `group_id`, `offset`, `msg_id`)"
            " values (%s, %s, %s, %s, %s)",
            (*key[:3], offset, message_id),
        )

    def _run(self, work: Callable[[Any], T]) -> T:
        """
        Do it in a transaction; once more over a new connection when the old one turns out dead.

        That cannot do harm: whatever was done the first time has the same outcome again.
        """
        fresh = self._connection is None
        try:
            return self._attempt(work)
        except (pymysql.OperationalError, pymysql.InterfaceError) as error:
            if fresh:
                raise self._failed(error) from error
        except (pymysql.Error, OSError) as error:
            raise self._failed(error) from error
        try:
            return self._attempt(work)
        except (pymysql.Error, OSError) as error:
            raise self._failed(error) from error

    def _attempt(self, work: Callable[[Any], T]) -> T:
        try:
            if self._connection is None:
                self._connection = pymysql.connect(**self._arguments)
            with self._connection.cursor() as cursor:
                result = work(cursor)
            self._connection.commit()
            return result
        except BaseException:
            self.disconnect()
            raise

    def _failed(self, error: Exception) -> OffsetStoreError:
        text = " ".join(str(part) for part in error.args) or type(error).__name__
        return OffsetStoreError(f"MySQL table {self._table}: {text}")


def _key(topic: str, group: str, partition: Partition) -> tuple[str, ...]:
    return topic, str(partition), group, topic, group
