"""Likelihoods and answers under adapters: what the plain model says, and the base left as it was."""

from pathlib import Path

import pytest
import torch

from agentlab.train.base import Base, load_base
from agentlab.train.config import LoraConfig, TrainingConfig
from agentlab.train.masks import IGNORED, Example
from agentlab.train.scoring import Scorer
from agentlab.train.sft import train_adapter
from tests.unit.train.tiny_base import tiny_checkpoint, tiny_split


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(tiny_checkpoint(tmp_path_factory.mktemp("base")), "fp32", "sdpa")


def plain(base: Base, example: Example) -> float:
    """Mean log-probability by the whole logits of one row."""
    ids = torch.tensor([example.input_ids])
    with torch.no_grad():
        logits = base.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    labels = torch.tensor(example.labels[1:])
    picked = logits.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    return float(picked[labels != IGNORED].mean())


def test_likelihoods_are_those_of_each_row_alone(base: Base) -> None:
    examples = tiny_split().train
    expected = [plain(base, each) for each in examples]
    assert Scorer(base, {}).logprobs(None, examples) == pytest.approx(expected, abs=1e-5)


def test_an_adapter_changes_them_and_none_is_the_base(base: Base, tmp_path: Path) -> None:
    split = tiny_split()
    trained = train_adapter(
        base,
        split,
        LoraConfig(r=4),
        TrainingConfig(epochs=4, batch_size=4, lr=1e-2, evals=1),
        folder=tmp_path,
        seed=0,
        tell=lambda *_: None,
        stopped=lambda: False,
    )
    before = Scorer(base, {}).logprobs(None, split.train)
    scorer = Scorer(base, {"a": trained.adapter})
    assert scorer.logprobs(None, split.train) == pytest.approx(before, abs=1e-6)
    assert sum(scorer.logprobs("a", split.train)) > sum(before)
    scorer.close()
    assert Scorer(base, {}).logprobs(None, split.train) == before
