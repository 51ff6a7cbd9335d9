"""One answer out of several, counted. Pure.

A voter gives an answer in a form that equal answers share (`compare.normal`), or None where nothing could be read from
what it said: that backs nobody and still counts for the whole, as a wrong answer does. Weights are added exactly, so
the order of voters decides nothing but ties: of answers with equal weight, the one that was given first wins.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import exp, fsum, isfinite
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)

# Of a first answer, of one that was given up, of the one taken instead, and of one that was kept.
_TRAJECTORY = (20, 25, 30, 20)


@dataclass(frozen=True, slots=True)
class Group(Generic[H]):
    """An answer, the weight behind it, and the places of those who gave it."""

    answer: H
    weight: Fraction
    voters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tally(Generic[H]):
    """What a vote came to."""

    groups: tuple[Group[H], ...]  # every answer, the heaviest first; of equals, the one that was given first
    whole: Fraction  # the weight of all voters

    @property
    def leaders(self) -> tuple[Group[H], ...]:
        return tuple(group for group in self.groups if group.weight == self.groups[0].weight > 0)

    @property
    def winner(self) -> H | None:
        return self.leaders[0].answer if self.leaders else None

    @property
    def share(self) -> float:
        """How much of the whole is behind the winner, in [0, 1]."""
        return float(self.leaders[0].weight / self.whole) if self.leaders else 0.0

    @property
    def margin(self) -> float:
        """How much more of the whole is behind the winner than behind the second, in [0, 1]."""
        second = max(self.groups[1].weight, Fraction(0)) if len(self.groups) > 1 else Fraction(0)
        return float((self.leaders[0].weight - second) / self.whole) if self.leaders else 0.0


def vote(answers: Sequence[H | None], weights: Sequence[float] | None = None) -> Tally[H]:
    """Majority; with confidences as weights, the confidence-weighted majority (ReConcile, arXiv 2309.13007).

    The score of an answer is the sum of w_i over the voters i who gave it. `answers`: one per voter. `weights`: one per
    voter, at least 0; all alike without. 0.1 and 0.2 make 0.3.

    Raises:
        ValueError: a weight is negative or not finite, or their number is not that of the answers.
    """
    if weights is None:
        exact = [Fraction(1)] * len(answers)
    elif len(weights) != len(answers) or not all(isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError("each answer needs one weight, which must not be negative")
    else:
        exact = [Fraction(str(weight)) for weight in weights]
    scores: dict[H, Fraction] = defaultdict(Fraction)
    for answer, weight in zip(answers, exact, strict=True):
        if answer is not None:
            scores[answer] += weight
    return _tally(scores, ((answer,) for answer in answers), sum(exact, Fraction(0)))


def softmax(confidences: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Weights for `vote` from the confidences of voters in one question: exp(c_i / T) / sum of exp(c_j / T).

    CISC (arXiv 2502.06233). A high temperature makes it the majority, a low one trusts the surest voter.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError("the softmax temperature must be above 0")
    highest = max(confidences, default=0.0)
    powers = [exp((confidence - highest) / temperature) for confidence in confidences]
    total = fsum(powers)
    return [power / total for power in powers]


def borda(ballots: Sequence[Sequence[H]]) -> Tally[H]:
    """The Borda count: of m answers, the first on a ballot gets m points, the next m - 1, and so on (Borda, 1781).

    Answers that a ballot leaves out share its other points equally, so that all ballots weigh the same, and an empty
    one speaks for nobody. An answer that is named twice on a ballot counts where it stands first.
    """
    ranked = [list(dict.fromkeys(ballot)) for ballot in ballots]
    scores = dict.fromkeys(chain.from_iterable(ranked), Fraction(0))
    answer_count = len(scores)
    for ballot in ranked:
        left_out_points = Fraction(answer_count - len(ballot) + 1, 2)
        for answer in scores:
            scores[answer] += answer_count - ballot.index(answer) if answer in ballot else left_out_points
    return _tally(scores, ranked, Fraction(len(ranked) * answer_count * (answer_count + 1), 2))


def trajectory(rounds: Sequence[Sequence[H | None]], weights: Sequence[float] = _TRAJECTORY) -> Tally[H]:
    """A vote over a whole debate instead of its last round: Free-MAD's score (arXiv 2509.11035, algorithm 1).

    In round k, counted from 0, everything counts 1 / (k + 1). A voter's first answer gains w_1; one that it gives up
    loses w_2 and the one taken instead gains w_3; one that it keeps gains w_4. The whole is the sum of the scores above
    0, and of what voters whose answers could not be read would have gained by keeping theirs. `rounds`: the answers of
    each round, one per voter, in the same order in all rounds; `weights`: w_1 to w_4, at least 0; the defaults are the
    paper's.

    Raises:
        ValueError: rounds of different lengths.
    """
    first_weight, left_weight, taken_weight, kept_weight = (Fraction(str(weight)) for weight in weights)
    scores: dict[H, Fraction] = defaultdict(Fraction)
    turns = list(zip(*rounds, strict=True))
    latest, unread = list[H | None]([None] * len(turns)), Fraction(0)
    for number, answers in enumerate(rounds, 1):
        for voter, answer in enumerate(answers):
            before = latest[voter]
            if answer is None:
                unread += (first_weight if before is None else kept_weight) / number
                continue
            if before is not None and before != answer:
                scores[before] -= left_weight / number
            later_weight = kept_weight if before == answer else taken_weight
            scores[answer] += (first_weight if before is None else later_weight) / number
            latest[voter] = answer
    return _tally(scores, turns, unread + sum(score for score in scores.values() if score > 0))


def _tally(scores: Mapping[H, Fraction], ballots: Iterable[Iterable[H | None]], total_weight: Fraction) -> Tally[H]:
    """`scores` in the order in which answers were first given, and what each voter named."""
    voters: dict[H | None, list[int]] = {}
    for voter, answers in enumerate(ballots):
        for answer in dict.fromkeys(answers):
            voters.setdefault(answer, []).append(voter)
    groups = [Group(answer, score, tuple(voters[answer])) for answer, score in scores.items()]
    return Tally(tuple(sorted(groups, key=lambda group: -group.weight)), total_weight)
