"""Texts side by side behind a prompt are as likely as each is alone."""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from agentlab.hf.batch import AnswerBatch, AnswerRow
from agentlab.hf.likelihood import Choice, likelihoods
from agentlab.hf.prefill import Prompt
from agentlab.lora.rowwise import rowwise
from agentlab.lora.stacked import BASE
from tests.unit.hf.test_batch import ENDS, adapters_of, alone, model_of


@pytest.fixture(autouse=True)
def _no_opinions() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT and transformers have opinions on tiny models
        yield


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral", "Qwen3Next", "GPT2"])
def test_texts_are_as_likely_as_alone(kind: str, tmp_path: Path) -> None:
    chance, model = random.Random(0), model_of(kind)

    def tokens(max_count: int) -> list[int]:
        return [chance.randrange(10, 64) for _ in range(chance.randint(1, max_count))]

    choices = [Choice(Prompt(chance.choice([BASE, 0, 1]), tokens(12)), [tokens(5) for _ in range(3)]) for _ in range(9)]
    with rowwise(model, adapters_of(kind, tmp_path)) as adapters, torch.inference_mode():
        scores = likelihoods(model, adapters, choices)
        for choice, sums in zip(choices, scores, strict=True):
            for text, one in zip(choice.texts, sums, strict=True):
                adapters.rows([choice.before.adapter])
                ids = torch.tensor([[*choice.before.tokens, *text]])
                logits = model(ids).logits[0, len(choice.before.tokens) - 1 : -1].log_softmax(-1)
                assert one.total == pytest.approx(float(logits[range(len(text)), list(text)].sum()), abs=1e-4)
                assert one.greedy == (logits.argmax(-1).tolist() == list(text))


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
def test_what_a_row_has_read_serves_its_next_prompt(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    with rowwise(model, adapters_of(kind, tmp_path)) as adapters:
        batch = AnswerBatch(model, adapters, ENDS)
        rows = [
            AnswerRow(adapter, [11, 12, 13 + adapter, *range(20, 24)], 1 + 3 * (adapter + 1), keep=True)
            for adapter in (0, BASE, 1)
        ]
        for _ in batch.run(rows, 3):
            pass
        new = [
            AnswerRow(row.adapter, [*row.prompt[: 5 + n], 33, *[40] * n], 4, past=row.past, known=5 + n)
            for n, row in enumerate(rows)
        ]
        new.append(AnswerRow(0, [50, 51], 4))
        tokens_by_row: dict[AnswerRow, list[int]] = {row: [] for row in new}
        for tokens in batch.run(new, 4):
            for token in tokens:
                tokens_by_row[token.row].append(token.token)
        assert [tokens_by_row[row] for row in new] == [alone(model, adapters, row)[0] for row in new]
        assert all(row.past is None for row in new)
