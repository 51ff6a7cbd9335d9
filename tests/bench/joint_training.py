"""Three personas trained together on one base model, against three separate trainings, each in a process of its own.

SmolLM2-135M in float32, one thread, synthetic conversations, the same batches for both. `together` is one process that
calls `train_adapters`; `apart` are three that call `train_adapter`, one after the other, start-up included. Rounds take
turns in random order. Held on a CPU, where compute is saturated and only start-up is to be saved:

    wall time      together at most 0.95 of apart
    peak memory    together at most 1.3 of one training
    losses         held-out losses within 1 %

Usage: python tests/bench/joint_training.py [ROUNDS]   3 unless told; writes .agentlab/bench/joint_training.json
"""

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from checkpoint import checkpoint

from agentlab import machine
from agentlab.runs.atomic import write_json

OUT = Path(".agentlab/bench/joint_training.json")
PERSONAS, CONVERSATIONS, HELD_OUT, TOKENS, LEARNT = 3, 24, 4, 96, 48
TRAINING: dict[str, Any] = {"epochs": 1, "batch_size": 4, "evals": 1, "batching": "sorted", "lr": 1e-3}
TIME, MEMORY = "three personas, start-up included", "peak memory"
SLOWER, LARGER, APART = 0.95, 1.3, 0.01


@dataclass(frozen=True)
class Finished:
    """A process that trained: seconds from its start to its end, those of CPU, those of the training without start-up,
    its peak in bytes, and the last held-out loss of each adapter."""

    seconds: float
    cpu: float
    training: float
    peak: int
    losses: tuple[float, ...]


def splits(personas: Sequence[int], tokens: int = TOKENS, conversations: int = CONVERSATIONS) -> list[Any]:
    """Random words of each persona's own hundred, so that there is something to learn."""
    from agentlab.train.dataset import TrainingSplit
    from agentlab.train.masks import IGNORED, Example

    def example(persona: int, line: int) -> Example:
        chance = random.Random(f"{persona}/{line}")
        length = tokens - line % 8
        ids = tuple(1000 + 100 * persona + chance.randrange(100) for _ in range(length))
        return Example(line, ids, (IGNORED,) * (length - LEARNT) + ids[-LEARNT:], 0)

    training_splits = []
    for persona in personas:
        examples = tuple(example(persona, line) for line in range(conversations + HELD_OUT))
        training_splits.append(TrainingSplit(examples[HELD_OUT:], examples[:HELD_OUT]))
    return training_splits


def train(base_path: Path, folder: Path, personas: Sequence[int]) -> None:
    """What a process does: train and print what came of it."""
    from agentlab.train.base import load_base
    from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob

    base = load_base(base_path, "fp32", "sdpa")
    job = TrainingJob(LoraConfig(r=16), TrainingConfig(**TRAINING), folder, 1)
    began = time.perf_counter()
    if len(personas) > 1:
        from agentlab.train.joint import train_adapters

        trained = train_adapters(base, splits(personas), job)
    else:
        from agentlab.train.sft import train_adapter

        trained = (train_adapter(base, splits(personas)[0], job),)
    print(
        json.dumps(
            {
                "training": time.perf_counter() - began,
                "cpu": time.process_time(),
                "peak": max(adapter.peak_bytes for adapter in trained),
                "losses": [adapter.eval_losses[-1][1] for adapter in trained],
            }
        )
    )


def process(base: Path, personas: Sequence[int]) -> Finished:
    """Train in a fresh process."""
    with tempfile.TemporaryDirectory(dir=OUT.parent) as folder:
        command = [sys.executable, __file__, "--train", str(base), folder, *map(str, personas)]
        began = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), check=True)
        seconds = time.perf_counter() - began
    report = json.loads(done.stdout.splitlines()[-1])
    return Finished(seconds, report["cpu"], report["training"], report["peak"], tuple(report["losses"]))


def environment() -> dict[str, str]:
    """One thread, nothing from the network."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", **machine.worker_environment(1)}


def measure(base: Path, rounds: int) -> tuple[list[Finished], list[list[Finished]]]:
    """What was found together, and in three processes apart, by round."""
    chance = random.Random(0)
    together: list[Finished] = []
    separate: list[list[Finished]] = []
    for number in range(rounds):
        for mode in chance.sample(("together", "apart"), 2):
            if mode == "together":
                together.append(process(base, range(PERSONAS)))
            else:
                separate.append([process(base, [persona]) for persona in range(PERSONAS)])
        print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return together, separate


def rows_of(together: list[Finished], separate: list[list[Finished]]) -> Iterator[dict[str, Any]]:
    """The rows of the JSON file; ratios are medians over rounds."""

    def sums(of: str) -> list[tuple[float, float]]:
        return [(getattr(a, of), sum(getattr(e, of) for e in b)) for a, b in zip(together, separate, strict=True)]

    peaks = [
        (a.peak / 2**20, max(training.peak for training in b) / 2**20) for a, b in zip(together, separate, strict=True)
    ]
    for row, pairs, peer, unit in (
        (TIME, sums("seconds"), "three processes", "s"),
        ("the same, CPU", sums("cpu"), "three processes", "s"),
        ("training without start-up", sums("training"), "three processes", "s"),
        (MEMORY, peaks, "one training", "MiB"),
    ):
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        values = {"ours": round(ours, 2), "peer": round(theirs, 2), "peer_name": peer}
        yield {"row": row, **values, "unit": unit, "better": "lower", "ratio": round(ratio, 3)}


def main(rounds: int) -> int:
    """Measure, compare, print, write; the exit status."""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    together, separate = measure(checkpoint().absolute(), rounds)
    rows = list(rows_of(together, separate))
    print(f"{'SmolLM2-135M, float32, CPU':<36}{'ours':>10}{'peer':>10}  ours / peer")
    for row in rows:
        print(f"{row['row']:<36}{row['ours']:>10}{row['peer']:>10}  {1 / row['ratio']:.3f} ({row['peer_name']})")
    pairs = zip(together[0].losses, [training.losses[0] for training in separate[0]], strict=True)
    worst = max(abs(a - b) / b for a, b in pairs)
    time_share, memory_share = (
        next(1 / row["ratio"] for row in rows if row["row"] == title) for title in (TIME, MEMORY)
    )
    print(f"wall time {time_share:.3f} (at most {SLOWER:g}), memory {memory_share:.3f} (at most {LARGER:g})")
    print(f"held-out losses differ by {worst:.1e} (at most {APART:g})")
    missed = [
        text
        for text, bad in (
            (f"{time_share:.3f} of the time of three trainings", time_share > SLOWER),
            (f"{memory_share:.3f} of the memory of one", memory_share > LARGER),
            (f"losses differ by {worst:.1e}", worst > APART),
        )
        if bad
    ]
    versions = {name: version(name) for name in ("torch", "peft", "transformers", "trl")}
    about = {"machine": machine.describe().as_dict(), "versions": {**versions, "python": platform.python_version()}}
    write_json(OUT, {"rows": rows, **about})
    print(f"written to {OUT}" + "".join(f"\nMISSED: {text}" for text in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        if hasattr(os, "sched_setaffinity"):  # one core, and by that one thread
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        train(Path(sys.argv[2]), Path(sys.argv[3]), [int(each) for each in sys.argv[4:]])
        sys.exit()
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
