"""Measuring tells how far it is, and ends when somebody asks for it."""

from collections.abc import Sequence

import pytest

from agentlab.answers.choices import Scored
from agentlab.errors import Interrupted
from agentlab.persona.measure import Measuring, base_task, forgetting, held_out_losses, samples, separability
from agentlab.runs.stop import StopFlag
from agentlab.train.conversations import ConversationTurn
from agentlab.train.masks import Example
from agentlab.train.scoring import Choices

LINES = [Example(1, (1, 2), (-100, 2), 0)] * 3


class Scorer:
    """Likes everything alike, and says after each text, or after each token of all answers, that it is done."""

    def __init__(self, measuring: Measuring) -> None:
        self._done = measuring.done

    def logprobs(self, requests: Sequence[tuple[str | None, Example]]) -> list[float]:
        for _ in requests:
            self._done(1)
        return [-1.0 if adapter is None else -2.0 for adapter, _ in requests]

    def choices(self, names: Sequence[str | None], questions: Sequence[Choices]) -> list[list[Scored]]:
        self._done(len(names) * len(questions))
        return [[Scored((-1.0,) * len(texts), (1,) * len(texts), (1,) * len(texts)) for _, texts in questions]] * len(
            names
        )

    def answers(self, asked: Sequence[tuple[str | None, Sequence[ConversationTurn]]], max_tokens: int) -> list[str]:
        for _ in range(max_tokens):
            self._done(len(asked))
        return ["so"] * len(asked)


def test_each_part_is_told_from_nothing_to_all_of_it() -> None:
    steps: list[tuple[str, int, int]] = []
    measuring = Measuring(lambda *step: steps.append(step), StopFlag())
    scores = Scorer(measuring)
    losses = measuring.part("losses", scores, lambda by: held_out_losses(by, None, LINES))
    assert losses == held_out_losses(scores, None, LINES)
    assert steps[:4] == [("losses", done, 3) for done in range(4)]
    steps.clear()
    measuring.part("apart", scores, lambda by: separability(by, {"a": LINES, "b": LINES[:2]}, 2))
    measuring.part("task", scores, lambda by: forgetting(by, ["a"], base_task(4)))
    measuring.part("answers", scores, lambda by: samples(by, {"a": "Doubt.", "b": None}, ["Why?", "How?"], 5))
    last = {name: (done, total) for name, done, total in steps}
    assert set(last) == {"apart", "task", "answers"}
    assert all(done == total for done, total in last.values())
    assert last["apart"] == (12, 12)
    assert last["answers"] == (40, 40)


def test_a_part_that_asks_for_nothing_tells_nothing() -> None:
    measuring = Measuring(lambda *_: pytest.fail("there is nothing to tell"), StopFlag())
    assert measuring.part("losses", Scorer(measuring), lambda by: held_out_losses(by, "a", [])) is None


@pytest.mark.parametrize("texts", [0, 2])
def test_it_ends_between_two_texts(texts: int) -> None:
    stop, steps = StopFlag(), []

    def tell(_: str, done: int, total: int) -> None:
        steps.append((done, total))
        if done == texts:
            stop.request(15)

    measuring = Measuring(tell, stop)
    with pytest.raises(Interrupted) as caught:
        measuring.part("losses", Scorer(measuring), lambda by: held_out_losses(by, None, LINES))
    assert caught.value.exit_code == 143
    assert steps == [(done, 3) for done in range(texts + 1)]
