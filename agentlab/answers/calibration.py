"""How far a confidence is the probability of being right, and how it is made one. Pure.

`confidences` are in [0, 1], one for each answer; `right` says which of the answers were right.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, log, tanh

_EDGE = 1e-4  # a confidence, and a probability made of it, are at least so far from 0 and from 1
_STEPS, _RIDGE, _SMALL = 10_000, 1e-9, 1e-9


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence, above `low` and up to `high`: a point of the reliability plot."""

    low: float
    high: float
    count: int
    confidence: float  # mean
    accuracy: float


def bins(confidences: Sequence[float], right: Sequence[bool], number: int = 10) -> list[Bin]:
    """Bins of equal width (Guo et al., arXiv 1706.04599, section 2); those without an answer are left out.

    Raises:
        ValueError: a confidence is not in [0, 1], or their number is not that of `right`.
    """
    pairs_by_bin: dict[int, list[tuple[float, bool]]] = {}
    edges = [step / number for step in range(1, number)]
    for confidence, is_right in _pairs(confidences, right):
        pairs_by_bin.setdefault(bisect_left(edges, confidence), []).append((confidence, is_right))
    points = []
    for index, pairs in sorted(pairs_by_bin.items()):
        mean = fsum(confidence for confidence, _ in pairs) / len(pairs)
        accuracy = sum(is_right for _, is_right in pairs) / len(pairs)
        points.append(Bin(index / number, (index + 1) / number, len(pairs), mean, accuracy))
    return points


def ece(points: Sequence[Bin]) -> float:
    """Expected calibration error, in [0, 1]: the mean distance of accuracy and confidence (arXiv 1706.04599, eq. 3).

    Raises:
        ValueError: there are no answers.
    """
    if not points:
        raise ValueError("there are no answers")
    return fsum(point.count * abs(point.accuracy - point.confidence) for point in points) / sum(b.count for b in points)


def brier(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared distance of confidence and outcome, in [0, 1] (Brier, 1950, for one of two outcomes).

    Raises:
        ValueError: as of `bins`, or there are no answers.
    """
    pairs = _pairs(confidences, right)
    if not pairs:
        raise ValueError("there are no answers")
    return fsum((confidence - is_right) ** 2 for confidence, is_right in pairs) / len(pairs)


def auroc(confidences: Sequence[float], right: Sequence[bool]) -> float | None:
    """How often a right answer has more confidence than a wrong one, ties counted half (Hanley and McNeil, 1982).

    None where all are right, or all wrong. Any order-preserving change of the confidences leaves it as it is.

    Raises:
        ValueError: as of `bins`.
    """
    pairs = _pairs(confidences, right)
    wrong = sorted(confidence for confidence, is_right in pairs if not is_right)
    good = [confidence for confidence, is_right in pairs if is_right]
    if not good or not wrong:
        return None
    twice = sum(bisect_left(wrong, score) + bisect_right(wrong, score) for score in good)
    return twice / (2 * len(good) * len(wrong))


@dataclass(frozen=True, slots=True)
class Platt:
    """A confidence c as a probability: 1 / (1 + exp(-(slope * log(c / (1 - c)) + offset))). `slope` is at least 0."""

    slope: float
    offset: float

    def __call__(self, confidence: float) -> float:
        """The probability, in [0.0001, 0.9999]: nothing is certain."""
        return _inner((1 + tanh((self.slope * _logit(confidence) + self.offset) / 2)) / 2)


def fit(confidences: Sequence[float], right: Sequence[bool]) -> Platt:
    """Platt's scaling (1999) of log-odds, with his targets, by the steps of Boehning and Lindsay (1988).

    Two numbers are what some fifty answers can bear. A temperature, one number, cannot bring a voter that is more often
    wrong than right below one half; isotonic regression needs about a thousand answers (Niculescu-Mizil and Caruana,
    2005). The targets (n + 1) / (n + 2) in place of 1 keep the fit finite where all are right. A confidence
    that is higher for wrong answers tells nothing that may be relied on: its slope is 0, all get the same probability.

    Raises:
        ValueError: as of `bins`, or there are no answers.
    """
    pairs = _pairs(confidences, right)
    if not pairs:
        raise ValueError("there are no answers")
    import numpy as np

    odds = np.array([[_logit(confidence), 1.0] for confidence, _ in pairs])
    good = sum(is_right for _, is_right in pairs)
    targets = np.array([(good + 1) / (good + 2) if is_right else 1 / (len(pairs) - good + 2) for _, is_right in pairs])
    curvature = odds.T @ odds / 4 + _RIDGE * np.eye(2)  # the loss has nowhere more, so no step goes too far
    line = np.zeros(2)
    for _ in range(_STEPS):
        step = np.linalg.solve(curvature, odds.T @ ((1 + np.tanh(odds @ line / 2)) / 2 - targets))
        line -= step
        if np.abs(step).max() < _SMALL:
            break
    return Platt(float(line[0]), float(line[1])) if line[0] >= 0 else Platt(0.0, _logit(float(targets.mean())))


def _pairs(confidences: Sequence[float], right: Sequence[bool]) -> list[tuple[float, bool]]:
    if not all(0 <= confidence <= 1 for confidence in confidences):
        raise ValueError("a confidence must be from 0 to 1")
    return list(zip(confidences, right, strict=True))


def _logit(confidence: float) -> float:
    return log(_inner(confidence) / (1 - _inner(confidence)))


def _inner(confidence: float) -> float:
    return min(max(confidence, _EDGE), 1 - _EDGE)
