"""
The exceptions that are raised across packages.

A ``BrokerError`` reaches a peer as a status of the wire (``status``); ``retriable``: the same
request may succeed later. Both ends of a connection share the table ``BROKER_ERRORS``. A
``ClientError`` is a fault on the client's side of the wire. For both, ``outcome_known`` is true if
the broker certainly did not carry out the request; if it is false, a repeated send may store the
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

    :ivar opaque: the opaque of the request, which is refused before the connection is closed; None
        for a reply.
    """

    def __init__(self, text: str, opaque: int | None = None) -> None:
        super().__init__(text)
        self.opaque = opaque


class LocalProtocolError(ProtocolError):
    """A frame that would break the protocol was not sent."""


class BrokerError(MetaQError):
    """A refused request; the message is the text of the reply, ``None`` sends an empty body."""

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
    """No answer in time; never on the wire: a client raises it when its own timer expires."""

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
    """An append to a closed store; the text is the original's."""

    def __init__(self) -> None:
        super().__init__("Closed MessageStore.")


class StoreDamaged(StoreError):
    """An earlier write failed and could not be undone; appends are refused until that succeeds."""


class StoreStalled(StoreError):
    """The disk of a store does not answer, and appends are refused until it does; or the end of the
    log is not known, and they are refused until the next start."""


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
    """A configuration file cannot be used; the text names file, line, key and the valid form."""


class PeerError(MetaQError):
    """Base of the errors of the other broker of a replicated pair."""


class PeerUnreachable(PeerError):
    """No connection to the other broker, or no answer: the request may have been carried out."""


class PeerRefused(PeerError):
    """
    The other broker has refused a request.

    :ivar status: status of its answer.
    :ivar text: text of its answer.
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
    """The node to create exists."""


class NoNode(RegistryError):
    """The node does not exist."""


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
    """The connection broke before the answer to a request."""

    retriable = True
    outcome_known = False


class RequestTimeout(ClientError):
    """No answer in time."""

    retriable = True
    outcome_known = False


class SendTimeout(RequestTimeout):
    """No answer to a message in time: it may have been stored."""


class BadReply(ClientError):
    """The broker's answer is not valid."""

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
    Ordered producers: the partition of a message cannot be written now, and no other may be used.
    The text is the original's (``AvailablePartitionNumException``).

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
    """An offset store can be reached but cannot keep the offsets; the text has the remedy."""

    retriable = False


class NotBalanced(ClientError):
    """A consumer has no place in its group yet; it keeps trying."""

    retriable = True


class InvalidState(ClientError):
    """A method was called too early, too late or twice."""


class TransactionFailed(ClientError):
    """A transaction was not committed: one of its messages, or a step of it, was refused. None of
    its messages becomes visible."""


class TransactionLost(TransactionFailed):
    """A local transaction does not exist any more: its connection was lost, or its lifetime is
    over. None of its messages becomes visible."""


class CommitUnknown(ClientError):
    """A commit was sent, and no valid answer came: either all messages are visible, or none."""

    outcome_known = False


class XAError(ClientError):
    """
    A step of an XA transaction failed.

    :ivar code: the code of X/Open, see ``client.transactions.xa``.
    :ivar outcome_known: False if the broker may have carried out the step.
    """

    def __init__(self, code: int, text: str, outcome_known: bool = True) -> None:
        super().__init__(text)
        self.code = code
        self.outcome_known = outcome_known


class MixedOutcome(ClientError):
    """An administrator has decided one branch of a transaction differently from the others."""


class Unresolved(ClientError):
    """
    The outcome of a transaction in two phases is decided, or unknown, and not every participant has
    carried it out; the coordinator's ``resolve`` completes it later.

    :ivar committed: True: the decision is to commit; None: it could not be read.
    """

    def __init__(self, text: str, committed: bool | None) -> None:
        super().__init__(text)
        self.committed = committed
        self.outcome_known = committed is not None


class InvalidArgument(ClientError, ValueError):
    """A value that a method of the client does not accept; the text has the valid form."""


class TimeNotKnown(InvalidArgument):
    """The ids of a Java broker's messages do not tell the time that is looked for."""


class InvalidMessage(InvalidArgument):
    """A message that cannot be sent."""


class MessageTooLarge(InvalidMessage):
    """A message longer than ``max_body_bytes``, its attribute included: consumers would skip it.
    Nothing was sent."""


class InvalidConfig(InvalidArgument):
    """An invalid setting of the client; the text has its name and the valid form."""


class InvalidConsumerConfig(InvalidConfig):
    """An invalid setting of a consumer."""
