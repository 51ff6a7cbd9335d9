"""`models.yaml` and `pipeline.yaml` as they are read: what is understood, and how mistakes are told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agentlab.config.load import LoadedConfig, dump_yaml, load, load_resolved
from agentlab.config.overrides import Override, parse
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError
from agentlab.pipeline.aggregation.judge import Judge
from agentlab.pipeline.aggregation.pick import Custom
from agentlab.pipeline.aggregation.vote import Vote
from agentlab.pipeline.config import PipelineConfig

MODELS = """\
models_directory: models
defaults: {n_ctx: 1024}
models:
  small: {file: small.gguf, quantization: Q4_K_M, required_for_base: true, overrides: {temperature: 0.1}}
  other: {file: other.gguf}
"""
PIPELINE = """\
models_file: models.yaml
base_pipeline:
  stages:
    - id: draft
      model: small
      temperature: 0.7
    - id: vote
      models: [small, other]
      aggregation:
        method: vote
        extract: {kind: number}
    - id: all
      models: [small, small]
      aggregation: concat
"""

Read = Callable[..., LoadedConfig[PipelineConfig]]
Complaints = Callable[..., list[str]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def call(pipeline: str = PIPELINE, *changes: str | Override, models: str = MODELS) -> LoadedConfig[PipelineConfig]:
        (tmp_path / "models.yaml").write_text(models)
        (tmp_path / "pipeline.yaml").write_text(pipeline)
        workspace = Workspace(root=tmp_path, cache=tmp_path)
        overrides = [parse(change) if isinstance(change, str) else change for change in changes]
        return load(PipelineConfig, "pipeline", "pipeline.yaml", overrides, workspace=workspace, env={}, cwd=tmp_path)

    return call


@pytest.fixture
def complaints(read: Read) -> Complaints:
    def call(*arguments: str | Override, **texts: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(*arguments, **texts)
        return caught.value.message.split("\n")

    return call


def test_two_files_are_one_config(read: Read, tmp_path: Path) -> None:
    loaded = read()
    assert (loaded.config.models["small"].quantization, loaded.config.defaults.n_ctx) == ("Q4_K_M", 1024)
    assert [stage.id for stage in loaded.config.stages] == ["draft", "vote", "all"]
    assert loaded.origins["models.small.file"] == "models.yaml:4:11"
    (tmp_path / "config.yaml").write_text(dump_yaml(loaded.config))
    assert load_resolved(PipelineConfig, tmp_path / "config.yaml", (), env={}) == loaded.config


def test_models_from_outside_take_the_place_of_the_file_that_is_named(read: Read, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("models: {small: {file: mine.gguf}, other: {file: b.gguf}}\n")
    config = read(
        PIPELINE.replace("models.yaml", "nowhere.yaml"), Override("models_file", "mine.yaml", "--models")
    ).config
    assert (config.models["small"].file, config.defaults.n_ctx) == ("mine.gguf", None)


def test_stages_are_changed_by_their_ids(read: Read) -> None:
    changed = read(
        PIPELINE, "base_pipeline.stages.draft.temperature=0.2", "base_pipeline.stages.vote.aggregation.ties=abstain"
    )
    draft, vote, _ = changed.config.stages
    assert draft.temperature == 0.2
    assert isinstance(vote.aggregation, Vote)
    assert vote.aggregation.ties == "abstain"


@pytest.mark.parametrize(
    ("short", "kind"), [("{method: judge, model: small}", Judge), ("'{{ candidates[0].output }}'", Custom)]
)
def test_an_aggregation_may_be_a_mapping_or_a_template(read: Read, short: str, kind: type) -> None:
    config = read(PIPELINE, f"base_pipeline.stages.all.aggregation={short}").config
    assert isinstance(config.stages[2].aggregation, kind)


@pytest.mark.parametrize(
    ("right", "wrong", "position", "problem"),
    [
        ("method: vote", "method: votes", "10:9", "1.aggregation.method: unknown method 'votes'; did you mean vote?"),
        ("extract: {k", "extrakt: {k", "11:9", "1.aggregation.extrakt: unknown key; did you mean extract?"),
        (
            "kind: number",
            "kind: numbre",
            "11:19",
            "1.aggregation.extract.kind: must be 'number', 'letter', 'label' or 'short', not 'numbre'",
        ),
        ("concat", "conkat", "14:7", "2.aggregation: unknown method 'conkat'; did you mean concat?"),
        ("concat", "judge", "14:7", "2.aggregation.model: is required"),
        ("temperature", "temprature", "6:7", "0.temprature: unknown key; did you mean temperature?"),
        ("[small, small]", "small", "13:7", "2.models: must be a list, not 'small'"),
    ],
)
def test_a_mistake_in_a_stage_is_told_with_its_place(
    complaints: Complaints, right: str, wrong: str, position: str, problem: str
) -> None:
    assert complaints(PIPELINE.replace(right, wrong)) == [f"pipeline.yaml:{position}: base_pipeline.stages.{problem}"]


def test_a_mistake_in_the_other_file_is_told_with_that_file(complaints: Complaints) -> None:
    assert complaints(models=MODELS.replace("file: other", "flie: other")) == [
        "models.yaml:5:11: models.other.flie: unknown key; did you mean file?",
    ]
    assert complaints(PIPELINE.replace("models_file", "model_file"))[-1] == (
        "pipeline.yaml:1:1: model_file: unknown key; did you mean models_file?"
    )


def test_a_change_that_does_not_fit_is_told_with_what_is_left_of_the_file(complaints: Complaints) -> None:
    assert complaints(PIPELINE, "base_pipeline.stages.vote.aggregation.method=judge") == [
        "pipeline.yaml:9:7: base_pipeline.stages.1.aggregation.model: is required",
        "pipeline.yaml:11:9: base_pipeline.stages.1.aggregation.extract: unknown key; known: method, model, mode, "
        "criteria",
    ]
    assert complaints(PIPELINE, "base_pipeline.stages.drafts.temperature=1") == [
        "--set: base_pipeline.stages.drafts.temperature: base_pipeline.stages has no element 'drafts'; "
        "known: draft, vote, all."
    ]


def test_what_is_wrong_between_the_parts_is_told_at_once(complaints: Complaints) -> None:
    problems = complaints(PIPELINE.replace("model: small", "model: smal\n      input_from: drafd"))
    assert {tuple(line.split(": ")[:2]) for line in problems} == {
        ("pipeline.yaml:5:7", "base_pipeline.stages.0.model"),
        ("pipeline.yaml:6:7", "base_pipeline.stages.0.input_from"),
    }
