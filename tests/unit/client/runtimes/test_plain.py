"""Plain calls reach the core: each with all its arguments, and with the core's result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client import blocking
from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.runtimes import plainconsumers, plainproducers, plaintransactions
from metamorphosis.client.runtimes.plain import Calls
from metamorphosis.errors import NotConnected
from tests.unit.client.test_faces import CORE, TRANSACTIONS

FACES = (plainproducers, plainconsumers, plaintransactions)
KINDS = {**CORE, **TRANSACTIONS}
OWN = {
    "Consumer": {"poll", "messages", "close", "on_assigned", "on_passed_over", "on_rejection"}
    | {"on_revoked", "subscribe"},
    "Producer": {"flush", "send_all", "send_later", "transaction"},
    "XAProducer": {"resource"},
    "XAResource": {"close"},
}
"""Calls that do more than to pass their arguments on."""


class Loop:
    """Takes the place of a ``LoopThread``: calls where it is called from."""

    @property
    def loop(self) -> None:
        """No loop is needed."""
        return None

    def call(self, function: Callable[..., Any], *values: Any, **options: Any) -> Any:
        """The result."""
        return function(*values, **options)


class Listeners:
    """Takes the place of ``ListenerThreads``: a listener is marked by its kind and its owner."""

    def awaited(self, owner: object, function: Any) -> Any:
        """Is waited for."""
        return lambda: ("awaited", owner, function)

    def told(self, owner: object, function: Any, what: str) -> Any:
        """Is not."""
        return lambda: ("told", owner, function)

    def check_not_inside(self, owner: object) -> None:
        """No listener runs."""


class Core:
    """
    An object of the core. What it returns is its name.

    :ivar calls: name and arguments of each call, by the parameters of the real one.
    """

    def __init__(self, kind: Any) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._kind, name, None)
        if not inspect.isfunction(real):
            return f"the {name}"

        def call(*values: Any, **options: Any) -> Any:
            given = inspect.signature(real).bind(self, *values, **options).arguments
            self.calls.append((name, {each: given[each] for each in list(given)[1:]}))
            return f"the {name}"

        return call


class Taking:
    """Asks, and hands out nothing."""

    def take(self, ask: Callable[[], object], timeout: float | None) -> list[object]:
        """See ``Taker``."""
        ask()
        return []


def face_of(name: str) -> Any:
    """The class with plain calls; None: it has none."""
    return next((getattr(each, name) for each in FACES if hasattr(each, name)), None)


def made(name: str) -> tuple[Any, Core]:
    """An object with plain calls, and the core behind it."""
    core = Core(KINDS[name])
    return face_of(name)(Loop(), core, None, *([Listeners()] if name == "Consumer" else [])), core


def members(kind: Any) -> Iterator[tuple[str, Any]]:
    """The public functions and properties of a class with plain calls."""
    for base in kind.__mro__:
        if issubclass(base, Calls):
            for name, each in vars(base).items():
                if not name.startswith("_"):
                    yield name, each


class PassingTests(SynchronousTestCase):
    """Of producers, consumers, browsers and transactions."""

    names = tuple(name for name in KINDS if face_of(name) is not None)

    def test_arguments_and_result(self) -> None:
        """The core's call of the same name gets each argument for the same parameter."""
        for name in self.names:
            face, core = made(name)
            for method, each in members(type(face)):
                if not inspect.isfunction(each) or method in OWN.get(name, ()):
                    continue
                parameters = list(inspect.signature(each).parameters)[1:]
                given = {parameter: f"a {parameter}" for parameter in parameters}
                where = f"{name}.{method}"
                found = getattr(face, method)(**given)
                self.assertEqual([(method, given)], core.calls, where)
                results = {"None": None, "Self": face}
                wanted = results.get(str(each.__annotations__["return"]), f"the {method}")
                self.assertEqual(wanted, found, where)
                del core.calls[:]

    def test_defaults(self) -> None:
        """Those of the core."""
        for name in self.names:
            for method, each in members(face_of(name)):
                real = getattr(KINDS[name], method, None)
                if inspect.isfunction(each) and inspect.isfunction(real):
                    parameters = inspect.signature(real).parameters
                    for parameter in inspect.signature(each).parameters.values():
                        where = f"{name}.{method}: {parameter.name}"
                        default = parameters[parameter.name].default
                        self.assertEqual(default, parameter.default, where)

    def test_properties(self) -> None:
        """They have the values of the core."""
        for name in self.names:
            face, core = made(name)
            core.assignment = {"a": "copy"}  # type: ignore[attr-defined]
            for found, each in members(type(face)):
                if isinstance(each, property):
                    self.assertEqual(getattr(core, found), getattr(face, found), (name, found))

    def test_listeners(self) -> None:
        """They run in threads, and the call returns the consumer; what is no listener is left for
        the core to refuse."""
        for method in ("on_rejection", "on_assigned", "on_revoked", "on_passed_over"):
            consumer, core = made("Consumer")
            how = "told" if method == "on_passed_over" else "awaited"
            self.assertIs(consumer, getattr(consumer, method)(print))
            [(called, given)] = core.calls
            [takes] = given.values()
            self.assertEqual((method, (how, consumer, print)), (called, takes()))
            getattr(consumer, method)("no listener")
            self.assertEqual(["no listener"], list(core.calls[-1][1].values()))

    def test_messages(self) -> None:
        """The core is asked for one at a time: to it those before have been processed."""
        consumer, core = made("Consumer")
        self.patch(consumer, "_taker", Taking())
        self.assertEqual([], list(consumer.messages(3.0)))
        self.assertEqual(("poll", {"timeout": 3.0, "max": 1}), core.calls[-1])

    def test_subscribe(self) -> None:
        """The same of its listener; the filter is called where the messages arrive."""
        consumer, core = made("Consumer")
        self.assertIs(consumer, consumer.subscribe("t", 7, print, len, batch=True, auto_ack=False))
        consumer.subscribe("u")
        [(_, given), (_, fewer)] = core.calls
        self.assertEqual(("awaited", consumer, print), given.pop("listener")())
        settings = {"batch": True, "auto_ack": False}
        self.assertEqual({"topic": "t", "max_size": 7, "filter": len, **settings}, given)
        settings = {"batch": False, "auto_ack": True}
        others = {"max_size": 1 << 20, "listener": None, "filter": None}
        self.assertEqual({"topic": "u", **others, **settings}, fewer)

    def test_transactions(self) -> None:
        """What the core makes gets plain calls, too, and keeps the factory."""
        for name, method, given in (
            ("Producer", "transaction", {"lifetime": 7, "target": "a", "timeout": 3.0}),
            ("XAProducer", "resource", {"target": "a"}),
        ):
            face, core = made(name)
            face._factory = "the factory"
            found = getattr(face, method)(**given)
            self.assertEqual([(method, given)], core.calls)
            self.assertIsInstance(found, (blocking.Transaction, blocking.XAResource))
            self.assertEqual((f"the {method}", "the factory"), (found._core, found._factory))

    def test_end_of_a_block(self) -> None:
        """A resource's costs nothing: its producer keeps the connection."""
        for name in self.names:
            face, core = made(name)
            with face as entered:
                self.assertIs(face, entered)
                core.is_ended = False  # type: ignore[attr-defined]
            wanted = {"XAResource": [], "Transaction": ["commit"]}.get(name, ["close"])
            self.assertEqual(wanted, [called for called, _ in core.calls], name)

    def test_end_of_a_block_that_raises(self) -> None:
        """A transaction is given up, whatever comes of that; the exception of the block counts."""
        for name in self.names:
            face, core = made(name)
            with self.assertRaises(ZeroDivisionError), face:
                raise ZeroDivisionError
            wanted = [] if name == "XAResource" else ["close"]
            self.assertEqual(wanted, [called for called, _ in core.calls], name)
        face, core = made("Transaction")
        core.close = self.refuse  # type: ignore[attr-defined]
        with self.assertRaises(ZeroDivisionError), face:
            raise ZeroDivisionError

    def test_end_of_a_block_after_the_transaction(self) -> None:
        """One that has ended is not committed."""
        face, core = made("Transaction")
        with face:
            core.is_ended = True  # type: ignore[attr-defined]
        self.assertEqual([], core.calls)

    def refuse(self) -> None:
        """Take the place of a call of the core."""
        raise NotConnected("no broker")


class FactoryTests(SynchronousTestCase):
    """Of the session factory."""

    def setUp(self) -> None:
        """A factory without a thread."""
        self.core = Core(SessionFactory)
        made: Any = blocking.MessageSessionFactory.__new__(blocking.MessageSessionFactory)
        made._core, made._thread, made._listeners = self.core, Loop(), Listeners()
        self.factory = made

    def test_arguments_and_result(self) -> None:
        """Each call gets its arguments, and what it creates has plain calls."""
        kinds = {
            "create_producer": blocking.Producer,
            "create_one_way_producer": blocking.OneWayProducer,
            "create_ordered_producer": blocking.OrderedProducer,
            "create_xa_producer": blocking.XAProducer,
            "create_consumer": blocking.Consumer,
            "create_broadcast_consumer": blocking.Consumer,
            "create_topic_browser": blocking.TopicBrowser,
        }
        for method in (*kinds, "get_stats", "get_partitions_for_topic"):
            call = getattr(self.factory, method)
            parameters = inspect.signature(call).parameters
            given = {name: f"a {name}" for name in parameters if name != "settings"}
            more = {"settings": {"long_poll_ms": 0}} if "settings" in parameters else {}
            found = call(**given, **more.get("settings", {}))
            self.assertEqual([(method, {**given, **more})], self.core.calls)
            if method in kinds:
                self.assertIs(kinds[method], type(found), method)
                self.assertEqual((f"the {method}", self.factory), (found._core, found._factory))
            else:
                self.assertEqual(f"the {method}", found)
            del self.core.calls[:]

    def test_defaults(self) -> None:
        """Those of the core."""
        for method, each in vars(blocking.MessageSessionFactory).items():
            real = getattr(SessionFactory, method, None)
            if method.startswith(("create_", "get_")) and inspect.isfunction(real):
                parameters = inspect.signature(real).parameters
                for parameter in inspect.signature(each).parameters.values():
                    where = f"{method}: {parameter.name}"
                    self.assertEqual(parameters[parameter.name].default, parameter.default, where)
