"""``metaq compare``: compares the logs of two brokers, or of their data directories."""

from __future__ import annotations

from argparse import Namespace

from metamorphosis.cli.console import Console, UsageError
from metamorphosis.cli.table import table
from metamorphosis.errors import MetaQError, StoreError
from metamorphosis.replication.comparing import Row, Side, compare_sides, side_of
from metamorphosis.replication.logs import LogEnds


async def compare(console: Console, options: Namespace) -> None:
    """
    Show each partition.

    :raises MetaQError: a side cannot be read, or in a partition neither log begins with the other.
    """
    try:
        sides = [side_of(console.runtime, text, options.timeout) for text in (options.a, options.b)]
    except StoreError as error:
        raise UsageError(str(error)) from None
    try:
        rows = await rows_of(console, sides[0], sides[1])
    finally:
        for side in sides:
            await side.close()
    if options.json:
        for row in rows:
            await console.print(as_json(row), True)
    elif rows:
        await console.print(as_text(rows), False)
    wrong = [row for row in rows if not row.is_prefix]
    if wrong:
        raise MetaQError(
            f"{len(wrong)} of {len(rows)} partitions: neither log is known to begin with the other"
        )
    if not rows:
        console.complain("neither side has a partition")


async def rows_of(console: Console, a: Side, b: Side) -> list[Row]:
    """
    Compare all partitions, with a line of progress on a terminal.

    :raises MetaQError: a side cannot be reached or read.
    """
    rows = []
    for side in (a, b):
        await side.open()
    async for row in compare_sides(a, b):
        rows.append(row)
        console.progress(f"{len(rows)} partitions compared, the last: {row.topic}-{row.number}")
    console.clear_progress()
    return rows


def as_text(rows: list[Row], heads: tuple[str, str] = ("A", "B")) -> str:
    """
    A line for each partition.

    :param heads: the names of the two sides.
    """
    cells = [
        (f"{row.topic}-{row.number}", *_ranges(row), " ".join(row.verdict(*heads).split()))
        for row in rows
    ]
    return table(("PARTITION", *(head.upper() for head in heads), "VERDICT"), cells)


def as_json(row: Row) -> dict[str, object]:
    """The same as one object."""
    found = row.comparison
    return {
        "topic": row.topic,
        "partition": row.number,
        "a": _range(found.a) if found else None,
        "b": _range(found.b) if found else None,
        "verdict": found.verdict.name.lower() if found else "fault",
        "ahead_bytes": found.ahead if found and found.is_prefix else None,
        "differs_at": found.differs_at if found else None,
        "text": row.verdict(),
        "prefix": row.is_prefix,
    }


def _ranges(row: Row) -> tuple[object, object]:
    found = row.comparison
    return (None, None) if found is None else (found.a, found.b)


def _range(ends: LogEnds | None) -> dict[str, int] | None:
    return None if ends is None else {"min": ends.first, "max": ends.end}
