"""What `agentlab compress` is going to do, what it says while it runs, and what it answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from agentlab.compress.config import CompressConfig, apply_limits, limits_of
from agentlab.compress.goal import WORDS as MEASURES
from agentlab.compress.goal import Goal, Measure, Verdict
from agentlab.compress.meter import CompressCost
from agentlab.compress.recipe import left_out, recipe_of
from agentlab.models.base_model import BaseFile
from agentlab.runs.document import (
    AnswerDocument,
    Block,
    Column,
    Heading,
    Plain,
    Table,
    Text,
    columns_of,
    figure_or_dash,
    mebibytes,
    number,
    table,
)
from agentlab.runs.events import Event, Narration
from agentlab.search.types import Value
from agentlab.stats.control import Control
from agentlab.stats.ratios import is_narrow
from agentlab.study.calls import ModelRow, Planner
from agentlab.study.control import Pair
from agentlab.study.narrate import narrate as narrate_study
from agentlab.study.terms import StudyTerms

SPENT, TEXTS, BASE = "energy.spent", "texts.cut", "base.measured"
TERMS = StudyTerms(
    command="compress",
    value="worth",
    score="kl",
    metric="objective",
    error="objective",
    unit="lower is better",
    measurement="recipe",
    again="measured again",
    goal="Make a language model smaller and faster with little loss.",
    shown=("size", "kl", "loss"),
)


def charges(events: Iterable[Event]) -> list[tuple[str, str, CompressCost]]:
    """What was spent, piece by piece: on which base, empty for the only one, in which stage, and what."""
    entries = [(event.id, dict(event.data)) for event in events if event.type == SPENT]
    return [(data.pop("base", ""), stage, CompressCost(**data)) for stage, data in entries]


class Confirmed(Plain):
    """A recipe on text that nothing was chosen by: figures and intervals by measure, of so many windows; see `Goal`."""

    windows: int
    figures: dict[Measure, float]
    within: dict[Measure, tuple[float, float]]
    verdict: Verdict


class RecipeRow(Plain):
    """A recipe and what came of it.

    `within` are intervals of its figures on `windows`, `verdict` what they mean for the goal, and `confirmed` what
    other text says. `broken` are the bounds of the goal that it breaks, `arm` who proposed it, `held` bytes by the type
    that weights are in; `research` says why it stays off the front, `remembered` is the earlier run that measured it,
    `why` is what its proposer said of it.
    """

    id: str
    recipe: Annotated[str, Column("recipe")]
    family: str
    format: str
    source: str
    arm: str
    file: str | None = None
    size: Annotated[int | None, Column("MiB", mebibytes, "File size in bytes.")] = None
    share: Annotated[float | None, Column("of bfloat16", ".0%", "Size relative to the base in bfloat16.")] = None
    bits: Annotated[float | None, Column("bits per weight", ".2f", "Mean over the whole file.")] = None
    held: dict[str, int] = Field(default_factory=dict)
    research: str
    kl: Annotated[float | None, Column("KL", help="From the base, in the file's runtime, nats per token.")] = None
    kl_weights: float | None = None
    loss: float | None = None
    top1: Annotated[float | None, Column("same top token", ".1%", "Share of tokens.")] = None
    speed: float | None = None
    decode: float | None = None
    prefill: float | None = None
    load: float | None = None
    peak: int | None = None
    gpu: dict[str, float] = Field(default_factory=dict)
    says: str | None = None
    seconds: float = 0.0
    joules: float = 0.0
    grams: float = 0.0
    front: bool
    broken: list[str]
    verdict: Verdict = "undecided"
    windows: Annotated[int, Column("windows", lambda windows: str(windows or "–"), "Windows of held-out text.")] = 0
    within: dict[Measure, tuple[float, float]] = Field(default_factory=dict)
    confirmed: Confirmed | None = None
    failed: str
    remembered: str = ""
    why: str = ""
    params: dict[str, Value]


class Advice(AnswerDocument):
    """What an agent said: in words, as steps, and as recipes with what is expected of them.

    `by` are the models, empty where rules alone spoke; `goal` as it was understood, of a plan outside a run, and
    `forecast` what that is going to take.
    """

    output: str
    goal: str = ""
    todos: list[str] = Field(default_factory=list)
    recipes: list[dict[str, Any]] = Field(default_factory=list)
    by: str = ""
    forecast: str = ""

    def blocks(self) -> list[Block]:
        lines = [f"Goal: {self.goal}."] if self.goal and self.goal not in self.output else []
        blocks: list[Block] = [*map(Text, [*lines, self.output, *(f"- {todo}" for todo in self.todos)])]
        if self.recipes:
            columns: dict[str, Callable[[dict[str, Any]], str | float | None]] = {
                "recipe": lambda recipe: str(recipe_of(recipe["params"])),
                "estimated size": lambda recipe: figure_or_dash(recipe.get("estimate", {}).get("size"), ".0%"),
                "estimated KL": lambda recipe: number(recipe.get("estimate", {}).get("kl")),
            }
            caption = "Recipes to try; estimates are based on other measured recipes"
            blocks.append(table(self.recipes, columns, caption))
        if self.forecast:
            blocks.append(Text(f"Forecast for the run: {self.forecast}."))
        return blocks


class Volume(Plain):
    """Hypervolume over (bytes / bfloat16 bytes, KL in the runtime), reference (1, 1), of the search and of another.

    Both at `joules`: what the one has cost in all that cost less.
    """

    name: str
    search: float
    other: float
    joules: float


class CompressModelResult(Plain):
    """What came of a base. `exports` is a folder of the run, which its rows' files lie in.

    `volumes` compare the search with who has other recipes, each at equal cost. `control` says what the agent was
    worth; None is a search without one.
    """

    base: str
    exports: str
    dense: int
    source: int
    sentence: str
    remarks: list[str]
    winner: str | None
    loads: list[str]
    rows: list[RecipeRow]
    volumes: list[Volume]
    beyond: list[str]
    control: Control | None = None
    pairs: list[Pair] = Field(default_factory=list)
    plan: Advice | None = None
    reflection: Advice | None = None

    @property
    def best(self) -> list[RecipeRow]:
        """The front and the winner, which may lie behind what breaks a bound."""
        return [row for row in self.rows if row.front or row.id == self.winner]

    @property
    def kept_files(self) -> dict[str, str]:
        return {row.id: row.file for row in self.best if row.file}


class CompressResult(AnswerDocument):
    """A finished compression of one base or several. `stages` says what each stage has cost, of all of them.

    `calls` are those of language models, and `asked` the same by model.
    """

    sentence: str
    remarks: list[str]
    goal: str
    models: list[CompressModelResult]
    stages: dict[str, dict[str, float]]
    seconds: float
    joules: float
    grams: float
    energy: str
    calls: Planner
    asked: list[ModelRow]

    def blocks(self) -> list[Block]:
        blocks: list[Block] = [*map(Text, (self.remarks if len(self.models) == 1 else [self.sentence, *self.remarks]))]
        for model in self.models:
            if len(self.models) > 1:
                blocks.append(Heading(model.base))
            blocks += [*map(Text, (model.sentence, *model.remarks))]
            blocks.append(row_table(model.best, model, self.goal))
        return blocks


def row_table(rows: Iterable[RecipeRow], model: CompressModelResult, goal: str) -> Table:
    """Recipes by size."""
    return table(
        sorted(rows, key=lambda row: (row.size is None, row.size)),
        {
            "": lambda r: r.id + (" *" if r.id == model.winner else ""),
            **columns_of(RecipeRow, "recipe"),
            "format, main type": lambda r: f"{r.format}, {_largest(r.held)}" if r.held else r.format,
            **columns_of(RecipeRow, "size", "share", "bits", "kl"),
            "perplexity": lambda r: with_interval(r.loss, r.within.get("loss"), "+.1%"),
            **columns_of(RecipeRow, "windows", "top1"),
            "speed": speed_of,
            "verdict": lambda r: "" if r.failed else r.verdict,
            "note": lambda r: r.failed or "; ".join(_notes(r)),
        },
        f"Each file is measured in its own runtime. * marks the winner for the goal: {goal}. Perplexity "
        "is relative to the base and speed to the source file; intervals are for the mean.",
    )


def with_interval(value: float | None, within: Sequence[float] | None, form: str) -> str:
    """A figure and its interval: `+2.7% [+2.1%, +3.3%]`."""
    figure = figure_or_dash(value, form)
    return f"{figure} [{within[0]:{form}}, {within[1]:{form}}]" if within else figure


def speed_of(row: RecipeRow) -> str:
    """`1.05x`, or what it is within where that is too wide to say."""
    if row.speed is None:
        return "–"
    low, high = row.within.get("speed", (row.speed, row.speed))
    return f"{row.speed:.2f}x" if is_narrow(low, high) else f"unclear, {low:.2f}x to {high:.2f}x"


def _notes(row: RecipeRow) -> list[str]:
    measured = f"measured in {row.remembered}" if row.remembered else ""
    return [*filter(None, [row.research, measured]), *(f"fails {bound}" for bound in row.broken)]


def _largest(bytes_by_type: Mapping[str, int]) -> str:
    name = max(bytes_by_type, key=lambda kind: bytes_by_type[kind])
    return f"{name} {bytes_by_type[name] / sum(bytes_by_type.values()):.0%}"


# -- before it runs -----------------------------------------------------------------------------------------------


class CompressPlan(AnswerDocument):
    """The answer of `compress --dry-run`. `imports` are the bases that are made of their GGUF file first.

    `left_out` says of a base what it cannot go through, as far as its checkpoint is there.
    """

    bases: list[str]
    imports: list[str]
    goal: str
    measure: str
    text: str
    portfolio: list[str]
    first: int
    trials: int
    planner: str
    beside: list[str]
    limits: dict[str, float]
    left_out: dict[str, str] = Field(default_factory=dict)
    forecast: dict[str, float]

    @property
    def foreseen(self) -> str:
        memory, disk = (self.forecast[resource] / 2**30 for resource in ("memory", "disk"))
        room = (
            f"{memory:.1f} GiB of memory, {disk:.1f} GiB of disk"
            if disk
            else "memory and disk use unknown until the base is imported"
        )
        costs = "{seconds:.0f} s, {joules:.0f} J, {grams:.2g} g of CO2".format(**self.forecast)
        beyond = [unit for unit, limit in self.limits.items() if self.forecast[unit] > limit]
        early = f"; this exceeds the budget of {' and '.join(beyond)}, so the run would end early" if beyond else ""
        return f"about {costs}, {room}; estimated from sizes and earlier runs; nothing has been measured yet{early}"

    @property
    def summary(self) -> str:
        limits = "".join(f", at most {limit:g} {unit}" for unit, limit in self.limits.items())
        recipes = f"{self.trials} recipes{' each' if len(self.bases) > 1 else ''}"
        rivals = f", compared with {', '.join(self.beside)}" if self.beside else ""
        return f"{', '.join(self.bases)}: {self.goal}; {recipes}{rivals}{limits}"

    def blocks(self) -> list[Block]:
        limits = ", ".join(f"{limit:g} {unit}" for unit, limit in self.limits.items())
        then = f"{self.planner}, up to {self.trials} recipes; baselines: {', '.join(self.beside) or 'none'}"
        rows = [
            *(("base", f"{name}{' (imported first, once)' if name in self.imports else ''}") for name in self.bases),
            ("goal", f"{self.goal} ({self.measure})"),
            ("text", self.text),
            ("starts with", f"the first {min(self.first, len(self.portfolio))} of {len(self.portfolio)} known recipes"),
            ("then", then),
            ("limits", limits or "no limit on time, energy or CO2"),
            ("forecast", self.foreseen),
            *self.left_out.items(),
        ]
        return [Table(("plan", ""), rows), Table(("portfolio",), [(recipe,) for recipe in self.portfolio])]


def plan_of(config: CompressConfig, bases: Sequence[BaseFile], goal: Goal, forecast: dict[str, float]) -> CompressPlan:
    """The plan of a checked config."""
    text = config.text
    limits = {base.path.name: limits_of(config, base.path) if base.path.is_dir() else [] for base in bases}
    possible = set[str]()
    for name, base_limits in limits.items():
        _, recipes = apply_limits(config, base_limits, name)
        possible.update(str(recipe) for recipe in recipes)
    return CompressPlan(
        bases=[base.path.name for base in bases],
        imports=[base.path.name for base in bases if not base.path.is_dir()],
        goal=str(goal),
        measure="; ".join(f"{measure}: {MEASURES[measure]}" for measure in MEASURES if measure in goal.measures),
        text=f"{text.file or 'the Python help'}: {text.calibration} windows for calibration, "
        f"{text.held_out} held out, {text.length} tokens each",
        portfolio=[str(recipe) for recipe in config.recipes if str(recipe) in possible],
        first=config.first,
        trials=config.budget.trials,
        planner=_planner(config),
        beside=list(config.beside),
        limits=dict(config.budget.limits),
        left_out={name: left_out(base_limits) for name, base_limits in limits.items() if base_limits},
        forecast=forecast,
    )


def _planner(config: CompressConfig) -> str:
    models = config.llm.candidates(TERMS.propose)
    if config.planner != "agent":
        return config.planner
    return f"agent ({', '.join(models)}) with {config.arm}" if models else f"{config.arm} (no language model)"


# -- while it runs --------------------------------------------------------------------------------------------------


def narrate(event: Event) -> Narration | None:
    """A line for each recipe."""
    data = event.data
    match event.type:
        case "study.opened":
            return Narration(line=data["summary"], done=data["done"], total=data["total"])
        case "energy.spent":
            return Narration(detail=f"{event.id}, another {data['grams']:.2g} g of CO2" if event.id else None)
        case "stage.began":
            return Narration(detail=event.id)
        case "stages.evicted":
            bases = "1 other base" if data["count"] == 1 else f"{data['count']} other bases"
            line = (
                f"Removed {data['bytes'] / 2**30:.1f} GiB of intermediate files of {bases}, least recently used first."
            )
            return Narration(line=line)
        case "trial.finished":
            m = data["metrics"]
            summary = f"{m['size'] / 2**20:.1f} MiB, KL {m['kl']:.4f}, perplexity {m['loss']:+.1%}"
            return Narration(line=f"  {event.id}  {summary}")
    return narrate_study(event, TERMS)
