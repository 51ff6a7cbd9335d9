"""The space: how YAML becomes parameters, what a point is, and what happens to values from outside."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agentlab.errors import ConfigError
from agentlab.search.constraints import Constraint
from agentlab.search.space import SearchSpace, SpaceConfig

CONFIG = {
    "model.d_model": {"type": "categorical", "choices": [8, 16, 32]},
    "model.n_heads": {"type": "categorical", "choices": [1, 2, 3, 4]},
    "model.attention": {"type": "categorical", "choices": ["full", "prob"]},
    "model.factor": {"type": "int", "low": 1, "high": 9, "step": 2, "when": {"model.attention": ["prob"]}},
    "training.lr": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "training.batch": {"type": "int", "low": 1, "high": 100, "log": True},
}
RULES = [{"divides": ["model.n_heads", "model.d_model"]}]
POINT = {"model.d_model": 16, "model.n_heads": 2, "model.attention": "full", "training.lr": 0.001, "training.batch": 32}

anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40), st.lists(st.integers(), max_size=3)
)


def constraints(raw) -> list[Constraint]:
    return TypeAdapter(list[Constraint]).validate_python(raw)


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace.of(SpaceConfig.model_validate(CONFIG), constraints(RULES))


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_every_sample_is_a_point_and_survives_its_coordinates(seed):
    space = SearchSpace.of(SpaceConfig.model_validate(CONFIG), constraints(RULES))
    point = space.sample(np.random.default_rng(seed))
    assert space.problems(point) == []
    assert space.key(space.decode(space.encode(point))) == space.key(point)
    assert ("model.factor" in point) == (point["model.attention"] == "prob")
    assert all(0 <= u <= 1 for u in space.encode(point))


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from([*CONFIG, "rm -rf", ""]), anything, max_size=6))
def test_whatever_a_model_answers_snapping_gives_values_of_the_space(raw):
    space = SearchSpace.of(SpaceConfig.model_validate(CONFIG))
    point, unusable = space.snap(raw, POINT)
    assert space.problems(point) == []
    assert len(unusable) <= len(raw)
    assert all(len(text) < 120 for text in unusable)


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("training.lr", 5, 0.1),  # clamped
        ("training.lr", "1e-3", 0.001),
        ("model.d_model", "32", 32),
        ("model.d_model", 30, 32),  # an ordered scale has a nearest choice
        ("model.attention", "PROB", "prob"),
        ("training.batch", 10**400, 32),  # no float: unusable, the base stays
        ("training.batch", 1e300, 100),
        ("model.d_model", True, 16),
        ("model.attention", "flash", "full"),
        ("training.lr", math.nan, 0.001),
    ],
)
def test_a_foreign_value_is_clamped_snapped_or_left_out(space, name, raw, value):
    assert space.snap({name: raw}, POINT)[0][name] == value


def test_an_integer_lands_on_its_grid(space):
    point, _ = space.snap({"model.attention": "prob", "model.factor": 4.4}, POINT)
    assert point["model.factor"] == 5


def test_a_newly_active_parameter_gets_its_middle_value(space):
    assert space.snap({"model.attention": "prob"}, POINT)[0]["model.factor"] == 5


def test_what_cannot_be_used_is_said(space):
    _, unusable = space.snap({"model.depth": 3, "model.attention": "flash"}, POINT)
    assert unusable == ["'model.depth' is not a parameter", "'flash' is not a valid value of model.attention"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.d_model": 17}, "expected one of 8, 16, 32"),
        ({"model.factor": 3}, "condition does not hold"),
        ({"model.attention": "prob"}, "model.factor is missing"),
        ({"model.n_heads": 3}, "model.n_heads = 3 does not divide model.d_model = 16"),
        ({"other": 1}, "other is not a parameter"),
        ({"training.lr": True}, "training.lr = True is invalid; expected number"),
    ],
)
def test_problems_are_told_in_words(space, change, words):
    assert words in "; ".join(space.problems({**POINT, **change}))


def test_equal_experiments_have_equal_keys(space):
    assert space.key(POINT) == space.key({**POINT, "model.factor": 7})  # inactive
    assert space.key(POINT) == space.key({**POINT, "training.lr": 0.00100001})
    assert space.key(POINT) == space.key(dict(reversed(POINT.items())))
    assert space.key(POINT) != space.key({**POINT, "training.lr": 0.0011})


def test_the_default_is_the_config_s_own_point(space):
    config_values = {**POINT, "unrelated.key": "x"}
    assert space.default(config_values) == POINT
    assert space.default({**config_values, "training.lr": 7.0}) == {**POINT, "training.lr": 0.1}
    assert space.default()["model.d_model"] == 16  # the middle


def test_parents_come_before_children_whatever_the_order_in_the_file():
    flipped = SearchSpace.of(SpaceConfig.model_validate(dict(reversed(CONFIG.items()))))
    names = list(flipped.parameters)
    assert names.index("model.attention") < names.index("model.factor")
    assert flipped.depth == 1


def test_a_small_space_can_be_walked_through():
    space = SearchSpace.of(
        SpaceConfig.model_validate({n: CONFIG[n] for n in ("model.d_model", "model.attention", "model.factor")})
    )
    points = space.points(100)
    assert len(points) == 3 * (1 + 5)
    assert len({space.key(point) for point in points}) == len(points)
    assert space.points(10) is None


def test_a_continuous_space_cannot(space):
    assert space.points(10**6) is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"a": {"type": "int", "low": 3, "high": 1}}, "above high"),
        ({"a": {"type": "int", "low": 0, "high": 5, "log": True}}, "low >= 1"),
        ({"a": {"type": "float", "low": 0.0, "high": 1.0, "log": True}}, "requires low > 0"),
        ({"a": {"type": "float", "low": 0.0, "high": math.inf}}, "finite"),
        ({"a": {"type": "categorical", "choices": []}}, "at least 1"),
        ({"a": {"type": "categorical", "choices": [1, 1]}}, "listed twice"),
        ({"a": {"type": "normal", "mean": 0}}, "does not match any of the expected tags"),
        ({"a": {"type": "int", "low": 0, "high": 5, "lo": 1}}, "Extra inputs"),
        ({"a": {"type": "int", "low": 0, "high": 5, "when": {"b": [1]}}}, "not in the space"),
        ({"a": {"type": "int", "low": 0, "high": 5, "when": {"a": [1]}}}, "cycle"),
    ],
)
def test_a_wrong_space_is_refused(raw, words):
    with pytest.raises(ValidationError, match=words):
        SpaceConfig.model_validate(raw)


def test_an_empty_space_is_one_of_nothing_to_search():
    assert SearchSpace.of(SpaceConfig.model_validate({})).parameters == {}


def test_a_condition_must_be_reachable():
    raw = {**CONFIG, "model.factor": {**CONFIG["model.factor"], "when": {"model.attention": ["flash"]}}}
    with pytest.raises(ValidationError, match="needs valid values of"):
        SpaceConfig.model_validate(raw)


def test_rules_that_leave_nothing_are_reported():
    space = SearchSpace.of(
        SpaceConfig.model_validate({"a": CONFIG["model.d_model"], "b": {"type": "int", "low": 1, "high": 2}}),
        constraints([{"at_most": ["a", "b"]}]),
    )
    with pytest.raises(ConfigError, match="satisfies all constraints"):
        space.sample(np.random.default_rng(0))


def test_true_is_not_one():
    space = SearchSpace.of(SpaceConfig.model_validate({"a": {"type": "categorical", "choices": [True, 1, "1"]}}))
    assert [space.encode({"a": value})[0] for value in (True, 1, "1")] == sorted([1 / 6, 3 / 6, 5 / 6])
    assert len({space.key({"a": value}) for value in (True, 1, "1")}) == 3


def test_the_space_reads_back_what_it_dumps():
    config = SpaceConfig.model_validate(CONFIG)
    assert SpaceConfig.model_validate(config.model_dump(mode="json")) == config
