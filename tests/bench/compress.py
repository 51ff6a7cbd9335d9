"""Own quantizers, pruners and recovery on one base, beside llm-compressor: the same grid, text and scorer, in one run.

The base is the embedded model with its norm gains folded in and its residual stream rotated (`bases.rotated`): the same
function, off the 4-bit grid that its file lies on. Codes are of 4 bits, symmetric, in groups of 64; embedding and head
stay as they are. All see the same calibration windows, and are scored by KL from the base in float32 on held-out ones;
what is quantized is written first, and read back by a process of its own. CPU-seconds include calibration. Held:

    own GPTQ            KL at most 1.05 times that of llm-compressor's, and below that of rounding (RTN)
    pruning by half     KL of SparseGPT below Wanda's, and that below magnitude's
    recovery            distilled LoRA regains at least a third of what SparseGPT lost, within 600 CPU-seconds

llm-compressor lives in `.venv-peers/llm-compressor`, which is made on demand. It wants an older transformers, and looks
into the main environment for the rest.

Usage: python tests/bench/compress.py [STEPS]     of the recovery, 40 unless told; writes .agentlab/bench/compress.json;
    exit 1 where missed
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import bases
import torch
from safetensors.torch import save_file

from agentlab import machine
from agentlab.compress.calibration import calibrate
from agentlab.compress.checkpoint_formats import write_packed
from agentlab.compress.export_check import divergences
from agentlab.compress.grid import Grid
from agentlab.compress.layerwise import Pruner, prune, quantize
from agentlab.compress.recipe import QUANTIZERS
from agentlab.compress.recovery import keep_teacher, recover
from agentlab.models.base_model import find_base, import_base
from agentlab.runs.atomic import write_json
from agentlab.session import surroundings
from agentlab.stats.divergence import Divergence
from agentlab.train.base import load_base
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob

OUT = Path(".agentlab/bench/compress.json")
PEER = Path(".venv-peers/llm-compressor").absolute()
GRID, HALF = Grid(4, 64), 0.5
LENGTH, CALIBRATION, HELD_OUT = 256, 16, 8
BATCH, VALIDATION, LEARNING_RATE = 2, 2, 5e-4  # windows of a step, windows that are not learnt
WITHIN, REGAINED, CPU_SECONDS = 1.05, 1 / 3, 600
ORIGIN = "bench"

ONESHOT = """
import json, sys, time
import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

base, windows, out, group = sys.argv[1:]
torch.set_num_threads(2)
rows = load_file(windows)["windows"]
data = Dataset.from_dict({"input_ids": rows.tolist(), "attention_mask": torch.ones_like(rows).tolist()})
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": int(group)}
recipe = GPTQModifier(config_groups={"all": {"targets": ["Linear"], "weights": weights}}, ignore=["lm_head"])
began = time.process_time()
oneshot(model=model, dataset=data, recipe=recipe, num_calibration_samples=len(rows), max_seq_length=rows.shape[1],
        shuffle_calibration_samples=False)
seconds = time.process_time() - began
model.save_pretrained(out, save_compressed=True)
print(json.dumps({"seconds": seconds}))
"""


def peer_python() -> Path:
    """The interpreter of the peer's environment, which is made if need be."""
    python, stamp = PEER / "bin/python", PEER / ".installed"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        ask = [str(python), "-c", "import site; print(site.getsitepackages()[0])"]
        site_packages = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
        Path(site_packages, "zz_main.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
        requirements = ["llmcompressor==0.14.*", "transformers==5.17.*"]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        stamp.touch()
    return python


def scored(folder: Path, reference: Path) -> float:
    """KL of a checkpoint, read back in float32 by a process of its own."""
    command = [sys.executable, __file__, "score", str(folder), str(reference)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def score(folder: Path, reference: Path) -> None:
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM.from_pretrained
    print(Divergence.of(divergences(make(folder, dtype=torch.float32).eval(), reference)).kl)


def nothing(*_: int) -> None:
    """What a bench says meanwhile."""


def spent(work: Callable[[], Any]) -> tuple[Any, float]:
    """What came of it, and its CPU-seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def told(rows: dict[str, dict[str, float]], name: str, kl: float, seconds: float) -> None:
    rows[name] = {"kl": kl, "cpu_seconds": seconds}
    print(f"{name:34}  KL {kl:8.4f}   {seconds:6.0f} CPU-s", flush=True)


class Bench:
    """One base, its texts and statistics, in a folder."""

    def __init__(self, folder: Path) -> None:
        workspace = surroundings(os.environ, Path.cwd()).workspace
        base = load_base(import_base(find_base("smollm2-135m", workspace)), "fp32", "sdpa")
        self.folder, self.rows = folder, dict[str, dict[str, float]]()
        self.base = bases.write(bases.rotated(base.model), base.tokenizer, folder / "base")
        self.windows = bases.windows(base.tokenizer, CALIBRATION, LENGTH, held_out=False)
        save_file({"windows": self.windows}, folder / "windows.safetensors")
        held_out = bases.windows(base.tokenizer, HELD_OUT, LENGTH, held_out=True)
        self.reference = folder / "reference.safetensors"
        model = self.model()
        with torch.inference_mode():
            logs = torch.cat([model(row[None]).logits[:, :-1].log_softmax(-1) for row in held_out])
        save_file({"tokens": held_out, "logprobs": logs, "at": torch.ones(logs.shape[:2]).bool()}, self.reference)
        calibration = partial(calibrate, memory=None, check=nothing)
        self.statistics, self.calibrating = spent(
            lambda: calibration(model, self.windows, folder / "statistics", ORIGIN)
        )

    def model(self) -> Any:
        """The base as it is."""
        return load_base(self.base, "fp32", "sdpa").model

    def kl(self, model: Any) -> float:
        return Divergence.of(divergences(model, self.reference)).kl

    def quantized(self, method: str) -> None:
        model, out = self.model(), self.folder / method
        work = partial(quantize, model, self.statistics, QUANTIZERS.load(method), GRID, check=nothing)
        codes, seconds = spent(work)
        write_packed(model, codes, self.base, out, "bfloat16", nothing)
        told(self.rows, method, scored(out, self.reference), seconds + (method != "rtn") * self.calibrating)

    def peer(self) -> None:
        out = self.folder / "peer"
        arguments = [str(self.base), str(self.folder / "windows.safetensors"), str(out), str(GRID.group)]
        command = [str(peer_python()), "-c", ONESHOT, *arguments]
        process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        if process.returncode:
            sys.exit(process.stderr[-3000:])
        seconds = json.loads(process.stdout.splitlines()[-1])["seconds"]
        told(self.rows, "llm-compressor GPTQ", scored(out, self.reference), seconds)

    def pruned(self, method: Pruner) -> Any:
        model = self.model()
        _, seconds = spent(partial(prune, model, self.statistics, method, HALF, check=nothing))
        told(self.rows, f"{method} 50 %", self.kl(model), seconds + (method != "magnitude") * self.calibrating)
        return model

    def recovered(self, model: Any, name: str, steps: int) -> None:
        """Train a pruned model; it is changed."""
        began, teacher = time.process_time(), None
        if name == "distilled":
            file = self.folder / "teacher.safetensors"
            teacher = keep_teacher(self.model(), self.windows, file, ORIGIN, check=nothing)
        epochs = steps * BATCH / (CALIBRATION - VALIDATION)
        training = TrainingConfig(epochs=epochs, batch_size=BATCH, lr=LEARNING_RATE, evals=2)
        job = TrainingJob(LoraConfig(r=16, alpha=32), training, self.folder / f"training-{name}", 0)
        bf16 = machine.describe().bf16
        recover(model, self.windows, VALIDATION, job, ORIGIN, teacher=teacher, bf16=bf16, check=nothing)
        seconds = time.process_time() - began
        told(self.rows, f"sparsegpt 50 %, {name}", self.kl(model), seconds)

    def misses(self) -> list[str]:
        """What is held and was not reached."""
        kl = {name: row["kl"] for name, row in self.rows.items()}
        before, after = kl["sparsegpt 50 %"], kl["sparsegpt 50 %, distilled"]
        seconds = self.rows["sparsegpt 50 %, distilled"]["cpu_seconds"]
        control = 1 - kl["sparsegpt 50 %, cross-entropy"] / before
        ratio = kl["gptq"] / kl["llm-compressor GPTQ"]
        print(
            f"own GPTQ {ratio:.2f}x llm-compressor's; regained {1 - after / before:.0%}, by cross-entropy {control:.0%}"
        )
        limits = {
            f"GPTQ {ratio:.2f}x, at most {WITHIN}x": ratio <= WITHIN,
            "GPTQ below RTN": kl["gptq"] < kl["rtn"],
            "SparseGPT below Wanda": before < kl["wanda 50 %"],
            "Wanda below magnitude": kl["wanda 50 %"] < kl["magnitude 50 %"],
            f"regained {1 - after / before:.0%}, at least {REGAINED:.0%}": 1 - after / before >= REGAINED,
            f"recovered in {seconds:.0f} CPU-seconds, at most {CPU_SECONDS}": seconds <= CPU_SECONDS,
        }
        return [line for line, is_met in limits.items() if not is_met]


def main() -> None:
    if sys.argv[1:2] == ["score"]:
        score(*map(Path, sys.argv[2:]))
        return
    steps = int(sys.argv[1]) if sys.argv[1:] else 40
    torch.set_num_threads(machine.threads(None))
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch))
        for method in ("rtn", "awq", "gptq"):
            bench.quantized(method)
        bench.peer()
        for pruner in ("magnitude", "wanda", "sparsegpt"):
            model = bench.pruned(pruner)
        for name in ("distilled", "cross-entropy"):
            bench.recovered(copy.deepcopy(model), name, steps)
    misses = bench.misses()
    write_json(OUT, {"rows": bench.rows, "misses": misses})
    print("held" if not misses else f"missed: {'; '.join(misses)}")
    sys.exit(bool(misses))


if __name__ == "__main__":
    main()
