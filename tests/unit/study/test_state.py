"""A study is what its events say: whatever was in memory when the process died does not matter."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import RunUnreadableError
from agentlab.nas.study import TERMS
from agentlab.runs.events import Event
from agentlab.study.state import RefusedProposal, StudyState, TrialState, agent_state, changes, rebuild, trial_id


class Story:
    """Writes events the way the steps do."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def state(self) -> StudyState:
        return rebuild(self.events)

    def add(self, type_: str, id_: str = "", **data: Any) -> "Story":
        self.events.append(Event(len(self.events), 0.0, type_, id_, data))
        return self

    def proposed(self, number: int, **params: Any) -> "Story":
        fields = {"source": "gp", "note": "", "arm": "control", "probability": 0.5}
        return self.add("trial.proposed", trial_id(number), number=number, params=params, **fields)

    def refused(self, count: int, **params: Any) -> "Story":
        return self.add("proposal.refused", f"refused_{count:04d}", params=params, source="gp", note="")

    def finished(self, name: str, value: float, seconds: float = 1.0) -> "Story":
        return self.add("trial.finished", name, value=value, metrics={"parameters": 10, "seconds": seconds})

    def failed(self, name: str) -> "Story":
        return self.add("trial.failed", name, error="out of memory", metrics={"seconds": 1.0})

    def wanted(self, number: int, count: int, by: str = "rule") -> "Story":
        return self.add("repeat.wanted", trial_id(number), count=count, reason="r", by=by)

    def judged(self, number: int, accepted: bool) -> "Story":
        data = {"accepted": accepted, "reason": "r", "by": "rule", "val_mse": None, "source": ""}
        return self.add("decision.made", trial_id(number), **data)

    def scored(self, number: int, *mse: float) -> "Story":
        names = [f"{trial_id(number)}-f{turn}" for turn in range(len(mse))]
        figures = {"mae": [0.4] * len(mse), "mse_by_step": [0.1, 0.9], "mse_by_channel": [0.5]}
        return self.add("winner.scored", trial_id(number), names=names, mse=list(mse), **figures)

    def trial(self, number: int, value: float, accepted: bool) -> "Story":
        return self.proposed(number, lr=number).finished(trial_id(number), value).judged(number, accepted)


def whole() -> Story:
    """Everything that can happen in a study."""
    story = Story().proposed(0, lr=0).finished("run_0000", 0.5).wanted(0, 2)
    story.finished("run_0000-r1", 0.6).failed("run_0000-r2").judged(0, True)
    story.refused(0, lr=7).proposed(1, lr=1).failed("run_0001").judged(1, False)
    story.proposed(2, lr=2).finished("run_0002", 0.4).wanted(2, 1, "tiny").finished("run_0002-r1", 0.3).judged(2, True)
    story.add("search.exhausted", reason="nothing is left")
    return story.finished("run_0002-f0", 0.29).failed("run_0000-f0").scored(2, 0.35, 0.37)


def test_nothing_happened_yet() -> None:
    state = rebuild([])
    assert state == StudyState()
    assert (state.best, state.pending, state.judgeable, state.history, state.ranking) == (None, [], [], [], [])


def test_a_trial_is_open_then_waits_for_its_decision_then_ranks() -> None:
    story = Story().proposed(0, lr=1)
    assert [training.name for training in story.state.pending] == ["run_0000"]
    story.finished("run_0000", 0.5)
    assert (story.state.pending, [trial.id for trial in story.state.judgeable]) == ([], ["run_0000"])
    assert story.state.ranking == []
    story.judged(0, True)
    assert (story.state.pending, story.state.judgeable) == ([], [])
    assert [trial.id for trial in story.state.ranking] == ["run_0000"]


def test_repeats_land_with_their_trial_and_their_mean_is_its_value() -> None:
    story = Story().proposed(0, lr=1).finished("run_0000", 0.5).wanted(0, 3)
    assert [(t.name, t.turn) for t in story.state.pending] == [
        ("run_0000-r1", 1),
        ("run_0000-r2", 2),
        ("run_0000-r3", 3),
    ]
    story.finished("run_0000-r2", 0.9).failed("run_0000-r1")
    assert [t.name for t in story.state.pending] == ["run_0000-r3"]
    assert story.state.judgeable == []
    (trial,) = story.finished("run_0000-r3", 0.4).state.judgeable
    assert trial.values == [0.5, 0.9, 0.4]  # the failed one has none
    assert trial.value == pytest.approx(0.6)
    assert trial.as_trial().result.value == trial.value


def test_a_trial_whose_first_training_failed_has_no_value() -> None:
    (trial,) = Story().proposed(0).failed("run_0000").state.judgeable
    assert (trial.values, trial.value) == ([], None)
    assert trial.as_trial().result.status == "failed"


def test_trainings_of_the_last_round_are_kept_apart_from_the_search() -> None:
    state = whole().state
    assert {name: result.value for name, result in state.finals.items()} == {"run_0002-f0": 0.29, "run_0000-f0": None}
    assert [trial.value for trial in state.trials] == [pytest.approx(0.55), None, pytest.approx(0.35)]
    assert state.amount_spent("seconds") == 6.0  # of six trainings; the finals are another budget
    assert (state.amount_spent("trials"), state.amount_spent("tokens")) == (3, 0.0)


def test_a_refused_proposal_is_history_to_keep_away_from_and_no_trial() -> None:
    state = Story().trial(0, 0.5, True).refused(0, lr=9).trial(1, 0.6, False).state
    assert [trial.number for trial in state.trials] == [0, 1]
    assert [type(entry) for entry in state.entries] == [TrialState, RefusedProposal, TrialState]
    assert [(t.number, t.proposal.params, t.result.status) for t in state.history] == [
        (0, {"lr": 0}, "finished"),
        (-1, {"lr": 9}, "failed"),
        (1, {"lr": 1}, "finished"),
    ]


def test_a_trial_under_way_is_in_the_history_as_running() -> None:
    assert [t.result.status for t in Story().trial(0, 0.5, True).proposed(1).state.history] == ["finished", "running"]


def test_the_first_trial_is_judged_before_all_others() -> None:
    story = Story().proposed(0).proposed(1).proposed(2).finished("run_0002", 0.3).finished("run_0001", 0.4)
    assert story.state.judgeable == []  # nothing to compare with, and the noise is not known
    story.finished("run_0000", 0.5)
    assert [trial.number for trial in story.state.judgeable] == [0]
    assert [trial.number for trial in story.judged(0, True).state.judgeable] == [1, 2]


def test_best_is_the_last_accepted_in_the_order_of_decisions() -> None:
    story = Story().trial(0, 0.5, True).proposed(1).proposed(2)
    story.finished("run_0002", 0.4).judged(2, True).finished("run_0001", 0.3).judged(1, True)
    state = story.state
    assert state.judged == ("run_0000", "run_0002", "run_0001")
    assert state.best is not None
    assert state.best.id == "run_0001"


def test_a_rejected_trial_is_not_the_best_however_low() -> None:
    state = Story().trial(0, 0.5, True).trial(1, 0.499, False).state
    assert state.best is not None
    assert state.best.id == "run_0000"
    assert [trial.id for trial in state.ranking] == ["run_0001", "run_0000"]  # the last round looks again


def test_equal_errors_rank_by_number() -> None:
    assert [t.number for t in Story().trial(0, 0.5, True).trial(1, 0.5, False).trial(2, 0.4, True).state.ranking] == [
        2,
        0,
        1,
    ]


@given(st.lists(st.integers(0, len(whole().events) - 1), max_size=6, unique=True))
def test_a_step_repeated_after_a_kill_counts_once(repeated_indices: list[int]) -> None:
    """What a step has written it may write again, at once: nobody else writes in between."""
    events = whole().events
    twice = [
        repetition
        for index, event in enumerate(events)
        for repetition in [event] * (2 if index in repeated_indices else 1)
    ]
    assert rebuild(twice) == rebuild(events)


def test_events_of_studies_beside_this_one_are_ignored() -> None:
    story = whole()
    foreign_events = [replace(event, id=f"agent-1/{event.id}") for event in story.events]
    mixed = [event for pair in zip(foreign_events, story.events, strict=True) for event in pair]
    assert rebuild(mixed) == story.state
    assert rebuild(foreign_events) == StudyState()


@given(st.data())
def test_a_damaged_event_is_told_as_an_unreadable_run(data: st.DataObject) -> None:
    events = whole().events
    index = data.draw(st.sampled_from([n for n, event in enumerate(events) if event.type == "trial.proposed"]))
    missing_key = data.draw(st.sampled_from(("number", "params", "source", "arm", "probability")))
    damaged = {key: value for key, value in events[index].data.items() if key != missing_key}
    events[index] = replace(events[index], data=damaged)
    with pytest.raises(RunUnreadableError, match=rf"Event {index} \(trial\.proposed\) is damaged"):
        rebuild(events)


def test_an_event_of_the_wrong_shape_is_told_as_an_unreadable_run() -> None:
    with pytest.raises(RunUnreadableError, match=r"Event 0 \(decision\.made\)"):
        rebuild(Story().add("decision.made", "run_0000", accepted=True).events)


def test_events_that_are_nobodys_business_are_ignored() -> None:
    story = Story().add("run.started").add("llm.called", "x", key="k").add("trial.epoch", "run_0000", epoch=1)
    assert story.state == StudyState()


def test_agent_state_hides_test_figures_of_all_but_the_winner() -> None:
    stored = agent_state(whole().state, TERMS)
    assert stored["best_run_id"] == "run_0002"
    assert [run["test_mse"] for run in stored["runs"]] == [None, None, pytest.approx(0.36)]
    assert [run["val_mse"] for run in stored["runs"]] == [pytest.approx(0.55), None, pytest.approx(0.35)]
    assert [run["accepted"] for run in stored["runs"]] == [True, False, True]
    assert stored["runs"][1]["error"] == "out of memory"


def test_before_the_score_agent_state_names_the_accepted_trial_and_no_test_figure() -> None:
    stored = agent_state(Story().trial(0, 0.5, True).trial(1, 0.4, True).state, TERMS)
    assert stored["best_run_id"] == "run_0001"
    assert [run["test_mse"] for run in stored["runs"]] == [None, None]


def test_a_later_winner_takes_the_test_figure_over() -> None:
    story = Story().trial(0, 0.5, True).scored(0, 0.6).trial(1, 0.3, True).scored(1, 0.4)
    assert [run["test_mse"] for run in agent_state(story.state, TERMS)["runs"]] == [None, 0.4]


def test_changes_are_what_trial_0_has_differently_or_not_at_all() -> None:
    assert changes({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 9}) == {"b": 2, "c": 3}
    assert changes({}, {"a": 1}) == {}
