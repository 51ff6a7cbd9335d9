"""The config of language models that stands alone: `agentlab serve`, `agentlab llm`, and programs that ask models."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agentlab.config.load import load
from agentlab.config.overrides import Override
from agentlab.errors import AgentlabError, MissingError
from agentlab.llm.config import LLMConfig
from agentlab.llm.providers import ProviderContext, build
from agentlab.runs.context import Context

FOLDER = "llm"  # below configs/
DEFAULT = "embedded"


def load_llm(name_or_path: str | None, overrides: Sequence[Override], context: Context) -> LLMConfig:
    """The config that a name in `configs/llm/` or the path of a YAML file means; the embedded model without either.

    A relative path starts at the current folder. Keys of `overrides` start inside the config, as `defaults.strategy`
    does; `llm.defaults.strategy`, which the other commands take, means the same.

    Raises:
        ConfigError: every problem of the file and the overrides, one per line.
        UnknownNameError: there is no such preset.
    """
    return load(
        LLMConfig,
        FOLDER,
        DEFAULT if name_or_path is None else name_or_path,
        [_inside(override) for override in overrides],
        workspace=context.workspace,
        env=context.env,
        cwd=Path.cwd(),
    ).config


def absent(config: LLMConfig, context: Context) -> dict[str, str]:
    """What is wrong with the local files of a config, model or adapter, by provider; empty when they are there."""
    around, problems = ProviderContext(context.env, context.workspace), dict[str, str]()
    for name, provider in config.providers.items():
        if provider.is_local:
            try:
                build(name, provider, around)
            except AgentlabError as error:
                problems[name] = f"{error.message} {error.hint or ''}".strip()
    return problems


def _inside(override: Override) -> Override:
    first, _, subkey = override.key.partition(".")
    ours = first == "llm" and subkey.partition(".")[0] in LLMConfig.model_fields
    return replace(override, key=subkey) if ours else override


def check_optional(config: LLMConfig, context: Context) -> None:
    """See that a language model that a run could do without can be asked, or say how to do without it.

    Raises:
        MissingError: see `Router.check`.
    """
    from agentlab.llm.router import Router

    with Router(config, env=context.env, workspace=context.workspace) as router:
        try:
            router.check()
        except MissingError as error:
            error.hint = f"{error.hint or ''} Or run without a language model: --set llm=none.".lstrip()
            raise
