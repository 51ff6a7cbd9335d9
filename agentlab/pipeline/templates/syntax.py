"""What a template may say. Everything that is not named here is refused before anything runs.

A template has values, operators, `if`, `for`, `set`, filters and tests, and no call but `range(...)`. What costs more
than a step to compute is replaced by a hidden filter, which the sandbox charges; their names cannot be written.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Collection
from difflib import get_close_matches
from itertools import chain, islice
from types import CodeType
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from agentlab.pipeline.templates.filters import FILTERS, TESTS

NAMES = ("input", "item", "params", "stages", "previous", "output", "json", "visit", "candidates")
STAGE_FIELDS = ("output", "answer", "json", "skipped")
_RESERVED = ("stages", "previous", "loop", "range", "self", "super", "caller")
_METHODS = {"strip": "trim", "splitlines": "lines", "keys": "list", "get": "default", "format": "replace"}
_MOST_SOURCE = 65_536  # characters
_DEEPEST = 60  # nodes within nodes
_ALLOWED = (
    nodes.Template,
    *(nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.Name, nodes.Const, nodes.List),
    *(nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter),
    *(nodes.Test, nodes.Call, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos),
)
_CALLED: dict[type[nodes.Node], str] = {
    nodes.Pow: "a power (`**`)",
    nodes.FromImport: "`import`",
    nodes.CallBlock: "`call`",
    nodes.AssignBlock: "`set` with a block",
    nodes.FilterBlock: "`filter` with a block",
    nodes.Scope: "`autoescape`",
}


class Wrong(Exception):  # noqa: N818 - carries a sentence to the caller
    """A template says what it may not: one sentence without its full stop, and the line."""

    def __init__(self, sentence: str, line: int) -> None:
        super().__init__(sentence)
        self.sentence, self.line = sentence[:1_000], line


def near(name: str, known_names: Collection[Any], intro: str) -> str:
    """The end of a sentence: the nearest name, or those that there are."""
    keys = [str(key)[:40] for key in islice(known_names, 100)]
    matches = get_close_matches(name[:40], keys, n=1)
    return f"; did you mean {matches[0]}?" if matches else f"; {intro} {', '.join(sorted(keys[:40])) or 'nothing'}"


def _hidden(name: str, node: nodes.Node, *arguments: nodes.Expr, keywords: Any = ()) -> nodes.Filter:
    return nodes.Filter(node, f" {name}", list(arguments), list(keywords), None, None, lineno=node.lineno)


class Check(NodeTransformer):
    """One walk over a shallow tree, which refuses and replaces."""

    def __init__(self) -> None:
        self.names: set[str] = set()  # of the values that it uses: `input`, `item` and so on
        self.stages: set[str] = set()  # X of every `stages.X`
        self.previous: set[str] = set()  # X of every `previous.X`
        self._bound: set[str] = set()  # the names that the template itself has given a value by here

    def get_visitor(self, node: nodes.Node) -> Any:
        """The method for a kind of node; None walks on into its children, `Wrong` is raised for what is forbidden."""
        if not isinstance(node, _ALLOWED):
            called = _CALLED.get(type(node), f"`{type(node).__name__.lower()}`")
            raise Wrong(f"{called} is not supported in templates", node.lineno)
        return getattr(self, f"_{type(node).__name__.lower()}", None)

    def _output(self, node: nodes.Output) -> nodes.Output:
        node.nodes = [
            part if isinstance(part, nodes.TemplateData) else _hidden("shown", self.visit(part)) for part in node.nodes
        ]
        return node

    def _for(self, node: nodes.For) -> nodes.For:
        if node.recursive:
            raise Wrong("recursive loops are not supported in templates", node.lineno)
        repeated = [part for part in (node.test, *node.body) if part is not None]
        descendants = chain.from_iterable(part.find_all(nodes.Node) for part in repeated)
        turn = sum(1 for _ in descendants) + 1
        node.iter = _hidden("each", self.visit(node.iter), nodes.Const(turn))
        outer, self._bound = self._bound, {*self._bound, *_targets(node.target)}
        node.test = self.visit(node.test) if node.test is not None else None
        self._bound.add("loop")
        node.body = [self.visit(part) for part in node.body]
        self._bound = set(outer)
        node.else_ = [self.visit(part) for part in node.else_]
        self._bound = outer
        return node

    def _assign(self, node: nodes.Assign) -> nodes.Assign:
        node.node = self.visit(node.node)
        self._bound.update(_targets(node.target))
        return node

    def _const(self, node: nodes.Const) -> nodes.Const:
        if isinstance(node.value, float) and not math.isfinite(node.value):
            raise Wrong("a number is too large", node.lineno)
        return node

    def _name(self, node: nodes.Name) -> nodes.Name:
        name = node.name
        if name in self._bound:
            return node
        if name in ("stages", "previous"):
            raise Wrong(f"use {name} as {name}.NAME.output, where NAME is a stage", node.lineno)
        if name not in NAMES:
            names = near(name, (*NAMES, "range", *self._bound), "available:")
            advice = f"{names}; a stage's answer is stages.{name[:40]}.output"
            raise Wrong(f"there is no {name!r}{advice}", node.lineno)
        self.names.add(name)
        return node

    def _tuple(self, node: nodes.Tuple) -> nodes.Expr:
        return nodes.List([self.visit(part) for part in node.items], lineno=node.lineno)

    def _condexpr(self, node: nodes.CondExpr) -> nodes.CondExpr:
        node.test, node.expr1 = self.visit(node.test), self.visit(node.expr1)
        node.expr2 = nodes.Const("") if node.expr2 is None else self.visit(node.expr2)
        return node

    def _pair(self, node: nodes.Pair) -> nodes.Pair:
        node.key, node.value = _hidden("key", self.visit(node.key)), self.visit(node.value)
        return node

    def _getattr(self, node: nodes.Getattr) -> nodes.Node:
        if node.attr.startswith("_") and not self._stage(node):
            raise Wrong(
                f"{node.attr!r} is not supported in templates; write a mapping key as [{node.attr!r}]", node.lineno
            )
        return self._access(node, node.attr)

    def _getitem(self, node: nodes.Getitem) -> nodes.Node:
        if not isinstance(node.arg, nodes.Slice):
            return self._access(node, node.arg.value if isinstance(node.arg, nodes.Const) else None)
        ends = (node.arg.start, node.arg.stop, node.arg.step)
        return _hidden(
            "slice", self.visit(node.node), *(nodes.Const(None) if end is None else self.visit(end) for end in ends)
        )

    def _stage(self, node: nodes.Node) -> str | None:
        """`stages` or `previous` if the node is an element of it."""
        base = node.node if isinstance(node, nodes.Getattr | nodes.Getitem) else None
        return base.name if isinstance(base, nodes.Name) and base.name in ("stages", "previous") else None

    def _access(self, node: nodes.Getattr | nodes.Getitem, key: Any) -> nodes.Node:
        if (root := self._stage(node)) is not None:
            stage_path = f"{root}.{key}" if isinstance(key, str) else f"{root}[...]"
            raise Wrong(f"{stage_path} is a stage: write {stage_path}.output or .json", node.lineno)
        if (root := self._stage(node.node)) is None:
            return self.generic_visit(node)
        stage: Any = node.node
        name = stage.attr if isinstance(stage, nodes.Getattr) else getattr(stage.arg, "value", None)
        if not isinstance(name, str):
            raise Wrong(
                f"{root}[...] needs a literal stage name: the stages a template reads must be known before the run",
                node.lineno,
            )
        if key not in STAGE_FIELDS:
            raise Wrong(f"a stage has no {key!r}{near(str(key), STAGE_FIELDS, 'it has')}", node.lineno)
        self.names.add(root)
        (self.stages if root == "stages" else self.previous).add(name)
        return node

    def _filter(self, node: nodes.Filter) -> nodes.Filter:
        return self._function(node, "filter", FILTERS)

    def _test(self, node: nodes.Test) -> nodes.Filter:
        return self._function(node, "test", TESTS)

    def _function(self, node: Any, function_kind: str, functions: dict[str, Callable[..., Any]]) -> nodes.Filter:
        if node.name not in functions:
            advice = near(node.name, functions, "available:")
            raise Wrong(f"there is no {function_kind} {node.name!r}{advice}", node.lineno)
        _plain(node)
        function = functions[node.name]
        signature, skipped = inspect.signature(function), 1 + hasattr(function, "jinja_pass_arg")
        try:
            signature.bind(*[None] * (skipped + len(node.args)), **{keyword.key: None for keyword in node.kwargs})
        except TypeError:
            takes = ", ".join(map(str, list(signature.parameters.values())[skipped:])) or "nothing"
            raise Wrong(f"{node.name} does not take these arguments; it takes {takes}", node.lineno) from None
        arguments = [self.visit(argument) for argument in node.args]
        keywords = [self.visit(keyword) for keyword in node.kwargs]
        return _hidden(function_kind, self.visit(node.node), nodes.Const(node.name), *arguments, keywords=keywords)

    def _call(self, node: nodes.Call) -> nodes.Filter:
        match node.node:
            case nodes.Name(name="range"):
                _plain(node)
                if node.kwargs or not 1 <= len(node.args) <= 3:
                    raise Wrong("range takes one to three numbers", node.lineno)
                return _hidden("range", *(self.visit(argument) for argument in node.args))
            case nodes.Getattr(attr=name):
                instead = _METHODS.get(name, name)
                write = f"write x|{instead} instead of x.{name}()" if instead in FILTERS else "use a filter, x|name"
                raise Wrong(f"methods cannot be called; {write}", node.lineno)
            case _:
                raise Wrong("only range(...) can be called", node.lineno)

    def _compare(self, node: nodes.Compare) -> nodes.Compare:
        node.expr = _hidden("compared", self.visit(node.expr))
        for operand in node.ops:
            operand.expr = _hidden("compared", self.visit(operand.expr))
        return node

    def _concat(self, node: nodes.Concat) -> nodes.Filter:
        return _hidden("concat", nodes.List([self.visit(part) for part in node.nodes], lineno=node.lineno))


def _plain(node: Any) -> None:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise Wrong("arguments with * are not supported in templates", node.lineno)


def _targets(node: nodes.Node) -> set[str]:
    """The names that a loop or `set` gives a value."""
    names = set()
    for target in node.items if isinstance(node, nodes.Tuple) else [node]:
        if not isinstance(target, nodes.Name):
            raise Wrong("only plain names can be assigned", node.lineno)
        if target.name in _RESERVED or target.name.startswith("_"):
            raise Wrong(f"{target.name!r} is reserved; choose another name", node.lineno)
        names.add(target.name)
    return names


def compile_source(environment: Environment, source: str, *, condition: bool = False) -> tuple[CodeType, Check]:
    """The code of a template, and what it uses. A condition becomes a template that writes something when it holds.

    Raises:
        Wrong: it cannot be parsed, or says what is not allowed.
    """
    if len(source) > _MOST_SOURCE:
        raise Wrong(f"the source is longer than {_MOST_SOURCE:,} characters", 1)
    check = Check()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, about "\d" in a text
            tree: Any = _condition(environment, source) if condition else Parser(environment, source).parse()
            _shallow(tree)
            check.visit(tree)
            if condition:
                tree.body[0].test = _hidden("truth", tree.body[0].test)
            return environment.compile(tree), check
    except TemplateSyntaxError as error:
        raise Wrong((error.message or "invalid template syntax").rstrip("."), error.lineno) from None
    except SyntaxError as error:  # of the code made from it
        raise Wrong(error.msg, 1) from None
    except (RecursionError, MemoryError):
        raise Wrong("the nesting is too deep", 1) from None
    except ValueError as error:  # a number of thousands of digits
        raise Wrong(str(error).partition(";")[0], 1) from None


def _condition(environment: Environment, source: str) -> Any:
    if source.lstrip().startswith(("{{", "{%")):
        raise Wrong("a condition is an expression without braces, such as \"'DONE' in output\"", 1)
    parser = Parser(environment, source, state="variable")
    test = parser.parse_expression()
    if not parser.stream.eos:
        raise Wrong(f"unexpected {parser.stream.current.value!r}", 1)
    output = nodes.Output([nodes.TemplateData("true")], lineno=1)
    return nodes.Template([nodes.If(test, [output], [], [], lineno=1)], lineno=1).set_environment(environment)


def _shallow(tree: nodes.Node) -> None:
    open_ = [(tree, 0)]
    while open_:
        node, depth = open_.pop()
        if depth > _DEEPEST:
            raise Wrong(f"the nesting is more than {_DEEPEST} levels deep", node.lineno)
        open_ += [(child, depth + 1) for child in node.iter_child_nodes()]
