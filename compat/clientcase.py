"""What the tests with the original client share."""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from compat.samples import Sample, outcome, send
from tests.support import peers, zookeeper

WAIT_SECONDS = 20.0

_names = itertools.count(1)


def name(kind: str) -> str:
    """A name no other test uses."""
    return f"{kind}-{next(_names)}"


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Poll; an error that says what did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


_brokers: dict[tuple[str, str], peers.Broker] = {}
_made_with: dict[tuple[str, str], peers.Topics] = {}


def shared_broker(kind: type[peers.Broker], use: str, topics: peers.Topics) -> peers.Broker:
    """
    A broker for the tests that need none of their own; it ends with the process.

    :raises ValueError: another test has one with the same use and other topics.
    """
    broker = _brokers.get((kind.kind, use))
    if broker is None:
        directory = tempfile.mkdtemp(prefix=f"metamorphosis-{use}-")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        broker = kind(directory, zookeeper.shared(), f"/{use}-{kind.kind}", topics)
        broker.start()
        _brokers[kind.kind, use] = broker
        _made_with[kind.kind, use] = topics
    if _made_with[kind.kind, use] != topics:
        raise ValueError(f"another broker for {use} was made, with other topics than {topics}")
    return broker


class ClientCase(SynchronousTestCase):
    """What these tests share; subclasses say which broker."""

    kind: type[peers.Broker]

    def zookeeper_server(self) -> zookeeper.ZooKeeperServer:
        """What a broker of the test's own registers with."""
        return zookeeper.shared()

    def factory(self, broker: peers.Broker, driver: peers.JavaDriver | None = None) -> str:
        """A session factory of the client, closed after the test; its name."""
        made, driver = name("factory"), driver or peers.driver()
        driver.call(
            "open", factory=made, zookeeper=broker.zookeeper.connect_string, root=broker.root
        )
        self.addCleanup(driver.call, "close", factory=made)
        return made

    def producer(self, factory: str, topic: str, one_way: bool = False) -> str:
        """A producer of the client; its name."""
        made = name("producer")
        arguments = {"one-way": one_way}
        peers.driver().call("publish", factory=factory, producer=made, topic=topic, **arguments)
        return made

    def consume(
        self,
        factory: str,
        topic: str,
        group: str,
        driver: peers.JavaDriver | None = None,
        **settings: object,
    ) -> tuple[str, peers.Call]:
        """A consumer of the client; its name and the call its messages come with."""
        made, driver = name("consumer"), driver or peers.driver()
        call = driver.call(
            "consume", factory=factory, consumer=made, group=group, topic=topic, **settings
        )
        return made, call

    def assertReceived(self, call: peers.Call, messages: Iterable[Sample]) -> list[dict[str, Any]]:
        """Each of the messages once and nothing else; the events."""
        expected = Counter(message.outcome for message in messages)
        events = call.wait_for("message", expected.total())
        self.assertEqual(Counter(map(outcome, events)), expected)
        return events

    def assertSent(self, events: list[dict[str, Any]], count: int) -> None:
        """All of them were accepted."""
        self.assertEqual([event for event in events if not event["success"]], [])
        self.assertEqual(len(events), count)

    def stored_offsets(self, broker: peers.Broker, group: str, topic: str) -> dict[str, str]:
        """What the consumers of a group have written to ZooKeeper, by partition."""
        tree = broker.zookeeper.tree(f"{broker.root}/consumers/{group}/offsets/{topic}")
        return {
            path.rpartition("/")[2]: (node.data or b"").decode()
            for path, node in tree.items()
            if not path.endswith("/" + topic)
        }

    def send_until_accepted(
        self, producer: str, topic: str, messages: list[Sample]
    ) -> list[dict[str, Any]]:
        """The client does not send by itself what it could not send while it had no connection."""
        events: list[dict[str, Any]] = []
        deadline = time.monotonic() + WAIT_SECONDS
        for message in messages:
            while True:
                try:
                    (event,) = send(peers.driver(), producer, topic, [message])
                except peers.CallFailed:
                    event = {"success": False}
                if event["success"] or time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            events.append(event)
        return events
