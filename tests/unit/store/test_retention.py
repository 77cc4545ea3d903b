"""When old segments leave the stores."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.cron import CronExpression
from metamorphosis.store import retention
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.layout import segment_name
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import make_store, open_segments
from metamorphosis.store.retention import Retention
from metamorphosis.store.segment import Segment
from metamorphosis.threads import SynchronousThreads

M1 = bytes.fromhex("000000053610a68600000000000000010000000068656c6c6f")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0


class RetentionTestCase(SynchronousTestCase):
    """Stores with three segments of one message each but the last, at noon of a day in June."""

    def setUp(self) -> None:
        """A data path, a clock and threads that the test controls."""
        self.data_path = os.path.abspath(self.mktemp())
        os.makedirs(self.data_path)
        self.clock = Clock()
        self.clock.advance(NOON)
        self.threads = SynchronousThreads()
        self.stores: list[MessageStore] = []

    def store(self, topic: str, ages: tuple[float, ...] = (5 * HOUR, 4 * HOUR)) -> MessageStore:
        """A store whose immutable segments were modified this number of seconds ago."""
        directory = os.path.join(self.data_path, f"{topic}-0")
        os.makedirs(directory)
        for number, age in enumerate((*ages, 0.0)):
            path = os.path.join(directory, segment_name(number * len(M1)))
            with open(path, "wb") as stream:
                stream.write(M1 if number < len(ages) else b"")
            os.utime(path, (self.clock.seconds() - age,) * 2)
        segments = open_segments(self.data_path, topic, 0)
        environment = StoreEnvironment(SynchronousThreads(), self.clock, FlushSchedule(self.clock))
        store = make_store(TopicConfig(topic), 0, segments, environment)
        self.addCleanup(lambda: self.successResultOf(store.close()))
        self.stores.append(store)
        return store

    def config(self, policy: str = "delete,3", when: str = "0 0 13 * * ?") -> BrokerConfig:
        """Global values, and no topics."""
        return BrokerConfig(0, data_path=self.data_path, delete_policy=policy, delete_when=when)

    def retention(self, config: BrokerConfig | None = None) -> Retention:
        """One that lives by UTC."""
        return Retention(
            self.stores,
            config or self.config(),
            self.clock,
            self.threads,
            self.clock.seconds,
            UTC,
        )

    def files(self, store: MessageStore) -> list[str]:
        """Files of a store by the offset or the rest of the name."""
        return sorted(name.lstrip("0") for name in os.listdir(store.directory))

    def advance(self, seconds: float) -> None:
        """Let the time pass as a reactor does, in steps."""
        while seconds > 0:
            self.clock.advance(min(seconds, 600.0))
            seconds -= 600.0


class RunTests(RetentionTestCase):
    """One run over stores."""

    def test_removes_what_has_expired(self) -> None:
        """Expired segments go, the last stays whatever its age, and the log begins later."""
        store = self.store("t")
        os.utime(os.path.join(store.directory, segment_name(50)), (0, 0))
        self.retention().run()
        self.assertEqual(self.files(store), ["50.meta"])
        self.assertEqual((store.min_offset, store.max_offset), (50, 50))
        self.retention().run()
        self.assertEqual(self.files(store), ["50.meta"])

    def test_segment_that_is_not_the_oldest_any_more(self) -> None:
        """It is not taken out of the log, so its file stays too; the next run takes it."""
        store = self.store("t")
        taking = store.remove_segment

        def refuse(segment: Segment) -> None:
            raise ValueError("another one is older")

        self.patch(store, "remove_segment", refuse)
        one = self.retention()
        with capturedLogs() as lines:
            one.run()
        self.assertIn(
            f"{store.directory}/{'0' * 20}.meta could not be taken out of the log: another one",
            "".join(map(formatEvent, lines)),
        )
        self.assertEqual(self.files(store), [".meta", "25.meta", "50.meta"])
        self.patch(store, "remove_segment", taking)
        one.run()
        self.assertEqual(self.files(store), ["50.meta"])

    def test_files_that_cannot_be_looked_at(self) -> None:
        """They stay, which is said, and the next run takes them."""
        store = self.store("t")

        def broken(paths: list[str], now_ms: int, retention_ms: int) -> int:
            raise OSError("I/O")

        patched = self.patch(retention, "count_expired", broken)
        one = self.retention()
        with capturedLogs() as lines:
            one.run()
        text = f"{store.directory} could not be looked at: I/O"
        self.assertIn(text, "".join(map(formatEvent, lines)))
        self.assertEqual(self.files(store), [".meta", "25.meta", "50.meta"])
        patched.restore()
        one.run()
        self.assertEqual(self.files(store), ["50.meta"])

    def test_keeps_what_has_not(self) -> None:
        """A segment that is younger than the retention stays."""
        store = self.store("t", (5 * HOUR, 2 * HOUR))
        self.retention().run()
        self.assertEqual(self.files(store), ["25.meta", "50.meta"])
        self.assertEqual(store.min_offset, 25)

    def test_never_leaves_a_gap(self) -> None:
        """An older segment that was touched keeps the ones after it, and the log opens again."""
        store = self.store("t", (1 * HOUR, 5 * HOUR))
        self.retention().run()
        self.assertEqual(self.files(store), [".meta", "25.meta", "50.meta"])
        self.assertEqual(len(open_segments(self.data_path, "t", 0)), 3)

    def test_archives(self) -> None:
        """The policy decides what becomes of the files."""
        store = self.store("t")
        self.retention(self.config("archive,3,true")).run()
        self.assertEqual(self.files(store), [".meta.zip", "25.meta.zip", "50.meta"])

    def test_policy_of_the_topic(self) -> None:
        """A topic section's policy holds for its stores, the global one for all others."""
        kept, removed = self.store("kept"), self.store("removed")
        topics = {"kept": TopicConfig("kept", delete_policy="delete,6")}
        self.retention(replace(self.config(), topics=topics)).run()
        self.assertEqual((kept.min_offset, removed.min_offset), (0, 50))

    def test_nothing_to_remove(self) -> None:
        """A store with one segment asks no worker."""
        self.store("t", ())
        self.threads.hold()
        self.retention().run()
        self.assertEqual(self.threads.held, 0)

    def test_a_failing_file_stays_in_the_log(self) -> None:
        """What cannot be disposed of is readable again, later ones stay, other stores continue."""
        broken, good = self.store("broken"), self.store("good")
        os.makedirs(os.path.join(broken.directory, segment_name(0) + ".arc", "x"))
        self.retention(self.config("archive,3")).run()
        self.assertEqual(self.files(broken), [".meta", ".meta.arc", "25.meta", "50.meta"])
        self.assertEqual(broken.min_offset, 0)
        found = broken.slice(0, 1000)
        assert found is not None
        self.assertEqual(os.pread(found.segment.fd, found.length, found.position), M1)
        self.assertEqual(good.min_offset, 50)
        os.removedirs(os.path.join(broken.directory, segment_name(0) + ".arc", "x"))
        self.retention(self.config("archive,3")).run()
        self.assertEqual(broken.min_offset, 50)

    def test_a_file_that_cannot_be_looked_at(self) -> None:
        """An error while times are read ends the run over that store only."""
        broken, good = self.store("broken"), self.store("good")
        os.rename(broken.directory, broken.directory + "x")
        with open(broken.directory, "w"):
            pass
        self.retention().run()
        self.assertEqual((broken.min_offset, good.min_offset), (0, 50))

    def test_a_file_that_is_gone(self) -> None:
        """A segment whose file was deleted by hand leaves the log with the others."""
        store = self.store("t")
        os.unlink(os.path.join(store.directory, segment_name(0)))
        self.retention().run()
        self.assertEqual(store.min_offset, 50)

    def test_one_run_at_a_time(self) -> None:
        """A store over which a run works already is left out."""
        store = self.store("t")
        running = self.retention()
        self.threads.hold()
        running.run()
        running.run()
        self.assertEqual(self.threads.held, 1)
        self.threads.release()
        self.assertEqual(store.min_offset, 50)

    def test_few_stores_at_a_time(self) -> None:
        """However many stores there are, workers get the work of two."""
        stores = [self.store(f"t{number}") for number in range(5)]
        running = self.retention()
        self.threads.hold()
        running.run()
        while self.threads.held:
            self.assertTrue(self.threads.held <= retention.CONCURRENT_STORES)
            self.threads.release_one()
        self.assertEqual([store.min_offset for store in stores], [50] * 5)

    def test_partition_that_is_closed_meanwhile(self) -> None:
        """Its directory may have been moved aside, and the same names be those of a new log."""
        store = self.store("t")
        self.threads.hold()
        self.retention().run()
        self.threads.release_one()
        self.successResultOf(store.close())
        self.threads.release()
        self.assertEqual(self.files(store), ["25.meta", "50.meta"])

    def test_list_before_file(self) -> None:
        """A segment leaves the list of the store before a worker touches its file."""
        store = self.store("t")
        self.threads.hold()
        self.retention().run()
        self.threads.release_one()
        self.assertEqual(store.min_offset, 25)
        self.assertEqual(self.files(store), [".meta", "25.meta", "50.meta"])
        self.threads.release_one()
        self.assertEqual(self.files(store), ["25.meta", "50.meta"])
        self.threads.release()


class ScheduleTests(RetentionTestCase):
    """When runs start."""

    def test_at_the_time(self) -> None:
        """A run starts at the scheduled time, and again the next day."""
        store = self.store("t")
        self.retention().start()
        self.advance(HOUR - 1)
        self.assertEqual(store.min_offset, 0)
        self.clock.advance(1)
        self.assertEqual(store.min_offset, 50)
        later = self.store("later")
        self.advance(24 * HOUR)
        self.assertEqual(later.min_offset, 50)

    def test_stores_that_exist_by_then(self) -> None:
        """A store that was made after the schedule is covered."""
        self.retention().start()
        store = self.store("new")
        self.advance(HOUR)
        self.assertEqual(store.min_offset, 50)

    def test_schedule_of_the_topic(self) -> None:
        """Topics with a schedule of their own run by that."""
        own, other = self.store("own"), self.store("other")
        topics = {"own": TopicConfig("own", delete_policy="delete,3", delete_when="0 0 15 * * ?")}
        self.retention(replace(self.config(), topics=topics)).start()
        self.advance(HOUR)
        self.assertEqual((own.min_offset, other.min_offset), (0, 50))
        self.advance(2 * HOUR)
        self.assertEqual(own.min_offset, 50)

    def test_one_timer_a_schedule(self) -> None:
        """Equal schedules share a timer, which never sleeps longer than an hour."""
        topics = {name: TopicConfig(name, delete_when="0 0 15 * * ?") for name in ("a", "b")}
        self.retention(replace(self.config(), topics=topics)).start()
        times = [call.getTime() - NOON for call in self.clock.getDelayedCalls()]
        self.assertEqual(times, [HOUR, HOUR])

    def test_reload(self) -> None:
        """A reload changes schedules and policies."""
        store = self.store("t")
        running = self.retention(self.config("delete,100"))
        running.start()
        running.reconfigure(self.config("delete,3", "0 30 12 * * ?"))
        self.advance(HOUR / 2)
        self.assertEqual(store.min_offset, 50)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_the_last_time(self) -> None:
        """After the last time of a schedule nothing is planned, and it is not an error: a reload
        and the end find no timer to cancel."""
        store = self.store("t")
        config = self.config(when="0 0 13 1 6 ? 2026")
        running = self.retention(config)
        running.start()
        self.advance(HOUR)
        self.assertEqual(store.min_offset, 50)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        running.reconfigure(config)
        self.successResultOf(running.stop())

    def test_a_clock_that_is_set(self) -> None:
        """When the system's clock jumps, the run comes within an hour."""
        store = self.store("t")
        jump = 0.0
        running = Retention(
            self.stores,
            self.config(when="0 0 20 * * ?"),
            self.clock,
            self.threads,
            lambda: self.clock.seconds() + jump,
            UTC,
        )
        running.start()
        jump = 9 * HOUR
        self.advance(HOUR)
        self.assertEqual(store.min_offset, 50)

    def test_missed_times(self) -> None:
        """O-8: times that passed while the machine slept are one run, at the next wake."""
        jump, runs = 0.0, []
        running = Retention(
            self.stores,
            self.config(),
            self.clock,
            self.threads,
            lambda: self.clock.seconds() + jump,
            UTC,
        )
        self.patch(running, "run", runs.append)
        running.start()
        jump = 5 * 24 * HOUR
        self.advance(2 * HOUR)
        self.assertEqual(["0 0 13 * * ?"], runs)
        self.advance(23 * HOUR)
        self.assertEqual(2, len(runs))

    def test_a_clock_that_is_set_back(self) -> None:
        """The run comes when the hour has come by the clock as it stands then, and only then."""
        store = self.store("t")
        step = 0.0
        running = Retention(
            self.stores,
            self.config(when="0 0 20 * * ?"),
            self.clock,
            self.threads,
            wall_clock=lambda: self.clock.seconds() + step,
            zone=UTC,
        )
        running.start()
        due = CronExpression.parse("0 0 20 * * ?").next_timestamp(self.clock.seconds(), UTC)
        assert due is not None
        step = -2 * HOUR
        self.advance(due - self.clock.seconds() + HOUR)
        self.assertEqual(store.min_offset, 0)
        self.advance(HOUR)
        self.assertEqual(store.min_offset, 50)


class StopTests(RetentionTestCase):
    """Ending."""

    def test_idle(self) -> None:
        """Without a run it is over at once, and no timer is left."""
        running = self.retention()
        running.start()
        self.successResultOf(running.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        running.reconfigure(self.config())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_within_a_run(self) -> None:
        """The file that is being worked on is finished, nothing else is begun."""
        store = self.store("t")
        for name in ("u", "v"):
            self.store(name)
        running = self.retention()
        self.threads.hold()
        running.run()
        self.threads.release_one()
        self.threads.release_one()
        stopped = running.stop()
        self.threads.release_one()
        self.assertNoResult(stopped)
        self.threads.release_one()
        self.assertEqual(self.threads.held, 0)
        self.successResultOf(stopped)
        self.assertEqual([store.min_offset for store in self.stores], [25, 25, 0])
        self.assertEqual(self.files(store), ["25.meta", "50.meta"])

    def test_run_that_fails(self) -> None:
        """It ends once, and the end of the retention with it."""
        store = self.store("t")
        os.rename(store.directory, store.directory + "x")
        with open(store.directory, "w"):
            pass
        running = self.retention()
        self.threads.hold()
        running.run()
        stopped = running.stop()
        self.threads.release()
        self.successResultOf(stopped)

    def test_twice(self) -> None:
        """Every caller hears of the end."""
        self.store("t")
        running = self.retention()
        self.threads.hold()
        running.run()
        first, second = running.stop(), running.stop()
        self.threads.release()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(running.stop())


class LogTests(RetentionTestCase):
    """What an operator reads."""

    def events(self, run: Callable[[], None]) -> list[dict[str, Any]]:
        """The events of this module while ``run`` runs."""
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        run()
        return [event for event in events if event.get("log_namespace") == retention.__name__]

    def test_success(self) -> None:
        """One line a run says how much went and where partitions begin now."""
        for number in range(7):
            self.store(f"t{number}")
        [event] = self.events(self.retention().run)
        begins = ", ".join(f"t{number}-0 at 50" for number in range(5))
        self.assertEqual((event["count"], event["begins"]), (14, f"{begins} and 2 more"))

    def test_as_many_as_are_named(self) -> None:
        """No others are counted."""
        for number in range(5):
            self.store(f"t{number}")
        [event] = self.events(self.retention().run)
        self.assertEqual(event["begins"], ", ".join(f"t{number}-0 at 50" for number in range(5)))

    def test_failure(self) -> None:
        """The line names the file and the reason."""
        store = self.store("t")
        os.makedirs(os.path.join(store.directory, segment_name(0) + ".arc", "x"))
        [event] = self.events(self.retention(self.config("archive,3")).run)
        path = os.path.join(store.directory, segment_name(0))
        self.assertEqual(event["log_level"], LogLevel.error)
        self.assertRegex(event["faults"], f"^{re.escape(path)} could not be deleted .*: .*")

    def test_never_again(self) -> None:
        """A schedule that is over is pointed at."""
        running = self.retention(self.config(when="0 0 13 * * ? 2025"))
        [event] = self.events(running.start)
        self.assertEqual(event["when"], "0 0 13 * * ? 2025")
