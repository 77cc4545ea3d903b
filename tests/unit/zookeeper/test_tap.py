"""The command line of ``twistd metaq-zookeeper``."""

from __future__ import annotations

import io
import sys

from twisted.application.service import IServiceMaker
from twisted.internet import reactor
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from metamorphosis.daemon import process
from metamorphosis.zookeeper import tap
from metamorphosis.zookeeper.service import ZooKeeperService, ZooKeeperSettings


class OptionsTests(SynchronousTestCase):
    """Options, and what is wrong with them."""

    def parse(self, *arguments: str) -> ZooKeeperSettings:
        """What a command line says."""
        options = tap.Options()
        options.parseOptions(list(arguments))
        return options.settings

    def test_defaults(self) -> None:
        """ZooKeeper's port and ticks, the loopback interface."""
        expected = ZooKeeperSettings("dir", 2181, "127.0.0.1", 1000, 2000)
        self.assertEqual(self.parse("--data", "dir"), expected)

    def test_everything(self) -> None:
        """Every option counts."""
        options = ["--port", "1", "--interface", "::", "--max-connections", "2", "--tick", "3"]
        self.assertEqual(
            self.parse("--data", "dir", *options), ZooKeeperSettings("dir", 1, "::", 2, 3)
        )
        self.assertTrue(self.parse("--data", "dir", "--accept-loss").accept_loss)

    def test_bounds(self) -> None:
        """The least and the greatest port, and one of each of the rest."""
        for port in (0, 65535):
            self.assertEqual(self.parse("--data", "dir", "--port", str(port)).port, port)
        settings = self.parse("--data", "dir", "--max-connections", "1", "--tick", "1")
        self.assertEqual((settings.max_connections, settings.tick), (1, 1))

    def test_wrong_values(self) -> None:
        """One line that names the option and says what would be right; Python prints it."""
        for arguments, texts in (
            ((), ("--data ./zookeeper-data",)),
            (("--port", "x"), ("--port x:", "from 0 to 65535")),
            (("--port", "65536"), ("--port 65536:",)),
            (("--max-connections", "0"), ("--max-connections 0:", "from 1")),
            (("--tick", "-1"), ("--tick -1:",)),
            (("--interface", "localhost"), ("--interface localhost:", "127.0.0.1")),
        ):
            data = ("--data", "dir") if arguments else ()
            with self.assertRaises(SystemExit) as raised:
                self.parse(*data, *arguments)
            self.assertIsInstance(raised.exception.code, str)
            for text in texts:
                self.assertIn(text, str(raised.exception.code))

    def test_least_settings(self) -> None:
        """A service made without options has those of the command line."""
        self.assertEqual(self.parse("--data", "dir"), ZooKeeperSettings("dir"))

    def test_terminal_that_cannot_show_a_path(self) -> None:
        """What it does not know is escaped from then on."""
        output = io.BytesIO()
        self.patch(sys, "stdout", io.TextIOWrapper(output, "ascii"))
        self.parse("--data", "dir")
        print("\u8ba2", flush=True)
        self.assertEqual(output.getvalue(), b"\\u8ba2\n")

    def test_help(self) -> None:
        """It names the options, within 100 columns."""
        text = str(tap.Options())
        for word in ("--data=", "--port=", "--interface=", "--max-connections=", "SIGTERM"):
            self.assertIn(word, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 100)

    def test_plugin(self) -> None:
        """``twistd`` finds it by its name."""
        from twisted.plugins.metaq_zookeeper import metaq_zookeeper

        verifyObject(IPlugin, metaq_zookeeper)
        verifyObject(IServiceMaker, metaq_zookeeper)
        self.assertEqual(metaq_zookeeper.tapname, "metaq-zookeeper")
        self.assertIs(metaq_zookeeper.options, tap.Options)
        self.assertIs(metaq_zookeeper.makeService, tap.makeService)

    def test_make_service(self) -> None:
        """The service gets the settings, its reactor monotonic timers."""
        import signal

        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        options = tap.Options()
        options.parseOptions(["--data", "dir"])
        clocks: list[object] = []
        self.patch(process, "use_monotonic_timers", clocks.append)  # not trial's reactor
        service = tap.makeService(options)
        self.assertEqual([reactor], clocks)
        self.assertIsInstance(service, ZooKeeperService)
        self.assertIs(service.settings, options.settings)
        self.assertTrue(callable(signal.getsignal(signal.SIGHUP)), "it would end the process")
