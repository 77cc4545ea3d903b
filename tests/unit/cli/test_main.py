"""The command line, exit statuses, and interruptions at the start."""

from __future__ import annotations

import io
import os
import sys

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cli.options import parse
from metamorphosis.cli.table import table
from metamorphosis.errors import NotConnected
from tests.unit.cli.fakes import Run


class OptionTests(SynchronousTestCase):
    """The options."""

    def setUp(self) -> None:
        """An environment without variables of ours."""
        self.patch(os, "environ", {"HOME": self.mktemp()})

    def refused(self, line: str) -> str:
        """The error of an invalid command line; its status is 2."""
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        error = self.assertRaises(SystemExit, parse, line.split())
        self.assertEqual(error.code, 2)
        return errors.getvalue()

    def test_defaults(self) -> None:
        """Producing needs only the topic and the cluster."""
        options = parse("produce t --broker b:1".split())
        self.assertEqual((options.topic, options.broker, options.zookeeper), ("t", "b:1", None))
        self.assertEqual((options.root, options.timeout, options.rate), ("/meta", 10.0, None))

    def test_environment(self) -> None:
        """It gives the cluster for every command, also those for one broker."""
        os.environ.update(METAQ_BROKER="b:1", METAQ_ROOT="/m")
        for line in ("produce t", "consume t --group g", "lag", "brokers", "stats", "topics"):
            options = parse(line.split())
            self.assertEqual((options.broker, options.zookeeper), ("b:1", None))
        self.assertEqual(options.root, "/m")
        self.assertEqual(parse(["slave-status"]).broker, "b:1")

    def test_completion(self) -> None:
        """A script for each shell, with all commands."""
        for shell in ("bash", "zsh", "tcsh"):
            output = io.StringIO()
            self.patch(sys, "stdout", output)
            error = self.assertRaises(SystemExit, parse, ["--print-completion", shell])
            self.assertIn(error.code, (0, None))
            for command in ("produce", "consume", "lag", "brokers", "slave-status", "tx"):
                self.assertIn(command, output.getvalue())

    def test_senseless(self) -> None:
        """Each of these is refused with a reason."""
        for line, reason in (
            ("", "COMMAND"),
            ("produce --broker b:1", "topic"),
            ("produce t", "which cluster? Give --zookeeper HOSTS or --broker HOST:PORT"),
            ("produce t --broker b:1 --zookeeper z:1", "not allowed with"),
            ("produce t --broker b:1 --rate 0", "'0' is not a number above 0"),
            ("produce t --broker b:1 --rate inf", "'inf' is not a number above 0"),
            ("consume t --broker b:1", "--group --partition"),
            ("consume t --group g --broker b:1 --from begin", "earliest, latest, stored, an"),
            ("consume t --group g --broker b:1 --raw --json", "not allowed with"),
            ("consume t --group g --broker b:1 --format {x}", "{x} is unknown; fields: topic"),
            ("consume t --group g --partition 0-0 --broker b:1", "not allowed with"),
            ("produce t --broker b:1 --key a --partition 0-1", "not allowed with"),
            ("lag --broker b:1 --max x", "'x' is not a number"),
            ("consume t --group g --broker b:1 --max 1.5", "'1.5' is not a number above 0"),
            ("consume t --group g --broker b:1 --idle -1", "not a number above 0"),
            ("offsets t --group g --broker b:1 --to x", "neither earliest nor latest"),
            ("tx list --data d --timeout 3601", "'3601' is not a number above 0 and up to 3600"),
            ("tx list --data d --limit 1000000000", "above 0 and up to 999999999"),
        ):
            self.assertIn(reason, self.refused(line))


class StartTests(SynchronousTestCase):
    """Connecting."""

    def test_nobody_there(self) -> None:
        """One line names the address that could not be reached."""
        run = Run("topics")
        run.session.start_error = NotConnected(
            "broker b:1: no connection within 10 s; still trying"
        )
        run.start()
        self.assertEqual(run.status, 1)
        self.assertEqual(run.said, "metaq: broker b:1: no connection within 10 s\n")

    def test_interrupted_while_connecting(self) -> None:
        """Ctrl-C does not wait for the time limit."""
        for command in ("topics", "produce t", "consume t --group g"):
            run = Run(command)
            run.session.starting = Deferred()
            run.start()
            run.console.stop()
            self.assertEqual((run.status, run.said), (130, "metaq: interrupted\n"))

    def test_wrong_group(self) -> None:
        """An argument that the client refuses is shown with status 2."""
        run = Run("consume t --group a/b")
        run.session.master(0, t=1)
        run.start()
        self.assertEqual((run.status, run.said), (2, "metaq: group a/b\n"))

    def test_faults_are_one_line(self) -> None:
        """An error is one line, whatever its text."""
        run = Run("topics")
        run.session.start_error = NotConnected("two\n  lines")
        self.assertEqual((run.start().status, run.said), (1, "metaq: two lines\n"))


class TableTests(SynchronousTestCase):
    """Plain text in columns."""

    def test_columns(self) -> None:
        """Numbers are aligned right, texts left; a hyphen stands for None; no trailing blanks."""
        rows = [("a", 1, None), ("long", 100, "x")]
        self.assertEqual(
            table(("NAME", "N", "OF"), rows), "NAME    N  OF\na       1  -\nlong  100  x"
        )
