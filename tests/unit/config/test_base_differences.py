"""What changed between two configs, and whether a resumed run may change it."""

from collections.abc import Callable
from typing import Any

import pytest

from agentlab.config.base import KeyDifference, Role, differences, larger_budget

Lay = Callable[..., Any]


def test_each_changed_key_comes_with_its_role(lay: Lay) -> None:
    old = lay().config
    new = lay(None, "rounds=9", "threads=2", "training.optimizer.lr=0.5", "llm.max_usd=2").config
    assert differences(old, new) == [
        KeyDifference("rounds", 5, 9, "budget"),
        KeyDifference("threads", None, 2, "machine"),
        KeyDifference("training.optimizer.lr", 0.01, 0.5, None),
        KeyDifference("llm.max_usd", 1.0, 2.0, "budget"),
    ]


def test_keys_that_only_one_config_has_are_differences(lay: Lay) -> None:
    old, new = lay().config, lay(None, 'notes."a.b"=1', "stages=[{id: x}]").config
    changes = {d.key: (d.old, d.new) for d in differences(old, new)}
    assert changes['notes."a.b"'] == (None, 1)
    assert changes["stages"][0] == []


def test_a_config_does_not_differ_from_itself(lay: Lay) -> None:
    assert differences(lay().config, lay().config) == []


@pytest.mark.parametrize(
    ("role", "old", "new", "larger"),
    [
        ("budget", 5, 9, True),
        ("budget", 5, 5.5, True),
        ("budget", 5, None, True),
        ("budget", 5, 3, False),
        ("budget", None, 3, False),
        (None, 5, 9, False),
        ("machine", 5, 9, False),
    ],
)
def test_a_budget_is_larger_when_it_leaves_more_to_do(
    role: Role | None, old: float | None, new: float | None, larger: bool
) -> None:
    assert larger_budget([KeyDifference("k", old, new, role)]) is larger
    assert not larger_budget([])
