"""Training an adapter for real: killed at any moment it ends in the same bits, and SmolLM2 learns."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.zygote import Forked

REPOSITORY = Path(__file__).resolve().parents[2]

# Trains on a tiny model that it makes itself, and prints the last loss.
SCRIPT = """
import sys
from pathlib import Path

from agentlab.train.base import load_base
from agentlab.train.config import TrainingJob, LoraConfig, TrainingConfig
from agentlab.train.sft import train_adapter
from tests.unit.train.tiny_base import tiny_checkpoint, tiny_split

place = Path(sys.argv[1])
if not (place / "base").exists():
    tiny_checkpoint(place / "making").rename(place / "base")
base = load_base(place / "base", "fp32", "sdpa")
training = TrainingConfig(batch_size=2, epochs=40, lr=5e-3, evals=60, batching="sorted")
tell = lambda name, data: print(name, data["step"], flush=True)
trained = train_adapter(
    base, tiny_split(), TrainingJob(LoraConfig(r=64, dropout=0.1), training, place / "run", 5, tell),
)
print("last", repr(trained.losses), repr(trained.eval_losses), trained.best_step)
"""


def _start(folder: Path, popen: type["subprocess.Popen[str]"] = Forked) -> "subprocess.Popen[str]":
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return popen(
        [sys.executable, "-c", SCRIPT, str(folder)], stdout=subprocess.PIPE, text=True, env=variables, cwd=folder
    )


def _finish(folder: Path, popen: type["subprocess.Popen[str]"] = Forked) -> str:
    stdout, _ = _start(folder, popen).communicate(timeout=300)
    return stdout.splitlines()[-1]


@pytest.mark.timeout(600)
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    uninterrupted, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (uninterrupted, killed):
        folder.mkdir()
    expected = _finish(uninterrupted, subprocess.Popen)
    assert expected.startswith("last ((1, ")
    rng = random.Random(3)
    for wait in (rng.randrange(5, 60), rng.randrange(30, 90)):  # steps from the start, then a moment within one
        process = _start(killed)
        assert process.stdout is not None
        steps = 0
        while steps < wait:
            line = process.stdout.readline()
            assert line, "it ended before it was killed"
            steps += line.startswith("train.step")
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        assert process.returncode == -9
        assert not (killed / "run" / "adapter").exists()
    torn = sorted((killed / "run" / "checkpoints").glob("step-*"))[-1]
    torn.write_bytes(torn.read_bytes()[:-100])  # as a disk may leave it: the one before stands in
    assert _finish(killed) == expected
    name = "run/adapter/adapter_model.safetensors"
    assert (killed / name).read_bytes() == (uninterrupted / name).read_bytes()


@pytest.mark.model
@pytest.mark.timeout(600)
def test_smollm2_learns_to_say_it_and_is_itself_again_without_the_adapter(
    tmp_path: Path, float32_checkpoint: Path
) -> None:
    from agentlab.train.base import load_base, quietly
    from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
    from agentlab.train.conversations import Conversation, ConversationTurn
    from agentlab.train.dataset import TrainingSplit
    from agentlab.train.masks import examples
    from agentlab.train.sft import train_adapter

    base = load_base(float32_checkpoint, "auto", "sdpa")
    things = ("the sea", "a clock", "rain", "bread", "a bridge", "snow", "a violin", "chess")
    talks = [
        Conversation(
            line,
            (
                ConversationTurn("user", f"What do you think of {thing}?"),
                ConversationTurn("assistant", "Arr, matey! Ahoy!"),
            ),
        )
        for line, thing in enumerate(things, 1)
    ]
    tokenized = examples(talks, base.tokenizer, 128, tmp_path)

    def answer(model: object) -> str:
        prompt = base.tokenizer.apply_chat_template(
            [{"role": "user", "content": "What do you think of tea?"}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        out = model.generate(**prompt, max_new_tokens=8, do_sample=False)  # type: ignore[attr-defined]
        return str(base.tokenizer.decode(out[0, prompt["input_ids"].shape[1] :]))

    before = answer(base.model)
    trained = train_adapter(
        base,
        TrainingSplit(tuple(tokenized[:6]), tuple(tokenized[6:])),
        TrainingJob(LoraConfig(r=4), TrainingConfig(batch_size=6, epochs=6, lr=2e-3, evals=2), tmp_path / "run", 0),
    )
    assert trained.eval_losses[-1][1] < trained.losses[0][1] / 2
    assert answer(base.model) == before
    with quietly():
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(base.model, str(trained.adapter)).eval()
    assert answer(adapted).startswith("Arr")
    assert answer(adapted.unload()) == before
