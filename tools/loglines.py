"""
Makes the tables of ``docs/log-lines.md`` from the calls of loggers in ``metamorphosis/``.

``tools/loglines.py`` writes the page, ``tools/loglines.py --check`` only says whether it is up to
date. The part of the page above the marker is written by hand.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "metamorphosis"
PAGE = ROOT / "docs" / "log-lines.md"

MARKER = "<!-- made by tools/loglines.py; everything below is overwritten -->\n"

LEVELS = {
    "info": "info",
    "warn": "warn",
    "error": "error",
    "critical": "critical",
    "failure": "critical",  # Twisted's level for a line with a traceback
}

HEADINGS = {"zookeeper": "Embedded ZooKeeper", "client": "Client", "cli": "Client"}
"""Where the lines of a room stand; those of all others stand under ``Broker``."""


class Line(NamedTuple):
    """One call of a logger."""

    module: str
    level: str
    text: str
    traceback: bool


def lines_of(module: str, tree: ast.Module) -> Iterator[Line]:
    """
    Every line that a module can log.

    :raises ValueError: the text of a call is neither a literal, nor a constant of the module, nor a
        parameter that gets literals.
    """
    constants = {
        target.id: statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        level = LEVELS.get(call.func.attr)
        if level is None or not _is_logger(call.func.value) or not call.args:
            continue
        for text in _texts(call, tree, constants, functions):
            yield Line(module, level, text.partition("\n")[0], call.func.attr == "failure")


def _is_logger(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in ("log", "_log")


def _texts(
    call: ast.Call,
    tree: ast.Module,
    constants: dict[str, ast.expr],
    functions: list[ast.FunctionDef],
) -> list[str]:
    """What the first argument of a call of a logger can be."""
    first = call.args[0]
    if isinstance(first, ast.Name) and first.id in constants:
        first = constants[first.id]
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        return [first.value]
    for function in functions:
        names = [argument.arg for argument in function.args.args]
        if call in ast.walk(function) and isinstance(first, ast.Name) and first.id in names:
            return _arguments(tree, function.name, names.index(first.id) - 1)
    raise ValueError(f"{ast.unparse(call)}: its text cannot be read from the source")


def _arguments(tree: ast.Module, method: str, index: int) -> list[str]:
    """The literals that calls of a method of this module pass in one place."""
    found = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == method:
            found.append(str(ast.literal_eval(call.args[index])))
    return found


@functools.cache
def all_lines() -> list[Line]:
    """The lines of the package, in the order of modules and texts."""
    found: set[Line] = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found.update(lines_of(module, ast.parse(path.read_text("utf-8"))))
    return sorted(found)


def tables(lines: list[Line]) -> str:
    """The part of the page that is made."""
    parts = []
    for heading in ("Broker", "Embedded ZooKeeper", "Client"):
        parts.append(f"\n## {heading}\n\n| level | line | from |\n|---|---|---|\n")
        for line in lines:
            if HEADINGS.get(line.module.partition(".")[0], "Broker") == heading:
                text = line.text.replace("|", "\\|")
                level = line.level + (", traceback" if line.traceback else "")
                parts.append(f"| {level} | `{text}` | `{line.module}` |\n")
    return "".join(parts)


def page(written: str) -> str:
    """The whole page as it should be, from the one that stands."""
    by_hand, marker, _ = written.partition(MARKER)
    return by_hand + (marker or MARKER) + tables(all_lines())


def main() -> int:
    """Write the page; with ``--check`` return 1 if it would change."""
    standing = PAGE.read_text("utf-8")
    made = page(standing)
    if "--check" in sys.argv[1:]:
        return int(made != standing)
    PAGE.write_text(made, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
