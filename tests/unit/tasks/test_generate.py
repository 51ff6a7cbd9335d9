"""The item set: the same everywhere, without repetition, its levels balanced, its own answers right."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.tasks.check import check
from agentlab.tasks.generate import generate
from agentlab.tasks.items import TASK_TYPES, set_digest


def test_the_shipped_set_never_changes_unnoticed():
    """Scores of two versions compare only if their items are the same: a new digest is a change to announce."""
    assert set_digest(generate()) == "57bf8e98e82ea471"


def test_there_are_a_dozen_of_each_type_with_levels_in_turn():
    items = generate()
    assert Counter(item.type for item in items) == dict.fromkeys(TASK_TYPES, 12)
    assert Counter((item.type, item.level) for item in items) == {
        (t, level): 4 for t in TASK_TYPES for level in (1, 2, 3)
    }


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
def test_any_seed_makes_distinct_items_that_can_be_answered(seed, count):
    items = generate(per_type=count, seed=seed)
    assert len({item.id for item in items}) == len({item.prompt for item in items}) == len(items)
    for item in items:
        assert len(item.prompt) < 2_000
        if item.checker in ("letter", "label"):
            assert item.expected["right"] in item.expected["among"]
        if item.checker == "number":
            assert check(item, str(item.expected)).score == 1


@given(st.sampled_from(TASK_TYPES), st.integers(0, 99))
def test_a_type_does_not_depend_on_the_others_and_fewer_are_the_first_of_more(kind, seed):
    alone = generate((kind,), 5, seed)
    assert alone == tuple(item for item in generate(per_type=12, seed=seed) if item.type == kind)[:5]


def test_another_seed_makes_other_items():
    kinds = tuple(kind for kind in TASK_TYPES if kind != "open")
    assert not {i.digest for i in generate(kinds, 3, 1)} & {i.digest for i in generate(kinds, 3, 2)}


@pytest.mark.parametrize("item", [i for i in generate(per_type=20) if "```python" in i.prompt], ids=lambda i: i.id)
def test_a_program_prints_what_the_item_expects(item, capsys):
    exec(item.prompt.split("```python\n")[1].split("\n```")[0], {})
    assert capsys.readouterr().out.strip() == str(item.expected)


def test_an_order_of_items_does_not_change_the_digest_and_an_item_does():
    items = generate(("exact",), 4)
    assert set_digest(items) == set_digest(items[::-1]) != set_digest(items[:3])
