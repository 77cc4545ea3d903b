"""
One text for the same method on every face: the core's, which says what the method does, gives,
raises and costs. Pure.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Final, TypeVar

C = TypeVar("C", bound=type)

LOOPS: Final = {"__aiter__", "__iter__"}
"""The special methods with a text."""
GIVES: Final = {
    "Deferred[": "Gives a Deferred of that, which has the errors as well.",
    "Future[": "Gives an ``asyncio.Future`` of that, which has the errors as well.",
}
"""Beginning of a result's type -> the sentence about it."""


def documented(*cores: type) -> Callable[[C], C]:
    """
    A class decorator: methods and properties get the text of the core's of the same name. A text of
    their own, which says what differs on this face, follows it.

    :param cores: the first one that has the name counts.
    """

    def decorate(face: C) -> C:
        for name, member in vars(face).items():
            if not isinstance(member, FunctionType | property):
                continue
            if name.startswith("_") and name not in LOOPS:
                continue
            text = next(filter(None, (_text(core, name) for core in cores)), None)
            if text is not None:
                member.__doc__ = _joined(text, [_gives(member), member.__doc__ or ""])
        return face

    return decorate


def _text(core: type, name: str) -> str | None:
    found = getattr(core, "__aiter__" if name == "__iter__" else name, None)
    return None if found is None else inspect.getdoc(found)


def _gives(member: FunctionType | property) -> str:
    result = str(getattr(member, "__annotations__", {}).get("return", ""))
    return next((text for start, text in GIVES.items() if result.startswith(start)), "")


def _joined(text: str, more: list[str]) -> str:
    """The sentences as a paragraph before the fields."""
    sentences = [inspect.cleandoc(each) for each in more if each]
    lines = text.split("\n")
    place = next((n for n, line in enumerate(lines) if line.startswith(":")), len(lines))
    head = "\n".join(lines[:place]).strip()
    fields = "\n".join(lines[place:]).strip()
    return "\n\n".join(filter(None, [head, "\n".join(sentences), fields]))
