"""A sentence becomes a goal, and a goal puts recipes in order."""

import pytest

from agentlab.compress.goal import Bound, Goal, read_goal
from agentlab.errors import UsageError

MEASURED = {"size": 0.5, "speed": 2.0, "loss": 0.01, "kl": 0.03}


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("maximise speed with < 2 % loss", Goal("speed", (Bound("loss", 0.02),))),
        ("maximize speedup with <2% accuracy loss", Goal("speed", (Bound("loss", 0.02),))),
        ("smallest with loss < 5% and kl under 0.1", Goal("size", (Bound("loss", 0.05), Bound("kl", 0.1)))),
        ("best quality below 100 MB", Goal("kl", (Bound("size", 1e8, in_bytes=True),))),
        (
            "minimise kl, size at most 2GB, at least 1.5x speed",
            Goal("kl", (Bound("size", 2e9, True), Bound("speed", 1.5))),
        ),
        ("Smallest", Goal("size")),
    ],
)
def test_sentences(text: str, goal: Goal) -> None:
    assert read_goal(text) == goal


FIT = [
    "x" * 100_000,
    *(f"minimise kl with size < {size}" for size in ("2G", "1,5GB", "-5MB", "half", "1e3 MB", "100", "120 %")),
]


@pytest.mark.parametrize("text", ["", "make it nice", "speed < 2", "smallest with < 3 %", "please < 3", *FIT])
def test_a_sentence_that_says_too_little_or_nonsense_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_goal(text)
    assert caught.value.hint


def test_whoever_breaks_a_bound_is_behind_all_who_keep_them() -> None:
    goal = read_goal("smallest with loss < 2 %")
    large, small = {**MEASURED, "size": 0.99}, {**MEASURED, "size": 0.2, "loss": 0.021}
    assert goal.worth(large, 10**8) < goal.worth(small, 10**7)
    assert goal.broken(small, 10**7) == ["loss at most 2.0%"]
    assert goal.broken(large, 10**8) == []


def test_more_speed_is_worth_more_and_fewer_bytes_too() -> None:
    assert read_goal("fastest").worth({**MEASURED, "speed": 3.0}, 1) < read_goal("fastest").worth(MEASURED, 1)
    assert read_goal("smallest").worth({**MEASURED, "size": 0.4}, 1) < read_goal("smallest").worth(MEASURED, 1)


def test_a_goal_says_itself() -> None:
    assert str(read_goal("maximise speed with < 2 % loss, size under 1 GB")) == (
        "most speed, loss at most 2.0%, size at most 1000 MB"
    )
