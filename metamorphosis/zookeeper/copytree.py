"""
``metaq-copytree SOURCE TARGET``: copies the persistent nodes of one
ZooKeeper into another, with data and ACLs, and checks that they arrived.

It overwrites different nodes only with ``--overwrite``, and can be repeated. Ephemeral nodes belong
to sessions and are created again by their clients; ``/zookeeper`` belongs to the server.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoAuthError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.security import ACL, OPEN_ACL_UNSAFE

from metamorphosis.errors import MetaQError
from metamorphosis.terminal import escape_output

CONNECT_SECONDS = 10.0
IN_FLIGHT = 100
"""Requests that are in flight at the same time."""

NAMED = 10
"""Paths that an error lists."""

T = TypeVar("T")


class Asked(Protocol):
    """A request of kazoo in progress."""

    def get(self) -> Any:
        """Wait for its result, or raise its error."""


class CopyError(MetaQError):
    """The copy failed; the text has the reason and the remedy."""


@dataclass(frozen=True)
class Copied:
    """The copied part of a node."""

    data: bytes | None
    acl: tuple[ACL, ...]


@dataclass(frozen=True)
class Found:
    """The tree of a server: the nodes to copy, by path, and the number of ephemeral nodes left
    out."""

    nodes: dict[str, Copied]
    ephemerals: int


def connect(hosts: str, credentials: Iterable[tuple[str, str]] = ()) -> KazooClient:
    """
    A connected client; the caller stops and closes it.

    :raises CopyError: no server answers.
    """
    silent = logging.Logger("copytree", logging.CRITICAL)
    try:
        client = KazooClient(
            hosts, timeout=CONNECT_SECONDS, auth_data=list(credentials), logger=silent
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a missing chroot: ``copy`` checks it
            client.start(CONNECT_SECONDS)
    except (KazooTimeoutError, KazooException, ValueError) as error:
        raise CopyError(f"No ZooKeeper answers at {hosts} ({error})") from error
    return client


def read(client: KazooClient, hosts: str) -> Found:
    """
    Read the whole tree.

    :raises CopyError: a node cannot be read, or its ACL is shown without its secret.
    """
    nodes: dict[str, Copied] = {}
    ephemerals = 0
    level = ["/"]
    while level:
        below: list[str] = []
        for path, found in _each(level, lambda path: _ask(client, path)):
            try:
                (data, stat), names, (acl, _) = (answer.get() for answer in found)
            except NoNodeError:
                continue  # deleted meanwhile; ``check`` detects it if it matters
            except NoAuthError as error:
                raise CopyError(
                    f"{path} of {hosts} has restricted read permission: give a user with it by"
                    " --auth digest:USER:PASSWORD"
                ) from error
            if stat.ephemeralOwner:
                ephemerals += 1
                continue
            _check_shown(path, acl, hosts)
            nodes[path] = Copied(data, tuple(acl))
            below += (f"{path.rstrip('/')}/{name}" for name in names)
        level = [path for path in below if path != "/zookeeper"]
    return Found(nodes, ephemerals)


def _ask(client: KazooClient, path: str) -> tuple[Asked, Asked, Asked]:
    return client.get_async(path), client.get_children_async(path), client.get_acls_async(path)


def _each(paths: Iterable[str], ask: Callable[[str], T]) -> Iterator[tuple[str, T]]:
    """The answers for many paths, with up to ``IN_FLIGHT`` requests in flight."""
    rest = iter(paths)
    while group := [(path, ask(path)) for path in islice(rest, IN_FLIGHT)]:
        yield from group


def _check_shown(path: str, acl: Sequence[ACL], hosts: str) -> None:
    for entry in acl:
        if entry.id.scheme == "digest" and entry.id.id.endswith(":x"):
            raise CopyError(
                f"{hosts} shows the ACL of {path} without its secret: give a user that may change"
                " it by --auth digest:USER:PASSWORD"
            )


def write(client: KazooClient, wanted: Found, there: Found, hosts: str, overwrite: bool) -> int:
    """
    Create the missing nodes; returns the number of nodes created or changed.

    :raises CopyError: the target has different nodes, and none was changed.
    """
    different = [
        path
        for path, node in wanted.nodes.items()
        if path != "/" and path in there.nodes and there.nodes[path] != node
    ]
    if different and not overwrite:
        raise CopyError(
            f"{len(different)} nodes exist at {hosts} and are different: {_some(different)}."
            " Nothing was copied; --overwrite replaces them"
        )
    missing = [path for path in wanted.nodes if path not in there.nodes]
    for depth in sorted({path.count("/") for path in missing}):
        level = [path for path in missing if path.count("/") == depth]
        _done(_each(level, lambda path: (_create(client, path, wanted.nodes[path]),)), hosts)
    _done(_each(different, lambda path: _set(client, path, wanted.nodes[path])), hosts)
    return len(missing) + len(different)


def _create(client: KazooClient, path: str, node: Copied) -> Asked:
    created: Asked = client.create_async(path, node.data, list(node.acl))
    return created


def _set(client: KazooClient, path: str, node: Copied) -> tuple[Asked, ...]:
    return client.set_async(path, node.data), client.set_acls_async(path, list(node.acl))


def _done(answers: Iterable[tuple[str, tuple[Asked, ...]]], hosts: str) -> None:
    for path, parts in answers:
        for part in parts:
            try:
                part.get()
            except KazooException as error:
                raise CopyError(
                    f"{hosts} did not take {path}: {type(error).__name__} {error}".rstrip()
                ) from error


def check(before: Found, after: Found, target: Found, source: str, hosts: str) -> None:
    """
    Compare the first reading of the source with the source now and the target now.

    :raises CopyError: they differ.
    """
    changed = [
        path
        for path in before.nodes | after.nodes
        if before.nodes.get(path) != after.nodes.get(path)
    ]
    if changed:
        raise CopyError(
            f"{len(changed)} nodes of {source} changed while they were copied: {_some(changed)}."
            " Stop all programs that use it and repeat this with --overwrite"
        )
    wrong = [
        path
        for path, node in before.nodes.items()
        if path != "/" and target.nodes.get(path) != node
    ]
    if wrong:
        raise CopyError(
            f"{len(wrong)} nodes are not at {hosts} as they were copied: {_some(wrong)}"
        )


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(sorted(paths)[:NAMED])
    return f"{shown}, ..." if len(paths) > NAMED else shown


def copy(source: KazooClient, target: KazooClient, names: tuple[str, str], overwrite: bool) -> str:
    """
    Copy the tree; returns the result as a sentence.

    :param names: the names of source and target, for errors.
    :raises CopyError: the copy did not succeed completely.
    """
    before = read(source, names[0])
    if "/" not in before.nodes:
        raise CopyError(f"There is no such node as {source.chroot} at {names[0]}")
    if target.chroot:
        target.ensure_path("/", OPEN_ACL_UNSAFE)
    written = write(target, before, read(target, names[1]), names[1], overwrite)
    check(before, read(source, names[0]), read(target, names[1]), *names)
    return (
        f"Copied {written} nodes from {names[0]} to {names[1]}; {len(before.nodes) - 1} are the"
        f" same there now. Left out: {before.ephemerals} ephemeral nodes"
    )


def credential(text: str) -> tuple[str, str]:
    """``digest:USER:PASSWORD`` in kazoo's form."""
    scheme, colon, rest = text.partition(":")
    if scheme != "digest" or ":" not in rest:
        raise argparse.ArgumentTypeError(f"{text!r} is not digest:USER:PASSWORD")
    return scheme, rest


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status. Half of this long function is the table of its options."""
    parser = argparse.ArgumentParser(
        prog="metaq-copytree",
        description="Copies the persistent nodes of one ZooKeeper into another, with data and ACLs,"
        " and checks that they arrived. Stop all programs that use them before.",
    )
    parser.add_argument("source", metavar="SOURCE", help="host:port[,host:port...][/path]")
    parser.add_argument("target", metavar="TARGET", help="the same, for the target of the copy")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace nodes of TARGET that are different"
    )
    parser.add_argument(
        "--auth",
        metavar="digest:USER:PASSWORD",
        type=credential,
        action="append",
        default=[],
        help="for nodes with restricted read permission; repeatable",
    )
    escape_output()
    options = parser.parse_args(arguments)
    names = options.source, options.target
    clients: list[KazooClient] = []
    try:
        for hosts in names:
            clients.append(connect(hosts, options.auth))
        source, target = clients
        print(copy(source, target, names, options.overwrite))
    except CopyError as error:
        print(f"metaq-copytree: {error}", file=sys.stderr)
        return 1
    except KazooException as error:  # many such errors have no text
        print(f"metaq-copytree: {type(error).__name__} {error}".rstrip(), file=sys.stderr)
        return 1
    finally:
        for client in clients:
            client.stop()
            client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
