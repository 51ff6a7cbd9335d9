"""What a config of personas may say, and where the base comes from."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError
from agentlab.models.base_model import find_base
from agentlab.persona.config import PersonaConfig
from agentlab.train.config import LoraConfig


def problems(**fields: object) -> dict[str, str]:
    return {".".join(key): sentence for key, sentence in PersonaConfig.model_validate(fields).problems()}


A = {"name": "a", "data": "a.jsonl"}


def test_somebody_has_to_be_trained() -> None:
    assert "--data FILE" in problems()["personas"]
    assert problems(personas=[A]) == {}


def test_names_are_folders_and_differ() -> None:
    assert "two personas are called a" in problems(personas=[A, A])["personas.1.name"]
    with pytest.raises(ValidationError):
        PersonaConfig.model_validate({"personas": [{**A, "name": "../up"}]})


def test_names_that_differ_by_case_are_one_folder_on_some_disks() -> None:
    assert "differ by more than case" in problems(personas=[A, {**A, "name": "A"}])["personas.1.name"]


@pytest.mark.parametrize("name", ["base", "Base"])
def test_no_persona_bears_the_name_that_tables_give_the_base_model(name: str) -> None:
    assert "base model" in problems(personas=[{**A, "name": name}])["personas.0.name"]
    assert problems(personas=[{**A, "name": f"{name}d"}]) == {}


def test_out_is_for_one() -> None:
    assert "single persona" in problems(personas=[A, {**A, "name": "b"}], out="x")["out"]


def test_patience_needs_something_to_be_patient_about() -> None:
    with pytest.raises(ValidationError, match="held-out"):
        PersonaConfig.model_validate({"training": {"patience": 2, "eval_fraction": 0}})


def test_alpha_is_twice_the_rank_unless_told() -> None:
    assert LoraConfig(r=8).scaled_alpha == 16
    assert LoraConfig(r=8, alpha=4).scaled_alpha == 4


def test_a_gguf_file_is_imported_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path / "cache")
    workspace.models.mkdir()
    (workspace.models / "small.gguf").write_bytes(b"")
    base = find_base("small", workspace)
    assert base.source == workspace.models / "small.gguf"
    assert base.path == workspace.models / "small-float32"
    (workspace.models / "small-float32").mkdir()
    (workspace.models / "small-float32" / "config.json").write_text("{}")
    assert find_base("small", workspace).source is None


def test_a_checkpoint_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert find_base("./mine", Workspace(tmp_path, tmp_path)).path == tmp_path / "mine"
    with pytest.raises(AgentlabError):
        find_base("./absent", Workspace(tmp_path, tmp_path))
