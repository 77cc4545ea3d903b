"""A Java master of a pair, from section 4 of the specification."""

from __future__ import annotations

import itertools
import zlib
from collections import deque
from dataclasses import dataclass

from tests.support.scriptedlogs import (
    FIRST_OPAQUE,
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
)


@dataclass
class Sent:
    """
    A record that a scripted samsa has sent.

    :ivar offset: where it stands in the samsa's own log; None: a probe, which stands nowhere.
    :ivar status: of the answer; None while there is none.
    :ivar told: the offset in the answer.
    """

    place: Place
    message_id: int
    offset: int | None
    status: int | None = None
    text: str = ""
    told: int | None = None


class ScriptedSamsa(ScriptedPeer):
    """
    A Java master of a pair. It appends whatever its slave answers, and looks at nothing but the
    status of an answer.

    :ivar logs: (topic, partition) -> its own log.
    :ivar sent: opaque -> what was sent with it.
    :ivar failures: puts in a row that the slave did not acknowledge; at ``threshold`` it withdraws.
    :ivar probing: it has withdrawn, and probes.
    :ivar withdrawals: how often it has.
    """

    lengths = {"result": 2, "value": 1}

    def __init__(self, threshold: int = 100, first_id: int = -5468920081952014336) -> None:
        super().__init__()
        self.logs: dict[Place, ScriptedLog] = {}
        self.sent: dict[int, Sent] = {}
        self.failures = 0
        self.threshold = threshold
        self.probing = False
        self.withdrawals = 0
        self._ids = itertools.count(first_id, 1 << 12)
        self._opaques = itertools.count(FIRST_OPAQUE)
        self._order: dict[tuple[Line, Place], deque[int]] = {}  # opaques that wait, in their order
        self._heartbeats: set[int] = set()
        self._timed_out: set[int] = set()

    def put(
        self,
        topic: str,
        partition: int,
        body: bytes,
        flag: int = 0,
        checksum: int | None = None,
        message_id: int | None = None,
        line: Line | None = None,
        before_1_4_4: bool = False,
    ) -> Sent | None:
        """
        A producer's put: the record goes out, and into the samsa's own log.

        :param checksum: the producer's; None: the right one; -1: it has sent none.
        :param before_1_4_4: in the form with 7 tokens.
        :returns: None without a connection: nothing is stored then.
        """
        with self.lock:
            line = line or (self.lines[0] if self.lines else None)
            if line is None:
                return None
            if checksum is None:
                checksum = zlib.crc32(body) & 0x7FFFFFFF
            message_id = next(self._ids) if message_id is None else message_id
            log = self.logs.setdefault((topic, partition), ScriptedLog())
            sent = Sent((topic, partition), message_id, log.append(message_id, flag, body))
            self._send(line, sent, body, flag, None if before_1_4_4 else checksum)
            return sent

    def probe(self) -> Sent:
        """Whether the slave can store again."""
        with self.lock:
            sent = Sent((PROBE, 0), next(self._ids), None)
            self._send(self.lines[0], sent, b"test", 0, 1484750348)
            return sent

    def heartbeat(self) -> None:
        """What a client sends on a quiet connection."""
        with self.lock:
            opaque = next(self._opaques)
            self._heartbeats.add(opaque)
            self.lines[0].write(b"version %d\r\n" % opaque)

    def time_out(self, sent: Sent) -> None:
        """No answer came in time; one that comes later says nothing."""
        with self.lock:
            (opaque,) = (key for key, each in self.sent.items() if each is sent)
            self._timed_out.add(opaque)
            self._failed()

    def _send(self, line: Line, sent: Sent, body: bytes, flag: int, checksum: int | None) -> None:
        opaque = next(self._opaques)
        self.sent[opaque] = sent
        self._order.setdefault((line, sent.place), deque()).append(opaque)
        words = [sent.place[0], sent.place[1], len(body), flag, sent.message_id]
        words += [] if checksum is None else [checksum]
        text = " ".join(map(str, ["sync", *words, opaque]))
        line.write(text.encode() + b"\r\n" + body)

    def frame(self, line: Line, frame: Frame) -> None:
        """See ``ScriptedPeer``: an answer to a record, in the order of its partition."""
        words = frame.words
        if words[0] != "result" or len(words) != 4:
            raise Complaint(f"no answer to sync: {words!r}")
        status, opaque = integer(words[1]), integer(words[3])
        if opaque in self._heartbeats:
            self._heartbeats.remove(opaque)
            if status != 200:
                raise Complaint(f"a heartbeat was answered {status}")
            return
        sent = self.sent.get(opaque)
        waiting = self._order.get((line, sent.place)) if sent else None
        if sent is None or not waiting or opaque not in waiting:
            raise Complaint(f"an answer that nobody waits for: {words!r}")
        if waiting.popleft() != opaque:
            raise Complaint(f"{sent.place}: answers in another order than the records")
        text = frame.body.decode("utf-8")
        if opaque in self._timed_out:
            return
        sent.status, sent.text = status, text
        if status == 200:
            self._check_stored(sent)
            self.failures, self.probing = 0, self.probing and sent.offset is not None
        elif sent.offset is not None:
            self._failed()

    def _check_stored(self, sent: Sent) -> None:
        words = sent.text.split(" ")
        if len(words) != 3:
            raise Complaint(f"not <id> <partition> <offset>: {sent.text!r}")
        if (integer(words[0], INT64), integer(words[1])) != (sent.message_id, sent.place[1]):
            raise Complaint(f"another id or partition than {sent}")
        sent.told = integer(words[2], INT64)

    def _failed(self) -> None:
        self.failures += 1
        if self.failures >= self.threshold:
            self.failures = 0
            self.withdrawals += not self.probing
            self.probing = True

    def closed(self, line: Line) -> None:
        """See ``ScriptedPeer``: what waits for an answer has failed."""
        for (of, _), waiting in self._order.items():
            if of is line:
                for opaque in waiting:
                    if self.sent[opaque].offset is not None and opaque not in self._timed_out:
                        self._failed()
                waiting.clear()

    @property
    def unanswered(self) -> int:
        """How many answers it waits for."""
        with self.lock:
            return sum(map(len, self._order.values()))

    @property
    def parted(self) -> list[Sent]:
        """Acknowledged records that stand at another offset on the slave, which it never notices
        [BUG-19]."""
        return [each for each in self.sent.values() if each.told not in (None, each.offset)]
