"""A broker in memory at the other end of a ``MemoryRuntime``'s links, for readers of logs."""

from __future__ import annotations

from metamorphosis.testing.partition import MemoryPartition as Log
from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime
from tests.support.fetchstage import Asked, requests

MAX_OFFSET = (1 << 63) - 1


class MemoryBroker:
    """
    :ivar logs: (topic, partition) -> its log.
    :ivar asked: all requests, in order.
    :ivar refusals: (topic, partition) -> status with which gets are answered.
    :param limit: longest piece that is sent.
    """

    def __init__(self, runtime: MemoryRuntime, address: str = "b:1", limit: int = 1 << 20) -> None:
        self.logs: dict[tuple[str, int], Log] = {}
        self.asked: list[Asked] = []
        self.refusals: dict[tuple[str, int], int] = {}
        self.held: list[Asked] = []
        self._runtime = runtime
        self._address = address
        self._limit = limit
        self._links: list[MemoryLink] = []

    def log(self, topic: str, partition: int, start: int = 0) -> Log:
        """A new log."""
        log = self.logs[topic, partition] = Log(start)
        return log

    def accept(self) -> None:
        """Accept all attempts to connect."""
        while any(repr(each) == self._address for each in self._runtime.attempts):
            self._links.append(self._runtime.accept(self._address))

    def serve(self) -> None:
        """Answer all requests, also later ones, until none is pending."""
        for _ in range(100_000):  # long logs may be read in short pieces
            self.accept()
            busy = False
            for link in self._links:
                for asked in requests(link.take()):
                    busy = True
                    self.asked.append(asked)
                    answer = getattr(self, f"_{asked.words[0]}")(asked)
                    if answer is not None:
                        link.receive(answer)
                self._runtime.advance(0)
            if not busy:
                return
        raise AssertionError("it never ends")

    def _get(self, asked: Asked) -> bytes | None:
        key = asked.words[1], int(asked.words[3])
        log = self.logs.get(key)
        if key in self.refusals:
            return self._result(asked, self.refusals[key], b"no")
        if log is None:
            return self._result(asked, 404, b"no store")
        if asked.offset < log.start:
            return self._result(asked, 301, b"%d" % log.start)
        place = asked.offset - log.start
        end = min(place + min(asked.size, self._limit), log.segment_end(asked.offset) - log.start)
        piece = log.data[place:end]
        if piece:
            return b"value %d %d\r\n%b" % (len(piece), asked.opaque, piece)
        if asked.wait_ms:
            self.held.append(asked)
            return None
        return self._result(asked, 404, b"nothing")

    def _offset(self, asked: Asked) -> bytes:
        log = self.logs.get((asked.words[1], int(asked.words[3])))
        if log is None:
            return self._result(asked, 404, b"no store")
        return self._result(asked, 200, b"%d" % log.nearest(asked.offset))

    def _stats(self, asked: Asked) -> bytes:
        lines = ["STATS"]
        for (topic, partition), log in self.logs.items():
            lines.append(f"{topic} part {partition} min_offset {log.start} max_offset {log.end}")
        text = "\r\n".join([*lines, "END", ""]).encode()
        return self._result(asked, 200, text)

    @staticmethod
    def _result(asked: Asked, status: int, text: bytes) -> bytes:
        return b"result %d %d %d\r\n%b" % (status, len(text), asked.opaque, text)
