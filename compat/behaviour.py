"""
What the original Java producer and consumer expect of a broker, whichever it is.

The test cases are in ``test_clients``, so that trial does not run these classes themselves.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

from kazoo.exceptions import NoNodeError

from compat.clientcase import ClientCase, name, shared_broker, wait_until
from compat.exchange import Connection
from compat.samples import LARGEST, Sample, outcome, samples, send
from tests.support import peers

TOPICS: dict[str, dict[str, object]] = {
    "synchronous": {"numPartitions": 2},
    "callback": {"numPartitions": 2},
    "one-way": {"numPartitions": 2},
    "large": {},
    "browsed": {"numPartitions": 3},
    "counted": {"numPartitions": 2, "stat": "true"},
    "direct": {"numPartitions": 2},
    "unread": {"numPartitions": 2},
}


class ExchangeBehaviour(ClientCase):
    """Producers of every kind, consumer, browser, statistics."""

    def broker(self) -> peers.Broker:
        """All these tests share one; each has a topic of its own."""
        return shared_broker(self.kind, "clients", TOPICS)

    def test_synchronous(self) -> None:
        """
        Ids, partitions and offsets of the replies fit together, and the consumer gets what was
        sent.
        """
        broker = self.broker()
        factory, sent = self.factory(broker), samples("synchronous", 60)
        producer = self.producer(factory, "synchronous")
        events = send(peers.driver(), producer, "synchronous", sent)
        self.assertSent(events, 60)
        self.assertEqual(len({event["id"] for event in events}), 60)
        self.assertEqual({event["partition"] for event in events}, {"0-0", "0-1"})
        for partition in ("0-0", "0-1"):
            offset = 0
            for event, message in zip(events, sent):
                if event["partition"] == partition:
                    self.assertEqual(event["offset"], offset)
                    attribute = (message.attribute or "").encode()
                    offset += 20 + len(message.body)
                    offset += 0 if message.attribute is None else 4 + len(attribute)
        _, call = self.consume(factory, "synchronous", "g-synchronous")
        received = self.assertReceived(call, sent)
        self.assertEqual(
            {(event["id"], event["partition"]) for event in received},
            {(event["id"], event["partition"]) for event in events},
        )

    def test_callback(self) -> None:
        """Three hundred sends in flight at once are all confirmed and all consumed."""
        factory, sent = self.factory(self.broker()), samples("callback", 300)
        producer = self.producer(factory, "callback")
        self.assertSent(send(peers.driver(), producer, "callback", sent, "send-callback"), 300)
        self.assertReceived(self.consume(factory, "callback", "g-callback")[1], sent)

    def test_one_way(self) -> None:
        """The client that looks at no reply is served all the same."""
        factory, sent = self.factory(self.broker()), samples("one-way", 300)
        _, call = self.consume(factory, "one-way", "g-one-way")
        producer = self.producer(factory, "one-way", one_way=True)
        send(peers.driver(), producer, "one-way", sent, "send-one-way")
        self.assertReceived(call, sent)

    def test_large(self) -> None:
        """Binary bodies up to 1 MiB with the record's header, beside small ones."""
        sizes = [LARGEST, 1, 65536, LARGEST - 1, 300000, LARGEST]
        sent = [Sample(s.body, None) for s in samples("large", len(sizes), sizes)]
        sent[4] = Sample(sent[4].body, "with an attribute")
        factory = self.factory(self.broker())
        self.assertSent(
            send(peers.driver(), self.producer(factory, "large"), "large", sent), len(sizes)
        )
        # the original leaves a large record unflushed until the next put of its partition
        end = samples("large-end", 1)
        send(peers.driver(), self.producer(factory, "large"), "large", end)
        self.assertReceived(self.consume(factory, "large", "g-large")[1], sent + end)

    def test_browser(self) -> None:
        """The topic browser walks through all partitions, twice the same."""
        factory, sent = self.factory(self.broker()), samples("browsed", 90)
        events = send(peers.driver(), self.producer(factory, "browsed"), "browsed", sent)
        self.assertSent(events, 90)
        calls = [peers.driver().call("browse", factory=factory, topic="browsed") for _ in range(2)]
        first, second = (call.named("message") for call in calls)
        self.assertEqual(Counter(map(outcome, first)), Counter(s.outcome for s in sent))
        self.assertEqual([e["id"] for e in first], [e["id"] for e in second])
        partitions = peers.driver().call("partitions", factory=factory, topic="browsed")
        self.assertEqual(partitions.named("partitions")[0]["names"], ["0-0", "0-1", "0-2"])

    def test_get(self) -> None:
        """
        A synchronous get from inside the log returns the records from there on; at the end nothing.
        """
        factory, sent = self.factory(self.broker()), samples("unread", 10)
        events = send(peers.driver(), self.producer(factory, "unread"), "unread", sent)
        place = [event for event in events if event["partition"] == "0-1"]
        get = functools.partial(
            peers.driver().call, "get", factory=factory, topic="unread", partition="0-1"
        )
        call = get(offset=place[2]["offset"])
        self.assertEqual([e["id"] for e in call.named("message")], [e["id"] for e in place[2:]])
        self.assertEqual(call.named("answer")[0]["moved-or-nothing"], False)
        call = get(offset=10**9)
        self.assertEqual(call.named("message"), [])
        self.assertEqual(call.named("answer")[0]["moved-or-nothing"], True)

    def test_statistics(self) -> None:
        """The client's ``getStats`` understands every item."""
        broker = self.broker()
        factory, sent = self.factory(broker), samples("counted", 12)
        send(peers.driver(), self.producer(factory, "counted"), "counted", sent)

        def stats(item: str | None = None) -> dict[str, str]:
            (event,) = peers.driver().call("stats", factory=factory, item=item).named("stats")
            self.assertEqual(event["broker"], f"localhost/127.0.0.1:{broker.port}")
            values = dict(event["values"])
            self.assertEqual(values.pop("STATS", None), "NO VALUE")
            self.assertEqual(values.pop("END", None), "NO VALUE")
            return values

        general = stats()
        self.assertEqual(
            (general["broker_id"], general["port"], general["slave"]),
            ("0", str(broker.port), "false"),
        )
        self.assertGreaterEqual(int(general["cmd_put"]), 12)
        general.pop("metamorphosis", None)  # a line of ours, which comes last
        self.assertEqual(len(general), 20)
        self.assertTrue(stats("topics")["counted"].startswith("partitions 2 message_count 12 "))
        # both partitions have a line that starts with the topic; the client keeps the last
        self.assertRegex(stats("offsets")["counted"], r"^part [01] min_offset 0 max_offset \d+$")
        self.assertIn("Count=", stats("realtime")["realtime_put"])
        topic = stats("counted")
        self.assertEqual((topic["resultCode"], topic["message_count"]), ("0", "12"))
        self.assertTrue(topic["topic_realtime_put"].startswith("Count=12,Value=12,Value/Count=1,"))

    def test_direct(self) -> None:
        """
        A client given an address in place of a ZooKeeper leaves the choice of the partition to the
        broker.
        """
        broker, made = self.broker(), name("factory")
        # never closed: without ZooKeeper the client's own shutdown ends in a null pointer
        peers.driver().call("open", factory=made, url=broker.url)
        events = send(
            peers.driver(), self.producer(made, "direct"), "direct", samples("direct", 40)
        )
        self.assertSent(events, 40)
        self.assertEqual({event["partition"] for event in events}, {"-1-0", "-1-1"})


class OffsetBehaviour(ClientCase):
    """Consumers come back to where they were."""

    def own_broker(self) -> peers.Broker:
        """One of this test's own, because it is stopped."""
        broker = self.kind(
            self.mktemp(),
            self.zookeeper_server(),
            f"/{name('offsets')}",
            {"t": {"numPartitions": 2}},
        )
        broker.start()
        self.addCleanup(broker.kill)
        return broker

    def test_offsets_in_zookeeper(self) -> None:
        """
        Offsets are stored as id and position, and the next consumer of the group goes on from
        there.
        """
        broker = self.own_broker()
        factory, sent = self.factory(broker), samples("before", 20)
        producer = self.producer(factory, "t")
        events = send(peers.driver(), producer, "t", sent)
        consumer, call = self.consume(factory, "t", "g")
        self.assertReceived(call, sent)
        ends = {}
        for partition in ("0-0", "0-1"):
            last = [event for event in events if event["partition"] == partition][-1]
            reply = Connection(broker.port).ask(
                b"offset t g %b 9223372036854775807 1\r\n" % partition[2:].encode()
            )
            ends[partition] = f"{last['id']}-{reply.body.decode()}"
        wait_until(lambda: self.stored_offsets(broker, "g", "t") == ends, f"offsets become {ends}")
        peers.driver().call("stop-consumer", consumer=consumer)
        more = samples("after", 20)
        send(peers.driver(), producer, "t", more)
        self.assertReceived(self.consume(factory, "t", "g")[1], more)

    def test_consumer_survives_restart_of_broker(self) -> None:
        """
        Producer and consumer find the broker again after an orderly restart; nothing is lost or
        repeated.
        """
        broker = self.own_broker()
        factory, sent = self.factory(broker), samples("before", 20)
        producer = self.producer(factory, "t")
        send(peers.driver(), producer, "t", sent)
        _, call = self.consume(factory, "t", "g")
        self.assertReceived(call, sent)
        broker.stop()
        broker.start()
        more = samples("after", 20)
        self.assertSent(self.send_until_accepted(producer, "t", more), 20)
        self.assertReceived(call, sent + more)


class ClosedPartitionBehaviour(ClientCase):
    """An operator closes a partition."""

    def test_closed_partition(self) -> None:
        """The texts of the conformance table, and the Java producer's special error ``403``."""
        broker = self.kind(
            self.mktemp(),
            self.zookeeper_server(),
            f"/{name('closed')}",
            {"test": {"numPartitions": 2}},
        )
        broker.start()
        self.addCleanup(broker.kill)
        connection = Connection(broker.port)
        self.assertEqual(connection.ask(b"put test 1 5 0 1\r\nhello").status, 200)
        broker.close_partition("test", 1)
        get = b"get test g 1 0 100 2\r\n"
        wait_until(lambda: connection.ask(get).status == 403, "the partition is closed")
        self.assertEqual(connection.ask(get).body, b"Partition[0-1] has been closed")
        self.assertEqual(connection.ask(b"offset test g 1 0 3\r\n").status, 200)
        self.assertEqual(
            connection.ask(b"put test 1 5 0 4\r\nhello").body.decode(),
            f"Put message to [broker '{broker.url}'] [partition 'test-1'] failed."
            "Detail:partition[0-1] has been closed",
        )
        connection.close()
        factory = self.factory(broker)
        sent = samples("closed", 4)
        events = send(peers.driver(), self.producer(factory, "test"), "test", sent)
        self.assertEqual(
            sorted((event["success"], event["error"]) for event in events),
            [(False, "403"), (False, "403"), (True, None), (True, None)],
        )


class RebalanceBehaviour(ClientCase):
    """Two consumers of one group, in two processes."""

    def owners(self, broker: peers.Broker) -> Counter[str]:
        """How many partitions each consumer owns."""
        client = broker.zookeeper.client()
        try:
            path = f"{broker.root}/consumers/g/owners/t"
            names = client.get_children(path)
            return Counter(client.get(f"{path}/{partition}")[0].decode() for partition in names)
        except NoNodeError:
            return Counter()
        finally:
            client.stop()
            client.close()

    def test_two_consumers(self) -> None:
        """
        One joins and one leaves while messages flow: none is lost, and repeats come only from the
        handover.
        """
        broker = self.kind(
            self.mktemp(),
            self.zookeeper_server(),
            f"/{name('rebalance')}",
            {"t": {"numPartitions": 4}},
        )
        broker.start()
        self.addCleanup(broker.kill)
        factory = self.factory(broker)
        producer = self.producer(factory, "t")
        batches = [samples(f"batch-{number}", 100) for number in range(4)]
        first, first_call = self.consume(factory, "t", "g")
        send(peers.driver(), producer, "t", batches[0])
        other = self.factory(broker, peers.driver(1))
        _, second_call = self.consume(other, "t", "g", peers.driver(1))
        send(peers.driver(), producer, "t", batches[1])
        wait_until(lambda: sorted(self.owners(broker).values()) == [2, 2], "each owns two")

        def received() -> Counter[Any]:
            events = first_call.named("message") + second_call.named("message")
            return Counter(map(outcome, events))

        sent = {message.outcome for batch in batches[:2] for message in batch}
        wait_until(lambda: set(received()) == sent, "two batches arrive")
        send(peers.driver(), producer, "t", batches[2])  # nobody comes or goes: each exactly once
        quiet = {message.outcome for message in batches[2]}
        wait_until(lambda: set(received()) == sent | quiet, "the third batch arrives")
        self.assertEqual({received()[message] for message in quiet}, {1})
        self.assertGreater(len(second_call.named("message")), 40)
        peers.driver().call("stop-consumer", consumer=first)
        send(peers.driver(), producer, "t", batches[3])
        sent |= quiet | {message.outcome for message in batches[3]}
        wait_until(lambda: set(received()) == sent, "the fourth batch arrives")
        wait_until(lambda: list(self.owners(broker).values()) == [4], "the second owns all")
