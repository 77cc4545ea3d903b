"""
Faults as a person would make them: a statement left out, a condition turned, an off by one.

A fault is a replacement of a piece of the source text, so everything else, line numbers included,
stays as it is.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from itertools import islice
from random import Random

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


MANY = 1000


@dataclass(frozen=True)
class Fault:
    """
    One fault.

    :ivar path: of the module, from the top of the tree.
    :ivar place: name of the function or class around it.
    :ivar line: where the statement begins that has it; a test that executes it may notice.
    :ivar imported: it is executed when the module is imported, like the body of a class.
    """

    path: str
    place: str
    line: int
    start: int
    end: int
    before: str
    after: str
    imported: bool

    @property
    def key(self) -> str:
        """The same as long as the piece of code is, wherever it stands in the module."""
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.path} {self.place}: {before} -> {after}"

    def apply(self, source: bytes) -> bytes:
        """The module with the fault."""
        return source[: self.start] + self.after.encode() + source[self.end :]


class Planter(ast.NodeVisitor):
    """The faults of one module."""

    def __init__(self, path: str, source: bytes) -> None:
        self.faults: list[Fault] = []
        self._path = path
        self._source = source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._places: list[str] = []
        self._line = 0
        self._functions = 0  # that are around this place
        self.visit(ast.parse(source))

    # where we are

    def visit(self, node: ast.AST) -> None:
        """Leave out what is no behaviour: annotations, names of types, texts, tables of numbers."""
        if isinstance(node, ast.stmt):
            self._line = node.lineno
        super().visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Its body and the defaults of its parameters; those of a type's method are for readers."""
        if all(isinstance(each, ast.Expr) and _is_text(each.value) for each in node.body):
            return
        self._inside(node.name, node.args.defaults)
        self._functions += 1
        self._inside(node.name, node.body)
        self._functions -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Its body."""
        self._inside(node.name, node.body)

    def _inside(self, name: str, nodes: list[ast.AST] | list[ast.stmt] | list[ast.expr]) -> None:
        self._places.append(name)
        for each in nodes:
            self.visit(each)
        self._places.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value, but for constants of modules and classes: figures that somebody chose."""
        if node.value is not None and not self._is_constant(node.target):
            if isinstance(node.target, ast.Attribute):
                self._plant(node, "pass")
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """What is kept in an object or a table may be forgotten."""
        if self._is_constant(node.targets[0]):
            return
        if isinstance(node.targets[0], ast.Attribute | ast.Subscript):
            self._plant(node, "pass")
        self.visit(node.value)

    def _is_constant(self, target: ast.expr) -> bool:
        return isinstance(target, ast.Name) and target.id.strip("_").isupper()

    # statements

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Left out."""
        self._plant(node, "pass")
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call left out; texts are documentation."""
        if isinstance(node.value, ast.Constant | ast.Yield):
            return
        self._plant(node, "pass")
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        """Left out."""
        self._plant(node, "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        """Left out; what its text says is looked at by few."""
        self._plant(node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        """Left out."""
        self._plant(node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        """Left out."""
        self._plant(node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        """Nothing returned, or not at once."""
        if node.value is None:
            self._plant(node, "pass")
            return
        if not isinstance(node.value, ast.Constant) or node.value.value not in (None, False):
            self._plant(node.value, "None")  # of False only the truth is asked
        self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        """The condition turned."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._turn(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        """The condition turned."""
        if not isinstance(node.test, ast.Constant):
            self._turn(node.test)
        self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        """It is for the type checker."""

    # expressions

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """The condition turned."""
        self._turn(node.test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Its first operator another one."""
        other = COMPARISONS[type(node.ops[0])]()
        self._plant(
            node, ast.unparse(ast.Compare(node.left, [other, *node.ops[1:]], node.comparators))
        )
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """``and`` is ``or``, ``or`` is ``and``."""
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._plant(node, f"({ast.unparse(ast.BoolOp(other, node.values))})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Another operator, but not for texts and types."""
        texts = any(
            isinstance(each, ast.Constant | ast.JoinedStr)
            and not isinstance(getattr(each, "value", ""), int)
            for each in (node.left, node.right)
        )
        if type(node.op) in OPERATORS and not texts:
            other = OPERATORS[type(node.op)]()
            self._plant(node, f"({ast.unparse(ast.BinOp(node.left, other, node.right))})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """One more, or the opposite; of a thousand one more is nothing, it is doubled."""
        if isinstance(node.value, bool):
            self._plant(node, repr(not node.value))
        elif isinstance(node.value, int):
            self._plant(node, repr(node.value + (1 if node.value < MANY else node.value)))

    def visit_Call(self, node: ast.Call) -> None:
        """Its first two arguments swapped, unless they have no order."""
        has_order = not (isinstance(node.func, ast.Name) and node.func.id in ("max", "min"))
        if (
            has_order
            and len(node.args) > 1
            and not any(isinstance(each, ast.Starred) for each in node.args)
        ):
            first, second, *others = node.args
            if ast.dump(first) != ast.dump(second):
                swapped = ast.Call(node.func, [second, first, *others], node.keywords)
                self._plant(node, ast.unparse(swapped))
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """A text."""

    # the faults

    def _turn(self, test: ast.expr) -> None:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self._plant(test, f"({ast.unparse(test.operand)})")
        elif not isinstance(test, ast.Compare) or len(test.ops) > 1:
            self._plant(test, f"(not ({ast.unparse(test)}))")

    def _plant(self, node: ast.stmt | ast.expr, after: str) -> None:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self._lines[node.lineno - 1] + node.col_offset
        end = self._lines[node.end_lineno - 1] + node.end_col_offset
        before = self._source[start:end].decode()
        place = ".".join(self._places) or "the module"
        imported = not self._functions
        self.faults.append(
            Fault(self._path, place, self._line, start, end, before, after, imported)
        )


def _is_text(value: ast.expr) -> bool:
    """A docstring, or three dots."""
    return isinstance(value, ast.Constant)


def compiles(fault: Fault, source: bytes) -> bool:
    """Whether the module with the fault can be imported at all."""
    try:
        compile(fault.apply(source), fault.path, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def sample(sources: dict[str, bytes], count: int, seed: str) -> tuple[list[Fault], int]:
    """So many faults of these modules, at random, and how many there are to choose from."""
    faults = [each for path, source in sources.items() for each in Planter(path, source).faults]
    Random(seed).shuffle(faults)
    chosen = (each for each in faults if compiles(each, sources[each.path]))
    return list(islice(chosen, count)), len(faults)
