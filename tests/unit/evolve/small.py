"""A random two-layer Llama with two adapters of it, short questions, and answers by a rule instead of a model."""

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.answers.choices import Scored
from agentlab.config.workspace import Workspace
from agentlab.evolve.config import EvolveConfig
from agentlab.evolve.run import EvolveExperiment, prepare
from agentlab.runs.context import Context
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from tests.unit.debate.test_local_agents import made


def workspace(root: Path) -> Path:
    """With base, adapters and `quiz.jsonl` in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions on tiny models
        made("Llama", root)
    lines = [
        {"id": f"{kind}-{n}", "question": f"{kind} {n}?", "choices": ["red", "green", "blue"], "answer": "green"}
        for n in range(20)
        for kind in ("hue", "mood")
    ]
    (root / "quiz.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return root


SMALL: dict[str, Any] = {
    "base": "Llama",
    "parents": ["one", "two"],
    "tasks": {"file": "quiz.jsonl", "train": 16, "test": 24},
    "population": 6,
    "race": {"first": 8},
    "max_items": 200,
    "threads": 1,
}


def prepared(root: Path, resumes: Path | None = None, **changes: Any) -> EvolveExperiment:
    config = EvolveConfig.model_validate({**SMALL, **changes})
    return prepare(config, Context(Workspace(root, root), {}, resumed_run=resumes))


def new_run(root: Path, name: str = "run") -> OpenRun:
    return OpenRun.create(root / "runs", RunSpec("evolve", "", "", "h", 0, name=name), RunEnvironment())


class Planted:
    """Children are the better, the nearer their weights are to a planted point; every question has its own scatter."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, children: Sequence[Any], questions: Sequence[Any]) -> list[list[Scored]]:
        self.asked.append(len(children) * len(questions))
        return [[self._scored(child, question) for question in questions] for child in children]

    def _scored(self, child: Any, question: Any) -> Scored:
        chances = self._chances(child, question)
        return Scored(tuple(map(math.log, chances)), (1,) * len(chances), tuple(map(len, question.choices)))

    def _chances(self, child: Any, question: Any) -> list[float]:
        weights = np.array(list(child.params.values()), dtype=float)
        far = float(np.abs(weights - 0.4).mean())
        noise = np.random.default_rng([sum(map(ord, question.id)), int(1e4 * weights.sum())]).normal()
        far += 2 * (0.6 < weights[0] < 1)  # as no parent is
        right = 1 / (1 + np.exp(6 * far - 1.5 + noise / 2))
        return [(1 - right) / 2, right, (1 - right) / 2]


class Scripted(EvolveExperiment):
    """The experiment without a model."""

    @contextmanager
    def _answers(self, run: OpenRun) -> Iterator[Planted]:  # type: ignore[override]
        yield Planted()


def scripted(root: Path, **changes: Any) -> Scripted:
    real = prepared(root, **changes)
    return Scripted(real.config, real.context, real.base, real.parents, real.genome, real.questions)
