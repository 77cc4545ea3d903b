"""
The text of every refusal of a put, get or offset, as the ``BrokerError`` that a peer sees.

The functions return the error instead of raising it: the hot path answers without an exception, a
responder may raise it. ``url`` is the broker's own ``meta://<host>:<port>``. Clients compare some
of these texts byte for byte.

Source: ``BrokerCommandProcessor``, sections 6.1 to 6.4 of the wire specification.
"""

from __future__ import annotations

from metamorphosis.errors import (
    BadRequest,
    BrokerError,
    Forbidden,
    InternalServerError,
    Moved,
    NotFound,
)

CHECKSUM_FAILURE = "Checksum failure,message may be corrupted when transfering on networking."
NO_ID = "The last message id could not be written."
"""The detail of a refused put when the disk was full at the start and still is."""


def put_failed(url: str, topic: str, partition: int, detail: str | None = None) -> BrokerError:
    """
    A put or a get that fails for a reason of the broker; the original says ``Put`` for both.

    :param detail: the reason; ``None`` leaves it out, as the original does for an I/O error.
    """
    text = f"Put message to [broker '{url}'] [partition '{topic}-{partition}'] failed."
    return InternalServerError(text if detail is None else f"{text}Detail:{detail}")


def put_closed(url: str, topic: str, broker_id: int, partition: int) -> BrokerError:
    """A put to a partition that the operator closed: ``partition`` with a small p."""
    return Forbidden(
        f"Put message to [broker '{url}'] [partition '{topic}-{partition}'] failed."
        f"Detail:partition[{broker_id}-{partition}] has been closed"
    )


def sync_closed(url: str, topic: str, broker_id: int, partition: int) -> BrokerError:
    """The same for a record from a master: with a capital P."""
    return Forbidden(
        f"Put message to [broker '{url}'] [partition '{topic}-{partition}'] failed."
        f"Detail:Partition[{broker_id}-{partition}] has been closed"
    )


def get_closed(broker_id: int, partition: int) -> BrokerError:
    """A get from a partition that the operator closed: ``Partition`` with a capital P."""
    return Forbidden(f"Partition[{broker_id}-{partition}] has been closed")


def topic_not_accepted(topic: str) -> str:
    """The detail for a topic that no section of ``server.ini`` covers."""
    return f"The server do not accept topic {topic}"


def wrong_partition(partition: int) -> str:
    """The detail for a partition outside the topic's range."""
    return f"wrong partition {partition}"


def no_store(topic: str, partition: int) -> BrokerError:
    """A get or offset for a partition that never had a message."""
    return NotFound(f"The topic `{topic}` in partition `{partition}` is not exists")


def invalid_max_size(max_size: int) -> BrokerError:
    """A get that asks for no bytes."""
    return BadRequest(f"Bad request,invalid max size:{max_size}")


def moved(offset: int) -> BrokerError:
    """Continue at ``offset``."""
    return Moved(str(offset))


def nothing_there(offset: int) -> BrokerError:
    """A get at or beyond the readable end."""
    return NotFound(f"Could not find message at position {offset}")
