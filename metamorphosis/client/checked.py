"""
The checks of a public call's arguments, made before the call. Pure.

A parameter whose name is not in ``checks.CHECKS`` fails the import, so that every call is checked.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar, cast

from metamorphosis.client.checks import CHECKS, Check, fault, optional
from metamorphosis.errors import InvalidArgument, MetaQError

Refuse = Callable[[Any, InvalidArgument, Mapping[str, object]], object]
"""The object, the error and the arguments -> the value returned in place of the call's result."""

Method = TypeVar("Method", bound=Callable[..., Any])

SETTINGS: Final = frozenset({"config", "zookeeper", "broker", "settings", "connection"})
"""Parameters that are settings, which the classes in ``client.settings`` check, and arguments of
``pymysql``, which the MySQL store checks."""


def raised(_: object, error: InvalidArgument, __: Mapping[str, object]) -> NoReturn:
    """Let the call raise the error."""
    raise error


def as_future(given: Any, error: MetaQError, _: Mapping[str, object]) -> Awaitable[None]:
    """The call returns a future that fails, of the runtime that the object has."""

    async def fail() -> None:
        raise error

    runtime = given.runtime if hasattr(given, "runtime") else given._runtime
    future: Awaitable[None] = runtime.start(fail())
    return future


class _Checks:
    """The checks of a method's parameters, in their order."""

    def __init__(
        self,
        method: Callable[..., object],
        error: type[InvalidArgument],
        own: Mapping[str, Check],
    ) -> None:
        self._checks = _checks_of(method, own)
        self._error = error
        self.in_order = tuple(self._checks.values())

    def refusal(
        self, values: tuple[object, ...], options: Mapping[str, object]
    ) -> InvalidArgument | None:
        """The error of the first wrong argument; None if all are right."""
        for name, value in self.named(values, options).items():
            expected = self._checks.get(name, anything)(value)
            if expected is not None:
                return self._error(fault(name, value, expected))
        return None

    def named(self, values: tuple[object, ...], options: Mapping[str, object]) -> dict[str, object]:
        """All arguments by name."""
        return {**dict(zip(self._checks, values, strict=False)), **options}


def checked(
    refuse: Refuse = raised, error: type[InvalidArgument] = InvalidArgument, **own: Check
) -> Callable[[Method], Method]:
    """
    A decorator: the arguments are checked first. None is right if it is the default.

    Thread: the caller's. It costs about half a microsecond; sends are checked in ``puts.Put``,
    which costs less.

    :param refuse: returns the result of a call with a wrong argument, or raises.
    :param error: the class of the error.
    :param own: checks that differ from those of ``CHECKS``, by parameter.
    """

    def decorate(method: Method) -> Method:
        checks = _Checks(method, error, own)
        in_order = checks.in_order

        @functools.wraps(method)
        def call(self: object, *values: object, **options: object) -> object:
            for check, value in zip(in_order, values, strict=False):
                if check(value) is not None:
                    break
            else:
                if not options:
                    return method(self, *values)
            found = checks.refusal(values, options)
            if found is not None:
                return refuse(self, found, checks.named(values, options))
            return method(self, *values, **options)

        @functools.wraps(method)
        async def coroutine(self: object, *values: object, **options: object) -> object:
            found = checks.refusal(values, options)
            if found is not None:
                raise found
            return await method(self, *values, **options)

        return cast(Method, coroutine if inspect.iscoroutinefunction(method) else call)

    return decorate


def anything(_: object) -> str | None:
    """No check: the value is checked elsewhere."""
    return None


def _checks_of(method: Callable[..., object], own: Mapping[str, Check]) -> dict[str, Check]:
    """Parameter -> its check, in their order, without ``self``."""
    found: dict[str, Check] = {}
    for each in list(inspect.signature(method).parameters.values())[1:]:
        if each.name in SETTINGS:
            found[each.name] = anything
        elif each.name not in CHECKS:
            raise TypeError(f"{method.__qualname__}: client.checks has no check of {each.name}")
        else:
            check = own.get(each.name, CHECKS[each.name])
            found[each.name] = optional(check) if each.default is None else check
    return found
