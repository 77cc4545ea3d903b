"""The counting runner counts what happened, also when a test kills the process or blocks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests import run
from tests.support.broker import environment

SAMPLE = """
import os
import time
import warnings

from twisted.internet.defer import Deferred
from twisted.python import log
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase


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

    def test_fails_twice(self):
        self.addCleanup(lambda: 1 / 0)
        self.fail("and the cleanup, too")


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
    """A sample of everything a test can do."""

    def setUp(self) -> None:
        """A module of tests that is importable by a stage."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        with open(os.path.join(self.directory, "sample.py"), "w", encoding="utf-8") as file:
            file.write(SAMPLE)

    def outcome(self, name: str) -> run.Outcome:
        """Run a stage of its own and read its journal."""
        stage = run.TrialStage("sample", (name,))
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
        """Each test counts once; what is not clean failed, what proves nothing is skipped."""
        outcome = self.outcome("sample.SampleTests")
        prefix = "sample.SampleTests.test_"
        self.assertEqual(set(outcome.failed), {prefix + name for name in FAILED})
        self.assertEqual(set(outcome.skipped), {f"{prefix}skips", f"{prefix}todo"})
        self.assertEqual(outcome.skipped[f"{prefix}skips"], "not today")
        self.assertEqual(outcome.line, "1 passed, 7 failed, 2 skipped")
        self.assertIn("this is wrong", outcome.failed[f"{prefix}fails"])

    def test_process_dies(self) -> None:
        """The test that ran when the process died failed, those before keep their results."""
        outcome = self.outcome("sample.DyingTests")
        self.assertEqual(outcome.line, "1 passed, 1 failed, 0 skipped")
        self.assertIn("status 3", outcome.failed["sample.DyingTests.test_zz_dies"])

    def test_module_cannot_be_imported(self) -> None:
        """A module with a mistake is a failure, not a module without tests."""
        with open(os.path.join(self.directory, "sample.py"), "a", encoding="utf-8") as file:
            file.write("import nonsense_that_is_not_there\n")
        outcome = self.outcome("sample")
        self.assertEqual(outcome.line, "0 passed, 1 failed, 0 skipped")

    def test_stage_that_never_began(self) -> None:
        """A process that dies before its first test is one failure with its output."""
        stage = run.TrialStage("sample", ("sample",))
        stage.journal = os.path.join(self.directory, "no-journal")
        stage.output = os.path.join(self.directory, "output")
        with open(stage.output, "w", encoding="utf-8") as output:
            output.write("no module named tests")
        outcome = stage.results(1)
        self.assertEqual(outcome.line, "0 passed, 1 failed, 0 skipped")
        self.assertIn("no module named tests", str(outcome.failed))

    def test_blocked_test(self) -> None:
        """The signal that ends a blocked test is recorded as that test's failure."""
        from tests import stage

        self.assertRaises(stage.BlockedTest, stage.interrupt, 14, None)

    def test_cut_journal(self) -> None:
        """A last line that was being written when the process died is left out."""
        stage = run.TrialStage("sample", ("sample",))
        stage.journal = os.path.join(self.directory, "journal")
        start = json.dumps({"what": "start", "test": "a", "text": ""})
        with open(stage.journal, "w", encoding="utf-8") as journal:
            journal.write(f"{start}\n{start[:9]}")
        self.assertEqual([event["test"] for event in stage.events()], ["a"])
