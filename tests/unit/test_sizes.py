"""
The sizes of modules, classes and functions, and the number of values without a type, stay within
the goals; a class or function that is longer says why.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PACKAGE = Path(__file__).parents[2] / "metamorphosis"

MODULE_LINES = 400
CLASS_LINES = 250
FUNCTION_LINES = 32
"""Those of the code below the docstring."""

LINE_CHARACTERS_OF_C = 120
"""As in ``.clang-format``; Ruff judges the Python."""

ANY, ANY_OF_CLIENT = 220, 120
"""The uses of ``Any`` stay below these."""

REASON = re.compile(r"\blong(, because| function| class)", re.IGNORECASE)
"""The place in a docstring that says why something is long."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(node: ast.ClassDef | Function) -> int:
    """The lines of a class, or those of a function without its docstring."""
    assert node.end_lineno is not None
    if isinstance(node, ast.ClassDef):
        return node.end_lineno - node.lineno
    first = node.lineno
    if ast.get_docstring(node) is not None:
        assert node.body[0].end_lineno is not None
        first = node.body[0].end_lineno
    return node.end_lineno - first


def too_long(source: str) -> Iterator[str]:
    """Names of classes and functions that are long and do not say why; of ``__init__`` the class
    may say it."""
    tree = ast.parse(source)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    class_of = {each: node for node in classes for each in node.body}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        limit = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
        said = ast.get_docstring(node) or ""
        if node.name == "__init__" and node in class_of:
            said += ast.get_docstring(class_of[node]) or ""
        if lines_of(node) > limit and not REASON.search(" ".join(said.split())):
            yield node.name


def uses_of_any(source: str) -> int:
    """How often ``Any`` stands in the code, imports not counted."""
    return sum(
        (isinstance(node, ast.Name) and node.id == "Any")
        or (isinstance(node, ast.Attribute) and node.attr == "Any")
        for node in ast.walk(ast.parse(source))
    )


class SizeTests(SynchronousTestCase):
    """The code of the package."""

    def setUp(self) -> None:
        """Read it."""
        self.sources = {
            str(path.relative_to(PACKAGE)): path.read_text("utf-8")
            for path in PACKAGE.rglob("*.py")
        }

    def test_modules(self) -> None:
        """No module is above the limit."""
        counts = {name: source.count("\n") for name, source in self.sources.items()}
        self.assertEqual({n: c for n, c in counts.items() if c > MODULE_LINES}, {})

    def test_sources_of_c(self) -> None:
        """The same limit for the part in C, and one for its lines."""
        found = []
        for path in sorted((PACKAGE / "native").glob("*.[ch]")):
            lines = path.read_text("utf-8").splitlines()
            if len(lines) > MODULE_LINES or max(map(len, lines)) > LINE_CHARACTERS_OF_C:
                found.append(f"{path.name}: {len(lines)} lines of {max(map(len, lines))}")
        self.assertEqual(found, [])

    def test_classes_and_functions(self) -> None:
        """Those above the limits say why."""
        found = [
            f"{name}: {each}" for name, text in self.sources.items() for each in too_long(text)
        ]
        self.assertEqual(found, [])

    def test_any(self) -> None:
        """Few values have no type."""
        counts = {name: uses_of_any(source) for name, source in self.sources.items()}
        client = sum(count for name, count in counts.items() if name.startswith("client/"))
        self.assertLess(client, ANY_OF_CLIENT)
        self.assertLess(sum(counts.values()), ANY)


class RuleTests(SynchronousTestCase):
    """The rules find what is wrong."""

    def test_function(self) -> None:
        """Long code needs a reason; a long docstring does not count."""
        body = "    pass\n" * (FUNCTION_LINES + 1)
        self.assertEqual(list(too_long(f"def f():\n{body}")), ["f"])
        self.assertEqual(list(too_long(f"async def f():\n    '''Longer.'''\n{body}")), ["f"])
        self.assertEqual(list(too_long(f"def f():\n    '''One long function, as.'''\n{body}")), [])
        text = "\n" * (FUNCTION_LINES + 1)
        self.assertEqual(list(too_long(f"def f():\n    '''{text}'''\n    pass\n")), [])

    def test_class(self) -> None:
        """A class as well; of ``__init__`` the class may say it."""
        body = "    a = 1\n" * (CLASS_LINES + 1)
        self.assertEqual(list(too_long(f"class A:\n{body}")), ["A"])
        self.assertEqual(list(too_long(f"class A:\n    '''One long class.'''\n{body}")), [])
        init = "    def __init__(self):\n" + "        pass\n" * (FUNCTION_LINES + 1)
        self.assertEqual(list(too_long(f"class A:\n{init}")), ["__init__"])
        self.assertEqual(
            list(too_long(f"class A:\n    '''Its ``__init__`` is long, because.'''\n{init}")), []
        )

    def test_any(self) -> None:
        """Annotations and expressions count, imports and other names do not."""
        source = "from typing import Any\nimport typing\na: Any\nb: list[typing.Any]\nc: Anything\n"
        self.assertEqual(uses_of_any(source), 2)
