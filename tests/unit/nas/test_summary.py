"""From a study's events to its result: what is remembered of a trial, and that no test figure slips in."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import RunUnreadableError
from agentlab.llm.types import Usage
from agentlab.nas.config import NasConfig, TrialConfig
from agentlab.nas.report import blocks
from agentlab.nas.result import NasResult
from agentlab.nas.series import Series
from agentlab.nas.study import TERMS
from agentlab.nas.summary import outcome, source_rows, summarise
from agentlab.runs.report import markdown
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Proposal, Trial, TrialResult
from agentlab.study import steps
from agentlab.study.control import Pair
from agentlab.study.evaluator import SeedEvaluator
from agentlab.study.executor import LocalExecutor
from agentlab.study.finals import LastRound, missing, winner
from agentlab.study.state import StudyCandidate, agent_state
from agentlab.study.steps import search

LEAKED = 0.987654  # a test figure that an objective should never have reported
SPACE = SearchSpace.of(SpaceConfig.model_validate({"model.dropout": {"type": "float", "low": 0.001, "high": 0.9}}))
DROPOUTS = (0.5, 0.499, 0.3, 0.4, 0.35, 0.32, 0.6, 0.7, 0.45, 0.55, 0.65, 0.75)


def measure(batch: Sequence[StudyCandidate]) -> list[TrialResult]:
    """The error is the dropout, which makes the story plain; at 0.4 memory runs out."""
    (candidate,) = batch
    x = float(candidate.params["model.dropout"])
    if x == 0.4:
        raise MemoryError("16 GB wanted")
    turn = 0.0 if candidate.seed == 0 else 0.001 * (1 + candidate.seed % 3)
    return [TrialResult("finished", x + turn, {"parameters": 1234, "seconds": 2.0, "epochs": 1, "test_mse": LEAKED})]


class Listed:
    """Proposes from a list."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, history: Sequence[Trial], n: int, rng: Any) -> list[Proposal]:
        return [Proposal({"model.dropout": DROPOUTS[len(history) - 1]}, self.name, "a reason")]


class Accepting:
    """A person who agrees with everything."""

    def review(self, name: str, params: Any, **_: Any) -> Any:
        return params


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OpenRun]:
    with OpenRun.create(tmp_path, RunSpec("nas", "", "", "h", 0), RunEnvironment()) as run:
        yield run


CONFIG = NasConfig.model_validate(
    {"max_iterations": 1 + len(DROPOUTS), "finals": {"count": 2, "seeds": 2, "epochs": 9}, "data": {"horizon": 3}}
)


LAST_ROUND = LastRound(CONFIG.finals.count, CONFIG.finals.seeds)


def study_in(run: OpenRun, **changes: Any) -> steps.Study:
    fields: dict[str, Any] = {"agent": Listed("llm"), "reviewer": None, "executor": LocalExecutor(measure)}
    return steps.Study(
        run=run,
        terms=TERMS,
        seed=0,
        budget={"trials": CONFIG.max_iterations},
        starts=(Proposal({"model.dropout": 0.8}, "default"),),
        baseline_proposer=Listed("gp"),
        evaluator=SeedEvaluator(TERMS, repeats=2),
        rules=ScreenRules(SPACE),
        **fields | changes,
    )


Summarised = Callable[..., NasResult]


@pytest.fixture
def summarised(run: OpenRun, make_series: Callable[..., Series]) -> Summarised:
    """The result of a whole study whose objective costs nothing; the test score is written by hand."""

    def make(pairs: Sequence[Pair] = (), **changes: Any) -> NasResult:
        line = {"name": "last", "note": "", "val_mse": 0.9, "val_mae": 0.9, "test_mse": 0.9, "test_mae": 0.9}
        run.emit("reference.measured", "last", **line)
        study = study_in(run, **changes)
        run.emit("study.opened", reviewed=study.reviewer is not None)
        state = search(study, lambda: None)
        while due := missing(state, LAST_ROUND):
            state = steps.run_candidates(study, due)
        first = winner(state, LAST_ROUND)
        assert first is not None
        names = list(first.values)
        scores = {"mse": [0.61, 0.63][: len(names)], "mae": [0.5, 0.52][: len(names)]}
        shape = {"mse_by_step": [0.5, 0.6, 0.7], "mse_by_channel": [0.25, 0.81]}
        run.emit("winner.scored", first.trial.id, names=names, **scores, **shape)
        return summarise(CONFIG, make_series(channels=2), study, LAST_ROUND, pairs, Usage())

    return make


def test_trials_tell_their_mean_their_trainings_and_their_judge(summarised: Summarised) -> None:
    result = summarised()
    first, better, tie, *_ = result.trials
    assert (first.run_id, first.source, first.arm, first.trainings) == ("run_0000", "default", "shared", 3)
    assert first.val_mse == pytest.approx(0.8, abs=0.003)
    assert (better.accepted, better.judge, better.changes) == (True, "rule", {"model.dropout": 0.5})
    assert (tie.accepted, tie.trainings) == (False, 2)
    failed = result.trials[4]
    assert (failed.val_mse, failed.error) == (None, "MemoryError: 16 GB wanted")
    assert failed.parameters is None
    assert not failed.accepted


def test_the_winner_has_the_mean_and_spread_of_its_trainings(summarised: Summarised) -> None:
    result = summarised()
    w = result.winner
    assert (w.run_id, w.trainings, w.parameters) == ("run_0003", 2, 1234)
    assert (w.test_mse, w.test_mae) == (pytest.approx(0.62), pytest.approx(0.51))
    assert w.test_mse_spread == pytest.approx(0.02 / 2**0.5)
    best, _ = result.finalists
    assert w.exported == f"run_0003-f{best.val_mse.index(min(best.val_mse))}"
    assert (best.run_id, best.search_val_mse, best.failed) == ("run_0003", 0.3, 0)
    assert w.val_mse == best.mean == pytest.approx(sum(best.val_mse) / 2)


def test_errors_by_column_are_told_in_the_units_of_the_file_too(
    summarised: Summarised, make_series: Callable[..., Series]
) -> None:
    first, second = summarised().by_channel
    deviations = make_series(channels=2).scaler.std
    assert (first.name, first.mse, second.name) == ("c0", 0.25, "c1")
    assert (first.rmse, second.rmse) == (pytest.approx(0.5 * deviations[0]), pytest.approx(0.9 * deviations[1]))


def test_no_test_figure_of_any_trial_but_the_winner_appears(summarised: Summarised, run: OpenRun) -> None:
    """Even if an objective reported one, neither result nor report nor snapshot would repeat it."""
    result = summarised()
    report_text = markdown("t", blocks(result, TrialConfig(), frozenset()))
    stored = json.dumps(agent_state(study_in(run).state, TERMS))
    assert str(LEAKED) in json.dumps([event.data for event in run.events])
    for text in (result.model_dump_json(), report_text, stored):
        assert str(LEAKED) not in text
    document = result.model_dump()
    assert not [key for row in document["trials"] + document["finalists"] for key in row if "test" in key]
    assert stored.count('"test_mse": null') == len(result.trials) - 1


def test_the_headline_of_the_manifest_is_the_winners(summarised: Summarised) -> None:
    result = summarised()
    metrics = outcome(result).metrics
    assert (metrics["test_mse"].value, metrics["val_mse"].value) == (result.winner.test_mse, result.winner.val_mse)
    assert {metric.direction for metric in metrics.values()} == {"lower"}
    assert outcome(result).control == result.control


def test_noise_is_told_as_measured_or_as_given(summarised: Summarised) -> None:
    result = summarised()
    assert result.noise.trainings == 5  # three of trial 0, two of the near tie
    assert "measured on 5 trainings" in result.noise.note


def test_without_an_agent_there_is_no_record(summarised: Summarised) -> None:
    result = summarised(agent=None)
    assert result.control is None
    assert "no agent" in result.control_note
    assert {trial.arm for trial in result.trials} == {"shared", "control"}


def test_with_pairs_the_record_is_that_of_the_full_study(summarised: Summarised) -> None:
    pairs = [Pair(seed=seed, agent=0.3 + seed / 1000, control=0.4) for seed in range(6)]
    result = summarised(pairs)
    assert result.control is not None
    assert (result.control.n, result.control.verdict) == (6, "helped")
    assert "on 6 pairs of studies" in result.control_note
    assert [(row.seed, row.agent) for row in result.pairs] == [(pair.seed, pair.agent) for pair in pairs]


def test_a_reviewed_study_says_so_beside_its_record(summarised: Summarised) -> None:
    assert "A person reviewed the proposals of both arms." in summarised(reviewer=Accepting()).control_note


def test_a_review_is_remembered_when_the_run_goes_on_without_one(summarised: Summarised, run: OpenRun) -> None:
    run.emit("study.opened", reviewed=True)
    assert "A person reviewed" in summarised().control_note


def test_nobody_reviewed_what_nobody_was_asked_about(summarised: Summarised) -> None:
    assert "A person reviewed" not in summarised().control_note


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("winner.scored", {"names": ["run_0003-f0"], "mae": [0.5], "mse_by_step": [0.5], "mse_by_channel": [0.5]}),
        ("reference.measured", {"name": "mean", "note": "", "val_mse": 0.9}),
        ("study.opened", {"summary": ""}),
    ],
)
def test_an_event_that_lacks_what_a_result_needs_is_told_as_a_damaged_run(
    summarised: Summarised, run: OpenRun, type_: str, data: dict[str, Any]
) -> None:
    run.emit(type_, "cut", **data)
    with pytest.raises(RunUnreadableError, match=rf"Event \d+ \({type_}\) is damaged"):
        summarised()


def test_every_look_at_the_test_part_is_counted(summarised: Summarised, run: OpenRun) -> None:
    assert summarised().test_looks == 1
    assert summarised().test_looks == 2  # a longer search that found another winner


def test_sources_are_counted_in_order_of_appearance(summarised: Summarised) -> None:
    result = summarised()
    rows = {row.source: row for row in source_rows(result.trials)}
    assert next(iter(rows)) == "default"
    assert result.sources == list(rows.values())
    assert sum(row.trials for row in rows.values()) == len(result.trials)
    assert sum(row.failed for row in rows.values()) == 1
    assert sum(row.accepted for row in rows.values()) == sum(trial.accepted for trial in result.trials)
    assert rows["default"].best_val_mse == result.trials[0].val_mse


def test_a_source_without_success_has_no_best(summarised: Summarised) -> None:
    failed = [trial for trial in summarised().trials if trial.error]
    assert [row.best_val_mse for row in source_rows(failed)] == [None]


def test_enough_trials_say_what_mattered(summarised: Summarised) -> None:
    assert summarised().importances == {"model.dropout": 1.0}


def test_the_result_reads_back_from_its_json(summarised: Summarised) -> None:
    result = summarised([Pair(seed=seed, agent=0.3, control=0.4) for seed in range(5)])
    assert NasResult.model_validate_json(result.model_dump_json()) == result
