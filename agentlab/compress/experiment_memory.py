"""What runs have measured, for later ones: a folder of files that a reader understands.

experiments/KEY.json    a recipe on a base and a text, as the first run that measured it found it
knowledge/BASE.md       statements made of them, each with its count and interval
checkpoints/KEY.json    where the export of an experiment lies, as long as it does
"""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, FiniteFloat

from agentlab.compress.config import CompressConfig, point
from agentlab.compress.costs import in_turn, weights_of
from agentlab.compress.goal import Goal
from agentlab.compress.intensity import look_up_intensity
from agentlab.compress.meter import CompressCost, usual_rate
from agentlab.compress.recipe import Recipe, has_settings, recipe_of
from agentlab.compress.texts import MOST
from agentlab.compress.transfer import MeasuredRecipe
from agentlab.config.workspace import Workspace
from agentlab.errors import ModelFileError, StorageError, UnknownNameError
from agentlab.models.base_model import BaseFile
from agentlab.runs.atomic import make_folder, write_json, write_text
from agentlab.runs.document import AnswerDocument, Block, Plain, Text, number, table
from agentlab.search.space import SearchSpace
from agentlab.search.types import TrialResult, Value
from agentlab.stats.intervals import bootstrap_interval

_LEAST, _ANY = 1e-9, Goal("kl")
_NAME = r"^[^/\\\x00-\x1f]+$"
EXPERIMENTS, KNOWLEDGE, CHECKPOINTS = "experiments", "knowledge", "checkpoints"


class RememberedExperiment(Plain):
    """A recipe that was carried out and measured.

    `texts` names weights and texts, `training` how it was recovered, if it was: with both, equal recipes are equal.
    Files are named after `key` and `base`, and the folder may be anybody's: neither leads out of it.
    """

    key: str = Field(pattern=_NAME)
    base: str = Field(pattern=_NAME)
    texts: str
    training: str
    recipe: dict[str, Value]
    status: str
    error: str
    metrics: dict[str, Any]
    objectives: list[FiniteFloat]
    windows: list[FiniteFloat]
    run: str

    @property
    def parsed_recipe(self) -> Recipe:
        return recipe_of(self.recipe)

    @property
    def elsewhere(self) -> MeasuredRecipe:
        size, kl = self.objectives
        return MeasuredRecipe(self.texts, self.recipe, size, kl, self.metrics["joules"])

    def worth(self, goal: Goal) -> float:
        """What it is worth for a goal; lower is better."""
        return goal.worth(self.metrics["shares"], self.metrics["size"], self.metrics.get("within", {}))

    def is_near(self, goal: Goal) -> bool:
        """Whether more text could say that it reaches a goal, which the run that measured it may not have had."""
        figures = (self.metrics.get(name, {}) for name in ("shares", "size", "within"))
        return self.status == "finished" and len(self.metrics.get("losses", ())) < MOST and goal.is_near(*figures)

    def result(self, goal: Goal, file: str | None) -> TrialResult:
        """As a trial of another run, which it costs nothing; `file` is where its export lies, if it still does."""
        then = {unit: self.metrics.get(unit, 0.0) for unit in ("seconds", "joules", "grams")}
        free = dict.fromkeys(then, 0.0)
        metrics = {**self.metrics, **free, "then": {**then, "thought": {}}, "run": self.run, "file": file}
        if self.status == "failed":
            return TrialResult("failed", metrics=metrics, error=self.error)
        return TrialResult("finished", self.worth(goal), metrics, "", tuple(self.objectives), tuple(self.windows))


def on_one_text(
    done: Iterable[RememberedExperiment], base: str, run: str | None = None
) -> tuple[list[RememberedExperiment], list[RememberedExperiment]]:
    """What was measured of a base on one text, and all the rest: figures of two texts do not compare.

    `done`: finished experiments; `run`: the text is that of its experiments; None takes the one that most experiments
    of the base are of.
    """
    experiments = list(done)
    of_base = [experiment for experiment in experiments if experiment.base == base]
    counts = Counter(experiment.texts for experiment in of_base if run in (None, experiment.run))
    texts = max(counts, key=lambda text: counts[text], default=None)
    comparable = [experiment for experiment in of_base if experiment.texts == texts]
    return comparable, [experiment for experiment in experiments if experiment not in comparable]


def known_rate(config: CompressConfig, base: BaseFile, workspace: Workspace) -> CompressCost:
    """What work on a base has cost earlier runs that held recipes against as many windows; else see `usual_rate`."""
    memory = memory_of(config, workspace)
    usual = usual_rate(config.energy.watts, look_up_intensity(config.energy.intensity).grams)
    experiments = memory.experiments() if memory else ()
    base_experiments = [experiment for experiment in experiments if experiment.base == base.path.name]
    done = [experiment for experiment in base_experiments if len(experiment.windows) == config.text.held_out]
    if not done:
        return usual
    seconds = sum(float(experiment.metrics.get("seconds", 0.0)) for experiment in done)
    joules = sum(float(experiment.metrics.get("joules", 0.0)) for experiment in done)
    work = sum(in_turn([experiment.parsed_recipe for experiment in done], config, weights_of(base)))
    return CompressCost(seconds, joules, joules * usual.grams / usual.joules, work)


def hash_parts(*parts: object) -> str:
    """A name for plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class CompressMemory:
    """The folder. Several runs may write there at a time: a file is whole, and never changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self) -> None:
        """See that it can be read, and written when a run is over.

        Raises:
            ModelFileError: a file is damaged.
            StorageError: it is no folder, or not ours to write.
        """
        existing = next(folder for folder in (self._folder, *self._folder.parents) if os.path.lexists(folder))
        if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
            raise StorageError(
                f"Cannot write to the memory folder {self._folder}: {existing} is not a writable folder.",
                hint="Choose another with --workspace-dir, or use --set remember=false.",
            )
        for _ in self.experiments():
            pass

    def experiments(self) -> Iterator[RememberedExperiment]:
        """All, in the order of their keys.

        Raises:
            ModelFileError: a file is damaged.
        """
        for path in sorted((self._folder / EXPERIMENTS).glob("*.json")):
            try:
                experiment = RememberedExperiment.model_validate_json(path.read_bytes() if path.is_file() else b"")
                figures = [*experiment.metrics["shares"].values(), experiment.metrics["size"], experiment.worth(_ANY)]
                if experiment.status == "finished":
                    figures += [experiment.elsewhere.size, experiment.elsewhere.joules]
                    figures += [experiment.metrics["kl"], experiment.metrics["loss"]]
                if not (experiment.parsed_recipe and path.stem == experiment.key and all(map(math.isfinite, figures))):
                    raise ValueError
            except (ValueError, KeyError, TypeError) as error:
                raise ModelFileError(
                    f"{path} is not a valid experiment.", hint="Delete it; experiments are only a cache."
                ) from error
            yield experiment

    def within(self, space: SearchSpace) -> Iterator[RememberedExperiment]:
        """Those whose recipes are points of a space, as such: a run may have searched fewer settings, or more."""
        for experiment in self.experiments():
            params = point(experiment.parsed_recipe, space)
            if recipe_of(params) == experiment.parsed_recipe and not space.problems(params):
                yield experiment.model_copy(update={"recipe": params})

    def keep(self, experiments: Iterable[RememberedExperiment], exports: Mapping[str, Path]) -> None:
        """Write the new experiments of a run, where the exports of some lie (by key), and the statements anew."""
        for name in (EXPERIMENTS, KNOWLEDGE, CHECKPOINTS):
            make_folder(self._folder / name)
        for experiment in experiments:
            path = self._folder / EXPERIMENTS / f"{experiment.key}.json"
            if not path.is_file():
                write_json(path, experiment.model_dump(mode="json"))
        for key, path in exports.items():
            write_json(self._folder / CHECKPOINTS / f"{key}.json", {"path": str(path)})
        all_experiments = list(self.experiments())
        for base in sorted({experiment.base for experiment in all_experiments}):
            done = [
                (experiment.parsed_recipe, experiment.objectives, (experiment.texts, experiment.training))
                for experiment in all_experiments
                if experiment.base == base and experiment.status == "finished"
            ]
            lines = "\n".join(f"- {line}" for line in statements(done))
            write_text(self._folder / KNOWLEDGE / f"{base}.md", f"# {base}\n\n{lines}\n")

    def export(self, key: str) -> Path | None:
        """Where the export of an experiment lies; None if it is gone."""
        try:
            path = Path(json.loads((self._folder / CHECKPOINTS / f"{key}.json").read_bytes())["path"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return path if path.exists() else None


def memory_of(config: CompressConfig, workspace: Workspace) -> CompressMemory | None:
    """The memory that a config names, if it wants one."""
    return CompressMemory(workspace.resolve(config.memory)) if config.remember else None


class MemoryListing(AnswerDocument):
    """The answer of `compress memory`: experiments, and how many there are in all."""

    experiments: list[RememberedExperiment]
    exports: dict[str, str]
    total: int

    def blocks(self) -> list[Block]:
        if not self.total:
            return [Text("The memory is empty; agentlab compress fills it.")]
        columns: dict[str, Callable[[RememberedExperiment], str | float | None]] = {
            "key": lambda experiment: experiment.key,
            "base": lambda experiment: experiment.base,
            "recipe": lambda experiment: str(experiment.parsed_recipe),
            "of bfloat16": lambda experiment: f"{experiment.metrics['shares']['size']:.0%}",
            "KL": lambda experiment: experiment.metrics["kl"],
            "perplexity": lambda experiment: f"{experiment.metrics['loss']:+.1%}",
            "speed": lambda experiment: f"{experiment.metrics['shares']['speed']:.2f}x",
            "run": lambda experiment: experiment.run,
            "export": lambda experiment: self.exports.get(experiment.key, experiment.error or "–"),
        }
        return [table(self.experiments, columns, f"{len(self.experiments)} of {self.total} experiments")]


def query_memory(
    memory: CompressMemory, base: str | None, settings: Mapping[str, str], goal: Goal | None = None
) -> MemoryListing:
    """What is remembered of a base and of recipes with these settings; with a goal, the best on each base and text.

    Raises:
        UnknownNameError: recipes have no such setting.
    """
    for name in settings:
        if name not in Recipe.model_fields:
            raise UnknownNameError("setting", name, list(Recipe.model_fields))
    all_experiments = list(memory.experiments())
    matches = [experiment for experiment in all_experiments if base in (None, experiment.base)]
    matches = [experiment for experiment in matches if has_settings(experiment.parsed_recipe, settings)]
    if goal is not None:
        matches = [min(group, key=lambda experiment: experiment.worth(goal)) for group in _alike(matches)]
    paths = {experiment.key: memory.export(experiment.key) for experiment in matches}
    exports = {key: str(path) for key, path in paths.items() if path}
    return MemoryListing(experiments=matches, exports=exports, total=len(all_experiments))


def _alike(experiments: Sequence[RememberedExperiment]) -> list[list[RememberedExperiment]]:
    """Finished experiments by base and what they were measured on; how a recovery trains does not part them."""
    groups: dict[tuple[str, str], list[RememberedExperiment]] = {}
    for experiment in experiments:
        if experiment.status == "finished":
            groups.setdefault((experiment.base, experiment.texts), []).append(experiment)
    return list(groups.values())


def statements(done: Sequence[tuple[Recipe, Sequence[float], object]]) -> list[str]:
    """What changing one setting does to size and divergence, over all pairs of recipes that differ in it alone.

    `done`: recipes, their size and KL, and what they have to have in common to be comparable.
    """
    pairs: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    ordered = sorted(done, key=lambda row: str(row[0]))
    for (recipe, first, of_one), (other_recipe, second, of_other) in combinations(ordered, 2):
        if of_one == of_other and (change := _only(recipe, other_recipe)):
            size, kl = (math.log(max(new, _LEAST) / max(old, _LEAST)) for old, new in zip(first, second, strict=True))
            pairs.setdefault(change, []).append((size, kl))
    return [_statement(change, gains) for change, gains in sorted(pairs.items())]


def _only(recipe: Recipe, other_recipe: Recipe) -> tuple[str, str, str] | None:
    """The only setting in which two recipes differ, and its two values."""
    sides = recipe.model_dump(), other_recipe.model_dump()
    differ = [name for name in sides[0] if sides[0][name] != sides[1][name]]
    return (differ[0], str(sides[0][differ[0]]), str(sides[1][differ[0]])) if len(differ) == 1 else None


def _statement(change: tuple[str, str, str], gains: Sequence[tuple[float, float]]) -> str:
    name, before, after = change
    size_factor = _factor([size for size, _ in gains])
    kl_factor = _factor([kl for _, kl in gains])
    return f"{name} {before} -> {after}: bytes x {size_factor}, KL x {kl_factor}, n = {len(gains)}"


def _factor(logs: Sequence[float]) -> str:
    middle = number(math.exp(sum(logs) / len(logs)))
    if len(logs) < 3:
        return f"{middle} (too few for an interval)"
    interval = bootstrap_interval(logs, np.random.default_rng(0), method="percentile")
    return f"{middle} [{number(math.exp(interval.low))}, {number(math.exp(interval.high))}]"
