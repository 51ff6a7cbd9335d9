"""What `pipeline validate` says of a config without errors."""

from pathlib import Path

from agentlab.config.load import load
from agentlab.config.workspace import Workspace
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.validation import Validated, context_remarks, validate
from agentlab.runs.document import Table, Text
from tests.unit.pipeline.tiny_model import write_model

TEXT = """\
models:
  unused: {file: u.gguf}
  small: {file: small.gguf}
  large: {file: large.gguf}
  referee: {file: referee.gguf}
base_pipeline:
  stages:
  - {id: draft, model: small}
  - {id: check, model: large, input_from: [input, draft], repeat_until: {condition: "'OK' in output", start: draft}}
manual_pipeline:
  stages:
  - {id: samples, models: [small, large], samples: 2, temperature: 1, aggregation: concat}
  - {id: judged, model: small, samples: 3, temperature: 0, aggregation: {method: judge, model: referee}}
"""


def checked(root: Path) -> Validated:
    (root / "p.yaml").write_text(TEXT)
    workspace = Workspace(root=root, cache=root)
    config = load(PipelineConfig, "pipeline", "p.yaml", (), workspace=workspace, env={}, cwd=root).config
    return validate(config, workspace, {})


def test_the_stages_of_both_modes_are_shown_as_they_were_understood(tmp_path: Path) -> None:
    lines = {line.stage: line for line in checked(tmp_path).stages}
    assert list(lines) == ["draft", "check", "samples", "judged"]
    assert (lines["draft"].mode, lines["draft"].reads, lines["draft"].visits) == ("base", ["input"], 3)
    assert lines["check"].reads == ["input", "draft"]
    assert (lines["samples"].mode, lines["samples"].answers, lines["samples"].aggregation) == ("manual", 4, "concat")


def test_models_that_are_not_there_are_a_warning(tmp_path: Path) -> None:
    validation = checked(tmp_path)
    assert validation.models == ["small", "large", "referee"]
    assert [line.split(": ")[0] for line in validation.warnings] == [
        "models.unused",
        "models.small",
        "models.large",
        "models.referee",
    ]


def test_what_is_hardly_meant_is_remarked_on(tmp_path: Path) -> None:
    """Three samples at temperature 0 are one."""
    assert any(line.startswith("judged: ") for line in checked(tmp_path).remarks)
    assert not any(line.startswith("samples: ") for line in checked(tmp_path).remarks)


def test_it_reads_as_a_sentence_a_table_and_what_may_go_wrong(tmp_path: Path) -> None:
    validation = checked(tmp_path)
    sentence, table, *rest = validation.blocks()
    assert sentence == Text("The pipeline is valid: 4 stages using small, large, referee.")
    assert isinstance(table, Table)
    assert len(table.rows) == 4
    assert rest == [Text(line) for line in (*validation.remarks, *validation.warnings)]


def test_a_context_beyond_what_a_model_was_trained_with_is_remarked_on(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "small.gguf")  # was trained with 64 tokens
    assert [line for line in checked(tmp_path).remarks if line.startswith("models.")] == [
        "models.small: n_ctx 2048 exceeds the model's training context of 64 tokens; "
        "answers to longer prompts will be poor"
    ]


def test_a_context_that_fits_or_that_nobody_knows_is_fine(tmp_path: Path) -> None:
    config = PipelineConfig.model_validate({"models": {"m": {"file": "m.gguf"}}})
    assert context_remarks(config, {"m": 2048}) == []
    assert context_remarks(config, {"m": 0}) == []
