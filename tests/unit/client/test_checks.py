"""
Every argument of every public call of the client is checked, on all faces. The calls are found by
introspection, so that new ones are tested as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client import aio, blocking, checks, tx
from metamorphosis.client.checked import checked
from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.model import LostMessage, OutgoingMessage, Partition, ReceivedMessage
from metamorphosis.client.offsets.localfile import LocalFileOffsetStore
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.offsets.mysql import MySQLOffsetStore
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore
from metamorphosis.client.runtimes import plainconsumers, plainproducers, plaintransactions
from metamorphosis.client.settings import ClientConfig, ConsumerConfig
from metamorphosis.client.topics import selectors
from metamorphosis.client.transactions.coordinator import Coordinator
from metamorphosis.client.transactions.xa import Xid
from metamorphosis.client.transactions.xaproducer import XAProducer
from metamorphosis.errors import InvalidArgument, InvalidConfig
from metamorphosis.testing.runtime import MemoryRuntime
from tests.unit.client.test_faces import CORE, INTERNAL

PLAIN = (plainconsumers, plainproducers, plaintransactions)


class Strange:
    """An object that is not valid for any argument."""

    def __repr__(self) -> str:
        return "<strange>"


FINE: dict[str, Any] = {
    "topic": "t",
    "data": b"x",
    "callback": lambda result, error: None,
    "bodies": [b"x"],
    "messages": [OutgoingMessage("t", b"x")],
    "strategy": lambda message: None,
    "listener": lambda message: None,
    "message": ReceivedMessage("t", Partition(0, 0), 0, 1, 0, b"x"),
    "partition": Partition(0, 0),
    "offset": 0,
    "milliseconds": 0,
    "group": "g",
    "offsets": [],
    "key_of": lambda message: "k",
    "xid": Xid(1, b"g", b"b"),
    "seconds": 1,
}
"""For parameters without a default, where another one is in question."""

WRONG: dict[str, list[Any]] = {
    "topic": ["", "  ", ["a"], b"x", "a b", "a/b", "a\r\nb", "a\0b", "\ud800", None],
    "data": ["text", 5, None, ["x"]],
    "attribute": [5, b"x", "\ud800"],
    "key": [5, ["k"], 1.5],
    "partition": ["0-0", (0, 0), 3, Partition(0, -2), Partition(0, 1 << 31), Partition(0, "1")],  # type: ignore[arg-type]
    "timeout": [0, -1, "3", float("nan"), float("inf"), True, 1 << 40],
    "max_size": [0, -1, 1.5, "1", True, 1 << 31],
    "messages": [b"x", "text", 5, OutgoingMessage("t", b"x")],
    "bodies": [b"one message", "one message", 5],
    "batch": [1, "yes", None],
    "retries": [-1, "3", 1.5, True],
    "in_order": [1, None],
    "max_outstanding_bytes": [0, "1"],
    "offset": [-1, 1.5, "0", 1 << 63],
    "milliseconds": [-1, "now"],
    "target": ["host", "http://host:80", 8123, ""],
    "item": ["two words", "", 5],
    "offsets": [[("t", Partition(0, 0), 5)], None],
    "selector": ["round robin"],
    "lifetime": [0, -1, 1.5, "30", True],
    "xid": [
        (1, b"g", b"b"),
        Xid(1, b"", b"b"),
        Xid(1, b"g" * 65, b""),
        Xid(1, b"g", b"b" * 65),
        Xid(1 << 31, b"g", b"b"),
        Xid(1, "g", b"b"),  # type: ignore[arg-type]
    ],
    "flags": [-1, "TMJOIN", True],
    "one_phase": [1, None],
    "other": [5, None],
    "seconds": [-1, 1.5, True, "1"],
    "unique_qualifier": ["", "two words", "a:b", "a\tb", 5],
    "zookeeper": [["a:1"], "http://a:1", "a:1;b:1", "a:99999", "a:b", ",", 5],
    "broker": [["a:1"], "a", "http://a:1", 8123],
}
"""What each kind of argument must not be, beside ``Strange``."""


class InPlace:
    """Takes the place of a ``LoopThread``: calls where it is called from."""

    def __init__(self, runtime: MemoryRuntime) -> None:
        self._runtime = runtime
        self.loop = self

    def create_future(self) -> Any:
        """Of the runtime."""
        return self._runtime.api.create_future()

    def call(self, function: Callable[..., Any], *values: Any, **options: Any) -> Any:
        """The result, or the error that a future holds."""
        found = function(*values, **options)
        return self._runtime.result(found) if isinstance(found, Deferred) else found


BORDERS: dict[str, tuple[list[Any], list[Any]]] = {
    "offset": ([0, (1 << 63) - 1], [-1, 1 << 63]),
    "milliseconds": ([0, (1 << 63) - 1], [-1, 1 << 63]),
    "retries": ([0, (1 << 31) - 1], [-1, 1 << 31]),
    "lifetime": ([1, (1 << 31) - 1], [0, 1 << 31]),
    "window": ([1 - (1 << 31), (1 << 31) - 1], [-(1 << 31), 1 << 31]),
    "max": ([1, (1 << 31) - 1], [0, 1 << 31]),
    "max_size": ([1, (1 << 31) - 1], [0, 1 << 31]),
    "max_outstanding_bytes": ([1, (1 << 63) - 1], [0, 1 << 63]),
    "timeout": ([1e-9, 2147483], [0, 0.0, -1e-9, 2147483.1, 2147484]),
    "partition": (
        [Partition(-1, -1), Partition((1 << 31) - 1, (1 << 31) - 1)],
        [Partition(-2, 0), Partition(0, -2), Partition(1 << 31, 0), Partition(0, 1 << 31)],
    ),
    "xid": (
        [
            Xid(-(1 << 31), b"g", b""),
            Xid((1 << 31) - 1, b"g" * 64, b"b" * 64),
        ],
        [
            Xid(-(1 << 31) - 1, b"g", b""),
            Xid(1 << 31, b"g", b""),
            Xid(1, b"", b""),
            Xid(1, b"g" * 65, b""),
            Xid(1, b"g", b"b" * 65),
        ],
    ),
}
"""The last right values of an argument, and the first wrong ones."""


class PublicCallTests(SynchronousTestCase):
    """Methods and constructors."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.lost: list[LostMessage] = []
        config = ClientConfig(
            broker="host:1",
            recover_path=self.mktemp(),
            local_message_path=self.mktemp(),
            async_storage_path=self.mktemp(),
        )  # type: ignore[arg-type]
        self.session = SessionFactory(self.runtime, config)
        self.fine = FINE | {
            "runtime": self.runtime,
            "registry": self.runtime.registry("zk:1", 1),
            "paths": self.session.paths,
            "path": self.mktemp(),
            "producer": XAProducer(self.session),
            "connect": lambda: None,
        }

    def core(self) -> dict[str, Any]:
        """One object of each class of the core."""
        session, made = self.session, {}
        for name, kind in CORE.items():
            if name == "MessageSessionFactory":
                made[name] = session
            elif name == "Consumer":
                made[name] = session.create_consumer("g")
            elif name == "TopicBrowser":
                made[name] = kind(session, "t")
            elif name != "Publishing":
                made[name] = kind(session)
        made["OneWayProducer"].on_lost(self.lost.append)
        made["Transaction"] = made["Producer"].transaction()
        made["XAResource"] = self.fine["other"] = made["XAProducer"].resource("host:1")
        return made

    def calls(self) -> Iterator[tuple[str, Any]]:
        """Every public call of every face, bound, with its name."""
        core = self.core()
        thread: Any = InPlace(self.runtime)
        for name, given in core.items():
            for method in public(type(given)):
                yield f"core {name}.{method}", getattr(given, method)
            face = None
            for module in PLAIN:
                face = face or getattr(module, name, None)
            if face is not None:
                arguments = [thread.call] if name == "Consumer" else []
                behind = face(thread, given, None, *arguments)
                for method in public(face):
                    yield f"blocking {name}.{method}", getattr(behind, method)
        factory: Any = blocking.MessageSessionFactory.__new__(blocking.MessageSessionFactory)
        factory._core, factory._thread, factory._listeners = self.session, thread, None
        for method in public(blocking.MessageSessionFactory):
            yield f"blocking factory.{method}", getattr(factory, method)
        path = self.mktemp()
        for store in (
            MemoryOffsetStore(),
            ZooKeeperOffsetStore(self.runtime.registry("zk:1", 1), self.session.paths),
            LocalFileOffsetStore(self.runtime, path),
            MySQLOffsetStore(self.runtime),
        ):
            for method in public(type(store)):
                yield f"{type(store).__name__}.{method}", getattr(store, method)
        for kind in (
            ZooKeeperOffsetStore,
            LocalFileOffsetStore,
            MySQLOffsetStore,
            selectors.RandomSelector,
            selectors.KeyHashSelector,
            tx.MessageSessionFactory,
            aio.MessageSessionFactory,
            Coordinator,
            blocking.MessageSessionFactory,
        ):
            yield kind.__name__, kind

    def error_of(self, call: Any, arguments: dict[str, Any]) -> str | None:
        """The text of the ``InvalidArgument`` that comes of it, wherever it goes."""
        del self.lost[:]
        told: list[Any] = []
        if "callback" in arguments and callable(arguments["callback"]):
            arguments["callback"] = lambda result, error: told.append(error)
        try:
            found = call(**arguments)
            if inspect.iscoroutine(found):
                found = Deferred.fromCoroutine(found)
            if isinstance(found, Deferred):
                self.runtime.result(found)
        except InvalidArgument as error:
            return str(error)
        self.runtime.turn()
        for error in told:
            self.assertIsInstance(error, InvalidArgument)
            return str(error)
        return self.lost[0].reason if self.lost else None

    def test_coroutine(self) -> None:
        """Whoever awaits it gets the error."""
        call: Any = MemoryOffsetStore().load
        found = Deferred.fromCoroutine(call("t", b"g", Partition(0, 0)))
        self.assertRaises(InvalidArgument, self.runtime.result, found)

    def test_every_argument(self) -> None:
        """The error is an ``InvalidArgument`` that names the argument and what it is."""
        seen = set()
        for where, call in self.calls():
            parameters = inspect.signature(call).parameters.values()
            usual = {each.name: self.fine[each.name] for each in parameters if required(each)}
            for each in parameters:
                if each.kind is each.VAR_KEYWORD:
                    continue
                for wrong in [Strange(), *WRONG.get(each.name, ())]:
                    if wrong is None and each.default is None:
                        continue
                    if where.endswith(".poll") and type(wrong) is int and wrong == 0:
                        continue  # it does not wait then
                    told = f"{where}: {each.name}={wrong!r}"
                    error = self.error_of(call, {**usual, each.name: wrong})
                    self.assertIsNotNone(error, f"{told} was taken")
                    self.assertIn("expected", str(error), told)
                    self.assertTrue(str(error).startswith(f"{each.name} is "), f"{told}: {error}")
                    seen.add(where)
        for expected in (
            "core Producer.send",
            "core XAResource.commit",
            "blocking Consumer.get",
            "MySQLOffsetStore.commit",
        ):
            self.assertIn(expected, seen)
        self.assertGreater(len(seen), 60)

    def test_settings_of_a_consumer(self) -> None:
        """What ``create_consumer`` is given is looked at like a ``ConsumerConfig``."""
        for settings in ({"offset": "0"}, {"group": 5}, {"partition": 0}, {"max_retries": 1}):
            with self.assertRaises(InvalidConfig):
                self.session.create_consumer(**{"group": "g", **settings})

    def test_fine_arguments(self) -> None:
        """Unusual valid arguments."""
        consumer = self.session.create_consumer("g")
        consumer.subscribe("orders\u4e3b", 1, print, None, batch=True)
        one = ReceivedMessage("t", Partition(0, 0), 0, 1, 0, b"x")
        for name, value in (
            ("data", memoryview(b"x")),
            ("partition", Partition(-1, -1)),
            ("timeout", 3),
            ("key", b"k"),
            ("message", one),
            ("store", MemoryOffsetStore()),
        ):
            self.assertIsNone(checks.CHECKS[name](value), name)

    def test_borders(self) -> None:
        """The first and the last value that is taken, and those next to them."""
        for name, (right, wrong) in BORDERS.items():
            for value in right:
                self.assertIsNone(checks.CHECKS[name](value), (name, value))
            for value in wrong:
                self.assertIn("expected", checks.CHECKS[name](value) or "", (name, value))
        for value in (0, 0.0, 1e-9, 2147483):
            self.assertIsNone(checks.patience(value), value)
        for value in (False, -1, 2147484, "0"):
            self.assertEqual(
                "0 or seconds above 0, 2147483 at most, expected", checks.patience(value)
            )

    def test_call_without_checks(self) -> None:
        """A parameter that no check is known of fails the import."""

        def call(self: object, topic: str, colour: str) -> None:
            """Of a careless programmer."""

        error = self.assertRaises(TypeError, checked(), call)
        self.assertIn("no check of colour", str(error))

    def test_arguments_behind_settings(self) -> None:
        """Settings are checked by their own classes; what follows them keeps its own check."""

        def call(self: object, broker: object, topic: str, timeout: float | None = None) -> str:
            """Takes all by position."""
            return topic

        call = checked()(call)
        self.assertEqual("t", call(self, Strange(), "t", 1))
        for values, wrong in (((Strange(), "", 1), "topic"), ((Strange(), "t", "1"), "timeout")):
            error = self.assertRaises(InvalidArgument, call, self, *values)
            self.assertTrue(str(error).startswith(f"{wrong} is "), str(error))

    def test_values_are_shortened(self) -> None:
        """A message of megabytes does not become an error of megabytes."""
        error = self.assertRaises(InvalidArgument, checks.require, "data", "x" * (1 << 20))
        self.assertLess(len(str(error)), 200)

    def test_kinds(self) -> None:
        """Each says what would be right, and nothing of a value that is."""
        kinds: list[tuple[checks.Check, object, object, str]] = [
            (checks.integer(1, 3, "a number"), 3, True, "a number from 1 to 3 expected"),
            (checks.instance((int, str), "it"), "x", b"x", "it expected"),
            (checks.callable_with("it"), len, 5, "a function of it expected"),
            (checks.having(("real", "imag"), "it"), 5, int, "it expected"),
            (checks.optional(checks.truth), None, 1, "True or False expected"),
        ]
        for check, right, wrong, text in kinds:
            self.assertEqual((None, text), (check(right), check(wrong)))

    def test_values_are_legible(self) -> None:
        """What is as long as an address or a path is shown whole."""
        for value in ("a" * 60, b"b" * 60):
            self.assertIn(repr(value), checks.fault("data", value, "an example"))


class SettingTests(SynchronousTestCase):
    """The two classes of settings."""

    WRONG: ClassVar[list[Any]] = [Strange(), ["a:1"], -(1 << 70)]

    def test_every_setting(self) -> None:
        """The text names the setting and what would be right."""
        for kind, usual in ((ClientConfig, {"broker": "a:1"}), (ConsumerConfig, {"group": "g"})):
            for each in fields(kind):  # type: ignore[arg-type]
                if each.name == "group":
                    continue  # the original's texts, see test_settings
                for wrong in self.WRONG:
                    error = self.assertRaises(InvalidConfig, kind, **{**usual, each.name: wrong})
                    self.assertTrue(str(error).startswith(f"{each.name} is "), str(error))
                    self.assertIn("expected", str(error))

    def test_zookeeper(self) -> None:
        """What the registry would try for thirty seconds fails at once."""
        for text, hint in (
            ("http://zk:2181", "no URL"),
            ("zk1:2181;zk2:2181", "a comma does"),
            ("zk1:2181 zk2:2181", "a comma does"),
            ("zk:0", "1 to 65535"),
            ("zk:2181,", "a host is missing"),
            ("zk:2181/a b", "localhost:2181/metaq"),
        ):
            error = self.assertRaises(InvalidConfig, ClientConfig, zookeeper=text)
            self.assertIn(hint, str(error))
        for text in ("zk", "zk:1,zk2/chroot", "[::1]:2181", "zk:1, zk2:1", "10.0.0.1:2181/a/b/"):
            self.assertEqual(text, ClientConfig(zookeeper=text).zookeeper)

    def test_partitions_info(self) -> None:
        """What the ordered producer could not read is refused before there is one."""
        for wrong in ({"t": 5}, {"t": "0:0"}, {"t": "many"}, "t=0:1"):
            with self.assertRaises(InvalidConfig):
                ClientConfig(broker="a:1", partitions_info=wrong)  # type: ignore[arg-type]


def public(kind: type) -> list[str]:
    """The methods for users, inherited ones too."""
    hidden = {each for name in kind.__mro__ for each in INTERNAL.get(name.__name__, ())}
    hidden = hidden if kind.__module__.startswith("metamorphosis.client.") else set()
    return [
        name
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
        and (name not in hidden or kind.__module__ in {each.__name__ for each in PLAIN})
        and inspect.signature(value).parameters.keys() - {"self"}
    ]


def required(parameter: inspect.Parameter) -> bool:
    """Without a default."""
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
