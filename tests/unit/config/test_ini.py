"""The syntax of the files; expected values were seen with ini4j 0.5.1."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.ini import is_blank, parse


def values(text: str | bytes) -> dict[str, dict[str, str]]:
    """Keys and values by section of a file without faults."""
    file = parse(text.encode() if isinstance(text, str) else text)
    assert not file.faults, file.faults
    return {
        name: {key: option.value for key, option in section.options.items()}
        for name, section in file.sections.items()
    }


def faults(text: str | bytes) -> list[tuple[int | None, str]]:
    """Line and text of each fault."""
    file = parse(text.encode() if isinstance(text, str) else text)
    return [(fault.line, fault.text) for fault in file.faults]


class LinesTests(SynchronousTestCase):
    """What a line is."""

    def test_blank_lines_and_comments(self) -> None:
        """Empty lines and lines that begin with ; or # are nothing."""
        self.assertEqual(values("\n;c\n#c\n  ; c\n[a]\n\n x = 1 \n"), {"a": {"x": "1"}})

    def test_no_inline_comment(self) -> None:
        """A ; after a value belongs to it."""
        self.assertEqual(values("[a]\nx=1 ; x"), {"a": {"x": "1 ; x"}})

    def test_line_ends(self) -> None:
        """All three kinds of line ends count."""
        self.assertEqual(values("[a]\rx=1\r\ny=2\nz=3"), {"a": {"x": "1", "y": "2", "z": "3"}})

    def test_control_characters_are_trimmed(self) -> None:
        """Trimming takes everything up to the blank, and nothing above it."""
        self.assertEqual(values("[a]\n\x01x\x02=\t\u3000\x00"), {"a": {"x": "\u3000"}})
        self.assertEqual(values("[a]\nx=!y!"), {"a": {"x": "!y!"}})

    def test_malformed_bytes_are_replaced(self) -> None:
        """Bytes that are not UTF-8 become replacement characters."""
        self.assertEqual(values(b"[a]\nx=\xff1"), {"a": {"x": "\ufffd1"}})

    def test_empty_file(self) -> None:
        """A file without content has no sections and no faults."""
        self.assertEqual(values(""), {})


class ContinuationTests(SynchronousTestCase):
    """Lines that end in a backslash."""

    def test_joined_with_the_next_line(self) -> None:
        """The backslash goes, the next line is trimmed and joined."""
        self.assertEqual(values("[a]\np=/data/\\\n   q=1"), {"a": {"p": "/data/q=1"}})

    def test_even_number_of_backslashes(self) -> None:
        """Two backslashes are an escaped one, three continue."""
        text = "[a]\nx=1\\\\\ny=2\\\\\\\n3"
        self.assertEqual(values(text), {"a": {"x": "1\\", "y": "2\\3"}})

    def test_blank_lines_do_not_end_it(self) -> None:
        """A blank line between is skipped."""
        self.assertEqual(values("[a]\nx=1\\\n\n  \n2"), {"a": {"x": "12"}})

    def test_no_comment_within(self) -> None:
        """What looks like a comment belongs to the continued line."""
        self.assertEqual(values("[a]\nx=1\\\n;c"), {"a": {"x": "1;c"}})

    def test_comment_is_not_continued(self) -> None:
        """A backslash at the end of a comment means nothing."""
        self.assertEqual(values("[a]\n;c\\\nx=1"), {"a": {"x": "1"}})

    def test_pending_at_the_end_of_the_file(self) -> None:
        """A line that waits for its continuation at the end is lost."""
        self.assertEqual(values("[a]\nx=1\ny=2\\\n"), {"a": {"x": "1"}})

    def test_blank_behind_the_backslash(self) -> None:
        """Trimming comes first, so this line continues, too."""
        self.assertEqual(values("[a]\nx=1\\ \n2"), {"a": {"x": "12"}})


class OptionTests(SynchronousTestCase):
    """Keys and values."""

    def test_first_operator_splits(self) -> None:
        """The first = or : is the operator."""
        self.assertEqual(values("[a]\nf=x=y:z\nb: 2"), {"a": {"f": "x=y:z", "b": "2"}})

    def test_escapes(self) -> None:
        """The named escapes, and any other character for itself."""
        text = "[a]\nx=|\\t|\\n|\\f|\\b|\\r|\\\\|\\q|\\;"
        self.assertEqual(values(text), {"a": {"x": "|\t|\n|\f|\b|\r|\\|q|;"}})

    def test_windows_path(self) -> None:
        """The classic mistake has the classic outcome."""
        self.assertEqual(values("[a]\np=C:\\data\\new"), {"a": {"p": "C:data\new"}})

    def test_unicode_escapes(self) -> None:
        """Four digits make a character, two surrogates make one."""
        self.assertEqual(values("[a]\nx=\\u0041\\uD83D\\uDE00"), {"a": {"x": "A\U0001f600"}})

    def test_lone_surrogate(self) -> None:
        """Half a character is replaced, so that the value can be written anywhere."""
        self.assertEqual(values("[a]\nx=\\uD83D"), {"a": {"x": "\ufffd"}})

    def test_empty_value(self) -> None:
        """A value may be empty."""
        self.assertEqual(values("[a]\nx="), {"a": {"x": ""}})

    def test_quotes_are_ordinary(self) -> None:
        """Quotes stay in the value."""
        self.assertEqual(values('[a]\nx="1"'), {"a": {"x": '"1"'}})

    def test_last_value_counts(self) -> None:
        """A repeated key takes its last value and line, and there is a warning."""
        file = parse(b"[a]\nx=1\n[b]\n[a]\nx=2\n")
        self.assertEqual(file.sections["a"].options["x"].value, "2")
        self.assertEqual(file.sections["a"].options["x"].line, 5)
        self.assertEqual(
            file.warnings, ["[a] x stands on line 2 and on line 5; the last one counts"]
        )

    def test_names_are_case_sensitive(self) -> None:
        """Upper and lower case make different names."""
        self.assertEqual(values("[a]\nx=1\nX=2\n[A]"), {"a": {"x": "1", "X": "2"}, "A": {}})


class SectionTests(SynchronousTestCase):
    """Headers."""

    def test_name_is_trimmed_and_unescaped(self) -> None:
        """Blanks around the name go, escapes in it count."""
        self.assertEqual(list(values("[ a b ]\n[c\\td]\n[e]f]")), ["a b", "c\td", "e]f"])

    def test_same_name_again(self) -> None:
        """Sections of one name are merged."""
        self.assertEqual(
            values("[a]\nx=1\n[b]\ny=2\n[a]\nz=3"), {"a": {"x": "1", "z": "3"}, "b": {"y": "2"}}
        )

    def test_slash_makes_parents(self) -> None:
        """Every missing parent comes into being before its child."""
        names = list(values("[a/b/c]\n[/d]\n[e/]"))
        self.assertEqual(names, ["a", "a/b", "a/b/c", "/d", "e", "e/"])

    def test_lines_of_sections_and_options(self) -> None:
        """Line numbers are those of the file; a continued option has that of its last line."""
        section = parse(b"\n;\n[a]\n\nx=1\\\n2\n").sections["a"]
        self.assertEqual((section.line, section.options["x"].line), (3, 6))


class FaultTests(SynchronousTestCase):
    """What is not syntax."""

    def test_bare_word(self) -> None:
        """A line without an operator is refused with its number and text."""
        [(line, text)] = faults("[a]\nfoo\n")
        self.assertEqual(line, 2)
        self.assertTrue(text.startswith("parse error (at line: 2): foo ("), text)

    def test_missing_key(self) -> None:
        """A line that begins with the operator is refused, also when blanks are escaped."""
        self.assertEqual([line for line, _ in faults("[a]\n=5\n:6\n\\ =7")], [2, 3, 4])

    def test_option_before_any_section(self) -> None:
        """An option at the top is refused."""
        [(line, text)] = faults("x=1\n[a]\n")
        self.assertEqual(line, 1)
        self.assertIn("[section]", text)

    def test_bad_headers(self) -> None:
        """Headers without a name or without an end are refused."""
        for header in ("[]", "[ ]", "[a", "[a] ; c"):
            [(line, text)] = faults(f"{header}\nx=1")
            self.assertEqual(line, 1)
            self.assertTrue(text.startswith(f"parse error (at line: 1): {header} ("), text)

    def test_options_below_a_bad_header(self) -> None:
        """The name that was meant is taken, so that no faults follow from one."""
        self.assertEqual(parse(b"[a] ; c\nx=1").sections["a"].options["x"].value, "1")

    def test_header_without_any_name(self) -> None:
        """Options below it go nowhere, and the file says that a section is unknown."""
        file = parse(b"[]\nx=1\n")
        self.assertEqual((file.sections, file.lost_header, len(file.faults)), ({}, True, 1))

    def test_byte_order_mark(self) -> None:
        """The mark is refused, and the first line read without it."""
        file = parse(b"\xef\xbb\xbf[a]\nx=1")
        [fault] = file.faults
        self.assertTrue(fault.text.startswith("parse error (at line: 1): \ufeff[a] ("))
        self.assertIn("UTF-8 without", fault.text)
        self.assertEqual(file.sections["a"].options["x"].value, "1")

    def test_bad_escapes(self) -> None:
        """Short unicode escapes and a backslash that escapes nothing are refused."""
        texts = [text for _, text in faults("[a]\nx=\\u00\ny=\\u00zz\nz\\=1\n[b\\]")]
        self.assertEqual(len(texts), 4)
        self.assertIn("Malformed \\uxxxx encoding.", texts[0])
        self.assertIn("Malformed \\uxxxx encoding.", texts[1])
        self.assertIn("backslash", texts[2])
        self.assertIn("backslash", texts[3])

    def test_all_of_a_file(self) -> None:
        """Reading continues after a bad line."""
        text = "[a]\nfoo\nx=1\n=2\n[]\n[b]\ny=3\nbar\\\nbaz"
        self.assertEqual([line for line, _ in faults(text)], [2, 4, 5, 9])

    def test_long_line_is_shortened(self) -> None:
        """A fault does not repeat a whole binary file."""
        [(_, text)] = faults("[a]\n" + "x" * 100_000)
        self.assertTrue(len(text) < 400, len(text))


class BlankTests(SynchronousTestCase):
    """What counts as no value."""

    def test_is_blank(self) -> None:
        """White space in Java's sense, which no-break spaces are not."""
        for text in ("", " ", "\t\n", "\u3000", "\x1f"):
            self.assertTrue(is_blank(text), ascii(text))
        for text in ("x", " x ", "\xa0", "\u2007", "\u202f", "\x85"):
            self.assertFalse(is_blank(text), ascii(text))
