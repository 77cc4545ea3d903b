"""Accepted topics, partition ranges and closed partitions."""

from __future__ import annotations

from dataclasses import replace

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker import topics
from metamorphosis.broker.topics import ANY_PARTITION, TopicPatterns, TopicRules
from metamorphosis.config.model import BrokerConfig, Settings, TopicConfig
from metamorphosis.errors import BrokerError, Forbidden, InternalServerError

URL = "meta://localhost:8123"


def configuration(partitions: int = 1, **sections: int) -> BrokerConfig:
    """A configuration whose sections have these numbers of partitions."""
    return BrokerConfig(
        broker_id=0,
        num_partitions=partitions,
        topics={name: TopicConfig(name, num_partitions=count) for name, count in sections.items()},
        path="/etc/server.ini",
    )


def named(*names: str) -> BrokerConfig:
    """A configuration with sections of these names, one partition each."""
    return configuration(**dict.fromkeys(names, 1))


class TopicPatternsTests(SynchronousTestCase):
    """Section names as patterns, storage specification 3.1 and row C61."""

    def test_plain_name(self) -> None:
        """A plain name accepts itself and nothing longer or shorter."""
        patterns = TopicPatterns(["test"])
        self.assertEqual(
            [patterns.match(name) for name in ("test", "tes", "test1", "atest", "")],
            [True, False, False, False, False],
        )

    def test_star(self) -> None:
        """``*`` stands for any text, also for none, at any place of the name."""
        patterns = TopicPatterns(["w*", "a*b*c"])
        self.assertEqual(
            [patterns.match(name) for name in ("w", "w1", "x-w1", "abc", "a1b2c", "ab")],
            [True, True, False, True, True, False],
        )

    def test_C61_regular_expression_characters(self) -> None:
        """Topics that the original accepts because of unquoted characters are accepted, and a name
        accepts itself (D-16)."""
        patterns = TopicPatterns(["a+b", "x.y"])
        self.assertEqual(
            [patterns.match(name) for name in ("aab", "xzy", "x.y", "a+b", "xy", "b")],
            [True, True, True, True, False, False],
        )

    def test_star_beside_regular_expression_characters(self) -> None:
        """A star works in the quoted and in the unquoted reading of a name."""
        patterns = TopicPatterns(["a+*"])
        self.assertEqual(
            [patterns.match(name) for name in ("a+1", "aa1", "+1")], [True, True, False]
        )

    def test_no_regular_expression(self) -> None:
        """A name that is not a regular expression, with which the original does not start, accepts
        itself."""
        patterns = TopicPatterns(["a(b", "[*"])
        self.assertEqual(
            [patterns.match(name) for name in ("a(b", "[1", "ab")], [True, True, False]
        )

    def test_too_long(self) -> None:
        """No pattern accepts a topic whose directory name would be too long."""
        patterns = TopicPatterns(["*"])
        self.assertTrue(patterns.match("t" * topics.LONGEST_TOPIC))
        self.assertFalse(patterns.match("t" * (topics.LONGEST_TOPIC + 1)))

    def test_added_later(self) -> None:
        """A name that was refused is accepted after its pattern was added."""
        patterns = TopicPatterns(["a"])
        self.assertFalse(patterns.match("b"))
        patterns.add(["b"])
        self.assertTrue(patterns.match("b"))

    def test_memory_is_bounded(self) -> None:
        """The cache does not grow without limit with invented topics, and its answers stay
        right."""
        self.patch(topics, "CACHE_LIMIT", 10)
        patterns = TopicPatterns(["w*"])
        for number in range(100):
            self.assertFalse(patterns.match(f"t{number}"))
            self.assertTrue(patterns.match(f"w{number}"))
        self.assertLessEqual(len(patterns._known), 10)


class PlaceTests(SynchronousTestCase):
    """The checks of a put, wire specification 6.1, and their texts."""

    def refusal(self, rules: TopicRules, topic: str, partition: int) -> BrokerError:
        """The error with which the put is refused."""
        return self.assertRaises(BrokerError, rules.place, URL, topic, partition)

    def test_accepted(self) -> None:
        """A put in range goes to the requested partition."""
        rules = TopicRules(configuration(test=2), Settings())
        self.assertEqual([rules.place(URL, "test", p) for p in (0, 1)], [0, 1])

    def test_C40_wrong_partition(self) -> None:
        """A partition at or above the topic's number, or below -1, is refused with 500."""
        rules = TopicRules(configuration(test=2), Settings())
        for partition in (2, -2):
            error = self.refusal(rules, "test", partition)
            self.assertIsInstance(error, InternalServerError)
            self.assertEqual(
                str(error),
                f"Put message to [broker 'meta://localhost:8123'] [partition 'test-{partition}'] "
                f"failed.Detail:wrong partition {partition}",
            )

    def test_unknown_topic(self) -> None:
        """A topic without a section is refused with 500 before its partition is looked at."""
        rules = TopicRules(named("test"), Settings())
        self.assertEqual(
            str(self.refusal(rules, "nosuch", 7)),
            "Put message to [broker 'meta://localhost:8123'] [partition 'nosuch-7'] failed."
            "Detail:The server do not accept topic nosuch",
        )

    def test_unknown_topic_any_partition(self) -> None:
        """The partition is chosen before the topic is refused, so the text names the chosen one."""
        rules = TopicRules(configuration(partitions=2, test=1), Settings(), lambda count: count - 1)
        self.assertIn("'nosuch-1'", str(self.refusal(rules, "nosuch", ANY_PARTITION)))

    def test_C61_all(self) -> None:
        """Every put of row C61 is placed or refused, by number of partitions too."""
        sections = {"t1": 1, "t2": 2, "a+b": 1, "x.y": 1, "w*": 1}
        rules = TopicRules(configuration(**sections), Settings())
        for topic, partition in (("aab", 0), ("xzy", 0), ("w1", 0), ("t2", 1)):
            self.assertEqual(rules.place(URL, topic, partition), partition)
        self.assertIn("do not accept topic t3", str(self.refusal(rules, "t3", 0)))
        self.assertIn("wrong partition 1", str(self.refusal(rules, "t1", 1)))

    def test_wildcard_uses_global_partitions(self) -> None:
        """
        A topic that is accepted through a wildcard has the global number of partitions, not the
        section's.
        """
        rules = TopicRules(configuration(partitions=3, **{"w*": 8}), Settings())
        self.assertEqual(rules.partition_count("w1"), 3)
        self.assertEqual(rules.place(URL, "w1", 2), 2)
        self.assertIn("wrong partition 3", str(self.refusal(rules, "w1", 3)))

    def test_any_partition(self) -> None:
        """-1 becomes the choice of the random source among all partitions."""
        asked: list[int] = []
        rules = TopicRules(configuration(test=5), Settings(), lambda n: asked.append(n) or 3)
        self.assertEqual(rules.place(URL, "test", ANY_PARTITION), 3)
        self.assertEqual(asked, [5])

    def test_any_partition_is_uniform(self) -> None:
        """Without an injected source every partition is reached."""
        rules = TopicRules(configuration(test=4), Settings())
        self.assertEqual({rules.random_partition("test") for _ in range(500)}, {0, 1, 2, 3})

    def test_any_partition_of_none(self) -> None:
        """A topic without partitions refuses every put, also one to -1."""
        rules = TopicRules(configuration(test=0), Settings())
        self.assertIn("wrong partition -1", str(self.refusal(rules, "test", ANY_PARTITION)))

    def test_C62_reload(self) -> None:
        """
        After a reload the new sections hold, and a removed topic stays accepted with the global
        values.
        """
        rules = TopicRules(configuration(t1=1, t2=2), Settings())
        rules.reconfigure(configuration(t2=4, t9=1), Settings())
        for topic, partition in (("t2", 3), ("t9", 0), ("t1", 0)):
            self.assertEqual(rules.place(URL, topic, partition), partition)

    def test_closed_all_any_partition(self) -> None:
        """-1 to a topic whose every partition is closed is refused with 403."""
        for count in (1, 2):
            closed = Settings(closed_partitions={"test": ((0, count - 1),)})
            rules = TopicRules(configuration(test=count), closed)
            error = self.refusal(rules, "test", ANY_PARTITION)
            self.assertIsInstance(error, Forbidden)
            self.assertTrue(str(error).endswith("Detail:partition[0--1] has been closed"))


class ClosedPartitionsTests(SynchronousTestCase):
    """Partitions closed by the operator, in the settings file."""

    def setUp(self) -> None:
        """Four partitions, all open."""
        self.rules = TopicRules(configuration(test=4), Settings())
        self.changes: list[None] = []
        self.rules.on_change(lambda: self.changes.append(None))

    def close(self, topic: str, *ranges: tuple[int, int]) -> None:
        """A reload with these ranges."""
        self.rules.reconfigure(configuration(test=4), Settings(closed_partitions={topic: ranges}))

    def closed(self, topic: str = "test") -> list[int]:
        """The closed ones of the first six partitions."""
        return [p for p in range(6) if self.rules.is_closed(topic, p)]

    def test_C38_close_and_open(self) -> None:
        """Closing refuses puts with 403 and the original's text; opening lifts that."""
        self.close("test", (1, 2))
        self.assertEqual(self.closed(), [1, 2])
        error = self.assertRaises(Forbidden, self.rules.place, URL, "test", 1)
        self.assertEqual(
            str(error),
            "Put message to [broker 'meta://localhost:8123'] [partition 'test-1'] failed."
            "Detail:partition[0-1] has been closed",
        )
        self.close("test")
        self.assertEqual(self.closed(), [])
        self.assertEqual(self.rules.place(URL, "test", 1), 1)

    def test_C66_unconfigured_topic(self) -> None:
        """Closing partitions of a topic without a section has no effect, and is logged."""
        with capturedLogs() as events:
            self.close("other", (0, 3))
            self.close("", (0, 3))
        self.assertEqual(self.closed("other"), [])
        self.assertEqual(len(events), 2)

    def test_bad_range(self) -> None:
        """A range that starts below 0 or ends before it starts closes nothing."""
        self.close("test", (-1, 2), (2, 1))
        self.assertEqual(self.closed(), [])

    def test_random_partition_is_open(self) -> None:
        """A put to -1 never goes to a closed partition (D-14, fixed)."""
        self.close("test", (1, 2))
        self.assertEqual({self.rules.random_partition("test") for _ in range(200)}, {0, 3})

    def test_closed_above_range(self) -> None:
        """
        A closed partition above the present number is refused as closed, as the original checks
        that first.
        """
        self.close("test", (5, 5))
        self.assertRaises(Forbidden, self.rules.place, URL, "test", 5)

    def test_from_settings(self) -> None:
        """Partitions listed in the settings file are closed from the start."""
        self.rules = TopicRules(
            configuration(test=4), Settings(closed_partitions={"test": ((0, 1), (3, 3))})
        )
        self.assertEqual(self.closed(), [0, 1, 3])
        self.assertEqual(self.rules.closed_partitions("test"), ((0, 1), (3, 3)))

    def test_listeners(self) -> None:
        """Each reload calls the listener, because earlier answers may be wrong now."""
        self.close("test", (0, 0))
        self.close("test")
        self.assertEqual(len(self.changes), 2)

    def test_huge_range(self) -> None:
        """A range to the largest partition number costs no memory and works."""
        self.close("test", (1, 2**31 - 1))
        self.assertEqual(self.closed(), [1, 2, 3, 4, 5])

    def test_log(self) -> None:
        """A log line names the topic and the partitions that are closed or opened."""
        with capturedLogs() as events:
            self.close("test", (0, 2), (3, 3))
            self.close("test", (0, 2), (3, 3))
            self.close("test")
        self.assertEqual(
            [event["log_format"].format(**event) for event in events],
            [
                "Closed partitions of topic test: 0-2,3 (before: none)",
                "Closed partitions of topic test: none (before: 0-2,3)",
            ],
        )


class TopicConfigTests(SynchronousTestCase):
    """The configuration of a topic."""

    def test_section_or_global(self) -> None:
        """A topic has its own section, or a copy of the global values under its name."""
        config = replace(configuration(test=4), unflush_threshold=7)
        rules = TopicRules(config, Settings())
        self.assertIs(rules.topic_config("test"), config.topics["test"])
        self.assertEqual(rules.topic_config("other").unflush_threshold, 7)
        self.assertEqual(rules.topic_config("other").name, "other")
