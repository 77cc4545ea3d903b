"""
The fetch loop of one partition.

Source: ``SimpleFetchManager.FetchRequestRunner``.

Differs: a 301 to an earlier offset is followed when the broker has insisted for a while; the
original goes back over messages that the broker has handed out and not flushed yet.
"""

from __future__ import annotations

from metamorphosis.client.connection import BrokerConnection
from metamorphosis.client.delivery import MOST, PartitionDelivery
from metamorphosis.client.flow import Event, sleep
from metamorphosis.client.gets import FetchRules, Gets, Request
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.pacing import Pacing
from metamorphosis.client.records import Damage, FetchedRecords, find_record
from metamorphosis.client.replies import LOST, NOT_SENT, VALUE, error_of
from metamorphosis.client.resuming import LogPlaces
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.errors import MetaQError, NotFound
from metamorphosis.message import HEADER_BYTES
from metamorphosis.wire.status import Status

CONNECT_SECONDS = 5.0
"""How long a broker may be out of reach before the log says so of its partitions."""
SENT_BACK_SECONDS = 15.0
"""How long a broker has to insist that its log ends before us: ``unflushInterval`` and some."""
IDLE_SECONDS = 60.0
"""After so long without anything to read the broker is asked where its log ends."""
OVERLAP_BYTES = 64 << 10
"""An answer this long is worth a turn of the loop before each list of messages is delivered: the
next request leaves, and others have their turn."""


class PartitionFetch:
    """
    Thread: the loop's.

    :param size: bytes of a fetch.
    :ivar ended: ``run`` is over, or need not be waited for.
    """

    def __init__(
        self,
        rules: FetchRules,
        delivery: PartitionDelivery,
        connection: BrokerConnection,
        size: int,
    ) -> None:
        config = rules.config
        self.connection = connection
        self.delivery = delivery
        self.ended = Event(rules.runtime)
        self._rules = rules
        self._runtime = rules.runtime
        self._log = rules.log
        self._progress = delivery.progress
        self._topic = delivery.position.topic
        self._partition = delivery.position.partition
        self._wake = Event(rules.runtime)
        self._gets = Gets(rules, connection, self._topic, self._partition, self._wake)
        self._places = LogPlaces(
            connection, config.group, self._topic, self._partition, rules.timeout
        )
        self._pacing = Pacing(
            config.max_delay_fetch_time_ms,
            size,
            HEADER_BYTES + rules.max_body,
            config.max_increase_fetch_data_retries,
        )
        self._request: Request | None = None  # the last one sent
        self._piece = b""  # the start of a message that no answer of this broker's holds whole
        self._piece_offset = 0  # where that message begins
        self._pieces_missed = 0  # times that nothing more of it was there
        self._sent_back = -1, 0.0  # offset before which the log ends, it is said, and since when
        self._idle = -1, 0.0  # offset at which there is nothing, and since when
        self._complaint: object = None  # status or class of the error that was logged last
        self._delivering = False
        delivery.changed = self._wake.pulse

    def stop(self) -> None:
        """``run`` ends as soon as the listener has come to the end of its call."""
        self.delivery.stop()
        if not self._delivering:
            self.ended.set()
        self._wake.pulse()

    def abandon(self) -> None:
        """Do not wait for the listener any longer."""
        self.delivery.abandon()
        self.ended.set()

    async def run(self) -> None:
        """Until ``stop``, and at most until ``abandon``."""
        self._runtime.start(self._loop())
        await self.ended.wait()

    async def _loop(self) -> None:
        try:
            await self._until_stopped()
        except GeneratorExit:  # nobody is there any more to be told
            raise
        except BaseException:
            self.ended.set()
            raise
        self._request = None
        self.ended.set()

    async def _until_stopped(self) -> None:
        while not self.delivery.stopping:
            try:
                await self._once()
                continue
            except MetaQError as error:
                self._say(type(error), error)
            except Exception:
                self._log.failure(
                    "Fetching {topic} {partition} at offset {offset} failed",
                    topic=self._topic,
                    partition=self._partition,
                    offset=self._progress.resume_offset,
                )
            self._request = None
            self._piece = b""
            self._pacing.nothing()

    async def _once(self) -> None:
        """One fetch, and what comes of it."""
        await self._pause()
        if self.delivery.stopping:
            return
        if self._progress.resume_offset == MAX_OFFSET and not await self._find_end():
            return
        request = await self._answered()
        if request is None:
            return
        if request.status == VALUE:
            self._complaint = None
            await self._received(request)
        elif request.status == Status.MOVED:
            self._moved(request.body)
        elif request.status == Status.NOT_FOUND and self._piece:
            await self._never_whole(request)
        else:
            self._nothing(request)
            await self._compare_with_end(request)

    # -- asking

    async def _pause(self) -> None:
        """As long as the pacing says, and until there is a connection."""
        until = self._runtime.seconds() + self._pacing.delay_ms / 1000
        while not self.delivery.stopping:
            left = until - self._runtime.seconds()
            if left <= 0:
                break
            await self._wake.wait(left)
        while not self.delivery.stopping and not self.connection.is_connected:
            self._runtime.start(self._wake_when_connected())
            await self._wake.wait()

    async def _wake_when_connected(self) -> None:
        if not await self.connection.ready(CONNECT_SECONDS) and not self.delivery.stopping:
            self._complain(NOT_SENT, b"")
        self._wake.pulse()

    async def _answered(self) -> Request | None:
        """
        The answer for the present offset: to the request that was sent ahead if it brought
        something or is still out, else to a new one. None: the answer is not wanted any more.
        """
        if self._piece_offset != self._progress.resume_offset:
            self._piece = b""  # the user went elsewhere
        offset = self._progress.resume_offset + len(self._piece)
        request = self._request
        if request is None or request.offset != offset or request.done and request.status != VALUE:
            request = self._request = self._gets.ask(offset, self._pacing.size)
        while not request.done:
            await self._wake.wait()
            if self.delivery.stopping:
                return None
            if offset != self._progress.resume_offset + len(self._piece):
                self._pacing.processed(self._progress.retries)
                return None  # the user went elsewhere meanwhile
        self._request = None
        return request

    # -- what came

    async def _received(self, request: Request) -> None:
        offset = self._progress.resume_offset
        data = self._piece + request.body if self._piece else request.body
        records = FetchedRecords(self._topic, self._partition, offset, data, self._rules.max_body)
        messages = records.read(MOST)
        if not messages:
            if records.jumped:
                self._jumped(records)
            elif records.damage is not None:
                await self._damaged(records.damage)
            else:
                self._incomplete(records, data)
            return
        self._piece = b""
        self._pacing.received(len(data))
        complete = True
        while messages and complete:
            if records.exhausted and not self._progress.retries:
                # The next answer travels while this one is delivered.
                self._request = self._gets.ask(records.next_offset, self._pacing.size)
            if len(data) >= OVERLAP_BYTES:
                await sleep(self._runtime, 0)
                if self.delivery.stopping:
                    return
                if self._progress.resume_offset != messages[0].offset:
                    complete = False  # the user went elsewhere meanwhile
                    break
            complete = await self._deliver(messages)
            messages = records.read(MOST) if complete else messages
        self._pacing.processed(self._progress.retries)
        if not complete or self.delivery.stopping:
            return
        if records.jumped:
            self._jumped(records)
        elif records.damage is not None:
            await self._damaged(records.damage)

    async def _deliver(self, messages: list[ReceivedMessage]) -> bool:
        self._delivering = True
        try:
            return await self.delivery.deliver(messages)
        finally:
            self._delivering = False

    def _jumped(self, records: FetchedRecords) -> None:
        """Behind what the group's filter rejects."""
        self._piece = b""
        self._pacing.at_once()
        self._progress.move_to(records.next_offset)

    def _incomplete(self, records: FetchedRecords, data: bytes) -> None:
        """
        Bytes, but no whole message. A broker sends at most its ``maxTransferSize``: what is longer
        is put together.
        """
        needed = records.needed
        if self._pacing.too_small(needed):
            self._piece = b""
        elif needed and len(data) > len(self._piece):
            self._piece = data
            self._piece_offset = records.next_offset
            self._pieces_missed = 0
            self._pacing.at_once()

    async def _never_whole(self, request: Request) -> None:
        """
        The log ends inside a message. No broker shows that for long: its length is damaged if
        whole messages lie where its body should be.
        """
        self._nothing(request)
        self._pieces_missed += 1
        if self._pieces_missed <= self._rules.config.max_increase_fetch_data_retries:
            return
        offset = self._progress.resume_offset
        found = find_record(self._piece, 1, self._rules.max_body)
        if found is not None:
            length = len(self._piece)
            await self._damaged(
                Damage(offset, f"the log ends after {length} bytes of it", offset + found)
            )
        elif self._pieces_missed == self._rules.config.max_increase_fetch_data_retries + 1:
            self._log.warn(
                "{topic} {partition}: the log ends inside the message at offset {offset}, after"
                " {count} bytes of it; waiting for the rest",
                topic=self._topic,
                partition=self._partition,
                offset=offset,
                count=len(self._piece),
            )

    async def _damaged(self, damage: Damage) -> None:
        """Go on behind it, with an alarm and a pause."""
        self._piece = b""
        self._request = None
        self._pacing.nothing()
        target = await self._places.behind(damage, self._rules.max_body)
        if self.delivery.stopping or self._progress.resume_offset != damage.offset:
            return  # the user went elsewhere meanwhile
        self._log.error(
            "{topic} {partition}: the message at offset {offset} cannot be read, {reason};"
            " going on at offset {target}",
            topic=self._topic,
            partition=self._partition,
            offset=damage.offset,
            reason=damage.reason,
            target=target,
        )
        self._progress.move_to(target)

    async def _find_end(self) -> bool:
        """Replace the position ``MAX_OFFSET`` by the end of the log; whether to go on."""
        end = await self._find_end_of_log()
        if not self.delivery.stopping and self._progress.resume_offset == MAX_OFFSET:
            self._progress.move_to(end)
        return not self.delivery.stopping

    def _moved(self, body: bytes) -> None:
        """301: the log begins, ends, or has something for us at another place."""
        before = self._progress.resume_offset
        if self._piece or not body.isdigit():
            # Not of the place where a message begins: that is asked for again.
            self._piece = b""
            self._complain(Status.MOVED, body)
            self._pacing.nothing()
            return
        after = int(body)
        if after > before:
            self._pacing.at_once()
        else:
            self._pacing.nothing()
        if after < before and not self._is_sent_back(before):
            return
        if after != before and self._complaint != Status.MOVED:
            self._complaint = Status.MOVED
            self._log.warn(
                "{topic} {partition}: there is nothing at offset {before} any more; going on at"
                " {after}, as the broker says",
                topic=self._topic,
                partition=self._partition,
                before=before,
                after=after,
            )
        self._progress.move_to(after)

    def _is_sent_back(self, offset: int) -> bool:
        """
        Whether the log ends before this offset, which is to be believed when the broker has said so
        for a while: it hands out what is not flushed yet, and with ``updateConsumerOffsets`` denies
        it to who asks for what follows.
        """
        now: float = self._runtime.seconds()
        if self._sent_back[0] != offset:
            self._sent_back = offset, now
        return now - self._sent_back[1] >= SENT_BACK_SECONDS

    def _nothing(self, request: Request) -> None:
        """Nothing there, a refusal, or no answer: the pause grows, unless the broker has waited."""
        if request.status == Status.NOT_FOUND:
            self._complaint = None
            waited = (self._runtime.seconds() - request.asked_at) * 1000
            if self._rules.wait_ms and waited >= self._rules.wait_ms / 2:
                self._pacing.at_once()
                return
        else:
            self._piece = b""
            if request.status != LOST:  # which the connection itself tells
                self._complain(request.status, request.body)
        self._pacing.nothing()

    async def _compare_with_end(self, request: Request) -> None:
        """
        Tell, once for each place and broker, when the log ends before us: the broker has lost its
        tail, or all, and what is put now lies where we do not read.
        """
        offset = self._progress.resume_offset
        now: float = self._runtime.seconds()
        if request.status != Status.NOT_FOUND:
            self._idle = -1, 0.0
        elif self._idle[0] != offset:
            self._idle = offset, now
        elif now - self._idle[1] >= IDLE_SECONDS:
            self._idle = offset, float("inf")
            end = await self._find_end_of_log()
            if end < offset == self._progress.resume_offset:
                self._log.error(
                    "{topic} {partition}: the log ends at {end}, before offset {offset}, where the"
                    " group is: what is put in between will not be read; seek, or set"
                    " updateConsumerOffsets at the broker",
                    topic=self._topic,
                    partition=self._partition,
                    end=end,
                    offset=offset,
                )

    async def _find_end_of_log(self) -> int:
        try:
            return await self._places.end()
        except NotFound:
            return 0

    def _complain(self, status: int, body: bytes) -> None:
        what = f"get of {self._topic} {self._partition} at {self.connection.url}"
        self._say(status, error_of(status, body, what))

    def _say(self, kind: object, error: MetaQError) -> None:
        """One line until something else happens."""
        if self._complaint == kind:
            return
        self._complaint = kind
        self._rules.complaints.add(
            self.connection.url,
            kind,
            self._topic,
            self._partition,
            self._progress.resume_offset,
            error,
        )
