"""Evolution on the shipped task beside what it has to beat, and what scoring a population costs.

The specialists of `make personas` (or three adapters that are named) are bred with the default preset over several
seeds, each with splits of its own. Then 16 blends of them are scored on 12 questions by `evolve`, all children in the
same batches, and by the same scorer, one written adapter after the other; the ways take turns. Held:

    best parent, uniform blend     above them in the mean over the seeds, on the sealed split
    random search                  told, whatever it is
    scoring                        faster by batches alone; the same choices, but where the two likeliest are closer
                                   than 1e-3
    bytes                          no tensor before export; an adapter at least 20 times smaller than the merged model,
                                   and computed for a base of 4B at least 100 times

Crossover beside PEFT's `svd` (at least 50 times as fast) is a row of `make bench-lora`.

Usage: python tests/bench/evolve.py [SEEDS [PARENT PARENT ...]]     6 seeds unless told, 0 leaves them out;
    parents and base lie in the workspace; the runs lie in .agentlab/bench/evolve, and one that was stopped goes on;
    writes .agentlab/bench/evolve.json; exit 1 where missed
"""

import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch

from agentlab import machine
from agentlab.config.base import config_hash
from agentlab.config.load import load
from agentlab.config.overrides import Override
from agentlab.evolve.adapter_folder import export
from agentlab.evolve.config import EvolveConfig
from agentlab.evolve.genome import BLEND, PARENT, Child, Coefficients
from agentlab.evolve.result import EVOLVED, RANDOM
from agentlab.evolve.run import EvolveExperiment, prepare
from agentlab.evolve.scoring import open_weighted_children
from agentlab.runs.atomic import write_json
from agentlab.runs.context import Context
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.session import surroundings
from agentlab.stats.control import ControlComparison
from agentlab.stats.studies import full_study
from agentlab.tasks.labelled import prompts_and_choices
from agentlab.train.base import load_base
from agentlab.train.scoring import scorer

OUT, RUNS = Path(".agentlab/bench/evolve.json"), Path(".agentlab/bench/evolve")
CHILDREN, QUESTIONS, ROUNDS = 16, 12, 3
TIE = 1e-3
FASTER, SMALLER, SMALLER_4B = 1.0, 20.0, 100.0
# Qwen3-4B: layers, and outputs and inputs of the seven linear modules of each; weights of the whole model
LAYERS_4B, WEIGHTS_4B = 36, 4.02e9
SHAPES_4B = [(4096, 2560), (1024, 2560), (1024, 2560), (2560, 4096), (9728, 2560), (9728, 2560), (2560, 9728)]


def experiment(context: Context, seed: int, parents: list[str]) -> EvolveExperiment:
    changes = [Override("seed", seed, "bench"), *([Override("parents", parents, "bench")] if parents else [])]
    config = load(EvolveConfig, "evolve", None, changes, workspace=context.workspace, cwd=Path.cwd(), env=context.env)
    return prepare(config.config, context)


def evolved(context: Context, seeds: int, parents: list[str]) -> list[dict[str, float]]:
    """Of each seed, the shares of right answers on the sealed split. It takes hours: what was stopped goes on."""
    accuracies = []
    for seed in range(seeds):
        exp = experiment(context, seed, parents)
        name = f"seed-{seed}-{exp.config.max_items}-{config_hash(exp.config)[:12]}"
        run_folder, spec = RUNS / name, RunSpec("evolve", "", "", "h", seed, name=name)
        with (
            OpenRun.resume(run_folder, RunEnvironment())
            if run_folder.is_dir()
            else OpenRun.create(RUNS, spec, RunEnvironment()) as run
        ):
            result, _ = exp.run(run)
        accuracies.append({standing.name: standing.test.value for standing in result.standings})
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in accuracies[-1].items()), flush=True)
    return accuracies


def gains(accuracies: list[dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each that evolution has to beat."""
    rows = []
    for name in (PARENT, BLEND, RANDOM):
        ours, theirs = ([shares[key] for shares in accuracies] for key in (EVOLVED, name))
        comparison = ControlComparison("evolution", name, "accuracy", "share", "higher", "equal answers")
        record = full_study(comparison, ours, theirs, np.random.default_rng(0))
        gain, ends = statistics.fmean(ours) - statistics.fmean(theirs), (record.low, record.high)
        interval = "not bounded" if None in ends else f"[{ends[0]:+.3f}, {ends[1]:+.3f}] at {record.level:.1%}"
        print(f"{name:14} {statistics.fmean(theirs):.3f}, evolved {statistics.fmean(ours):.3f}: {gain:+.4f} {interval}")
        rows.append(
            {"row": "accuracy on the sealed split", "ours": statistics.fmean(ours), "peer": statistics.fmean(theirs)}
            | {"peer_name": name, "unit": "share", "better": "higher", "ratio": gain, "low": ends[0], "high": ends[1]}
        )
    return rows


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU: a machine that others use, too, has no other clock."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def scoring(exp: EvolveExperiment, children_folder: Path) -> tuple[list[dict[str, Any]], bool]:
    """16 children, by both ways in turn; and the bytes of one."""
    genome, questions = exp.genome, exp.questions.train[:QUESTIONS]
    assert isinstance(genome, Coefficients)
    rng = np.random.default_rng(0)
    children = [Child("", number, genome.space.sample(rng)) for number in range(CHILDREN)]
    folders = {str(c.number): children_folder / str(c.number) for c in children}
    for child, folder in zip(children, folders.values(), strict=True):
        export(genome, exp.parents, str(child.number), child.params, folder, lambda *_: None, {})
    base, parents = load_base(exp.base.path, "fp32", "sdpa"), list(exp.parents.values())
    ours, theirs, differ = [], [], 0
    for _ in range(ROUNDS):
        with open_weighted_children(exp.base.path, parents, genome.weights, "float32", lambda _: None) as population:
            seconds, our_scores = timed(partial(population, children, questions))
        ours.append(seconds)
        with scorer(base, folders) as one:
            seconds, their_scores = timed(
                lambda one=one: [one.choices([name], prompts_and_choices(questions))[0] for name in folders]
            )
        theirs.append(seconds)
        print(f"{ours[-1]:.1f} s and {seconds:.1f} s", flush=True)
        differ = sum(
            a.likeliest_index() != b.likeliest_index() and sorted(a.shares())[-1] - sorted(a.shares())[-2] > TIE
            for row, their_row in zip(our_scores, their_scores, strict=True)
            for a, b in zip(row, their_row, strict=True)
        )
    ratio = statistics.median(theirs) / statistics.median(ours)
    answers = CHILDREN * QUESTIONS
    print(f"{answers} answers: {statistics.median(ours):.1f} s, adapter by adapter {statistics.median(theirs):.1f} s: "
          f"{ratio:.2f}x; {differ} choices differ")  # fmt: skip
    adapter = min(sum(f.stat().st_size for f in folder.iterdir()) for folder in parents)
    merged = sum(f.stat().st_size for f in exp.base.path.glob("*.safetensors"))
    rank = 8
    large = WEIGHTS_4B / (LAYERS_4B * sum((a + b) * rank for a, b in SHAPES_4B))
    print(f"an adapter {adapter / 2**20:.1f} MiB, merged {merged / 2**20:.0f} MiB: {merged / adapter:.0f}x; "
          f"4B, rank {rank}: {large:.0f}x")  # fmt: skip
    rows = [
        {"row": "a population of 16 scored", "ours": statistics.median(ours), "peer": statistics.median(theirs)}
        | {"peer_name": "Scorer.choices, adapter by adapter", "unit": "s of CPU", "better": "lower", "ratio": ratio},
        {"row": "bytes of a delta", "ours": adapter, "peer": merged}
        | {"peer_name": "merged model", "unit": "bytes", "better": "lower", "ratio": merged / adapter},
    ]
    return rows, ratio >= FASTER and not differ and merged / adapter >= SMALLER and large >= SMALLER_4B


def main(seeds: int, parents: list[str]) -> int:
    warnings.simplefilter("ignore")
    context = surroundings(os.environ, Path.cwd())
    with tempfile.TemporaryDirectory() as scratch:
        accuracies = evolved(context, seeds, parents)
        written = list(RUNS.rglob("*.safetensors"))
        rows = gains(accuracies) if accuracies else []
        with machine.torch_threads(machine.threads()):
            scoring_rows, is_met = scoring(experiment(context, 0, parents), Path(scratch) / "children")
    is_met = is_met and not written and all(row["ratio"] > 0 for row in rows if row["peer_name"] != RANDOM)
    versions = {"torch": torch.__version__}
    write_json(OUT, {"rows": [*rows, *scoring_rows], "machine": machine.describe().as_dict(), "versions": versions})
    print("held" if is_met else "MISSED")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 6, sys.argv[2:]))
