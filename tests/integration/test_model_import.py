"""The embedded GGUF as a checkpoint: read back bit for bit, quick to load, able to talk and to learn."""

import os
import time
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError
from agentlab.models.importer import Dtype, import_gguf
from agentlab.models.store import find, list_models

pytestmark = pytest.mark.model

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return find("smollm2-135m", Workspace.locate(os.environ, REPOSITORY))
    except AgentlabError as error:
        pytest.fail(f"{error.message} Run `make setup`.")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_import_reads_back_answers_and_trains(model: Path, tmp_path: Path, dtype: Dtype) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rng_state = torch.random.get_rng_state()
    began = time.perf_counter()
    folder = import_gguf(model, tmp_path / "models" / f"smollm2-{dtype}", dtype)
    importing = time.perf_counter() - began
    assert torch.equal(torch.random.get_rng_state(), rng_state)  # an import does not change what a seeded run draws
    assert list(folder.parent.iterdir()) == [folder]
    assert not list(folder.rglob("*.bin"))  # safetensors only

    began = time.perf_counter()
    reread = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert time.perf_counter() - began < importing / 5
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert reread.dtype == getattr(torch, dtype)
    assert getattr(reread.config, "quantization_config", None) is None

    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = reread.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)

    reread.train()
    reread(**prompt, labels=prompt["input_ids"]).loss.backward()
    assert all(p.grad is not None for p in reread.parameters() if p.requires_grad)

    workspace = Workspace(root=tmp_path, cache=tmp_path / "cache")
    assert [(entry.name, entry.kind) for entry in list_models(workspace)] == [(folder.name, "checkpoint")]
