"""
The checks of a public call's arguments, in front of the call. Pure.

A parameter whose name is not in ``checks.CHECKS`` fails the import, so that no call can go without.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from metamorphosis.client.checks import CHECKS, Check, fault, optional
from metamorphosis.errors import InvalidArgument

Refuse = Callable[[Any, InvalidArgument, Mapping[str, Any]], Any]
"""The object, the error and the arguments -> what the call returns in place of its result."""

Method = TypeVar("Method", bound=Callable[..., Any])

SETTINGS: Final = frozenset({"config", "zookeeper", "broker", "settings", "connection"})
"""Parameters that are settings, which the classes in ``client.settings`` check, and arguments of
``pymysql``, which the MySQL store checks."""


def raised(_: object, error: InvalidArgument, __: Mapping[str, object]) -> Any:
    """The call raises it."""
    raise error


def as_future(given: Any, error: InvalidArgument, _: Mapping[str, object]) -> Any:
    """The call gives a future that fails, of the runtime that the object has."""

    async def fail() -> None:
        raise error

    runtime = given.runtime if hasattr(given, "runtime") else given._runtime
    return runtime.start(fail())


def checked(
    refuse: Refuse = raised, error: type[InvalidArgument] = InvalidArgument
) -> Callable[[Method], Method]:
    """
    A decorator: the arguments are looked at first. None will do where it is the default.

    Thread: the caller's. About half a microsecond: sends look in ``puts.Put``, which costs less.

    :param refuse: what becomes of a call whose arguments will not do.
    :param error: its class.
    """

    def decorate(method: Method) -> Method:
        checks = _checks_of(method)
        in_order = tuple(checks.values())

        def refusal(
            values: tuple[object, ...], options: dict[str, object]
        ) -> InvalidArgument | None:
            for name, value in _named(values, options).items():
                expected = checks.get(name, anything)(value)
                if expected is not None:
                    return error(fault(name, value, expected))
            return None

        def _named(values: tuple[object, ...], options: dict[str, object]) -> dict[str, object]:
            return {**dict(zip(checks, values, strict=False)), **options}

        @functools.wraps(method)
        def call(self: Any, *values: Any, **options: Any) -> Any:
            for check, value in zip(in_order, values, strict=False):
                if check(value) is not None:
                    break
            else:
                if not options:
                    return method(self, *values)
            found = refusal(values, options)
            if found is not None:
                return refuse(self, found, _named(values, options))
            return method(self, *values, **options)

        @functools.wraps(method)
        async def coroutine(self: Any, *values: Any, **options: Any) -> Any:
            found = refusal(values, options)
            if found is not None:
                raise found
            return await method(self, *values, **options)

        chosen: Any = coroutine if inspect.iscoroutinefunction(method) else call
        return chosen  # type: ignore[no-any-return]

    return decorate


def anything(_: object) -> str | None:
    """What others look at."""
    return None


def _checks_of(method: Callable[..., Any]) -> dict[str, Check]:
    """Parameter -> its check, in their order, without ``self``."""
    found: dict[str, Check] = {}
    for each in list(inspect.signature(method).parameters.values())[1:]:
        if each.name in SETTINGS:
            found[each.name] = anything
        elif each.name not in CHECKS:
            raise TypeError(f"{method.__qualname__}: client.checks has no check of {each.name}")
        else:
            check = CHECKS[each.name]
            found[each.name] = optional(check) if each.default is None else check
    return found
