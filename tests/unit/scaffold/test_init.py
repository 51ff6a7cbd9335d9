"""A new workspace has everything a user needs, and nothing of theirs is overwritten."""

import re
from pathlib import Path

import pytest

from agentlab.commands import COMMANDS
from agentlab.config.load import LoadedConfig, load
from agentlab.config.presets import shipped_folder
from agentlab.config.workspace import Workspace
from agentlab.errors import StorageError
from agentlab.models import catalogue
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.validation import lint
from agentlab.runs.document import Code, Text
from agentlab.scaffold.init import DATA_FOLDERS, ENV_EXAMPLE, IGNORE_RULES, init


def contents(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file()}


def test_an_empty_folder_becomes_a_workspace(tmp_path: Path) -> None:
    result = init(tmp_path / "lab")
    files = contents(tmp_path / "lab")
    assert sorted(result.created) == sorted(files)
    assert result.kept == result.missing_ignore_rules == []
    assert {f"{name}/.gitkeep" for name in DATA_FOLDERS} <= set(files)


def test_every_command_gets_an_example_that_loads_as_it_is(tmp_path: Path) -> None:
    init(tmp_path)
    workspace = Workspace(root=tmp_path, cache=tmp_path)
    assert COMMANDS
    for name, command in COMMANDS.items():
        example, shipped = (
            load(command.config_model(), name, preset, (), workspace=workspace, env={}, cwd=tmp_path).config
            for preset in ("example", "default")
        )
        assert example == shipped


def pipeline(root: Path) -> LoadedConfig[PipelineConfig]:
    workspace = Workspace(root=root, cache=root)
    return load(PipelineConfig, "pipeline", "pipeline.yaml", (), workspace=workspace, env={}, cwd=root)


def test_the_pipeline_of_two_files_asks_the_embedded_model(tmp_path: Path) -> None:
    init(tmp_path)
    loaded = pipeline(tmp_path)
    config = loaded.config
    assert config.models["small"].file == catalogue.lookup(catalogue.EMBEDDED).file
    assert loaded.origins["models.small.file"].startswith("models.yaml:")
    assert [stage.id for stage in config.stages] == ["draft", "critique", "final"]
    assert config.manual_pipeline is not None
    assert [stage.samples for stage in config.manual_pipeline.stages] == [3]
    for stages in (config.stages, config.manual_pipeline.stages):
        assert lint(stages, lambda stage: stage.temperature or 0) == []


def test_pipeline_files_of_ones_own_are_kept(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("mine\n")
    assert "models.yaml" in init(tmp_path).kept
    assert (tmp_path / "models.yaml").read_text() == "mine\n"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("/.env\n*.pyc\n")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".gitkeep").symlink_to("nowhere")
    result = init(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "/.env\n*.pyc\n"
    assert sorted(result.kept) == [".gitignore", "runs/.gitkeep"]
    assert result.missing_ignore_rules == [rule for rule in IGNORE_RULES if rule != "/.env"]
    before = contents(tmp_path)
    second_result = init(tmp_path)
    assert second_result.created == []
    assert contents(tmp_path) == before


def test_every_variable_that_a_shipped_config_names_is_in_the_example() -> None:
    named = set()
    for path in shipped_folder().glob("*/*.yaml"):
        named |= set(re.findall(r"\$\{([A-Z_]+)", path.read_text()))
    assert named
    assert named <= set(re.findall(r"^# ([A-Z_]+)=", ENV_EXAMPLE, re.MULTILINE))


def test_the_example_sets_nothing_by_itself() -> None:
    assert all(line.startswith("#") for line in ENV_EXAMPLE.splitlines() if line)


def test_every_ignore_rule_is_anchored() -> None:
    assert all(rule.startswith(("/", "!/")) for rule in IGNORE_RULES)


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "lab").write_text("a file")
    with pytest.raises(StorageError):
        init(tmp_path / "lab")


def test_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("")
    blocks = init(tmp_path).blocks()
    assert any(isinstance(b, Text) and "1 already existed" in b.text for b in blocks)
    assert blocks[-1] == Code("\n".join(IGNORE_RULES))
