"""
The layers of ``docs/architecture.md``, enforced: which room may import what, who may make
interfaces and threads, and that the pure rooms work without Twisted and the other libraries
installed.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "metamorphosis"

#: layer: the modules and packages in it
LAYERS = {
    "pure": {
        "native",
        "seldom",
        "lone",
        "wire",
        "message",
        "partitions",
        "ids",
        "cron",
        "config",
        "errors",
        "cluster.paths",
        "cluster.model",
        "cluster.connect",
        "zookeeper.jute",
        "zookeeper.codes",
        "zookeeper.nodes",
        "zookeeper.acl",
        "zookeeper.tree",
        "zookeeper.multi",
        "zookeeper.watches",
        "zookeeper.sessions",
        "zookeeper.requests",
        "zookeeper.server",
        "transactions.protobuf",
        "transactions.records",
        "transactions.locations",
        "transactions.checkpoint",
        "transactions.javastream",
        "transactions.heuristiclog",
        "transactions.ordinary",
        "transactions.replay",
        "client.transactions.xa",
        "client.checks",
        "client.checked",
        "client.settingchecks",
        "client.settings",
        "client.settingtypes",
        "client.documented",
        "client.messagefields",
        "client.model",
        "client.partitionsinfo",
        "client.network.opaques",
        "client.network.replies",
        "client.topics.selectors",
        "client.group.balancing",
        "client.delivery.duplicates",
    },
    "interfaces": {"interfaces", "readgate", "gathering", "parallel", "sockets"},
    "store": {"threads", "daemon.directorylock", "store"},
    "cluster": {"cluster"},
    "transactions": {"transactions"},
    "broker": {"broker"},
    "web": {"web"},
    "zookeeper": {"zookeeper"},
    "client": {"client"},
    "faces": {
        "client.tx",
        "client.aio",
        "client.blocking",
        "client.runtimes",
        "client.transactions.coordinator",
    },
    "replication": {"replication"},
    "testing": {"testing"},
    "top": {
        "daemon",
        "tap",
        "cli",
        "terminal",
        "zookeeper.tap",
        "zookeeper.copytree",
    },
}

#: layer: the layers it may import from, and the libraries beside the standard one
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "pure": ({"pure"}, set()),
    "interfaces": ({"pure", "interfaces"}, {"zope", "twisted"}),
    "store": ({"pure", "interfaces", "store"}, {"zope", "twisted"}),
    "cluster": ({"pure", "interfaces", "cluster"}, {"zope", "twisted", "kazoo"}),
    "transactions": ({"pure", "interfaces", "store", "transactions"}, {"zope", "twisted"}),
    "broker": ({"pure", "interfaces", "store", "transactions", "broker"}, {"zope", "twisted"}),
    "web": ({"pure", "interfaces", "store", "transactions", "broker", "web"}, {"twisted"}),
    "zookeeper": ({"pure", "interfaces", "zookeeper"}, {"zope", "twisted"}),
    "client": ({"pure", "interfaces", "cluster", "client"}, {"zope", "txaio", "pymysql"}),
    "faces": (
        {"pure", "interfaces", "store", "cluster", "client", "faces"},
        {"zope", "twisted", "txaio"},
    ),
    "replication": (
        {"pure", "interfaces", "store", "cluster", "transactions", "broker", "client", "faces"}
        | {"replication"},
        {"zope", "twisted"},
    ),
    "testing": (
        {"pure", "interfaces", "store", "cluster", "client", "faces", "testing"},
        {"zope", "twisted", "txaio"},
    ),
    "top": (set(LAYERS), {"zope", "twisted", "kazoo", "shtab"}),
}

#: these may use ``threads``, which shares a layer with ``store``; ``daemon.parts`` and
#: ``daemon.process`` are for every service
EXCEPTIONS = {
    ("cluster", "threads"),
    ("client", "threads"),
    ("zookeeper", "threads"),
    ("zookeeper", "daemon.parts"),
    ("zookeeper", "daemon.directorylock"),
    ("zookeeper", "daemon.process"),
}

#: what the standard library has and a layer may not use: the client's core runs on any loop
FORBIDDEN = {"client": {"asyncio"}}

#: a faster twin of something in the standard library, imported with the original to fall back on
OPTIONAL = {("message", "isal.isal_zlib.crc32")}

#: names that make threads; only ``threads`` may use them
THREAD_MAKERS = {
    "Thread",
    "Timer",
    "ThreadPool",
    "ThreadPoolExecutor",
    "start_new_thread",
    "deferToThread",
    "deferToThreadPool",
    "callInThread",
    "callMultipleInThread",
}


#: room of the client: its modules, and the rooms below that they may import from, also for type
#: checkers; the longest name decides
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "values": (
        {"model", "messagefields", "settings", "settingtypes", "settingchecks", "documented"}
        | {"checks", "checked", "partitionsinfo", "localstore"}
        | {"transactions.xa"},
        set(),
    ),
    "offsets": ({"offsets"}, {"values"}),
    "network": ({"network"}, {"values"}),
    "topics": ({"topics"}, {"values", "network"}),
    "session": ({"session"}, {"values", "network", "topics"}),
    "sending": (
        {"producer.puts", "producer.many", "producer.publisher"},
        {"values", "network", "topics", "session"},
    ),
    "transactions": (
        {"transactions"},
        {"values", "network", "topics", "session", "sending"},
    ),
    "producer": (
        {"producer"},
        {"values", "offsets", "network", "topics", "session", "sending", "transactions"},
    ),
    "delivery": ({"delivery"}, {"values", "offsets", "network"}),
    "fetch": ({"fetch"}, {"values", "network", "delivery"}),
    "group": ({"group"}, {"values", "network"}),
    "consumer": (
        {"consumer"},
        {"values", "offsets", "network", "topics", "session", "delivery", "fetch", "group"},
    ),
    "factory": (
        {"factory"},
        {"values", "offsets", "topics", "session", "sending", "producer", "transactions"}
        | {"delivery", "consumer"},
    ),
    "runtimes": ({"runtimes"}, {"values", "network"}),
    "faces": (
        {"tx", "aio", "blocking"}
        | {"runtimes.plain", "runtimes.plainproducers", "runtimes.plainconsumers"}
        | {"runtimes.plainlater"}
        | {"runtimes.plaintransactions", "runtimes.listenerthreads"}
        | {"runtimes.txtransactions", "runtimes.aiotransactions", "transactions.coordinator"}
        | {"runtimes.txproducers", "runtimes.aioproducers"}
        | {"runtimes.txconsumers", "runtimes.aioconsumers"},
        {"values", "network", "topics", "sending", "transactions", "producer", "delivery"}
        | {"fetch", "consumer", "factory", "runtimes"},
    ),
}

#: rooms whose modules do not import each other in a circle, also for type checkers
STRAIGHT = (
    "broker.",
    "cli.",
    "client.",
    "cluster.",
    "config.",
    "daemon.",
    "replication.",
    "store.",
    "transactions.",
    "wire.",
    "zookeeper.",
)

#: refuses every library of ours but the standard one
BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("twisted", "zope", "kazoo", "pymysql", "txaio", "isal"):
            raise ImportError(top + " is blocked")

sys.meta_path.insert(0, Block())
"""


def layer_of(module: str) -> str | None:
    """The layer of ``wire.decoding``, ``store``, ...; the longest name in the table decides."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        for layer, members in LAYERS.items():
            if name in members:
                return layer
    return None


def imports(module: str, tree: ast.AST, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything imported, inside functions and for type checkers too."""
    package = ["metamorphosis", *module.split(".")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = len(package) - node.level + is_package
                base = ".".join([*package[:kept], *([base] if base else [])])
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """Everything in a module's source that its layer does not allow."""
    tree = ast.parse(source)
    layer = layer_of(module)
    if layer is None:
        return [f"{module} is in no layer of docs/architecture.md"]
    found = []
    layers, libraries = ALLOWED[layer]
    for line, name in imports(module, tree, is_package):
        top, _, rest = name.partition(".")
        if top == "metamorphosis":
            allowed = _imports_ours(layer, layers, rest)
        else:
            allowed = top in sys.stdlib_module_names or top in libraries
            allowed = allowed and top not in FORBIDDEN.get(layer, ())
            allowed = allowed or (module, name) in OPTIONAL
        if not allowed:
            found.append(f"{module}:{line} imports {name}")
        if name == "twisted.internet.reactor" and layer != "top":
            found.append(f"{module}:{line} imports the global reactor")
    found += _misplaced(module, tree)
    return found


def _imports_ours(layer: str, layers: set[str], name: str) -> bool:
    """Whether the layer may import this name of ours; ``__version__`` is everyone's."""
    if name in ("", "__version__"):
        return True
    parts = name.split(".")
    excepted = any((layer, ".".join(parts[:length])) in EXCEPTIONS for length in (1, 2))
    return layer_of(name) in layers or excepted


def _misplaced(module: str, tree: ast.Module) -> Iterator[str]:
    """
    Interfaces outside ``interfaces``, threads outside ``threads``, the reactor at module level.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and module != "interfaces":
            if any(isinstance(base, ast.Name) and base.id == "Interface" for base in node.bases):
                yield f"{module}:{node.lineno} defines the interface {node.name}"
        if isinstance(node, ast.Call) and module != "threads":
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in THREAD_MAKERS:
                yield f"{module}:{node.lineno} makes a thread: {name}"
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "twisted.internet":
            if any(name.name == "reactor" for name in statement.names):
                yield f"{module}:{statement.lineno} imports the global reactor at module level"


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of the package but its own ``__init__``, by its name below ``metamorphosis``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts:
            yield ".".join(parts), path


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules that stand in circles, or between two of them, of what imports what."""
    left = dict(graph)
    while True:
        imported = set().union(*left.values()) if left else set()
        ends = [name for name in left if not left[name] & set(left) or name not in imported]
        if not ends:
            return sorted(left)
        for name in ends:
            del left[name]


def imported_within(room: str) -> dict[str, set[str]]:
    """Each module of a room, and those of the same room that it imports."""
    modules = {module: path for module, path in sources() if module.startswith(room)}
    found = {}
    for module, path in modules.items():
        names = set()
        for _, name in imports(module, ast.parse(path.read_text("utf-8")), False):
            ours = name.removeprefix("metamorphosis.")
            while ours and ours not in modules:
                ours = ours.rpartition(".")[0]
            names.add(ours)
        found[module] = (names & set(modules)) - {module}
    return found


def tree_of(text: str) -> set[str]:
    """The modules of an indented drawing of directories, as paths."""
    found, stack = set(), [(0, "")]
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        name = line.strip().partition(" ")[0]
        if name.endswith("/"):
            while stack[-1][0] >= indent and len(stack) > 1:
                stack.pop()
            stack.append((indent, stack[-1][1] + name))
            continue
        while stack[-1][0] >= indent and len(stack) > 1:
            stack.pop()
        found |= {stack[-1][1] + module for module in re.findall(r"\b(\w+\.(?:py|c))\b", line)}
    return found


def room_of(module: str) -> str | None:
    """The room of ``client.network.flow``, ...; the longest name in the table decides."""
    parts = module.split(".")[1:]
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        for room, (members, _) in ROOMS.items():
            if name in members:
                return room
    return None


def wrong_ways(graph: dict[str, set[str]]) -> list[str]:
    """Imports of the client that its rooms do not allow, and modules without a room."""
    found = []
    for module, imported in graph.items():
        room = room_of(module)
        if room is None:
            found.append(f"{module} is in no room")
            continue
        for name in imported:
            other = room_of(name)
            if other != room and other not in ROOMS[room][1]:
                found.append(f"{module} imports {name}")
    return sorted(found)


def packages(graph: dict[str, set[str]]) -> set[str]:
    """Modules that others are in: their names end up in a graph, and in no room."""
    return {name for name in graph if any(each.startswith(f"{name}.") for each in graph)}


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of its own, with the project in its path."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def strangers(directory: str, source: str) -> list[str]:
    """
    What a test module imports from the tests of another room; ``tests.support`` is for all, and
    parts of one room may use each other.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{each.name}" for each in node.names]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        else:
            continue
        found += [
            f"{node.lineno} imports {name}"
            for name in names
            if name.startswith(("tests.", "compat."))
            and not name.startswith(("tests.support", f"{directory}."))
        ]
    return found


class LayerTests(SynchronousTestCase):
    """The sources as they are."""

    def test_no_module_imports_against_the_direction(self) -> None:
        """Every import of every module points to its own layer or one below."""
        found = []
        for module, path in sources():
            found += violations(module, path.read_text("utf-8"), path.name == "__init__.py")
        self.assertEqual([], found)

    def test_no_circles(self) -> None:
        """Modules of a room can be read one after the other."""
        for room in STRAIGHT:
            graph = imported_within(room)
            self.assertGreater(len(graph), 1, room)
            self.assertEqual([], circle(graph), room)

    def test_tests_and_compat_share_only_the_support(self) -> None:
        """``compat`` runs without the other tests, and they without it."""
        found = []
        for directory in ("tests", "compat"):
            for path in sorted((ROOT / directory).rglob("*.py")):
                source = path.read_text(encoding="utf-8")
                name = path.relative_to(ROOT)
                found += [f"{name}:{each}" for each in strangers(directory, source)]
        self.assertEqual([], found)

    def test_rooms_of_the_client(self) -> None:
        """Every import within the client points to a room below."""
        graph = imported_within("client")
        halls = packages(graph) - {"client.offsets"}
        rooms = {name: graph[name] - halls for name in graph.keys() - halls}
        self.assertGreater(len(rooms), 60)
        self.assertEqual([], wrong_ways(rooms))

    def test_every_room_may_import_from_those_before_it(self) -> None:
        """The table itself has a direction: what a room may import from comes before it."""
        before: set[str] = set()
        for room, (_, below) in ROOMS.items():
            self.assertEqual(set(), below - before, room)
            before.add(room)

    def test_table_is_that_of_the_document(self) -> None:
        """``docs/architecture.md`` and this test allow the same imports in each layer."""
        text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
        table = text.partition("| layer | rooms | may import |")[2].partition("\n\n")[0]
        rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
        self.assertEqual(list(LAYERS), [row[0].strip("`") for row in rows])
        for layer, rooms, may_import in (row for row in rows[:-1]):
            layer = layer.strip("`")
            layers, libraries = ALLOWED[layer]
            if layer != "pure":
                self.assertEqual(LAYERS[layer], set(re.findall("`([^`]*)`", rooms)), layer)
            excepted = {name for importing, name in EXCEPTIONS if importing == layer}
            ours, _, others = may_import.partition("; ")
            named = set(re.findall("`([^`]*)`", ours))
            self.assertEqual((layers | excepted) - {layer}, named - {layer}, layer)
            self.assertEqual(libraries, set(others.split(", ")) - {""}, layer)

    def test_every_module_has_its_place(self) -> None:
        """The pages of the rooms name every module, and none that is gone."""
        text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
        places = tree_of(text.partition("```\nmetamorphosis/")[2].partition("```")[0])
        client = (ROOT / "docs" / "contributing-client.md").read_text("utf-8")
        for room, table in re.findall(r"^\| `(client/[a-z/]*)` .*\n((?:\|.*\n)*)", client, re.M):
            places |= {room + name for name in re.findall(r"`(\w+\.py)`", table)}
        zookeeper = (ROOT / "docs" / "zookeeper.md").read_text("utf-8")
        places |= {"zookeeper/" + name for name in re.findall(r"^\| `(\w+\.py)`", zookeeper, re.M)}
        modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
        modules = {name for name in modules if not name.endswith(("/__init__.py", "__main__.py"))}
        modules |= {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.c")}
        self.assertEqual([], sorted(modules - places), "stand in no page")
        self.assertEqual([], sorted(places - modules), "are gone")

    def test_package_itself_imports_nothing(self) -> None:
        """``import metamorphosis`` gives the version and loads no library."""
        tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
        names = [name for _, name in imports("", tree, True)]
        self.assertEqual([], [name for name in names if not name.startswith("__future__")])

    def test_pure_modules_need_no_library(self) -> None:
        """
        A tool that only wants to read a log or speak the protocol needs no Twisted, kazoo or
        anything else installed.
        """
        pure = [f"metamorphosis.{name}" for name, _ in sources() if layer_of(name) == "pure"]
        self.assertIn("metamorphosis.wire.decoding", pure)
        self.assertIn("metamorphosis.message", pure)
        script = BLOCKED + "\n".join(f"import {name}" for name in pure)
        outcome = run(script + "\nprint(metamorphosis.message.checksum(b'hello'))")
        self.assertEqual((0, ""), (outcome.returncode, outcome.stderr))
        self.assertEqual("907060870\n", outcome.stdout)

    def test_no_http_without_an_administrator(self) -> None:
        """What serves clients does not load ``twisted.web``: its 3 MiB come with the first
        connection of an administrator."""
        loaded = "sorted(name for name in sys.modules if name.startswith('twisted.web'))"
        outcome = run(f"import sys, metamorphosis.daemon.service\nprint({loaded})")
        self.assertEqual(("[]\n", ""), (outcome.stdout, outcome.stderr))
        outcome = run(f"import sys, metamorphosis.web.site\nprint({loaded})")
        self.assertIn("'twisted.web.server'", outcome.stdout)

    def test_the_block_blocks(self) -> None:
        """The test above would notice."""
        outcome = run(BLOCKED + "import metamorphosis.interfaces")
        self.assertIn("zope is blocked", outcome.stderr)


class RuleTests(SynchronousTestCase):
    """The rules find what they are for."""

    def test_circles(self) -> None:
        """A circle of any length is found; what leads to it or from it is not blamed."""
        straight = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
        self.assertEqual([], circle(straight))
        self.assertEqual(["b", "c"], circle({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}))
        self.assertEqual(["a", "b", "c"], circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}))

    def test_wrong_ways(self) -> None:
        """A room above, a module of no room."""
        graph = {
            "client.network.flow": {"client.topics.directory", "client.model"},
            "client.topics.directory": {"client.network.flow"},
            "client.unheardof": {"client.model"},
        }
        self.assertEqual(
            [
                "client.network.flow imports client.topics.directory",
                "client.unheardof is in no room",
            ],
            wrong_ways(graph),
        )

    def test_wrong_imports(self) -> None:
        """One example of each forbidden direction."""
        for module, source in (
            ("wire.decoding", "import twisted"),
            ("wire.decoding", "from zope.interface import Interface"),
            ("wire.decoding", "def f():\n    from metamorphosis import interfaces"),
            ("wire.decoding", "from metamorphosis.store import segment"),
            ("wire.decoding", "from .. import store"),
            ("wire.decoding", "from ..broker.topics import Topics"),
            ("config.model", "if TYPE_CHECKING:\n    from twisted.internet.defer import Deferred"),
            ("cluster.paths", "from metamorphosis.cluster import registry"),
            ("cluster.model", "import kazoo.client"),
            ("interfaces", "from metamorphosis.threads import WorkerThreads"),
            ("store.segment", "from metamorphosis.broker import topics"),
            ("store.segment", "from metamorphosis.cluster.registry import ZooKeeperRegistry"),
            ("store.segment", "import kazoo"),
            ("cluster.registry", "from metamorphosis.store.messagestore import MessageStore"),
            ("broker.topics", "from metamorphosis.cluster.registry import ZooKeeperRegistry"),
            ("broker.topics", "import kazoo"),
            ("broker.topics", "import metamorphosis.daemon.service"),
            ("service", "import requests"),
            ("client.producer.producer", "import asyncio"),
            ("client.producer.producer", "from twisted.internet.defer import Deferred"),
            (
                "client.producer.producer",
                "from metamorphosis.client.tx import MessageSessionFactory",
            ),
            ("client.settings", "import txaio"),
            ("zookeeper.tree", "import sqlite3, twisted"),
            ("zookeeper.connection", "import kazoo"),
            ("unheardof", "import os"),
        ):
            self.assertEqual(1, len(violations(module, source)), (module, source))

    def test_imports_of_other_tests(self) -> None:
        """Each direction, and every form of it."""
        for directory, source, wrong in (
            ("tests", "from compat import exchange", True),
            ("tests", "import compat.exchange", True),
            ("tests", "def f() -> None:\n    from compat.exchange import Reply", True),
            ("tests", "from tests.faults import world", False),
            ("compat", "from tests.unit.client import fakes", True),
            ("compat", "from tests import run", True),
            ("compat", "from tests.support import peers", False),
            ("compat", "from compat import exchange", False),
        ):
            self.assertEqual(wrong, bool(strangers(directory, source)), source)

    def test_right_imports(self) -> None:
        """One example of each allowed direction."""
        for module, source in (
            ("wire.decoding", "import os, struct\nfrom metamorphosis.errors import MetaQError"),
            ("wire.decoding", "from . import commands\nfrom .commands import PutCommand"),
            ("wire", "from metamorphosis import message, __version__"),
            ("interfaces", "from zope.interface import Interface"),
            ("interfaces", "from metamorphosis.cluster.model import Broker"),
            ("store.segment", "from metamorphosis.threads import WorkerThreads"),
            ("store.segment", "import twisted.logger"),
            ("cluster.registry", "import kazoo.client"),
            ("cluster.registry", "from metamorphosis.threads import WorkerThreads"),
            ("broker.topics", "from metamorphosis.store.segment import Segment"),
            ("broker.topics", "from metamorphosis.cluster.model import Broker"),
            (
                "daemon.service",
                "import metamorphosis.cluster.registry, metamorphosis.broker.factory",
            ),
            ("client.producer.producer", "from metamorphosis.threads import WorkerThreads"),
            ("client.aio", "import asyncio, txaio"),
            ("zookeeper.service", "from metamorphosis.daemon.parts import Part"),
        ):
            self.assertEqual([], violations(module, source), (module, source))

    def test_relative_import_of_a_package(self) -> None:
        """``__init__`` counts as its package."""
        self.assertEqual([], violations("wire", "from .commands import x", is_package=True))
        self.assertEqual(1, len(violations("wire", "from ..store import x", is_package=True)))

    def test_reactor(self) -> None:
        """The global reactor is passed in; only the top may fetch it, inside a function."""
        source = "from twisted.internet import reactor"
        self.assertTrue(violations("broker.factory", source))
        self.assertTrue(violations("broker.factory", "def f():\n    " + source))
        self.assertTrue(violations("tap", source))
        self.assertEqual([], violations("tap", "def f():\n    " + source))

    def test_interfaces_and_threads_have_one_home(self) -> None:
        """An interface is only defined in ``interfaces``, a thread only made in ``threads``."""
        interface = "class IFoo(Interface):\n    pass"
        self.assertEqual(1, len(violations("broker.topics", interface)))
        self.assertEqual([], violations("interfaces", interface))
        for call in ("threading.Thread(target=f)", "deferToThread(f)", "reactor.callInThread(f)"):
            self.assertEqual(1, len(violations("store.segment", call)), call)
            self.assertEqual([], violations("threads", call))
