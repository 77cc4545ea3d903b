"""Java's property files: every example is what ``java.util.Properties`` makes of it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.properties import Property, parse


class SyntaxTests(SynchronousTestCase):
    """Keys, values and lines."""

    def check(self, text: str, **expected: str) -> None:
        """The file says this and nothing else."""
        found = parse(text.encode())
        self.assertEqual([], found.faults)
        self.assertEqual(expected, {key: each.value for key, each in found.properties.items()})

    def test_ends_of_keys(self) -> None:
        """``=``, ``:`` or white space, one of them, with white space around it."""
        for text in ("a=b", "a:b", "a b", "a\tb", "a = b", "  a\f:\tb", "a  b", "a=b  "):
            self.check(text, a="b")
        self.check("a==b", a="=b")
        self.check("a : = b", a="= b")
        self.check("a b=c", a="b=c")
        self.check("a", a="")
        self.check("a=", a="")

    def test_comments_and_blank_lines(self) -> None:
        """``#`` and ``!`` at the beginning only; a comment does not continue in the next line."""
        self.check("#a=1\n  !b=2\n\n \t\nc=3#4\n# d=5\\\ne=6", c="3#4", e="6")

    def test_ends_of_lines(self) -> None:
        """Of every system."""
        self.check("a=1\r\nb=2\rc=3\nd=4", a="1", b="2", c="3", d="4")

    def test_continued_lines(self) -> None:
        """An odd number of backslashes at the end; the white space after it does not count."""
        self.check("a=1,\\\n    2,\\\r\n\t3", a="1,2,3")
        self.check("a=1\\\\\nb=2", a="1\\", b="2")
        self.check("a=1\\\\\\\n2", a="1\\2")
        self.check("a\\\n  b=1", ab="1")
        self.check("a=1\\\n#2", a="1#2")
        self.check("a=1\\", a="1")

    def test_escapes(self) -> None:
        """A backslash takes the meaning away, or gives one."""
        self.check("a\\ b\\=c\\:d=1", **{"a b=c:d": "1"})
        self.check("\\#a=\\!b", **{"#a": "!b"})
        self.check("a=x\\ty\\n\\q", a="x\ty\nq")
        self.check("\\u0061=\\u4e2d\\uD83D\\uDE00", a="\u4e2d\U0001f600")

    def test_malformed_escape(self) -> None:
        """Is a fault with its line, and the rest is read."""
        found = parse(b"a=1\nb=\\u12g4\nc=3")
        self.assertEqual({"a", "c"}, found.properties.keys())
        (fault,) = found.faults
        self.assertEqual(2, fault.line)
        self.assertIn("Malformed \\uxxxx encoding", fault.text)
        self.assertIn("Four hexadecimal digits", fault.text)

    def test_lines(self) -> None:
        """Each property knows where its key stands."""
        found = parse(b"#\na=1\\\n2\n\nb=3")
        self.assertEqual({"a": Property("12", 2), "b": Property("3", 5)}, found.properties)

    def test_twice(self) -> None:
        """The last counts, and that is said."""
        found = parse(b"a=1\nb=2\na=3")
        self.assertEqual("3", found.properties["a"].value)
        self.assertEqual(["line 3, a: stands in line 1 as well; this one counts"], found.warnings)


class EncodingTests(SynchronousTestCase):
    """GBK, UTF-8, and what is neither."""

    TEXT = "#\u540c\u6b65\u590d\u5236\nslave=\u4e3b\u673a:1"

    def test_both(self) -> None:
        """With and without a byte order mark."""
        for encoding in ("utf-8", "utf-8-sig", "gbk"):
            found = parse(self.TEXT.encode(encoding))
            self.assertEqual({"slave": Property("\u4e3b\u673a:1", 2)}, found.properties, encoding)

    def test_backslash_within_a_character(self) -> None:
        """The second byte of a character of GBK may be one."""
        data = "a=\u4e57\nb=2".encode("gbk")
        self.assertIn(b"\\\n", data)
        self.assertEqual({"a", "b"}, parse(data).properties.keys())

    def test_broken_bytes(self) -> None:
        """In a comment they disturb nothing."""
        found = parse(b"#\xff\xfe\x80\nslaveId=3")
        self.assertEqual(({"slaveId": Property("3", 2)}, []), (found.properties, found.faults))
