"""Votes on what was said in debates, by every rule, and what they are fitted on. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import log
from statistics import fmean

from pydantic import Field

from agentlab.answers.calibration import Platt, fit
from agentlab.answers.votes import Tally, vote
from agentlab.debate.config import Confidence, DebateConfig
from agentlab.debate.protocol import Rounds, by_round
from agentlab.debate.rules import JUDGE, VOTING_RULES, DebateVotes, load_rule
from agentlab.debate.transcript import Ballot, Held, Turn
from agentlab.runs.document import Plain
from agentlab.tasks.questions import QuizQuestion

Tallies = dict[str, Tally[str]]  # by rule

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
        confidence = turn.confidences.get(kind)
        line = self.calibration.get(kind, {}).get(turn.agent)
        return confidence if confidence is None or line is None else line(confidence)


@dataclass(frozen=True)
class DebateCase:
    """A question and all that was said about it; `debate` holds a turn of every agent in each round that was held."""

    question: QuizQuestion
    debate: Rounds
    length: Rounds = ()
    samples: Sequence[Turn] = ()
    ballots: Sequence[Ballot] = ()

    @cached_property
    def marks(self) -> Mapping[str | None, bool]:
        """Whether each answer that was given is right. One that could not be read is wrong."""
        turns = [*chain.from_iterable((*self.debate, *self.length)), *self.samples]
        answers = {None, *(turn.answer for turn in turns), *(ballot.answer for ballot in self.ballots)}
        return {answer: self.question.right(answer) for answer in answers}


def cases_of(questions: Sequence[QuizQuestion], transcript: Held, config: DebateConfig) -> list[DebateCase]:
    """The questions that were debated, in their order, with what was said in each arm."""
    agents = {agent.name: index for index, agent in enumerate(config.agents)}
    debate, length = by_round(transcript.turns, "debate", agents), by_round(transcript.turns, "length", agents)
    samples, judged = defaultdict[str, list[Turn]](list), defaultdict[str, list[Ballot]](list)
    for turn in transcript.turns:
        if turn.arm == "samples":
            samples[turn.question].append(turn)
    for ballot in transcript.ballots:
        judged[ballot.question].append(ballot)
    return [
        DebateCase(
            question,
            debate[question.id],
            [debate[question.id][0], *length.get(question.id, ())],
            sorted(samples[question.id], key=lambda turn: turn.sample),
            judged[question.id],
        )
        for question in questions
        if question.id in debate
    ]


def fit_votes(questions: Sequence[QuizQuestion], transcript: Held, config: DebateConfig) -> Fitted:
    """The best agent, calibration and temperature, from questions that are never scored."""
    cases, names = cases_of(questions, transcript, config), [agent.name for agent in config.agents]
    if not cases:
        return Fitted(best=names[0], questions=0)
    accuracy: dict[str, float] = {}
    for index, name in enumerate(names):
        accuracy[name] = fmean(case.marks[case.debate[0][index].answer] for case in cases)
    pairs: dict[Confidence, dict[str, list[tuple[float, bool]]]] = {}
    for case in cases:
        for turn in chain.from_iterable(case.debate):
            for kind, sure in turn.confidences.items():
                pairs.setdefault(kind, {}).setdefault(turn.agent, []).append((sure, case.marks[turn.answer]))
    lines: dict[Confidence, dict[str, Platt]] = {}
    for kind, pairs_by_agent in pairs.items():
        lines[kind] = {name: fit(*zip(*points, strict=True)) for name, points in pairs_by_agent.items()}
    best = max(names, key=lambda name: accuracy[name])
    base_fit = Fitted(best=best, questions=len(cases), accuracy=accuracy, calibration=lines)
    candidates = [base_fit.model_copy(update={"temperature": temperature}) for temperature in _TEMPERATURES]
    return max(candidates, key=lambda candidate: _likelihood(cases, candidate, config)) if lines else base_fit


def _likelihood(cases: Sequence[DebateCase], fitted: Fitted, config: DebateConfig) -> float:
    """Logarithm of the weight of the right answers, where somebody gave them; the highest temperature of equals."""
    right_weights: list[float] = []
    for case in cases:
        tally = vote_by("softmax", case.debate[: primary(config) + 1], fitted, config)
        right_weights += [float(group.weight) for group in tally.groups if case.marks[group.answer]]
    return round(sum(log(max(weight, _LEAST)) for weight in right_weights), 9)


# -- votes ----------------------------------------------------------------------------------------------------------


def rules_of(config: DebateConfig) -> list[str]:
    """By which a debate is counted: all of ours, and the one of a package that its config names."""
    return list(dict.fromkeys((*VOTING_RULES.table, config.vote.rule, JUDGE)))


def votes(rounds: Rounds, fitted: Fitted, config: DebateConfig, ballots: Sequence[Ballot] = ()) -> list[Tallies]:
    """What each rule makes of one question, behind each round that was held; `judge` in rounds that were judged."""
    tallies: list[Tallies] = []
    for number in range(len(rounds)):
        so_far = rounds[: number + 1]
        tallies.append({rule: vote_by(rule, so_far, fitted, config) for rule in rules_of(config) if rule != JUDGE})
    for ballot in ballots:
        tallies[ballot.round][JUDGE] = vote([ballot.answer])
    return tallies


def vote_by(rule: str, rounds: Rounds, fitted: Fitted, config: DebateConfig) -> Tally[str]:
    """What a rule makes of one question behind these rounds; ties go to the agent named first.

    Where a judge is to decide and there is none, the majority does.
    """
    voting_rule = load_rule("majority" if rule == JUDGE else rule)
    answers = [[turn.answer for turn in turns] for turns in rounds]
    sure: list[float] = []
    for turn in rounds[-1] if voting_rule.by_confidence else ():
        confidence = fitted.probability(turn, config.turn.confidence)
        sure.append(max(_UNKNOWN if confidence is None else confidence, _LEAST))
    return voting_rule.count(DebateVotes(answers, sure, fitted.temperature))


def primary(config: DebateConfig) -> int:
    """The round that is voted on."""
    return config.protocol.rounds if config.vote.round is None else config.vote.round


def at_round(tallies: Sequence[Tallies], config: DebateConfig, number: int | None = None) -> Tallies:
    """Those behind a round, by default the one that is voted on; a question that was over before keeps its last."""
    return tallies[min(primary(config) if number is None else number, len(tallies) - 1)]
