"""
A reader of Java object streams, for the types in ``heuristic.log``.

Any JDK may have written the stream, so objects, descriptors and strings may be shared in any way;
values that the two classes of the file cannot hold (enums, classes, proxies) are refused.

Source: Java Object Serialization Specification, protocol version 2.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from metamorphosis.errors import InvalidRecord

MAGIC = b"\xac\xed\x00\x05"

TC_NULL = 0x70
TC_REFERENCE = 0x71
TC_CLASSDESC = 0x72
TC_OBJECT = 0x73
TC_STRING = 0x74
TC_ARRAY = 0x75
TC_BLOCKDATA = 0x77
TC_ENDBLOCKDATA = 0x78
TC_BLOCKDATALONG = 0x7A
TC_LONGSTRING = 0x7C

FIRST_HANDLE = 0x7E0000

SC_WRITE_METHOD = 1
SC_SERIALIZABLE = 2

DEEPEST = 100
"""Limit of nested objects: a damaged file must not exhaust the stack; a valid one has four."""

_PRIMITIVES = {
    "B": Struct(">b"),
    "C": Struct(">H"),
    "D": Struct(">d"),
    "F": Struct(">f"),
    "I": Struct(">i"),
    "J": Struct(">q"),
    "S": Struct(">h"),
    "Z": Struct(">?"),
}
_UINT16 = Struct(">H")
_INT32 = Struct(">i")
_INT64 = Struct(">q")


class JavaClass:
    """
    A class descriptor.

    :ivar fields: (type code, name) in the order of the stream.
    """

    __slots__ = ("fields", "flags", "name", "parent")

    def __init__(self, name: str) -> None:
        self.name = name
        self.flags = 0
        self.fields: list[tuple[str, str]] = []
        self.parent: JavaClass | None = None

    def lineage(self) -> list[JavaClass]:
        """The classes whose data an object has, the topmost first."""
        classes: list[JavaClass] = []
        current: JavaClass | None = self
        while current is not None:
            if len(classes) > DEEPEST:
                raise InvalidRecord(f"class {self.name} has more than {DEEPEST} superclasses")
            classes.insert(0, current)
            current = current.parent
        return classes


class JavaObject:
    """
    An object: the values of its fields by name, and the other data written by its class.

    :ivar annotations: objects, and the bytes of data blocks, in the order of the stream.
    """

    __slots__ = ("annotations", "fields", "kind")

    def __init__(self, kind: JavaClass) -> None:
        self.kind = kind
        self.fields: dict[str, JavaValue] = {}
        self.annotations: list[JavaValue] = []


JavaValue = JavaObject | JavaClass | str | bytes | int | float | bool | None


class _End(NamedTuple):
    """The end of an object's annotations."""


def read_java_stream(data: bytes) -> JavaValue:
    """
    The first object of a stream.

    :raises InvalidRecord: the stream is cut, damaged, or has a type that this reader does not know.
    """
    if data[:4] != MAGIC:
        raise InvalidRecord("not a Java object stream: it does not begin with ac ed 00 05")
    reader = _Reader(data)
    value = reader.value()
    if isinstance(value, _End):
        raise InvalidRecord("a Java object stream begins with the end of a block")
    return value


class _Reader:
    """One pass over a stream."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = len(MAGIC)
        self._handles: list[JavaValue] = []
        self._depth = 0

    def _take(self, count: int) -> bytes:
        start = self._at
        end = start + count
        if count < 0 or end > len(self._data):
            raise InvalidRecord(
                f"a Java object stream ends at byte {len(self._data)}, within a value"
            )
        self._at = end
        return self._data[start:end]

    def _unpack(self, struct: Struct) -> int:
        value: int = struct.unpack(self._take(struct.size))[0]
        return value

    def _text(self, length: int) -> str:
        return decode_modified_utf8(self._take(length))

    def value(self) -> JavaValue | _End:
        """The next value."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise InvalidRecord(f"objects are nested more than {DEEPEST} deep")
        try:
            return self._value(self._take(1)[0])
        finally:
            self._depth -= 1

    def _value(self, code: int) -> JavaValue | _End:
        if code == TC_NULL:
            return None
        if code == TC_REFERENCE:
            return self._referred()
        if code == TC_OBJECT:
            return self._object()
        if code == TC_CLASSDESC:
            return self._class()
        if code == TC_STRING:
            return self._shared(self._text(self._unpack(_UINT16)))
        if code == TC_LONGSTRING:
            return self._shared(self._text(self._unpack(_INT64)))
        if code == TC_ARRAY:
            return self._array()
        if code == TC_BLOCKDATA:
            return self._take(self._take(1)[0])
        if code == TC_BLOCKDATALONG:
            return self._take(self._unpack(_INT32))
        if code == TC_ENDBLOCKDATA:
            return _End()
        raise InvalidRecord(
            f"a Java object stream has the unexpected code {code:#x} at {self._at - 1}"
        )

    def _shared(self, value: JavaValue) -> JavaValue:
        self._handles.append(value)
        return value

    def _referred(self) -> JavaValue:
        index = self._unpack(_INT32) - FIRST_HANDLE
        if 0 <= index < len(self._handles):
            return self._handles[index]
        raise InvalidRecord(f"a reference to the unknown object {index}")

    def _described(self) -> JavaClass | None:
        """A class descriptor, a reference to one, or none."""
        value = self.value()
        if value is None or isinstance(value, JavaClass):
            return value
        raise InvalidRecord("a class descriptor is missing")

    def _class(self) -> JavaClass:
        described = JavaClass(self._text(self._unpack(_UINT16)))
        self._take(8)  # serialVersionUID
        self._handles.append(described)
        described.flags = self._take(1)[0]
        if not described.flags & SC_SERIALIZABLE:
            raise InvalidRecord(f"class {described.name} is not written field by field")
        for _ in range(self._unpack(_UINT16)):
            code = chr(self._take(1)[0])
            name = self._text(self._unpack(_UINT16))
            if code in "L[":
                self.value()  # the field's class, not needed: the value has its own
            elif code not in _PRIMITIVES:
                raise InvalidRecord(f"field {name} has the unknown type {code!r}")
            described.fields.append((code, name))
        while not isinstance(self.value(), _End):
            pass
        described.parent = self._described()
        return described

    def _object(self) -> JavaObject:
        kind = self._described()
        if kind is None:
            raise InvalidRecord("an object has no class")
        made = JavaObject(kind)
        self._handles.append(made)
        for part in kind.lineage():
            for code, name in part.fields:
                made.fields[name] = self._field(code, name)
            if part.flags & SC_WRITE_METHOD:
                while not isinstance(value := self.value(), _End):
                    made.annotations.append(value)
        return made

    def _field(self, code: str, name: str) -> JavaValue:
        if code in _PRIMITIVES:
            return self._unpack(_PRIMITIVES[code])
        value = self.value()
        if isinstance(value, _End):
            raise InvalidRecord(f"field {name} has no value")
        return value

    def _array(self) -> bytes:
        kind = self._described()
        if kind is None or kind.name != "[B":
            raise InvalidRecord("an array that is not of bytes")
        index = len(self._handles)
        self._handles.append(None)
        value = self._take(self._unpack(_INT32))
        self._handles[index] = value
        return value


def encode_modified_utf8(text: str) -> bytes:
    """Java's form: NUL takes two bytes, a character beyond the basic plane is two surrogates."""
    units = text.encode("utf-16-be", "surrogatepass")
    encoded = bytearray()
    for at in range(0, len(units), 2):
        unit = units[at] << 8 | units[at + 1]
        if unit and unit < 0x80:
            encoded.append(unit)
        elif unit < 0x800:
            encoded += bytes((0xC0 | unit >> 6, 0x80 | unit & 63))
        else:
            encoded += bytes((0xE0 | unit >> 12, 0x80 | unit >> 6 & 63, 0x80 | unit & 63))
    return bytes(encoded)


def decode_modified_utf8(data: bytes) -> str:
    """
    The text of bytes in Java's form of UTF-8.

    :raises InvalidRecord: the bytes are not in that form.
    """
    try:
        halves = data.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
        return halves.encode("utf-16-be", "surrogatepass").decode("utf-16-be")
    except UnicodeError as error:
        raise InvalidRecord(
            f"a string of a Java object stream is not UTF-8: {data[:40]!r}"
        ) from error
