"""What our training of an adapter costs beside a bare TRL script: same base, batches and settings, same losses.

The bare script is PEFT, SFTTrainer and nothing else: no checkpoints, no scorings, no events. Both train in turn in this
process, on one core, from the loaded base to the written adapter; held are equal losses of every step, and a median of
our tokens per second of at least 0.97 of the bare script's.

Usage: python tests/bench/train_persona.py [ROUNDS]     writes .agentlab/bench/train-persona.json; exit 1 below 0.97
"""

import importlib.metadata
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):  # ours takes as many threads as there are cores
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import torch

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.models.importer import import_gguf
from agentlab.models.store import find
from agentlab.runs.atomic import write_json
from agentlab.train.base import TrainingBase, load_base, quietly
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.conversations import Conversation, ConversationTurn
from agentlab.train.dataset import TrainingSplit
from agentlab.train.masks import Example, examples
from agentlab.train.schedule import Steps
from agentlab.train.sft import train_adapter

LIMIT = 0.97
OUT = Path(".agentlab/bench/train-persona.json")
LORA = LoraConfig(r=8)
TRAINING = TrainingConfig(batch_size=4, epochs=1, schedule="constant", warmup=0, batching="sorted")
WORDS = ("clock", "wall", "rain", "evening", "nobody", "believes", "before", "old", "says", "that", "will", "come")
# Relative, of a step's loss. TRL's head rounds gradients by 6e-6 in float32, and the first steps of Adam enlarge that.
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2, "8bit": 2e-2, "4bit": 2e-2}


def conversations(base: TrainingBase, count: int) -> tuple[Example, ...]:
    """Generated questions and answers of some 40 to 80 tokens."""
    rng = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randrange(low, high)))

    chats = [
        Conversation(n, (ConversationTurn("user", words(5, 15)), ConversationTurn("assistant", words(10, 40))))
        for n in range(count)
    ]
    return examples(chats, base.tokenizer, TRAINING.max_length, Path("made.jsonl"))


def ours(base: TrainingBase, examples: tuple[Example, ...], folder: Path) -> tuple[float, list[float]]:
    """CPU seconds, and the loss of every step."""
    began = time.process_time()
    trained = train_adapter(
        base,
        TrainingSplit(examples, ()),
        TrainingJob(LORA, TRAINING, folder, 0),
    )
    return time.process_time() - began, [loss for _, loss in trained.losses]


def bare(base: TrainingBase, examples: tuple[Example, ...], folder: Path) -> tuple[float, list[float]]:
    """The same with TRL alone, on a model of its own: TRL leaves changes behind."""
    from datasets import Dataset
    from peft import LoraConfig as PeftConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype=base.model.dtype)
    steps = Steps([len(example.input_ids) for example in examples], TRAINING, "sorted", seed=0)
    ordered = [examples[row[0]] for step in range(steps.total) for batch in steps.of(step) for row in batch]
    data = Dataset.from_dict(
        {
            "input_ids": [list(example.input_ids) for example in ordered],
            "labels": [list(example.labels) for example in ordered],
        }
    )
    args = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=TRAINING.epochs,
        per_device_train_batch_size=TRAINING.batch_size,
        learning_rate=TRAINING.lr,
        lr_scheduler_type="constant",
        max_grad_norm=TRAINING.max_grad_norm,
        train_sampling_strategy="sequential",
        bf16=base.model.dtype is torch.bfloat16,
        use_cpu=True,
        gradient_checkpointing=None,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    settings = PeftConfig(r=LORA.r, lora_alpha=2 * LORA.r, target_modules="all-linear", task_type="CAUSAL_LM")
    began = time.process_time()
    torch.manual_seed(0)
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=data, processing_class=base.tokenizer, peft_config=settings
    )
    trainer.train()
    trainer.save_model(str(folder / "adapter"))
    seconds = time.process_time() - began
    return seconds, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def compare(base: TrainingBase, folder: Path, rounds: int) -> dict[str, list[float]] | None:
    """Tokens per CPU second of every round, in turn; None, with a message, where losses differ."""
    examples = conversations(base, 24)
    tokens = sum(len(example.input_ids) for example in examples)
    speeds: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(rounds):
        losses: dict[str, list[float]] = {}
        for name, train in (("ours", ours), ("bare", bare))[:: 1 if turn % 2 else -1]:
            with quietly():
                seconds, losses[name] = train(base, examples, folder / f"{base.precision}-{name}{turn}")
            speeds[name].append(tokens / seconds)
        if any(abs(a - b) > TOLERANCE[base.precision] * b for a, b in zip(losses["ours"], losses["bare"], strict=True)):
            print(f"losses differ in {base.precision}: {losses}")
            return None
    return speeds


def main(rounds: int) -> int:
    """Measure, print, write; the exit status."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        gguf = find("smollm2-135m", Workspace.locate(os.environ, Path.cwd()))
        path = import_gguf(gguf, folder / "base", "float32")
        if compare(load_base(path, "fp32", "sdpa"), folder, 1) is None:  # warms up, too
            return 1
        base = load_base(path, "auto", "sdpa")
        speeds = compare(base, folder, rounds)
    if speeds is None:
        return 1
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratio = statistics.median(a / b for a, b in zip(speeds["ours"], speeds["bare"], strict=True))
    row = {
        "row": f"Adapter of rank {LORA.r} on SmolLM2-135M in {base.precision}, one core",
        "ours": round(medians["ours"], 1),
        "peer": round(medians["bare"], 1),
        "peer_name": "bare TRL script",
        "unit": "tok/s",
        "better": "higher",
        "ratio": round(ratio, 4),
    }
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "peft")}
    versions["python"] = platform.python_version()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT, {"rows": [row], "machine": machine.describe().as_dict(), "versions": versions})
    print(f"{'training':<22}{'median tok/s':>14}{'slowest':>10}{'fastest':>10}")
    for name, values in speeds.items():
        print(f"{name:<22}{medians[name]:>14.1f}{min(values):>10.1f}{max(values):>10.1f}")
    print(f"median ratio {ratio:.3f}, limit {LIMIT}; losses equal in all {rounds} rounds; written to {OUT}")
    return 0 if ratio >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
