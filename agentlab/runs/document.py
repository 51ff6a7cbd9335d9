"""What a reader sees, independent of where: the screen, Markdown and HTML render the same blocks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict

from agentlab.stats.control import Evidence, Interval


@dataclass(frozen=True, slots=True)
class Heading:
    """Starts a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, without markup."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are already text. Columns whose cells are all numbers are aligned right by the renderer."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    links: Sequence[str] = ()  # where the first cell of each row leads to on a page; "" is nowhere


@dataclass(frozen=True, slots=True)
class Figure:
    """An SVG file inside the run folder. `alt` says what it shows to somebody who cannot see it."""

    file: str
    alt: str


@dataclass(frozen=True, slots=True)
class Code:
    """Text in its own lines: a config, a traceback. A `command` is to be copied, and its lines stay whole."""

    text: str
    command: bool = False


Block = Heading | Text | Table | Figure | Code
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report:
    """What a capability says of its run, in the order of a reader's questions; `OpenRun` adds who made it and how.

    `title` is what was asked of what, and `verdict` the answer. `facts` name the model and the data.
    """

    title: str
    verdict: Sequence[str]
    facts: Mapping[str, str]
    body: Sequence[Block]
    next_step: str = ""  # a command
    caveats: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """How a field or a property is shown: `kl: Annotated[float, Column("KL", ".4f", "divergence from the base")]`.

    `form` is a Python format, or makes the cell of the value; "" shows text and counts as they are, and figures with
    four digits. `missing` stands for None. Heading and help are in the JSON schema, too.
    """

    heading: str
    form: str | Callable[[Any], str] = ""
    help: str = ""
    missing: str = "–"

    def cell(self, value: Any) -> str:
        if value is None:
            return self.missing
        if callable(self.form):
            return self.form(value)
        if isinstance(value, float) and self.form.endswith("f"):
            return number(value, int(self.form[1:-1]))
        return format(value, self.form) if self.form else _cell(value)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        described = {"title": self.heading, "description": self.help}
        return {**handler(schema), **{key: text for key, text in described.items() if text}}


def columns_of(model: type[BaseModel], *names: str) -> dict[str, Callable[[Any], str]]:
    """For `table`: headings and cells of these fields and properties of a model, as each one's `Column` says."""
    columns = {name: _column_of(model, name) for name in names}
    return {column.heading: partial(_cell_of, name, column) for name, column in columns.items()}


def _cell_of(name: str, column: Column, row: Any) -> str:
    return column.cell(getattr(row, name))


def _column_of(model: type[BaseModel], name: str) -> Column:
    if name in model.model_fields:
        metadata = model.model_fields[name].metadata
    else:
        metadata = get_type_hints(getattr(model, name).fget, include_extras=True)["return"].__metadata__
    return next(part for part in metadata if isinstance(part, Column))


class Plain(BaseModel):
    """A part of a command's answer: plain data."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class AnswerDocument(Plain):
    """A command's typed answer: plain data for `--json`, blocks for people."""

    def blocks(self) -> list[Block]:
        raise NotImplementedError


class Bounded(Plain):
    """A figure with its interval."""

    value: float
    low: float
    high: float
    level: float

    @classmethod
    def of(cls, interval: Interval, **extra_fields: int) -> Self:
        return cls(value=interval.estimate, low=interval.low, high=interval.high, level=interval.level, **extra_fields)


class BoundedShare(Bounded):
    """A share of `count`."""

    count: int

    def __str__(self) -> str:
        return f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}]"


class BoundedDifference(Bounded):
    """Of two shares of the same questions. `p` and `smallest`: see `Evidence`; None in runs of older versions."""

    p: float | None = None
    smallest: float | None = None

    @classmethod
    def of(cls, evidence: Evidence) -> Self:  # type: ignore[override] # what the referee says, and nothing else
        evidence = evidence.clip(1.0)
        ends = {"value": evidence.estimate, "low": evidence.low, "high": evidence.high, "level": evidence.level}
        return cls(**ends, p=evidence.p, smallest=evidence.smallest)

    @property
    def is_shown(self) -> bool:
        """Whether the test rejects that there is none."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """In points, for a table."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"

    def verdict_against(self, rival: str) -> str:
        if self.is_shown:
            return f"{'better' if self.low > 0 else 'worse'} than {rival} ({self}, p = {figure_or_dash(self.p, '.2g')})"
        detectable = (
            "" if self.smallest is None else f"; a difference of {100 * self.smallest:.1f} or more would be detectable"
        )
        return f"no difference from {rival} shown ({self}{detectable})"


def silence(model: str, calls: int, reason: str) -> str:
    """The sentence on a model that answered none of its calls; of the reason, which may be a log, the first line."""
    return f"The model {model} answered 0 of {calls} calls: {(reason.splitlines() or ['unknown reason'])[0][:300]}"


def number(value: float | None, digits: int = 4) -> str:
    """A measured figure for a table; what was not measured is a dash."""
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.{max(digits - 1, 0)}e}"


def figure_or_dash(value: object, form: str = "", otherwise: str = "–") -> str:
    """A figure in a Python format such as `,` or `.0%`; what is not known is a dash, or what is said otherwise."""
    return otherwise if value is None else format(value, form)


def mebibytes(size: int | None) -> str:
    """A column whose heading says MiB."""
    return "–" if size is None else f"{size / (1 << 20):.0f}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def dollars(cost: float | None) -> str:
    """`0.0123 USD`, or `unknown`."""
    return "unknown" if cost is None else f"{cost:.4f} USD"


def table(rows: Iterable[T], columns: Mapping[str, Callable[[T], str | float | None]], caption: str = "") -> Table:
    """A table of things: each column has a heading and finds its cell: text, a count, a measured figure, or nothing."""

    def cells_of(row: T) -> list[str]:
        return [_cell(find(row)) for find in columns.values()]

    return Table(tuple(columns), [cells_of(row) for row in rows], caption)


def _cell(value: str | float | None) -> str:
    return str(value) if isinstance(value, str | int) else number(value)


def with_spread(value: float | None, spread: float | None) -> str:
    """A measured figure and the standard deviation of what it is the mean of: `0.3251 ± 0.0012`."""
    if value is None or spread is None:
        return number(value)
    return f"{number(value)} ± {f'{spread:.4f}' if spread >= 1e-4 else number(spread)}"
