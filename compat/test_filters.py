"""
Consumer filters of our broker with the original Java client and with ours: no message of the group
is lost or repeated, rejected messages cause no pause, and the position in ZooKeeper is always the
beginning of a message.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

from compat.clientcase import ClientCase, name, wait_until
from compat.samples import Sample, send
from compat.test_mixedgroup import SESSION_MS, python
from tests.support import peers, zookeeper

GROUPS = {
    "group.every-second": "compat.filterclasses:EverySecond",
    "group.wanted": "compat.filterclasses:Wanted",
}
SLOW = {"max-delay": 5000}
"""The default of the client: it waits for 0.5 s and longer after a reply that brings nothing."""


def mixed(count: int, first: int = 0) -> list[Sample]:
    """Messages of which the group "wanted" accepts every second one."""
    words = ("no", "yes")
    return [
        Sample(f"{words[number % 2]} {number}".encode(), None)
        for number in range(first, first + count)
    ]


class FilterTests(ClientCase):
    """One topic of one partition."""

    skip = peers.missing()

    def setUp(self) -> None:
        self.broker = peers.OurBroker(
            self.mktemp(), zookeeper.shared(), f"/{name('filters')}", {"t": GROUPS}
        )
        self.broker.start()
        self.addCleanup(self.broker.kill)
        self.java = self.factory(self.broker)
        self.boundaries = [0]

    def put(self, messages: list[Sample]) -> None:
        """Stored in this order."""
        events = send(peers.driver(), self.producer(self.java, "t"), "t", messages)
        self.assertSent(events, len(messages))
        for message in messages:
            self.boundaries.append(self.boundaries[-1] + 20 + len(message.body))

    def position(self, group: str) -> int:
        """The group's position in ZooKeeper; -1 without one."""
        text = self.stored_offsets(self.broker, group, "t").get("0-0", "-1--1")
        return int(text.split("-", 1)[1] if not text.startswith("-") else text.split("-", 2)[2])

    def at_end(self, group: str) -> bool:
        """Whether the group is at the end of the log; its position must be the beginning of a
        message."""
        position = self.position(group)
        self.assertIn(position, [-1, *self.boundaries])
        return position == self.boundaries[-1]

    def ours(self, face: str, group: str) -> peers.Call:
        """The messages that our consumer receives."""
        driver, factory, consumer = python(face), name("factory"), name("consumer")
        connect = self.broker.zookeeper.connect_string
        driver.call(
            "open", factory=factory, zookeeper=connect, root=self.broker.root, timeout=SESSION_MS
        )
        self.addCleanup(driver.call, "close", factory=factory)
        return driver.call("consume", factory=factory, consumer=consumer, group=group, topic="t")

    def test_the_originals_own(self) -> None:
        """A thousand messages, a filter that counts, the Java client with its defaults: five
        hundred arrive within seconds."""
        sent = mixed(1000)
        self.put(sent)
        begun = time.monotonic()
        _, call = self.consume(self.java, "t", "every-second", **SLOW)
        self.assertReceived(call, sent[1::2])
        self.assertLess(time.monotonic() - begun, 60)  # 500 pauses would take 250 s
        wait_until(lambda: self.at_end("every-second"), "the group is at the end")
        self.assertReceived(call, sent[1::2])

    def test_no_slower_than_without(self) -> None:
        """Every second of two hundred messages is accepted: the rejected ones cause no pause."""
        sent = mixed(200)
        self.put(sent)
        seconds = {}
        for group, wanted in (("unfiltered", sent), ("wanted", sent[1::2])):
            begun = time.monotonic()
            _, call = self.consume(self.java, "t", group, **SLOW)
            self.assertReceived(call, wanted)
            seconds[group] = time.monotonic() - begun
        self.assertLess(seconds["wanted"], seconds["unfiltered"] + 20)  # pauses would take 50 s

    def test_rejected_run(self) -> None:
        """Two accepted messages with thousands of rejected ones around them come at once."""
        bodies = [b"no " + b"x" * 100] * 3000 + [b"yes 1"]
        sent = [Sample(body, None) for body in bodies * 2 + bodies[:-1]]
        self.put(sent)
        begun = time.monotonic()
        _, call = self.consume(self.java, "t", "wanted", **SLOW)
        self.assertReceived(call, [sent[3000]] * 2)
        self.assertLess(time.monotonic() - begun, 5)
        wait_until(lambda: self.at_end("wanted"), "the group is at the end")

    def test_restarts_of_consumer_and_broker(self) -> None:
        """After a restart of consumer or broker the group continues at its position."""
        sent = mixed(60)
        self.put(sent)
        consumer, call = self.consume(self.java, "t", "wanted")
        self.assertReceived(call, sent[1::2])
        wait_until(lambda: self.at_end("wanted"), "the group is at the end")
        peers.driver().call("stop-consumer", consumer=consumer)
        more = mixed(60, 60)
        self.put(more)
        self.broker.stop()
        self.broker.start()
        _, call = self.consume(self.java, "t", "wanted")
        self.assertReceived(call, more[1::2])
        self.broker.kill()
        self.broker.start()
        last = mixed(60, 120)
        self.assertSent(self.send_until_accepted(self.producer(self.java, "t"), "t", last), 60)
        self.assertReceived(call, more[1::2] + last[1::2])
        for message in last:
            self.boundaries.append(self.boundaries[-1] + 20 + len(message.body))
        wait_until(lambda: self.at_end("wanted"), "the group is at the end")

    def test_damaged_record(self) -> None:
        """A damaged message on the broker's disk costs only this message, accepted or not: the Java
        client and ours continue with the next one, and no message is repeated."""
        sent = mixed(20)
        self.put(sent)
        path = os.path.join(self.broker.data, "t-0", "00000000000000000000.meta")
        with open(path, "r+b") as segment:
            for index in (0, 7, 8, 15):
                segment.seek(self.boundaries[index] + 20)
                segment.write(b"X")
        wanted = [each for index, each in enumerate(sent) if index % 2 and index not in (7, 15)]
        _, call = self.consume(self.java, "t", "wanted")
        self.assertReceived(call, wanted)
        wait_until(lambda: self.at_end("wanted"), "the group is at the end")
        self.check(
            self.ours("tx", "every-second"), [sent[n] for n in (2, 4, 6, 10, 12, 14, 17, 19)]
        )

    def test_acknowledged_by_hand(self) -> None:
        """A Java consumer acknowledges every seventh message: the others are delivered again,
        however many rejected messages are between them. A 301 would have stored them as
        processed."""
        sent = mixed(200)
        self.put(sent)
        wanted = sent[1::2]
        settings = {**SLOW, "ack-every": 7}
        consumer, call = self.consume(self.java, "t", "wanted", **settings)
        self.assertReceived(call, wanted)
        wait_until(lambda: self.position("wanted") >= self.boundaries[196], "98 acknowledged")
        peers.driver().call("stop-consumer", consumer=consumer)
        self.assertEqual(self.position("wanted"), self.boundaries[196])
        # another process, because this one remembers the ids of what it has seen
        other = peers.driver(1)
        _, call = self.consume(self.factory(self.broker, other), "t", "wanted", other)
        self.assertReceived(call, wanted[98:])
        wait_until(lambda: self.at_end("wanted"), "the group is at the end")

    def test_ours(self) -> None:
        """Our client receives the same messages, on Twisted and on asyncio."""
        sent = mixed(100)
        self.put(sent)
        call = self.ours("tx", "every-second")
        self.check(call, sent[1::2])
        wait_until(lambda: self.at_end("every-second"), "the group is at the end")
        call = self.ours("aio", "wanted")
        self.check(call, sent[1::2])
        more = mixed(100, 100)
        self.put(more)
        self.check(call, sent[1::2] + more[1::2])
        wait_until(lambda: self.at_end("wanted"), "the group is at the end")

    def check(self, call: peers.Call, messages: list[Sample]) -> list[dict[str, Any]]:
        """Exactly these messages, each once, in order."""
        events = call.wait_for("message", len(messages))
        self.assertEqual(
            Counter((event["length"], event["sha256"]) for event in events),
            Counter(message.outcome[1:] for message in messages),
        )
        return events
