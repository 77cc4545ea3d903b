"""
Puts a fault into a module that is imported already: the code of its functions is replaced.

What is executed while a module or a class is made, like the default of a parameter, cannot be
replaced afterwards; such a fault needs a process of its own.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import CodeType, FunctionType

Key = tuple[str, int, str]


def _key(code: CodeType) -> Key:
    """Where its function stands in a module."""
    return code.co_qualname, code.co_firstlineno, code.co_name


def _parts(code: CodeType) -> tuple[list[object], list[CodeType]]:
    """What a code object does itself, and the code of the functions and classes in it."""
    nested = [each for each in code.co_consts if isinstance(each, CodeType)]
    own = [repr(each) for each in code.co_consts if not isinstance(each, CodeType)]
    return [code.co_code, own, code.co_names, code.co_varnames], nested


def _changes(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """
    The functions that differ, as they were and as they are.

    :raises ValueError: more than functions differ.
    """
    is_function = bool(old.co_flags & 0x2) and old.co_name != "<module>"  # CO_NEWLOCALS
    if is_function and _is_optimized(old):
        if old != new:
            yield old, new
        return
    (before, nested_before), (after, nested_after) = _parts(old), _parts(new)
    if before != after or len(nested_before) != len(nested_after):
        raise ValueError(f"{old.co_qualname} is executed when the module is imported")
    for each, other in zip(nested_before, nested_after, strict=True):
        yield from _changes(each, other)


def _inside(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """The functions in a function that differ: a decorator has made some at an import."""
    nested, others = _parts(old)[1], _parts(new)[1]
    if len(nested) == len(others):
        for each, other in zip(nested, others, strict=True):
            if each != other:
                yield each, other
                yield from _inside(each, other)


def _is_optimized(code: CodeType) -> bool:
    """A function's, not a class's."""
    return bool(code.co_flags & 0x1)  # CO_OPTIMIZED


def plant(path: str, before: bytes, after: bytes) -> None:
    """
    Replace the functions of the module at ``path`` that differ between its two sources.

    :raises ValueError: this cannot be done; nothing has been replaced.
    """
    old, new = (compile(each, path, "exec", dont_inherit=True) for each in (before, after))
    changes = list(_changes(old, new))
    needed = {_key(was) for was, _ in changes}
    for change in list(changes):
        changes += _inside(*change)
    wanted = {_key(was): now for was, now in changes}
    found: dict[Key, list[FunctionType]] = {key: [] for key in wanted}
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__.co_filename == path:
            key = _key(each.__code__)
            if key in found:
                found[key].append(each)
    for key, functions in found.items():
        names = wanted[key].co_freevars
        missing = key in needed and not functions
        if missing or any(each.__code__.co_freevars != names for each in functions):
            raise ValueError(f"{key[0]} cannot be replaced")
    for key, functions in found.items():
        for each in functions:
            each.__code__ = wanted[key]
