"""
Several changes, all or nothing, under one zxid.

The reply to a failed multi has code 0 in its header and an error for each operation: 0 for those
before the failed one, its code, and RUNTIME_INCONSISTENCY for those after it.

Source: ``MultiTransactionRecord``, ``MultiResponse``.
"""

from __future__ import annotations

from typing import Final

from metamorphosis.zookeeper.codes import Code, Opcode, ZooKeeperError
from metamorphosis.zookeeper.jute import (
    MalformedRequest,
    Reader,
    pack_integer,
    pack_multi_header,
)
from metamorphosis.zookeeper.requests import CHANGES, Change
from metamorphosis.zookeeper.sessions import Client
from metamorphosis.zookeeper.tree import Tree

#: opcode and arguments
Operation = tuple[int, tuple[object, ...]]

_ALLOWED: Final = {
    opcode: CHANGES[opcode]
    for opcode in (Opcode.CREATE, Opcode.CREATE2, Opcode.DELETE, Opcode.SET_DATA, Opcode.CHECK)
}
#: a create2 in a multi is answered without a Stat, which clients such as kazoo cannot read there
_ANSWERED_AS: Final = {Opcode.CREATE2: Opcode.CREATE}
_END: Final = pack_multi_header(-1, True, -1)


def read_operations(reader: Reader) -> tuple[list[Operation]]:
    """
    Read all operations.

    :raises MalformedRequest: one cannot be read, or is not allowed in a multi.
    """
    operations: list[Operation] = []
    while True:
        opcode, done = reader.multi_header()
        if done:
            return (operations,)
        if opcode not in _ALLOWED:
            raise MalformedRequest(f"operation {opcode} in a multi")
        arguments = _ALLOWED[opcode][0](reader)
        operations.append((_ANSWERED_AS.get(opcode, opcode), arguments))


def multi(tree: Tree, client: Client, operations: list[Operation]) -> bytes:
    """Apply all operations or none; returns the result of each."""
    parts: list[bytes] = []
    tree.all_or_nothing()
    try:
        for opcode, arguments in operations:
            body = _ALLOWED[opcode][1](tree, client, *arguments)
            parts += pack_multi_header(opcode, False, Code.OK), body
    except ZooKeeperError as error:
        tree.take_back()
        return _failed(error.code, len(parts) // 2, len(operations))
    except BaseException:
        tree.take_back()
        raise
    tree.keep()
    return b"".join(parts) + _END


def _failed(code: Code, index: int, count: int) -> bytes:
    codes = [Code.OK] * index + [code] + [Code.RUNTIME_INCONSISTENCY] * (count - index - 1)
    parts = [pack_multi_header(Opcode.ERROR, False, each) + pack_integer(each) for each in codes]
    return b"".join(parts) + _END


MULTI: Final[Change] = (read_operations, multi)
