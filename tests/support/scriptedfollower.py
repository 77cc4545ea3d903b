"""A Java asynchronous slave, from sections 3.4 to 3.7 and 3.13 of the specification."""

from __future__ import annotations

import itertools
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from tests.support.scriptedlogs import (
    FIRST_OPAQUE,
    HEADER_BYTES,
    MAX_BODY,
    Place,
    ScriptedLog,
)
from tests.support.scriptedwire import (
    INT64,
    Complaint,
    Frame,
    Line,
    ScriptedPeer,
    integer,
)


class Step(Enum):
    """
    Where the copying of one partition is.

        MINIMUM    asked where the log begins, to make the first segment
        POSITION   asked again, without a local store, to know the position
        READING    asked for records
        PAUSING    nothing was there; ``tick`` or ``poll`` goes on
        SEEKING    a record was invalid: asked for a good offset [BUG-4]
    """

    MINIMUM = "minimum"
    POSITION = "position"
    READING = "reading"
    PAUSING = "pausing"
    SEEKING = "seeking"


@dataclass
class Copying:
    """
    One partition of a scripted follower.

    :ivar position: what is fetched next: apart from where the log ends, which is the defect.
    :ivar misses: replies in a row with data and without a whole record.
    """

    place: Place
    log: ScriptedLog | None = None
    step: Step = Step.MINIMUM
    position: int = 0
    size: int = 1 << 20
    pause_ms: int = 0
    misses: int = 0


class ScriptedFollower(ScriptedPeer):
    """
    A Java slave that follows a master of ours: the trace of section 3.13, and its defects: it skips
    ids that it has seen [BUG-1], goes on behind its own end after a gap [BUG-6] and from the start
    of a segment after a bad record [BUG-4].

    It begins as soon as there is a connection.

    :param partitions: what the master has in ZooKeeper.
    :param copies_config: ``autoSyncMasterConfig``.
    :ivar copies: (topic, partition) -> how far it is.
    :ivar configs: the files that the master has sent.
    :ivar asked: the lines that it has said, without opaques.
    """

    lengths = {"result": 2, "value": 1}

    def __init__(
        self,
        partitions: list[Place],
        group: str = "meta-slave-group",
        copies_config: bool = False,
        max_pause_ms: int = 500,
    ) -> None:
        super().__init__()
        self.group = group
        self.copies = {place: Copying(place) for place in sorted(partitions)}
        self.configs: list[bytes] = []
        self.asked: list[str] = []
        self.reads = True
        self._copies_config = copies_config
        self._max_pause_ms = max_pause_ms
        self._opaques = itertools.count(FIRST_OPAQUE)
        self._waiting: dict[int, Copying | str] = {}
        self._asked_size: dict[int, int] = {}
        self._seen: OrderedDict[int, None] = OrderedDict()

    def log(self, topic: str, partition: int) -> ScriptedLog:
        """What it has copied."""
        with self.lock:
            return self.copies[topic, partition].log or ScriptedLog()

    def opened(self, line: Line) -> None:
        """See ``ScriptedPeer``: positions come from the local stores, if there are any."""
        self._waiting.clear()
        if self._copies_config:
            self._ask(line, "stats config", "config")
        for each in self.copies.values():
            if each.log is None:
                each.step = Step.MINIMUM
                self._ask_offset(line, each, 0)
            else:
                each.position = each.log.end
                self._fetch(line, each)

    def tick(self) -> None:
        """See ``ScriptedPeer``: its pauses are no longer than the test wants."""
        self.poll()

    def poll(self) -> None:
        """The pauses are over."""
        with self.lock:
            for line in self.lines:
                for each in self.copies.values():
                    if each.step is Step.PAUSING:
                        self._fetch(line, each)

    def heartbeat(self) -> None:
        """What a client sends on a quiet connection."""
        with self.lock:
            self._ask(self.lines[0], "version", "version")

    def _ask(self, line: Line, request: str, who: Copying | str, size: int = 0) -> None:
        opaque = next(self._opaques)
        self._waiting[opaque] = who
        self._asked_size[opaque] = size
        self.asked.append(request)
        line.write(f"{request} {opaque}\r\n".encode())

    def _ask_offset(self, line: Line, each: Copying, offset: int) -> None:
        topic, partition = each.place
        self._ask(line, f"offset {topic} {self.group} {partition} {offset}", each)

    def _fetch(self, line: Line, each: Copying) -> None:
        topic, partition = each.place
        each.step = Step.READING
        request = f"get {topic} {self.group} {partition} {each.position} {each.size}"
        self._ask(line, request, each, each.size)

    def frame(self, line: Line, frame: Frame) -> None:
        """See ``ScriptedPeer``."""
        words = frame.words
        opaque = integer(words[-1])
        who = self._waiting.pop(opaque, None)
        if who is None:
            raise Complaint(f"an answer that nobody waits for: {words!r}")
        if words[0] == "value":
            if isinstance(who, str) or who.step is not Step.READING:
                raise Complaint(f"{who} was answered {words!r}")
            if not 0 < len(frame.body) <= self._asked_size[opaque]:
                raise Complaint(f"asked for {self._asked_size[opaque]} bytes, got {words!r}")
            self._records(line, who, frame.body)
            return
        if len(words) != 4:
            raise Complaint(f"no answer: {words!r}")
        status = integer(words[1])
        if who == "config" and status == 200:
            self.configs.append(frame.body)
        elif isinstance(who, Copying):
            self._answered(line, who, status, frame.body)
        elif status != 200:
            raise Complaint(f"{who} was answered {words!r}")

    def _answered(self, line: Line, each: Copying, status: int, body: bytes) -> None:
        if each.step is not Step.READING:
            if status not in (200, 404):
                raise Complaint(f"offset was answered {status} {body!r}")
            offset = integer(body.decode(), INT64) if status == 200 else 0
            self._told_offset(line, each, offset)
        elif status in (403, 404):
            each.pause_ms = min(each.pause_ms + self._max_pause_ms // 10, self._max_pause_ms)
            each.step = Step.PAUSING
        elif status == 301:
            each.position = integer(body.decode(), INT64)  # and nothing else [BUG-6]
            self._fetch(line, each)
        else:
            raise Complaint(f"get was answered {status} {body!r}")

    def _told_offset(self, line: Line, each: Copying, offset: int) -> None:
        if each.step is Step.MINIMUM:
            if offset > 0:
                each.log = ScriptedLog(offset)
                each.position = offset
                self._fetch(line, each)
            else:
                each.step = Step.POSITION
                self._ask_offset(line, each, 0)
            return
        each.position = offset
        self._fetch(line, each)

    def _records(self, line: Line, each: Copying, data: bytes) -> None:
        """Whole ones are stored, the rest is fetched again."""
        each.pause_ms = 0
        at = 0
        while at + HEADER_BYTES <= len(data):
            length = int.from_bytes(data[at : at + 4], "big", signed=True)
            end = at + HEADER_BYTES + length
            if not 0 <= length <= MAX_BODY:
                return self._invalid(line, each)
            if end > len(data):
                break
            body = data[at + HEADER_BYTES : end]
            if zlib.crc32(body) & 0x7FFFFFFF != int.from_bytes(data[at + 4 : at + 8], "big"):
                return self._invalid(line, each)
            self._store(each, data[at:end])
            each.position += end - at
            at = end
        each.misses = 0 if at else each.misses + 1
        if each.misses > 5:
            each.size = min(each.size * 2, 4 << 20)
        elif at and each.size > 1 << 20:
            each.size //= 2
        self._fetch(line, each)

    def _invalid(self, line: Line, each: Copying) -> None:
        each.step = Step.SEEKING
        self._ask_offset(line, each, each.position)

    def _store(self, each: Copying, data: bytes) -> None:
        message_id = int.from_bytes(data[8:16], "big", signed=True)
        if message_id in self._seen:
            return  # [BUG-1]
        self._seen[message_id] = None
        if len(self._seen) > 4096:
            self._seen.popitem(last=False)
        if each.log is None:
            each.log = ScriptedLog()
        each.log.data += data
