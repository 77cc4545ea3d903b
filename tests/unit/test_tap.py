"""The command line of ``twistd metaq``."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Mapping

from twisted.application.service import IServiceMaker
from twisted.internet import reactor
from twisted.plugin import IPlugin
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from metamorphosis import __version__, native, tap
from metamorphosis.config.roles import FollowerConfig, PairMasterConfig, PairSlaveConfig
from metamorphosis.daemon import process
from metamorphosis.daemon.local import LocalService
from metamorphosis.daemon.service import BrokerService
from tests.support.broker import SYSTEM, ZOOKEEPER, Keys, ini
from tests.unit.store.test_recovery import log
from tests.unit.transactions.test_replay import JOURNALS, append, commit

TOPICS: dict[str, Keys] = {"test": {"numPartitions": 2}}


class OptionsTestCase(SynchronousTestCase):
    """A directory with a good ``server.ini``."""

    def setUp(self) -> None:
        """A directory with a good ``server.ini``."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.server_ini = os.path.join(self.directory, "server.ini")
        self.write_server_ini()
        self.printed = io.StringIO()
        self.patch(sys, "stdout", self.printed)

    def write_server_ini(
        self, system: Keys | None = None, topics: Mapping[str, Keys] = TOPICS
    ) -> None:
        """Keys of ``[system]`` besides the required ones."""
        data = {"dataPath": os.path.join(self.directory, "data"), "serverPort": 18123}
        sections: dict[str, Keys] = {"system": {**SYSTEM, **data, **(system or {})}}
        sections["zookeeper"] = ZOOKEEPER
        sections.update({f"topic={name}": keys for name, keys in topics.items()})
        self.write("server.ini", ini(sections))

    def write(self, name: str, text: str) -> str:
        """A file in the directory; its path."""
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def parse(self, *arguments: str) -> tap.Options:
        """The options of a command line."""
        options = tap.Options()
        options.parseOptions(list(arguments))
        return options

    def refused(self, *arguments: str) -> str:
        """The text with which a command line ends the process."""
        with self.assertRaises(SystemExit) as raised:
            self.parse(*arguments)
        self.assertIsInstance(raised.exception.code, str, "Python prints it and ends with 1")
        return str(raised.exception.code)


class CheckTests(OptionsTestCase):
    """``--check`` tries what a start does."""

    def problems(self, *expected: str) -> None:
        """Each is found, with status 1, and nothing is made."""
        before = sorted(os.listdir(self.directory))
        end = self.assertRaises(SystemExit, self.parse, "-f", self.server_ini, "--check")
        text = str(end.code)
        for each in expected:
            self.assertIn(each, text)
        self.assertIn(f"{len(expected)} problem", text)
        self.assertNotIn("is good", self.printed.getvalue())
        self.assertEqual(before, sorted(os.listdir(self.directory)))

    def test_filters(self) -> None:
        """Of every kind that cannot be loaded, with line and key."""
        self.patch(sys, "dont_write_bytecode", True)
        self.write(
            "checkedfilters.py",
            "class Odd:\n    def __init__(self): raise OSError('no licence')\nclass No: pass\n",
        )
        sys.path.append(self.directory)
        self.addCleanup(sys.path.remove, self.directory)
        self.addCleanup(sys.modules.pop, "checkedfilters", None)
        keys: Keys = {
            "group.a": "no_such_module:Filter",
            "group.b": "checkedfilters:Missing",
            "group.c": "checkedfilters:Odd",
            "group.d": "checkedfilters:No",
            "group.e": "com.example.JavaFilter",
            "group.f": "checkedfilters:",
        }
        self.write_server_ini(topics={"test": keys})
        self.problems(
            "[topic=test] group.a: filter no_such_module:Filter cannot be used (ModuleNotFound",
            "group.b: filter checkedfilters:Missing cannot be used (AttributeError",
            "group.c: filter checkedfilters:Odd cannot be used (OSError: no licence)",
            "group.d: filter checkedfilters:No cannot be used (TypeError",
            "group.e: filter com.example.JavaFilter is not used: appClassPath is not set",
            "group.f: filter checkedfilters: cannot be used",
        )

    def test_directories(self) -> None:
        """Without a parent, a file, of a topic."""
        file = self.write("file", "x")
        missing = os.path.join(self.directory, "a", "b")
        topics: dict[str, Keys] = {"test": {"dataPath": file}, "more": {"dataPath": missing}}
        self.write_server_ini({"dataPath": missing}, topics)
        self.problems(
            f"[system] dataPath: {missing} cannot be made, because {os.path.dirname(missing)} does"
            f" not exist: mkdir -p {os.path.dirname(missing)}",
            f"[topic=test] dataPath: {file} is not a directory",
        )

    def test_values(self) -> None:
        """Values that the original accepts and that are probably mistakes."""
        self.write_server_ini(
            {"numPartitions": -2, "maxTransferSize": 0}, {"my topic": {}, "test": {}}
        )
        with open(self.server_ini, "a", encoding="utf-8") as file:
            file.write("[topic test]\n")
        self.problems(
            "[system] numPartitions: with -2",
            "[system] maxTransferSize: with 0",
            "[topic=my topic]: no client can name this topic",
            "section [topic test] is not used by a broker; do you mean [topic=test]?",
        )

    def test_interface(self) -> None:
        """An address of another machine."""
        self.write("metamorphosis.ini", "[network]\ninterface=192.0.2.1\n")
        self.problems("[network] interface: cannot listen on 192.0.2.1")

    def test_zookeeper(self) -> None:
        """A fault of the file itself, at a start too."""
        with open(self.server_ini, "a", encoding="utf-8") as file:
            file.write("[zookeeper]\nzk.zkConnect=a;b\n")
        end = self.assertRaises(SystemExit, self.parse, "-f", self.server_ini)
        self.assertIn("[zookeeper] zk.zkConnect: 'a;b' is not host:port; a semi", str(end.code))

    def test_good(self) -> None:
        """Nothing is made, and it may run beside the broker."""
        before = sorted(os.listdir(self.directory))
        end = self.assertRaises(SystemExit, self.parse, "-f", self.server_ini, "--check")
        self.assertEqual(0, end.code)
        self.assertIn("is good", self.printed.getvalue())
        self.assertEqual(before, sorted(os.listdir(self.directory)))


class RoleTests(OptionsTestCase):
    """``--slave``, ``--samsa``, ``--gregor`` and ``-F``."""

    def setUp(self) -> None:
        """A property file of each."""
        super().setUp()
        self.files = {
            "metaslave": self.write("async_slave.properties", "slaveId=3\n"),
            "samsa": self.write("samsa_master.properties", "slave=localhost:18124\n"),
            "gregor": self.write("gregor_slave.properties", ""),
        }

    def test_options(self) -> None:
        """Each role, by each option that names it."""
        for name, option, role in (
            ("metaslave", "--slave", FollowerConfig),
            ("samsa", "--samsa", PairMasterConfig),
            ("gregor", "--gregor", PairSlaveConfig),
        ):
            path = self.files[name]
            for arguments in (
                [option, path],
                [f"{option}={path}"],
                ["-F", f"{name}={path}"],
                [f"-F{name}={path}"],
            ):
                found = self.parse("-f", self.server_ini, *arguments).broker_role
                self.assertIsInstance(found, role)
                assert found is not None
                self.assertEqual(path, found.path)
        self.assertIsNone(self.parse("-f", self.server_ini).broker_role)

    def test_unknown_plugin(self) -> None:
        """The error names the three; a name without a file is an error, too."""
        text = self.refused("-f", self.server_ini, "-F", "slave=x")
        self.assertIn("-F slave=x", text)
        self.assertIn("metaslave, samsa, gregor", text)
        for argument in ("gregor", "gregor="):
            text = self.refused("-f", self.server_ini, "-F", argument)
            self.assertIn("-F gregor=FILE", text)

    def test_two_roles(self) -> None:
        """One line names both, as they were given."""
        text = self.refused("-f", self.server_ini, "--slave", "a", "-Fsamsa=b")
        self.assertIn("--slave a and -F samsa=b: a broker has one role", text)
        self.assertNotIn("\n", text)

    def test_slave_with_local(self) -> None:
        """The reason is said."""
        text = self.refused("--local", "--slave", self.files["metaslave"])
        self.assertIn("a slave finds its master in the ZooKeeper that both use", text)

    def test_faults_of_both_files(self) -> None:
        """Are said at once, and nothing starts."""
        self.write_server_ini({"numPartions": 3})
        path = self.write("x.properties", "slaveId=x\nautoSyncMasterConfig=maybe\n")
        text = self.refused("-f", self.server_ini, "--slave", path)
        for fault in ("numPartions", path, "line 1: slaveId", "line 2: autoSyncMasterConfig"):
            self.assertIn(fault, text)

    def test_own_address(self) -> None:
        """The port of ``server.ini`` counts."""
        path = self.write("x.properties", "slave=localhost:18123\n")
        self.assertIn("own address", self.refused("-f", self.server_ini, "--samsa", path))

    def test_check(self) -> None:
        """Says which role it would be, and what is hardly meant."""
        path = self.write("x.properties", "slaveid=1\nslaveId=3\n")
        for arguments, expected in (
            ([], "role       master"),
            (["--slave", path], "role       asynchronous slave 3, reads from its master as group"),
            (["--slave", path], f"warning: {path}: line 1, slaveid: this key is unknown"),
            (["--samsa", self.files["samsa"]], "synchronous master of localhost:18124"),
            (["--gregor", self.files["gregor"]], "ZooKeeper  not used"),
        ):
            self.printed.truncate(0)
            with self.assertRaises(SystemExit) as raised:
                self.parse("--check", "-f", self.server_ini, *arguments)
            self.assertEqual(0, raised.exception.code)
            self.assertIn(expected, self.printed.getvalue())

    def test_check_of_an_unfinished_journal(self) -> None:
        """A problem for every role, and for no plain broker; nothing is changed."""
        journal = os.path.join(self.directory, "data", "transactions")
        os.makedirs(journal)
        for content, text in (
            ((JOURNALS / "xa-prepared").read_bytes(), "1 transaction prepared"),
            (append("TX:s:1") + commit("TX:s:1"), "1 transaction committed and not completely"),
        ):
            redo = self.write(os.path.join(journal, "redo.1"), "")
            with open(redo, "wb") as file:
                file.write(content)
            self.write(os.path.join(journal, "heuristic.log"), "garbage")
            text = f"the transaction journal in {journal} holds {text}"
            for name, path in self.files.items():
                refused = self.refused("--check", "-f", self.server_ini, "-F", f"{name}={path}")
                self.assertIn(text, refused)
            end = self.assertRaises(SystemExit, self.parse, "--check", "-f", self.server_ini)
            self.assertEqual(0, end.code)
            self.assertEqual(["heuristic.log", "redo.1"], sorted(os.listdir(journal)))

    def test_service(self) -> None:
        """The broker gets the role."""
        options = self.parse("-f", self.server_ini, "--gregor", self.files["gregor"])
        service = tap.makeService(options)
        assert isinstance(service, BrokerService)
        self.assertEqual("synchronous slave", service.role.name)


class TerminalTests(OptionsTestCase):
    """A terminal that shows ASCII only."""

    def test_names(self) -> None:
        """``--check`` escapes what cannot be shown."""
        raw = io.BytesIO()
        self.patch(sys, "stdout", io.TextIOWrapper(raw, "ascii", "strict", write_through=True))
        self.write_server_ini(topics={"\u8ba2\u5355": {}})
        end = self.assertRaises(SystemExit, self.parse, "-f", self.server_ini, "--check")
        self.assertEqual(0, end.code)
        self.assertIn(b"topics     \\u8ba2\\u5355", raw.getvalue())


class OptionsTests(OptionsTestCase):
    """Options, and the two files they name."""

    def test_config_is_read(self) -> None:
        """-f gives the configuration, and the settings have their defaults."""
        options = self.parse("-f", self.server_ini)
        self.assertEqual(options.broker_config.server_port, 18123)
        self.assertEqual(options.broker_config.topic("test").num_partitions, 2)
        self.assertIsNone(options.broker_settings.path)

    def test_path_without_directory(self) -> None:
        """The original dies of a null pointer at ``-f server.ini``."""
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.directory)
        options = self.parse("--config", "server.ini")
        self.assertEqual(options.broker_config.path, self.server_ini)

    def test_without_config(self) -> None:
        """One line says what is missing, and shows a command that is right."""
        text = self.refused()
        self.assertIn("Please tell me the configuration file path by -f option", text)
        self.assertIn("twistd -n metaq -f server.ini", text)
        self.assertNotIn("\n", text)

    def test_missing_file(self) -> None:
        """The path of a missing file is named."""
        self.assertIn("/nowhere/server.ini", self.refused("-f", "/nowhere/server.ini"))

    def test_every_fault_at_once(self) -> None:
        """All faults of both files are reported by one run, each with its line or key."""
        self.write_server_ini({"brokerId": 4096, "numPartions": 3, "serverPort": "eight"})
        self.write("metamorphosis.ini", "[store]\nflush-delay-ms=-1\n[netwrok]\nidle-seconds=3\n")
        text = self.refused("-f", self.server_ini)
        for fault in ("brokerId", "numPartions", "serverPort", "flush-delay-ms", "netwrok"):
            self.assertIn(fault, text)
        self.assertIn("line 2", text)
        self.assertIn(self.server_ini, text)
        self.assertIn("metamorphosis.ini", text)

    def test_settings_beside_server_ini(self) -> None:
        """``metamorphosis.ini`` in the same directory counts without being named."""
        path = self.write("metamorphosis.ini", "[network]\nidle-seconds=17\n")
        options = self.parse("-f", self.server_ini)
        self.assertEqual(options.broker_settings.idle_seconds, 17)
        self.assertEqual(options.broker_settings.path, path)

    def test_settings_named(self) -> None:
        """--settings takes the place of the file beside ``server.ini``."""
        self.write("metamorphosis.ini", "[network]\nidle-seconds=17\n")
        other = self.write("other.ini", "[network]\nidle-seconds=18\n")
        options = self.parse("-f", self.server_ini, "--settings", other)
        self.assertEqual(options.broker_settings.idle_seconds, 18)

    def test_named_settings_must_exist(self) -> None:
        """A settings file that was asked for and is missing is a fault."""
        text = self.refused("-f", self.server_ini, "--settings", "/nowhere/own.ini")
        self.assertIn("/nowhere/own.ini", text)

    def test_check_of_good_files(self) -> None:
        """--check says what the broker would be, and ends with status 0."""
        with self.assertRaises(SystemExit) as raised:
            self.parse("--check", "-f", self.server_ini)
        self.assertEqual(raised.exception.code, 0)
        for text in ("server.ini is good", "port 18123", "topics     test", "not used"):
            self.assertIn(text, self.printed.getvalue())

    def test_check_of_faulty_files(self) -> None:
        """--check reports faults as a start would."""
        self.write_server_ini(topics={})
        self.assertIn("Empty topics list", self.refused("--check", "-f", self.server_ini))

    def test_check_starts_nothing(self) -> None:
        """--check leaves no data directory behind."""
        with self.assertRaises(SystemExit):
            self.parse("--check", "-f", self.server_ini)
        self.assertEqual(os.listdir(self.directory), ["server.ini"])

    def test_check_finds_damage(self) -> None:
        """--check warns of a damaged last segment, which a start continues with, and changes
        nothing; a torn tail may be a broker that writes."""
        records = log(b"hello", b"damaged", b"good")
        data = b"".join(records)
        directory = os.path.join(self.directory, "data", "test-0")
        os.makedirs(directory)
        path = os.path.join(directory, "00000000000000000000.meta")
        for content, found in (
            (data.replace(b"dam", b"d m") + b"torn", True),
            (data + b"torn", False),
        ):
            with open(path, "wb") as file:
                file.write(content)
            self.printed.truncate(0)
            with self.assertRaises(SystemExit) as raised:
                self.parse("--check", "-f", self.server_ini)
            self.assertEqual(raised.exception.code, 0)
            text = f"warning: {path} is damaged from position 25 on: 27 bytes"
            self.assertEqual(text in self.printed.getvalue(), found)
            with open(path, "rb") as file:
                self.assertEqual(file.read(), content)
        self.assertEqual(os.listdir(os.path.dirname(directory)), ["test-0"])

    def test_check_of_a_directory_that_cannot_be_opened(self) -> None:
        """--check ends with the error that a start would end with."""
        os.makedirs(os.path.join(self.directory, "data", "test-0"))
        self.write("data/test-0/first.meta", "")
        self.assertIn("first.meta", self.refused("--check", "-f", self.server_ini))

    def test_version(self) -> None:
        """--version names our version and the path that runs, and ends with status 0."""
        with self.assertRaises(SystemExit) as raised:
            self.parse("--version")
        self.assertEqual(raised.exception.code, 0)
        self.assertIn(f"metamorphosis {__version__}, Twisted", self.printed.getvalue())
        self.assertTrue(self.printed.getvalue().endswith(f"; {native.way}\n"))

    def test_unknown_option(self) -> None:
        """An option of the original that we do not have is named."""
        error = self.assertRaises(UsageError, self.parse, "--embedZk")
        self.assertIn("--embedZk", str(error))

    def test_help(self) -> None:
        """The help names the options, the signals and the exit statuses, within 100 columns."""
        text = str(tap.Options())
        for word in ("--config=", "--settings=", "--check", "SIGHUP", "Exit status"):
            self.assertIn(word, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 100)

    def test_make_service(self) -> None:
        """
        The service gets both configurations, its reactor monotonic timers; SIGHUP is taken over at
        once.
        """
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        options = self.parse("-f", self.server_ini)
        clocks: list[object] = []
        self.patch(process, "use_monotonic_timers", clocks.append)  # not trial's reactor
        service = tap.makeService(options)
        self.assertEqual([reactor], clocks)
        self.assertIsInstance(service, BrokerService)
        self.assertIs(service.config, options.broker_config)
        self.assertIs(service.settings, options.broker_settings)
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)


class LocalOptionsTests(OptionsTestCase):
    """``--local`` and what goes with it."""

    def setUp(self) -> None:
        """A directory for ``--data`` beside that of ``-f``."""
        super().setUp()
        self.data = os.path.join(self.directory, "metaq-data")

    def write_server_ini(
        self, system: Keys | None = None, topics: Mapping[str, Keys] = TOPICS
    ) -> None:
        """With a loopback address for ZooKeeper."""
        super().write_server_ini(system, topics)
        with open(self.server_ini, encoding="utf-8") as file:
            text = file.read()
        connect = f"zk.zkConnect={ZOOKEEPER['zk.zkConnect']}"
        self.write("server.ini", text.replace(connect, "zk.zkConnect=localhost:12181"))

    def test_with_config(self) -> None:
        """The service is where zk.zkConnect says, its data beside dataPath."""
        options = self.parse("-l", "-f", self.server_ini)
        zookeeper = options.zookeeper
        assert zookeeper is not None
        self.assertEqual((zookeeper.interface, zookeeper.port), ("127.0.0.1", 12181))
        self.assertEqual(zookeeper.directory, os.path.join(self.directory, "zookeeper"))
        self.assertFalse(zookeeper.accept_loss)
        self.assertIsNone(self.parse("-f", self.server_ini).zookeeper, "without --local")
        options = self.parse("--local", "-f", self.server_ini, "--accept-loss")
        assert options.zookeeper is not None
        self.assertTrue(options.zookeeper.accept_loss)

    def test_without_config(self) -> None:
        """A configuration is written under --data, with the ports that were given."""
        ports = ("--port", "9123", "--zookeeper-port", "9181")
        options = self.parse("--local", "--data", self.data, *ports)
        self.assertEqual(options.broker_config.path, os.path.join(self.data, "server.ini"))
        self.assertEqual(options.broker_config.server_port, 9123)
        assert options.zookeeper is not None
        self.assertEqual(options.zookeeper.port, 9181)
        again = self.parse("--local", "--data", self.data)
        self.assertEqual(again.broker_config, options.broker_config)
        self.parse("--local", "--data", self.data, *ports)

    def test_default_directory(self) -> None:
        """``metaq-data`` where the command was given."""
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.directory)
        options = self.parse("--local")
        self.assertEqual(options.broker_config.path, os.path.join(self.data, "server.ini"))
        self.assertEqual(options.broker_config.server_port, 8123)

    def test_other_ports_than_before(self) -> None:
        """A port that the kept configuration does not have is refused, not ignored."""
        self.parse("--local", "--data", self.data)
        for option, key in (("--port", "serverPort"), ("--zookeeper-port", "zk.zkConnect")):
            text = self.refused("--local", "--data", self.data, option, "9999")
            for word in (f"{option} 9999", key, os.path.join(self.data, "server.ini")):
                self.assertIn(word, text)

    def test_options_without_effect(self) -> None:
        """They are refused with the reason."""
        for name in ("--data", "--port", "--zookeeper-port"):
            self.assertIn("--local", self.refused("-f", self.server_ini, name, "1"))
        self.assertIn("--local", self.refused("-f", self.server_ini, "--accept-loss"))
        text = self.refused("--local", "-f", self.server_ini, "--data", "x")
        self.assertIn("dataPath", text)

    def test_wrong_port(self) -> None:
        """What would be right is said."""
        for name in ("--port", "--zookeeper-port"):
            text = self.refused("--local", "--data", self.data, name, "0")
            self.assertIn(f"{name} 0: a number from 1 to 65535", text)
        self.assertFalse(os.path.exists(self.data))

    def test_unusable_directory(self) -> None:
        """A directory that cannot be made is named."""
        self.assertIn("/proc/no/such", self.refused("--local", "--data", "/proc/no/such"))

    def test_not_loopback(self) -> None:
        """A zk.zkConnect elsewhere is refused."""
        with open(self.server_ini, encoding="utf-8") as file:
            text = file.read()
        self.write("server.ini", text.replace("localhost:12181", "10.0.0.1:2181"))
        self.assertIn("zk.zkConnect=10.0.0.1:2181", self.refused("-l", "-f", self.server_ini))

    def test_check_before_the_first_start(self) -> None:
        """--check writes nothing."""
        with self.assertRaises(SystemExit) as raised:
            self.parse("--check", "--local", "--data", self.data)
        self.assertEqual(raised.exception.code, 0)
        self.assertIn("the first start writes it", self.printed.getvalue())
        self.assertFalse(os.path.exists(self.data))

    def test_check_says_where(self) -> None:
        """--check also says where the service would keep its data."""
        with self.assertRaises(SystemExit):
            self.parse("--check", "--local", "-f", self.server_ini)
        self.assertIn(os.path.join(self.directory, "zookeeper"), self.printed.getvalue())

    def test_make_both(self) -> None:
        """One service with a broker and a coordination service in it."""
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        options = self.parse("--local", "-f", self.server_ini)
        clocks: list[object] = []
        self.patch(process, "use_monotonic_timers", clocks.append)  # not trial's reactor
        service = tap.makeService(options)
        self.assertEqual([reactor], clocks)
        self.assertIsInstance(service, LocalService)
        self.assertIs(service.broker.config, options.broker_config)
        self.assertIs(service.zookeeper.settings, options.zookeeper)


class PluginTests(SynchronousTestCase):
    """The file by which ``twistd`` finds us."""

    def test_plugin(self) -> None:
        """It is a plugin and a service maker by the name ``metaq`` with our options."""
        from twisted.plugins.metaq import metaq

        verifyObject(IPlugin, metaq)
        verifyObject(IServiceMaker, metaq)
        self.assertEqual(metaq.tapname, "metaq")
        self.assertIs(metaq.options, tap.Options)
        self.assertIs(metaq.makeService, tap.makeService)
