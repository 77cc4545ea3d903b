"""Messages a test sends through the original client, and what must come out at the other end."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tests.support.peers import JavaDriver

# fills one answer of maxTransferSize together with its record's header
LARGEST = 1024 * 1024 - 20
ATTRIBUTES = (None, "plain", "\u5c5e\u6027 \u00fc", None)


class Sample(NamedTuple):
    """One message."""

    body: bytes
    attribute: str | None

    @property
    def outcome(self) -> tuple[str | None, int, str]:
        """Attribute, length and digest, as a consumer reports them."""
        return self.attribute, len(self.body), hashlib.sha256(self.body).hexdigest()


def samples(seed: object, count: int, sizes: Sequence[int] = (1, 10, 100, 1000)) -> list[Sample]:
    """Different messages; the seed is part of each body that has room for it."""
    generator = random.Random(str(seed))
    made = []
    for number in range(count):
        size = sizes[number % len(sizes)]
        head = f"{seed}/{number}/".encode()
        body = (head + generator.randbytes(size))[: max(size, len(head))]
        made.append(Sample(body, ATTRIBUTES[number % len(ATTRIBUTES)]))
    return made


def outcome(event: dict[str, Any]) -> tuple[str | None, int, str]:
    """What a driver reports of a message it received, to compare with ``Sample.outcome``."""
    return event["attribute"], event["length"], event["sha256"]


def send(
    driver: JavaDriver, producer: str, topic: str, messages: Iterable[Sample], command: str = "send"
) -> list[dict[str, Any]]:
    """Send with a producer of the driver; the events "sent" in the order of the messages."""
    given = [
        {"body": base64.b64encode(message.body).decode(), "attribute": message.attribute}
        for message in messages
    ]
    call = driver.call(command, producer=producer, topic=topic, messages=given)
    return sorted(call.named("sent"), key=lambda event: event["index"])
