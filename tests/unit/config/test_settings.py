"""Our own settings file."""

from __future__ import annotations

import dataclasses
import os

from metamorphosis.config import settings
from metamorphosis.config.faults import ConfigFaults
from metamorphosis.config.model import OnDivergence, Settings
from tests.support.inifiles import IniTestCase


class SettingsTests(IniTestCase):
    """Loading."""

    def setUp(self) -> None:
        """The file lies beside server.ini."""
        super().setUp()
        self.own = os.path.join(self.directory, "metamorphosis.ini")

    def settings(self, text: str) -> Settings:
        """What a file of this content gives."""
        return settings.load(self.write(text, self.own))

    def test_every_key(self) -> None:
        """Each key reaches its attribute, and each attribute has a key."""
        for section, keys in settings.SECTIONS.items():
            for key in keys:
                default = getattr(Settings(), key.attribute)
                values = {bool: ("true", True), int: ("32*64", 2048), str: ("x", "x")}
                values[OnDivergence] = ("copy-again", OnDivergence.COPY_AGAIN)
                text, value = values[type(default)]
                if key.name == "sync-threads":
                    text, value = "3", 3
                if key.name == "busy-poll-us":
                    text, value = "2*50", 100
                loaded = self.settings(f"[{section}]\n{key.name}={text}\n")
                expected = dataclasses.replace(Settings(path=self.own), **{key.attribute: value})
                self.assertEqual(loaded, expected)
        attributes = {key.attribute for keys in settings.SECTIONS.values() for key in keys}
        self.assertEqual(
            {field.name for field in dataclasses.fields(Settings)},
            attributes | {"closed_partitions", "path", "warnings"},
        )

    def test_limits(self) -> None:
        """The smallest and largest values are taken, the ones beyond refused with the limits."""
        for section, keys in settings.SECTIONS.items():
            for key in keys:
                for limit, step in ((key.low, -1), (key.high, 1)):
                    if limit is not None:
                        loaded = self.settings(f"[{section}]\n{key.name}={limit}\n")
                        self.assertEqual(getattr(loaded, key.attribute), limit)
                        text = f"[{section}]\n{key.name}={limit + step}\n"
                        error = self.assertRaises(ConfigFaults, self.settings, text)
                        self.assertIn(f"needed, found {limit + step}", str(error))
        limits = {
            key.name: (key.low, key.high) for keys in settings.SECTIONS.values() for key in keys
        }
        self.assertEqual(limits["flush-delay-ms"], (0, None))
        self.assertEqual(limits["sync-threads"], (1, 64))
        self.assertEqual(limits["max-line-bytes"], (1024, None))
        self.assertEqual(limits["idle-seconds"], (1, None))

    def test_words(self) -> None:
        """Those of a key that takes a word stand in its fault."""
        error = self.assertRaises(
            ConfigFaults, self.settings, "[replication]\non-divergence=copy again\n"
        )
        self.assertIn("stop or copy-again is needed, found copy again", str(error))

    def test_names_of_congestion_controls(self) -> None:
        """What cannot be one is refused; whether the kernel has it is seen when it is set."""
        for text in ("auto", "system", "bbr2", "new_reno"):
            loaded = self.settings(f"[network]\ncongestion-control={text}\n")
            self.assertEqual(loaded.congestion_control, text)
        for text in ("new reno", "Cubic", "a-name", "sixteen_letters_"):
            error = self.assertRaises(
                ConfigFaults, self.settings, f"[network]\ncongestion-control={text}\n"
            )
            self.assertIn(f"such as cubic is needed, found {text}", str(error))

    def test_closed_partitions(self) -> None:
        """Partitions and ranges by topic."""
        loaded = self.settings("[closed-partitions]\nt=0-3, 7\nu = 5\nempty=\n")
        self.assertEqual(dict(loaded.closed_partitions), {"t": ((0, 3), (7, 7)), "u": ((5, 5),)})

    def test_all_faults(self) -> None:
        """Every fault is reported at once."""
        error = self.assertRaises(
            ConfigFaults,
            self.settings,
            "[store]\nflush-delay=1\nsync-threads=0\nfast-boot=yes\n[netwrk]\nx=1\n[network]\n"
            "max-line-bytes=10\nidle-seconds=1.5\nfoo\n[closed-partitions]\nt=3-1\nu=a\n",
        )
        self.assertEqual(
            [(fault.line, fault.section, fault.key) for fault in error.faults],
            [
                (2, "store", "flush-delay"),
                (3, "store", "sync-threads"),
                (4, "store", "fast-boot"),
                (5, "netwrk", ""),
                (8, "network", "max-line-bytes"),
                (9, "network", "idle-seconds"),
                (10, "", ""),
                (12, "closed-partitions", "t"),
                (13, "closed-partitions", "u"),
            ],
        )
        texts = [fault.text for fault in error.faults]
        self.assertIn("do you mean 'flush-delay-ms'?", texts[0])
        self.assertIn("do you mean [network]?", texts[3])
        self.assertIn("1024 or more is needed, found 10", texts[4])
        self.assertIn("0-3,7", texts[7])

    def test_not_too_large(self) -> None:
        """Sizes may exceed 32 bits, other than in server.ini."""
        loaded = self.settings("[network]\nmax-total-bytes=8*1024*1024*1024\n")
        self.assertEqual(loaded.max_total_bytes, 8 << 30)

    def test_repeated_key(self) -> None:
        """A key that stands twice is pointed at."""
        loaded = self.settings("[store]\nsync-threads=1\nsync-threads=2\n")
        self.assertEqual((loaded.sync_threads, len(loaded.warnings)), (2, 1))


class LocationTests(IniTestCase):
    """Which file it is."""

    def test_beside_server_ini(self) -> None:
        """The file beside server.ini is taken if it exists."""
        self.assertEqual(settings.load_for(self.path), Settings())
        own = self.write(
            "[store]\nfast-boot=true\n", os.path.join(self.directory, "metamorphosis.ini")
        )
        loaded = settings.load_for(self.path)
        self.assertEqual((loaded.fast_boot, loaded.path), (True, own))

    def test_given(self) -> None:
        """A given file is taken instead, and must exist."""
        own = self.write("[store]\nsync-threads=2\n", os.path.join(self.directory, "x.ini"))
        self.assertEqual(settings.load_for(self.path, own).sync_threads, 2)
        error = self.assertRaises(ConfigFaults, settings.load_for, self.path, own + "x")
        self.assertIn(f"File {own}x is not exists", str(error))

    def test_unreadable(self) -> None:
        """A directory is refused with the system's reason."""
        error = self.assertRaises(ConfigFaults, settings.load, self.directory)
        self.assertIn("Is a directory", str(error))
