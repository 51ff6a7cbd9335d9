"""One forward pass for rows of three adapters: our stacked products, PEFT's `adapter_names`, and switching adapters.

SmolLM2-135M in float32 with three adapters of rank 16 on all 210 linear layers, one thread. The ways take turns in
random order in one process, on the same tokens. Ours is `rowwise` on packed weights, as `train-persona` scores and
answers; the stack on plain weights stands beside it, as does the base model alone. Held:

    logits, packed                          differ from PEFT's by at most 1e-5 (Frobenius norms)
    logits, plain weights                   differ from PEFT's by at most 1e-5 of what the adapters change
    CPU time of a decode step               at least 1.5 times less than `adapter_names`,
    (24 rows = 3 x 8, past 64)              at least 2 times less than three passes of `set_adapter`

Unequal groups and a prefill are measured, too.

Usage: python tests/bench/lora_stacked.py [ROUNDS]   15 unless told; writes .agentlab/bench/lora_stacked.json
"""

import copy
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from checkpoint import checkpoint

from agentlab import machine
from agentlab.hf.onednn_weights import pack_weights
from agentlab.lora.rowwise import AdapterStack
from agentlab.lora.stacked import Stack
from agentlab.runs.atomic import write_json

OUT = Path(".agentlab/bench/lora_stacked.json")
NAMES, RANK, PAST = ("one", "two", "three"), 16, 64
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HELD = "decode step, 24 rows = 3 x 8"
ADDED = "what adapters add, plain weights"
CASES = {  # rows of each adapter, tokens of a row, tokens before them, passes of a turn
    HELD: ((8, 8, 8), 1, PAST, 4),
    "decode step, 24 rows = 11 + 8 + 5": ((11, 8, 5), 1, PAST, 4),
    "prefill, 6 rows of 64 tokens": ((2, 2, 2), 64, 0, 1),
}
PEERS = {
    "names": "PEFT adapter_names",
    "switched": "PEFT set_adapter, three passes",
    "plain": "ours on plain weights",
    "base": "base model alone, plain weights",
}
EQUAL, FASTER = 1e-5, {"names": 1.5, "switched": 2.0}


def models(path: Path, folder: Path) -> tuple[Any, Any, Stack]:
    """The base model, the same weights under PEFT with three random adapters, and our stack of these."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    twin = copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
    peft = get_peft_model(twin, config, adapter_name=NAMES[0])
    for name in NAMES[1:]:
        peft.add_adapter(name, config)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    peft.save_pretrained(str(folder))  # a folder for each adapter
    stack = AdapterStack()
    for name in NAMES:
        stack.put(folder / name)
    return base, peft.eval(), stack


class Case:
    """Forward passes over rows in groups, one group per adapter, made in each of the ways.

    A turn is some passes, each with the last one's tokens in the cache: adapters are applied once for all of them, as
    they are for an answer.
    """

    def __init__(
        self,
        base: Any,
        quick: Any,
        peft: Any,
        stack: Stack,
        groups: tuple[int, ...],
        tokens: int,
        past_tokens: int,
        passes: int,
    ) -> None:
        """`quick` is the base with packed weights."""
        generator = torch.Generator().manual_seed(1)
        self._base, self._quick, self._peft, self._stack, self._groups = base, quick, peft, stack, groups
        self._rows = [adapter for adapter, size in enumerate(groups) for _ in range(size)]
        self._past, self._passes = past_tokens, passes
        everything = torch.randint(
            0, base.config.vocab_size, (len(self._rows), past_tokens + tokens), generator=generator
        )
        before, self._ids = everything.split([past_tokens, tokens], dim=1)
        self._whole, self._parts = self._filled(before) if past_tokens else (None, [None] * len(groups))

    def _filled(self, before: torch.Tensor) -> tuple[Any, list[Any]]:
        """Caches of what came before, for all rows and for each group."""
        output = self._forward(self._peft, before, None, adapter_names=[NAMES[row] for row in self._rows])
        parts = []
        for name, part in zip(NAMES, before.split(self._groups), strict=True):
            self._peft.set_adapter(name)
            parts.append(self._forward(self._peft, part, None).past_key_values)
        return output.past_key_values, parts

    def _forward(self, model: Any, ids: torch.Tensor, cache: Any, **keys: Any) -> Any:
        return model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **keys)

    def _logits(self, model: Any, **keys: Any) -> torch.Tensor:
        logits: torch.Tensor = self._forward(model, self._ids, self._whole, **keys).logits
        return logits

    def ours(self) -> Iterator[torch.Tensor]:
        with self._stack.apply_to(self._quick, self._rows):
            for _ in range(self._passes):
                yield self._logits(self._quick)

    def plain(self) -> Iterator[torch.Tensor]:
        with self._stack.apply_to(self._base, self._rows):
            yield from self.base()

    def names(self) -> Iterator[torch.Tensor]:
        for _ in range(self._passes):
            yield self._logits(self._peft, adapter_names=[NAMES[row] for row in self._rows])

    def switched(self) -> Iterator[torch.Tensor]:
        for _ in range(self._passes):
            logits = []
            for name, part, cache in zip(NAMES, self._ids.split(self._groups), self._parts, strict=True):
                self._peft.set_adapter(name)
                logits.append(self._forward(self._peft, part, cache).logits)
            yield torch.cat(logits)

    def base(self) -> Iterator[torch.Tensor]:
        for _ in range(self._passes):
            yield self._logits(self._base)

    def timed(self, method: str) -> tuple[float, torch.Tensor]:
        """CPU seconds of one pass, and the last logits of the last pass."""
        start = time.process_time()
        logits = list(getattr(self, method)())
        seconds = (time.process_time() - start) / self._passes
        for cache in (self._whole, *self._parts):
            if cache is not None and cache.get_seq_length() > self._past:
                cache.crop(self._past - cache.get_seq_length())  # without the tokens that were just read
        return seconds, logits[-1]


def measure(cases: dict[str, Case], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by case and way; the first round is not counted."""
    chance = random.Random(0)
    ways = ("ours", *PEERS)
    seconds: dict[str, dict[str, list[float]]] = {case: {method: [] for method in ways} for case in cases}
    for number in range(rounds + 1):
        for title, case in cases.items():
            for method in chance.sample(ways, len(ways)):
                duration, _ = case.timed(method)
                if number:
                    seconds[title][method].append(duration)
        print(f"round {number} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return seconds


def differences(case: Case) -> tuple[float, float]:
    """Distance of our logits from PEFT's: packed, in Frobenius norms; and the largest on plain weights, as a share of
    what the adapters change."""
    ours, plain, theirs, base = (case.timed(method)[1] for method in ("ours", "plain", "names", "base"))
    return (
        float((ours - theirs).double().norm() / theirs.double().norm()),
        float((plain - theirs).abs().max() / (theirs - base).abs().max()),
    )


def rows_of(seconds: dict[str, dict[str, list[float]]]) -> Iterator[dict[str, object]]:
    """The rows of the JSON file; `ratio` is how many times less ours takes, as the median over rounds."""
    for title, by_way in seconds.items():
        ours = statistics.median(by_way["ours"]) * 1e3
        for method, name in PEERS.items():
            # the same round saw the same machine: ratios are paired
            ratio = statistics.median(a / b for a, b in zip(by_way[method], by_way["ours"], strict=True))
            peer = statistics.median(by_way[method]) * 1e3
            row = {"row": title, "ours": round(ours, 2), "peer": round(peer, 2), "peer_name": name}
            yield {**row, "unit": "ms", "better": "lower", "ratio": round(ratio, 3)}
    added = {
        method: [a - b for a, b in zip(seconds[HELD][method], seconds[HELD]["base"], strict=True)]
        for method in ("plain", "names")
    }
    ours, peer = (statistics.median(added[method]) * 1e3 for method in ("plain", "names"))
    row = {"row": ADDED, "ours": round(ours, 2), "peer": round(peer, 2), "peer_name": PEERS["names"]}
    yield {**row, "unit": "ms", "better": "lower", "ratio": round(peer / ours, 3)}


def main(rounds: int) -> int:
    """Compare, measure, print, write; the exit status."""
    torch.set_num_threads(1)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT.parent) as folder, torch.inference_mode():
        base, peft, stack = models(checkpoint(), Path(folder))
        quick = copy.deepcopy(base)
        with pack_weights(quick):
            cases = {title: Case(base, quick, peft, stack, *shape) for title, shape in CASES.items()}
            errors = {title: differences(case) for title, case in cases.items()}
            rows = list(rows_of(measure(cases, rounds)))
    print(f"{'SmolLM2-135M, 3 adapters, CPU ms':<36}{'ours':>9}{'peer':>9}{'ratio':>8}")
    for row in rows:
        print(f"{row['row']:<36}{row['ours']:>9}{row['peer']:>9}{row['ratio']:>7}x  {row['peer_name']}")
    for index, description in enumerate(
        ("packed, in Frobenius norms", "plain weights, the largest as a share of the change")
    ):
        worst = max(case_errors[index] for case_errors in errors.values())
        print(f"difference from PEFT's logits, {description}: {worst:.1e} (at most {EQUAL:g})")
    ratios = {str(row["peer_name"]): float(str(row["ratio"])) for row in rows if row["row"] == HELD}
    missed = [
        f"{title}: logits differ by {max(case_errors):.1e}"
        for title, case_errors in errors.items()
        if max(case_errors) > EQUAL
    ]
    for method, bound in FASTER.items():
        print(f"{HELD}: {ratios[PEERS[method]]:.2f}x less than {PEERS[method]} (at least {bound:g})")
        if ratios[PEERS[method]] < bound:
            missed.append(f"only {ratios[PEERS[method]]:.2f} times less than {PEERS[method]}")
    versions = {name: version(name) for name in ("torch", "peft", "transformers")}
    about = {"machine": machine.describe().as_dict(), "versions": {**versions, "python": platform.python_version()}}
    write_json(OUT, {"rows": rows, **about})
    print(f"written to {OUT}" + "".join(f"\nMISSED: {text}" for text in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # PEFT on adapters of other names
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15))
