"""Whether `training.batching: auto` takes the faster way on a CPU: rows of like length, or packed rows.

Both ways learn the same conversations of a shipped persona (SmolLM2-135M in float32, rank 16, one core) in as many
steps, so that a step has as many learnt tokens in the mean; `sorted` pads its rows, `packed` fills rows of 1024 tokens
and applies a mask between conversations. A turn is one epoch of `train_adapter`, checkpoints included. The ways take
turns in random order in one process, in CPU time. Held:

    loss of the epoch   the same for both, within 0.1 %, at a learning rate that changes nothing
    tokens per second   of the way that `auto` does not take at most 1.03 of the one that it takes

Usage: python tests/bench/batching.py [ROUNDS]   5 unless told; writes .agentlab/bench/batching.json
"""

import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):  # a training takes as many threads as there are cores
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

from checkpoint import checkpoint

from agentlab import machine
from agentlab.runs.atomic import write_json
from agentlab.train.base import TrainingBase, load_base, quietly
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.data_report import prepare, read_data
from agentlab.train.dataset import TrainingSplit
from agentlab.train.masks import Example
from agentlab.train.schedule import Steps, resolve_batching
from agentlab.train.sft import train_adapter

Way = Literal["packed", "sorted"]

OUT = Path(".agentlab/bench/batching.json")
DATA = Path("configs/train-persona/data/sft_persona_a.jsonl")
WAYS: tuple[Way, Way] = ("sorted", "packed")
CONVERSATIONS, ROW, SEED = 24, 1024, 0
FASTER, APART = 1.03, 1e-3
LORA = LoraConfig(r=16)
# The learning rate leaves the adapter at nothing, so that the loss of an epoch is that of the base in any order.
TRAINING = TrainingConfig(epochs=1, max_length=ROW, lr=1e-7, schedule="constant", warmup=0, eval_fraction=0)


@dataclass(frozen=True)
class Plan:
    """One way through the conversations: its settings, learnt tokens by step, tokens, and positions that are computed.

    The last are the tokens with what fills the rows up.
    """

    training: TrainingConfig
    learnt: tuple[int, ...]
    tokens: int
    positions: int

    @classmethod
    def of(cls, batching: Way, batch_size: int, examples: tuple[Example, ...]) -> "Plan":
        training = TRAINING.model_copy(update={"batching": batching, "batch_size": batch_size})
        sizes = [len(example.input_ids) for example in examples]
        steps = Steps(sizes, training, batching, seed=SEED)
        batches = [batch for step in range(steps.total) for batch in steps.of(step)]
        learnt = tuple(sum(examples[index].learnt for row in batch for index in row) for batch in batches)
        positions = sum(len(batch) * max(sum(sizes[index] for index in row) for row in batch) for batch in batches)
        return cls(training, learnt, sum(sizes), positions)


def plans(examples: tuple[Example, ...]) -> dict[Way, Plan]:
    """One packed row a step, and as many conversations a step as such a row holds in the mean."""
    packed = Plan.of("packed", 1, examples)
    by_batching: dict[Way, Plan] = {"sorted": Plan.of("sorted", -(-len(examples) // len(packed.learnt)), examples)}
    by_batching["packed"] = packed
    steps, learnt = ({batching: count(plan.learnt) for batching, plan in by_batching.items()} for count in (len, sum))
    if len(set(steps.values())) > 1 or len(set(learnt.values())) > 1:
        raise SystemExit(f"the ways differ in what they learn: steps {steps}, learnt tokens {learnt}")
    return by_batching


def epoch(base: TrainingBase, examples: tuple[Example, ...], plan: Plan, folder: Path) -> tuple[float, float]:
    """CPU seconds of a training, and its loss per learnt token."""
    began = time.process_time()
    with quietly():
        trained = train_adapter(
            base,
            TrainingSplit(examples, ()),
            TrainingJob(LORA, plan.training, folder, SEED),
        )
    seconds = time.process_time() - began
    losses = (loss * learnt for (_, loss), learnt in zip(trained.losses, plan.learnt, strict=True))
    return seconds, sum(losses) / sum(plan.learnt)


def measure(
    base: TrainingBase, examples: tuple[Example, ...], by_way: dict[Way, Plan], rounds: int
) -> tuple[dict[Way, list[float]], dict[Way, float]]:
    """CPU seconds of every round, and the loss of the last."""
    chance = random.Random(0)
    seconds: dict[Way, list[float]] = {batching: [] for batching in WAYS}
    losses: dict[Way, float] = {}
    for number in range(1, rounds + 1):
        for batching in chance.sample(WAYS, len(WAYS)):
            with tempfile.TemporaryDirectory(dir=OUT.parent) as folder:
                duration, losses[batching] = epoch(base, examples, by_way[batching], Path(folder))
            seconds[batching].append(duration)
        print(f"round {number} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return seconds, losses


def rows_of(
    seconds: dict[Way, list[float]], by_way: dict[Way, Plan], auto: Way, alternative: Way
) -> Iterator[dict[str, object]]:
    """The rows of the JSON file; `ratio` is how many times faster the way is that `auto` takes, over paired rounds."""
    ratio = statistics.median(b / a for a, b in zip(seconds[auto], seconds[alternative], strict=True))
    for row, count in (("learnt tokens", sum(by_way[auto].learnt)), ("all tokens", by_way[auto].tokens)):
        ours, peer = (count / statistics.median(seconds[batching]) for batching in (auto, alternative))
        values = {
            "row": f"{row}, auto is {auto}",
            "ours": round(ours, 2),
            "peer": round(peer, 2),
            "peer_name": alternative,
        }
        yield {**values, "unit": "tok/s", "better": "higher", "ratio": round(ratio, 4)}


def main(rounds: int) -> int:
    """Compare, measure, print, write; the exit status."""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    base = load_base(checkpoint(), "fp32", "sdpa")
    prepared = prepare(read_data(DATA), base.tokenizer, max_length=ROW, eval_fraction=0, seed=SEED)
    examples = prepared.split.train[:CONVERSATIONS]
    by_way = plans(examples)
    auto = resolve_batching(TRAINING, "cpu")
    (alternative,) = (batching for batching in WAYS if batching != auto)
    seconds, losses = measure(base, examples, by_way, rounds)
    rows = list(rows_of(seconds, by_way, auto, alternative))
    print(
        f"{'batching':<10}{'steps':>7}{'a step':>8}{'filler':>8}"
        f"{'learnt tok/s':>14}{'all tok/s':>11}{'slowest':>9}{'loss':>9}"
    )
    for batching, plan in by_way.items():
        middle, steps = statistics.median(seconds[batching]), len(plan.learnt)
        print(
            f"{batching:<10}{steps:>7}{sum(plan.learnt) / steps:>8.0f}{1 - plan.tokens / plan.positions:>8.1%}"
            f"{sum(plan.learnt) / middle:>14.2f}{plan.tokens / middle:>11.2f}"
            f"{plan.tokens / max(seconds[batching]):>9.2f}{losses[batching]:>9.4f}"
        )
    ratio = float(str(rows[0]["ratio"]))
    missed = []
    if abs(losses[auto] - losses[alternative]) > APART * losses[alternative]:
        missed.append(f"the losses differ: {losses}")
    if ratio < 1 / FASTER:
        missed.append(f"{alternative} is {1 / ratio:.3f} times faster than {auto}, which auto takes")
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    about = {"machine": machine.describe().as_dict(), "versions": {**versions, "python": platform.python_version()}}
    write_json(OUT, {"rows": rows, **about})
    print(
        f"auto takes {auto}: {ratio:.3f} times as fast as {alternative} (at least {1 / FASTER:.3f}); written to {OUT}"
    )
    print("".join(f"MISSED: {text}\n" for text in missed), end="")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
