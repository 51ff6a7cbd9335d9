"""The sets of questions that ship suit the embedded model: it knows more than chance, and not everything."""

from pathlib import Path

import pytest

from agentlab.tasks.labelled import mark_answers, prompts_and_choices
from agentlab.tasks.questions import SETS, generate_questions
from agentlab.train.base import load_base
from agentlab.train.scoring import Scorer, scorer

pytestmark = pytest.mark.model

COUNT = 60


@pytest.fixture(scope="module")
def model(float32_checkpoint: Path):
    base = load_base(float32_checkpoint, "fp32", "sdpa")
    with scorer(base, {}) as scores:
        yield scores


@pytest.mark.parametrize("name", SETS)
def test_the_model_is_ten_points_above_chance_and_below_ninety(model: Scorer, name: str) -> None:
    questions = generate_questions(name, COUNT, 0)
    (scored,) = model.choices([None], prompts_and_choices(questions))
    right = sum(mark_answers(scored, questions))
    chance = sum(1 / len(question.choices) for question in questions) / COUNT
    assert chance + 0.1 <= right / COUNT < 0.9, f"{right} of {COUNT}"
