"""A child of two adapters: our weighted sum, truncated to rank 16, against PEFT's `add_weighted_adapter(..., "svd")`.

All 210 linear modules of SmolLM2-135M, parents of rank 16, one thread. Rounds are interleaved: ours, then PEFT on the
same factors. Held:

    results       equal to 1e-4, relative Frobenius norm of the difference, in every module
    crossover     at least 50 times less time than PEFT
    memory        streaming a child from folder to folder takes less than a third of an adapter

PEFT works on a model of one block, the other 29 having the same shapes, and its time counts 30 times; so do our TIES
and DARE. The row `folder to folder` is ours with both parents read from disk and the child written to it.

Usage: python tests/bench/lora.py [ROUNDS]    5 unless told; writes .agentlab/bench/lora.json; exit 1 beyond limits
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from agentlab import machine
from agentlab.lora.blend import concatenate, cross_directions, slerp, truncate, weighted_sum
from agentlab.lora.delta import LoraDelta
from agentlab.lora.mutation import new_directions
from agentlab.lora.reading import Adapter
from agentlab.lora.settings import AdapterSettings
from agentlab.lora.sparse import dare, ties
from agentlab.lora.writing import derive, write_adapter
from agentlab.runs.atomic import write_json

OUT = Path(".agentlab/bench/lora.json")
LAYERS, RANK, WEIGHTS = 30, 16, (0.6, 0.4)
SHAPES = {  # outputs, inputs of SmolLM2-135M
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}
SPARSE = ("TIES, density 0.5, rank 16", "DARE, density 0.5, rank 16")
PEERS: dict[str, dict[str, Any]] = {
    "svd": {},
    "svd, thin": {"svd_full_matrices": False},
    "ties_svd": {"density": 0.5},
    "dare_linear_svd": {"density": 0.5},
}
FASTER, EQUAL, ADAPTERS = 50.0, 1e-4, 0.33
PEAK = """
import sys
from pathlib import Path
import torch
from agentlab.lora.blend import weighted_sum
from agentlab.lora.reading import Adapter
from agentlab.lora.writing import derive

def own():  # KiB of memory that is not a file's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def operator(name, each):
    child = weighted_sum(each, (0.6, 0.4), 16).delta
    seen.append(own())
    return child

torch.set_num_threads(1)
parents = [Adapter(Path(path)) for path in sys.argv[1:3]]
seen = []
for name in list(parents[0].modules)[:7]:
    operator(name, [each.delta(name) for each in parents])  # the libraries take their own buffers
seen = [own()]
derive(parents, Path(sys.argv[3]), 16, operator)
print(max(seen) - seen[0])
"""


def peft_model() -> Any:
    """One block of SmolLM2-135M with two random adapters, `one` and `two`."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=1, **shape))
    targets = [name.rpartition(".")[2] for name in SHAPES]
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets)
    adapted = get_peft_model(model, config, adapter_name="one")
    adapted.add_adapter("two", config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return adapted


def parents_of(model: Any) -> dict[str, list[LoraDelta]]:
    """The same factors as our deltas, by module of the block."""
    block = model.base_model.model.model.layers[0]
    deltas = {}
    for name in SHAPES:
        layer = block.get_submodule(name)
        deltas[name] = [
            LoraDelta(layer.lora_A[parent].weight.detach(), layer.lora_B[parent].weight.detach(), layer.scaling[parent])
            for parent in ("one", "two")
        ]
    return deltas


def timed(work: Callable[[], object]) -> float:
    """Seconds of CPU: a machine that others use, too, has no other clock."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peft_child(model: Any, method: str, **keys: Any) -> float:
    """Seconds that PEFT takes for the child of the block, which then bears its method's name."""
    names = ["one", "two"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = timed(
            lambda: model.base_model.add_weighted_adapter(
                names, list(WEIGHTS), "child", combination_type=method, svd_rank=RANK, **keys
            )
        )
    return seconds * LAYERS


def largest_difference(model: Any, parents: dict[str, list[LoraDelta]]) -> float:
    """Relative distance of our child from PEFT's, in the module where it is largest."""
    block = model.base_model.model.model.layers[0]
    differences = []
    for name, deltas in parents.items():
        peer = block.get_submodule(name).get_delta_weight("child").double()
        differences.append(float((weighted_sum(deltas, WEIGHTS, RANK).delta.dense() - peer).norm() / peer.norm()))
    return max(differences)


def our_operators() -> dict[str, Callable[[list[LoraDelta]], object]]:
    """Name of a row -> what is done with one module."""
    generator = torch.Generator().manual_seed(0)
    return {
        "weighted sum, rank 16": lambda deltas: weighted_sum(deltas, WEIGHTS, RANK),
        "exact sum, rank 32": lambda deltas: concatenate(deltas, WEIGHTS),
        "SLERP, rank 16": lambda deltas: truncate(slerp(deltas[0], deltas[1], 0.4), RANK),
        "SVD directions": lambda deltas: cross_directions(deltas[0], deltas[1], 0.4, generator),
        "mutation, new directions": lambda deltas: new_directions(deltas[0], 0.05, 2, RANK, generator),
        SPARSE[0]: lambda deltas: ties(deltas, WEIGHTS, 0.5, RANK),
        SPARSE[1]: lambda deltas: dare(deltas, WEIGHTS, 0.5, RANK, generator),
    }


def our_child(parents: dict[str, list[LoraDelta]], name: str, operator: Callable[[list[LoraDelta]], object]) -> float:
    """Seconds for all 210 modules; the sparse operators do one block, counted 30 times."""
    blocks = 1 if name in SPARSE else LAYERS

    def work() -> None:
        for _ in range(blocks):
            for deltas in parents.values():
                operator(deltas)

    return timed(work) * LAYERS / blocks


def folders(parents: dict[str, list[LoraDelta]], root: Path) -> list[Path]:
    """Both parents as whole adapter folders of 210 modules."""
    shapes = {f"model.layers.{n}.{name}": shape for n in range(LAYERS) for name, shape in SHAPES.items()}
    origin = AdapterSettings(r=RANK, lora_alpha=RANK, base_model_name_or_path="SmolLM2-135M")
    paths = []
    for index, label in enumerate(("one", "two")):
        modules = ((name, parents[name.split(".", 3)[3]][index]) for name in shapes)
        write_adapter(root / label, shapes, modules, RANK, origin)
        paths.append(root / label)
    return paths


def folder_to_folder(paths: list[Path], out: Path) -> float:
    """Seconds from two folders on disk to the child's."""

    def work() -> None:
        with Adapter(paths[0]) as first, Adapter(paths[1]) as second:
            derive((first, second), out, RANK, lambda _, deltas: weighted_sum(deltas, WEIGHTS, RANK).delta)

    return timed(work)


def peak(paths: list[Path]) -> int:
    """Bytes by which a process's own memory grows over the 210 modules of a child, once it has made one block."""
    command = [sys.executable, "-c", PEAK, *map(str, paths), f"{paths[0]}-child"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024


def main(rounds: int) -> int:
    """Measure, print, write; the exit status."""
    torch.set_num_threads(1)
    ours: dict[str, list[float]] = {name: [] for name in our_operators()}
    peers: dict[str, list[float]] = {method: [] for method in PEERS}
    streamed: list[float] = []
    with tempfile.TemporaryDirectory(dir=Path.cwd() / ".agentlab") as scratch:
        model = peft_model()
        parents = parents_of(model)
        paths = folders(parents, Path(scratch))
        peft_child(model, "svd")
        difference = largest_difference(model, parents)
        for number in range(rounds):
            for name, operator in our_operators().items():
                ours[name].append(our_child(parents, name, operator))
            streamed.append(folder_to_folder(paths, Path(scratch) / f"child-{number}"))
            for method, keys in PEERS.items():
                model.delete_adapter("child")
                peers[method].append(peft_child(model, method.partition(",")[0], **keys))
            print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        memory = peak(paths)
        size = (paths[0] / "adapter_model.safetensors").stat().st_size
    return report(ours, peers, streamed, difference, memory / size)


def report(
    ours: dict[str, list[float]],
    peers: dict[str, list[float]],
    streamed: list[float],
    difference: float,
    adapters: float,
) -> int:
    """Print the table and the limits, write the file; 1 if a limit was missed."""
    medians = {name: statistics.median(values) for name, values in {**ours, "folder to folder": streamed}.items()}
    theirs = {name: statistics.median(values) for name, values in peers.items()}
    peer_of = dict(zip(SPARSE, ("ties_svd", "dare_linear_svd"), strict=True))
    rows = []
    print(f"{'210 modules of SmolLM2-135M, CPU s':<36}{'ours':>10}  {'PEFT (one block x 30)':<24}{'ratio':>8}")
    for name, seconds in medians.items():
        method = peer_of.get(name, "svd")
        ratio = theirs[method] / seconds
        print(f"{name:<36}{seconds:>10.3f}  {method:<16}{theirs[method]:>8.1f}{ratio:>8.1f}x")
        row = {"row": name, "ours": round(seconds, 4), "peer": round(theirs[method], 3), "peer_name": f"PEFT {method}"}
        rows.append({**row, "unit": "s", "better": "lower", "ratio": round(ratio, 2)})
    faster = theirs["svd"] / medians["weighted sum, rank 16"]
    thin = theirs["svd, thin"] / medians["weighted sum, rank 16"]
    print(f"weighted sum: {faster:.1f}x less than PEFT svd (at least {FASTER:g}), {thin:.1f}x less than its thin form")
    print(f"largest difference of a module from PEFT's: {difference:.1e} (at most {EQUAL:g})")
    print(f"memory to stream a child: {adapters:.2f} adapters (at most {ADAPTERS:g})")
    missed = [
        text
        for text, bad in (
            (f"only {faster:.1f} times less than PEFT", faster < FASTER),
            (f"a module differs from PEFT's by {difference:.1e}", difference > EQUAL),
            (f"{adapters:.2f} adapters of memory", adapters > ADAPTERS),
        )
        if bad
    ]
    versions = {name: version(name) for name in ("torch", "peft")}
    about = {"machine": machine.describe().as_dict(), "versions": {**versions, "python": platform.python_version()}}
    write_json(OUT, {"rows": rows, **about})
    print(f"written to {OUT}" + "".join(f"\nMISSED: {text}" for text in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    OUT.parent.mkdir(parents=True, exist_ok=True)
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
