"""What harnesses measure of a base model and its adapters, side by side. Pure but for the files."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import numpy as np

from agentlab import __version__
from agentlab.config.workspace import Workspace
from agentlab.errors import UsageError
from agentlab.lora.catalogue import find
from agentlab.models.base_model import find_base, import_base
from agentlab.persona.talk import checkpoint_of
from agentlab.runs.atomic import make_folder, write_json
from agentlab.runs.document import AnswerDocument, Block, Plain, Text, number, table
from agentlab.stats.control import Evidence
from agentlab.stats.paired_tests import compare_family

BASE = "base"
# Of lm-eval's results, what another program would look for.
_KEPT = (
    "results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples",
    "lm_eval_version", "transformers_version",
)  # fmt: skip

Key = tuple[str, str]  # a task and a metric


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric over the items of a task; `items` are its values in their order, where it is the mean of them."""

    value: float | None
    n: int | None
    items: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What one model scores; `tree` is what a file keeps of it."""

    measures: Mapping[Key, Measure]
    tree: Mapping[str, Any]

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> Self:
        """From the results of lm-eval as plain data."""
        samples: Mapping[str, list[Mapping[str, Any]]] = results.get("samples") or {}
        measures: dict[Key, Measure] = {}
        for task, metrics in {**results["results"], **(results.get("groups") or {})}.items():
            for key, value in metrics.items():
                metric, comma, chain = key.partition(",")
                if not comma or metric.endswith("_stderr") or not isinstance(value, int | float | None):
                    continue
                items = [sample.get(metric) for sample in samples.get(task, []) if sample["filter"] == chain]
                count = (results.get("n-samples") or {}).get(task, {}).get("effective")
                name = metric if chain == "none" else f"{metric} ({chain})"
                measures[task, name] = Measure(value, count, _means(items, value))
        values: dict[str, list[dict[str, Any]]] = {}
        for task, task_samples in samples.items():
            values[task] = [_plain(sample) for sample in task_samples]
        return cls(measures, {**{name: results[name] for name in _KEPT if name in results}, "items": values})


def _means(items: list[Any], value: float | None) -> tuple[float, ...] | None:
    """Values in [0, 1] of which the metric is the mean; None for any other metric."""
    shares = [float(score) for score in items if isinstance(score, bool | int | float) and 0 <= score <= 1]
    if value is None or not shares or len(shares) != len(items) or not math.isclose(fmean(shares), value, abs_tol=1e-9):
        return None
    return tuple(shares)


def _plain(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sample.get(name) for name in ("doc_id", "filter", *sample.get("metrics", ()))}


class Score(Plain):
    """Of an adapter, and what it has more than the base on the same items, with the ends of its interval."""

    value: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None


class EvaluationLine(Plain):
    """A metric of a task; `n` items."""

    task: str
    metric: str
    n: int | None
    base: float | None
    adapters: dict[str, Score]


class Evaluation(AnswerDocument):
    """The answer of `agentlab debate eval`."""

    base: str
    harness: str
    lines: list[EvaluationLine]
    files: list[str]

    @classmethod
    def of(cls, base: str, harness: str, evaluations: Mapping[str, Evaluated], files: Iterable[Path]) -> Self:
        """`evaluations` holds BASE and the adapters by name. All differences are one family."""
        base_measures = evaluations[BASE].measures
        adapters = {name: evaluated for name, evaluated in evaluations.items() if name != BASE}
        rivals: dict[tuple[Key, str], tuple[tuple[float, ...], tuple[float, ...]]] = {}
        for (key, base_measure), (name, adapter) in product(base_measures.items(), adapters.items()):
            base_items, adapter_items = base_measure.items, adapter.measures[key].items
            if base_items and adapter_items and len(adapter_items) == len(base_items):
                rivals[key, name] = (adapter_items, base_items)
        evidence = compare_family(rivals, np.random.default_rng(0))
        lines: list[EvaluationLine] = []
        for key, base_measure in base_measures.items():
            scores: dict[str, Score] = {}
            for name, adapter in adapters.items():
                scores[name] = _score(base_measure, adapter.measures[key], evidence.get((key, name)))
            task, metric = key
            line = EvaluationLine(task=task, metric=metric, n=base_measure.n, base=base_measure.value, adapters=scores)
            lines.append(line)
        return cls(base=base, harness=harness, lines=lines, files=[str(file) for file in files])

    def blocks(self) -> list[Block]:
        columns: dict[str, Any] = {
            "task": lambda line: line.task,
            "metric": lambda line: line.metric,
            "items": lambda line: line.n,
            BASE: lambda line: line.base,
        }
        names = list(self.lines[0].adapters) if self.lines else []
        for name in names:
            columns[name] = lambda line, name=name: line.adapters[name].value
            columns[f"{name} − {BASE}"] = lambda line, name=name: _difference_text(line.adapters[name])
        caption = f"{self.harness}; the base is {self.base}."
        if names:
            caption += " Differences are paired by item and tested exactly, Holm-corrected as one family."
        return [table(self.lines, columns, caption), Text(caption), Text(f"Written: {', '.join(self.files)}")]


def _score(base: Measure, adapter: Measure, evidence: Evidence | None) -> Score:
    if evidence is not None:
        evidence = evidence.clip(1.0)
        return Score(value=adapter.value, difference=evidence.estimate, low=evidence.low, high=evidence.high)
    has_both = adapter.value is not None and base.value is not None
    return Score(value=adapter.value, difference=adapter.value - base.value if has_both else None)  # type: ignore[operator] # known


def _difference_text(score: Score) -> str:
    if score.difference is None or score.low is None or score.high is None:
        return number(score.difference)
    return f"{score.difference:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"


def file_of(folder: Path, name: str) -> Path:
    """Where the figures of an adapter, or of the base, are kept."""
    return folder / f"{name.replace('/', '_')}_eval.json"


def write(folder: Path, base: str, evaluations: Mapping[str, Evaluated]) -> list[Path]:
    """`NAME_eval.json` for each, in place of what is there.

    Raises:
        StorageError: the folder cannot be written.
    """
    make_folder(folder)
    files = []
    for name, evaluated in evaluations.items():
        files.append(file_of(folder, name))
        write_json(files[-1], {"schema": 1, "agentlab": __version__, "name": name, "base": base, **evaluated.tree})
    return files


def unique_names(names: Iterable[str]) -> list[str]:
    """Names of adapters, each once.

    Raises:
        UsageError: one is called like the base is here.
    """
    adapter_names = list(dict.fromkeys(names))
    if BASE in adapter_names:
        raise UsageError(
            f"An adapter is named {BASE}, which is reserved for the base model.", hint="Give it another name."
        )
    return adapter_names


def local(
    adapters: Iterable[str], base: str | None, workspace: Workspace, importing: Callable[[str], object]
) -> tuple[Path, dict[str, Path]]:
    """The checkpoint of the base, and the folders of its adapters by name; see `cast_of` for the arguments.

    Raises:
        UsageError, MissingFileError: an adapter or its base is not there, or they do not belong together.
    """
    folders = [find(name, workspace) for name in dict.fromkeys(adapters)]
    folders_by_name = dict(zip(unique_names(folder.name for folder in folders), folders, strict=False))
    if len(folders_by_name) < len(folders):
        raise UsageError("Two adapters have the same name.", hint="Give one folder another name.")
    paths = {checkpoint_of(folder, base, workspace, importing) for folder in folders}
    if base is not None:
        paths.add(import_base(find_base(base, workspace)))
    if len(paths) != 1:
        raise UsageError(
            f"The adapters have different base models: {', '.join(sorted(path.name for path in paths))}.",
            hint="Evaluate the adapters of each base separately.",
        )
    return paths.pop(), folders_by_name
