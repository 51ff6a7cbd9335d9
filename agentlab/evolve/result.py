"""What `agentlab evolve` answers, and what it says while it runs."""

from typing import Annotated

from pydantic import Field

from agentlab.answers.choices import Normalisation
from agentlab.evolve.genome import BASE, BLEND, PARENT
from agentlab.runs.document import (
    AnswerDocument,
    Block,
    BoundedDifference,
    BoundedShare,
    Column,
    Plain,
    Table,
    Text,
    figure_or_dash,
    number,
    table,
)
from agentlab.runs.events import Event, Narration
from agentlab.search.types import Value
from agentlab.stats.control import Control
from agentlab.study.calls import ModelRow, Planner
from agentlab.study.control import Pair
from agentlab.study.narrate import narrate as narrate_study
from agentlab.study.terms import StudyTerms
from agentlab.tasks.labelled import BESIDE, FORM

GENERATION, OPENED, SCORED, ANSWERED = "generation.finished", "split.opened", "split.scored", "questions.answered"
EVOLVED, RANDOM = "evolved", "random search"
TERMS = StudyTerms(
    command="evolve",
    value="error",
    score="accuracy",
    metric="error on the train split",
    error="error",
    unit="probability of a wrong answer",
    measurement="scoring",
    again="scored again",
    goal="Find weights with which a few adapters of a language model answer questions best when they are added up.",
    shown=("accuracy",),
)
NAMES = {
    EVOLVED: "evolved",
    RANDOM: "random search",
    PARENT: "best parent on train",
    BLEND: "uniform blend",
    BASE: "base alone",
}


class EvolveStanding(Plain):
    """One candidate on the sealed split, beside what it was on the train split.

    `tests` and `gains`: the same by every normalisation; empty in runs of earlier versions.
    """

    name: str
    what: str
    train: float  # share of the train questions that it answers right
    test: BoundedShare
    gap: float  # train less test, in shares
    gain: BoundedDifference | None  # of the evolved one over this one, question by question
    differ: int  # on how many questions exactly one of the two is right
    start: str = ""  # what the winner of a search is if it was there before; else empty
    spent: int | None = None  # answers of its search; None of what was there before
    tests: dict[Normalisation, BoundedShare] = Field(default_factory=dict)
    gains: dict[Normalisation, BoundedDifference] = Field(default_factory=dict)


Task = Column("task", "", "Mean probability of the right answer.")
Right = Column("accuracy", ".1%", "Accuracy on the train split.")
Vote = Column("vote", "", "Shapley value in the generation's vote.")
Novelty = Column("novelty", "", "Distance from the answers of the nearest children.")
Fitness = Column("fitness", "", "All terms combined, in units of the task term.")


class ChildRow(Plain):
    """A child; null values are unknown because it stopped early."""

    id: Annotated[str, Column("child")]
    generation: Annotated[int, Column("generation")]
    source: str
    arm: str
    note: str
    parents: list[str]
    error: float | None
    accuracy: Annotated[float | None, Right]
    items: Annotated[int, Column("questions", ",", "Number of questions that this child was asked.")]
    sets: dict[str, float]
    fitness: Annotated[float | None, Fitness]
    cooperation: Annotated[float | None, Vote]
    novelty: Annotated[float | None, Novelty]
    useful: bool
    accepted: bool
    failed: str
    params: dict[str, Value]

    @property
    def task(self) -> Annotated[float | None, Task]:
        return None if self.error is None else 1 - self.error

    @property
    def remark(self) -> Annotated[str, Column("note")]:
        return self.failed or self.note


class GenerationRow(Plain):
    """A generation: its children, and means of their terms."""

    number: Annotated[int, Column("generation")]
    children: Annotated[int, Column("children")]
    stopped: Annotated[
        int, Column("stopped", help="Stopped early: clearly worse than the best of parents, blend and base.")
    ]
    failed: Annotated[int, Column("failed")]
    best: Annotated[str | None, Column("best")]
    task: Annotated[float | None, Task]
    solo: Annotated[float | None, Right]
    cooperation: Annotated[float | None, Vote]
    novelty: Annotated[float | None, Novelty]
    fitness: Annotated[float | None, Fitness]
    items: Annotated[int, Column("answers", ",", "Cumulative number of answers.")]


class EvolveResult(AnswerDocument):
    """A finished evolution. `control` is the comparison with random search; `agent` that with a language model.

    `controls` and `pairs_by`: the same by every normalisation; empty in runs of earlier versions.
    """

    sentence: str
    remarks: list[str]
    winner: str
    starts: int = 0  # children that were there before the search; 0 in runs of earlier versions
    train: int
    test: int
    items: int
    standings: list[EvolveStanding]
    control: Control
    controls: dict[Normalisation, Control] = Field(default_factory=dict)
    agent: Control | None
    agent_note: str
    pairs: list[Pair]
    pairs_by: dict[Normalisation, list[Pair]] = Field(default_factory=dict)
    generations: list[GenerationRow]
    trials: list[ChildRow]
    planner: Planner
    models: list[ModelRow]

    def blocks(self) -> list[Block]:
        return [*map(Text, (*self.verdict, *self.remarks)), standing_table(self)]

    @property
    def verdict(self) -> list[str]:
        return [self.sentence, *([] if self.agent is None else [self.agent_note])]


def standing_table(result: EvolveResult) -> Table:
    """The candidates on the sealed split."""
    return table(
        result.standings,
        {
            "": lambda s: NAMES[s.name],
            "candidate": lambda s: f"no new child; {s.what}, {s.start}" if s.start else s.what,
            "answers": lambda s: "–" if s.spent is None else f"{s.spent:,}",
            "train accuracy": lambda s: f"{s.train:.1%}",
            "test accuracy": lambda s: str(s.test),
            f"test, by {BESIDE}": lambda s: figure_or_dash(s.tests.get(BESIDE)),
            "train - test": lambda s: f"{100 * s.gap:+.1f}",
            "difference (evolved - this)": lambda s: figure_or_dash(s.gain),
            f"difference, by {BESIDE}": lambda s: figure_or_dash(s.gains.get(BESIDE)),
            "discordant": lambda s: "–" if s.gain is None else f"{s.differ} of {s.test.count}",
        },
        f"One candidate per row, chosen on {result.train} train questions before the {result.test} sealed ones were "
        "opened. Parents, blend and base precede the searches, which share one limit on answers. Differences are in "
        f"points, by McNemar's exact test: at 95% against random search, Holm-corrected as one family otherwise. "
        f"Discordant: questions that exactly one of the two answers correctly. {FORM}",
    )


# -- while it runs --------------------------------------------------------------------------------------------------


def narrate(event: Event) -> Narration | None:
    """A line for each generation; single children are told with -v."""
    data = event.data
    match event.type:
        case "study.opened":
            return Narration(line=data["summary"], done=data["done"], total=data["total"])
        case "base.importing" | "base.loading":
            return Narration(detail=f"{event.type.removeprefix('base.')} {event.id}")
        case "questions.answered":
            return Narration(detail=f"{data['done']:,} answers", done=data["done"], total=data["total"])
        case "generation.finished":
            return Narration(line=_generation(event))
        case "split.opened":
            return Narration(line="  all winners are chosen; opening the sealed split")
        case "split.scored":
            return Narration(line="  scored the sealed questions", detail="writing the report")
        case "decision.made":
            narration = narrate_study(event, TERMS)
            return None if narration is None else Narration(verbose=narration.line)
    return narrate_study(event, TERMS)


def _generation(event: Event) -> str:
    terms = event.data["terms"]
    study, _, name = event.id.rpartition("/")
    begins = f"  {f'{study}, ' if study else ''}generation {int(name.removeprefix('gen_'))}: "
    if not terms:
        return f"{begins}every child failed"
    best = max(terms, key=lambda child: terms[child]["task"])
    stopped = sum(child_terms["cooperation"] is None for child_terms in terms.values())
    early = f", {stopped} stopped early" if stopped else ""
    return (
        f"{begins}best {best}, probability of the right answer {number(terms[best]['task'])}, accuracy "
        f"{terms[best]['solo']:.1%}; {event.data['children']} children{early}"
    )
