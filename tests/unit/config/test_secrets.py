"""Which variables are secret, and that none of them gets into a config but as `api_key`."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agentlab.bench.config import BenchConfig
from agentlab.config.base import StrictModel, expand
from agentlab.config.fields import fitting_models
from agentlab.config.secrets import has_secret_name, holds_secret, is_word, secrets_of
from agentlab.llm.config import LLMConfig
from agentlab.llm.provider_config import GgufProvider, HfProvider, OpenAICompatProvider
from agentlab.nas.config import NasConfig
from agentlab.persona.config import PersonaConfig
from agentlab.pipeline.config import PipelineConfig

SECRET = "q7Rk2mZp9xVt4LwB"
ENV = {"GITHUB_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": "s3cr3tXYZ12345", "DATABASE": f"x-{SECRET}-y", "PLAIN": "plain"}


NAMES = (
    "GITHUB_TOKEN AWS_SECRET_ACCESS_KEY PGPASSWORD A_KEY GH_PAT DB_PWD SMTP_PASS PASS API_JWT NPM_CONFIG__AUTH "
    "PROXY_AUTHORIZATION SESSION_COOKIE AZURE_STORAGE_CONNECTION_STRING"
)
OTHERS = "PWD OLDPWD HOME MAX_TOKENS TOKENIZER OLLAMA_BASE_URL BYPASS XAUTHORITY SSH_AUTH_SOCK"


def test_a_passphrase_is_no_name() -> None:
    assert all(map(is_word, ("default", "wind_speed", "run_0001")))
    assert not any(map(is_word, ("correct-horse-battery-staple", "abcdefghijklmnop", "planted-secret-value")))


@pytest.mark.parametrize("name", NAMES.split())
def test_names_that_tell(name: str) -> None:
    assert has_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["PWD", "OLDPWD", "HOME", "MAX_TOKENS", "TOKENIZER", "OLLAMA_BASE_URL", "BYPASS", "XAUTHORITY", "SSH_AUTH_SOCK"],
)
def test_names_that_tell_nothing(name: str) -> None:
    assert not has_secret_name(name)


def test_a_variable_that_repeats_a_secret_is_one() -> None:
    assert holds_secret("DATABASE", ENV["DATABASE"], ENV)
    assert holds_secret("LINK", "postgres://me:pa55word@db.example/x", {})
    assert holds_secret("PASTED", "ghp_abcdefghijklmnopqrstuvwx", {})
    assert holds_secret("CACHE", "redis://:pa55word@cache.example/0", {})
    assert not holds_secret("SERVER", "https://127.0.0.1:8484/v1", {})
    assert not holds_secret("PLAIN", "plain", ENV)


@pytest.mark.parametrize(
    "value", ["default", "d_model", "completed", "run.started", "smollm2-135m", "------", "123456"]
)
def test_what_agentlab_says_itself_is_no_secret(value: str) -> None:
    assert list(secrets_of({"SOME_TOKEN": value})) == []


@pytest.mark.parametrize("text", ["${GITHUB_TOKEN}", "a${DATABASE}b", "${GITHUB_TOKEN:-x}", "${UNSET_API_KEY:-x}"])
def test_a_secret_does_not_expand(text: str) -> None:
    with pytest.raises(ValueError, match="may stand in `api_key` alone") as caught:
        expand(text, ENV)
    assert SECRET not in str(caught.value)
    assert expand("${PLAIN} ${UNSET:-x} $${GITHUB_TOKEN}", ENV) == "plain x ${GITHUB_TOKEN}"


PROVIDER = {"kind": "openai_compat", "base_url": "https://example.org/v1"}
LEAKS: list[tuple[type[BaseModel], Callable[[str], dict[str, Any]]]] = [
    (OpenAICompatProvider, lambda text: {**PROVIDER, "base_url": f"https://example.org/{text}"}),
    (GgufProvider, lambda text: {"kind": "gguf", "model_path": text}),
    (HfProvider, lambda text: {"kind": "hf", "model_path": "x", "adapter": text}),
    (LLMConfig, lambda text: {"providers": {"p": PROVIDER}, "models": {"m": {"provider": "p", "id": text}}}),
    (PipelineConfig, lambda text: {"models_directory": text}),
    (PipelineConfig, lambda text: {"inputs": text}),
    (PipelineConfig, lambda text: {"input_file": text}),
    (PipelineConfig, lambda text: {"models": {"m": {"file": text}}}),
    (PersonaConfig, lambda text: {"base": text}),
    (PersonaConfig, lambda text: {"out": text}),
    (PersonaConfig, lambda text: {"personas": [{"name": "a", "data": text}]}),
    (PersonaConfig, lambda text: {"personas": [{"name": "a", "data": "x", "eval_data": text}]}),
]


@pytest.mark.parametrize(("model", "tree"), LEAKS)
def test_no_key_that_expands_takes_a_secret(model: type[BaseModel], tree: Callable[[str], dict[str, Any]]) -> None:
    for name in ("GITHUB_TOKEN", "DATABASE"):
        with pytest.raises(ValidationError, match="holds a secret"):
            model.model_validate(tree(f"${{{name}}}"), context={"env": ENV})


@pytest.mark.parametrize("model", [NasConfig, BenchConfig, PipelineConfig, PersonaConfig, LLMConfig])
def test_every_text_of_every_config_expands_safely_or_not_at_all(model: type[StrictModel]) -> None:
    """Whatever key holds `${GITHUB_TOKEN}`: it is refused, or stays as it was written."""
    for name, field in model.model_fields.items():
        if fitting_models(field.annotation, {}):
            continue
        for given in ("${GITHUB_TOKEN}", ["${GITHUB_TOKEN}"], {"x": "${GITHUB_TOKEN}"}):
            with contextlib.suppress(ValidationError):
                assert SECRET not in repr(model.model_validate({name: given}, context={"env": ENV}))
