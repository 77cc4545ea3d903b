"""The state that the parts of one fetch loop share: partition, delivery, pace, complaints."""

from __future__ import annotations

from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.fetch.gets import FetchRules
from metamorphosis.client.fetch.pacing import Pacing
from metamorphosis.client.fetch.records import FetchedRecords
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.fetch.unfinished import Unfinished
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.replies import error_of
from metamorphosis.errors import MetaQError, NotFound
from metamorphosis.message import HEADER_BYTES


class PartitionState:
    """
    One partition that is read. Thread: the loop's.

    :param size: bytes of a fetch.
    :ivar max_body: longest message accepted, bytes.
    :ivar unfinished: the start of a message that no answer held as a whole.
    :ivar complaint: status or class of the error that was logged last; None after a success.
    """

    __slots__ = (
        "complaint",
        "connection",
        "delivery",
        "log",
        "max_body",
        "pacing",
        "partition",
        "places",
        "progress",
        "rules",
        "runtime",
        "topic",
        "unfinished",
    )

    def __init__(
        self,
        rules: FetchRules,
        delivery: PartitionDelivery,
        connection: BrokerConnection,
        size: int,
        max_body: int,
    ) -> None:
        config, position = rules.config, delivery.position
        patience = config.max_increase_fetch_data_retries
        self.rules = rules
        self.runtime = rules.runtime
        self.log = rules.log
        self.connection = connection
        self.delivery = delivery
        self.progress = delivery.progress
        self.topic = position.topic
        self.partition = position.partition
        self.max_body = max_body
        self.places = LogPlaces(
            connection, config.group, position.topic, position.partition, rules.timeout
        )
        self.pacing = Pacing(
            config.max_delay_fetch_time_ms, size, HEADER_BYTES + max_body, patience
        )
        self.unfinished = Unfinished(rules.runtime, max_body, patience)
        self.complaint: object = None

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more will be fetched."""
        return self.progress.is_stopping

    def records(self, offset: int, data: bytes) -> FetchedRecords:
        """The records of a piece of the log that begins at ``offset``."""
        return FetchedRecords(self.topic, self.partition, offset, data, self.max_body)

    async def end_of_log(self) -> int:
        """Where the next message will begin; 0 for a partition without messages."""
        try:
            return await self.places.end()
        except NotFound:
            return 0

    def complain(self, status: int, body: bytes) -> None:
        """Log a refusal of the broker."""
        what = f"get of {self.topic} {self.partition} at {self.connection.url}"
        self.say(status, error_of(status, body, what))

    def say(self, kind: object, error: MetaQError) -> None:
        """Log an error once, until another kind of error or a success follows."""
        if self.complaint == kind:
            return
        self.complaint = kind
        self.rules.complaints.add(
            self.connection.url,
            kind,
            self.topic,
            self.partition,
            self.progress.resume_offset,
            error,
        )
