"""The functions of ``module.c``; see ``metamorphosis.native``."""

from typing import Any

def take_puts(
    data: bytes | bytearray,
    source: bytes | memoryview,
    start: int,
    end: int,
    routes: Any,
    ids: Any,
    group: Any,
    /,
) -> int: ...
def take_syncs(
    data: bytes | bytearray,
    source: bytes | memoryview,
    start: int,
    end: int,
    routes: Any,
    ids: Any,
    group: Any,
    /,
) -> int: ...
def read_records(
    piece: bytes,
    position: int,
    limit: int,
    max_body: int,
    origin: int,
    type: type[Any],
    topic: str,
    partition: Any,
    messages: list[Any],
    /,
) -> int: ...
def identities(messages: list[Any], /) -> bytes: ...
def take_run(
    data: bytes | bytearray,
    start: int,
    end: int,
    key: bytes,
    places: Any,
    max_body: int,
    room: int,
    overhead: int,
    next_id: int,
    messages: list[Any],
    records: list[bytes],
    replies: list[bytes],
    /,
) -> int: ...
def sync_frames(
    head: bytes, pieces: list[bytes], opaque: int, opaques: int, /
) -> tuple[bytes, list[int]]: ...
def accepted(data: bytes, /) -> tuple[list[int], list[int], int, bool]: ...
def run_frames(head: bytes, run: bytes, count: int, opaque: int, opaques: int, /) -> bytes: ...
def run_accepted(
    data: bytes,
    position: int,
    run: bytes,
    at: int,
    opaque: int,
    opaques: int,
    offset: int,
    /,
) -> tuple[int, int, int]: ...

class Lanes:
    def __init__(
        self, epoll_set: int, stores: Any, ids: Any, max_body: int, max_held: int, /
    ) -> None: ...
    def turn(self) -> list[tuple[Any, ...]]: ...
    def taken(self) -> int: ...
    def wait(self, milliseconds: int, /) -> bool: ...
    def plain(self, descriptor: int, left: bytes, syncs: bool, /) -> bool: ...
    def slow(self, descriptor: int, /) -> tuple[bytes, int, list[tuple[Any, int, bytes]]]: ...
    def release(self, batch: Any, failed: bool, /) -> list[tuple[Any, ...]]: ...
    def held(self) -> int: ...
    def active(self, descriptor: int, /) -> bool: ...

def split_replies(data: bytes, max_body: int, replies: list[tuple[int, bytes, int]], /) -> int: ...
def put_place(body: bytes, /) -> tuple[int, int, int] | None: ...
def put_frame(topic: bytes, partition: int, body: bytes, flag: int, opaque: int, /) -> bytes: ...
def crc32(data: bytes | bytearray | memoryview, way: int = 0, /) -> int: ...
def checksum_ways() -> list[str]: ...

class MessageFields:
    topic: str
    partition: Any
    offset: int
    id: int
    flag: int
    _piece: bytes
    _start: int
    _end: int
    @property
    def body(self) -> bytes: ...
    @property
    def next_offset(self) -> int: ...

class Body:
    def __init__(self, length: int, /) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def whole(self) -> bytes: ...

class Flusher:
    def __init__(self, threads: int, /) -> None: ...
    def submit(self, fd: int, token: int, /) -> None: ...
    def take(self) -> list[tuple[int, int, float]]: ...
    def fileno(self) -> int: ...
    def end(self) -> None: ...
