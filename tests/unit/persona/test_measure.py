"""Whether personas can be told apart, and what the base forgot, from what a scorer says."""

from collections.abc import Sequence

import pytest

from agentlab.persona.measure import forgetting, separability
from agentlab.train.masks import Example


def turn(owner: int, number: int) -> Example:
    """A held-out turn whose first token says whose it is."""
    return Example(1, (owner, number), (-100, number), 0)


class Scorer:
    """Finds a turn likeliest under its own persona, unless its number is 9; the base likes nothing."""

    NAMES = ("a", "b", "c")

    def logprobs(self, adapter: str | None, examples: Sequence[Example]) -> list[float]:
        if adapter is None:
            return [-4.0] * len(examples)
        own = self.NAMES.index(adapter)
        return [-1.0 if (each.input_ids[0] == own) == (each.input_ids[1] != 9) else -2.0 for each in examples]

    def choices(self, adapter: str | None, questions: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
        return [answers[0] for _, answers in questions]


HELD_OUT = {name: [turn(owner, n) for n in (1, 2, 9)] for owner, name in enumerate("abc")}


def test_a_turn_that_is_likeliest_under_its_own_persona_is_a_hit() -> None:
    found = separability(Scorer(), HELD_OUT, 2)
    assert found is not None
    assert (found.share.estimate, found.count) == (1.0, 6)
    assert found.chance == pytest.approx(1 / 3)
    assert found.matrix["a"] == {"a": -1.0, "b": -2.0, "c": -2.0, "base": -4.0}


def test_turns_that_sound_like_others_are_misses() -> None:
    found = separability(Scorer(), HELD_OUT, 3)
    assert found is not None
    assert (found.share.estimate, found.count) == (pytest.approx(2 / 3), 9)
    assert found.share.low < 2 / 3 < found.share.high


def test_one_persona_alone_cannot_be_told_apart() -> None:
    assert separability(Scorer(), {"a": HELD_OUT["a"], "b": []}, 3) is None
    assert separability(Scorer(), HELD_OUT, 0) is None


def test_the_base_task_is_asked_before_and_after() -> None:
    found = forgetting(Scorer(), ["a"], 8)
    assert set(found) == {None, "a"}
    assert found[None] == found["a"]
    assert 0 < found[None].estimate < 1
    assert forgetting(Scorer(), ["a"], 0) == {}
