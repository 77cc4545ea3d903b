"""The test runner counts results correctly, also when a test kills or blocks the process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests import run, stageprocess
from tests.stageprocess import ROOT, Outcome, TrialStage
from tests.support.broker import environment

SAMPLE = """
import os
import signal
import time
import warnings
import weakref

from twisted.internet.defer import Deferred
from twisted.python import log
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase


class Big:
    alive = weakref.WeakSet()

    def __init__(self):
        self.itself = self
        Big.alive.add(self)


class SampleTests(TestCase):
    timeout = 0.2

    def test_passes(self):
        pass

    def test_fails(self):
        self.fail("this is wrong")

    def test_raises(self):
        raise ValueError("oh")

    def test_skips(self):
        raise SkipTest("not today")

    def test_todo(self):
        self.fail("known")
    test_todo.todo = "some day"

    def test_unexpected_success(self):
        pass
    test_unexpected_success.todo = "some day"

    def test_waits_for_ever(self):
        return Deferred()

    def test_logs_an_error(self):
        log.err(ValueError("logged"))

    def test_cleanup_fails(self):
        self.addCleanup(lambda: 1 / 0)

    def test_1_has_objects(self):
        self.big = Big()

    def test_2_has_none_of_others(self):
        self.assertEqual([], list(Big.alive))

    def test_fails_twice(self):
        self.addCleanup(lambda: 1 / 0)
        self.fail("and the cleanup, too")


class PatientTests(SynchronousTestCase):
    timeout = 300

    def test_has_its_own_limit(self):
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        self.assertGreater(left, 300)


left = []


class LeavingTests(SynchronousTestCase):
    def test_leaves_files(self):
        left.extend(open("left-%d" % n, "w") for n in range(80))

    def test_leaves_stores(self):
        self.segments = [os.open("%d.meta" % n, os.O_CREAT) for n in range(80)]


class MeetingTests(SynchronousTestCase):
    def meet(self, own, other):
        open(os.path.join(os.environ["PYTHONPATH"].split(os.pathsep)[-1], own), "w").close()
        place = os.path.join(os.environ["PYTHONPATH"].split(os.pathsep)[-1], other)
        while not os.path.exists(place):
            time.sleep(0.01)

    def test_first(self):
        self.meet("first", "second")

    def test_second(self):
        self.meet("second", "first")


class DyingTests(SynchronousTestCase):
    def test_passes(self):
        pass

    def test_zz_dies(self):
        os._exit(3)
"""

FAILED = {
    "fails",
    "raises",
    "unexpected_success",
    "waits_for_ever",
    "logs_an_error",
    "cleanup_fails",
    "fails_twice",
}


class StageTests(SynchronousTestCase):
    """A sample of every possible result."""

    def setUp(self) -> None:
        """A test module that a stage can import."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        with open(os.path.join(self.directory, "sample.py"), "w", encoding="utf-8") as file:
            file.write(SAMPLE)

    def outcome(self, name: str) -> Outcome:
        """Run a stage and read its journal."""
        stage = TrialStage("sample", (name,))
        stage.journal = os.path.join(self.directory, "journal")
        stage.output = os.path.join(self.directory, "output")
        command = [sys.executable, "-m", "tests.stage", stage.journal, f"{self.directory}/trial"]
        paths = environment()
        paths["PYTHONPATH"] += os.pathsep + self.directory
        with open(stage.output, "wb") as output:
            done = subprocess.run(
                [*command, name], env=paths, stdout=output, stderr=output, check=False, timeout=60
            )
        return stage.results(done.returncode)

    def test_every_outcome(self) -> None:
        """Each test counts once; unclean tests are failures, expected failures are skips."""
        outcome = self.outcome("sample.SampleTests")
        prefix = "sample.SampleTests.test_"
        self.assertEqual(set(outcome.failed), {prefix + name for name in FAILED})
        self.assertEqual(set(outcome.skipped), {f"{prefix}skips", f"{prefix}todo"})
        self.assertEqual(outcome.skipped[f"{prefix}skips"], "not today")
        self.assertEqual(outcome.line, "3 passed, 7 failed, 2 skipped")
        self.assertIn("this is wrong", outcome.failed[f"{prefix}fails"])

    def test_process_dies(self) -> None:
        """The test that ran when the process died is a failure, earlier ones keep their results."""
        outcome = self.outcome("sample.DyingTests")
        self.assertEqual(outcome.line, "1 passed, 1 failed, 0 skipped")
        self.assertIn("status 3", outcome.failed["sample.DyingTests.test_zz_dies"])

    def test_module_cannot_be_imported(self) -> None:
        """A module that cannot be imported is a failure, not a module without tests."""
        with open(os.path.join(self.directory, "sample.py"), "a", encoding="utf-8") as file:
            file.write("import nonsense_that_is_not_there\n")
        outcome = self.outcome("sample")
        self.assertEqual(outcome.line, "0 passed, 1 failed, 0 skipped")

    def test_stage_that_never_began(self) -> None:
        """A process that dies before its first test is one failure with its output."""
        stage = TrialStage("sample", ("sample",))
        stage.journal = os.path.join(self.directory, "no-journal")
        stage.output = os.path.join(self.directory, "output")
        with open(stage.output, "w", encoding="utf-8") as output:
            output.write("no module named tests")
        outcome = stage.results(1)
        self.assertEqual(outcome.line, "0 passed, 1 failed, 0 skipped")
        self.assertIn("no module named tests", str(outcome.failed))

    def test_descriptors_left_open(self) -> None:
        """They are a failure that names the test; those of segments are closed after the test."""
        outcome = self.outcome("sample.LeavingTests")
        self.assertEqual(outcome.line, "2 passed, 1 failed, 0 skipped")
        told = outcome.failed["descriptors left open"]
        self.assertEqual(told.count("sample.LeavingTests.test_leaves_files"), 80)
        self.assertNotIn("meta", told)

    def test_time_limit_of_its_own(self) -> None:
        """The ``timeout`` of a class holds, also of one whose tests know no reactor."""
        self.assertEqual(self.outcome("sample.PatientTests").line, "1 passed, 0 failed, 0 skipped")

    def test_two_at_a_time(self) -> None:
        """Stages that wait for each other both end; each has ports of its own."""
        names = [f"sample.MeetingTests.test_{name}" for name in ("first", "second")]
        stages = {name: TrialStage(f"meeting-{name}", (name,)) for name in names}
        paths = environment()["PYTHONPATH"] + os.pathsep + self.directory
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": paths})
        self.patch(run, "stage", stages.__getitem__)
        self.patch(sys, "stdout", io.StringIO())
        total = Outcome()
        run.run_stages(names, 2, total)
        self.assertEqual(total.line, "2 passed, 0 failed, 0 skipped")
        self.assertEqual({each.worker for each in stages.values()}, {0, 1})

    def test_files_in_memory(self) -> None:
        """Unit tests keep them there while it is plenty, and they go with the stage."""
        memory = os.path.join(self.directory, "memory")
        self.patch(stageprocess, "MEMORY", memory)
        plenty = stageprocess.PLENTY
        for free in ((0, 0), (plenty, plenty - 1), (plenty - 1, plenty)):
            self.patch(stageprocess, "free_in_memory", lambda free=free: free)
            self.assertTrue(stageprocess.directory_of("unit").startswith(stageprocess.WORK))
        self.patch(stageprocess, "free_in_memory", lambda: (plenty, plenty))
        self.assertTrue(stageprocess.directory_of("faults").startswith(stageprocess.WORK))
        found = {stageprocess.directory_of(name) for name in ("unit", "unit-3.12", "pure")}
        self.assertEqual({os.path.dirname(each) for each in found}, {memory})
        self.assertEqual(len(found), 3)
        self.patch(sys, "stdout", io.StringIO())
        for end in (TrialStage.finish, TrialStage.terminate):
            stage = TrialStage("unit-sample", ("tests.unit.test_terminal",))
            stage.start()
            stage.process.wait(60)
            self.assertEqual(len(os.listdir(memory)), 1)
            end(stage)
            self.assertEqual(os.listdir(memory), [])

    def test_free_memory(self) -> None:
        """None where there is no such file system; otherwise both numbers are counted in bytes."""
        self.patch(stageprocess, "MEMORY", os.path.join(self.directory, "missing"))
        self.assertEqual(stageprocess.free_in_memory(), (0, 0))
        self.patch(stageprocess, "MEMORY", self.directory)
        self.assertGreater(min(stageprocess.free_in_memory()), 1 << 20)

    def test_integration_parts(self) -> None:
        """Each module is in one of them, and the longest are not in the same."""
        parts = run.integration_parts()
        self.assertEqual(len(parts), run.PARTS)
        names = [name.rpartition(".")[2] for part in parts.values() for name in part]
        there = [each for each in os.listdir(os.path.dirname(__file__)) if each[:5] == "test_"]
        self.assertEqual(sorted(f"{name}.py" for name in names), sorted(there))
        lengths = [
            sum(run.seconds_of(name.rpartition(".")[2]) for name in part) for part in parts.values()
        ]
        self.assertLess(max(lengths) - min(lengths), run.SECONDS_OF_OTHERS * 2)
        self.assertLessEqual(run.SECONDS.keys(), set(names))

    def test_tests_of_the_other_pythons(self) -> None:
        """All unit tests are among them but those about the sources, which are there."""
        package = os.path.join(ROOT, "tests", "unit")
        there = {
            name.removesuffix(".py")
            for name in os.listdir(package)
            if name.startswith("test_") or os.path.isdir(os.path.join(package, name))
        } - {"__pycache__"}
        self.assertEqual(set(run.ABOUT_SOURCES) - there, set())
        units = {f"tests.unit.{name}" for name in there - set(run.ABOUT_SOURCES)}
        self.assertEqual(
            units | {"tests.contract", "tests.conformance"}, set(run.tests_of_pythons())
        )

    def test_blocked_test(self) -> None:
        """The signal that ends a blocked test is recorded as that test's failure."""
        from tests import stage

        self.assertRaises(stage.BlockedTest, stage.interrupt, 14, None)

    def test_cut_journal(self) -> None:
        """An incomplete last line is ignored."""
        stage = TrialStage("sample", ("sample",))
        stage.journal = os.path.join(self.directory, "journal")
        start = json.dumps({"what": "start", "test": "a", "text": ""})
        with open(stage.journal, "w", encoding="utf-8") as journal:
            journal.write(f"{start}\n{start[:9]}")
        self.assertEqual([event["test"] for event in stage.events()], ["a"])
