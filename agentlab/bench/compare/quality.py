"""Two quality runs: scores, item by item, and how long the answers took."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from agentlab.bench.compare.result import Figure, Side
from agentlab.bench.quality.result import ANSWERS_FILE, Answer
from agentlab.errors import RunUnreadableError, UsageError
from agentlab.stats.control import Interval
from agentlab.stats.proportions import paired_share_difference_interval
from agentlab.stats.ratios import quantile_ratio_intervals
from agentlab.tasks.items import TASK_TYPES

Floats = NDArray[np.float64]

_LEAST_TIMES = 10


def quality_figures(one: Side, other: Side, pair: tuple[str, str]) -> list[Figure]:
    """Difference of the scores over all items and by type, and ratio of the median answer times.

    Raises:
        UsageError: the runs asked other items.
        RunUnreadableError: the file of answers is absent or damaged.
    """
    sets = [side.result.quality.item_set for side in (one, other) if side.result.quality]
    if len(set(sets)) > 1:
        raise UsageError(
            "The two runs asked different items; their scores do not compare.",
            hint="Run both with the same quality.types, quality.per_type and quality.items_seed.",
        )
    judges = {side.result.quality.judge.model for side in (one, other) if side.result.quality}
    name = pair[0] if pair[0] == pair[1] else f"{pair[0]} / {pair[1]}"
    a, b = _answers(one, pair[0]), _answers(other, pair[1])
    if len(judges) > 1:  # scores of two judges are on two scales
        a, b = ({key: value for key, value in side.items() if value.type != "open"} for side in (a, b))
    shared = [(a[item], b[item]) for item in a if item in b]
    note = "open answers left out: they had different judges" if len(judges) > 1 else ""
    return [*_scores(name, shared, note), _speed(name, shared)]


def _answers(side: Side, target: str) -> dict[str, Answer]:
    try:
        lines = side.record.text(ANSWERS_FILE).split("\n")
        answers = [Answer.model_validate_json(line) for line in lines if line]
    except ValueError as error:
        raise RunUnreadableError(
            f"{side.record.path / ANSWERS_FILE} is damaged.", hint="Its events hold the answers, too: resume the run."
        ) from error
    return {answer.item: answer for answer in answers if answer.target == target}


def _scores(target: str, pairs: Sequence[tuple[Answer, Answer]], note: str) -> Iterator[Figure]:
    yield _score(target, "quality", pairs, note)
    for kind in TASK_TYPES:
        own = [pair for pair in pairs if pair[0].type == kind]
        if own:
            yield _score(target, f"quality, {kind}", own, "")


def _score(target: str, metric: str, pairs: Sequence[tuple[Answer, Answer]], note: str) -> Figure:
    known = [(a.score, b.score) for a, b in pairs if a.score is not None and b.score is not None]
    first, second = [a for a, _ in known], [b for _, b in known]
    return Figure(
        target=target,
        stage="",
        metric=metric,
        unit="",
        kind="difference",
        direction="higher",
        first=sum(first) / len(first) if first else None,
        second=sum(second) / len(second) if second else None,
        n=(len(first), len(second)),
        interval=partial(_paired, first, second) if known else None,
        note=note if known else "no item was scored in both",
    )


def _speed(target: str, pairs: Sequence[tuple[Answer, Answer]]) -> Figure:
    first, second = (
        np.array([pair[side].total_seconds or 0.0 for pair in pairs if not pair[side].error], dtype=np.float64)
        for side in (0, 1)
    )
    first, second = first[first > 0], second[second > 0]
    enough = min(first.size, second.size) >= _LEAST_TIMES
    return Figure(
        target=target,
        stage="",
        metric="answer time p50",
        unit="s",
        kind="ratio",
        direction="lower",
        first=float(np.median(first)) if first.size else None,
        second=float(np.median(second)) if second.size else None,
        n=(first.size, second.size),
        interval=partial(_ratio, first, second) if enough else None,
        note="" if enough else f"too few answers: it takes {_LEAST_TIMES} on each side",
    )


def _paired(first: list[float], second: list[float], level: float, rng: np.random.Generator) -> Interval:
    del rng
    return paired_share_difference_interval(first, second, level=level)


def _ratio(
    first: Floats,
    second: Floats,
    level: float,
    rng: np.random.Generator,
) -> Interval:
    return quantile_ratio_intervals(first, second, [0.5], rng, level=level, resamples=4_000)[0]
