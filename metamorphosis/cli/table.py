"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """
    Columns of the necessary width, separated by two spaces; numbers are aligned right. An empty
    cell is a hyphen, so that every row has one word for each column.
    """
    cells = [["-" if cell in (None, "") else str(cell) for cell in row] for row in rows]
    numbers = [
        bool(rows) and all(row[i] is None or isinstance(row[i], int) for row in rows)
        for i in range(len(head))
    ]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    lines = []
    for row in [list(head), *cells]:
        aligned = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)
