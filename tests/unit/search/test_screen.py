"""Screening: what is refused before it costs a trial, and what takes its place."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from agentlab.search.arms import RandomProposer
from agentlab.search.constraints import Constraint
from agentlab.search.optuna_proposer import OptunaProposer
from agentlab.search.screen import ScreenedProposer, ScreenEstimate, ScreenLimits, ScreenRules
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Params, Proposal, Trial, TrialResult

SPACE = SearchSpace.of(
    SpaceConfig.model_validate(
        {
            "heads": {"type": "categorical", "choices": [1, 2, 3, 4]},
            "width": {"type": "categorical", "choices": [8, 16, 32, 64]},
        }
    ),
    TypeAdapter(list[Constraint]).validate_python([{"divides": ["heads", "width"]}]),
)


def cost(params: Params) -> ScreenEstimate:
    if params["heads"] == 4 and params["width"] == 8:
        raise ValueError("a head needs at least 4 channels")
    return ScreenEstimate(parameters=1_000 * params["width"], memory_bytes=2**20 * params["width"])


RULES = ScreenRules(SPACE, cost, ScreenLimits(parameters=32_000, memory_bytes=2**25))


def trial(number: int, params: Params, value: float | None = 1.0) -> Trial:
    return Trial(number, Proposal(params, "x"), TrialResult("failed" if value is None else "finished", value))


class Stubborn:
    """Proposes the same points whatever it is asked."""

    name = "stubborn"

    def __init__(self, *points: Params) -> None:
        self.points = points

    def ask(self, history, n, rng):
        return [Proposal(point, self.name) for point in self.points[:n]]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"heads": 3, "width": 16}, "does not divide"),
        ({"heads": 5, "width": 16}, "expected one of"),
        ({"heads": 1}, "width is missing"),
        ({"heads": 2, "width": 16}, "identical to the best configuration (trial 1)"),
        ({"heads": 2, "width": 8}, "already tried in trial 0"),
        ({"heads": 1, "width": 8}, "already tried in trial 2"),  # a failed one
        ({"heads": 1, "width": 64}, "64,000 parameters exceed the limit of 32,000"),
        ({"heads": 4, "width": 8}, "cannot be built: a head needs"),
    ],
)
def test_a_refusal_says_why(params, words):
    history = [
        trial(0, {"heads": 2, "width": 8}),
        trial(1, {"heads": 2, "width": 16}, 0.5),
        trial(2, {"heads": 1, "width": 8}, None),
    ]
    assert words in "; ".join(RULES.against(history)(params))


def test_memory_is_held_against_the_configured_limit():
    rules = ScreenRules(SPACE, cost, ScreenLimits(memory_bytes=2**24))
    assert rules.against([])({"heads": 1, "width": 32}) == ["needs about 32 MiB, above the limit of 16 MiB"]
    assert rules.against([])({"heads": 1, "width": 16}) == []


def test_a_refused_candidate_gives_way_to_its_nearest_neighbour():
    history = [trial(0, {"heads": 2, "width": 16})]
    proposal = ScreenedProposer(Stubborn({"heads": 2, "width": 16}), RULES).ask(history, 1, np.random.default_rng(0))[0]
    assert proposal.source == "stubborn"
    assert SPACE.distance(proposal.params, {"heads": 2, "width": 16}) <= 0.25  # one step of one parameter
    assert "identical to the best" in proposal.note


def test_a_point_outside_the_space_is_snapped_first():
    proposal = ScreenedProposer(Stubborn({"heads": 2, "width": 1_000}), RULES).ask([], 1, np.random.default_rng(0))[0]
    assert RULES.against([])(proposal.params) == []
    assert proposal.params["width"] == 32


def test_candidates_differ_and_gaps_are_filled_with_random_points():
    same = {"heads": 1, "width": 8}
    proposals = ScreenedProposer(Stubborn(same, same), RULES).ask([], 4, np.random.default_rng(0))
    assert len({SPACE.key(p.params) for p in proposals}) == 4
    assert [p.source for p in proposals] == ["stubborn", "stubborn", "random", "random"]
    assert not [reason for p in proposals for reason in RULES.against([])(p.params)]


def test_a_small_space_is_emptied_point_by_point_and_then_the_search_is_over():
    """Eight points keep all rules and limits; each is proposed once."""
    proposer, history = ScreenedProposer(OptunaProposer(SPACE, startup=2), RULES), []
    while proposals := proposer.ask(history, 1, np.random.default_rng(len(history))):
        history.append(trial(len(history), proposals[0].params, float(proposals[0].params["width"])))
    valid = [p for p in SPACE.points(100) if not RULES.against([])(p)]
    assert {SPACE.key(t.proposal.params) for t in history} == {SPACE.key(p) for p in valid}
    assert len(history) == len(valid) == 8


def test_nothing_passes_and_nothing_is_proposed():
    rules = ScreenRules(SPACE, cost, ScreenLimits(parameters=1))
    assert ScreenedProposer(RandomProposer(SPACE), rules).ask([], 3, np.random.default_rng(0)) == []


def test_the_same_generator_gives_the_same_answer():
    proposer = ScreenedProposer(RandomProposer(SPACE), RULES)
    assert proposer.ask([], 3, np.random.default_rng(4)) == proposer.ask([], 3, np.random.default_rng(4))


def test_it_goes_by_the_name_of_its_base():
    assert ScreenedProposer(Stubborn(), RULES).name == "stubborn"


def test_what_a_person_turned_down_is_refused_and_its_neighbour_tried():
    history = [trial(0, {"heads": 2, "width": 8}), trial(-1, {"heads": 2, "width": 16}, None)]
    assert RULES.against(history)({"heads": 2, "width": 16}) == ["already rejected"]
    proposal = ScreenedProposer(Stubborn({"heads": 2, "width": 16}), RULES).ask(history, 1, np.random.default_rng(0))[0]
    assert proposal.params != {"heads": 2, "width": 16}
    assert "already rejected" in proposal.note


def test_what_is_under_way_is_not_proposed_again():
    under_way = Trial(1, Proposal({"heads": 2, "width": 16}, "x"), TrialResult("running"))
    history = [trial(0, {"heads": 2, "width": 8}), under_way]
    assert RULES.against(history)({"heads": 2, "width": 16}) == ["already tried in trial 1"]
