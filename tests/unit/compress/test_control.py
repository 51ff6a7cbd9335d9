"""What the agent of a compression was worth: hypervolume a joule, and the share of the trials that follows from it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.compress.control import agent_control, gains, pair_of, paired_control, share
from agentlab.compress.objective import REFERENCE
from agentlab.search.types import Proposal, TrialResult
from agentlab.stats.fronts import hypervolume
from agentlab.study.control import Pair
from agentlab.study.state import StudyState, TrialState

PARAMS = {"structure": "none", "quantizer": "kquant", "quantization_bits": 8}


def trial(number: int, arm: str, point: tuple[float, float] | None, joules: float = 1000.0) -> TrialState:
    odds = 0.0 if arm == "shared" else 0.5
    result = TrialResult("failed", metrics={"joules": joules})
    if point is not None:
        result = TrialResult("finished", point[0], {"joules": joules}, objectives=point)
    return TrialState(number, Proposal(PARAMS, "x"), arm, odds, result)  # type: ignore[arg-type]


POINT = st.none() | st.tuples(st.floats(0.01, 1.2), st.floats(0.001, 1.2))


@given(st.lists(POINT, max_size=12))
def test_gains_add_up_to_the_hypervolume_of_all(points: list[tuple[float, float] | None]) -> None:
    trial_gains = gains([trial(n, "control", point) for n, point in enumerate(points)])
    assert all(gain >= -1e-12 for gain, _ in trial_gains)
    assert np.isclose(sum(gain for gain, _ in trial_gains), hypervolume([p for p in points if p], REFERENCE))


@given(st.lists(st.tuples(st.sampled_from(["agent", "control", "shared"]), POINT, st.floats(0, 1e5)), max_size=12))
def test_the_share_keeps_an_agent_and_a_control_in_play(
    rows: list[tuple[str, tuple[float, float] | None, float]],
) -> None:
    assert 0.1 <= share([trial(n, *row) for n, row in enumerate(rows)]) <= 0.75


def test_the_share_begins_even_and_follows_hypervolume_a_joule() -> None:
    start = trial(0, "shared", (0.5, 0.5))
    assert share([start]) == 0.5
    idle = [trial(n, "agent", (0.9, 0.9)) for n in range(1, 7)]
    useful = [trial(n, "control", (0.5 - n / 40, 0.5 - n / 40)) for n in range(7, 13)]
    assert share([start, *idle, *useful]) < 0.3
    wasteful = [trial(n, "agent", (0.4 - n / 40, 0.4 - n / 40), 50_000.0) for n in range(1, 4)]
    cheap = [trial(n, "control", (0.3 - n / 60, 0.3 - n / 60), 500.0) for n in range(4, 7)]
    assert share([start, *wasteful, *cheap]) < 0.3


def test_no_agent_no_record() -> None:
    assert agent_control([trial(0, "shared", (0.5, 0.5))], 0) == (None, "")


def test_the_record_says_what_the_agent_was_worth_with_an_interval() -> None:
    trials = [trial(0, "shared", (0.9, 0.9))]
    for n in range(1, 25):
        agent = n % 2 == 1
        trials.append(trial(n, "agent" if agent else "control", (1.0, 1.0) if agent else (0.9 - n / 40, 0.9 - n / 40)))
    record, sentence = agent_control(trials, 0)
    assert record is not None
    assert record.verdict == "no_measurable_help"  # a light control only hints
    assert (record.high or 0) < 0
    assert "on 24 trials, 12 of them assigned to the agent" in sentence
    assert "looks harmful" in sentence


def arm(*points: tuple[float, float], joules: float = 1000.0) -> StudyState:
    return StudyState(tuple(trial(n, "control", point, joules) for n, point in enumerate(points)))


def test_a_pair_is_compared_at_equal_cost_and_what_ends_later_does_not_count() -> None:
    quick, slow = arm((0.5, 0.5), (0.1, 0.1), joules=1000.0), arm((0.5, 0.5), (0.1, 0.1), joules=1500.0)
    pair = pair_of(7, 2000.0, quick, slow)
    assert pair.agent == pytest.approx(0.81)
    assert pair.control == pytest.approx(0.25)
    assert (pair.seed, pair.spent) == (7, (2000, 3000))
    assert pair_of(7, 2500.0, quick, slow).agent is None  # a budget of the run has cut it short
    assert pair_of(7, 2500.0, replace(quick, exhausted=True), slow).agent == pytest.approx(0.81)


@given(st.floats(0.01, 0.2), st.booleans())
def test_only_pairs_say_that_the_agent_helped_or_hurt(effect: float, helps: bool) -> None:
    sides = (0.6 + effect, 0.6) if helps else (0.6, 0.6 + effect)
    pairs = [Pair(seed=n, agent=sides[0] + n / 1e4, control=sides[1]) for n in range(6)]
    record, sentence = paired_control(pairs, 2000.0, ["tpe"] * 3, 0)
    assert record.verdict == ("helped" if helps else "hurt")
    assert record.estimate == pytest.approx(effect if helps else -effect, abs=1e-3)
    assert "on 6 pairs of searches" in sentence
    incomplete_pairs = [*pairs[1:], pairs[0].model_copy(update={"lost": ("", "MemoryError")})]
    assert paired_control(incomplete_pairs, 2000.0, ["tpe"], 0)[0].verdict == "not_measured"
