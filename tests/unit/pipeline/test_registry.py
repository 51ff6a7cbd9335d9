"""Which models of a pipeline can be used, and what is said of the others before work starts."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlab.config.load import load
from agentlab.config.workspace import Workspace
from agentlab.errors import (
    AgentlabError,
    MissingError,
    MissingFileError,
    MissingKeyError,
    ModelFileError,
    UntrustedHostError,
)
from agentlab.models import catalogue
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.registry import Availability, RegistryView, asked_models, available, require
from agentlab.runs.document import Table, Text
from tests.unit.pipeline.tiny_model import write_model

LLM = """\
llm:
  providers:
    far: {kind: openai_compat, base_url: https://example.org/v1, api_key: "${FAR_API_KEY}"}
    fake: {kind: scripted}
  models: {big: {provider: far, id: x/big}, toy: {provider: fake, id: toy}}
  roles: {primary: [big, toy]}
"""


def registry(setup: PipelineConfig, own_workspace: Workspace, env: dict[str, str]) -> dict[str, Availability]:
    return available(setup.models, setup, own_workspace, env)


@pytest.fixture
def own_workspace(tmp_path: Path) -> Workspace:
    write_model(tmp_path / "models" / "good.gguf")
    return Workspace(root=tmp_path, cache=tmp_path / "cache")


Config = Callable[..., PipelineConfig]


@pytest.fixture
def config(own_workspace: Workspace) -> Config:
    """`config("m: {file: good.gguf}")`: these models, of which one stage asks `m`; `more` are further lines."""

    def call(*models: str, asks: str = "model: m", more: str = "") -> PipelineConfig:
        listed = "".join(f"  {line}\n" for line in models)
        text = f"models:\n{listed}base_pipeline: {{stages: [{{id: a, {asks}}}]}}\n{more}"
        (own_workspace.root / "p.yaml").write_text(text)
        return load(
            PipelineConfig, "pipeline", "p.yaml", (), workspace=own_workspace, env={}, cwd=own_workspace.root
        ).config

    return call


@pytest.fixture
def error(config: Config, own_workspace: Workspace) -> Callable[..., AgentlabError | None]:
    """What is wrong with the model `m` of this file."""

    def call(file: Any, more: str = "", **settings: str) -> AgentlabError | None:
        entry = ", ".join(f"{key}: {value}" for key, value in {"file": file, **settings}.items())
        models = registry(config(f"m: {{{entry}}}", more=more), own_workspace, {})
        return models["m"].error

    return call


def test_a_usable_model_is_known_by_its_file(config: Config, own_workspace: Workspace) -> None:
    model = registry(config("m: {file: good.gguf, quantization: Q8_0}"), own_workspace, {})["m"]
    assert (model.path, model.problem, model.wanted) == (own_workspace.models / "good.gguf", None, True)
    assert model.metadata is not None
    assert (model.metadata.quantisation, model.metadata.context_length) == ("Q8_0", 64)


# -- where files are looked up ------------------------------------------------------------------------------------


def test_a_name_is_a_file_of_the_models_directory_and_a_path_starts_at_the_workspace(
    error: Callable[..., Any], own_workspace: Workspace
) -> None:
    write_model(own_workspace.root / "elsewhere" / "far.gguf")
    assert error("elsewhere/far.gguf") is None
    assert error(str(own_workspace.root / "elsewhere" / "far.gguf")) is None
    assert error("far.gguf", more="models_directory: elsewhere\n") is None
    assert isinstance(error("far.gguf"), MissingFileError)
    assert isinstance(error("good.gguf", more="models_directory: elsewhere\n"), MissingFileError)


def test_the_workspaces_own_folder_knows_the_cache_and_the_catalogue_too(
    error: Callable[..., Any], own_workspace: Workspace
) -> None:
    write_model(own_workspace.cache / "models" / "shared.gguf")
    write_model(own_workspace.models / catalogue.lookup(catalogue.EMBEDDED).file)
    assert error("shared.gguf") is None
    assert error("shared") is None
    assert error(catalogue.EMBEDDED) is None
    assert isinstance(error("shared.gguf", more="models_directory: ./elsewhere\n"), MissingFileError)


def test_a_file_that_is_not_there_comes_with_the_way_to_get_it(
    error: Callable[..., Any], own_workspace: Workspace
) -> None:
    pulled = error(catalogue.EMBEDDED)
    assert isinstance(pulled, MissingFileError)
    assert pulled.hint == f"Get it with `agentlab models pull {catalogue.EMBEDDED}`."
    near = error("goood.gguf")
    assert near.message == f"The model file {own_workspace.models / 'goood.gguf'} does not exist."
    assert "Did you mean good?" in near.hint
    write_model(own_workspace.root / "elsewhere" / "far.gguf")
    assert error("elsewhere/fax.gguf").hint == "Did you mean far.gguf?"


def test_a_link_that_leads_nowhere_is_told(error: Callable[..., Any], own_workspace: Workspace) -> None:
    (own_workspace.models / "dangling.gguf").symlink_to("nowhere.gguf")
    problem = error("dangling.gguf")
    assert isinstance(problem, MissingFileError)
    assert problem.message == (
        f"{own_workspace.models / 'dangling.gguf'} is a broken symbolic link: nowhere.gguf does not exist."
    )


def test_a_name_that_no_file_can_bear_is_told(error: Callable[..., Any]) -> None:
    assert isinstance(error("x" * 400 + ".gguf"), MissingFileError)


# -- what a file may be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: b"not a model", "does not begin with GGUF"),
        (lambda whole: b"", "is not a usable GGUF model"),
        (lambda whole: whole[:-100], "it is truncated"),
        (lambda whole: whole[:60], "the header ends early"),
    ],
)
def test_a_broken_file_is_told(
    error: Callable[..., Any], own_workspace: Workspace, content: Callable[[bytes], bytes], message: str
) -> None:
    (own_workspace.models / "broken.gguf").write_bytes(content((own_workspace.models / "good.gguf").read_bytes()))
    problem = error("broken.gguf")
    assert isinstance(problem, ModelFileError)
    assert message in problem.message


def test_a_folder_is_no_file(error: Callable[..., Any], own_workspace: Workspace) -> None:
    (own_workspace.models / "folder.gguf").mkdir()
    assert "is a folder" in error("folder.gguf").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_told(error: Callable[..., Any], own_workspace: Workspace) -> None:
    (own_workspace.models / "good.gguf").chmod(0)
    assert "cannot be read" in error("good.gguf").message


def test_a_model_that_cannot_be_talked_to_is_told(error: Callable[..., Any], own_workspace: Workspace) -> None:
    write_model(own_workspace.models / "base.gguf", template=False)
    assert "no chat template" in error("base.gguf").message
    write_model(own_workspace.models / "odd.gguf", architecture="oddity")
    assert "'oddity', which the engine does not support" in error("odd.gguf").message


def test_all_parts_of_a_split_model_have_to_be_there(error: Callable[..., Any], own_workspace: Workspace) -> None:
    write_model(own_workspace.models / "split-00001-of-00002.gguf", parts=2)
    problem = error("split-00001-of-00002.gguf")
    assert isinstance(problem, MissingFileError)
    assert "split-00002-of-00002.gguf" in problem.message


def test_the_declared_quantization_is_compared_with_the_weights(error: Callable[..., Any]) -> None:
    problem = error("good.gguf", quantization="Q4_K_M")
    assert isinstance(problem, ModelFileError)
    assert "is configured as Q4_K_M, but most of its data is Q8_0." in problem.message


# -- models of `llm` ----------------------------------------------------------------------------------------------


def test_a_model_of_llm_needs_its_key_and_nobody_is_asked(config: Config, own_workspace: Workspace) -> None:
    models = ("m: {provider: router, model: big}", "n: {provider: router, model: toy}")
    trust = {"AGENTLAB_TRUST": "FAR_API_KEY@example.org"}
    availability = registry(config(*models, more=LLM), own_workspace, trust)
    assert isinstance(availability["m"].error, MissingKeyError)
    assert isinstance(registry(config(*models, more=LLM), own_workspace, {})["m"].error, UntrustedHostError)
    assert (availability["m"].path, availability["n"].error) == (None, None)
    assert registry(config(*models, more=LLM), own_workspace, {"FAR_API_KEY": "k", **trust})["m"].error is None


# -- who is needed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asks",
    [
        "model: m",
        "models: [n, n], aggregation: {method: judge, model: m}",
        "models: [n, n], aggregation: {method: vote, extract: {kind: number}, ties: judge, judge: m}",
    ],
)
def test_whoever_a_stage_asks_is_needed(config: Config, own_workspace: Workspace, asks: str) -> None:
    lines = [f"{name}: {{file: good.gguf, required_for_base: false}}" for name in "mo"]
    models = registry(config("n: {file: good.gguf}", *lines, asks=asks), own_workspace, {})
    assert {name: model.wanted for name, model in models.items()} == {"n": True, "m": True, "o": False}


@pytest.mark.parametrize("mode", ["base", "manual"])
def test_who_stands_in_is_needed_unless_the_config_says_that_it_is_not(
    config: Config, own_workspace: Workspace, mode: str
) -> None:
    asks = "model: m, fallback_models: [n, o]"
    lines = ("m: {file: good.gguf}", "n: {file: good.gguf}", "o: {file: nowhere.gguf, required_for_base: false}")
    extra_lines = f"mode: {mode}\nmanual_pipeline: {{stages: [{{id: a, {asks}}}]}}\n"
    setup = config(*lines, asks=asks, more=extra_lines)
    models = registry(setup, own_workspace, {})
    assert {name: model.wanted for name, model in models.items()} == {"m": True, "n": True, "o": False}
    assert asked_models(setup.stages, setup) == {"m", "n", "o"}
    require(models)


def test_base_mode_needs_what_it_requires_and_manual_mode_what_it_asks(
    config: Config, own_workspace: Workspace
) -> None:
    lines = ("m: {file: good.gguf}", "unused: {file: good.gguf}")
    manual = "mode: manual\nmanual_pipeline: {stages: [{id: a, model: m}]}\n"
    assert registry(config(*lines), own_workspace, {})["unused"].wanted
    assert not registry(config(*lines, more=manual), own_workspace, {})["unused"].wanted


def test_everything_that_is_missing_is_told_at_once(config: Config, own_workspace: Workspace) -> None:
    (own_workspace.models / "broken.gguf").write_bytes(b"x")
    models = registry(
        config("m: {file: good.gguf}", "n: {file: broken.gguf}", "o: {file: nowhere.gguf}"), own_workspace, {}
    )
    with pytest.raises(
        MissingFileError, match=r"^models\.n: .*\nmodels\.o: The model file .* does not exist"
    ) as caught:
        require(models)
    assert caught.value.exit_code == MissingError.exit_code
    with pytest.raises(ModelFileError, match=r"^models\.n: "):
        require({"n": models["n"]})
    require({"m": models["m"], "o": Availability("o", "gguf", wanted=False, error=models["o"].error)})


# -- the answer ---------------------------------------------------------------------------------------------------


def test_the_table_says_what_is_usable_and_below_it_why_not(config: Config, own_workspace: Workspace) -> None:
    setup = config("m: {file: good.gguf, quantization: q8_0}", "n: {file: nowhere.gguf}")
    view = RegistryView.of(setup, registry(setup, own_workspace, {}))
    table, wrong = view.blocks()
    assert isinstance(table, Table)
    assert [row[-1] for row in table.rows] == ["yes", "no"]
    assert table.rows[0][3:6] == ["q8_0 (Q8_0)", "0M", "64"]
    assert isinstance(wrong, Text)
    assert re.match("n: The model file .* does not exist", wrong.text)
