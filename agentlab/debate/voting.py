"""Votes on what was said in debates, by every rule, and what they are fitted on. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from statistics import fmean
from typing import get_args

from pydantic import Field

from agentlab.answers.calibration import Platt, fit
from agentlab.answers.votes import Tally, borda, softmax, trajectory, vote
from agentlab.debate.config import Confidence, DebateConfig, Rule
from agentlab.debate.protocol import Rounds, by_round
from agentlab.debate.transcript import Ballot, Held, Turn
from agentlab.runs.document import Plain
from agentlab.tasks.questions import Question

RULES: tuple[Rule, ...] = get_args(Rule)
Tallies = dict[Rule, Tally[str]]

_TEMPERATURES = (2.0, 1.0, 0.5, 0.2, 0.1, 0.05)
_UNKNOWN, _LEAST = 0.5, 1e-4  # weight of an answer without a confidence, and of any answer


class Fitted(Plain):
    """What the questions put aside for it tell; nothing of it is taken from those that are scored.

    `best` is the agent that was right most often on its own, the first of equals; `calibration` makes a confidence a
    probability, by kind and agent. Without questions `best` is the first agent, and confidences stay as they are.
    """

    best: str
    questions: int
    accuracy: dict[str, float] = Field(default_factory=dict)
    calibration: dict[Confidence, dict[str, Platt]] = Field(default_factory=dict)
    temperature: float = 1.0

    def probability(self, turn: Turn, kind: Confidence) -> float | None:
        """The turn's confidence of this kind as a probability; as the agent gave it where nothing was fitted."""
        said = turn.confidences.get(kind)
        line = self.calibration.get(kind, {}).get(turn.agent)
        return said if said is None or line is None else line(said)


@dataclass(frozen=True)
class Case:
    """A question and all that was said about it; `debate` holds a turn of every agent in each round that was held."""

    question: Question
    debate: Rounds
    length: Rounds = ()
    samples: Sequence[Turn] = ()
    ballots: Sequence[Ballot] = ()

    @cached_property
    def marks(self) -> Mapping[str | None, bool]:
        """Whether each answer that was given is right. One that could not be read is wrong."""
        turns = [*(turn for rounds in (self.debate, self.length) for said in rounds for turn in said), *self.samples]
        answers = {None, *(turn.answer for turn in turns), *(ballot.answer for ballot in self.ballots)}
        return {answer: self.question.right(answer) for answer in answers}


def cases_of(questions: Sequence[Question], held: Held, config: DebateConfig) -> list[Case]:
    """The questions that were debated, in their order, with what was said in each arm."""
    agents = {agent.name: place for place, agent in enumerate(config.agents)}
    debate, length = by_round(held.turns, "debate", agents), by_round(held.turns, "length", agents)
    samples, judged = defaultdict[str, list[Turn]](list), defaultdict[str, list[Ballot]](list)
    for turn in held.turns:
        if turn.arm == "samples":
            samples[turn.question].append(turn)
    for ballot in held.ballots:
        judged[ballot.question].append(ballot)
    return [
        Case(
            question,
            said := debate[question.id],
            [said[0], *length.get(question.id, ())],
            sorted(samples[question.id], key=lambda turn: turn.sample),
            judged[question.id],
        )
        for question in questions
        if question.id in debate
    ]


def fitted(questions: Sequence[Question], held: Held, config: DebateConfig) -> Fitted:
    """The best agent, calibration and temperature, from questions that are never scored."""
    cases, names = cases_of(questions, held, config), [agent.name for agent in config.agents]
    if not cases:
        return Fitted(best=names[0], questions=0)
    accuracy = {
        name: fmean(case.marks[case.debate[0][place].answer] for case in cases) for place, name in enumerate(names)
    }
    pairs: dict[Confidence, dict[str, list[tuple[float, bool]]]] = {}
    for case in cases:
        for turn in (turn for said in case.debate for turn in said):
            for kind, sure in turn.confidences.items():
                pairs.setdefault(kind, {}).setdefault(turn.agent, []).append((sure, case.marks[turn.answer]))
    lines = {kind: {name: fit(*zip(*own, strict=True)) for name, own in of.items()} for kind, of in pairs.items()}
    best = max(names, key=lambda name: accuracy[name])
    found = Fitted(best=best, questions=len(cases), accuracy=accuracy, calibration=lines)
    warm = [found.model_copy(update={"temperature": temperature}) for temperature in _TEMPERATURES]
    return max(warm, key=lambda each: _likelihood(cases, each, config)) if lines else found


def _likelihood(cases: Sequence[Case], fitted: Fitted, config: DebateConfig) -> float:
    """Logarithm of the weight of the right answers, where somebody gave them; the highest temperature of equals."""
    tallies = [vote_by("softmax", case.debate[: primary(config) + 1], fitted, config) for case in cases]
    pairs = [
        (case.marks[group.answer], group) for case, tally in zip(cases, tallies, strict=True) for group in tally.groups
    ]
    return round(sum(log(max(float(group.weight), _LEAST)) for right, group in pairs if right), 9)


# -- votes ----------------------------------------------------------------------------------------------------------


def votes(rounds: Rounds, fitted: Fitted, config: DebateConfig, ballots: Sequence[Ballot] = ()) -> list[Tallies]:
    """What each rule makes of one question, behind each round that was held; `judge` in rounds that were judged."""
    found: list[Tallies] = [
        {rule: vote_by(rule, rounds[: number + 1], fitted, config) for rule in RULES if rule != "judge"}
        for number in range(len(rounds))
    ]
    for ballot in ballots:
        found[ballot.round]["judge"] = vote([ballot.answer])
    return found


def vote_by(rule: Rule, rounds: Rounds, fitted: Fitted, config: DebateConfig) -> Tally[str]:
    """What a rule makes of one question behind these rounds; ties go to the agent named first.

    On an agent's Borda ballot stands its answer, and behind it what it held before, the latest first: of all answers
    these are the ones it ranked itself. The others share the points that are left. Where a judge is to decide and
    there is none, the majority does.
    """
    answers = [[turn.answer for turn in turns] for turns in rounds]
    last = answers[-1]
    match rule:
        case "borda":
            held = zip(*reversed(answers), strict=True)
            return borda([[each for each in own if each is not None] if own[0] is not None else [] for own in held])
        case "trajectory":
            return trajectory(answers)
        case "confidence" | "softmax":
            said = [fitted.probability(turn, config.turn.confidence) for turn in rounds[-1]]
            sure = [max(_UNKNOWN if each is None else each, _LEAST) for each in said]
            return vote(last, sure if rule == "confidence" else softmax(sure, fitted.temperature))
    return vote(last)


def primary(config: DebateConfig) -> int:
    """The round that is voted on."""
    return config.protocol.rounds if config.vote.round is None else config.vote.round


def at_round(tallies: Sequence[Tallies], config: DebateConfig, number: int | None = None) -> Tallies:
    """Those behind a round, by default the one that is voted on; a question that was over before keeps its last."""
    return tallies[min(primary(config) if number is None else number, len(tallies) - 1)]
