"""One answer out of several. Pure."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Vote(Generic[H]):
    """`share` of the weight is behind the winner, `margin` more than behind the second. None won without a vote."""

    winner: H | None
    share: float
    margin: float


def plurality(answers: Sequence[H | None], weights: Sequence[float] | None = None) -> Vote[H]:
    """The answer with the most weight behind it; of equals, the one that was given first.

    None abstains: it counts for the whole, and for nobody.

    Args:
        answers: one per voter.
        weights: one per voter, at least 0; all alike without.

    Raises:
        ValueError: a weight is negative, or their number is not that of the answers.
    """
    given = [1.0] * len(answers) if weights is None else list(weights)
    if len(given) != len(answers) or any(not weight >= 0 for weight in given):
        raise ValueError("each answer needs one weight, and none below zero")
    behind: dict[H, float] = {}
    for answer, weight in zip(answers, given, strict=True):
        if answer is not None:
            behind[answer] = behind.get(answer, 0.0) + weight
    whole = sum(given)
    if not behind or whole <= 0:
        return Vote(None, 0.0, 0.0)
    ranked = sorted(behind.items(), key=lambda pair: -pair[1])
    second = ranked[1][1] if len(ranked) > 1 else 0.0
    winner, most = ranked[0]
    return Vote(winner, most / whole, (most - second) / whole)
