"""Whether personas can be told apart, and what the base forgot, from what a scorer says."""

from collections.abc import Sequence

import numpy as np
import pytest

from agentlab.answers.choices import Scored
from agentlab.persona.measure import HeldOut, base_task, forgetting, gain, held_out_losses, samples, separability
from agentlab.persona.result import PersonaSample
from agentlab.tasks.questions import QuizQuestion
from agentlab.train.conversations import ConversationTurn
from agentlab.train.masks import Example
from agentlab.train.scoring import Choices


def turn(owner: int, number: int) -> Example:
    """A held-out turn whose first token says whose it is."""
    return Example(1, (owner, number), (-100, number), 0)


class Scorer:
    """Finds a turn likeliest under its own persona, unless its number is 9; the base likes nothing."""

    NAMES = ("a", "b", "c")

    def logprobs(self, requests: Sequence[tuple[str | None, Example]]) -> list[float]:
        return [
            -4.0 if adapter is None else self._liked(self.NAMES.index(adapter), example)
            for adapter, example in requests
        ]

    def _liked(self, persona_index: int, example: Example) -> float:
        return -1.0 if (example.input_ids[0] == persona_index) == (example.input_ids[1] != 9) else -2.0

    def answers(self, asked: Sequence[tuple[str | None, Sequence[ConversationTurn]]], max_tokens: int) -> list[str]:
        return [f"{name}: {' '.join(turn.content for turn in turns)}"[:max_tokens] for name, turns in asked]

    def choices(self, names: Sequence[str | None], questions: Sequence[Choices]) -> list[list[Scored]]:
        """The base takes the first, by mean and by sum alike; a persona does by mean, and the shorter one by sum."""
        lengths = [[1] * len(texts) for _, texts in questions]
        base = [Scored((-1.0, *[-2.0] * (len(n) - 1)), tuple(n), tuple(n)) for n in lengths]
        persona = [Scored((-3.0, *[-2.0] * (len(n) - 1)), (4, *n[1:]), tuple(n)) for n in lengths]
        return [base if name is None else persona for name in names]


HELD_OUT = {name: [turn(owner, n) for n in (1, 2, 9)] for owner, name in enumerate("abc")}


def test_a_turn_that_is_likeliest_under_its_own_persona_is_a_hit() -> None:
    result = separability(Scorer(), HELD_OUT, 2)
    assert result is not None
    assert (result.share.estimate, result.count) == (1.0, 6)
    assert result.chance == pytest.approx(1 / 3)
    assert result.matrix["a"] == {"a": -1.0, "b": -2.0, "c": -2.0, "base": -4.0}


def test_turns_that_sound_like_others_are_misses() -> None:
    result = separability(Scorer(), HELD_OUT, 3)
    assert result is not None
    assert (result.share.estimate, result.count) == (pytest.approx(2 / 3), 9)
    assert result.share.low < 2 / 3 < result.share.high


def test_one_persona_alone_cannot_be_told_apart() -> None:
    assert separability(Scorer(), {"a": HELD_OUT["a"], "b": []}, 3) is None
    assert separability(Scorer(), HELD_OUT, 0) is None


def test_the_base_task_is_asked_before_and_after() -> None:
    result = forgetting(Scorer(), ["a"], base_task(8))
    assert result is not None
    assert set(result.right) == {"base", "a"}
    assert result.right["base"]["mean"] == result.right["a"]["mean"]
    assert 0 < result.right["base"]["mean"].value < 1
    assert forgetting(Scorer(), ["a"], base_task(0)) is None


def test_a_persona_that_is_better_by_one_normalisation_alone_is_remarked() -> None:
    first = [QuizQuestion(f"q{n}", f"Which is {n}?", "one", ("one", "two"), "choice") for n in range(20)]
    result = forgetting(Scorer(), ["a"], first)
    assert result is not None
    assert (result.right["a"]["mean"].value, result.right["a"]["sum"].value) == (1.0, 0.0)
    (remark,) = result.remarks
    assert remark.startswith("a against base: +0.0 [")
    assert " points by mean, -100.0 [" in remark
    assert "The difference is significant by sum but not by mean." in remark


def test_personas_are_asked_as_they_were_trained_and_the_base_is_told_the_same() -> None:
    answers = samples(Scorer(), {"a": "Doubt.", "b": None}, ["Why?", "How?"], 40)
    assert answers == [
        PersonaSample(
            question=question,
            base=f"None: {question}",
            personas={"a": f"a: Doubt. {question}", "b": f"b: {question}"},
            prompted={"a": f"None: Doubt. {question}"},
        )
        for question in ("Why?", "How?")
    ]
    assert samples(Scorer(), {"a": None}, [], 40) == []


def test_a_loss_counts_tokens_and_a_gain_is_paired() -> None:
    """Conversations differ by far more than training changes each: pairs show it, two means would not."""
    before = HeldOut((1.0, 4.0, 9.0, 2.0), (10, 30, 20, 40))
    after = HeldOut(tuple(loss - 0.1 for loss in before.losses), before.counts)
    assert before.loss == pytest.approx((10 + 120 + 180 + 80) / 100)
    interval = gain(before, after, np.random.default_rng(0))
    assert interval is not None
    assert interval.estimate == pytest.approx(before.loss - after.loss) == pytest.approx(0.1)
    assert 0 < interval.low < 0.1 < interval.high < 0.2


def test_a_gain_that_chance_explains_has_an_interval_around_nothing() -> None:
    before = HeldOut((2.0,) * 6, (10,) * 6)
    interval = gain(before, HeldOut((1.8, 2.2, 1.9, 2.1, 2.3, 1.7), (10,) * 6), np.random.default_rng(0))
    assert interval is not None
    assert interval.low < 0 < interval.high


def test_one_conversation_has_no_interval() -> None:
    one = HeldOut((2.0,), (10,))
    assert gain(one, one, np.random.default_rng(0)) is None


def test_losses_are_those_of_the_supervised_tokens() -> None:
    assert held_out_losses(Scorer(), "a", HELD_OUT["a"]) == HeldOut((1.0, 1.0, 2.0), (1, 1, 1))
    assert held_out_losses(Scorer(), "a", []) is None
