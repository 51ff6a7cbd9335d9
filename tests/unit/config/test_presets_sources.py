"""Configs in two files: a key that names the other one, and what is wrong between the parts of the whole."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field

from agentlab.config.base import StrictModel
from agentlab.config.keys import Key
from agentlab.config.load import LoadedConfig, dump_yaml, load, load_resolved
from agentlab.config.overrides import Override, parse
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError

Errors = Callable[..., list[str]]


class Part(StrictModel):
    size: int = 1


class Kitchen(StrictModel):
    """`parts` may lie in a file of their own; every step needs its part."""

    includes: ClassVar[tuple[str, ...]] = ("parts_file",)

    seed: int = 0
    parts: dict[str, Part] = Field(default_factory=dict)
    steps: tuple[str, ...] = ()

    def problems(self) -> Iterator[tuple[Key, str]]:
        for index, step in enumerate(self.steps):
            if step not in self.parts:
                yield ("steps", str(index)), f"there is no part {step}"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("agentlab.config.presets.shipped_folder", lambda: tmp_path / "shipped")
    (tmp_path / "sub").mkdir()
    return tmp_path


Cook = Callable[..., LoadedConfig[Kitchen]]


@pytest.fixture
def cook(root: Path) -> Cook:
    def call(ref: str, *overrides: Override, cwd: Path | None = None) -> LoadedConfig[Kitchen]:
        workspace = Workspace(root=root, cache=root)
        return load(Kitchen, "kitchen", ref, overrides, workspace=workspace, env={}, cwd=cwd or root)

    return call


@pytest.fixture
def errors(cook: Cook) -> Errors:
    def call(*arguments: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            cook(*arguments)
        return caught.value.message.split("\n")

    return call


# -- the other file -------------------------------------------------------------------------------------------------


def test_the_other_file_lies_under_the_one_that_names_it(cook: Cook, root: Path) -> None:
    (root / "parts.yaml").write_text("seed: 1\nparts:\n  pan: {size: 3}\n  pot: {size: 4}\n")
    (root / "steps.yaml").write_text("parts_file: parts.yaml\nparts: {pot: {size: 9}}\nsteps: [pan, pot]\n")
    loaded = cook("steps.yaml")
    config = loaded.config
    assert (config.seed, config.parts["pan"].size, config.parts["pot"].size) == (1, 3, 9)
    assert (loaded.origins["parts.pan.size"], loaded.origins["parts.pot.size"]) == (
        "parts.yaml:3:9",
        "steps.yaml:2:15",
    )
    assert "parts_file" not in dump_yaml(config)


def test_it_lies_over_what_the_file_extends(cook: Cook, root: Path) -> None:
    (root / "base.yaml").write_text("seed: 1\nparts: {pan: {size: 2}}\n")
    (root / "parts.yaml").write_text("parts: {pan: {size: 3}}\n")
    (root / "steps.yaml").write_text("extends: ./base.yaml\nparts_file: parts.yaml\n")
    assert (cook("steps.yaml").config.seed, cook("steps.yaml").config.parts["pan"].size) == (1, 3)


def test_its_path_starts_at_the_workspace_or_else_beside_the_file(cook: Cook, errors: Errors, root: Path) -> None:
    (root / "sub" / "steps.yaml").write_text("parts_file: parts.yaml\n")
    (root / "sub" / "parts.yaml").write_text("seed: 2\nstep: 3\n")
    assert errors("sub/steps.yaml") == ["sub/parts.yaml:2:1: step: unknown key; did you mean steps?"]
    (root / "parts.yaml").write_text("seed: 1\n")
    assert cook("sub/steps.yaml").config.seed == 1


def test_a_file_that_is_not_there_is_told_with_the_line_that_names_it(cook: Cook, errors: Errors, root: Path) -> None:
    (root / "steps.yaml").write_text("seed: 1\nparts_file: nowhere.yaml\n")
    assert errors("steps.yaml") == ["steps.yaml:2:1: parts_file: there is no file nowhere.yaml."]
    (root / "steps.yaml").write_text("parts_file: [a, b]\n")
    assert errors("steps.yaml") == ["steps.yaml:1:1: parts_file: must be the path of a YAML file."]
    (root / "steps.yaml").write_text("parts_file: null\n")
    assert cook("steps.yaml").config == Kitchen()


def test_two_files_that_name_each_other_are_a_circle(errors: Errors, root: Path) -> None:
    (root / "a.yaml").write_text("parts_file: b.yaml\n")
    (root / "b.yaml").write_text("\nparts_file: ./sub/../a.yaml\n")
    assert errors("a.yaml") == ["b.yaml:2:1: parts_file: a.yaml -> b.yaml -> ./sub/../a.yaml is a cycle."]


def test_a_misspelt_key_of_the_other_file_comes_with_its_name(errors: Errors, root: Path) -> None:
    (root / "parts.yaml").write_text("parts:\n  pan:\n    sise: 3\n")
    (root / "steps.yaml").write_text("parts_file: parts.yaml\nstep: [pan]\n")
    assert errors("steps.yaml") == [
        "parts.yaml:3:5: parts.pan.sise: unknown key; did you mean size?",
        "steps.yaml:2:1: step: unknown key; did you mean steps?",
    ]
    (root / "steps.yaml").write_text("part_file: parts.yaml\n")
    assert errors("steps.yaml") == ["steps.yaml:1:1: part_file: unknown key; did you mean parts_file?"]


def test_a_file_given_from_outside_replaces_the_one_that_is_named_and_wins(cook: Cook, root: Path) -> None:
    (root / "steps.yaml").write_text("parts_file: nowhere.yaml\nparts: {pan: {size: 1}, pot: {size: 1}}\n")
    (root / "sub" / "mine.yaml").write_text("parts: {pan: {size: 7}}\n")
    override = Override("parts_file", "mine.yaml", "--parts")
    loaded = cook("../steps.yaml", override, parse("parts.pot.size=5"), cwd=root / "sub")
    assert {name: part.size for name, part in loaded.config.parts.items()} == {"pan": 7, "pot": 5}
    assert loaded.origins["parts.pan.size"] == "mine.yaml:1:15"
    assert cook("steps.yaml", parse("parts_file=null")).config.parts["pan"].size == 1


def test_what_is_wrong_with_a_file_given_from_outside(errors: Errors, root: Path) -> None:
    (root / "steps.yaml").write_text("seed: x\n")
    assert errors("steps.yaml", parse("parts_file=3"), parse("parts_file=./nowhere.yaml")) == [
        "--set: parts_file: must be the path of a YAML file, not 3",
        "--set: parts_file: there is no file ./nowhere.yaml",
        "steps.yaml:1:1: seed: must be a whole number, not 'x'",
    ]


def test_a_run_keeps_the_files_it_started_with(root: Path) -> None:
    path = root / "config.yaml"
    path.write_text(dump_yaml(Kitchen()))
    with pytest.raises(ConfigError, match=r"^--parts: parts_file: a run keeps the files it started with$"):
        load_resolved(Kitchen, path, [Override("parts_file", "mine.yaml", "--parts")], env={})


# -- what is wrong between the parts ------------------------------------------------------------------------------


def test_problems_between_the_parts_come_at_once_with_their_places(errors: Errors, root: Path) -> None:
    (root / "steps.yaml").write_text("parts: {pan: {}}\nsteps:\n- pan\n- pot\n-   lid\n")
    assert errors("steps.yaml") == [
        "steps.yaml:4:3: steps.1: there is no part pot",
        "steps.yaml:5:5: steps.2: there is no part lid",
    ]
    assert errors("steps.yaml", parse("steps=[pot]")) == ["--set: steps.0: there is no part pot"]


def test_they_are_looked_for_in_a_run_of_its_own_too(root: Path) -> None:
    path = root / "config.yaml"
    path.write_text(dump_yaml(Kitchen()))
    with pytest.raises(ConfigError, match=r"^--set: steps\.0: there is no part pot$"):
        load_resolved(Kitchen, path, [parse("steps=[pot]")], env={})
    path.write_text("steps: [pot]\n")
    with pytest.raises(ConfigError, match=r"^config\.yaml:1:9: steps\.0: there is no part pot$"):
        load_resolved(Kitchen, path, [], env={})
