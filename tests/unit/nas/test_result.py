"""What a study says of itself: never more than was measured, and what to do when a simple forecast is better."""

import pytest

from agentlab.llm.types import Usage
from agentlab.nas.result import NasResult, Planner, ReferenceRow, TrialRow, Winner, source_rows
from agentlab.nas.run import planner
from agentlab.runs.document import Text
from agentlab.runs.events import Event

TRIAL = TrialRow(
    run_id="run_0000",
    source="default",
    arm="shared",
    val_mse=0.5,
    accepted=True,
    parameters=10,
    seconds=1.0,
    changes={},
    note="",
    error="",
)


def result(test_mse: float, trials: int = 2) -> NasResult:
    winner = {"source": "gp", "params": {}, "changes": {}, "val_mse": 0.5, "test_mae": 0.4, "parameters": 1234}
    reference = {"note": "", "val_mse": 0.5, "val_mae": 0.4, "test_mae": 0.4}
    return NasResult(
        series="s",
        winner=Winner(run_id="run_0001", test_mse=test_mse, **winner),  # type: ignore[arg-type]
        references=[
            ReferenceRow(name="last", test_mse=0.8, **reference),  # type: ignore[arg-type]
            ReferenceRow(name="ridge", test_mse=0.4, **reference),  # type: ignore[arg-type]
        ],
        trials=[TRIAL] * trials,
        sources=source_rows([TRIAL] * trials),
        planner=Planner(calls=0, answered=0, input_tokens=0, output_tokens=0, cost_usd=0.0),
        control=None,
        control_note="no agent",
    )


@pytest.mark.parametrize(
    ("test_mse", "words"), [(0.3, "25% below"), (0.44, "10% above"), (2.0, "5.0 times"), (0.4, "0% above")]
)
def test_headline_sets_the_winner_beside_the_best_reference(test_mse: float, words: str) -> None:
    headline = result(test_mse).headline()
    assert f"{words} the best reference (ridge, 0.4000)" in headline
    assert "1,234 weights" in headline


def test_one_trial_is_not_one_trials() -> None:
    assert "of 1 trial (" in result(0.3, trials=1).headline()


def test_advice_is_given_only_when_a_simple_forecast_is_better() -> None:
    assert result(0.3).advice() == []
    (advice,) = result(0.5).advice()
    assert isinstance(advice, Text)
    assert "training.epochs" in advice.text


def test_the_table_is_sorted_by_test_error() -> None:
    assert [row[0] for row in result(0.5).comparison().rows] == ["ridge", "winner run_0001", "last"]


def test_no_calls_cost_nothing_and_calls_of_unknown_cost_stay_unknown() -> None:
    assert planner([], Usage()) == Planner(calls=0, answered=0, input_tokens=0, output_tokens=0, cost_usd=0.0)
    called = Event(0, 0.0, "llm.called", "x", {"error": None})
    failed = Event(1, 0.0, "llm.called", "y", {"error": {"kind": "LLMTimeoutError"}})
    found = planner([called, failed], Usage(input_tokens=5, output_tokens=1, cost_usd=None))
    assert (found.calls, found.answered, found.input_tokens, found.cost_usd) == (2, 1, 5, None)
