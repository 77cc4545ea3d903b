"""
Makes two files from ``metamorphosis/client/settings.py``: the types of keyword arguments,
``client/settingtypes.py``, and the tables of ``docs/guide/settings.md``.

``make settings`` runs it; ``tests/unit/client/test_settings.py`` fails when a written file is not
what this script makes.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "metamorphosis" / "client" / "settings.py"
TYPES = ROOT / "metamorphosis" / "client" / "settingtypes.py"
PAGE = ROOT / "docs" / "guide" / "settings.md"

MARKER = "<!-- tools/settings.py writes the tables below: run 'make settings'. -->\n"

NAMED = {"ClientConfig": ("zookeeper", "broker"), "ConsumerConfig": ("group",)}
"""Settings that are parameters of their own wherever settings are taken."""

FACTORIES = {
    "_processors": "the number of processors",
    "dict": "none",
}
TITLES = {
    "ClientConfig": "Of a session factory, and of all it creates",
    "ConsumerConfig": "Of a consumer",
}


class Setting(NamedTuple):
    """
    One field of a configuration.

    :ivar type: as the source has it.
    :ivar default: for readers; None: it has to be given.
    :ivar text: its documentation, in one line.
    """

    name: str
    type: str
    default: str | None
    text: str


def settings() -> dict[str, list[Setting]]:
    """
    Class -> its settings, in their order.

    :raises ValueError: one has no documentation.
    """
    tree = ast.parse(SOURCE.read_text("utf-8"))
    return {
        each.name: list(_fields(each))
        for each in tree.body
        if isinstance(each, ast.ClassDef) and each.name in NAMED
    }


def _fields(config: ast.ClassDef) -> list[Setting]:
    found = []
    for field, following in zip(config.body, config.body[1:]):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name = field.target.id
        text = following.value if isinstance(following, ast.Expr) else None
        if not isinstance(text, ast.Constant) or not isinstance(text.value, str):
            raise ValueError(f"{config.name}.{name} has no documentation in {SOURCE.name}")
        default = None if field.value is None else _default(field.value)
        found.append(
            Setting(name, ast.unparse(field.annotation), default, " ".join(text.value.split()))
        )
    return found


def _default(value: ast.expr) -> str:
    """A default for readers."""
    if isinstance(value, ast.Call):
        factory = ast.unparse(value.keywords[0].value)
        home = re.search(r"_home\('([^']+)'\)", factory)
        return f"`~/{home[1]}`" if home else FACTORIES[factory]
    found = eval(compile(ast.Expression(value), "<default>", "eval"), {})
    if found is None:
        return "none"
    if isinstance(found, int) and not isinstance(found, bool) and found >= 1 << 20:
        return f"{found} ({found >> 20} MiB)" if not found & 0xFFFFF else str(found)
    return f"`{found}`" if isinstance(found, str) else str(found)


def types() -> str:
    """What ``settingtypes.py`` must hold, before it is formatted."""
    parts = [
        '"""\n'
        "The settings as keyword arguments, for type checkers and editors.\n\n"
        "Made from ``settings.py`` by ``tools/settings.py``: change that, run 'make settings'.\n"
        '"""\n\n'
        "from __future__ import annotations\n\n"
        "import os\nfrom collections.abc import Mapping\nfrom typing import TypedDict\n"
    ]
    for config, found in settings().items():
        kind = config.removesuffix("Config")
        own = [each for each in found if each.name not in NAMED[config]]
        named = [each for each in found if each.name in NAMED[config]]
        parts.append(
            f"\n\nclass {kind}Settings(TypedDict, total=False):\n"
            f'    """The settings of ``{config}``, but {" and ".join(NAMED[config])}."""\n\n'
            + "".join(map(_member, own))
        )
        parts.append(
            f"\n\nclass All{kind}Settings({kind}Settings, total=False):\n"
            f'    """All settings of ``{config}``."""\n\n' + "".join(map(_member, named))
        )
    return "".join(parts)


def _member(setting: Setting) -> str:
    kind = "str | os.PathLike[str]" if setting.type == "Path" else setting.type
    default = "" if setting.default is None else f" Default: {setting.default.replace('`', '')}."
    lines = _wrapped(f"{setting.text}{default}")
    return f'    {setting.name}: {kind}\n    """{lines}"""\n'


def _wrapped(text: str) -> str:
    """Lines of at most 100 characters with their indentation and quotes."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) > 88:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
    return "\n    ".join([*lines, line])


def page(standing: str) -> str:
    """The page with new tables; what stands above the marker is written by hand."""
    by_hand, marker, _ = standing.partition(MARKER)
    tables = []
    for config, found in settings().items():
        rows = "".join(map(_row, found))
        tables.append(
            f"\n## {TITLES[config]}: `{config}`\n\n"
            f"| setting | type | default | meaning |\n|---|---|---|---|\n{rows}"
        )
    return by_hand + (marker or MARKER) + "".join(tables)


def _row(setting: Setting) -> str:
    default = "has to be given" if setting.default is None else setting.default
    kind = setting.type.replace("|", "\\|")
    return f"| `{setting.name}` | `{kind}` | {default} | {setting.text.replace('``', '`')} |\n"


def main() -> None:
    """Write both."""
    TYPES.write_text(types(), "utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(TYPES)], check=True)
    PAGE.write_text(page(PAGE.read_text("utf-8") if PAGE.exists() else ""), "utf-8")


if __name__ == "__main__":
    main()
