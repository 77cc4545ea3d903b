"""
A master in memory, for the copying of its log: it answers ``get``, ``offset``, ``stats config`` and
``version`` of a ``Peer``, over a ``MemoryRuntime``, as a broker of ours or as the original.
"""

from __future__ import annotations

from typing import Final

from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime

END_OF_LOG: Final = (1 << 63) - 1


class MasterLog:
    """
    :ivar first: lowest offset.
    :ivar data: the bytes from there on.
    :ivar hidden: 404, as for a partition that a restarted Java master has not opened.
    """

    def __init__(self, data: bytes = b"", first: int = 0) -> None:
        self.first = first
        self.data = data
        self.hidden = False

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.first + len(self.data)


class MemoryMaster:
    """
    :param holds: a ``get`` with a seventh token is held; else every one is answered at once.
    :ivar logs: (topic, partition) -> log.
    :ivar asked: first lines of all requests, without opaques, oldest first.
    :ivar limit: ``maxTransferSize``.
    :ivar refusals: word of a command -> the status that it is answered with.
    :ivar config: its ``server.ini``.
    :ivar deaf: it does not reply.
    :ivar away: it does not listen.
    """

    def __init__(self, runtime: MemoryRuntime, address: str, holds: bool = True) -> None:
        self.logs: dict[tuple[str, int], MasterLog] = {}
        self.asked: list[str] = []
        self.limit = 1 << 20
        self.refusals: dict[str, int] = {}
        self.config = b""
        self.deaf = False
        self.away = False
        self._runtime = runtime
        self._address = address
        self._holds = holds
        self._held: list[tuple[MemoryLink, list[str], float]] = []

    def log(self, topic: str, partition: int, data: bytes = b"", first: int = 0) -> MasterLog:
        """A new log."""
        log = self.logs[topic, partition] = MasterLog(data, first)
        return log

    def links(self) -> list[MemoryLink]:
        """Those that are open."""
        return [
            each
            for each in self._runtime.links
            if f"{each.host}:{each.port}" == self._address and each.open
        ]

    def lose(self) -> None:
        """Lose every connection."""
        for link in self.links():
            link.lose()

    def serve(self, seconds: float = 0.0) -> None:
        """Answer until no request is pending; then let time pass, and answer again."""
        self._settle()
        end = self._runtime.seconds() + seconds
        while self._runtime.seconds() < end:
            self._runtime.advance(min(0.05, end - self._runtime.seconds()))
            self._settle()

    def _settle(self) -> None:
        for _ in range(100_000):
            if not self._round():
                return
        raise AssertionError("it never ends")

    def _round(self) -> bool:
        while any(repr(each) == self._address for each in self._runtime.attempts):
            if self.away:
                error = ConnectionRefusedError
                self._runtime.refuse(self._address, "Connection refused", error)
            else:
                self._runtime.accept(self._address)
        busy = False
        held, self._held = self._held, []
        for link, words, until in held:
            if link.open:
                busy |= self._get(link, words, until)
        for link in self.links():
            for line in link.take().split(b"\r\n")[:-1]:
                words = line.decode().split(" ")
                if not self.deaf:
                    busy = True
                    self._answer(link, words)
        return busy

    def _answer(self, link: MemoryLink, words: list[str]) -> None:
        place = 6 if words[0] == "get" else len(words) - 1
        self.asked.append(" ".join(words[:place]))
        opaque = words[place]
        if words[0] in self.refusals:
            self._result(link, self.refusals[words[0]], opaque, b"no")
        elif words[0] == "get":
            self._get(link, words, self._runtime.seconds() + self._wait_of(words))
        elif words[0] == "offset":
            self._offset(link, words, opaque)
        elif words[0] == "stats":
            self._result(link, 200, opaque, self.config)
        else:
            self._result(link, 200, opaque, b"1.4.6.2")

    def _wait_of(self, words: list[str]) -> float:
        return int(words[7]) / 1000 if len(words) > 7 and self._holds else 0.0

    def _get(self, link: MemoryLink, words: list[str], until: float) -> bool:
        """Whether it was answered."""
        opaque = words[6]
        log = self.logs.get((words[1], int(words[3])))
        offset, size = int(words[4]), min(int(words[5]), self.limit)
        if log is not None and not log.hidden:
            if offset < log.first:
                self._result(link, 301, opaque, b"%d" % log.first)
                return True
            if offset == END_OF_LOG:
                self._result(link, 301, opaque, b"%d" % log.end)
                return True
            piece = log.data[offset - log.first :][:size]
            if piece:
                link.receive(b"value %d %b\r\n%b" % (len(piece), opaque.encode(), piece))
                return True
        if self._runtime.seconds() < until:
            self._held.append((link, words, until))
            return False
        self._result(link, 404, opaque, b"nothing")
        return True

    def _offset(self, link: MemoryLink, words: list[str], opaque: str) -> None:
        log = self.logs.get((words[1], int(words[3])))
        if log is None or log.hidden:
            self._result(link, 404, opaque, b"no store")
        else:
            place = log.first if int(words[4]) <= log.first else log.end
            self._result(link, 200, opaque, b"%d" % place)

    @staticmethod
    def _result(link: MemoryLink, status: int, opaque: str, text: bytes) -> None:
        head = b"result %d %d %b\r\n" % (status, len(text), opaque.encode())
        link.receive(head + text)
