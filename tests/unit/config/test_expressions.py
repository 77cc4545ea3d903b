"""Integers and booleans; expected values were seen with Aviator 2.3.0."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.expressions import ExpressionError, boolean, int32, integer

INTEGERS = {
    "1": 1,
    "010": 10,
    "0x10": 16,
    "0X1f": 31,
    "0xFFFFFFFFFFFFFFFF": -1,
    "9223372036854775807": 9223372036854775807,
    "9223372036854775807+1": -9223372036854775808,
    "-9223372036854775807-2": 9223372036854775807,
    "4611686018427387904*2": -9223372036854775808,
    "7/2": 3,
    "-7/2": -3,
    "7/-2": -3,
    "-7%3": -1,
    "7%-3": 1,
    "1<<65": 2,
    "1<<-1": -9223372036854775808,
    "-8>>1": -4,
    "-8>>>1": 9223372036854775804,
    "1<<2+3": 32,
    "1+2<<3": 24,
    "8>>1+1": 2,
    "6|3&1": 7,
    "5^3|1": 7,
    "5^1&3": 4,
    "1&1<<1": 0,
    "~5": -6,
    "-~5": 6,
    "--5": 5,
    "- 5": -5,
    "1--1": 2,
    "1*-2": -2,
    "-0x10": -16,
    "-5%3*2": -4,
    "2-3-4": -5,
    "100/7/2": 7,
    "2*3%4": 2,
    "(1+2)*(3-1)": 6,
    " 1 +\t1 ": 2,
    "64 * 1024*1024": 67108864,
}

BOOLEANS = {
    "true": True,
    "false": False,
    "!true": False,
    "!!true": True,
    "!(1<2)": False,
    "1<2": True,
    "1>=2": False,
    "1<=2": True,
    "2>1": True,
    "1!=2": True,
    "1==1": True,
    "true==true": True,
    "1<2==true": True,
    "true!=false": True,
    "true&&false": False,
    "false||true&&false": False,
    "1<2&&2<3||false": True,
}

#: Text and a part of what is said about it.
REFUSED = {
    "1.5": "decimal number 1.5",
    "1.": "decimal number",
    ".5": "decimal number",
    "1e3": "decimal number 1e3",
    "1g": "Syntax error:illegal expression at 2, found 'g' after the number 1",
    "1 ; c": "Syntax error:illegal expression at 3, found ';'",
    "abc": "unknown name abc",
    "a.b": "unknown name a.b",
    "1000L": "found 'L' after the number 1000",
    "1_000": "found '_'",
    "0xG": "found 'x'",
    "00x1": "found 'x'",
    "1/0": "division by zero",
    "1%0": "division by zero",
    "+5": "found '+'",
    "()": "found ')'",
    "(1": "')' is missing at 3",
    "1)": "found ')'",
    "1  2": "Syntax error:illegal expression at 4, found '2'",
    "1 +": "found the end",
    "*2": "found '*'",
    "2**3": "found '*'",
    "1=1": "found '='",
    "1,2": "found ','",
    "'a'": "Syntax error",
    "1==true": "== cannot combine 1 with true",
    "6&3==2": "& cannot combine 6 with false",
    "true&true": "& cannot combine true with true",
    "1+true": "+ cannot combine 1 with true",
    "1<2<3": "< cannot combine true with 3",
    "-true": "- needs an integer",
    "~true": "~ needs an integer",
    "!1": "! needs true or false, found 1",
    "5&&true": "&& needs true or false, found 5",
    "9223372036854775808": "does not fit 64 bits",
    "0x1FFFFFFFFFFFFFFFF": "does not fit 64 bits",
    "9" * 5000: "does not fit 64 bits",
    "1ä": "found 'ä'",
}


class ExpressionTests(SynchronousTestCase):
    """Values and refusals."""

    def test_integers(self) -> None:
        """Every integer expression has the original's value."""
        for text, value in INTEGERS.items():
            self.assertEqual(integer(text), value, text)

    def test_booleans(self) -> None:
        """Every condition has the original's value."""
        for text, value in BOOLEANS.items():
            self.assertIs(boolean(text), value, text)

    def test_refused(self) -> None:
        """What is not an expression is refused as integer and as boolean, saying what was found."""
        for text, part in REFUSED.items():
            for read in (integer, boolean):
                error = self.assertRaises(ExpressionError, read, text)
                self.assertIn(part, str(error))

    def test_type(self) -> None:
        """An integer is not a boolean, a boolean no integer, and the text says what is wanted."""
        error = self.assertRaises(ExpressionError, integer, "true")
        self.assertIn("'true' is a boolean; an integer is expected", str(error))
        error = self.assertRaises(ExpressionError, boolean, "2-1")
        self.assertIn("'2-1' is the integer 1; true or false is expected", str(error))

    def test_low_32_bits(self) -> None:
        """An int key takes the low half, with its sign."""
        for text, value in {
            "1024*1024*1024": 1073741824,
            "4*1024*1024*1024": 0,
            "2147483648": -2147483648,
            "0xFFFFFFFF": -1,
            "-1": -1,
        }.items():
            self.assertEqual(int32(text), value, text)

    def test_deep_nesting(self) -> None:
        """Thousands of parentheses are refused, not a crash."""
        error = self.assertRaises(ExpressionError, integer, "(" * 100_000 + "1")
        self.assertIn("nested too deeply", str(error))
