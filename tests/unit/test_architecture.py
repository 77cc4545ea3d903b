"""The names that ``docs/architecture.md`` and the page of the client use are those of the code."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
PAGES = ("architecture.md", "contributing-client.md", "transactions.md")


def members() -> dict[str, set[str]]:
    """Class -> what its body and its methods define; of classes of one name all together."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "metamorphosis").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name] |= _defined(node)
    for name, bases in _bases().items():
        for base in bases:
            found[name] |= found.get(base, set())
    return found


def _defined(node: ast.ClassDef) -> set[str]:
    names = set()
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(child.name)
        elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
            names.add(child.attr)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            names.add(child.id)
    return names


def _bases() -> dict[str, set[str]]:
    """Class -> all classes of ours that it builds on."""
    direct: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "metamorphosis").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                direct[node.name] |= {base.id for base in node.bases if isinstance(base, ast.Name)}
    found = {}
    for name in direct:
        reached, left = set(), [name]
        while left:
            for base in direct.get(left.pop(), set()) - reached:
                reached.add(base)
                left.append(base)
        found[name] = reached
    return found


class NameTests(SynchronousTestCase):
    """A page that names what is gone misleads its reader."""

    def test_members_exist(self) -> None:
        """Each ``Class.member`` of the text is one."""
        known = members()
        gone, seen = [], 0
        for page in PAGES:
            text = (ROOT / "docs" / page).read_text("utf-8")
            text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
            for name, member in re.findall(r"`(?:\w+\.)*([A-Z]\w+)\.(\w+)[`(]", text):
                seen += 1
                if name in known and member not in known[name]:
                    gone.append(f"{page}: {name}.{member}")
                elif name not in known:
                    gone.append(f"{page}: {name}")
        self.assertEqual([], gone)
        self.assertGreater(seen, 20)

    def test_rooms_exist(self) -> None:
        """So is each ``room.module`` and ``room.module.name``."""
        package = ROOT / "metamorphosis"
        rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
        gone = []
        for page in PAGES:
            text = (ROOT / "docs" / page).read_text("utf-8")
            for dotted in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)(?:\.\w+)?`", text):
                room, module, *_ = dotted.split(".")
                place = package / room / module
                is_module = place.with_suffix(".py").exists() or place.is_dir()
                if room in rooms and module != "py" and not is_module:
                    names = (package / room / "__init__.py").read_text("utf-8")
                    if module not in names:
                        gone.append(f"{page}: {dotted}")
        self.assertEqual([], gone)
