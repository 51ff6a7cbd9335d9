"""What proposers read out of a history."""

import math

from hypothesis import given
from hypothesis import strategies as st

from agentlab.search.history import ended_trials, finished_trials, first_trial_by_key, incumbent, targets
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Proposal, Trial, TrialResult


def history_of(*values: float | None) -> list[Trial]:
    return [
        Trial(i, Proposal({"a": i}, "x"), TrialResult("failed" if v is None else "finished", v))
        for i, v in enumerate(values)
    ]


def test_the_incumbent_is_the_earliest_of_the_best():
    assert incumbent(history_of(None, 3.0, 1.0, 1.0)).number == 2
    assert incumbent(history_of(None, None)) is None


def test_a_value_that_is_not_finite_is_a_failure():
    assert [t.number for t in finished_trials(history_of(math.nan, 1.0, math.inf))] == [1]


def learned_from(*values: float | None) -> list[float] | None:
    rows = targets(history_of(*values))
    return None if rows is None else [value for (value,) in rows]


def test_a_failed_trial_takes_the_worst_success():
    assert learned_from(1.0, None, 3.0, 2.0) == [1.0, 3.0, 3.0, 2.0]
    assert targets(history_of(None, None)) is None


def test_a_diverged_value_is_pulled_in():
    assert learned_from(1.0, 2.0, 1e9, None) == [1.0, 2.0, 5.0, 5.0]
    assert learned_from(1.0, 1.0, 1.0, 4.0) == [1.0, 1.0, 1.0, 4.0]  # no scale to judge by


def test_each_of_several_objectives_is_learned_from_alone():
    several = [(1.0, 9.0), (2.0, 8.0), (1e9, 7.0)]
    history = [
        Trial(i, Proposal({"a": i}, "x"), TrialResult("finished", 0.0, objectives=o)) for i, o in enumerate(several)
    ]
    assert targets([*history, running(3)]) == [(1.0, 9.0), (2.0, 8.0), (5.0, 7.0), (5.0, 9.0)]


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_targets_keep_order_and_the_best(values):
    learned = learned_from(*values)
    pairs = [(v, t) for v, t in zip(values, learned or [], strict=False) if v is not None]
    if pairs:
        assert min(learned) == min(v for v, _ in pairs)
        assert all(t <= v for v, t in pairs)
        assert [t for _, t in sorted(pairs)] == sorted(t for _, t in pairs)


def test_tried_names_the_first_trial_at_a_point():
    space = SearchSpace.of(SpaceConfig.model_validate({"a": {"type": "int", "low": 0, "high": 9}}))
    history = [*history_of(1.0, None), Trial(2, Proposal({"a": 0}, "x"), TrialResult("finished", 1.0))]
    assert first_trial_by_key(history, space) == {space.key({"a": 0}): 0, space.key({"a": 1}): 1}


def running(number: int) -> Trial:
    return Trial(number, Proposal({"a": number}, "x"), TrialResult("running"))


def test_a_trial_under_way_has_not_ended_and_not_finished():
    history = [*history_of(1.0, None), running(2)]
    assert [t.number for t in ended_trials(history)] == [0, 1]
    assert [t.number for t in finished_trials(history)] == [0]


def test_a_trial_under_way_counts_as_tried_and_as_no_better_than_the_worst():
    space = SearchSpace.of(SpaceConfig.model_validate({"a": {"type": "int", "low": 0, "high": 9}}))
    history = [*history_of(3.0, 1.0), running(2)]
    assert space.key({"a": 2}) in first_trial_by_key(history, space)
    assert targets(history) == [(3.0,), (1.0,), (3.0,)]
    assert incumbent(history).number == 1


def test_what_a_person_turned_down_is_a_failure_to_keep_away_from():
    turned_down = Trial(-1, Proposal({"a": 5}, "x"), TrialResult("failed", error="turned down by a person"))
    space = SearchSpace.of(SpaceConfig.model_validate({"a": {"type": "int", "low": 0, "high": 9}}))
    history = [*history_of(1.0, 2.0), turned_down]
    assert first_trial_by_key(history, space)[space.key({"a": 5})] == -1
    assert targets(history) == [(1.0,), (2.0,), (2.0,)]
