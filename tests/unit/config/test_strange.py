"""Characters that look like others: one fault each."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config import ini

LINES = ["[system]", *(f"key{number}=1" for number in range(29))]


class StrangeTests(SynchronousTestCase):
    """Files from an input method."""

    def faults(self, text: str) -> list[str]:
        """What is wrong with them."""
        return [str(fault) for fault in ini.parse(text.encode()).faults]

    def test_indented(self) -> None:
        """Thirty lines, one fault, with the character's name; the lines are read nevertheless."""
        text = "\n".join(f"\u3000\u3000{line}" for line in LINES)
        (fault,) = self.faults(text)
        self.assertIn("line 1: parse error (at line: 1): U+3000 IDEOGRAPHIC SPACE", fault)
        self.assertIn("on 30 lines (1, 2, 3, 4, 5 and 25 more)", fault)
        self.assertIn("a blank or a tab is right", fault)
        section = ini.parse(text.encode()).sections["system"]
        self.assertEqual(29, len(section.options))

    def test_kinds(self) -> None:
        """White space, nothing at all, wide signs; before and after the key, around headers."""
        for text, name in (
            ("[a]\n\u00a0x=1", "U+00A0 NO-BREAK SPACE"),
            ("[a]\nx\u3000=1", "U+3000 IDEOGRAPHIC SPACE"),
            ("[a]\n\u200bx=1", "U+200B ZERO WIDTH SPACE"),
            ("[a]\nx\uff1d1", "U+FF1D FULLWIDTH EQUALS SIGN stands on this line"),
            ("[a]\nx\uff1a1", "U+FF1A FULLWIDTH COLON"),
            ("\uff3ba\uff3d\nx=1", "U+FF3B FULLWIDTH LEFT SQUARE BRACKET"),
            ("[a\uff3d\nx=1", "U+FF3D FULLWIDTH RIGHT SQUARE BRACKET"),
            ("[a]\n\uff03 words\nx=1", "U+FF03 FULLWIDTH NUMBER SIGN"),
            ("[a]\n\u3000# words\nx=1", "U+3000 IDEOGRAPHIC SPACE"),
        ):
            faults = self.faults(text)
            self.assertIn(name, faults[0], text)
            sections = ini.parse(text.encode()).sections
            self.assertEqual({"x": "1"}, {k: o.value for k, o in sections["a"].options.items()})

    def test_values_are_left_alone(self) -> None:
        """They are the user's, as with the original."""
        for value in ("\u8ba2\u5355", "a\u3000b", "\uff1d", "\u3000"):
            file = ini.parse(f"[a]\nx={value}\n".encode())
            self.assertEqual(([], value), (file.faults, file.sections["a"].options["x"].value))
