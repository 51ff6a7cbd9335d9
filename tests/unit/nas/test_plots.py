"""The pictures are SVG, equal for equal data, and draw whatever a study can hold: failures, one trial, wide ranges."""

from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from agentlab.nas.plots import (
    Curve,
    error_by_step,
    error_by_trial,
    finalists,
    forecasts,
    importance_bars,
    learning_curve,
    learning_curves,
    paired_studies,
)
from agentlab.nas.result import NasResult, ReferenceRow, TrialRow, Winner
from agentlab.nas.windows import WindowForecast


def size_of(picture: str) -> tuple[float, float]:
    """Width and height in points; fails on what is not XML."""
    box = ElementTree.fromstring(picture).attrib["viewBox"].split()
    return float(box[2]), float(box[3])


def study(values: list[float | None], references: dict[str, float]) -> NasResult:
    """Only what the picture reads: the rest of a result has tests of its own."""
    trials = [
        TrialRow.model_construct(
            run_id=f"run_{n:04d}", source=("default", "gp", "llm")[n % 3], val_mse=value, error="" if value else "died"
        )
        for n, value in enumerate(values)
    ]
    lines = [ReferenceRow.model_construct(name=name, val_mse=value) for name, value in references.items()]
    return NasResult.model_construct(trials=trials, references=lines, winner=Winner.model_construct(run_id="run_0000"))


PAST = np.sin(np.arange(48.0))[:, None]
DATES = np.arange(24).astype("datetime64[h]")
PICTURES: dict[str, Callable[[], str]] = {
    "trials": lambda: error_by_trial(study([0.6, 0.5, None, 0.4], {"ridge": 0.41, "last": 1.2}), noise=0.01),
    "one trial": lambda: error_by_trial(study([0.6], {"ridge": 0.41})),
    "all failed": lambda: error_by_trial(study([None, None], {"ridge": 0.41})),
    "wide range": lambda: error_by_trial(study([0.6, 80.0, 0.4], {"ridge": 0.41, "last": 1.2})),
    "curves": lambda: learning_curves([Curve("a", [1, 0.5], [1, 0.6]), Curve("b", [1], [0.9])], "a"),
    "curve": lambda: learning_curve(Curve("a", [1.0] * 30, [0.9] * 30)),
    "forecasts": lambda: forecasts("OT", [WindowForecast(DATES, PAST, PAST[:24] + 0.1, PAST[:24])]),
    "importances": lambda: importance_bars({"lr": 0.7, "model.d_model": 0.299, "mix": 0.001}),
    "steps": lambda: error_by_step([0.2, 0.3]),
    "one step": lambda: error_by_step([0.2]),
    "pairs": lambda: paired_studies([(0.5, 0.4), (0.5, 0.6), (0.5, 0.5)], "validation MSE"),
    "finalists": lambda: finalists([("run_0001", [0.4, 0.41, 0.42]), ("run_0002", [0.43])]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_an_svg_of_a_readable_size(name):
    width, height = size_of(PICTURES[name]())
    assert 360 < width < 400
    assert 100 < height < 700


def test_learning_curves_without_that_of_the_winner_have_no_legend() -> None:
    learning_curves([Curve("run_0001", [1.0], [0.5])], "run_0000")  # matplotlib's warning would be an error here


def test_equal_data_gives_equal_text():
    assert PICTURES["curve"]() == PICTURES["curve"]()


def test_no_share_is_a_matter_for_words():
    with pytest.raises(ValueError, match="no importances"):
        importance_bars({})


def test_many_shares_keep_the_picture_small():
    many = {f"p{n}": 1 / 40 for n in range(40)}
    assert size_of(importance_bars(many))[1] < 1.6 * size_of(importance_bars(dict(list(many.items())[:8])))[1]
