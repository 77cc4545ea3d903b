"""
The fetch loop of one partition.

Source: ``SimpleFetchManager.FetchRequestRunner``.

Differs: a 301 to an earlier offset is followed when the broker has insisted for a while; the
original goes back over messages that the broker has handed out and not flushed yet.
"""

from __future__ import annotations

from metamorphosis.client.delivery.delivery import MOST, PartitionDelivery
from metamorphosis.client.fetch.gets import FetchRules, Gets, Request
from metamorphosis.client.fetch.lostend import LostEnd
from metamorphosis.client.fetch.pacing import Pacing
from metamorphosis.client.fetch.passing import Passing
from metamorphosis.client.fetch.records import FetchedRecords
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.fetch.unfinished import Unfinished
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event, sleep
from metamorphosis.client.network.replies import LOST, NOT_SENT, VALUE, error_of
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.errors import MetaQError, NotFound
from metamorphosis.message import HEADER_BYTES
from metamorphosis.wire.status import Status

CONNECT_SECONDS = 5.0
"""How long a broker may be out of reach before the log says so of its partitions."""
SENT_BACK_SECONDS = 15.0
"""How long a broker has to insist that its log ends before us: ``unflushInterval`` and some."""
OVERLAP_BYTES = 64 << 10
"""An answer this long is worth a turn of the loop before each list of messages is delivered: the
next request leaves, and others have their turn."""


class PartitionFetch:
    """
    Thread: the loop's.

    :param size: bytes of a fetch.
    :param max_body: longest message accepted, bytes.
    :ivar ended: ``run`` is over, or need not be waited for.
    """

    def __init__(
        self,
        rules: FetchRules,
        delivery: PartitionDelivery,
        connection: BrokerConnection,
        size: int,
        max_body: int,
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
            HEADER_BYTES + max_body,
            config.max_increase_fetch_data_retries,
        )
        self._max_body = max_body
        self._passing = Passing(
            rules.runtime,
            self._places,
            self._topic,
            self._partition,
            max_body,
            config.max_increase_fetch_data_retries,
        )
        self._request: Request | None = None  # the last one sent
        self._unfinished = Unfinished(
            rules.runtime, max_body, config.max_increase_fetch_data_retries
        )
        self._sent_back = -1, 0.0  # offset before which the log ends, it is said, and since when
        self._lost_end = LostEnd(
            rules.runtime, rules.log, self._find_end_of_log, self._topic, self._partition
        )
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
            self._unfinished.clear()
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
        elif request.status == Status.NOT_FOUND and self._unfinished.data:
            await self._never_whole(request)
        else:
            self._nothing(request)
            await self._lost_end.compare(request.status, self._progress)

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
        offset = self._unfinished.at(self._progress.resume_offset)
        request = self._request
        if request is None or request.offset != offset or request.done and request.status != VALUE:
            request = self._request = self._gets.ask(offset, self._pacing.size)
        while not request.done:
            await self._wake.wait()
            if self.delivery.stopping:
                return None
            if offset != self._unfinished.at(self._progress.resume_offset):
                self._pacing.processed(self._progress.retries)
                return None  # the user went elsewhere meanwhile
        self._request = None
        return request

    # -- what came

    async def _received(self, request: Request) -> None:
        offset = self._progress.resume_offset
        start = self._unfinished.data
        data = start + request.body if start else request.body
        records = self._records(offset, data)
        messages = records.read(MOST)
        if not messages:
            if records.jumped:
                self._jumped(records)
            elif records.damage is not None:
                await self._damaged(records)
            else:
                await self._incomplete(records, data)
            return
        self._unfinished.clear()
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
            await self._damaged(records)

    async def _deliver(self, messages: list[ReceivedMessage]) -> bool:
        self._delivering = True
        try:
            return await self.delivery.deliver(messages)
        finally:
            self._delivering = False

    def _jumped(self, records: FetchedRecords) -> None:
        """Behind what the group's filter rejects."""
        self._unfinished.clear()
        self._pacing.at_once()
        self._progress.move_to(records.next_offset)

    async def _incomplete(self, records: FetchedRecords, data: bytes) -> None:
        """
        Bytes, but no whole message. A broker sends at most its ``maxTransferSize``: what is longer
        is put together.
        """
        needed = records.needed
        ends_here = 0 < len(data) < HEADER_BYTES <= self._pacing.size
        if self._pacing.too_small(needed):
            self._unfinished.clear()
        elif ends_here:
            if await self._places.is_segment_end(records.next_offset + len(data)):
                records.cut_off()
                await self._damaged(records)
        elif needed and self._unfinished.keep(records.next_offset, data):
            self._pacing.at_once()

    async def _never_whole(self, request: Request) -> None:
        """The log ends inside a message: its length is wrong, or the rest is not there yet."""
        self._nothing(request)
        offset, data = self._progress.resume_offset, self._unfinished.data
        if await self._unfinished.is_damaged():
            records = self._records(offset, data)
            records.cut_off()
            await self._damaged(records)
        elif self._unfinished.is_remarkable:
            self._log.warn(
                "{topic} {partition}: the log ends inside the message at offset {offset}, after"
                " {count} bytes of it; waiting for the rest",
                topic=self._topic,
                partition=self._partition,
                offset=offset,
                count=len(data),
            )

    def _records(self, offset: int, data: bytes) -> FetchedRecords:
        return FetchedRecords(self._topic, self._partition, offset, data, self._max_body)

    async def _damaged(self, records: FetchedRecords) -> None:
        """Go on behind the damage at their end, after a pause if it is not just too long."""
        damage = records.damage
        assert damage is not None
        self._unfinished.clear()
        self._request = None
        self._pacing.nothing()

        def wanted() -> bool:
            return not self.delivery.stopping and self._progress.resume_offset == damage.offset

        passed = await self._passing.behind(damage, records.rest, wanted)
        if passed is not None:
            self._pacing.passed_over(passed.too_long)
            self._progress.move_to(passed.next_offset)
            self._rules.passed_over(passed)

    async def _find_end(self) -> bool:
        """Replace the position ``MAX_OFFSET`` by the end of the log; whether to go on."""
        end = await self._find_end_of_log()
        if not self.delivery.stopping and self._progress.resume_offset == MAX_OFFSET:
            self._progress.move_to(end)
        return not self.delivery.stopping

    def _moved(self, body: bytes) -> None:
        """301: the log begins, ends, or has something for us at another place."""
        before = self._progress.resume_offset
        if self._unfinished.data or not body.isdigit():
            # Not of the place where a message begins: that is asked for again.
            self._unfinished.clear()
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
            self._unfinished.clear()
            if request.status != LOST:  # which the connection itself tells
                self._complain(request.status, request.body)
        self._pacing.nothing()

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
