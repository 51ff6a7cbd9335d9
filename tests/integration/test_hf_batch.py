"""The embedded model under several adapters at a time: every answer as from the decoder of one row."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from agentlab.hf.batch import AnswerBatch, AnswerRow
from agentlab.hf.onednn_weights import pack_weights
from agentlab.lora.rowwise import rowwise
from agentlab.lora.stacked import BASE

pytestmark = pytest.mark.model

CLOSE = 1e-3  # between the two likeliest logits: then rounding may decide
QUESTIONS = ("What is the capital of France?", "Tell me a long story about a lighthouse.", "Count to five.")


@pytest.fixture(scope="module")
def model(float32_checkpoint: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(float32_checkpoint, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def folders(model: Any, float32_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random adapters of other ranks."""
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("adapters")
    for rank in (4, 8):
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")  # PEFT has opinions on where the base lies
            torch.manual_seed(rank)
            wrapped = get_peft_model(model, LoraConfig(r=rank, target_modules=["q_proj", "v_proj", "down_proj"]))
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.02)
            wrapped.save_pretrained(root / str(rank))
            wrapped.unload()
    return [root / "4", root / "8"]


@torch.inference_mode()
def test_answers_side_by_side_are_those_of_one_row(model: Any, folders: list[Path], float32_checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(float32_checkpoint)

    def prompt(question: str) -> list[int]:
        messages = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    rows = [AnswerRow(adapter, prompt(question), 16) for question in QUESTIONS for adapter in (BASE, 0, 1)]
    ends = {model.generation_config.eos_token_id}
    with rowwise(model, folders) as adapters, pack_weights(model):
        answers: dict[AnswerRow, list[int]] = {row: [] for row in rows}
        for tokens in AnswerBatch(model, adapters, ends).run(rows, 4):
            for output in tokens:
                answers[output.row].append(output.token)
        for row, ours in answers.items():
            adapters.rows([row.adapter])
            logits = model(torch.tensor([[*row.prompt, *ours[:-1]]])).logits[0, len(row.prompt) - 1 :]
            best = logits.topk(2)
            gaps = (best.values[:, 0] - best.values[:, 1]).tolist()
            differ = [position for position, token in enumerate(ours) if token != int(best.indices[position, 0])]
            assert all(gaps[position] < CLOSE for position in differ)
            assert len(ours) == 16 or ours[-1] in ends
    assert len({tuple(output) for output in answers.values()}) > len(QUESTIONS)  # the adapters do something
