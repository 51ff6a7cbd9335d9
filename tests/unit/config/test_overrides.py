"""`--set key=value`: what it means, what it changes, and how a wrong one is explained."""

import copy
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.config.keys import join
from agentlab.config.overrides import Layer, Override, address, format_set_options, parse
from agentlab.errors import ConfigError

TREE = {
    "seed": 1,
    "stages": [{"id": "draft", "temperature": 0.7}, {"name": "check", "temperature": 0.0}],
    "space": {"training.lr": {"low": 0.001}},
}
PATHS = st.lists(st.text("abc.", min_size=1, max_size=3), min_size=1, max_size=3)


def apply(tree: dict[str, Any], override: Override) -> dict[str, Any]:
    return Layer(tree).override(override).data


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("training.lr=1e-3", "training.lr", 0.001),
        ("a=~", "a", None),
        ('a=""', "a", ""),
        ("a=null", "a", None),
        ("a=x=y", "a", "x=y"),
        ("a={b: [1, 2]}", "a", {"b": [1, 2]}),
        ('space."training.lr".high=0.01', 'space."training.lr".high', 0.01),
        ('"a=b".c=1', '"a=b".c', 1),
    ],
)
def test_parse(text: str, key: str, value: object) -> None:
    assert parse(text) == Override(key, value, "--set")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "--set 'seed' has no equals sign."),
        ("=3", "--set: the key '=3' has an empty part."),
        ("a..b=3", "--set: the key 'a..b=3' has an empty part."),
        ("a=[1", "--set a:1:3: a bracket is not closed, or a comma is missing."),
    ],
)
def test_a_broken_override_is_explained(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.message == message


@given(PATHS, st.integers(), st.integers())
def test_the_later_override_wins(parts: list[str], first: int, second: int) -> None:
    key = join(parts)
    once = apply({}, Override(key, second))
    assert apply(apply({}, Override(key, first)), Override(key, second)) == once


@given(PATHS, PATHS)
def test_overrides_of_different_branches_commute(one: list[str], other: list[str]) -> None:
    a, b = Override(join(["left", *one]), 1), Override(join(["right", *other]), 2)
    assert apply(apply({}, a), b) == apply(apply({}, b), a)


def test_apply_leaves_its_tree_alone() -> None:
    before = copy.deepcopy(TREE)
    apply(TREE, Override("stages.draft.temperature", 0.1))
    apply(TREE, Override("space.new.low", 0.1))
    assert before == TREE


def test_a_list_element_has_an_index_an_id_or_a_name() -> None:
    for key in ("stages.0.temperature", "stages.draft.temperature"):
        assert apply(TREE, Override(key, 0.2))["stages"][0] == {"id": "draft", "temperature": 0.2}
    assert apply(TREE, Override("stages.check.temperature", 0.2))["stages"][1]["temperature"] == 0.2
    assert address(TREE, Override("stages.check.top_p", 1)) == ("stages", "1", "top_p")


def test_a_quoted_part_may_hold_dots() -> None:
    changed = apply(TREE, Override('space."training.lr".high', 0.01))
    assert changed["space"] == {"training.lr": {"low": 0.001, "high": 0.01}}


def test_a_null_on_the_way_becomes_a_mapping() -> None:
    assert apply({"a": None}, Override("a.b", 1)) == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("seed.x", "--set: seed.x: seed is a single value and has no keys."),
        ("stages.other.x", "--set: stages.other.x: stages has no element 'other'; known: draft, check."),
        ("stages.2", "--set: stages.2: stages has no element '2'; known: draft, check."),
        ("stages.-1", "--set: stages.-1: stages has no element '-1'; known: draft, check."),
        ("list.5", "--set: list.5: list has no element '5'; it has 2, counted from 0."),
    ],
)
def test_a_key_that_leads_nowhere_is_explained(key: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply({**TREE, "list": [1, 2]}, Override(key, 1))
    assert caught.value.message == message


def test_a_key_is_no_deeper_than_a_config() -> None:
    assert parse(".".join("a" * 32) + "=1").value == 1
    with pytest.raises(ConfigError, match="nested deeper than 32 levels"):
        parse(".".join("a" * 33) + "=1")


settings = st.dictionaries(
    st.sampled_from(["a", "data.date_format", 'space."x.y".low']),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]))
    | st.integers()
    | st.booleans()
    | st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]))),
    min_size=1,
)


@given(settings)
def test_settings_are_typed_so_that_a_shell_and_the_parser_read_the_same(settings: dict[str, Any]) -> None:
    words = shlex.split(format_set_options(settings))
    assert words[::2] == ["--set"] * len(settings)
    assert {o.key: o.value for o in map(parse, words[1::2])} == settings


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"data.date_format": "%d.%m.%Y"}, "--set data.date_format=%d.%m.%Y"),
        ({"data.date_format": "%d.%m.%Y %H:%M"}, "--set 'data.date_format=%d.%m.%Y %H:%M'"),
        ({"data.ignore": ["Wetter", "1"]}, """--set 'data.ignore=[Wetter, "1"]'"""),
        ({"data.separator": ";", "data.gaps": "ffill"}, "--set 'data.separator=;' --set data.gaps=ffill"),
        ({"data.split.train": 0.6}, "--set data.split.train=0.6"),
    ],
)
def test_settings_are_typed_as_a_person_would(settings: dict[str, Any], text: str) -> None:
    assert format_set_options(settings) == text


def test_a_pattern_is_text_as_a_shell_passes_it_on() -> None:
    assert parse("data.date_format=%d.%m.%Y").value == "%d.%m.%Y"
