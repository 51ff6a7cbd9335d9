"""Which variables are secret, and that none of them gets into a config but as `api_key`."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agentlab.bench.config import BenchConfig
from agentlab.config.base import LOCAL, SENT, StrictModel, expand
from agentlab.config.fields import fitting_models
from agentlab.config.secrets import has_secret_name, holds_secret, is_word, key_names, looks_random, secrets_of
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
    assert holds_secret(ENV["DATABASE"], ENV)
    assert holds_secret("postgres://me:pa55word@db.example/x", {})
    assert holds_secret("ghp_abcdefghijklmnopqrstuvwx", {})
    assert holds_secret("redis://:pa55word@cache.example/0", {})
    assert not holds_secret("https://127.0.0.1:8484/v1", {})
    assert not holds_secret("plain", ENV)


@pytest.mark.parametrize(
    "value", ["default", "d_model", "completed", "run.started", "smollm2-135m", "------", "123456"]
)
def test_what_agentlab_says_itself_is_no_secret(value: str) -> None:
    secrets = secrets_of({"SOME_TOKEN": value})
    assert (secrets.certain, secrets.suspect) == ({}, {})


@pytest.mark.parametrize("text", ["${GITHUB_TOKEN}", "a${DATABASE}b", "${GITHUB_TOKEN:-x}", "${UNSET_API_KEY:-x}"])
def test_a_secret_does_not_expand(text: str) -> None:
    for endings in (SENT, LOCAL):
        with pytest.raises(ValueError, match="is not expanded") as caught:
            expand(text, ENV, endings)
        assert SECRET not in str(caught.value)


def test_what_is_allowed_expands_unless_it_holds_a_secret_all_the_same() -> None:
    env = {"MY_MODEL": "small", "DATA_DIR": "/data", "HOME": "/home/me", "BAD_MODEL": f"x-{SECRET}-y", **ENV}
    assert expand("${MY_MODEL} ${UNSET_HOST:-x} $${GITHUB_TOKEN}", env) == "small x ${GITHUB_TOKEN}"
    assert expand("${DATA_DIR} ${HOME}", env, LOCAL) == "/data /home/me"
    assert expand("${PLAIN}", {**env, "AGENTLAB_EXPAND": "OTHER, PLAIN"}) == "plain"
    with pytest.raises(ValueError, match="is a secret, which is allowed only in `api_key`"):
        expand("${BAD_MODEL}", env)


def _invented_names() -> list[str]:
    """200 names as variables have them, none of which says that its value is meant to be told."""
    services = "AWS SLACK SENTRY DB SMTP STRIPE VAULT CI GITLAB NPM PG REDIS TWILIO CLOUD CORP MY ACME K8S LDAP HOME2"
    things = "TOKEN_2 WEBHOOK_URL DSN ACCESS_KEY_ID PASS_PROD PW MNEMONIC PRIVKEY BEARER ADDRESS"
    return [f"{service}_{thing}" for service in services.split() for thing in things.split()]


def test_no_invented_variable_is_sent() -> None:
    names = [*_invented_names(), "HOME", "MNEMONIC", "BEARER", "PRIVKEY", "USER", "PATH", "PWD", "MODEL_KEY"]
    assert len(names) > 200
    for name in names:
        for tree in ({"id": f"${{{name}}}"}, {"id": f"x-${{{name}:-y}}"}):
            with pytest.raises(ValidationError, match="is not expanded"):
                LLMConfig.model_validate(
                    {"providers": {"p": PROVIDER}, "models": {"m": {"provider": "p", **tree}}},
                    context={"env": {name: "plain"}},
                )


WIDE = "SLACK_WEBHOOK_URL SENTRY_DSN AWS_ACCESS_KEY_ID DB_PASS_PROD SMTP_PW MNEMONIC PRIVKEY BEARER OPENAI_KEY_2"


@pytest.mark.parametrize("name", WIDE.split())
def test_wide_names(name: str) -> None:
    assert has_secret_name(name)


def test_what_looks_random() -> None:
    for value in (
        "https://hooks.slack.com/services/T0AB/B0CD/x8Kq2mZp9xVt4LwB7Rk2mZpQ",
        "9f86d081884c7d659a2feaa0c55ad015",
        "wJalrXUtnFEMI7K7MDENGbPxRfiCYEXAMPLEKEY9a",
        "sk-or-v1-0123456789abcdef",
    ):
        assert looks_random("ANYTHING", value), value
    for name, value in {
        "CHECKPOINT": "meta-llama/Llama-3.1-8B-Instruct-FP8-dynamic-2025",
        "OTHER": "DeepSeek-R1-Distill-Qwen-1.5B-GGUF",
        "GITHUB_SHA": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "HOSTNAME": "trainer-7d9f8b6c5-x2x4zAB12cD34eF56gH78",
        "DATA": "/tmp/x8Kq2mZp9xVt4LwB7Rk2mZpQ/data.csv",
        "CUDA_VISIBLE_DEVICES": "GPU-8f3bAa12-90Cc-4dEe-b1B2-0123456789ab",
        "LS_COLORS": "rs=0:di=01;34:ln=01;36:mh=00:pi=40;33:so=01;35",
    }.items():
        assert not looks_random(name, value), name


def test_what_tells_about_a_secret_is_none_and_a_password_in_an_address_is_one() -> None:
    about = {"KEY_TYPE": "ed25519", "AUTH_URL": "https://auth.example.org/", "CERT_EMAIL": "jane@example.org"}
    assert secrets_of(about).certain == {}
    urls = {"DATABASE_URL": "postgres://app:hunter22@db/prod", "CACHE": "redis://:pw12345@h/0"}
    assert set(secrets_of(urls).certain.values()) == set(urls)
    assert looks_random("ANY", "glpat-abcdefghij0123456789")


def test_a_key_of_the_config_is_certain_unless_it_is_a_word() -> None:
    env = {"VAULT_PASSPHRASE": "blue whale", "OLLAMA_API_KEY": "ollama", "LOCK": "blue-whale-and-friends"}
    assert secrets_of(env).certain == {}
    assert secrets_of(env, ["LOCK", "OLLAMA_API_KEY"]).certain == {"blue-whale-and-friends": "LOCK"}
    assert set(key_names({"a": [{"api_key": "${A_KEY}"}], "b": "x${C}", "d": "$${E}"})) == {"A_KEY"}


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
        with pytest.raises(ValidationError, match="is not expanded"):
            model.model_validate(tree(f"${{{name}}}"), context={"env": ENV})


@pytest.mark.parametrize("model", [NasConfig, BenchConfig, PipelineConfig, PersonaConfig, LLMConfig])
def test_every_text_of_every_config_expands_safely_or_not_at_all(model: type[StrictModel]) -> None:
    """Whatever key holds `${GITHUB_TOKEN}`: it is refused, or stays as it was written."""
    for name, field in model.model_fields.items():
        if fitting_models(field.annotation, {}):
            continue
        for field_value in ("${GITHUB_TOKEN}", ["${GITHUB_TOKEN}"], {"x": "${GITHUB_TOKEN}"}):
            with contextlib.suppress(ValidationError):
                assert SECRET not in repr(model.model_validate({name: field_value}, context={"env": ENV}))


def test_a_piece_of_a_name_of_ours_is_a_suspect() -> None:
    secrets = secrets_of({"DB_PASSWORD": "_mae_spre"})
    assert (secrets.certain, secrets.suspect) == ({}, {"_mae_spre": "DB_PASSWORD"})
