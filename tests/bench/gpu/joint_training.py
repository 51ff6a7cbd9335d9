"""Three personas trained together, their batches side by side, against three trainings one after the other, on CUDA.

Both in one process on one load of the base model (SmolLM2-135M in bfloat16, the conversations of
tests/bench/joint_training.py), in turns. Held: together at least 1.3 times faster, held-out losses within 1 %.

Usage: python tests/bench/gpu/joint_training.py [ROUNDS]   3 unless told; writes .agentlab/bench/gpu-joint-training.json
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import joint_training as bench
import torch
from checkpoint import checkpoint

from agentlab import machine
from agentlab.runs.atomic import write_json

OUT = Path(".agentlab/bench/gpu-joint-training.json")
CONVERSATIONS, TOKENS, FASTER, APART = 120, 256, 1.3, 0.01


def together(base: Any, splits: Sequence[Any], settings: tuple[Any, Any], folder: Path) -> tuple[float, list[float]]:
    """Seconds, and the last held-out loss of each adapter."""
    from agentlab.train.config import TrainingJob
    from agentlab.train.joint import train_adapters

    began = time.perf_counter()
    trained = train_adapters(base, splits, TrainingJob(*settings, folder, 1))
    return time.perf_counter() - began, [adapter.eval_losses[-1][1] for adapter in trained]


def apart(base: Any, splits: Sequence[Any], settings: tuple[Any, Any], folder: Path) -> tuple[float, list[float]]:
    """The same, one after the other."""
    from agentlab.train.config import TrainingJob
    from agentlab.train.sft import train_adapter

    began = time.perf_counter()
    trained = [
        train_adapter(base, persona, TrainingJob(*settings, folder / str(n), 1)) for n, persona in enumerate(splits)
    ]
    return time.perf_counter() - began, [persona.eval_losses[-1][1] for persona in trained]


def main(rounds: int) -> int:
    """Measure, compare, print, write; the exit status."""
    if not torch.cuda.is_available():
        print("no CUDA device: skipped")
        return 0
    from agentlab.train.base import load_base
    from agentlab.train.config import LoraConfig, TrainingConfig

    OUT.parent.mkdir(parents=True, exist_ok=True)
    base = load_base(checkpoint(), "bf16", "sdpa")
    splits = bench.splits(range(bench.PERSONAS), TOKENS, CONVERSATIONS)
    settings = LoraConfig(r=16), TrainingConfig(**{**bench.TRAINING, "epochs": 2})
    seconds: dict[str, list[float]] = {"together": [], "apart": []}
    losses: dict[str, list[float]] = {}
    for number in range(rounds + 1):  # the first warms up
        for training in (together, apart) if number % 2 else (apart, together):
            with tempfile.TemporaryDirectory(dir=OUT.parent) as folder:
                duration, losses[training.__name__] = training(base, splits, settings, Path(folder))
            if number:
                seconds[training.__name__].append(duration)
    ours, theirs = (statistics.median(seconds[training]) for training in ("together", "apart"))
    ratio = statistics.median(b / a for a, b in zip(seconds["together"], seconds["apart"], strict=True))
    worst = max(abs(a - b) / b for a, b in zip(losses["together"], losses["apart"], strict=True))
    print(f"three personas: {ours:.1f} s together, {theirs:.1f} s apart: {ratio:.2f}x (at least {FASTER:g})")
    print(f"held-out losses differ by {worst:.1e} (at most {APART:g})")
    row = {
        "row": "three personas",
        "ours": round(ours, 2),
        "peer": round(theirs, 2),
        "peer_name": "one after the other",
    }
    versions = {name: version(name) for name in ("torch", "peft", "transformers", "trl")}
    about = {"machine": machine.describe().as_dict(), "versions": {**versions, "python": platform.python_version()}}
    write_json(OUT, {"rows": [row], **about})
    return 1 if ratio < FASTER or worst > APART else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
