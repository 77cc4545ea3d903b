"""A Java slave of a pair, from section 5 of the specification."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from tests.support.scriptedlogs import (
    CHECKSUM_FAILURE,
    END_OF_LOG,
    PROBE,
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
    name,
    result,
)


class Fault(Enum):
    """What a scripted gregor does wrong with one record."""

    REFUSE = "answers 500, and does not store it"
    FAIL = "answers 500 without a reason, as after an I/O error"
    WRONG_OFFSET = "stores it, and answers an offset that it does not have"
    WRONG_ID = "stores it, and answers another id"
    SILENT = "stores it, and never answers"
    LATE = "stores it, and answers at release()"
    DEAF = "neither stores nor answers"
    CUT = "stores it, and dies in the middle of its answer"
    CLOSE = "stores it, and dies before it answers"
    CLOSE_FIRST = "dies before it stores it"
    STRANGE_OPAQUE = "answers also a request that nobody has made"
    GARBAGE = "stores it, and answers what is no frame"
    TOO_LONG = "stores it, and says more than the length of its answer announces"


NO_BROKER: Final = b"HTTP/1.1 400 Bad Request\r\nServer: no broker\r\n\r\n"


class ScriptedGregor(ScriptedPeer):
    """
    A Java slave of a pair. It appends at its own end, looks at no offset and no id, stores probes,
    and takes puts.

    Commands of one connection and one partition are done in the order in which they came. Replies
    to others may overtake each other there; ``overtake`` turns the replies of a chunk round, one
    partition against the other.

    :param topics: accepted topics, and their numbers of partitions.
    :ivar logs: (topic, partition) -> its log.
    :ivar syncs: the ``sync`` commands received so far, probes included: topic, partition, id.
    :ivar questions: the ``offset`` commands: group, and how many ``sync`` came before it.
    :ivar faults: number of a ``sync``, from 1, without probes -> what is done wrong.
    :ivar closed_partitions: those that answer 403.
    :ivar flushes: whether what is appended can be read at once.
    :ivar max_transfer: longest piece that a ``get`` returns.
    """

    lengths = {
        "sync": 3,
        "put": 3,
        "get": 0,
        "offset": 0,
        "version": 0,
        "stats": 0,
        "transaction": 0,
        "quit": 0,
    }

    def __init__(
        self, topics: Mapping[str, int], url: str = "meta://gregor:8123", broker_id: int = 0
    ) -> None:
        super().__init__()
        self.topics = {**topics, PROBE: 1}
        self.url = url
        self.broker_id = broker_id
        self.logs: dict[Place, ScriptedLog] = {}
        self.syncs: list[tuple[str, int, int]] = []
        self.questions: list[tuple[str, int]] = []
        self.faults: dict[int, Fault] = {}
        self.closed_partitions: set[Place] = set()
        self.flushes = True
        self.overtake = False
        self.max_transfer = 1 << 20
        self.cmd_put = 0
        self._ids = itertools.count(-5468924258795126784, 1 << 12)
        self._records = 0  # of the syncs those that are no probe
        self._late: list[tuple[Line, bytes]] = []
        self._told: list[tuple[Line, Place, bytes]] = []  # replies of this chunk, with overtake

    # -- what a test does to it

    def log(self, topic: str, partition: int) -> ScriptedLog:
        """The log of a partition, made if there is none."""
        with self.lock:
            return self.logs.setdefault((topic, partition), ScriptedLog())

    def release(self) -> None:
        """Send the answers that are late."""
        with self.lock:
            late, self._late = self._late, []
            for line, reply in late:
                line.write(reply)

    def restart(self, hides: bool = False) -> None:
        """
        Kill it, and start it again with the same logs.

        :param hides: with the default layout of directories [BUG-26].
        """
        with self.lock:
            self.kill()
            self._late.clear()
            for log in self.logs.values():
                log.flushed = None
                log.hidden = hides

    def flush(self) -> None:
        """What was appended can be read now."""
        with self.lock:
            for log in self.logs.values():
                log.flushed = None

    def delete_topic_nodes(self, delete: Callable[[str], None], root: str = "/meta") -> None:
        """
        What it does to a master that was registered when it starts [BUG-17].

        :param delete: removes a node of ZooKeeper, if it is there.
        """
        for topic in self.topics:
            for tree in ("topics", "topics-pub", "topics-sub"):
                delete(f"{root}/brokers/{tree}/{topic}/{self.broker_id}-m")

    # -- what it answers

    def frame(self, line: Line, frame: Frame) -> None:
        """See ``ScriptedPeer``."""
        answer = getattr(self, f"_{frame.words[0]}")
        answer(line, frame.words, frame.body)
        self._tell()

    def _reply(self, line: Line, place: Place, reply: bytes) -> None:
        if self.overtake:
            self._told.append((line, place, reply))
        else:
            line.write(reply)

    def _tell(self) -> None:
        """Send what is held back as soon as it is of two partitions, the later one first."""
        places = [place for _, place, _ in self._told]
        if len(set(places)) > 1:
            told, self._told = self._told, []
            for line, _, reply in sorted(told, key=lambda each: -places.index(each[1])):
                line.write(reply)

    def tick(self) -> None:
        """See ``ScriptedPeer``: nothing is held back for ever."""
        self.settle()

    def settle(self) -> None:
        """Send what ``overtake`` still holds back."""
        with self.lock:
            told, self._told = self._told, []
            for line, _, reply in reversed(told):
                line.write(reply)

    def _sync(self, line: Line, words: list[str], body: bytes) -> None:
        if len(words) not in (7, 8):
            raise Complaint(f"sync with {len(words)} tokens: {words!r}")
        topic, partition = name(words[1]), integer(words[2])
        flag, message_id = integer(words[4]), integer(words[5], INT64)
        checksum = integer(words[6]) if len(words) == 8 else -1
        opaque = integer(words[-1])
        if checksum != -1 and checksum < 0:
            raise Complaint(f"a checksum below -1: {words!r}")
        self.syncs.append((topic, partition, message_id))
        self.cmd_put += 1
        fault = None
        if topic != PROBE:
            self._records += 1
            fault = self.faults.get(self._records)
        place = topic, partition
        status, text = self._store(place, message_id, flag, checksum, body, fault)
        self._answer_sync(line, place, fault, opaque, (status, text))

    def _store(
        self,
        place: Place,
        message_id: int,
        flag: int,
        checksum: int,
        body: bytes,
        fault: Fault | None,
    ) -> tuple[int, str]:
        topic, partition = place
        prefix = f"Put message to [broker '{self.url}'] [partition '{topic}-{partition}'] failed."
        if place in self.closed_partitions:
            detail = f"Partition[{self.broker_id}-{partition}] has been closed"
            return 403, f"{prefix}Detail:{detail}"
        if topic not in self.topics:
            return 500, f"{prefix}Detail:The server do not accept topic {topic}"
        if partition not in range(self.topics[topic]):
            return 500, f"{prefix}Detail:wrong partition {partition}"
        self.log(topic, partition).hidden = False  # opened, whatever becomes of the record
        if checksum not in (-1, zlib.crc32(body) & 0x7FFFFFFF):
            return 500, f"{prefix}Detail:{CHECKSUM_FAILURE}"
        if fault is Fault.REFUSE:
            return 500, f"{prefix}Detail:refused by the test"
        if fault is Fault.FAIL:
            return 500, prefix
        if fault in (Fault.DEAF, Fault.CLOSE_FIRST):
            return 0, ""
        offset = self._append(place, message_id, flag, body)
        offset += 7 * (fault is Fault.WRONG_OFFSET)
        message_id += fault is Fault.WRONG_ID
        return 200, f"{message_id} {partition} {offset}"

    def _append(self, place: Place, message_id: int, flag: int, body: bytes) -> int:
        log = self.log(*place)
        if not self.flushes and log.flushed is None:
            log.flushed = len(log.data)
        return log.append(message_id, flag, body)

    def _answer_sync(
        self, line: Line, place: Place, fault: Fault | None, opaque: int, answer: tuple[int, str]
    ) -> None:
        reply = result(answer[0], opaque, answer[1])
        if fault in (Fault.CLOSE, Fault.CLOSE_FIRST):
            line.close()
        elif fault is Fault.CUT:
            line.write(reply[: len(reply) // 2])
            line.close()
        elif fault is Fault.LATE:
            self._late.append((line, reply))
        elif fault is Fault.GARBAGE:
            line.write(NO_BROKER)
        elif fault is Fault.TOO_LONG:
            line.write(reply + b" 0")
        elif fault is Fault.STRANGE_OPAQUE:
            line.write(result(200, 2147483646, answer[1]) + reply)
        elif fault not in (Fault.SILENT, Fault.DEAF):
            self._reply(line, place, reply)

    def _put(self, line: Line, words: list[str], body: bytes) -> None:
        """Stored under an id of its own [BUG-18]."""
        topic, partition = name(words[1]), max(integer(words[2]), 0)
        message_id = next(self._ids)
        self.cmd_put += 1
        status, text = self._store(
            (topic, partition), message_id, integer(words[4]), -1, body, None
        )
        line.write(result(status, integer(words[-1]), text))

    def _visible(self, topic: str, partition: int) -> ScriptedLog | None:
        log = self.logs.get((topic, partition))
        return None if log is None or log.hidden else log

    def _offset(self, line: Line, words: list[str], body: bytes) -> None:
        if len(words) != 6:
            raise Complaint(f"offset with {len(words)} tokens: {words!r}")
        topic, group, partition = name(words[1]), name(words[2]), integer(words[3])
        offset, opaque = integer(words[4], INT64), integer(words[5])
        self.questions.append((group, len(self.syncs)))
        log = self._visible(topic, partition)
        if log is None:
            text = f"The topic `{topic}` in partition `{partition}` is not exists"
            line.write(result(404, opaque, text))
        else:
            nearest = log.readable if offset >= log.readable else log.first
            line.write(result(200, opaque, str(nearest)))

    def _get(self, line: Line, words: list[str], body: bytes) -> None:
        if len(words) not in (7, 8):
            raise Complaint(f"get with {len(words)} tokens: {words!r}")
        topic, _, partition = name(words[1]), name(words[2]), integer(words[3])
        offset, size, opaque = integer(words[4], INT64), integer(words[5]), integer(words[6])
        log = self._visible(topic, partition)
        if (topic, partition) in self.closed_partitions:
            text = f"Partition[{self.broker_id}-{partition}] has been closed"
            line.write(result(403, opaque, text))
        elif log is None:
            text = f"The topic `{topic}` in partition `{partition}` is not exists"
            line.write(result(404, opaque, text))
        elif size <= 0:
            line.write(result(400, opaque, f"Bad request,invalid max size:{size}"))
        elif offset < log.first:
            line.write(result(301, opaque, str(log.first)))
        elif offset < log.readable:
            # A range begins below the flushed end, and may go on beyond it, as the original's.
            at = offset - log.first
            piece = bytes(log.data[at : at + min(size, self.max_transfer)])
            line.write(b"value %d %d\r\n%b" % (len(piece), opaque, piece))
        elif offset == END_OF_LOG:
            line.write(result(301, opaque, str(log.readable)))
        else:
            line.write(result(404, opaque, f"Could not find message at position {offset}"))

    def _version(self, line: Line, words: list[str], body: bytes) -> None:
        line.write(result(200, integer(words[1]), "1.4.6.2"))

    def _stats(self, line: Line, words: list[str], body: bytes) -> None:
        lines = [f"slave false\r\ncmd_put {self.cmd_put}"]
        if words[1] == "topics":
            lines = list(map(self._topic_line, sorted({topic for topic, _ in self.logs})))
        elif words[1] == "offsets":
            lines = [
                f"{topic} part {partition} min_offset {log.first} max_offset {log.readable}"
                for (topic, partition), log in self.logs.items()
                if not log.hidden
            ]
        text = "\r\n".join(["STATS", *lines, "END", ""])
        line.write(result(200, integer(words[-1]), text))

    def _topic_line(self, topic: str) -> str:
        logs = [log for (name, _), log in self.logs.items() if name == topic and not log.hidden]
        size = sum(log.end - log.first for log in logs)
        return (
            f"{topic} partitions {len(logs)} message_count 0 message_bytes {size}"
            " accept_publish true accept_subscribe true"
        )

    def _transaction(self, line: Line, words: list[str], body: bytes) -> None:
        if words[3] != "END":
            line.write(result(500, integer(words[-1]), "Unsupported transaction"))

    def _quit(self, line: Line, words: list[str], body: bytes) -> None:
        line.close()
