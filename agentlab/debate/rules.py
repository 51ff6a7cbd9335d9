"""Rules by which answers of a debate become one. A row here, or an entry point of another package, adds one. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from agentlab.answers.votes import Tally, borda, softmax, trajectory, vote
from agentlab.plugins import Registry

JUDGE = "judge"  # the rule that counts nothing: one agent decides


@dataclass(frozen=True, slots=True)
class DebateVotes:
    """What is counted of one question: the answers of each round, one per agent, None where nothing could be read."""

    answers: Sequence[Sequence[str | None]]
    confidences: Sequence[float] = ()  # in those of the last round, in (0, 1]; for rules by confidence alone
    temperature: float = 1.0  # of a softmax, as it was fitted


@dataclass(frozen=True, slots=True)
class VotingRule:
    """`by_confidence`: it weighs confidences, so it means something to several samples of one agent, too."""

    count: Callable[[DebateVotes], Tally[str]]
    by_confidence: bool = False


VOTING_RULES: Registry[VotingRule] = Registry(
    "voting rule",
    "agentlab.voting_rules",
    {
        "majority": "agentlab.debate.rules:MAJORITY",
        "confidence": "agentlab.debate.rules:CONFIDENCE",
        "softmax": "agentlab.debate.rules:SOFTMAX",
        "borda": "agentlab.debate.rules:BORDA",
        "trajectory": "agentlab.debate.rules:TRAJECTORY",
    },
)
_SCHEMA = WithJsonSchema({"type": "string", "enum": [*VOTING_RULES.table, JUDGE]})
RuleName = Annotated[str, AfterValidator(lambda name: VOTING_RULES.require(name, JUDGE)), _SCHEMA]
UsedRule = Annotated[str, _SCHEMA]  # of a run whose package may be gone


@cache
def load_rule(name: str) -> VotingRule:
    """The rule of that name. Raises AgentlabError if a package's cannot be used."""
    return VOTING_RULES.load(name, VotingRule)


def is_by_confidence(name: str) -> bool:
    """Whether the rule weighs confidences; the judge does not."""
    return name != JUDGE and load_rule(name).by_confidence


def _count_borda(votes: DebateVotes) -> Tally[str]:
    """On an agent's ballot stands its answer, and behind it what it held before, the latest first.

    Of all answers these are the ones it ranked itself; the others share the points that are left.
    """
    ballots: list[list[str]] = []
    for latest_first in zip(*reversed(votes.answers), strict=True):
        ranking = [answer for answer in latest_first if answer is not None]
        ballots.append([] if latest_first[0] is None else ranking)
    return borda(ballots)


MAJORITY = VotingRule(lambda votes: vote(votes.answers[-1]))
CONFIDENCE = VotingRule(lambda votes: vote(votes.answers[-1], votes.confidences), by_confidence=True)
SOFTMAX = VotingRule(
    lambda votes: vote(votes.answers[-1], softmax(votes.confidences, votes.temperature)), by_confidence=True
)
BORDA = VotingRule(_count_borda)
TRAJECTORY = VotingRule(lambda votes: trajectory(votes.answers))
