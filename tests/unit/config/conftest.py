"""A workspace with presets, and a function that loads them with a small model."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Discriminator, Field, RootModel, model_validator

from agentlab.config.base import EnvText, SecretRef, StrictModel, budget_field, machine_field, preset_field
from agentlab.config.load import LoadedConfig, load
from agentlab.config.overrides import parse
from agentlab.config.workspace import Workspace


class Optimizer(StrictModel):
    name: Literal["Adam", "SGD"] = "Adam"
    lr: float = Field(1e-3, gt=0, le=1)
    clip: float | None = None


class Training(StrictModel):
    epochs: int = Field(3, ge=1)
    optimizer: Optimizer = Optimizer()


class File(StrictModel):
    kind: Literal["file"]
    path: str


class Remote(StrictModel):
    kind: Literal["remote"]
    url: EnvText
    api_key: SecretRef | None = None


class Llm(StrictModel):
    providers: dict[str, Annotated[File | Remote, Discriminator("kind")]] = Field(default_factory=dict)
    max_usd: float = budget_field(1.0, ge=0)


class Stage(StrictModel):
    id: str
    temperature: float = 0.0
    llm: Llm | None = preset_field("llm", None)


class Range(StrictModel):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


class Choices(StrictModel):
    choices: list[int | str]


class Space(RootModel[dict[str, Range | Choices]]):
    root: dict[str, Range | Choices] = Field(default_factory=dict)


class Lab(StrictModel):
    seed: int = 0
    rounds: int = budget_field(5, ge=1)
    threads: int | None = machine_field(None)
    training: Training = Training()
    stages: tuple[Stage, ...] = ()
    space: Space = Space({})
    notes: dict[str, Any] = Field(default_factory=dict)
    llm: Llm = preset_field("llm", "embedded")


PRESETS = {
    "lab/default.yaml": "# Small and quick.\nseed: 1\ntraining:\n  epochs: 2\n  optimizer: {lr: 0.01}\n",
    "lab/long.yaml": "# Longer.\nextends: default\ntraining:\n  epochs: 20\n",
    "llm/embedded.yaml": "# Here.\nproviders:\n  here: {kind: file, path: a.gguf}\n",
    "llm/remote.yaml": "providers:\n  far:\n    kind: remote\n    url: ${FAR_BASE_URL:-https://a.org}\n"
    "    api_key: ${KEY}\n",
    "llm/none.yaml": "# Nobody.\nproviders: {}\n",
}


@pytest.fixture
def own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with the presets above, and nothing shipped."""
    monkeypatch.setattr("agentlab.config.presets.shipped_folder", lambda: tmp_path / "shipped")
    for name, text in PRESETS.items():
        write(tmp_path / "configs" / name, text)
    return Workspace(root=tmp_path, cache=tmp_path / "cache")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


Lay = Callable[..., LoadedConfig[Lab]]


@pytest.fixture
def lay(own_workspace: Workspace) -> Lay:
    """`lay("long", "seed=3", env={...})` loads like `agentlab lab long --set seed=3`."""

    def call(ref: str | None = None, *sets: str, env: dict[str, str] | None = None) -> LoadedConfig[Lab]:
        overrides = [parse(text) for text in sets]
        return load(Lab, "lab", ref, overrides, workspace=own_workspace, env=env or {}, cwd=own_workspace.root)

    return call
