"""What a useless language model costs a study: the winner's validation error beside that of a study without one.

Real studies of 20 trials on the embedded weather, with the space of the default preset, seeds 0 to 4. Studies of one
seed share trial 0 and the coin that says which trials are the model's; who fills these trials is the arm:

    none          the optimiser alone, in all trials
    garbage       a model that answers no JSON
    stuck         a model that never answers
    adversarial   a large model (tier `full`) that proposes the worst corner of the space again and again, a little
                  varied so that it is not refused as tried before, and rejects every near tie that it has to judge
    last-letter   a small model (tier `pick`) that always names the last of the candidates that it is offered

To be quick, a trial is rougher than the preset's: a quarter of the training windows, two epochs, no last round (the
winner is the trial that was accepted last), and the noise is given as 1 % instead of measured. Held: the mean of each
arm is at most 1.10 times that of `none`.

Usage: python tests/bench/nas_bad_llms.py [ARM ...]     exit 1 beyond 10 %

Finished studies are kept in .agentlab/bench/nas-bad-llms/ for as long as neither their settings nor the source of the
search change, and one that was interrupted goes on. All arms together write .agentlab/bench/nas-bad-llms.json.
"""

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy
import optuna
import torch

import agentlab
from agentlab import machine
from agentlab.nas import run_nas_optimization
from agentlab.nas.result import NasResult
from agentlab.runs.atomic import write_json
from agentlab.runs.store import list_runs

LIMIT = 1.10
TRIALS, SEEDS = 20, range(5)
ROUGH = {
    "training.train_fraction": 0.25,
    "training.epochs": 2,
    "finals.count": 0,
    "evaluator.noise": 0.01,
}
WORST = {
    "data.batch_size": 128,
    "data.input_length": 24,
    "data.label_share": 0.25,
    "model.d_model": 8,
    "model.n_heads": 1,
    "model.e_layers": 1,
    "model.ff_multiplier": 1,
    "model.attention": "prob",
    "model.factor": 1,
    "model.mix": False,
    "model.dropout": 0.4,
    "model.normalize": False,
    "model.shortcut": False,
    "training.optimizer_params.lr": 1e-4,
    "training.optimizer_class": "AdamW",
    "training.optimizer_params.weight_decay": 0.1,
    "training.criterion_class": "SmoothL1Loss",
}
HOME = Path(".agentlab/bench")
OUT = HOME / "nas-bad-llms.json"


def scripted(tier: str, **script: Any) -> dict[str, Any]:
    """`llm:` with one scripted model, which also judges near ties; of `judge` if given, another one does that."""
    judge = script.pop("judge", None)
    llm: dict[str, Any] = {
        "providers": {"script": {"kind": "scripted", **script}},
        "models": {"bad": {"provider": "script", "id": "bad", "tier": tier, "price": {"input": 0, "output": 0}}},
        "roles": {"primary": ["bad"]},
        "defaults": {"timeout": {"connect": 1.0, "first_token": 0.1, "idle": 1.0, "total": 5.0}},
    }
    if judge is not None:
        llm["providers"]["judge"] = {"kind": "scripted", "mode": "replies", "replies": [judge]}
        llm["models"]["judge"] = {"provider": "judge", "id": "judge", "tier": tier, "price": {"input": 0, "output": 0}}
        llm["roles"]["reserve"] = ["judge"]
        llm["tasks"] = {"nas.propose": {"roles": ["primary"]}, "nas.evaluate": {"roles": ["reserve"]}}
    return llm


def worst_corner(number: int) -> str:
    """One answer of the adversary. Dropout and learning rate move by less than they matter, so that it is a new one."""
    varied = {"model.dropout": 0.4 - 0.001 * number, "training.optimizer_params.lr": 1e-4 * (1 + 0.01 * number)}
    return json.dumps({"reason": "This will be good.", "candidates": [{**WORST, **varied}]})


ARMS: dict[str, Any] = {
    "none": "none",
    "garbage": scripted("full", mode="garbage"),
    "stuck": scripted("full", mode="stuck"),
    "adversarial": scripted(
        "full",
        mode="replies",
        replies=[worst_corner(number) for number in range(2 * TRIALS)],
        judge='{"reason": "No.", "decision": "reject"}',
    ),
    "last-letter": scripted("pick", mode="adversarial"),
}


def source() -> str:
    """SHA-256 of the code that decides a study's result."""
    root = Path(agentlab.__file__).parent
    files = sorted(path for part in ("nas", "search", "llm") for path in (root / part).rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def study(arm: str, seed: int) -> NasResult:
    """The result of one study: stored, gone on with, or run from the start."""
    settings = {**ROUGH, "seed": seed, "llm": ARMS[arm]}
    key = hashlib.sha256(json.dumps([TRIALS, settings, source()]).encode()).hexdigest()[:12]
    runs = HOME / "nas-bad-llms" / f"{arm}-{seed}-{key}"
    has_run = bool(list_runs(runs).runs)
    began = time.perf_counter()
    if has_run:
        finished = run_nas_optimization(TRIALS, resume="last", runs_dir=runs)
    else:
        finished = run_nas_optimization(TRIALS, overrides=settings, runs_dir=runs)
    summary = f"{arm} {seed}: {finished.result.winner.val_mse:.4f} by {finished.result.winner.source}"
    print(f"{summary}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return finished.result


def val_mse(results: Sequence[NasResult]) -> list[float]:
    """The winners' validation errors."""
    return [result.winner.val_mse for result in results]


def table(by_arm: Mapping[str, Sequence[NasResult]]) -> list[str]:
    """One line per arm: its errors beside those of `none`, and what became of its model's proposals."""
    base = val_mse(by_arm["none"])
    seeds = "".join(f"{f'seed {seed}':>8}" for seed in SEEDS)
    lines = [f"{'arm':<13}{'mean MSE':>9}{'ratio':>8}{seeds}{'asked':>8}{'used':>6}{'fell back':>11}{'best':>6}"]
    for arm, results in by_arm.items():
        errors = val_mse(results)
        agent = [trial for result in results for trial in result.trials if trial.arm == "agent"]
        used = sum(trial.source == "llm" for trial in agent)
        fell_back = sum(trial.source.startswith("llm->") for trial in agent)
        won = sum(result.winner.source == "llm" for result in results)
        ratios = "".join(f"{mine / base_error:>8.3f}" for mine, base_error in zip(errors, base, strict=True))
        ratio = fmean(errors) / fmean(base)
        asked_share = f"{len(agent) / (len(results) * (TRIALS - 1)):.0%}"
        lines.append(
            f"{arm:<13}{fmean(errors):>9.4f}{ratio:>8.3f}{ratios}{asked_share:>8}{used:>6}{fell_back:>11}{won:>6}"
        )
    lines += [
        "",
        f"mean MSE: validation, of the winners of {len(SEEDS)} seeds; ratio: to `none`, of the means and per seed;",
        "asked: share of the trials after trial 0 that were the model's; used, fell back: in how many of these its",
        "proposal was trained, or the optimiser's instead; best: studies that a proposal of the model won.",
    ]
    return lines


def row(arm: str, errors: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """A row of the report on all benchmarks."""
    return {
        "row": f"NAS winner, language model: {arm}",
        "ours": round(fmean(errors), 5),
        "peer": round(fmean(base), 5),
        "peer_name": "the optimiser alone",
        "unit": "validation MSE",
        "better": "lower",
        "ratio": round(fmean(errors) / fmean(base), 4),
    }


def main(arms: Sequence[str]) -> int:
    """Measure the arms, print, write; the exit status."""
    if unknown := sorted(set(arms) - set(ARMS)):
        print(f"no such arm: {', '.join(unknown)}; there are {', '.join(ARMS)}")
        return 2
    chosen = [arm for arm in ARMS if arm == "none" or arm in arms or not arms]
    by_arm: dict[str, list[NasResult]] = {arm: [] for arm in chosen}
    for seed in SEEDS:
        for arm in chosen:
            by_arm[arm].append(study(arm, seed))
    print("\n".join(table(by_arm)))
    errors = {arm: val_mse(results) for arm, results in by_arm.items()}
    rows = [row(arm, values, errors["none"]) for arm, values in errors.items() if arm != "none"]
    if len(chosen) == len(ARMS):
        versions = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "optuna": optuna.__version__,
            "numpy": numpy.__version__,
        }
        HOME.mkdir(parents=True, exist_ok=True)
        write_json(OUT, {"rows": rows, "machine": machine.describe().as_dict(), "versions": versions})
        print(f"written to {OUT}")
    beyond = [entry["row"] for entry in rows if entry["ratio"] > LIMIT]
    print(f"beyond {LIMIT}: {'; '.join(beyond)}" if beyond else f"all within {LIMIT} of `none`")
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
