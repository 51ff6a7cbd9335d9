"""The answers of `agentlab configs`."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentlab.commands import COMMANDS
from agentlab.config.base import flatten
from agentlab.config.overrides import parse
from agentlab.config.workspace import Workspace
from agentlab.config.yaml_tree import read_yaml
from agentlab.errors import ConfigError, UnknownNameError, UsageError
from agentlab.runs.context import Context
from agentlab.scaffold import configs
from agentlab.scaffold.init import MODELS, PIPELINE

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TREES = st.dictionaries(
    TEXT.filter(lambda key: key != "<<"),
    st.recursive(
        st.none() | st.integers() | TEXT,
        lambda t: st.lists(t, max_size=2) | st.dictionaries(st.text("ab.", min_size=1), t, max_size=2),
        max_leaves=6,
    ),
    max_size=4,
)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(workspace=Workspace(root=tmp_path, cache=tmp_path), env={})


@given(TREES)
def test_comments_do_not_change_the_config(tree: dict[str, Any]) -> None:
    origins = dict.fromkeys(flatten(tree), "configs/x.yaml:1:1")
    assert read_yaml(configs.annotate_config(tree, origins), "x").data == tree


def test_each_value_is_followed_by_its_origin() -> None:
    yaml_text = configs.annotate_config({"a": {"b": 1}, "c": [1, 2]}, {"a.b": "--set", "c": "f.yaml:3:1"})
    lines = [line.split("  # ") for line in yaml_text.splitlines()]
    assert [(first.rstrip(), *rest) for first, *rest in lines] == [
        ("a:",), ("  b: 1", "--set"), ("c:", "f.yaml:3:1"), ("- 1",), ("- 2",)
    ]  # fmt: skip


def test_every_command_and_llm_has_presets(context: Context) -> None:
    listed = configs.list_presets(None, context).presets
    assert {p.kind for p in listed} == {*COMMANDS, "llm"}
    assert listed[0].name == "default"
    assert {p.kind for p in configs.list_presets("llm", context).presets} == {"llm"}
    with pytest.raises(UnknownNameError, match="no command named 'nsa'"):
        configs.list_presets("nsa", context)


def test_what_is_shown_can_be_saved_and_shown_again(context: Context) -> None:
    original = configs.show("nas", "demo", [parse("seed=3")], context, context.workspace.root)
    assert original.origins["seed"] == "--set"
    (context.workspace.root / "mine.yaml").write_text(configs.annotate_config(original.config, original.origins))
    reloaded = configs.show("nas", "mine.yaml", (), context, context.workspace.root)
    assert reloaded.config == original.config


def test_a_model_setup_is_shown_too(context: Context) -> None:
    assert configs.show("llm", None, (), context, context.workspace.root).source == "configs/llm/embedded.yaml"


def test_all_presets_are_valid(context: Context) -> None:
    valid = configs.validate((), None, context, context.workspace.root).valid
    assert "nas/default" in valid
    assert "llm/embedded" in valid


def test_every_problem_of_every_file_is_listed(context: Context) -> None:
    folder = context.workspace.configs / "nas"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("extends: default\nsed: 1\n")
    (folder / "b.yaml").write_text("extends: default\nseed: [\n")
    with pytest.raises(ConfigError) as caught:
        configs.validate(["configs/nas/a.yaml", "configs/nas/b.yaml"], None, context, context.workspace.root)
    first, second = caught.value.message.split("\n")
    assert first == "configs/nas/a.yaml:2:1: sed: unknown key; did you mean seed?"
    assert second.startswith("configs/nas/b.yaml:3:1: ")


def test_a_file_somewhere_needs_a_command(context: Context) -> None:
    (context.workspace.root / "x.yaml").write_text("extends: default\n")
    with pytest.raises(UsageError, match=r"not clear which command x\.yaml is for"):
        configs.validate(["x.yaml"], None, context, context.workspace.root)
    assert configs.validate(["x.yaml"], "nas", context, context.workspace.root).valid == ["x.yaml"]


@pytest.mark.parametrize("kind", configs.kinds())
def test_a_schema_allows_partial_files_and_names_of_presets(kind: str) -> None:
    schema = configs.schema(kind).json_schema
    assert schema["properties"]["extends"]["type"] == "string"
    assert '"required"' not in configs.schema(kind).blocks()[0].text  # type: ignore[union-attr]
    if "llm" in schema["properties"]:
        assert {"type": "string"} in schema["properties"]["llm"]["anyOf"]


def test_both_files_of_a_pipeline_fit_its_schema_in_every_spelling() -> None:
    schema = configs.schema("pipeline").json_schema
    assert schema["properties"]["models_file"]["type"] == "string"
    fits = Draft202012Validator(schema)
    for text in (MODELS, PIPELINE, PIPELINE.replace("method: vote", "method: concat")):
        tree = read_yaml(text, "x").data
        assert fits.is_valid(tree) == ("method: concat" not in text)  # concat has no `extract`
    tree = {"manual_pipeline": {"stages": [{"id": "a", "models": ["m", "n"], "aggregation": "concat"}]}}
    assert fits.is_valid(tree)
    assert not fits.is_valid({"model_file": "models.yaml"})
