"""``help`` of every public method of every face says what it does, gives, raises and costs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client import aio, blocking, tx
from metamorphosis.client.documented import documented
from tests.unit.client.test_faces import CORE, INTERNAL, OTHERS, TRANSACTIONS, promised_by

NAMES = [*(CORE.keys() - {"Publishing"}), *TRANSACTIONS]


def classes() -> Iterator[tuple[str, type]]:
    """The classes of all faces, and those of the core that the objects of two of them have."""
    for name in NAMES:
        for face in (tx, aio):
            yield f"{face.__name__}.{name}", promised_by(face, name)
        yield f"blocking.{name}", getattr(blocking, name)
        core = {**CORE, **TRANSACTIONS}[name]
        yield f"core {name}", core


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties for users."""
    hidden = {name for names in INTERNAL.values() for name in names}
    for name, member in inspect.getmembers(cls):
        if not name.startswith("_") and name not in hidden:
            if inspect.isfunction(member) or isinstance(member, property):
                yield name, member


def faults(name: str, member: Any) -> Iterator[str]:
    """What a text lacks."""
    text = inspect.getdoc(member) or ""
    if not text:
        yield "there is no text"
        return
    if re.search(r"\b[Ss]ee (`|the )", text):
        yield "it leads elsewhere"
    if isinstance(member, property):
        return
    result = str(inspect.signature(member).return_annotation)
    if ":returns:" not in text and "None" not in result and result not in ("None", "Self"):
        yield f"it does not say what is given: {result}"
    if ":raises" not in text and "aises nothing" not in " ".join(text.split()):
        yield "it does not say what is raised"
    if "osts " not in text:
        yield "it does not say what it costs"


class HelpTests(SynchronousTestCase):
    """All texts."""

    def test_every_public_method(self) -> None:
        """Each text is complete, and each reference exists."""
        found = [
            f"{where}.{name}: {fault}"
            for where, cls in classes()
            for name, member in members(cls)
            for fault in faults(name, member)
        ]
        self.assertEqual([], found)

    def test_all_faces_are_looked_at(self) -> None:
        """The walk comes to the methods."""
        seen = {f"{where}.{name}" for where, cls in classes() for name, _ in members(cls)}
        for face in ("metamorphosis.client.tx", "metamorphosis.client.aio", "blocking"):
            for method in ("Consumer.poll", "Producer.send", "XAResource.prepare"):
                self.assertIn(f"{face}.{method}", seen)
            self.assertIn(f"{face}.MessageSessionFactory.create_consumer", seen)
        self.assertEqual({tx, aio}, set(OTHERS))

    def test_members_without_a_text(self) -> None:
        """What is private, or no method, keeps what it has; a loop has the text of the core's."""

        class Core:
            @property
            def limit(self) -> int:
                """The limit."""
                return 5

            def _ask(self) -> int:
                """Of the core."""
                return 1

            def __aiter__(self) -> Any:
                """Each message."""

        @documented(Core)
        class Face:
            limit = 5

            def _ask(self) -> int:
                """Of the face."""
                return 1

            def __iter__(self) -> Any: ...

        self.assertEqual("Of the face.", Face._ask.__doc__)
        self.assertEqual("Each message.", Face.__iter__.__doc__)

    def test_sentences_of_a_face(self) -> None:
        """What differs there stands before the fields."""

        class Core:
            def ask(self) -> int:
                """
                Ask.

                :returns: the answer.
                """
                return 1

        @documented(Core)
        class Face:
            def ask(self) -> int:
                """It waits."""
                return 1

        @documented(Core)
        class Future:
            def ask(self) -> Deferred[int]:
                return Deferred()

        self.assertEqual("Ask.\n\nIt waits.\n\n:returns: the answer.", Face.ask.__doc__)
        gives = "Gives a Deferred of that, which has the errors as well."
        self.assertEqual(f"Ask.\n\n{gives}\n\n:returns: the answer.", Future.ask.__doc__)
        doc = tx.Producer.send.__doc__ or ""
        self.assertIn("Gives a Deferred of that", doc)
        self.assertIn("Gives an ``asyncio.Future`` of that", aio.Producer.send.__doc__ or "")
        self.assertNotIn("Deferred", blocking.Producer.send.__doc__ or "")
