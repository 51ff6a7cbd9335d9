"""The other layout that an LLM config file may have: settings under `llm:`, and models listed below their providers.

    llm:
      default_provider: openrouter
      default_model: vendor/small
      timeout: 200
      retry_attempts: 1
      strategy: best_of_two
      model_roles: {primary: [vendor/small, vendor/other], fallback: [vendor/free]}
    providers:
      openrouter: {base_url: https://openrouter.ai/api/v1, api_key: "${OPENROUTER_API_KEY}", models: [vendor/small]}

A role names a model by the name under which a provider lists it, by its id there, or, listed nowhere, by its id at the
default provider. Whatever else a config may say (`tasks`, `budget`, `ledger`, `defaults`) keeps its place. Pure.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from agentlab.config.base import StrictModel
from agentlab.config.overrides import Layer, without_nulls
from agentlab.config.validation_messages import display_value, problems
from agentlab.llm.provider_config import Cap, Price, RolesConfig, Strategy, describe_unknown_name
from agentlab.llm.types import Tier

S = TypeVar("S", bound=StrictModel)
Tree = dict[str, Any]

# What an entry of `providers` that bears such a name may leave out.
WELL_KNOWN: Mapping[str, Mapping[str, str]] = {
    "openrouter": {
        "kind": "openai_compat",
        "base_url": "https://openrouter.ai/api/v1",
        "api_key": "${OPENROUTER_API_KEY}",
    },
    "openai": {"kind": "openai_compat", "base_url": "https://api.openai.com/v1", "api_key": "${OPENAI_API_KEY}"},
    "anthropic": {"kind": "anthropic"},
    "ollama": {"kind": "openai_compat", "base_url": "${OLLAMA_BASE_URL:-http://127.0.0.1:11434/v1}"},
}
_MINE = ("llm", "providers", "models", "roles")  # every other key means what it means in an `LLMConfig`


class RolesLayoutSettings(StrictModel):
    """The section `llm`."""

    default_provider: str | None = Field(None, description="The provider for models that no provider lists.")
    default_model: str | None = Field(None, description="The first primary model, unless it already has a role.")
    timeout: float | None = Field(
        None, gt=0, le=86_400, description="Timeout per call in seconds, including fallbacks."
    )
    retry_attempts: int | None = Field(None, ge=0, le=5, description="Retries per model.")
    strategy: Strategy = Field("single", description="How a call chooses among its models.")
    model_roles: RolesConfig = Field(RolesConfig(), description="The models to use, by role.")


class Definition(StrictModel):
    """The settings of one model."""

    id: str | None = Field(None, description="The provider's name for the model, if different.")
    tier: Tier | None = Field(None, description="Supported answer format: pick, edit or full.")
    context: int | None = Field(None, ge=128, description="Context window: prompt and answer tokens together.")
    price: Price | None = Field(None, description="USD per million tokens.")
    caps: tuple[Cap, ...] | None = Field(None, description="Its capabilities, if fewer than its provider's.")


class ListedDefinition(Definition):
    """What a list of models says of one."""

    name: str | None = Field(None, description="A name for use in the roles; the id by default.")


def convert_layout(tree: Tree) -> Tree:
    """The tree of an `LLMConfig` that means the same; one without the section `llm` is given back as it is.

    Raises:
        ValueError: with all that is wrong with what exists only in this layout.
    """
    if "llm" not in tree:
        return tree
    wrong: list[str] = []
    settings = _validate_tree(RolesLayoutSettings, tree["llm"] or {}, "llm", wrong)
    providers = {name: dict(entry) for name, entry in _mapping(tree.get("providers"), "providers", wrong)}
    listed: Tree = {}
    for provider, entry in providers.items():
        for name, definition in _definitions(entry.pop("models", None), f"providers.{provider}.models", wrong):
            if name not in listed or provider == settings.default_provider:
                listed[name] = {"provider": provider, "id": name, **definition}
    wrong += [f"{key}: belongs to the other layout; use `llm.model_roles` here" for key in _MINE[2:] if key in tree]
    roles = _roles(settings, listed)
    named = chain.from_iterable(roles.values())
    unlisted = [name for name in named if name not in listed]
    wrong += [] if wrong else _find_missing(settings, providers, unlisted, roles)
    home = settings.default_provider or next(iter(providers), "")
    if home in WELL_KNOWN:
        providers.setdefault(home, {})
    providers = {name: _complete_entry(name, entry, wrong) for name, entry in providers.items()}
    if wrong:
        raise ValueError("; ".join(wrong))
    other_keys = {key: value for key, value in tree.items() if key not in _MINE}
    return {
        **other_keys,
        "providers": providers,
        "models": {**listed, **{name: {"provider": home, "id": name} for name in unlisted}},
        "roles": roles,
        "defaults": Layer(_defaults(settings)).with_upper(Layer(other_keys.get("defaults") or {})).data,
    }


def _validate_tree(model: type[S], tree: Any, where: str, wrong: list[str]) -> S:
    """`tree` as `model`; what is wrong with it is added to `wrong`, and the model's defaults stand in for it."""
    if not isinstance(tree, Mapping):
        wrong.append(f"{where}: must be a mapping, not {display_value(tree)}")
        return model()
    layer = Layer(without_nulls(tree))
    try:
        return model.model_validate(layer.data)
    except ValidationError as error:
        wrong += [f"{where}.{line.removeprefix(': ')}" for line in problems(error, model, layer, "")]
        return model()


def _mapping(tree: Any, where: str, wrong: list[str]) -> Iterator[tuple[str, Tree]]:
    """The entries of a mapping of mappings; an empty entry is an empty mapping."""
    if not isinstance(tree, Mapping | None):
        wrong.append(f"{where}: must be a mapping, not {display_value(tree)}")
        return
    for name, entry in (tree or {}).items():
        if isinstance(entry, Mapping | None):
            yield str(name), dict(entry or {})
        else:
            wrong.append(f"{where}.{name}: must be a mapping, not {display_value(entry)}")


def _definitions(tree: Any, where: str, wrong: list[str]) -> Iterator[tuple[str, Tree]]:
    """The models of a provider, by name: from a mapping of definitions, or a list of ids and definitions."""
    if not isinstance(tree, list):
        for name, entry in _mapping(tree, where, wrong):
            yield name, _validate_tree(Definition, entry, f"{where}.{name}", wrong).model_dump(exclude_none=True)
        return
    for index, item in enumerate(tree):
        item_where, entry = f"{where}.{index}", {"id": item} if isinstance(item, str) else item
        if isinstance(entry, Mapping) and not (entry.get("name") or entry.get("id")):
            wrong.append(f"{item_where}: id is required")
            continue
        definition = _validate_tree(ListedDefinition, entry, item_where, wrong).model_dump(exclude_none=True)
        listed = definition.pop("name", None) or definition.get("id")
        if listed:  # else the entry was refused
            yield listed, definition


def _roles(settings: RolesLayoutSettings, listed: Tree) -> dict[str, list[str]]:
    """The roles, by names of `listed` where a provider lists the model; the default model leads the primaries."""
    names = {definition["id"]: name for name, definition in listed.items()} | {name: name for name in listed}
    roles: dict[str, list[str]] = {}
    for role, members in settings.model_roles.model_dump().items():
        roles[role] = [names.get(name, name) for name in members]
    first = settings.default_model
    if first and not any(names.get(first, first) in members for members in roles.values()):
        roles["primary"].insert(0, names.get(first, first))
    return roles


def _find_missing(
    settings: RolesLayoutSettings, providers: Tree, unlisted: list[str], roles: Mapping[str, list[str]]
) -> Iterator[str]:
    """What is missing for every role to lead to a model."""
    if not any(roles.values()):
        yield "llm: no model is named; set `default_model` or `model_roles.primary`"
    known_providers = tuple(dict.fromkeys((*providers, *WELL_KNOWN)))
    if settings.default_provider and settings.default_provider not in known_providers:
        yield f"llm.default_provider: {describe_unknown_name('provider', settings.default_provider, known_providers)}"
    if unlisted and not settings.default_provider and len(providers) != 1:
        yield f"llm.default_provider: is required, since no provider lists {unlisted[0]!r}"


def _complete_entry(name: str, entry: Tree, wrong: list[str]) -> Tree:
    """An entry of `providers` with what its name, or its address, says about it."""
    well_known = WELL_KNOWN.get(name, {})
    if entry.get("base_url") is not None:  # a key goes to its own provider, and nowhere else unasked
        return {"kind": well_known.get("kind", "openai_compat"), **entry}
    if "kind" in entry and entry["kind"] != well_known.get("kind"):
        return entry
    if not well_known:
        wrong.append(f"providers.{name}: base_url is required, except for {', '.join(WELL_KNOWN)}")
    return {**well_known, **entry}


def _defaults(settings: RolesLayoutSettings) -> Tree:
    defaults: Tree = {"strategy": settings.strategy}
    if settings.timeout is not None:
        defaults["timeout"] = {"total": settings.timeout}
    if settings.retry_attempts is not None:
        defaults["retries"] = settings.retry_attempts
    return defaults
