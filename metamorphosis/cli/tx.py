"""``metaq tx``: shows the transactions of a broker on this machine, and decides outcomes."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

from metamorphosis.cli.adminsocket import NotRunning, ask, find_socket
from metamorphosis.cli.table import table
from metamorphosis.errors import ConfigError, MetaQError

DONE, FAILED, SENSELESS, NOT_RUNNING = 0, 1, 2, 3

HEAD = ("KEY", "STATE", "AGE", "MESSAGES", "BYTES", "REDO", "PARTITIONS")

Ask = Callable[[str, str], Any]


def tx(options: Namespace) -> int:
    """Run the command; returns the exit status."""
    try:
        path = find_socket(options.data, options.config)
        request: Ask = partial(_ask, path, options.timeout)
        for line in COMMANDS[options.action](request, options):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        return FAILED
    except MetaQError as error:
        print(f"metaq: {' '.join(str(error).split())}", file=sys.stderr)
        if isinstance(error, NotRunning):
            return NOT_RUNNING
        return SENSELESS if isinstance(error, ConfigError) else FAILED
    return DONE


def _ask(path: str, timeout: float, method: str, route: str) -> Any:
    return ask(path, method, route, timeout)


def _list(request: Ask, options: Namespace) -> Iterator[str]:
    state = f"&state={options.state}" if options.state else ""
    answer = request("GET", f"/transactions?limit={options.limit}{state}")
    found, left_off = answer["transactions"], answer["left_off"]
    if options.json:
        yield from map(json.dumps, found)
    else:
        yield table(HEAD, [_row(each) for each in found])
    if left_off:
        sys.stdout.flush()
        print(f"metaq: {left_off} more; --limit N shows more of them", file=sys.stderr)


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    age = found["age_seconds"]
    return (
        found["key"],
        found["state"].replace(" ", "-"),
        None if age is None else f"{'>' * found['recovered']}{duration(age)}",
        found["messages"],
        found["bytes"],
        found["redo_file"],
        ",".join(found["partitions"]),
    )


def duration(seconds: float) -> str:
    """A duration as text: ``5s``, ``4m10s``, ``2h05m``, ``3d04h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _show(request: Ask, options: Namespace) -> Iterator[str]:
    """One transaction, or without a key the journal."""
    if options.key is None:
        yield from _journal(request("GET", "/journal"), options)
        return
    found = request("GET", _route(options.key))
    yield from [json.dumps(found)] if options.json else _lines(found)


def _journal(found: dict[str, Any], options: Namespace) -> Iterator[str]:
    if options.json:
        yield json.dumps(found)
        return
    files = found.pop("files")
    yield from _lines(found)
    yield ""
    rows = [(each["number"], each["bytes"], each["transactions"]) for each in files]
    yield table(("REDO", "BYTES", "UNFINISHED"), rows)


def _lines(found: dict[str, object]) -> Iterator[str]:
    width = max(map(len, found))
    for name, value in found.items():
        if isinstance(value, list):
            value = ", ".join(value)
        text = "-" if value in (None, "") else str(value)
        yield f"{name.replace('_', ' ').ljust(width)}  {text}"


def _decide(name: str, request: Ask, options: Namespace) -> Iterator[str]:
    found = request("POST", f"{_route(options.key)}/{name}")
    yield json.dumps(found) if options.json else f"{found['key']} was {found['state']}"


def _forget(request: Ask, options: Namespace) -> Iterator[str]:
    found = request("POST", f"{_route(options.key)}/forget")
    yield json.dumps(found) if options.json else f"{found['key']} is forgotten"


def _checkpoint(request: Ask, options: Namespace) -> Iterator[str]:
    found = request("POST", "/journal/checkpoint")
    if options.json:
        yield json.dumps(found)
    elif found["begun"]:
        yield f"redo.{found['journal']['files'][-1]['number']} was begun, the old one is deleted"
    else:
        yield "nothing was deleted: the redo file is empty or still needed (metaq tx show)"


def _route(key: str) -> str:
    return f"/transactions/{quote(key, safe='')}"


COMMANDS: dict[str, Callable[[Ask, Namespace], Iterator[str]]] = {
    "list": _list,
    "show": _show,
    "commit": partial(_decide, "commit"),
    "rollback": partial(_decide, "rollback"),
    "complete": partial(_decide, "complete"),
    "forget": _forget,
    "checkpoint": _checkpoint,
}
