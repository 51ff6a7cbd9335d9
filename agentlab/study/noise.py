"""How much a value moves when only the seed changes, and what difference is more than that. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from agentlab.study.terms import StudyTerms

ASSUMED = 0.02  # where nothing could be measured: between the 0.5 % and 4 % that small Informers show
# A difference counts beyond the 97.5 % quantile of Student's t with the freedom of the noise: two values say little.
_QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
_NORMAL = 1.96
_UNSTABLE = 0.1  # a deviation from seed to seed beyond which one measurement says little about the next


@dataclass(frozen=True, slots=True)
class Noise:
    """Relative standard deviation of one measurement, with the degrees of freedom of its estimate.

    `trainings` 0 means that it was not measured, and 0 degrees of freedom that nothing is uncertain about it.
    """

    deviation: float
    trainings: int = 0
    freedom: int = 0

    def limit(self, first: int, second: int, other_noise: "Noise | None" = None) -> float:
        """Logarithm of the ratio that the means of so many measurements must exceed to count as different.

        `other_noise` is the noise of the second mean; None is the same.
        """
        other_noise = other_noise or self
        freedom = min((noise.freedom for noise in (self, other_noise) if noise.freedom), default=0)
        width = _QUANTILES[freedom - 1] if 0 < freedom <= len(_QUANTILES) else _NORMAL
        return width * math.sqrt(self.deviation**2 / first + other_noise.deviation**2 / second)

    def sentence(self, terms: StudyTerms, trials: str = "") -> str:
        """For a reader; `trials` names those that it was measured on, where others have a noise of their own."""
        if not self.trainings:
            return (
                f"The noise was not measured; a standard deviation of {self.deviation:.1%} per "
                f"{terms.measurement} is assumed."
            )
        return (
            f"The seed alone changes the {terms.error}{f' of {trials}' if trials else ''} by "
            f"{self.deviation:.2%} (one standard deviation, measured on {self.trainings} "
            f"{terms.measurement}s in the search)."
        )


def unstable(errors: Sequence[float]) -> bool:
    """Whether values that differ by the seed alone scatter so much that one of them says little about the next."""
    return len(errors) > 1 and estimate_noise([errors]).deviation > _UNSTABLE


def estimate_noise(groups: Iterable[Sequence[float]], assumed: float = ASSUMED) -> Noise:
    """Pooled relative deviation over groups of errors; within a group only the seed differs.

    Logarithms make it relative; each group loses one degree of freedom to its own mean.
    """
    squares, freedom, count = 0.0, 0, 0
    for group in groups:
        if len(group) < 2:
            continue
        logs = [math.log(max(value, 1e-12)) for value in group]
        mean = fmean(logs)
        squares += sum((value - mean) ** 2 for value in logs)
        freedom += len(logs) - 1
        count += len(logs)
    return Noise(math.sqrt(squares / freedom), count, freedom) if freedom else Noise(assumed)
