"""Kinds of providers by name: a table of import strings, and one entry-point group for those of other packages.

Each names a factory; see `providers.Factory`. Its attribute `config`, a `provider_config.ProviderConfig`, says what an
entry of `providers` may hold; without one that is `options`.
"""

from collections.abc import Callable
from typing import Any

from agentlab.plugins import Registry

FACTORIES: Registry[Callable[..., Any]] = Registry(
    "provider kind",
    "agentlab.providers",
    {
        "anthropic": "agentlab.llm.providers.anthropic:build",
        "gguf": "agentlab.llm.providers.local:gguf",
        "hf": "agentlab.llm.providers.local:hf",
        "openai_compat": "agentlab.llm.providers.openai_compat:build",
        "scripted": "agentlab.llm.providers.scripted:build",
    },
)
