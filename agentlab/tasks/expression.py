"""The value of a Python expression that a model wrote. Nothing is run: a few kinds of nodes are computed by hand.

Only numbers, texts, lists and the names that are given; no attribute but a few methods of texts; every step, number
and length is counted.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_LONGEST_SOURCE = 1_000  # characters
_MOST_STEPS = 5_000
_MOST_BITS = 4_096  # of a whole number
_LONGEST = 1_000  # characters, or elements of a list and the characters in them
_MOST_DIGITS = 50  # that a number may be rounded to

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "bool": bool,
    "float": float,
    "int": int,
    "len": len,
    "list": list,
    "max": max,
    "min": min,
    "range": lambda *ends: _bounded_range(*ends),
    "reversed": lambda values: list(reversed(values)),
    "round": lambda number, digits=None: _bounded_round(number, digits),
    "sorted": sorted,
    "str": str,
    "sum": sum,
}
_METHODS = (
    "capitalize", "count", "endswith", "join", "lower", "replace", "split", "startswith", "strip", "title", "upper",
)  # fmt: skip


class Refused(ValueError):  # noqa: N818 - says what was done, not that something broke
    """The source is no expression of the allowed kind, or its value takes too much."""


def evaluate(source: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression over these names. A lambda or a function with one `return` is taken at its body.

    Raises:
        Refused: whatever is wrong with it.
    """
    if len(source) > _LONGEST_SOURCE:
        raise Refused(f"longer than {_LONGEST_SOURCE} characters")
    try:
        body, parameters = _body(ast.parse(source.strip()))
        return _Evaluation(dict(names) | dict(zip(parameters, names.values(), strict=False))).value(body)
    except Refused:
        raise
    except (SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError, MemoryError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error


def _body(tree: ast.Module) -> tuple[ast.expr, tuple[str, ...]]:
    """The expression, and the names of its own parameters."""
    if len(tree.body) != 1:
        raise Refused("not a single expression")
    node = tree.body[0]
    if isinstance(node, ast.FunctionDef) and isinstance(node.body[-1], ast.Return) and len(node.body) == 1:
        returned = node.body[0].value  # type: ignore[attr-defined] # narrowed by the line above
        return returned or ast.Constant(None), tuple(arg.arg for arg in node.args.args)
    if isinstance(node, ast.Assign | ast.Expr | ast.Return) and node.value is not None:
        value = node.value
        if isinstance(value, ast.Lambda):
            return value.body, tuple(arg.arg for arg in value.args.args)
        return value, ()
    raise Refused("not an expression")


class _Evaluation:
    """One evaluation: its names, and the steps it may still take."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names
        self._steps = _MOST_STEPS

    def value(self, node: ast.expr) -> Any:
        self._steps -= 1
        if self._steps < 0:
            raise Refused("too many steps")
        compute: Callable[[Any], Any] | None = getattr(self, f"_{type(node).__name__.lower()}", None)
        if compute is None:
            raise Refused(f"{type(node).__name__} is not allowed")
        return _small(compute(node))

    def _constant(self, node: ast.Constant) -> Any:
        if not isinstance(node.value, bool | int | float | str | None):
            raise Refused("an unsupported constant")
        return node.value

    def _name(self, node: ast.Name) -> Any:
        return self._names[node.id]

    def _list(self, node: ast.List | ast.Tuple) -> Any:
        return [self.value(element) for element in node.elts]

    _tuple = _list

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        if type(node.op) not in _UNARY:
            raise Refused("an operator that is not allowed")
        return _UNARY[type(node.op)](self.value(node.operand))

    def _binop(self, node: ast.BinOp) -> Any:
        if type(node.op) not in _BINARY:
            raise Refused("an operator that is not allowed")
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Mod) and isinstance(left, str):
            raise Refused("text formatting is not allowed")
        _forecast(node.op, left, right)
        return _BINARY[type(node.op)](left, right)

    def _boolop(self, node: ast.BoolOp) -> Any:
        stop_at = isinstance(node.op, ast.Or)
        operand: Any = None
        for part in node.values:
            operand = self.value(part)
            if bool(operand) is stop_at:
                break
        return operand

    def _compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        for kind, part in zip(node.ops, node.comparators, strict=True):
            right = self.value(part)
            if type(kind) not in _COMPARE:
                raise Refused("a comparison that is not allowed")
            if not _COMPARE[type(kind)](left, right):
                return False
            left = right
        return True

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _subscript(self, node: ast.Subscript) -> Any:
        sequence = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            ends = (node.slice.lower, node.slice.upper, node.slice.step)
            return sequence[slice(*(None if end is None else self.value(end) for end in ends))]
        return sequence[self.value(node.slice)]

    def _call(self, node: ast.Call) -> Any:
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise Refused("keyword and starred arguments are not allowed")
        arguments = [self.value(argument) for argument in node.args]
        if isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
            return _FUNCTIONS[node.func.id](*arguments)
        if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            text = self.value(node.func.value)
            pieces = [len(value) for value in arguments if isinstance(value, str | list)]
            if not isinstance(text, str) or (len(text) + 1) * max(pieces, default=0) > _LONGEST * 10:
                raise Refused("methods work only on short texts")
            return getattr(text, node.func.attr)(*arguments)
        raise Refused("a function that is not allowed")

    def _generatorexp(self, node: ast.GeneratorExp | ast.ListComp) -> Any:
        if len(node.generators) != 1 or not isinstance(node.generators[0].target, ast.Name):
            raise Refused("only one loop over one name is allowed")
        return list(self._loop(node.elt, node.generators[0], node.generators[0].target.id))

    _listcomp = _generatorexp

    def _loop(self, element: ast.expr, loop: ast.comprehension, name: str) -> Iterator[Any]:
        values = self.value(loop.iter)
        before = dict(self._names)
        for value in values:
            self._names[name] = value
            if all(self.value(test) for test in loop.ifs):
                yield self.value(element)
        self._names = before


def _bounded_range(*ends: Any) -> list[int]:
    values = range(*ends)
    if len(values) > _LONGEST:
        raise Refused("a range that is too long")
    return list(values)


def _bounded_round(number: Any, digits: Any) -> Any:
    if digits is not None and abs(digits) > _MOST_DIGITS:
        raise Refused("too many digits")
    return round(number, digits)


def _forecast(kind: ast.operator, left: Any, right: Any) -> None:
    """Refuse before it is computed what would be too large."""
    if isinstance(kind, ast.Pow):
        if not all(isinstance(value, int | float) for value in (left, right)) or abs(right) > _MOST_BITS:
            raise Refused("a power that is too large")
        if isinstance(left, int) and left.bit_length() * abs(right) > _MOST_BITS:
            raise Refused("a power that is too large")
    if isinstance(kind, ast.Mult):
        for text, times in ((left, right), (right, left)):
            if isinstance(text, str | list) and isinstance(times, int) and len(text) * times > _LONGEST:
                raise Refused("a value that is too long")


def _small(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise Refused("a number that is too large")
    if isinstance(value, list):
        if any(isinstance(element, list) for element in value):
            raise Refused("a list within a list")  # they could be multiplied beyond all bounds
        if len(value) + sum(len(element) for element in value if isinstance(element, str)) > _LONGEST:
            raise Refused("a value that is too long")
    if isinstance(value, str) and len(value) > _LONGEST:
        raise Refused("a value that is too long")
    return value
