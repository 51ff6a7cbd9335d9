"""Whether the agent helped: improvements by arm, and a sentence that never claims more than was measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.nas.study import TERMS
from agentlab.search.types import Proposal, TrialResult
from agentlab.study.control import Pair, describe_proposers, improvements, light_control
from agentlab.study.state import TrialState


def trial(number: int, value: float | None, arm: str) -> TrialState:
    result = TrialResult("failed" if value is None else "finished", value)
    return TrialState(number, Proposal({}, "x"), arm, 0.0 if arm == "shared" else 0.5, result)  # type: ignore[arg-type]


def pair(seed: int, agent: float | None, control: float | None) -> Pair:
    return Pair(seed=seed, agent=agent, control=control)


def study(values: list[float | None], arms: list[str]) -> list[TrialState]:
    return [trial(0, 1.0, "shared"), *(trial(n + 1, v, a) for n, (v, a) in enumerate(zip(values, arms, strict=True)))]


def test_improvement_is_the_share_by_which_the_best_was_lowered() -> None:
    trials = study([0.8, 0.9, None, 0.4], ["agent"] * 4)
    assert np.allclose(improvements(trials), [0.2, 0.0, 0.0, 0.5])


@given(st.lists(st.none() | st.floats(0.1, 10), max_size=20))
def test_improvements_multiply_to_the_final_best(values: list[float | None]) -> None:
    trials = study(values, ["agent"] * len(values))
    best = min([1.0, *(v for v in values if v is not None)])
    assert np.isclose(np.prod([1 - gain for gain in improvements(trials)]), best)


def test_no_agent_no_record() -> None:
    trials = [trial(0, 1.0, "shared"), TrialState(1, Proposal({}, "gp"), "control", 0.0, TrialResult("finished", 0.5))]
    control, note = light_control(trials, 0, TERMS)
    assert control is None
    assert "no agent" in note


def test_a_control_is_named_by_who_proposed() -> None:
    assert describe_proposers(["gp", "gp"]) == "Gaussian process alone"
    assert describe_proposers(["lhs", "gp", "lhs"]) == "a start point of a Latin hypercube (2), Gaussian process (1)"


def test_an_arm_without_trials_is_not_measured_and_says_why() -> None:
    control, note = light_control(study([0.9, 0.8, 0.7], ["agent"] * 3), 0, TERMS)
    assert control is not None
    assert control.verdict == "not_measured"
    assert "was not measured" in note


def test_a_light_control_never_says_helped() -> None:
    values = [0.9 ** (n + 1) if n % 2 else None for n in range(18)]
    control, note = light_control(study(values, ["agent" if n % 2 else "control" for n in range(18)]), 0, TERMS)
    assert control is not None
    assert control.estimate is not None
    assert control.estimate > 0
    assert control.verdict == "no_measurable_help"
    assert "paired studies" in note or (control.low or 0) <= 0


def test_same_study_and_seed_give_the_same_interval() -> None:
    values = [float(v) for v in np.linspace(0.99, 0.5, 18)]
    arms = ["agent" if n % 3 else "control" for n in range(18)]
    assert light_control(study(values, arms), 3, TERMS) == light_control(study(values, arms), 3, TERMS)


def test_nothing_is_an_improvement_on_an_error_of_zero() -> None:
    assert improvements([trial(0, 0.0, "shared"), trial(1, 0.0, "agent"), trial(2, 0.1, "control")]) == [0.0, 0.0]


def test_a_repeated_trial_counts_with_the_mean_of_its_errors() -> None:
    lucky = TrialState(
        1,
        Proposal({}, "llm"),
        "agent",
        0.5,
        TrialResult("finished", 0.5),
        wanted=1,
        repeats={"run_0001-r1": TrialResult("finished", 0.7)},
    )
    assert improvements([trial(0, 1.0, "shared"), lucky]) == [pytest.approx(0.4)]
