"""
Checks of the users' arguments, made before they are used. Pure.

A *check* takes one value and returns the expected value as text, or None if the value is right.
``CHECKS`` has one for each name of a parameter: the public calls of all faces use the same names
for the same things. ``client.checked`` runs the checks of a call's parameters before the call.
Settings have their own table, in ``client.settingchecks``, made of the same checks.

Every error contains the name of the argument, its value and the expected value.
"""

from __future__ import annotations

import functools
import math
import os
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from metamorphosis.client.model import OutgoingMessage, Partition, ReceivedMessage, StoredOffset
from metamorphosis.client.transactions.xa import Xid
from metamorphosis.cluster.connect import parse_connect
from metamorphosis.cluster.model import Broker
from metamorphosis.errors import InvalidArgument
from metamorphosis.wire.numbers import INT32_MAX

Check = Callable[[object], str | None]
"""A value -> a text about the expected value, with the word "expected"; None: it is right."""

INT63_MAX: Final = (1 << 63) - 1
SECONDS_MOST: Final = INT32_MAX // 1000
"""The longest time limit that the original could express."""

XID_BYTES: Final = 64
"""The longest of both byte strings of an ``Xid``."""

_SHOWN: Final = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 80


def fault(name: str, value: object, expected: str) -> str:
    """The text of an error."""
    return f"{name} is {_SHOWN.repr(value)}; {expected}"


# -- kinds of values


def integer(low: int, high: int, what: str) -> Check:
    """Integers of a range, without booleans."""

    def check(value: object) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return None
        return f"{what} from {low} to {high} expected"

    return check


def instance(kind: type | tuple[type, ...], expected: str) -> Check:
    """Instances of a class, or of several."""
    return lambda value: None if isinstance(value, kind) else f"{expected} expected"


def truth(value: object) -> str | None:
    """True or False, without other integers."""
    return None if isinstance(value, bool) else "True or False expected"


def callable_with(arguments: str) -> Check:
    """Functions and other callables."""
    return lambda value: None if callable(value) else f"a function of {arguments} expected"


def having(names: Sequence[str], expected: str) -> Check:
    """Objects of any class with these attributes: users may write such classes."""

    def check(value: object) -> str | None:
        if not isinstance(value, type) and all(hasattr(value, name) for name in names):
            return None
        return f"{expected} expected"

    return check


def optional(check: Check) -> Check:
    """The values of another check, or None."""
    return lambda value: None if value is None else check(value)


def topic(value: object) -> str | None:
    """The name of a topic, valid in ZooKeeper and on the wire."""
    if not isinstance(value, str) or not value.strip():
        return "the name of a topic expected, as in 'orders'"
    return _topic_text(value)


@functools.lru_cache(1024)
def _topic_text(value: str) -> str | None:
    """Cached, because every send checks its topic."""
    if not any(character in value for character in " /\r\n\0") and value.isprintable():
        return None
    return (
        "the name of a topic expected: no spaces, slashes, line ends, unprintable characters or"
        " half surrogate pairs are possible"
    )


def seconds(value: object) -> str | None:
    """A time limit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isnan(value) and 0 < value <= SECONDS_MOST:
            return None
    return f"seconds above 0, {SECONDS_MOST} at most, expected"


def patience(value: object) -> str | None:
    """A time limit of something that may also be done without waiting."""
    if value == 0 and isinstance(value, int | float) and not isinstance(value, bool):
        return None
    expected = seconds(value)
    return None if expected is None else f"0 or {expected}"


def partition(value: object) -> str | None:
    """A partition; ``Partition(-1, -1)`` leaves the choice to the broker."""
    if isinstance(value, Partition):
        numbers = [each for each in value if isinstance(each, int)]
        if len(numbers) == 2 and all(-1 <= number <= INT32_MAX for number in numbers):
            return None
    return "a Partition expected, as in Partition(0, 3)"


def body(value: object) -> str | None:
    """The data of a message."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return None
    hint = ", as from text.encode()" if isinstance(value, str) else ""
    return f"bytes expected{hint}"


def text(value: object) -> str | None:
    """A text that UTF-8 can express."""
    if isinstance(value, str):
        try:
            value.encode()
            return None
        except UnicodeEncodeError:
            return "a str without half surrogate pairs expected"
    return "a str expected"


def key(value: object) -> str | None:
    """The key of a message; numbers hash differently in each language."""
    return None if isinstance(value, str | bytes) else "str or bytes expected, as in str(number)"


def word(value: object) -> str | None:
    """A part of a line of the protocol."""
    if isinstance(value, str) and value.isprintable() and value and " " not in value:
        return None
    return "a word without spaces expected"


def url_of(value: str) -> str:
    """
    ``meta://host:port``, also from ``host:port``; a query is dropped.

    :raises ValueError: the text is neither.
    """
    url = value.strip()
    if "://" not in url:
        url = f"meta://{url}"
    return Broker.parse(0, url.rstrip("/")).url


def broker(value: object) -> str | None:
    """The address of a broker."""
    try:
        if isinstance(value, str):
            url_of(value)
            return None
    except ValueError:
        pass
    return "host:port or meta://host:port expected, as in localhost:8123"


def zookeeper(value: object) -> str | None:
    """The addresses of ZooKeeper."""
    if not isinstance(value, str):
        return "one text expected, as in 'host1:2181,host2:2181/chroot'"
    try:
        parse_connect(value)
        return None
    except ValueError as error:
        return str(error)


def bodies(value: object) -> str | None:
    """Several bodies; a single one would be treated as many of one byte."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | memoryview):
        return None
    return "several messages expected, as in [b'first', b'second']"


def messages(value: object) -> str | None:
    """Several messages; a single one is an iterable of its fields."""
    if bodies(value) is None and not isinstance(value, OutgoingMessage):
        return None
    return "several messages expected, as in [OutgoingMessage('orders', b'7')]"


def stored_offsets(value: object) -> str | None:
    """The offsets to commit."""
    if isinstance(value, Sequence) and all(isinstance(each, StoredOffset) for each in value):
        return None
    return "a list of StoredOffset expected"


def xid(value: object) -> str | None:
    """The name of a branch, by X/Open."""
    if isinstance(value, Xid) and integer(-INT32_MAX - 1, INT32_MAX, "")(value.format_id) is None:
        gtrid, bqual = value.gtrid, value.bqual
        if isinstance(gtrid, bytes) and isinstance(bqual, bytes):
            if 0 < len(gtrid) <= XID_BYTES and len(bqual) <= XID_BYTES:
                return None
    return "an Xid of a number of 32 bits, 1 to 64 bytes and 0 to 64 bytes expected"


def unique_qualifier(value: object) -> str | None:
    """Part of a key with colons as separators."""
    if isinstance(value, str) and word(value) is None and ":" not in value:
        return None
    return "a word without spaces and colons expected"


path: Final = instance((str, os.PathLike), "a path")

CHECKS: Final[dict[str, Check]] = {
    "topic": topic,
    "data": body,
    "attribute": text,
    "key": key,
    "partition": partition,
    "timeout": seconds,
    "callback": callable_with("result and error"),
    "bodies": bodies,
    "messages": messages,
    "lifetime": integer(1, INT32_MAX, "seconds"),
    "xid": xid,
    "flags": integer(0, INT32_MAX, "flags"),
    "one_phase": truth,
    "producer": having(("resource", "unique_qualifier"), "an XA producer of the blocking face"),
    "connect": callable_with("no arguments that makes a connection"),
    "on_step": callable_with("step and transaction"),
    "other": having(("target", "is_same_rm"), "another XA resource"),
    "seconds": integer(0, INT32_MAX, "seconds"),
    "unique_qualifier": unique_qualifier,
    "selector": callable_with("topic, partitions and message"),
    "retries": integer(0, INT32_MAX, "a number"),
    "in_order": truth,
    "max_outstanding_bytes": integer(1, INT63_MAX, "bytes"),
    "window": integer(-INT32_MAX, INT32_MAX, "a number"),
    "policy": callable_with("message and partition"),
    "max_size": integer(1, INT32_MAX, "bytes"),
    "max": integer(1, INT32_MAX, "messages"),
    "listener": callable_with("one message, or with batch=True of a list,"),
    "filter": callable_with("group and message"),
    "batch": truth,
    "auto_ack": truth,
    "strategy": callable_with("one message"),
    "message": instance(ReceivedMessage, "a message of this consumer"),
    "offset": integer(0, INT63_MAX, "bytes"),
    "milliseconds": integer(0, INT63_MAX, "milliseconds since 1970"),
    "target": broker,
    "item": word,
    "store": having(("load", "initialise", "commit", "close"), "an IOffsetStore"),
    "group": text,
    "offsets": stored_offsets,
    "runtime": having(("api", "threads"), "the runtime of a session factory"),
    "registry": having(("get", "set_data", "create"), "the registry of a session factory"),
    "paths": having(("offset",), "the paths of a session factory"),
    "path": path,
    "table": text,
    "reactor": having(("callLater", "connectTCP"), "a reactor"),
    "loop": having(("call_soon_threadsafe", "create_task"), "an event loop of asyncio"),
    "chance": having(("choice",), "a random.Random"),
    "key_of": callable_with("one message"),
}


def require(name: str, value: object, error: type[InvalidArgument] = InvalidArgument) -> None:
    """
    Check one argument, for calls per message, for which ``checked`` would cost too much.

    :raises InvalidArgument: or ``error``.
    """
    expected = CHECKS[name](value)
    if expected is not None:
        raise error(fault(name, value, expected))
