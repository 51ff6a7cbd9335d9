"""What a reader sees of a study: sentences and tables that never say more than was measured."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.nas import report as tables
from agentlab.nas.result import (
    ChannelRow,
    FinalistRow,
    NasResult,
    NoiseRow,
    PublishedRow,
    ReferenceRow,
    SourceRow,
    TrialRow,
    Winner,
    advice,
    comparison,
    headline,
)
from agentlab.nas.study import TERMS
from agentlab.runs.document import Table, Text, with_spread
from agentlab.runs.report import html, markdown
from agentlab.study.calls import ModelRow, Planner, model_table, opinion_notes
from agentlab.study.control import Pair, pair_table

CONTROL_NOTE = "No language model took part."


def trial(number: int = 0, **changes: Any) -> TrialRow:
    fields: dict[str, Any] = {
        "run_id": f"run_{number:04d}",
        "source": "gp",
        "arm": "control",
        "val_mse": 0.5,
        "trainings": 1,
        "accepted": False,
        "reason": "higher",
        "judge": "rule",
        "parameters": 1234,
        "seconds": 1.0,
        "changes": {"model.d_model": 8},
        "note": "",
        "error": "",
    }
    return TrialRow(**fields | changes)


def reference(name: str, test_mse: float) -> ReferenceRow:
    return ReferenceRow(name=name, note="", val_mse=0.5, val_mae=0.4, test_mse=test_mse, test_mae=0.4)


def winner(**changes: Any) -> Winner:
    fields: dict[str, Any] = {
        "run_id": "run_0001",
        "source": "gp",
        "params": {"model.d_model": 8, "model.n_heads": 2},
        "changes": {"model.d_model": 8},
        "trainings": 1,
        "val_mse": 0.5,
        "test_mse": 0.3,
        "test_mae": 0.4,
        "test_mse_spread": None,
        "test_mae_spread": None,
        "parameters": 1234,
        "exported": "run_0001-f0",
    }
    return Winner(**fields | changes)


def result(**changes: Any) -> NasResult:
    fields: dict[str, Any] = {
        "series": "a series",
        "winner": winner(),
        "references": [reference("last", 0.8), reference("ridge", 0.4)],
        "published": [],
        "test_looks": 1,
        "by_step": [0.1, 0.2],
        "by_channel": [ChannelRow(name="load", mse=0.25, rmse=5.0)],
        "finalists": [FinalistRow(run_id="run_0001", search_val_mse=0.5, val_mse=[0.4, 0.5], failed=0, mean=0.45)],
        "noise": NoiseRow(deviation=0.02, trainings=0, note="The noise was not measured."),
        "trials": [trial(0), trial(1)],
        "sources": [SourceRow(source="gp", trials=2, failed=0, accepted=1, best_val_mse=0.5)],
        "importances": {},
        "planner": Planner(calls=0, answered=0, input_tokens=0, output_tokens=0, cost_usd=0.0),
        "models": [],
        "pairs": [],
        "control": None,
        "control_note": CONTROL_NOTE,
    }
    return NasResult(**fields | changes)


def scored(test_mse: float, **changes: Any) -> NasResult:
    return result(winner=winner(test_mse=test_mse, **changes))


# -- sentences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test_mse", "words"), [(0.3, "25% below"), (0.44, "10% above"), (2.0, "5.0 times"), (0.4, "level with")]
)
def test_headline_sets_the_winner_beside_the_best_reference(test_mse: float, words: str) -> None:
    text = headline(scored(test_mse))
    assert f"{words} the best baseline (ridge, 0.4000)" in text
    assert "1,234 weights" in text


def test_one_trial_is_not_one_trials() -> None:
    assert "of 1 trial (" in headline(result(trials=[trial()]))
    assert "of 2 trials (" in headline(result())


def test_a_mean_over_seeds_says_so_and_shows_its_spread() -> None:
    text = headline(scored(0.3251, trainings=3, test_mse_spread=0.0012))
    assert "test MSE 0.3251 ± 0.0012 over 3 seeds" in text
    reference = min(line.test_mse for line in result().references)
    width = 4.30 * 0.0012 / 0.3251 / math.sqrt(3)  # Student's t of two degrees of freedom
    low, high = (0.3251 / reference * math.exp(sign * width) - 1 for sign in (-1, 1))
    assert f"; over seeds {low:+.1%} to {high:+.1%})" in text
    assert "seeds" not in headline(result())


def test_advice_is_given_only_when_a_simple_forecast_is_better() -> None:
    assert advice(scored(0.4)) == []
    (text,) = advice(scored(0.5))
    assert text.startswith(
        "The baseline has the lower test error, but one training run cannot show whether the difference is real;"
    )
    assert "with more training or trials" in text
    (text,) = advice(scored(0.5, trainings=3, test_mse_spread=0.2))
    assert text.startswith("The difference from the baseline is not significant;")
    (text,) = advice(scored(0.5, trainings=3, test_mse_spread=0.001))
    assert text.startswith("The baseline is better; use the baseline")


def test_a_winner_whose_trainings_scatter_is_said_to_be_unstable() -> None:
    shaky = scored(0.3, trainings=2, val_mse=0.54, val_mse_spread=0.1273, unstable=True)
    (text,) = advice(shaky)
    assert (
        "over its 2 training runs in the last round, the validation MSE of 0.5400 has a standard deviation of 0.1273"
        in text
    )
    texts = [block.text for block in shaky.blocks() if isinstance(block, Text)]
    assert text in texts
    assert "0.5400 ± 0.1273" in {row[1] for row in comparison(shaky).rows}


def test_opinions_on_near_ties_are_held_against_what_was_measured() -> None:
    judge_row = ModelRow(
        model="judge",
        task="nas.evaluate",
        calls=4,
        answered=4,
        usable=4,
        share=None,
        accepted=None,
        checked=3,
        agreed=1,
        input_tokens=1,
        output_tokens=1,
        cost_usd=0.0,
    )
    (note,) = opinion_notes([judge_row], TERMS)
    assert isinstance(note, Text)
    assert "judge agreed with the repeated trainings in 1 of 3 cases" in note.text
    assert opinion_notes([judge_row.model_copy(update={"checked": 0})], TERMS) == []


def test_words_for_who_proposed_are_explained_where_they_stand() -> None:
    study_result = result(trials=[trial(source="lhs"), trial(source="llm->gp")])
    for words in ("lhs: a start point of a Latin hypercube", "llm->gp: gp instead of llm", "gp: Gaussian process"):
        assert words in tables.trial_table(study_result).caption
    assert "gp: Gaussian process" in tables.source_table(study_result).caption
    assert "(gp, Gaussian process)" in headline(result())


def test_the_test_part_was_scored_once_or_the_reader_is_told() -> None:
    assert "scored once" in tables.test_note(result())
    assert "scored 3 times" in tables.test_note(result(test_looks=3))
    assert "slightly optimistic" in tables.test_note(result(test_looks=3))


def test_a_last_round_in_which_all_failed_did_not_decide() -> None:
    failed = FinalistRow(run_id="run_0001", search_val_mse=0.5, val_mse=[], failed=2, mean=None)
    assert "lowest mean" in tables.finalist_note(result())
    assert "the trial accepted in the search" in tables.finalist_note(result(finalists=[failed]))


@pytest.mark.parametrize(
    ("value", "spread", "words"),
    [(0.5, None, "0.5000"), (0.5, 0.0123, "0.5000 ± 0.0123"), (0.5, 0.0, "0.5000 ± 0.0000"), (0.5, 1e-5, "1.000e-05")],
)
def test_a_spread_follows_its_value(value: float, spread: float | None, words: str) -> None:
    assert words in with_spread(value, spread)


def test_the_screen_shows_the_answer_the_comparison_and_the_control() -> None:
    kinds = [type(block) for block in scored(0.5).blocks()]
    assert kinds == [Text, Text, Table, Text]
    assert result().blocks()[-1] == Text(CONTROL_NOTE)


# -- tables -----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.floats(0.01, 10))
def test_the_comparison_is_sorted_by_test_error(errors: list[float], test_mse: float) -> None:
    references = [reference(f"r{number}", error) for number, error in enumerate(errors)]
    table = comparison(result(references=references, winner=winner(test_mse=test_mse)))
    errors_by_name = {f"r{number}": error for number, error in enumerate(errors)} | {"winner run_0001": test_mse}
    row_errors = [errors_by_name[row[0]] for row in table.rows]
    assert row_errors == sorted(errors_by_name.values())


def test_published_figures_stand_beside_ours_and_have_no_validation_error() -> None:
    published = [PublishedRow(model="Informer", mse=0.577, mae=0.549, source="arXiv 2012.07436", note="5 runs")]
    study_result = result(published=published)
    assert [row[0] for row in comparison(study_result).rows] == [
        "winner run_0001",
        "ridge",
        "Informer, published",
        "last",
    ]
    assert comparison(study_result).rows[2] == ("Informer, published", "–", "0.577", "0.5490")
    assert tables.published_table(study_result).rows == [["Informer", "0.577", "0.549", "arXiv 2012.07436", "5 runs"]]


def test_the_last_round_names_the_winner_and_counts_failures() -> None:
    rows = [
        FinalistRow(run_id="run_0001", search_val_mse=0.5, val_mse=[0.4, 0.5], failed=0, mean=0.45),
        FinalistRow(run_id="run_0002", search_val_mse=0.51, val_mse=[0.6], failed=1, mean=0.6),
        FinalistRow(run_id="run_0003", search_val_mse=0.52, val_mse=[], failed=2, mean=None),
    ]
    first, second, third = tables.finalist_table(result(finalists=rows)).rows
    assert first == ["run_0001", "0.5000", "0.4000, 0.5000", "0.4500", "winner"]
    assert second[2:] == ["0.6000, 1 failed", "0.6000", ""]
    assert third[3] == "–"


@given(st.integers(1, 800))
def test_a_long_horizon_is_shown_at_a_dozen_steps_with_both_ends(horizon: int) -> None:
    rows = tables.step_table(result(by_step=[0.1] * horizon)).rows
    steps = [int(row[0]) for row in rows]
    assert steps == sorted(set(steps))
    assert len(steps) == min(horizon, 12)
    assert (steps[0], steps[-1]) == (1, horizon)


def test_the_configuration_marks_what_differs_from_trial_0() -> None:
    assert tables.configuration(result()).rows == [("model.d_model", "8", "*"), ("model.n_heads", "2", "")]


def test_the_trials_say_what_they_changed_how_often_they_were_trained_and_who_judged() -> None:
    study_result = result(
        trials=[
            trial(0, accepted=True, changes={}, val_mse=0.51, trainings=3),
            trial(1, judge="tiny", reason="not worth it", note="lower rate"),
            trial(2, val_mse=None, parameters=None, seconds=None, error="MemoryError", note="wide"),
        ]
    )
    first, second, third = tables.trial_table(study_result).rows
    assert first[2:4] == ["0.5100 (of 3)", "accepted"]
    assert first[6] == "none"
    assert second[3:9] == ["", "1,234", "1.0", "d_model=8", "lower rate", "not worth it (tiny)"]
    assert third[2:8] == ["–", "failed", "–", "–", "d_model=8", "MemoryError"]
    assert {len(row) for row in tables.trial_table(study_result).rows} == {
        len(tables.trial_table(study_result).columns)
    }


def test_a_model_has_one_row_and_what_is_unknown_is_not_zero() -> None:
    proposer = ModelRow(
        model="m",
        task="nas.propose",
        calls=4,
        answered=3,
        usable=2,
        share=0.5,
        accepted=1,
        input_tokens=1200,
        output_tokens=30,
        cost_usd=0.0123,
    )
    judge = proposer.model_copy(
        update={"task": "nas.evaluate", "share": None, "accepted": None, "input_tokens": None, "cost_usd": None}
    )
    first, second = model_table([proposer, judge]).rows
    assert list(first) == ["m", "nas.propose", "4", "3 of 4", "2 of 4", "50%", "1", "1,200", "30", "0.0123 USD"]
    assert list(second[5:]) == ["–", "–", "unknown", "30", "unknown"]


def test_pairs_show_by_how_much_the_agent_was_lower() -> None:
    pairs = [Pair(seed=0, agent=0.3, control=0.4), Pair(seed=1, agent=0.5, control=0.4)]
    rows = pair_table([*pairs, Pair(seed=2, agent=None, control=0.4)], TERMS).rows
    assert [row[4] for row in rows] == ["+0.1000", "-0.1000", "–"]


def test_small_tables() -> None:
    study_result = result(importances={"model.d_model": 0.75, "training.epochs": 0.25})
    assert tables.importance_table(study_result).rows == [("model.d_model", "75%"), ("training.epochs", "25%")]
    assert tables.channel_table(study_result).rows == [["load", "0.2500", "5.0000"]]
    assert tables.source_table(study_result).rows == [["gp", "2", "0", "1", "0.5000"]]


def test_text_of_a_model_cannot_break_a_table() -> None:
    hostile = "a | b\n| c |<script>alert(1)</script>"
    table = tables.trial_table(result(trials=[trial(note=hostile, reason=hostile)]))
    lines = markdown("t", [table]).splitlines()
    assert len(lines) == 7  # title, blank, caption, blank, header, rule, one row
    assert "<script>" not in html("t", [table], lambda name: "")


def test_a_model_that_never_answered_is_told_with_the_reason_before_any_verdict_on_its_help() -> None:
    silent = {"answered": 0, "usable": 0, "share": None, "accepted": None, "cost_usd": None}
    silent |= {"input_tokens": None, "output_tokens": None, "reason": "The process died: it crashed (SIGILL).\nlog"}
    proposing = ModelRow(model="embedded", task="nas.propose", calls=8, **silent)
    judging = proposing.model_copy(update={"task": "nas.evaluate", "calls": 2})
    text = "The model embedded answered 0 of 10 calls: The process died: it crashed (SIGILL)."
    texts = [block.text for block in result(models=[proposing, judging]).blocks() if isinstance(block, Text)]
    assert text in texts[:-1]
    answering = judging.model_copy(update={"answered": 1})
    assert text not in advice(result(models=[proposing, answering]))


def test_a_result_of_an_earlier_version_is_still_read() -> None:
    document = result().model_dump(mode="json")
    del document["advice"], document["winner"]["val_mse_spread"], document["winner"]["unstable"]
    assert NasResult.model_validate(document).winner.unstable is False
