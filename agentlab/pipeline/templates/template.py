"""Templates of prompts and conditions of stages, both a stranger's perhaps, in jinja2's sandbox.

Whatever costs more than a step charges the budget of the rendering, so that it ends without a clock, in any thread.
Values are plain data: an attribute is a key of a mapping, and never one of a Python object.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import StrictUndefined, TemplateError, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agentlab.errors import ConfigError
from agentlab.pipeline.templates import filters
from agentlab.pipeline.templates.filters import FILTERS, TESTS, RenderBudget, kind
from agentlab.pipeline.templates.syntax import Wrong, compile_source, near

_KEPT = 256  # compiled templates: they are asked for again with every step
_LOOP_FIELDS = ("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem")


class _Missing(StrictUndefined):
    """A value that is not there. Its sentence is made when it is needed: `|default` may come first."""

    @property
    def _undefined_message(self) -> str:
        container, name = self._undefined_obj, str(self._undefined_name)[:40]
        if self._undefined_hint:
            return self._undefined_hint
        if isinstance(container, Context):
            return f"there is no {name} here{near(name, container.parent, 'available:')}"
        if isinstance(container, Mapping):
            return f"the mapping has no {name!r}{near(name, container, 'it has')}"
        return f"{kind(container)} has no {name!r}"


class _Context(Context):
    """The values of one rendering, and what it may still take."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.budget = RenderBudget()

    def resolve_or_missing(self, key: str) -> Any:
        return super().resolve_or_missing(key) if key in self else _Missing(obj=self, name=key)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Every filter and test goes through `call_filter` and `call_test`, those that `map` and `select` name too."""

    context_class = _Context
    intercepted_binops = filters.OPERATORS

    def getitem(self, obj: Any, argument: Any) -> Any:
        """A key of a mapping, a field of `loop`, or an element of a list or text; nothing else is reached."""
        if isinstance(obj, Mapping) and isinstance(argument, str | int | float) and argument in obj:
            return obj[argument]
        if isinstance(obj, str | list | tuple) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        if isinstance(obj, LoopContext) and argument in _LOOP_FIELDS:
            return getattr(obj, argument)
        kind(obj)
        return _Missing(obj=obj, name=str(argument) if isinstance(argument, str | int | float) else kind(argument))

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        context.budget.tree([left, right])
        result = filters.calculate(operator, left, right)
        context.budget.tree(result)
        return result

    def call_filter(
        self, name: str, value: Any, args: Any = None, kwargs: Any = None, context: Any = None, eval_ctx: Any = None
    ) -> Any:
        if name not in FILTERS:
            raise SecurityError(f"there is no filter {str(name)[:40]!r}")
        arguments, weight = [*(args or ()), *(kwargs or {}).values()], filters.WEIGHTS.get(name, 1)
        if name not in filters.FREE_FILTERS:
            context.budget.tree([value, *arguments], weight)
        if name in filters.TEXT_FILTERS:
            value = filters.text_of(value)
        elif name in filters.LIST_FILTERS:
            value = filters.elements_of(value)
            depth = sum(part.count(".") + part.count(",") for part in arguments if isinstance(part, str))
            context.budget.steps(len(value) * depth)
        result = super().call_filter(name, value, args, kwargs, context, eval_ctx)
        result = list(result) if isinstance(result, Iterator) else result
        if name not in filters.FREE_FILTERS:
            context.budget.tree(result)
        return result

    def call_test(
        self, name: str, value: Any, args: Any = None, kwargs: Any = None, context: Any = None, eval_ctx: Any = None
    ) -> Any:
        if name not in TESTS:
            raise SecurityError(f"there is no test {str(name)[:40]!r}")
        if name not in filters.FREE_TESTS:
            context.budget.tree([value, *(args or ()), *(kwargs or {}).values()])
        return super().call_test(name, value, args, kwargs, context, eval_ctx)


def _filter(context: _Context, value: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    return context.environment.call_filter(name, value, args, kwargs, context)


def _test(context: _Context, value: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    return context.environment.call_test(name, value, args, kwargs, context)


def _compared(context: _Context, value: Any) -> Any:
    context.budget.tree(value)
    return value


def _shown(context: _Context, value: Any) -> str:
    context.budget.tree(value)
    return filters.as_text(value)


def _concat(context: _Context, values: list[Any]) -> str:
    context.budget.tree(values)
    parts = [filters.as_text(value) for value in values]
    filters.fits(sum(map(len, parts)))
    return "".join(parts)


def _each(context: _Context, value: Any, turn: int) -> Any:
    """What a loop goes through: `turn` is the number of nodes in its body, and none can be left early."""
    elements = filters.elements_of(value)
    context.budget.steps(len(elements) * turn)
    return elements


def _slice(context: _Context, value: Any, *ends: Any) -> Any:
    elements = value if isinstance(value, str) else filters.elements_of(value)
    context.budget.steps(1 + len(elements) // (64 if isinstance(value, str) else 1))
    return elements[slice(*ends)]


def _key(_: _Context, value: Any) -> str:
    if not isinstance(value, str):
        raise SecurityError(f"a mapping key must be text, not {kind(value)}")
    return value


def _range(context: _Context, *ends: Any) -> list[int]:
    numbers = filters.numbers(*ends)
    context.budget.steps(len(numbers))
    return numbers


def _truth(_: _Context, value: Any) -> bool:
    if not isinstance(value, str | int | float | None):
        raise SecurityError(f"expected true or false, not {kind(value)}; compare the value, or use |length")
    return bool(value)


_HIDDEN = (_compared, _concat, _each, _filter, _key, _range, _shown, _slice, _test, _truth)


def _sandbox() -> _Sandbox:
    """Whitespace as in the chat templates of models: a line that holds only a tag leaves no empty line behind."""
    sandbox = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=_Missing, optimized=False
    )
    sandbox.globals.clear()
    sandbox.filters = FILTERS | {f" {function.__name__[1:]}": pass_context(function) for function in _HIDDEN}
    sandbox.tests = dict(TESTS)
    return sandbox


_SANDBOX = _sandbox()
# What may go wrong in plain computing: a text for a number, a division by zero, an index that is not there.
_FAULTS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Template:
    """A text with values in it. Lists, mappings, true, false and null stand in it as JSON. Fields: see `Check`."""

    source: str
    names: frozenset[str]
    stages: frozenset[str]
    previous: frozenset[str]
    _made: jinja2.Template = field(repr=False, compare=False)

    def render(self, values: Mapping[str, Any]) -> str:
        """The text with these values, which are plain data; a text among them is never taken for a template.

        Raises:
            ConfigError: a value is not there or of the wrong kind, or it takes too much: one sentence with the line.
        """
        context: Any = self._made.new_context(dict(values))
        parts = []
        try:
            for part in self._made.root_render_func(context):
                context.budget.charge_text(part)
                parts.append(part)
        except _FAULTS as error:
            begin = "" if isinstance(error, TemplateError) else "evaluation failed: "
            sentence = "the nesting is too deep" if isinstance(error, RecursionError) else f"{begin}{error}".rstrip(".")
            raise ConfigError(f"{self._location(error)}: {sentence}.") from None
        return "".join(parts)

    def _location(self, error: Exception) -> str:
        trace, line = error.__traceback__, 1
        while trace is not None:
            if trace.tb_frame.f_code.co_name == "root":  # jinja's name for the code of a template
                line = self._made.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return f"Line {line} of the template"


class Condition(Template):
    """An expression that holds or does not: a template that writes something when it holds."""

    __slots__ = ()

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true: false, null, 0 and an empty text are not. Raises as `render`, and for a list or a map."""
        return bool(self.render(values))

    def _location(self, _: Exception) -> str:
        return f"The condition {self.source!r}"


@lru_cache(_KEPT)
def compile_template(source: str) -> Template:
    """A template, checked.

    Raises:
        ConfigError: it cannot be parsed or says what is not allowed: one sentence with the line.
    """
    try:
        return Template(source, *_parts(source))
    except Wrong as wrong:
        raise ConfigError(f"line {wrong.line} of the template: {wrong.sentence}") from None


@lru_cache(_KEPT)
def condition(source: str) -> Condition:
    """An expression without braces, checked; a ConfigError as for a template."""
    try:
        return Condition(source, *_parts(source, condition=True))
    except Wrong as wrong:
        raise ConfigError(f"in the condition: {wrong.sentence}") from None


def _parts(source: str, *, condition: bool = False) -> tuple[Any, ...]:
    code, check = compile_source(_SANDBOX, source, condition=condition)
    template = jinja2.Template.from_code(_SANDBOX, code, {})
    return frozenset(check.names), frozenset(check.stages), frozenset(check.previous), template
