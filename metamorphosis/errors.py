"""
The exceptions that leave a room.

A ``BrokerError`` is seen by a peer as a status of the wire (``status``); ``retriable`` says whether
the same request may succeed later. Both ends of a connection share the table ``BROKER_ERRORS``. A
``ClientError`` is a fault on the client's side of the wire. Of both ``outcome_known`` says whether
the broker certainly did not do what was asked; where it is false a repeated send may store the
message twice.
"""

from __future__ import annotations

from typing import ClassVar


class MetaQError(Exception):
    """Base of every error of this package."""

    outcome_known: bool = True


class ProtocolError(MetaQError):
    """Base of the two ways a frame can be wrong; any other exception of the codec is a defect."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol: close the connection without a reply."""


class FrameTooLong(RemoteProtocolError):
    """
    The peer announced a longer body than this side accepts.

    :ivar opaque: of the request, which can be refused in words before the end; None if it is none.
    """

    def __init__(self, text: str, opaque: int | None = None) -> None:
        super().__init__(text)
        self.opaque = opaque


class LocalProtocolError(ProtocolError):
    """A frame that would break the protocol was not sent."""


class BrokerError(MetaQError):
    """A request that was refused; the message is the text of the reply, ``None`` sends an empty
    body."""

    status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False
    outcome_known: bool = True


class Moved(BrokerError):
    """Continue reading at the offset in the text."""

    status = 301
    retriable = True


class BadRequest(BrokerError):
    """The request itself is wrong."""

    status = 400


class Forbidden(BrokerError):
    """The partition was closed by an operator."""

    status = 403
    retriable = True


class NotFound(BrokerError):
    """No such partition here, or nothing to read at that offset yet."""

    status = 404
    retriable = True


class InternalServerError(BrokerError):
    """Any other failure."""

    status = 500


class ServiceUnavailable(BrokerError):
    """No such service on this broker, or the broker shuts down."""

    status = 503
    retriable = True


class GatewayTimeout(BrokerError):
    """No answer in time; never on the wire, made by a client whose own timer expired."""

    status = 504
    retriable = True
    outcome_known = False


BROKER_ERRORS: dict[int, type[BrokerError]] = {
    error.status: error
    for error in (
        Moved,
        BadRequest,
        Forbidden,
        NotFound,
        InternalServerError,
        ServiceUnavailable,
        GatewayTimeout,
    )
}


class JournalError(MetaQError):
    """Base of the errors of the journal of transactions."""


class InvalidRecord(JournalError):
    """Bytes of the journal that are not a record, or not a list of heuristic outcomes."""


class StoreError(MetaQError):
    """Base of the errors of the message log."""


class OffsetTooSmall(StoreError):
    """The offset lies before the first readable one, which is ``min_offset``."""

    def __init__(self, min_offset: int) -> None:
        super().__init__(f"smallest readable offset is {min_offset}")
        self.min_offset = min_offset


class StoreClosed(StoreError):
    """An append to a closed store. The text is the original's."""

    def __init__(self) -> None:
        super().__init__("Closed MessageStore.")


class StoreDamaged(StoreError):
    """An earlier write failed and could not be undone; appends are refused until that succeeds."""


class StoreStalled(StoreError):
    """The disk of a store does not answer; appends are refused until it does."""


class SegmentsInvalid(StoreError):
    """Neighbouring segment files leave a gap or overlap, or a name is not an offset: the partition
    cannot be opened."""


class DirectoryLocked(StoreError):
    """Another broker uses the data directory."""


class LogChanged(StoreError):
    """A log has become shorter while it was compared with another one."""


class CorruptRecord(StoreError):
    """A record whose checksum does not match, or that is longer than a reader accepts."""


class ConfigError(MetaQError):
    """A configuration file cannot be used; the text names file, line and key and says what would be
    right."""


class PeerError(MetaQError):
    """Base of what goes wrong with the other broker of a replicated pair."""


class PeerUnreachable(PeerError):
    """No connection to the other broker, or no answer: what was asked may have been done."""


class PeerRefused(PeerError):
    """
    The other broker has answered that it will not.

    :ivar status: of its answer.
    :ivar text: of its answer.
    """

    def __init__(self, request: str, status: int, text: str) -> None:
        super().__init__(f"{request} was answered {status} {text}".rstrip())
        self.status = status
        self.text = text


class PeerMisbehaved(PeerError):
    """The other broker has sent an answer that is not valid."""


class RegistryError(MetaQError):
    """Base of the errors of the ZooKeeper registry."""


class NodeExists(RegistryError):
    """The node to create is there already."""


class NoNode(RegistryError):
    """The node is not there."""


class NotEmpty(RegistryError):
    """The node to delete has children."""


class RegistryUnavailable(RegistryError):
    """No session, the connection was lost, or no answer in time: the outcome is unknown."""


class ClientError(MetaQError):
    """Base of the errors on the client's side of the wire."""

    retriable: ClassVar[bool] = False
    outcome_known: bool = True


class NotConnected(ClientError):
    """The broker, or ZooKeeper, cannot be reached at present; nothing was sent."""

    retriable = True


class ConnectionLost(ClientError):
    """The connection broke while the request was under way."""

    retriable = True
    outcome_known = False


class RequestTimeout(ClientError):
    """No answer in time."""

    retriable = True
    outcome_known = False


class SendTimeout(RequestTimeout):
    """No answer to a message in time: it may have been stored."""


class BadReply(ClientError):
    """The broker answered something that makes no sense."""

    outcome_known = False


class NoPartition(ClientError):
    """No broker takes messages of the topic at present, or none has the chosen partition."""

    retriable = True


class NotPublished(NoPartition):
    """No producer of the session factory has published the topic."""

    retriable = False


class NothingSelected(NoPartition):
    """The selector chose no partition."""

    retriable = False


class UnknownTopic(NoPartition):
    """Brokers are registered, and none of them has the topic."""

    retriable = False


class WrongRoot(NoPartition):
    """ZooKeeper does not have the root, or the chroot, that was given; brokers use another one."""

    retriable = False


class PartitionNotWritable(NoPartition):
    """
    Ordered producers: the partition a message belongs to cannot be written now, and no other will
    do. The text is the original's (``AvailablePartitionNumException``).

    :ivar partition: a ``client.model.Partition``.
    """

    def __init__(self, topic: str, partition: object) -> None:
        super().__init__(f"selected partition[{partition}]for topic[{topic}]can not write now")
        self.partition = partition


class LocalStoreError(ClientError):
    """Messages cannot be kept on, or read from, this machine's disk; the text names the file."""


class ClientClosed(ClientError):
    """The factory, producer or consumer has been closed."""


class OffsetStoreError(ClientError):
    """The content of an offset store cannot be used, or the store cannot be reached."""

    retriable = True


class OffsetsNotStorable(OffsetStoreError):
    """An offset store can be reached and cannot keep what is to be stored; the text says what mends
    it."""

    retriable = False


class NotBalanced(ClientError):
    """A consumer has not taken its place in its group yet; it keeps trying."""

    retriable = True


class InvalidState(ClientError):
    """Not now: a method was called too early, too late or twice."""


class TransactionFailed(ClientError):
    """A transaction was not committed: one of its messages, or a step of it, was refused. Nothing
    of it becomes visible."""


class TransactionLost(TransactionFailed):
    """A local transaction does not exist any more: its connection was lost, or its lifetime is
    over. Nothing of it becomes visible."""


class CommitUnknown(ClientError):
    """A commit was sent, and no sensible answer came: either all messages are visible, or none."""

    outcome_known = False


class XAError(ClientError):
    """
    A step of an XA transaction failed.

    :ivar code: of X/Open, see ``client.transactions.xa``.
    :ivar outcome_known: False where the broker may have done it.
    """

    def __init__(self, code: int, text: str, outcome_known: bool = True) -> None:
        super().__init__(text)
        self.code = code
        self.outcome_known = outcome_known


class MixedOutcome(ClientError):
    """An administrator has given one branch of a transaction another outcome than the others
    have."""


class Unresolved(ClientError):
    """
    The outcome of a transaction in two phases is decided, or not known, and not every participant
    has carried it out; ``resolve`` of the coordinator does when it can.

    :ivar committed: True: the decision is to commit; None: it could not be read.
    """

    def __init__(self, text: str, committed: bool | None) -> None:
        super().__init__(text)
        self.committed = committed
        self.outcome_known = committed is not None


class InvalidArgument(ClientError, ValueError):
    """A value that a method of the client cannot take; the text says what would be right."""


class TimeNotKnown(InvalidArgument):
    """The place of a time was asked for, and the ids of the messages there, which are a Java
    broker's, do not tell it."""


class InvalidMessage(InvalidArgument):
    """A message that cannot be sent."""


class MessageTooLarge(InvalidMessage):
    """A message longer than ``max_body_bytes``, its attribute included: consumers would pass over
    it. Nothing was sent."""


class InvalidConfig(InvalidArgument):
    """A setting of the client; the text names it and says what would be right."""


class InvalidConsumerConfig(InvalidConfig):
    """A setting of a consumer."""
