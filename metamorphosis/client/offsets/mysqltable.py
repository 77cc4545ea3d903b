"""
The columns of an offset table: their ranges, and the statement that corrects a table which cannot
store the values of a commit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

Row = tuple[str | int, ...]

#: The documented columns, except for ``bigint``: the documented ``int`` ends at 2 GiB.
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

_BITS: Final = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_INTEGER: Final = re.compile(r"(tinyint|smallint|mediumint|int|bigint)\b(.*)")
_COLUMN: Final = re.compile(r"[Cc]olumn '([^']+)'|Field '([^']+)'")
_DENIED: Final = re.compile(r"command denied to user ('[^']*'@'[^']*')")


class NotStored(Exception):
    """
    The server stored another value than the given one, or the column is too small for it.

    :ivar args: the server's number of the error, and its text.
    """


@dataclass(frozen=True, slots=True)
class Columns:
    """The smallest and the largest value of each of the two numeric columns."""

    offset: tuple[float, float]
    msg_id: tuple[float, float]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Columns:
        """From the rows of ``show columns``; a column without an integer type holds any number."""
        kinds = {str(row[0]).lower(): str(row[1]).lower() for row in rows}
        return cls(_range(kinds.get("offset", "")), _range(kinds.get("msg_id", "")))

    def check(self, offset: int) -> None:
        """:raises NotStored: the offset is too large for its column."""
        low, high = self.offset
        if not low <= offset <= high:
            text = f"offset {offset} does not fit column 'offset', which ends at {high:.0f}"
            raise NotStored(1264, text)

    def stored_id(self, message_id: int) -> int:
        """The id; -1 ("unknown"), or 0, if its column is too narrow: the id is only informative."""
        low, high = self.msg_id
        return message_id if low <= message_id <= high else int(max(-1, low))

    @property
    def are_narrow(self) -> bool:
        """Whether some offsets cannot be stored."""
        return self.offset[1] < (1 << 63) - 1


def _range(kind: str) -> tuple[float, float]:
    match = _INTEGER.match(kind)
    if match is None:
        return float("-inf"), float("inf")
    bits = _BITS[match[1]]
    if "unsigned" in match[2]:
        return 0, (1 << bits) - 1
    return -(1 << bits - 1), (1 << bits - 1) - 1


def widened(table: str) -> str:
    """The statement that widens the columns for every offset and every id."""
    return f"alter table {table} modify `offset` bigint not null, modify `msg_id` bigint not null"


def mending(number: int, text: str, table: str) -> str | None:
    """
    The statement after which the failed one works; None: the table is not the cause.

    :param number: the server's number of the error.
    :param text: the server's text.
    :param table: quoted.
    """
    statement = _STATEMENTS.get(number)
    return None if statement is None else statement(text, table)


def _column(text: str) -> str:
    found = _COLUMN.search(text)
    return (found[1] or found[2]) if found else ""


def _out_of_range(text: str, table: str) -> str:
    if _column(text) in ("offset", "msg_id", ""):
        return widened(table)
    return f"alter table {table} modify `{_column(text)}` bigint not null auto_increment"


def _too_long(text: str, table: str) -> str:
    return f"alter table {table} modify `{_column(text)}` varchar(255) not null"


def _wrong_charset(text: str, table: str) -> str:
    return f"alter table {table} convert to character set utf8mb4"


def _no_default(text: str, table: str) -> str:
    column = _column(text)
    if column == "id":
        return f"alter table {table} modify `id` int not null auto_increment"
    return f"alter table {table} alter column `{column}` set default ''"


def _missing(text: str, table: str) -> str:
    return CREATE.format(table=table)


def _unknown_column(text: str, table: str) -> str:
    column = _column(text)
    kind = "bigint" if column in ("offset", "msg_id") else "varchar(255)"
    return f"alter table {table} add `{column}` {kind} not null"


def _denied(text: str, table: str) -> str:
    found = _DENIED.search(text)
    return f"grant select, insert, update on {table} to {found[1] if found else 'current_user'}"


def _read_only(text: str, table: str) -> str:
    return "set global read_only = off"


#: numbers of ``mysqld_error.h``
_STATEMENTS: Final[dict[int, Callable[[str, str], str]]] = {
    1054: _unknown_column,
    1142: _denied,
    1143: _denied,
    1146: _missing,
    1264: _out_of_range,
    1265: _too_long,
    1267: _wrong_charset,
    1290: _read_only,
    1364: _no_default,
    1366: _wrong_charset,
    1406: _too_long,
}

SILENT: Final = frozenset({1264, 1265, 1366, 1406})
"""Warnings of a server that is not strict: it has stored another value than the given one."""
