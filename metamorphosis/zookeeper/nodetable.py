"""
The table ``node``: which row each path has.

The rows are numbered in the order of creation and found by number, not by path: an index of paths
would be one more tree of pages in which each created node, wherever its path sorts, changes some.
So a batch of created nodes fills one page after the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from metamorphosis.zookeeper.nodes import Node
from metamorphosis.zookeeper.rows import COLUMNS, BadRow, node_of, node_row

_PUT: Final = f"REPLACE INTO node VALUES ({', '.join('?' * len(COLUMNS['node']))})"
_DELETE: Final = "DELETE FROM node WHERE id = ?"


class NodeTable:
    """
    The table of one open database. Thread: any, one at a time.

    ``load`` comes before the first ``write``.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._ids: dict[str, int] = {}
        self._last_id = 0  # the highest ever given
        self._removed: dict[str, int] = {}  # ids that the last batch has removed

    def load(self) -> dict[str, Node]:
        """
        The nodes by path, in the order of their creation.

        :raises sqlite3.Error: the file is damaged.
        :raises BadRow: a row is not valid.
        """
        nodes: dict[str, Node] = {}
        ids: dict[str, int] = {}
        with closing(self._database.execute("SELECT * FROM node ORDER BY id")) as rows:
            for row in rows:
                node = node_of(row)
                number, path = row[:2]
                if path in nodes:
                    raise BadRow(f"table node, id {number}", "path", path, "unique")
                nodes[path] = node
                ids[path] = self._last_id = number
        self._ids = ids
        return nodes

    def write(self, nodes: Mapping[str, Node | None]) -> None:
        """
        Write these states in the open transaction; None removes.

        :raises sqlite3.Error: the transaction must be rolled back.
        """
        self._removed = {}
        ids = self._ids
        puts = []
        for path, node in nodes.items():
            if node is not None:
                number = ids.get(path)
                if number is None:
                    self._last_id = ids[path] = number = self._last_id + 1
                puts.append(node_row(number, path, node))
        self._database.executemany(_PUT, puts)
        if len(puts) < len(nodes):
            self._remove([path for path, node in nodes.items() if node is None and path in ids])

    def _remove(self, paths: list[str]) -> None:
        self._removed = {path: self._ids.pop(path) for path in paths}
        self._database.executemany(_DELETE, [(number,) for number in self._removed.values()])

    def rolled_back(self) -> None:
        """The rows that the last batch has removed are there again. Those that it has created are
        not, but keep their numbers."""
        self._ids.update(self._removed)
