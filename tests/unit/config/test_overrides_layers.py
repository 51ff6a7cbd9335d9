"""The laws of laying configs over each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.config.keys import join
from agentlab.config.overrides import Layer, Override, without_nulls
from agentlab.errors import ConfigError

KEYS = st.sampled_from("abc")
VALUES = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
TREES = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=3),
    lambda trees: st.dictionaries(KEYS, VALUES | trees, max_size=3),
    max_leaves=6,
)
PATHS = st.lists(KEYS, min_size=1, max_size=3)


def laid(*trees: dict[str, object]) -> dict[str, object]:
    layer = Layer()
    for tree in trees:
        layer = layer.with_upper(Layer(tree))
    return layer.data


@given(TREES)
def test_an_empty_layer_changes_nothing(tree: dict[str, object]) -> None:
    assert laid({}, tree) == tree
    assert laid(tree, {}) == tree


@given(TREES)
def test_a_layer_laid_twice_is_laid_once(tree: dict[str, object]) -> None:
    assert laid(tree, tree) == tree


# Layers that agree on which keys are mappings, as all layers of one config model do.
ALIKE = st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES, "c": st.dictionaries(KEYS, VALUES, max_size=3)})


@given(ALIKE, ALIKE, ALIKE)
def test_extending_is_associative(a: dict[str, object], b: dict[str, object], c: dict[str, object]) -> None:
    assert laid(laid(a, b), c) == laid(a, laid(b, c))


def test_a_mapping_over_a_null_starts_anew() -> None:
    assert laid({"c": {"a": 1}}, {"c": None}, {"c": {"b": 2}}) == {"c": {"b": 2}}


@given(TREES, PATHS, VALUES)
def test_the_later_layer_wins(tree: dict[str, object], path: list[str], value: object) -> None:
    upper: object = value
    for part in reversed(path):
        upper = {part: upper}
    assert isinstance(upper, dict)
    assert Layer(laid(tree, upper)).value(tuple(path)) == value


@given(TREES, KEYS)
def test_null_resets_to_what_was_never_given(tree: dict[str, object], key: str) -> None:
    assert key not in without_nulls(laid(tree, {key: None}))


@given(TREES, PATHS, st.integers())
def test_an_override_wins_over_every_layer(tree: dict[str, object], path: list[str], value: int) -> None:
    try:
        layer = Layer(tree).override(Override(join(path), value, "--set"))
    except ConfigError:
        return  # the path leads through a scalar or a list; test_overrides.py covers the message
    assert layer.value(tuple(path)) == value
    assert layer.origin(tuple(path)) == "--set"


def test_lists_are_replaced_as_a_whole() -> None:
    assert laid({"a": [1, 2, 3]}, {"a": [4]}) == {"a": [4]}


def test_a_null_inside_a_list_is_a_value() -> None:
    assert without_nulls({"a": [None, {"b": None, "c": 1}]}) == {"a": [None, {"c": 1}]}


def test_origins_follow_the_values() -> None:
    base = Layer(
        {"a": {"b": 1, "c": 2}, "l": [1]}, {("a",): "f:1", ("a", "b"): "f:2", ("a", "c"): "f:3", ("l", "0"): "f:4"}
    )
    upper = Layer({"a": {"b": 5}, "l": [2]}, {("a",): "g:1", ("a", "b"): "g:2", ("l",): "g:3"})
    layer = base.with_upper(upper)
    assert layer.origin(("a", "b")) == "g:2"
    assert layer.origin(("a", "c")) == "f:3"
    assert layer.origin(("l", "0")) == "g:3"
    assert layer.origin(("x",)) is None
    grafted = layer.graft(("a",), Layer({"n": 1}, {("n",): "h:9"}))
    assert grafted.data["a"] == {"n": 1}
    assert grafted.origin(("a", "n")) == "h:9"
    assert grafted.origin(("a", "c")) == "g:1"


def test_a_layer_is_never_changed() -> None:
    layer = Layer({"a": {"b": 1}}, {("a", "b"): "f:1"})
    layer.with_upper(Layer({"a": None}))
    layer.override(Override("a", 2))
    layer.graft(("a",), Layer({"c": 1}))
    assert layer == Layer({"a": {"b": 1}}, {("a", "b"): "f:1"})


def test_value_of_a_place_that_is_not_there() -> None:
    assert Layer({"a": [1]}).value(("a", "5", "x")) is None


@pytest.mark.parametrize("value", [{"x": {"y": [1]}}, [{"z": 1}]])
def test_an_override_is_the_origin_of_everything_it_holds(value: object) -> None:
    layer = Layer().override(Override("a", value, "--flag"))
    assert set(layer.origins.values()) == {"--flag"}
    assert len(layer.origins) >= 3
