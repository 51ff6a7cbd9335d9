"""Planners of `compress` on a recorded grid: how much of the reachable front they find for how much energy.

Two small Llamas were trained (`bases.trained`), and each of 188 recipes was really carried out and measured on both:
tests/bench/compress_grid.json holds what came of it. A study replays from there, with the proposers, the engine and the
language-model router of the command. Each base is searched with the other one as memory.

    random      draws, after the first four recipes of the portfolio, as all arms
    tpe         the optimiser
    memory      the optimiser, with experiments on the other base
    shuffled    the same experiments, of which each has the figures of another one
    good, noisy, adversarial    the optimiser beside a model that names the best, any, or the worst recipes left

Held: `memory` reaches 95 % of the grid's hypervolume within 35 % of its energy and beats `random` (sign flips over
seeds, p < 0.05); it comes to what the optimiser reaches with at most 75 % of the cost; `shuffled` and `adversarial`
lose at most 10 % of hypervolume to `tpe` at equal cost.

Usage: python tests/bench/compress_replay.py [--seeds 30] [--record]      exit 1 where something does not hold
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import yaml

from agentlab.compress.control import gains, share
from agentlab.compress.objective import REFERENCE
from agentlab.compress.recipe import rules
from agentlab.compress.result import TERMS
from agentlab.compress.transfer import MeasuredRecipe, Recalling
from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.recorder import RunRecorder
from agentlab.llm.router import Router
from agentlab.runs.atomic import write_json
from agentlab.runs.events import Event
from agentlab.runs.journal import read_events
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.search.arms import ARMS
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Params, Proposal, Trial, TrialResult
from agentlab.stats.fronts import hypervolume
from agentlab.stats.paired_tests import compare
from agentlab.study.evaluator import ParetoEvaluator
from agentlab.study.executor import LocalExecutor
from agentlab.study.setup import Setup
from agentlab.study.state import StudyCandidate, rebuild
from agentlab.study.steps import search

GRID = Path(__file__).with_name("compress_grid.json")
CONFIG = Path(__file__).with_name("compress_grid.yaml")
ENERGY, VOLUME = 0.35, 0.95  # of the grid's: what memory may use, and has to reach
BUDGETS = (0.05, 0.1, 0.2, ENERGY)  # of 188 recipes, about 9, 19, 38 and 66
CHEAPER, HARM = 0.75, 0.10
ARM_NAMES = ("random", "tpe", "memory", "shuffled", "good", "noisy", "adversarial")
SIZES = {
    "wide": {"seed": 1, "vocabulary": 2048, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "deep": {"seed": 2, "vocabulary": 1024, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 10,
             "num_attention_heads": 3, "num_key_value_heads": 3, "tie_word_embeddings": True},
}  # fmt: skip
FIRST: tuple[Mapping[str, Any], ...] = (
    {"structure": "none", "quantizer": "kquant", "quantization_bits": 8, "importance": False},
    {"structure": "none", "quantizer": "gptq", "quantization_bits": 4, "group": 64},
    {"structure": "width", "kept": 0.9, "recovery": "distil", "quantizer": "kquant", "quantization_bits": 8,
     "importance": False},
    {"structure": "none", "quantizer": "kquant", "quantization_bits": 4, "importance": True},
)  # fmt: skip


@cache
def space() -> SearchSpace:
    """What was carried out."""
    config = SpaceConfig.model_validate(yaml.safe_load(CONFIG.read_text())["space"])
    return SearchSpace.of(config, rules(config))


@dataclass
class Base:
    """A recorded base."""

    name: str
    rows: list[Any]

    @cached_property
    def measured(self) -> list[MeasuredRecipe]:
        """What was measured; a recipe that failed has figures that are not a number."""
        return [
            MeasuredRecipe(
                self.name, space().reduce(params), *(math.nan if value is None else value for value in figures)
            )
            for values, *figures in self.rows
            for params in [
                {name: value for name, value in zip(space().parameters, values, strict=True) if value is not None}
            ]
        ]

    @cached_property
    def by_key(self) -> dict[str, MeasuredRecipe]:
        """By point."""
        return {space().key(recipe.params): recipe for recipe in self.measured}

    @cached_property
    def energy(self) -> float:
        """Joules of all of it."""
        return sum(recipe.joules for recipe in self.measured)

    @cached_property
    def volume(self) -> float:
        """Hypervolume of all of it."""
        return hypervolume([(recipe.size, recipe.kl) for recipe in self.measured if recipe.kl == recipe.kl], REFERENCE)


def replay(base: Base, batch: Sequence[StudyCandidate]) -> list[TrialResult]:
    """The objective of a study: what was recorded."""
    results = []
    for candidate in batch:
        row = base.by_key[space().key(candidate.params)]
        metrics = {"joules": row.joules, "kl": row.kl, "size": row.size}
        if row.kl == row.kl:
            results.append(TrialResult("finished", row.size, metrics, objectives=(row.size, row.kl)))
        else:
            results.append(TrialResult("failed", metrics={"joules": row.joules}, error="recorded"))
    return results


def best_left(base: Base, tried: Sequence[Params]) -> list[MeasuredRecipe]:
    """Recipes that are left, by the hypervolume that they would add for a joule, best first."""
    keys = {space().key(params) for params in tried}
    points = [(base.by_key[key].size, base.by_key[key].kl) for key in keys]
    untried = [recipe for key, recipe in base.by_key.items() if key not in keys and recipe.kl == recipe.kl]
    volume = hypervolume(points, REFERENCE)
    return sorted(
        untried,
        key=lambda recipe: (volume - hypervolume([*points, (recipe.size, recipe.kl)], REFERENCE)) / recipe.joules,
    )


@dataclass
class Advisor:
    """A stand-in for a large model: it knows the grid, and says what it likes of it."""

    base: Base
    kind: str
    history: Callable[[], Sequence[Trial]]
    rng: np.random.Generator

    async def stream(self, request: Any) -> Any:
        """Three recipes."""
        from agentlab.llm.types import Delta, Usage

        untried = best_left(self.base, [trial.proposal.params for trial in self.history()])
        if self.kind == "adversarial":
            untried.reverse()
        if self.kind == "noisy" and self.rng.random() < 0.5:
            untried = [untried[index] for index in self.rng.permutation(len(untried))]
        names = list(space().parameters)
        answer = [{name: recipe.params.get(name) for name in names} for recipe in untried[:3]]
        yield Delta(text=json.dumps({"reason": f"{self.kind}", "candidates": answer}))
        yield Delta(finish="stop", usage=Usage(1, 1))

    async def close(self) -> None:
        """Nothing is held."""


LLM = LLMConfig.model_validate(
    {
        "providers": {"script": {"kind": "scripted"}},
        "models": {"advisor": {"provider": "script", "id": "x", "tier": "full", "price": {"input": 0, "output": 0}}},
        "roles": {"primary": ["advisor"]},
        "ledger": {"enabled": False},
    }
)


def study(task: tuple[str, str, int]) -> list[tuple[float, float]]:
    """A study of an arm on a base: what it had spent and reached after each trial, as shares of the grid's."""
    name, arm, seed = task
    bases = recorded()
    base = bases[name]
    rng = np.random.default_rng([seed, ARM_NAMES.index(arm)])
    elsewhere = [
        recipe for other in bases.values() if other is not base for recipe in other.measured if recipe.kl == recipe.kl
    ]
    if arm == "shuffled":
        order = rng.permutation(len(elsewhere))
        elsewhere = [
            MeasuredRecipe(one.where, one.params, other.size, other.kl, other.joules)
            for one, other in zip(elsewhere, [elsewhere[index] for index in order], strict=True)
        ]
    recalled = elsewhere if arm in ("memory", "shuffled") else []
    shared_memory = Path("/dev/shm")
    root = str(shared_memory) if shared_memory.is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=root) as folder,
        OpenRun.create(Path(folder), RunSpec("compress", "", "", "h", seed), RunEnvironment()) as run,
    ):
        history = lambda: rebuild(run.events).history  # noqa: E731 - what the advisor sees
        advisor = Advisor(base, arm, history, rng)
        with Router(
            LLM,
            env={},
            workspace=Workspace(Path(folder), Path(folder)),
            recorder=RunRecorder(run),
            models={"advisor": advisor},
        ) as router:
            setup = Setup(
                terms=TERMS,
                rules=ScreenRules(space()),
                starts=[Proposal(space().reduce(params), "portfolio") for params in FIRST],
                base="random" if arm == "random" else "tpe",
                budget={"joules": ENERGY * base.energy},
                evaluator=lambda *_: ParetoEvaluator(TERMS),
                executor=lambda _: LocalExecutor(partial(replay, base)),
                check=lambda: None,
                router=router if arm in ("good", "noisy", "adversarial") else None,
                share=share,
                arm=lambda kind, where, number: Recalling(ARMS.load(kind)(kind, where, number), where, recalled),
            )
            state = search(setup.study(run, seed), lambda: None)
    steps = gains(state.trials)
    joules, reached = np.cumsum([cost * 1e3 for _, cost in steps]), np.cumsum([gain for gain, _ in steps])
    return list(zip((joules / base.energy).tolist(), (reached / base.volume).tolist(), strict=True))


@cache
def recorded() -> dict[str, Base]:
    """The grid."""
    return {fields["name"]: Base(**fields) for fields in json.loads(GRID.read_text())}


def reached(path: Sequence[tuple[float, float]], energy: float) -> float:
    """The share of the volume within a share of the energy."""
    return max((volume for cost, volume in path if cost <= energy), default=0.0)


def area(path: Sequence[tuple[float, float]]) -> float:
    """The mean share of the volume over the energy that may be used."""
    return fmean(reached(path, energy) for energy in np.linspace(0, ENERGY, 200)[1:])


def cost_of(path: Sequence[tuple[float, float]], volume: float) -> float:
    """The share of the energy until a share of the volume is reached; infinite if it never was."""
    return next((cost for cost, reached_volume in path if reached_volume >= volume), float("inf"))


def main(seeds: int) -> int:
    """Replay, print, judge; the exit status."""
    tasks = [(name, arm, seed) for name in recorded() for seed in range(seeds) for arm in ARM_NAMES]
    with ProcessPoolExecutor(2) as pool:
        paths = dict(zip(tasks, pool.map(study, tasks, chunksize=4), strict=True))
    missed = 0
    for name, base in recorded().items():
        by_arm = {arm: [paths[name, arm, seed] for seed in range(seeds)] for arm in ARM_NAMES}
        print(f"{name}: {len(base.rows)} recipes, {base.energy / 1e3:.1f} kJ, hypervolume {base.volume:.4f}")
        shares = "".join(f"{f'at {energy:.0%}':>9}" for energy in BUDGETS)
        print(f"{'arm':<12}{shares}{'mean':>9}{f'energy to {VOLUME:.0%}':>16}")
        for arm, arm_paths in by_arm.items():
            at = "".join(f"{fmean(reached(path, energy) for path in arm_paths):>9.1%}" for energy in BUDGETS)
            cost = median(cost_of(path, VOLUME) for path in arm_paths)
            print(f"{arm:<12}{at}{fmean(map(area, arm_paths)):>9.1%}{cost:>16.1%}")
        missed += judge(name, by_arm)
    print(f"means over {seeds} seeds of the share of the hypervolume at a share of the energy; mean: over all of it")
    print(
        f"to {ENERGY:.0%}; energy: median share until {VOLUME:.0%} of the hypervolume. The first four are known ones."
    )
    return int(missed > 0)


def _mean(paths: Sequence[Sequence[tuple[float, float]]], energy: float) -> float:
    return fmean(reached(path, energy) for path in paths)


def judge(name: str, by_arm: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> int:
    """Print the held lines of a base; how many do not hold."""
    areas = {arm: [area(path) for path in paths] for arm, paths in by_arm.items()}
    against = compare(areas["memory"], areas["random"], np.random.default_rng(0))
    late = max(cost_of(path, VOLUME) for path in by_arm["memory"])
    cheaper = {
        energy: median(
            cost_of(warm, reached(cold, energy)) / energy
            for warm, cold in zip(by_arm["memory"], by_arm["tpe"], strict=True)
        )
        for energy in BUDGETS
    }
    dearest = max(cheaper, key=lambda energy: cheaper[energy])
    lines = {
        f"memory reaches {VOLUME:.0%} within {ENERGY:.0%} of the energy: in every seed by {late:.1%}": late <= ENERGY,
        f"memory beats random by {against.estimate:+.3f} [{against.low:+.3f}, {against.high:+.3f}]": against.low > 0,
        f"memory takes {cheaper[dearest]:.0%} of the cost of a cold run of {dearest:.0%} of the energy to get there": (
            cheaper[dearest] <= CHEAPER
        ),
    }
    for arm in ("shuffled", "adversarial"):
        losses = {energy: 1 - _mean(by_arm[arm], energy) / _mean(by_arm["tpe"], energy) for energy in BUDGETS}
        worst = max(losses, key=lambda energy: losses[energy])
        lines[f"{arm} loses at most {losses[worst]:+.1%} to tpe at equal cost, at {worst:.0%}"] = losses[worst] <= HARM
    for claim, is_met in lines.items():
        print(f"  {'holds' if is_met else 'MISSED'}: {name}: {claim}")
    print()
    return sum(not is_met for is_met in lines.values())


def record(folder: Path) -> None:
    """Train the bases, carry out every recipe on each, and write the grid. About two hours of one core."""
    from agentlab.compress import run_compression_optimization
    from tests.bench.bases import trained

    grids = []
    for name, sizes in SIZES.items():
        base = folder / name
        if not base.is_dir():
            trained(base, steps=300, **sizes)
        run = run_compression_optimization(str(base), config=CONFIG, runs_dir=folder / "runs")
        grids.append(grid_of(name, read_events(run.path / "events.jsonl")))
    write_json(GRID, grids)


def grid_of(name: str, events: Sequence[Event]) -> dict[str, Any]:
    """The rows of a run that has carried out every recipe."""
    rows = []
    for trial in rebuild(events).trials:
        if trial.result is not None:
            size, kl = trial.result.objectives or (None, None)
            rows.append(
                [[*map(trial.proposal.params.get, space().parameters)], size, kl, trial.result.metrics["joules"]]
            )
    return {"name": name, "rows": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--record", type=Path, metavar="DIR", help="make the grid anew, with bases and runs in DIR")
    given = parser.parse_args()
    if given.record:
        record(given.record)
    sys.exit(main(given.seeds))
