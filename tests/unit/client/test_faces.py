"""What the faces promise to type checkers is what the core has."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client import aio, factory, session, tx
from metamorphosis.client.consumer import browser, consumer
from metamorphosis.client.producer import oneway, ordered, producer, publisher
from metamorphosis.client.runtimes import (
    aioconsumers,
    aioproducers,
    aiotransactions,
    txconsumers,
    txproducers,
    txtransactions,
)
from metamorphosis.client.transactions import local, resource, sends, xaproducer
from tools import asyncio_faces

CORE = {
    "Publishing": publisher.Publisher,
    "Producer": producer.Producer,
    "OneWayProducer": oneway.OneWayProducer,
    "OrderedProducer": ordered.OrderedProducer,
    "XAProducer": xaproducer.XAProducer,
    "Consumer": consumer.Consumer,
    "TopicBrowser": browser.TopicBrowser,
    "MessageSessionFactory": factory.SessionFactory,
}
TRANSACTIONS = {"Transaction": local.Transaction, "XAResource": resource.XAResource}
"""In modules of their own."""
OTHERS = {
    tx: (txproducers, txconsumers, txtransactions),
    aio: (aioproducers, aioconsumers, aiotransactions),
}
"""The modules that have the other classes of a face."""
INTERNAL = {
    "Session": {"started", "add_child", "remove_child", "add_part", "next_session_id"},
    "Consumer": {"own_store"},
    "OneWayProducer": {"stored", "failed"},
}
"""Public for other rooms of the core, not for users."""
EXTENDED = {
    "SessionFactory": (session.Session,),
    "Transaction": (sends.Sends,),
    "XAResource": (sends.Sends,),
}
"""Bases whose public methods are for users too."""


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each."""
    found = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default) for each in found]


def declared(face: Any) -> dict[str, dict[str, ast.FunctionDef]]:
    """Class -> method -> its source, those for type checkers only included."""
    path = face.__file__
    tree = ast.parse(Path(path).read_text("utf-8"))
    return {
        each.name: {
            method.name: method for method in ast.walk(each) if isinstance(method, ast.FunctionDef)
        }
        for each in tree.body
        if isinstance(each, ast.ClassDef)
    }


def promised_by(face: Any, name: str) -> Any:
    """The class of that name that type checkers see."""
    return next(getattr(own, name) for own in (face, *OTHERS[face]) if hasattr(own, name))


def names_of(method: ast.FunctionDef) -> tuple[list[str], list[str], list[str]]:
    """Parameters, those by name only, and the sources of the defaults."""
    given = method.args
    defaults = [each for each in [*given.defaults, *given.kw_defaults] if each is not None]
    return (
        [each.arg for each in given.args],
        [each.arg for each in given.kwonlyargs],
        [ast.unparse(each) for each in defaults],
    )


def words(source: str) -> list[str]:
    """The tokens of a module without its line breaks."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [each.string for each in tokens if each.string.strip()]


class FaceTests(SynchronousTestCase):
    """Both faces."""

    def test_protocols_have_the_parameters_of_the_core(self) -> None:
        """Each method's parameters and defaults are those of the core's method."""
        for face in (tx, aio):
            for name, core in {**CORE, **TRANSACTIONS}.items():
                if name == "MessageSessionFactory":
                    continue
                protocol = promised_by(face, name)
                for method, promised in vars(protocol).items():
                    if inspect.isfunction(promised) and not method.startswith("_"):
                        real = getattr(core, method)
                        where = f"{face.__name__} {name}.{method}"
                        self.assertEqual(parameters(real), parameters(promised), where)

    def test_factory_has_the_parameters_of_the_core(self) -> None:
        """The methods that exist for type checkers only, as their source says."""
        core = declared(session)["Session"] | declared(factory)["SessionFactory"]
        for face in (tx, aio):
            methods = declared(face)["MessageSessionFactory"]
            self.assertIn("create_producer", methods)
            for name, method in methods.items():
                if name != "__init__":
                    where = f"{face.__name__} {name}"
                    self.assertEqual(names_of(core[name]), names_of(method), where)

    def test_nothing_is_missing(self) -> None:
        """Every public method of the core is promised."""
        for face, others in OTHERS.items():
            found = {name: each for own in (*others, face) for name, each in declared(own).items()}
            for name, core in {**CORE, **TRANSACTIONS}.items():
                promised = found[name].keys() | found["Closing"].keys()
                for each in (core, *EXTENDED.get(core.__name__, ())):
                    for method, real in vars(each).items():
                        if method.startswith("_") or method in INTERNAL.get(each.__name__, ()):
                            continue
                        if inspect.isfunction(real):
                            self.assertIn(method, promised, f"{face.__name__} {name}.{method}")

    def test_the_asyncio_face_is_made_from_the_other(self) -> None:
        """The files say so, and hold what the tool makes, but for line breaks."""
        for name in asyncio_faces.FACES:
            written = (asyncio_faces.CLIENT / name).read_text("utf-8")
            self.assertTrue(written.startswith("# Made from "), name)
            self.assertEqual(words(asyncio_faces.made(name)), words(written), "run 'make faces'")

    def test_a_text_to_replace_must_be_there(self) -> None:
        """The tool does not pass over a sentence of the Twisted face that was changed."""
        with_more = {"aio.py": ("tx.py", [("Nobody wrote this", "")])}
        self.patch(asyncio_faces, "FACES", with_more)
        with self.assertRaisesRegex(ValueError, "tx.py has 0 times, not once: 'Nobody wrote this'"):
            asyncio_faces.made("aio.py")
