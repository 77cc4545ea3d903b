"""
``heuristic.log``: the XA transactions whose outcome an administrator has decided, until they are
forgotten.

The file is one serialized ``LinkedHashMap`` from transaction id to transaction, in the order of the
decisions. The bytes are identical with the original's for a map that never shrank.

Source: ``HeuristicTransactionJournal``, ``XATransactionId``, ``XATransaction``; section 11.2 of the
specification of transactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from struct import Struct

from metamorphosis.errors import InvalidRecord
from metamorphosis.transactions.javastream import (
    FIRST_HANDLE,
    MAGIC,
    JavaObject,
    JavaValue,
    encode_modified_utf8,
    read_java_stream,
)
from metamorphosis.wire.transactionids import XATransactionId


class Heuristic(IntEnum):
    """The outcome. The numbers are on disk."""

    COMMITTED = 4
    ROLLED_BACK = 5
    COMPLETED = 6


LOAD_FACTOR_BITS = 0x3F400000
FIRST_CAPACITY = 16

_INT32 = Struct(">i").pack
_ENTRY_DATA = Struct(">ii")

_MAP_CLASS = "java.util.LinkedHashMap"
_ID_CLASS = "com.taobao.metamorphosis.transaction.XATransactionId"
_TRANSACTION_CLASS = "com.taobao.metamorphosis.server.transaction.XATransaction"


def parse_heuristic_log(data: bytes) -> dict[XATransactionId, Heuristic]:
    """
    The outcomes in a file.

    :param data: the whole file; an empty one has none.
    :raises InvalidRecord: the original does not write such a file.
    """
    if not data:
        return {}
    value = read_java_stream(data)
    if not isinstance(value, JavaObject) or value.kind.name != _MAP_CLASS:
        raise InvalidRecord(f"the object is not a {_MAP_CLASS}")
    if not value.annotations or not isinstance(value.annotations[0], bytes):
        raise InvalidRecord("the map has no size")
    if len(value.annotations[0]) != _ENTRY_DATA.size:
        raise InvalidRecord("the map's size is cut")
    _, size = _ENTRY_DATA.unpack(value.annotations[0])
    entries = value.annotations[1:]
    if len(entries) != 2 * size:
        raise InvalidRecord(f"the map claims {size} entries and has {len(entries) / 2:g}")
    return {
        _transaction_id(key): _outcome(transaction)
        for key, transaction in zip(entries[::2], entries[1::2])
    }


def _transaction_id(value: JavaValue) -> XATransactionId:
    if not isinstance(value, JavaObject) or value.kind.name != _ID_CLASS:
        raise InvalidRecord(f"a key of the map is not a {_ID_CLASS}")
    format_id = value.fields.get("formatId")
    global_id = value.fields.get("globalTransactionId")
    branch = value.fields.get("branchQualifier")
    qualifier = value.fields.get("uniqueQualifier")
    if (
        isinstance(format_id, int)
        and isinstance(global_id, bytes)
        and isinstance(branch, bytes)
        and isinstance(qualifier, str)
    ):
        return XATransactionId(format_id, global_id, branch, qualifier)
    raise InvalidRecord(f"a {_ID_CLASS} lacks one of its fields")


def _outcome(value: JavaValue) -> Heuristic:
    if not isinstance(value, JavaObject) or value.kind.name != _TRANSACTION_CLASS:
        raise InvalidRecord(f"a value of the map is not a {_TRANSACTION_CLASS}")
    state = value.fields.get("state")
    try:
        return Heuristic(state)  # type: ignore[arg-type]  # any value is accepted: it is a member or not
    except ValueError as error:
        raise InvalidRecord(f"a transaction of the map has the state {state!r}") from error


def encode_heuristic_log(outcomes: Mapping[XATransactionId, Heuristic]) -> bytes:
    """The file for ``outcomes``, in their order."""
    writer = _Writer()
    writer.map_head(len(outcomes))
    for transaction_id, outcome in outcomes.items():
        writer.entry(transaction_id, outcome)
    writer.raw(b"\x78\x00")  # the end of the map's data, then accessOrder
    return bytes(writer.data)


def _capacity(size: int) -> int:
    """The capacity of a ``HashMap`` that has grown to ``size`` entries."""
    capacity = FIRST_CAPACITY
    while size > capacity * 3 // 4:
        capacity *= 2
    return capacity


class _Writer:
    """Writes the stream, and counts the handles of class descriptors and objects."""

    def __init__(self) -> None:
        self.data = bytearray(MAGIC)
        self._next_handle = FIRST_HANDLE
        self._classes: dict[str, int] = {}

    def raw(self, data: bytes) -> None:
        """Append bytes without a handle."""
        self.data += data

    def _handle(self) -> int:
        """The handle of the present object."""
        handle = self._next_handle
        self._next_handle += 1
        return handle

    def _name(self, text: str) -> None:
        encoded = encode_modified_utf8(text)
        self.raw(len(encoded).to_bytes(2, "big") + encoded)

    def _string(self, text: str) -> int:
        self.raw(b"\x74")
        self._name(text)
        return self._handle()

    def _reference(self, handle: int) -> None:
        self.raw(b"\x71" + _INT32(handle))

    def _class_head(self, name: str, uid: str, flags: int, fields: int) -> None:
        self.raw(b"\x72")
        self._name(name)
        self.raw(bytes.fromhex(uid) + bytes((flags,)) + fields.to_bytes(2, "big"))
        self._classes[name] = self._handle()

    def _field(self, code: str, name: str) -> None:
        self.raw(code.encode())
        self._name(name)

    def map_head(self, size: int) -> None:
        """Write the map up to its first entry."""
        capacity = _capacity(size)
        self.raw(b"\x73")
        self._class_head(_MAP_CLASS, "34c04e5c106cc0fb", 2, 1)
        self._field("Z", "accessOrder")
        self.raw(b"\x78")
        self._class_head("java.util.HashMap", "0507dac1c31660d1", 3, 2)
        self._field("F", "loadFactor")
        self._field("I", "threshold")
        self.raw(b"\x78\x70")
        self._handle()  # the map itself
        self.raw(_INT32(LOAD_FACTOR_BITS) + _INT32(capacity * 3 // 4 if size else 0))
        self.raw(b"\x77\x08" + _ENTRY_DATA.pack(capacity, size))

    def entry(self, transaction_id: XATransactionId, outcome: Heuristic) -> None:
        """Write one key and its value; the value refers back to the key."""
        self.raw(b"\x73")
        self._id_class()
        key = self._handle()
        self.raw(_INT32(transaction_id.format_id))
        self._bytes(transaction_id.branch)
        self._bytes(transaction_id.global_id)
        self._string(transaction_id.unique_qualifier)
        self.raw(b"\x73")
        self._transaction_class()
        self._handle()
        self.raw(bytes((outcome,)))
        self._reference(key)

    def _known(self, name: str) -> bool:
        """Refer to a descriptor that was written before; False if there is none."""
        handle = self._classes.get(name)
        if handle is None:
            return False
        self._reference(handle)
        return True

    def _id_class(self) -> None:
        if self._known(_ID_CLASS):
            return
        self._class_head(_ID_CLASS, "62f372b7e6089172", 2, 4)
        self._field("I", "formatId")
        self._field("[", "branchQualifier")
        array = self._string("[B")
        self._field("[", "globalTransactionId")
        self._reference(array)
        self._field("L", "uniqueQualifier")
        self._string("Ljava/lang/String;")
        self.raw(b"\x78")
        parent = "com.taobao.metamorphosis.transaction.TransactionId"
        self._class_head(parent, "1df0e0dee6df6937", 2, 0)
        self.raw(b"\x78\x70")

    def _transaction_class(self) -> None:
        if self._known(_TRANSACTION_CLASS):
            return
        self._class_head(_TRANSACTION_CLASS, "9e0808eec823ee08", 2, 1)
        self._field("L", "xid")
        self._string("Lcom/taobao/metamorphosis/transaction/XATransactionId;")
        self.raw(b"\x78")
        parent = "com.taobao.metamorphosis.server.transaction.Transaction"
        self._class_head(parent, "ae02bed26207ff36", 2, 1)
        self._field("B", "state")
        self.raw(b"\x78\x70")

    def _bytes(self, value: bytes) -> None:
        self.raw(b"\x75")
        if not self._known("[B"):
            self._class_head("[B", "acf317f8060854e0", 2, 0)
            self.raw(b"\x78\x70")
        self._handle()
        self.raw(_INT32(len(value)) + value)
