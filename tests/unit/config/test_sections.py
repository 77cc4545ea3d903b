"""Reading sections by tables of keys."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.ini import parse
from metamorphosis.config.keys import Key, nearest
from metamorphosis.config.sections import SectionReader


class SectionReaderTests(SynchronousTestCase):
    """What a table does not say."""

    def test_equal_text_is_evaluated_once(self) -> None:
        """Thousands of topics with the same schedule cost one evaluation; faults are not kept."""
        seen = []

        def read(text: str) -> str:
            seen.append(text)
            if text == "bad":
                raise ValueError("no")
            return text.upper()

        file = parse(b"[a]\nk=x\n[b]\nk=x\n[c]\nk=bad\n[d]\nk=bad\n")
        reader = SectionReader()
        key = Key("k", "k", read)
        values = [reader.values(section, [key]) for section in file.sections.values()]
        self.assertEqual(values, [{"k": "X"}, {"k": "X"}, {}, {}])
        self.assertEqual(seen, ["x", "bad", "bad"])
        self.assertEqual([fault.line for fault in reader.faults], [6, 8])


class NearestTests(SynchronousTestCase):
    """The name that was meant."""

    def test_nearest(self) -> None:
        """The fewest insertions, deletions and replacements win, then the order of the names."""
        names = ("dataPath", "dataLogPath", "stat", "path")
        for wrong, right in {
            "dataPaths": "dataPath",
            "datalogpath": "dataLogPath",
            "state": "stat",
            "": "stat",
            "pth": "path",
        }.items():
            self.assertEqual(nearest(wrong, names), right, wrong)
        self.assertEqual(nearest("b", ("a", "c")), "a")
        self.assertEqual(nearest("kitten", ("sittingx", "sittin", "kit")), "sittin")
        self.assertEqual(nearest("ab", ("abcd", "ba", "xab")), "xab")
