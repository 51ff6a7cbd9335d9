"""What `agentlab debate` answers, and what it says while it runs."""

from collections.abc import Mapping
from typing import Annotated, Literal

from agentlab.answers.calibration import Bin
from agentlab.debate.config import Confidence
from agentlab.debate.config import Control as Against
from agentlab.debate.rules import UsedRule
from agentlab.runs.document import (
    AnswerDocument,
    Block,
    BoundedDifference,
    BoundedShare,
    Column,
    Plain,
    Table,
    Text,
    columns_of,
    figure_or_dash,
    table,
)
from agentlab.runs.events import Event, Narration
from agentlab.stats.control import Control, verdict_sentence
from agentlab.tasks.labelled import Labelled

ArmName = Literal["debate", "vote", "single", "samples", "length"]
NAMES: Mapping[ArmName, str] = {
    "debate": "debate",
    "vote": "vote on first answers",
    "single": "{best} alone",
    "samples": "{best}, self-consistency",
    "length": "rereading own answers",
}
TOPIC = "topic"  # the id of what is debated where nobody can mark it
_SHOWN = 300  # characters of what somebody says on the screen


class ArmResult(Plain):
    """The debate or one of its baselines, on the same questions."""

    arm: ArmName
    accuracy: Annotated[BoundedShare, Column("accuracy", str, "By the vote chosen before the run.")]
    turns: int
    unreadable: int  # turns without an answer that could be read, which count as wrong
    tokens: Annotated[int, Column("tokens", ",", "Prompt tokens, including the peers' text, and answer tokens.")]
    seconds: Annotated[float | None, Column("seconds", ".1f", "Null if time was not measured.")]
    short: int = 0  # questions on which all samples together took fewer tokens than the debate
    gain: Annotated[BoundedDifference | None, Column("difference (debate - this)", str, "Points, paired by question.")]

    @property
    def unreadable_share(self) -> Annotated[float, Column("unreadable", ".0%")]:
        return self.unreadable / max(1, self.turns)


class RuleResult(Plain):
    """A vote after a round, and how much better it is than what is held against the debate."""

    round: int
    rule: UsedRule
    accuracy: BoundedShare
    gain: BoundedDifference | None


class RoundResult(Plain):
    """A round. `oracle`: on how many questions anybody was right."""

    round: int
    debated: int
    turns: int
    unreadable: int
    agents: dict[str, BoundedShare]
    oracle: BoundedShare


class Change(Plain):
    """Turns of an agent in a round, counted by what it held before.

    `right`: it was right; `lost` it; was `tempted`, as it heard a wrong answer; was `misled`, as it took that over.
    `wrong`: it was wrong; `gained` the right answer; was `shown` it by a peer; was `convinced`, as it took that over.
    """

    agent: str
    round: int
    right: int
    lost: int
    tempted: int
    misled: int
    wrong: int
    gained: int
    shown: int
    convinced: int


class CalibrationScores(Plain):
    """How far confidences are probabilities. `within`: how often, of a right and a wrong answer to the same question,
    the right one has the higher confidence (ties half), over `pairs`."""

    answers: int
    ece: float
    brier: float
    auroc: float | None
    pairs: int
    within: float | None
    bins: list[Bin]


class Calibration(Plain):
    """A kind of confidence in a round, as the agents gave it, and by the lines that were fitted on other questions."""

    kind: Confidence
    round: int
    before: CalibrationScores
    after: CalibrationScores | None


class Position(Plain):
    """What an agent held about a topic. None: it could not be read."""

    agent: Annotated[str, Column("agent")]
    first: Annotated[str | None, Column("first answer")]
    last: str | None
    confidence: Annotated[float | None, Column("confidence", ".0%")]

    @property
    def end(self) -> Annotated[str | None, Column("final answer")]:
        return "unchanged" if self.first == self.last else self.last


class VoteOutcome(Plain):
    """A vote on one question; `share` of the weight is behind the answer."""

    answer: str | None
    share: float
    tied: bool

    def __str__(self) -> str:
        return f"{self.share:.0%} of the weight{', with the tie broken by agent order' if self.tied else ''}"


class Telling(Plain):
    """A debate that is shown, why, and the vote after each round that was held."""

    question: str
    why: str
    votes: list[VoteOutcome]


class DebateResult(AnswerDocument):
    """The answer of `agentlab debate`. `compared` differences are exploratory, and one family (Holm).

    `rereading` is how arm `length` ended after each round; `alone` how agents choose by likelihood, without a word.
    """

    sentence: str
    remarks: list[str]
    topic: str | None
    questions: int
    dev: int
    best: str
    rule: UsedRule
    round: int
    against: Against
    control: Control
    compared: int
    arms: list[ArmResult]
    rules: list[RuleResult]
    rereading: list[BoundedShare]
    rounds: list[RoundResult]
    alone: Labelled | None = None
    changes: list[Change]
    correlations: dict[str, dict[str, float | None]]
    calibration: list[Calibration]
    positions: list[Position]
    telling: list[Telling]

    @property
    def accuracy(self) -> float | None:
        """By the vote that was named before the run."""
        return next((arm.accuracy.value for arm in self.arms if arm.arm == "debate"), None)

    def blocks(self) -> list[Block]:
        return [*map(Text, (*self.verdict, *self.remarks)), *self.tables()]

    def tables(self) -> list[Block]:
        if self.topic is not None:
            return [self._positions()]
        return [*([self._arms()] if self.arms else ()), *(self.alone.blocks() if self.alone else ())]

    @property
    def verdict(self) -> list[str]:
        """What the vote came to, where there is a topic, and what debating was worth."""
        sentences = []
        for telling in self.telling if self.topic is not None else ():
            changed, last = sum(position.first != position.last for position in self.positions), len(telling.votes) - 1
            early = "" if last == self.round else " (all agreed, so the debate ended early)"
            sentences.append(
                f"After round {last}{early} the {self.rule} vote is "
                f"{figure_or_dash(telling.votes[-1].answer)}, with {telling.votes[-1]}; "
                f"{changed} of {len(self.positions)} agents changed their answer."
            )
        return [*sentences, self.sentence]

    def _positions(self) -> Table:
        return table(
            self.positions,
            columns_of(Position, "agent", "first", "end", "confidence"),
            "Positions",
        )

    def _arms(self) -> Table:
        return table(
            self.arms,
            {
                "": lambda a: NAMES[a.arm].format(best=self.best) + (" *" if a.arm == self.against else ""),
                **columns_of(ArmResult, "accuracy", "gain", "unreadable_share", "tokens", "seconds"),
            },
            f"{self.questions} questions, {self.rule} vote after round {self.round}. Accuracy with 95% intervals; "
            f"differences in points by McNemar's exact test. * marks the baseline of the verdict, at 95%; the other "
            f"{self.compared} differences in this report are exploratory, Holm-corrected as one family",
        )


def sentence(control: Control, accuracy: BoundedShare | None) -> str:
    """The verdict in one sentence."""
    if control.verdict == "not_measured" or accuracy is None:
        return f"Not measured: {control.note[:1].lower()}{control.note[1:]}"
    verdict = verdict_sentence(control, "debating", "questions")
    return f"{verdict} Accuracy: {accuracy.value:.0%} ({control.agent}). Budget: {control.budget}."


# -- while it runs --------------------------------------------------------------------------------------------------


def narrate(event: Event) -> Narration | None:
    """Each turn of a topic as it is said; of many questions a bar with the running accuracy."""
    data = event.data
    match event.type:
        case "questions.read":
            return Narration(line=f"  {data['count']} questions, {data['dev']} of them reserved for calibration")
        case "base.importing" | "base.loading":
            return Narration(detail=f"{event.type.removeprefix('base.')} {event.id}")
        case "dev.fitted" if data["questions"]:
            right = ", ".join(f"{name} {share:.0%}" for name, share in data["accuracy"].items())
            return Narration(line=f"  accuracy of first answers on {data['questions']} calibration questions: {right}")
        case "turn.said":
            line = f"  round {data['round']}, {data['agent']}: {_cut(data['text'] or data['error'])}"
            return Narration(line=line) if data["question"] == TOPIC else Narration(verbose=line)
        case "wave.finished":
            so_far = f"{data['right']} of {data['scored']} right" if data.get("scored") else None
            return Narration(detail=so_far, done=data.get("done"), total=data.get("total"))
    return None


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
