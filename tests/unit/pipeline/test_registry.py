"""Which models of a pipeline can be used, and what is said of the others before work starts."""

import os
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


def registry(setup: PipelineConfig, place: Workspace, env: dict[str, str]) -> dict[str, Availability]:
    return available(setup.models, setup, place, env)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    write_model(tmp_path / "models" / "good.gguf")
    return Workspace(root=tmp_path, cache=tmp_path / "cache")


Config = Callable[..., PipelineConfig]


@pytest.fixture
def config(place: Workspace) -> Config:
    """`config("m: {file: good.gguf}")`: these models, of which one stage asks `m`; `more` are further lines."""

    def call(*models: str, asks: str = "model: m", more: str = "") -> PipelineConfig:
        listed = "".join(f"  {line}\n" for line in models)
        text = f"models:\n{listed}base_pipeline: {{stages: [{{id: a, {asks}}}]}}\n{more}"
        (place.root / "p.yaml").write_text(text)
        return load(PipelineConfig, "pipeline", "p.yaml", (), workspace=place, env={}, cwd=place.root).config

    return call


@pytest.fixture
def error(config: Config, place: Workspace) -> Callable[..., AgentlabError | None]:
    """What is wrong with the model `m` of this file."""

    def call(file: Any, more: str = "", **settings: str) -> AgentlabError | None:
        entry = ", ".join(f"{key}: {value}" for key, value in {"file": file, **settings}.items())
        found = registry(config(f"m: {{{entry}}}", more=more), place, {})
        return found["m"].error

    return call


def test_a_usable_model_is_known_by_its_file(config: Config, place: Workspace) -> None:
    found = registry(config("m: {file: good.gguf, quantization: Q8_0}"), place, {})["m"]
    assert (found.path, found.problem, found.wanted) == (place.models / "good.gguf", None, True)
    assert found.metadata is not None
    assert (found.metadata.quantisation, found.metadata.context_length) == ("Q8_0", 64)


# -- where files are looked up ------------------------------------------------------------------------------------


def test_a_name_is_a_file_of_the_models_directory_and_a_path_starts_at_the_workspace(
    error: Callable[..., Any], place: Workspace
) -> None:
    write_model(place.root / "elsewhere" / "far.gguf")
    assert error("elsewhere/far.gguf") is None
    assert error(str(place.root / "elsewhere" / "far.gguf")) is None
    assert error("far.gguf", more="models_directory: elsewhere\n") is None
    assert isinstance(error("far.gguf"), MissingFileError)
    assert isinstance(error("good.gguf", more="models_directory: elsewhere\n"), MissingFileError)


def test_the_workspaces_own_folder_knows_the_cache_and_the_catalogue_too(
    error: Callable[..., Any], place: Workspace
) -> None:
    write_model(place.cache / "models" / "shared.gguf")
    write_model(place.models / catalogue.lookup(catalogue.EMBEDDED).file)
    assert error("shared.gguf") is None
    assert error("shared") is None
    assert error(catalogue.EMBEDDED) is None
    assert isinstance(error("shared.gguf", more="models_directory: ./elsewhere\n"), MissingFileError)


def test_a_file_that_is_not_there_comes_with_the_way_to_get_it(error: Callable[..., Any], place: Workspace) -> None:
    pulled = error(catalogue.EMBEDDED)
    assert isinstance(pulled, MissingFileError)
    assert pulled.hint == f"Get it with `agentlab models pull {catalogue.EMBEDDED}`."
    near = error("goood.gguf")
    assert near.message == f"There is no model file {place.models / 'goood.gguf'}."
    assert "Did you mean good?" in near.hint
    write_model(place.root / "elsewhere" / "far.gguf")
    assert error("elsewhere/fax.gguf").hint == "Did you mean far.gguf?"


def test_a_link_that_leads_nowhere_is_told(error: Callable[..., Any], place: Workspace) -> None:
    (place.models / "dangling.gguf").symlink_to("nowhere.gguf")
    found = error("dangling.gguf")
    assert isinstance(found, MissingFileError)
    assert found.message == (
        f"{place.models / 'dangling.gguf'} is a link that leads nowhere: there is no nowhere.gguf."
    )


def test_a_name_that_no_file_can_bear_is_told(error: Callable[..., Any]) -> None:
    assert isinstance(error("x" * 400 + ".gguf"), MissingFileError)


# -- what a file may be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda whole: b"not a model", "does not begin with GGUF"),
        (lambda whole: b"", "is not a usable GGUF model"),
        (lambda whole: whole[:-100], "it is cut off"),
        (lambda whole: whole[:60], "the header ends early"),
    ],
)
def test_a_broken_file_is_told(
    error: Callable[..., Any], place: Workspace, content: Callable[[bytes], bytes], said: str
) -> None:
    (place.models / "broken.gguf").write_bytes(content((place.models / "good.gguf").read_bytes()))
    found = error("broken.gguf")
    assert isinstance(found, ModelFileError)
    assert said in found.message


def test_a_folder_is_no_file(error: Callable[..., Any], place: Workspace) -> None:
    (place.models / "folder.gguf").mkdir()
    assert "is a folder" in error("folder.gguf").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_told(error: Callable[..., Any], place: Workspace) -> None:
    (place.models / "good.gguf").chmod(0)
    assert "cannot be read" in error("good.gguf").message


def test_a_model_that_cannot_be_talked_to_is_told(error: Callable[..., Any], place: Workspace) -> None:
    write_model(place.models / "base.gguf", template=False)
    assert "no chat template" in error("base.gguf").message
    write_model(place.models / "odd.gguf", architecture="oddity")
    assert "'oddity', which the engine does not know" in error("odd.gguf").message


def test_all_parts_of_a_split_model_have_to_be_there(error: Callable[..., Any], place: Workspace) -> None:
    write_model(place.models / "split-00001-of-00002.gguf", parts=2)
    found = error("split-00001-of-00002.gguf")
    assert isinstance(found, MissingFileError)
    assert "split-00002-of-00002.gguf" in found.message


def test_the_declared_quantization_is_compared_with_the_weights(error: Callable[..., Any]) -> None:
    found = error("good.gguf", quantization="Q4_K_M")
    assert isinstance(found, ModelFileError)
    assert "is said to be Q4_K_M, but most of its bytes are Q8_0." in found.message


# -- models of `llm` ----------------------------------------------------------------------------------------------


def test_a_model_of_llm_needs_its_key_and_nobody_is_asked(config: Config, place: Workspace) -> None:
    models = ("m: {provider: router, model: big}", "n: {provider: router, model: toy}")
    trust = {"AGENTLAB_TRUST": "FAR_API_KEY@example.org"}
    found = registry(config(*models, more=LLM), place, trust)
    assert isinstance(found["m"].error, MissingKeyError)
    assert isinstance(registry(config(*models, more=LLM), place, {})["m"].error, UntrustedHostError)
    assert (found["m"].path, found["n"].error) == (None, None)
    assert registry(config(*models, more=LLM), place, {"FAR_API_KEY": "k", **trust})["m"].error is None


# -- who is needed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asks",
    [
        "model: m",
        "models: [n, n], aggregation: {method: judge, model: m}",
        "models: [n, n], aggregation: {method: vote, extract: {kind: number}, ties: judge, judge: m}",
    ],
)
def test_whoever_a_stage_asks_is_needed(config: Config, place: Workspace, asks: str) -> None:
    lines = [f"{name}: {{file: good.gguf, required_for_base: false}}" for name in "mo"]
    found = registry(config("n: {file: good.gguf}", *lines, asks=asks), place, {})
    assert {name: model.wanted for name, model in found.items()} == {"n": True, "m": True, "o": False}


@pytest.mark.parametrize("mode", ["base", "manual"])
def test_who_stands_in_is_needed_unless_the_config_says_that_it_is_not(
    config: Config, place: Workspace, mode: str
) -> None:
    asks = "model: m, fallback_models: [n, o]"
    lines = ("m: {file: good.gguf}", "n: {file: good.gguf}", "o: {file: nowhere.gguf, required_for_base: false}")
    more = f"mode: {mode}\nmanual_pipeline: {{stages: [{{id: a, {asks}}}]}}\n"
    setup = config(*lines, asks=asks, more=more)
    found = registry(setup, place, {})
    assert {name: model.wanted for name, model in found.items()} == {"m": True, "n": True, "o": False}
    assert asked_models(setup.stages, setup) == {"m", "n", "o"}
    require(found)


def test_base_mode_needs_what_it_requires_and_manual_mode_what_it_asks(config: Config, place: Workspace) -> None:
    lines = ("m: {file: good.gguf}", "unused: {file: good.gguf}")
    manual = "mode: manual\nmanual_pipeline: {stages: [{id: a, model: m}]}\n"
    assert registry(config(*lines), place, {})["unused"].wanted
    assert not registry(config(*lines, more=manual), place, {})["unused"].wanted


def test_everything_that_is_missing_is_told_at_once(config: Config, place: Workspace) -> None:
    (place.models / "broken.gguf").write_bytes(b"x")
    found = registry(config("m: {file: good.gguf}", "n: {file: broken.gguf}", "o: {file: nowhere.gguf}"), place, {})
    with pytest.raises(MissingFileError, match=r"^models\.n: .*\nmodels\.o: There is no model file") as caught:
        require(found)
    assert caught.value.exit_code == MissingError.exit_code
    with pytest.raises(ModelFileError, match=r"^models\.n: "):
        require({"n": found["n"]})
    require({"m": found["m"], "o": Availability("o", "gguf", wanted=False, error=found["o"].error)})


# -- the answer ---------------------------------------------------------------------------------------------------


def test_the_table_says_what_is_usable_and_below_it_why_not(config: Config, place: Workspace) -> None:
    setup = config("m: {file: good.gguf, quantization: q8_0}", "n: {file: nowhere.gguf}")
    view = RegistryView.of(setup, registry(setup, place, {}))
    table, wrong = view.blocks()
    assert isinstance(table, Table)
    assert [row[-1] for row in table.rows] == ["yes", "no"]
    assert table.rows[0][3:6] == ["q8_0 (Q8_0)", "0M", "64"]
    assert isinstance(wrong, Text)
    assert wrong.text.startswith("n: There is no model file")
