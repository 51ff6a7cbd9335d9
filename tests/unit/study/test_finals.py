"""The last round: who is in it, what is trained, and who wins."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.search.types import Proposal, TrialResult
from agentlab.study.finals import (
    Finalist,
    LastRound,
    best_as_finalist,
    exported_candidate,
    finalists,
    last_round_size,
    missing,
    winner,
)
from agentlab.study.state import Decision, StudyState, TrialState

values_or_failures = st.lists(st.none() | st.floats(0.01, 10), max_size=12)


def config(count: int = 3, seeds: int = 3) -> LastRound:
    return LastRound(count, seeds)


def result(value: float | None) -> TrialResult:
    return TrialResult("failed" if value is None else "finished", value)


def trial(number: int, value: float | None, accepted: bool = False, **params: Any) -> TrialState:
    decision = Decision(accepted, "")
    return TrialState(number, Proposal(params, "gp"), "control", 0.5, result(value), decision=decision)


def study(*values: float | None, finals: dict[str, float | None] | None = None, accepted: int = 0) -> StudyState:
    """Trials with these errors, of which one was accepted, and the trainings of the last round so far."""
    params = [{"data.batch_size": number + 1} for number in range(len(values))]
    trials = tuple(trial(n, value, n == accepted, **params[n]) for n, value in enumerate(values))
    final_results = {name: result(value) for name, value in (finals or {}).items()}
    return StudyState(entries=trials, judged=tuple(t.id for t in trials), finals=final_results)


def names(rounds: list[Finalist]) -> list[str]:
    return [finalist.trial.id for finalist in rounds]


def test_the_best_few_of_the_search_enter_best_first() -> None:
    state, settings = study(0.5, 0.3, None, 0.4, 0.9), config(count=3, seeds=2)
    rounds = finalists(state, settings)
    assert names(rounds) == ["run_0001", "run_0003", "run_0000", "run_0004"]  # the last one only if a lead falls
    assert [(t.name, t.turn) for t in missing(state, settings)] == [
        ("run_0001-f0", 1000),
        ("run_0001-f1", 1001),
        ("run_0003-f0", 1000),
        ("run_0003-f1", 1001),
        ("run_0000-f0", 1000),
        ("run_0000-f1", 1001),
    ]


@given(values_or_failures, st.integers(1, 6), st.integers(1, 3))
def test_there_are_no_more_finalists_than_trials_that_finished(
    values: list[float | None], count: int, seeds: int
) -> None:
    state, settings = study(*values), config(count=count, seeds=seeds)
    rounds = finalists(state, settings)
    finished = [value for value in values if value is not None]
    assert [finalist.trial.value for finalist in rounds] == sorted(finished)[: last_round_size(count, len(finished))]
    assert len(missing(state, settings)) == min(count, len(finished)) * seeds


def test_the_last_round_measures_the_same_configuration_on_the_next_rung() -> None:
    state = StudyState(entries=(trial(1, 0.5, **{"model.dropout": 0.2}),))
    ((candidate,),) = [finalist.candidates for finalist in finalists(state, config(seeds=1))]
    assert (candidate.params, candidate.rung) == ({"model.dropout": 0.2}, 1)
    assert {open_training.rung for open_training in state.pending} <= {0}


def test_what_has_ended_is_not_missing() -> None:
    state = study(0.5, 0.4, finals={"run_0001-f0": 0.3, "run_0000-f1": None})
    assert [t.name for t in missing(state, config(count=2, seeds=2))] == ["run_0001-f1", "run_0000-f0"]


def test_the_lowest_mean_wins_not_the_lowest_training() -> None:
    lucky = {"run_0001-f0": 0.1, "run_0001-f1": 0.9}
    state = study(0.5, 0.4, finals={**lucky, "run_0000-f0": 0.4, "run_0000-f1": 0.42})
    best = winner(state, config(count=2, seeds=2))
    assert best is not None
    assert best.trial.id == "run_0000"
    assert best.mean == pytest.approx(0.41)
    assert exported_candidate(best).name == "run_0000-f0"


def test_among_equals_the_better_one_of_the_search_wins() -> None:
    state = study(0.5, 0.4, finals={"run_0000-f0": 0.3, "run_0001-f0": 0.3})
    best = winner(state, config(count=2, seeds=1))
    assert best is not None
    assert best.trial.id == "run_0001"


def test_an_error_of_zero_is_the_best_and_not_a_failure() -> None:
    state = study(0.5, 0.4, finals={"run_0000-f0": 0.0, "run_0001-f0": 0.1})
    best = winner(state, config(count=2, seeds=1))
    assert best is not None
    assert (best.trial.id, best.mean) == ("run_0000", 0.0)


def test_a_longer_search_keeps_the_trainings_of_an_earlier_last_round() -> None:
    final_values: dict[str, float | None] = {"run_0000-f0": 0.45, "run_0001-f0": 0.4}
    settings = config(count=2, seeds=1)
    assert missing(study(0.5, 0.4, finals=final_values), settings) == []
    assert [t.name for t in missing(study(0.5, 0.4, 0.3, finals=final_values), settings)] == ["run_0002-f0"]


def held(search: list[float], truth: list[float], count: int = 1, seeds: int = 2) -> tuple[StudyState, LastRound]:
    """A last round to its end: each fresh training of trial n gives `truth[n]`."""
    settings = config(count=count, seeds=seeds)
    final_values: dict[str, float | None] = {}
    while missing_trainings := missing(study(*search, finals=final_values), settings):
        final_values[missing_trainings[0].name] = truth[int(missing_trainings[0].name[4:8])]
    return study(*search, finals=final_values), settings


def test_a_lucky_training_makes_room_for_the_trial_with_better_evidence() -> None:
    """The lowest training of many (0.45) is trained again to 0.547; one that was measured twice stands at 0.469."""
    state, settings = held([0.6, 0.469, 0.45], [0.6, 0.47, 0.547])
    best = winner(state, settings)
    assert best is not None
    assert best.trial.id == "run_0001"
    assert set(state.finals) == {"run_0002-f0", "run_0002-f1", "run_0001-f0", "run_0001-f1"}


def test_a_lead_that_holds_costs_no_further_training() -> None:
    state, _ = held([0.6, 0.469, 0.45], [0.6, 0.4, 0.46])
    assert set(state.finals) == {"run_0002-f0", "run_0002-f1"}


def test_more_trials_do_not_end_at_a_worse_winner() -> None:
    """Where poor trials scatter by 25 % and good ones by 1 %, the lowest of many trainings is a lucky poor one."""
    rng, settings = np.random.default_rng(0), config(count=1, seeds=2)
    winners_by_trials: dict[int, list[float]] = {4: [], 12: []}
    for _ in range(150):
        poor = rng.random(12) < 0.5
        truth = np.where(poor, rng.uniform(0.52, 0.65, 12), rng.uniform(0.45, 0.5, 12))
        scatter = np.where(poor, 0.25, 0.01)
        search = (truth * np.exp(scatter * rng.standard_normal(12))).tolist()
        fresh = truth[:, None] * np.exp(scatter[:, None] * rng.standard_normal((12, 2)))
        for trials, winners in winners_by_trials.items():
            final_values: dict[str, float | None] = {}
            while missing_trainings := missing(study(*search[:trials], finals=final_values), settings):
                final_values[missing_trainings[0].name] = float(
                    fresh[int(missing_trainings[0].name[4:8]), int(missing_trainings[0].name[-1])]
                )
            best = winner(study(*search[:trials], finals=final_values), settings)
            assert best is not None
            winners.append(float(truth[best.trial.number]))
    assert np.mean(winners_by_trials[12]) <= np.mean(winners_by_trials[4])


searches = st.lists(st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)), min_size=1, max_size=12)


@given(searches, st.integers(1, 4), st.integers(1, 3))
def test_the_lead_holds_in_the_end_or_there_was_no_more_room(
    pairs: list[tuple[float, float]], count: int, seeds: int
) -> None:
    search, truth = [s for s, _ in pairs], [t for _, t in pairs]
    state, settings = held(search, truth, count, seeds)
    best = winner(state, settings)
    assert best is not None
    entered = {name.partition("-")[0] for name in state.finals}
    outside = [trial for trial in state.ranking if trial.id not in entered]
    assert best.mean == pytest.approx(min(truth[int(name[4:])] for name in entered))
    assert not best.missing
    assert min(count, len(search)) <= len(entered) <= last_round_size(count, len(search))
    assert len(entered) == last_round_size(count, len(search)) or all(t.value >= best.mean for t in outside)


def test_the_best_of_a_longer_search_enters_although_the_room_was_used_up() -> None:
    full: dict[str, float | None] = {f"run_000{number}-f0": 0.9 for number in range(3)}
    (training,) = missing(study(0.5, 0.4, 0.3, 0.2, finals=full), config(count=1, seeds=1))
    assert training.name == "run_0003-f0"


def test_a_search_in_two_parts_ends_as_one_in_one_part_does() -> None:
    """The shorter one trained run_0000, which the whole one never does: that is no evidence in its last round."""
    parts: dict[str, float | None] = {"run_0000-f0": 0.2, "run_0001-f0": 0.3}
    one_part: dict[str, float | None] = {"run_0001-f0": 0.3}
    settings = config(count=1, seeds=1)
    first, second = (study(0.5, 0.35, finals=final_values) for final_values in (parts, one_part))
    assert missing(first, settings) == missing(second, settings) == []
    assert finalists(first, settings) == finalists(second, settings)


def test_a_kill_within_a_step_leaves_the_rest_of_that_step() -> None:
    """The first of two seeds failed, which puts another trial ahead; the step it belongs to is ended all the same."""
    (training,) = missing(study(0.5, 0.4, finals={"run_0001-f0": None}), config(count=1, seeds=2))
    assert training.name == "run_0001-f1"


def test_the_last_round_uses_no_seed_of_the_search() -> None:
    """A low training of the search is low by luck, too: it may not stand for its trial again."""
    repeated = replace(trial(0, 0.1), wanted=1, repeats={"run_0000-r1": result(0.2)})
    (finalist,) = finalists(StudyState(entries=(repeated,)), config(seeds=3))
    assert finalist.values == {}
    assert [(t.name, t.turn) for t in finalist.candidates] == [(f"run_0000-f{n}", 1000 + n) for n in range(3)]


def test_a_finalist_that_failed_with_fewer_seeds_comes_first() -> None:
    final_values = {"run_0001-f0": None, "run_0001-f1": 0.3, "run_0000-f0": 0.4, "run_0000-f1": 0.4}
    state, settings = study(0.5, 0.4, finals=final_values), config(count=2, seeds=2)
    assert {f.trial.id: (f.failure_count, f.mean) for f in finalists(state, settings)} == {
        "run_0001": (1, 0.3),
        "run_0000": (0, pytest.approx(0.4)),
    }
    best = winner(state, settings)
    assert best is not None
    assert best.trial.id == "run_0000"


def test_among_finalists_that_failed_as_often_the_lowest_mean_of_the_rest_wins() -> None:
    final_values = {"run_0001-f0": None, "run_0001-f1": 0.3, "run_0000-f0": 0.4, "run_0000-f1": None}
    best = winner(study(0.5, 0.4, finals=final_values), config(count=2, seeds=2))
    assert best is not None
    assert (best.trial.id, best.mean, exported_candidate(best).name) == ("run_0001", 0.3, "run_0001-f1")


def test_a_finalist_whose_trainings_all_failed_loses_to_any_other() -> None:
    best = winner(study(0.5, 0.4, finals={"run_0001-f0": None, "run_0000-f0": 9.0}), config(count=2, seeds=1))
    assert best is not None
    assert best.trial.id == "run_0000"


@pytest.mark.parametrize("count", [0, 2])
def test_without_a_last_round_or_anything_left_of_it_the_accepted_trial_wins_as_it_stands(count: int) -> None:
    final_values = {f"run_000{number}-f{seed}": None for number in range(3) for seed in range(2)}
    state, settings = study(0.5, 0.4, 0.39, finals=final_values, accepted=1), config(count=count, seeds=2)
    assert missing(state, settings) == []
    best = winner(state, settings)
    assert best is not None
    assert best == best_as_finalist(state)
    assert (best.trial.id, best.values, best.failure_count) == ("run_0001", {"run_0001": 0.4}, 0)
    assert (exported_candidate(best).turn, exported_candidate(best).params) == (0, {"data.batch_size": 2})


@pytest.mark.parametrize("count", [0, 3])
def test_a_study_that_failed_has_neither_finalists_nor_a_winner(count: int) -> None:
    state = StudyState(entries=(trial(0, None), trial(1, None)), judged=("run_0000", "run_0001"))
    assert finalists(state, config(count=count)) == []
    assert winner(state, config(count=count)) is None
