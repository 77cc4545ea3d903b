"""
The integers and booleans of ``server.ini``: the part of the expression language Aviator 2.3.0 that
such files use.

Integers are 64-bit and wrap around. Binding, from weak to strong: ``||``, ``&&``, ``|``, ``^``,
``&``, ``== !=``, ``< <= > >=``, ``<< >> >>>``, ``+ -``, ``* / %``, unary ``- ~ !``. ``010`` is ten.

Differs: a text that gives neither an integer nor a boolean (decimals, strings, variables,
functions, ``?:``) is refused, and so are ``0x`` without digits and an integer literal beyond 64
bits, which the original silently reads as another number.

Source: ``AviatorEvaluator.execute`` with an empty environment.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

Value = int | bool

_INTEGER_HINT = "an integer is expected, such as 1024 or 64*1024*1024"
_BOOLEAN_HINT = "true or false is expected, in lower case"

_TOKEN = re.compile(
    r"""[ \t\n\r\f]*(?:
        (?P<decimal>[0-9]+\.[0-9]*(?:[eE][0-9]*)?|\.[0-9]+|[0-9]+[eE][0-9]+)
      | (?P<hex>0[xX][0-9A-Fa-f]+)
      | (?P<number>[0-9]+)
      | (?P<word>[A-Za-z_$][\w.$]*)
      | (?P<sign>\|\||&&|==|!=|<<|>>>|>>|<=|>=|[-+*/%~&|^()<>!])
      | (?P<end>$)
    )""",
    re.VERBOSE | re.ASCII,
)
_AFTER_NUMBER = re.compile(r"[\w.]", re.ASCII)


class ExpressionError(ValueError):
    """
    The text is not an expression of the wanted type; the message names the text that was found and
    a valid form.
    """


def integer(text: str) -> int:
    """
    Evaluate an expression of 64 bits.

    :raises ExpressionError: when it is not an integer.
    """
    value = _evaluate(text, _INTEGER_HINT)
    if isinstance(value, bool):
        raise ExpressionError(f"{text!r} is a boolean; {_INTEGER_HINT}")
    return value


def int32(text: str) -> int:
    """The low 32 bits of ``integer``, as for the original's int keys: ``2147483648`` is
    -2147483648."""
    return ((integer(text) + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def boolean(text: str) -> bool:
    """
    Evaluate a condition.

    :raises ExpressionError: when it is not a boolean.
    """
    value = _evaluate(text, _BOOLEAN_HINT)
    if not isinstance(value, bool):
        raise ExpressionError(f"{text!r} is the integer {value}; {_BOOLEAN_HINT}")
    return value


def _evaluate(text: str, hint: str) -> Value:
    """Evaluate; every error names the whole text and the wanted type."""
    try:
        return _Expression(text).value()
    except ExpressionError as error:
        raise ExpressionError(f"{text!r}: {error}; {hint}") from None
    except RecursionError:
        raise ExpressionError(f"nested too deeply; {hint}") from None


def _wrap(value: int) -> int:
    """The value as a signed 64-bit integer."""
    return ((value + (1 << 63)) & 0xFFFFFFFFFFFFFFFF) - (1 << 63)


def _divide(left: int, right: int) -> int:
    """Quotient rounded towards zero."""
    if right == 0:
        raise ExpressionError("division by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _remainder(left: int, right: int) -> int:
    """Remainder with the sign of the dividend."""
    return left - _divide(left, right) * right


#: Operators on two integers, by level of binding, weak ones first.
_LEVELS: tuple[dict[str, Callable[[int, int], Value]], ...] = (
    {"|": operator.or_},
    {"^": operator.xor},
    {"&": operator.and_},
    {"==": operator.eq, "!=": operator.ne},
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    {
        "<<": lambda left, right: left << (right & 63),
        ">>": lambda left, right: left >> (right & 63),
        ">>>": lambda left, right: (left & 0xFFFFFFFFFFFFFFFF) >> (right & 63),
    },
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": _divide, "%": _remainder},
)
#: These operators also compare two booleans.
_EQUALITY = ("==", "!=", "<", "<=", ">", ">=")


class _Expression:
    """Recursive descent over one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0  # after the token
        self._start = 0
        self._kind = ""
        self._token = ""
        self._advance()

    def value(self) -> Value:
        """The value of the whole text."""
        value = self._or()
        if self._kind != "end":
            raise self._unexpected()
        return value

    def _advance(self) -> None:
        """Move to the next token."""
        match = _TOKEN.match(self._text, self._position)
        if match is None:
            rest = self._text[self._position :].lstrip(" \t\n\r\f")
            raise ExpressionError(
                f"Syntax error:illegal expression at {len(self._text) - len(rest) + 1},"
                f" found {rest[:1]!r}"
            )
        self._kind = match.lastgroup or ""
        self._token = match.group(self._kind)
        self._start, self._position = match.span(self._kind)

    def _unexpected(self) -> ExpressionError:
        """The error for a token that is not allowed here."""
        found = "the end" if self._kind == "end" else repr(self._token)
        return ExpressionError(
            f"Syntax error:illegal expression at {self._start + 1}, found {found}"
        )

    def _or(self) -> Value:
        """``a || b``."""
        value = self._and()
        while self._token == "||":
            self._advance()
            right = self._and()
            value = _condition(value, "||") | _condition(right, "||")
        return value

    def _and(self) -> Value:
        """``a && b``."""
        value = self._binary(0)
        while self._token == "&&":
            self._advance()
            right = self._binary(0)
            value = _condition(value, "&&") & _condition(right, "&&")
        return value

    def _binary(self, level: int) -> Value:
        """Operators of one level, from left to right."""
        if level == len(_LEVELS):
            return self._unary()
        value = self._binary(level + 1)
        while self._kind == "sign" and self._token in _LEVELS[level]:
            sign = self._token
            self._advance()
            value = _apply(_LEVELS[level][sign], sign, value, self._binary(level + 1))
        return value

    def _unary(self) -> Value:
        """``-a``, ``~a``, ``!a``."""
        sign = self._token
        if self._kind != "sign" or sign not in "-~!":
            return self._primary()
        self._advance()
        value = self._unary()
        if sign == "!":
            return not _condition(value, "!")
        if isinstance(value, bool):
            raise ExpressionError(f"{sign} needs an integer")
        return _wrap(-value if sign == "-" else ~value)

    def _primary(self) -> Value:
        """A literal or a parenthesis."""
        kind, token = self._kind, self._token
        if kind == "sign" and token == "(":
            self._advance()
            value = self._or()
            if self._token != ")":
                raise ExpressionError(f"')' is missing at {self._start + 1}")
            self._advance()
            return value
        literal = self._literal(kind, token)
        self._advance()
        return literal

    def _literal(self, kind: str, token: str) -> Value:
        """The value of a number, ``true`` or ``false``."""
        if kind == "decimal":
            raise ExpressionError(f"found the decimal number {token}")
        if kind == "word":
            if token not in ("true", "false"):
                raise ExpressionError(f"found the unknown name {token}")
            return token == "true"
        if kind not in ("hex", "number"):
            raise self._unexpected()
        after = _AFTER_NUMBER.match(self._text, self._position)
        if after is not None:
            raise ExpressionError(
                f"Syntax error:illegal expression at {self._position + 1}, found {after.group()!r}"
                f" after the number {token}"
            )
        base, bits = (16, 64) if kind == "hex" else (10, 63)
        # 64 bits have 19 digits; Python refuses to convert thousands of them.
        if len(token.lstrip("0xX")) > 19 or int(token, base) >= 1 << bits:
            raise ExpressionError(f"{token} does not fit 64 bits")
        return _wrap(int(token, base))


def _condition(value: Value, sign: str) -> bool:
    """The operand of a boolean operator."""
    if not isinstance(value, bool):
        raise ExpressionError(f"{sign} needs true or false, found {_show(value)}")
    return value


def _show(value: Value) -> str:
    """The value in the notation of an expression."""
    return str(value).lower()


def _apply(function: Callable[[int, int], Value], sign: str, left: Value, right: Value) -> Value:
    """Combine two operands that must be of one type."""
    booleans = isinstance(left, bool) + isinstance(right, bool)
    if booleans == 1 or (booleans == 2 and sign not in _EQUALITY):
        raise ExpressionError(f"{sign} cannot combine {_show(left)} with {_show(right)}")
    result = function(left, right)
    return result if isinstance(result, bool) else _wrap(result)
