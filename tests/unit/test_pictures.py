"""The pictures of the documents are those that ``tools/pictures.py`` draws."""

from __future__ import annotations

from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from tools import pictures


class PictureTests(SynchronousTestCase):
    """Up to date, and well formed."""

    def test_up_to_date(self) -> None:
        """The bars have the figures of the table."""
        for name, content in pictures.pictures().items():
            self.assertEqual((pictures.PICTURES / name).read_text("utf-8"), content, name)
            ElementTree.fromstring(content)

    def test_bars(self) -> None:
        """Each cell has its bar; a table without cells is not a picture."""
        line = "put 1/1/100            7911     8008   1.01   0.89-1.24"
        drawn = pictures.bars(f"cell\n{line}\n")
        self.assertIn(">put 1/1/100<", drawn)
        self.assertIn(">1.01<", drawn)
        self.assertRaises(ValueError, pictures.bars, "nothing")
