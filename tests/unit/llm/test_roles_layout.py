"""The layout with `llm.model_roles`: it means the same as ours, and a mistake in it is answered at the right key."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.config import LLMConfig
from agentlab.llm.provider_config import ROLES
from agentlab.llm.roles_layout import WELL_KNOWN, convert_layout

# A comment is all that stands below `models`, which makes it null.
PUBLISHED = """
llm:
  default_provider: openrouter
  default_model: meta-llama/llama-3.2-1b-instruct
  timeout: 200
  retry_attempts: 1
  strategy: "best_of_two"

  # roles
  model_roles:
    primary: ["meta-llama/llama-3.2-1b-instruct", "microsoft/phi-3-mini-128k-instruct"]
    duplicate: ["meta-llama/llama-3.2-3b-instruct", "microsoft/wizardlm-2-8x22b"]
    reserve: ["google/gemma-2-27b-it", "mistralai/mistral-small-24b-instruct-2501"]
    fallback: ["kwaipilot/kat-coder-pro:free", "undi95/remm-slerp-l2-13b"]

providers:
  openrouter:
    base_url: https://openrouter.ai/api/v1
    api_key: ${OPENROUTER_API_KEY}
    models:
      # definitions
"""


def config(tree, **env):
    return LLMConfig.model_validate(convert_layout(tree), context={"env": env})


def problems(tree):
    with pytest.raises(ValueError, match=r".") as caught:
        convert_layout(tree)
    return str(caught.value)


def small(**llm):
    return {"llm": {"default_provider": "openrouter", "default_model": "v/a", **llm}}


def test_a_published_file_loads_unchanged():
    llm = config(yaml.safe_load(PUBLISHED))
    assert llm.defaults.strategy == "best_of_two"
    assert (llm.defaults.timeout.total, llm.defaults.retries) == (200, 1)
    assert llm.roles.duplicate == ("meta-llama/llama-3.2-3b-instruct", "microsoft/wizardlm-2-8x22b")
    assert len(llm.candidates("chat")) == 8
    provider = llm.providers["openrouter"]
    assert (provider.kind, provider.api_key) == ("openai_compat", "${OPENROUTER_API_KEY}")
    assert {(model.provider, model.id == name) for name, model in llm.models.items()} == {("openrouter", True)}


def test_our_own_layout_is_left_as_it_is():
    tree = {"providers": {}, "models": {}}
    assert convert_layout(tree) is tree


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_a_provider_that_everybody_knows_needs_nothing_but_its_name(name):
    provider = config(small(default_provider=name)).providers[name]
    assert provider.base_url.startswith("http://127.0.0.1:11434" if name == "ollama" else "https://")
    assert provider.api_key == (None if name == "ollama" else f"${{{name.upper()}_API_KEY}}")


def test_a_key_is_not_sent_to_another_address_unasked():
    tree = {**small(), "providers": {"openrouter": {"base_url": "https://proxy.example.org/v1"}}}
    assert config(tree).providers["openrouter"].api_key is None


def test_a_well_known_name_may_mean_something_else():
    tree = {**small(default_provider="ollama"), "providers": {"ollama": {"kind": "scripted"}}}
    assert config(tree).providers["ollama"].kind == "scripted"


def test_models_are_listed_as_ids_or_defined():
    providers = {
        "openrouter": {"models": ["v/a", {"id": "v/b", "name": "b", "context": 8192}]},
        "mine": {
            "base_url": "https://mine.example.org/v1",
            "models": {"c": {"id": "v/c", "tier": "edit", "price": {"input": 1, "output": 2}}, "v/d": None},
        },
    }
    roles = {"primary": ["b", "v/c"], "fallback": ["v/d", "v/e"]}
    llm = config({**small(model_roles=roles), "providers": providers})
    assert llm.roles.primary == ("v/a", "b", "c")  # the default model first, the others by the names they have here
    assert (llm.models["b"].id, llm.models["b"].context) == ("v/b", 8192)
    assert (llm.models["c"].id, llm.models["c"].tier, llm.models["c"].price.output) == ("v/c", "edit", 2)
    assert [llm.models[name].provider for name in ("v/a", "c", "v/d", "v/e")] == [
        "openrouter",
        "mine",
        "mine",
        "openrouter",  # listed nowhere: at the default provider
    ]


def test_the_default_model_keeps_the_role_it_was_given():
    llm = config(small(model_roles={"primary": ["v/b"], "fallback": ["v/a"]}))
    assert (llm.roles.primary, llm.roles.fallback) == (("v/b",), ("v/a",))


def test_one_model_with_its_fallbacks_is_what_a_file_means_that_names_no_strategy():
    assert config(small()).defaults.strategy == "single"


def test_everything_else_keeps_its_place():
    tree = {**small(timeout=50), "budget": {"per_run_usd": 0.1}, "defaults": {"timeout": {"connect": 1}}}
    llm = config(tree)
    assert llm.budget.per_run_usd == 0.1
    assert (llm.defaults.timeout.connect, llm.defaults.timeout.total) == (1, 50)


MISTAKES = {
    "unknown setting": (small(retry_attemps=2), "llm.retry_attemps: unknown key; did you mean retry_attempts?"),
    "unknown role": (small(model_roles={"primry": []}), "llm.model_roles.primry: unknown key; did you mean primary?"),
    "unknown strategy": (small(strategy="best_of_too"), "llm.strategy: must be 'single', 'fallback'"),
    "timeout": (small(timeout=0), "llm.timeout: must be above 0, not 0"),
    "retries": (small(retry_attempts="many"), "llm.retry_attempts: must be a whole number, not 'many'"),
    "no model": ({"llm": {"default_provider": "openai"}}, "llm: no model is named"),
    "empty roles": ({"llm": {"model_roles": {"primary": []}}}, "llm: no model is named"),
    "unknown provider": (small(default_provider="openruter"), "no provider named 'openruter' (did you mean"),
    "no provider": ({"llm": {"default_model": "x"}}, "llm.default_provider: is required"),
    "no address": ({**small(), "providers": {"mine": {}}}, "providers.mine: base_url is required"),
    "no mapping": ({"llm": ["x"]}, "llm: must be a mapping, not a list"),
    "no entry": ({**small(), "providers": {"openai": 5}}, "providers.openai: must be a mapping, not 5"),
    "unknown definition": (
        {**small(), "providers": {"openai": {"models": {"x": {"contxt": 5}}}}},
        "providers.openai.models.x.contxt: unknown key; did you mean context?",
    ),
    "nameless": (
        {**small(), "providers": {"openai": {"models": [{"tier": "edit"}]}}},
        "openai.models.0: id is required",
    ),
    "both layouts": ({**small(), "roles": {"primary": []}}, "roles: belongs to the other layout"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_where_it_stands(mistake):
    tree, expected = MISTAKES[mistake]
    assert expected in problems(tree)


def test_all_mistakes_are_told_at_once():
    message = problems(small(timeout=-1, stratgy="single") | {"models": {}})
    assert [part.partition(":")[0] for part in message.split("; ") if ":" in part] == [
        "llm.timeout",
        "llm.stratgy",
        "models",
    ]


names = st.text(min_size=1, max_size=8)


@given(st.dictionaries(st.sampled_from(ROLES), st.lists(names, max_size=3, unique=True)), names)
def test_every_model_that_a_role_names_is_asked_in_the_order_of_the_roles(roles, first):
    tree = convert_layout({"llm": {"default_provider": "openrouter", "default_model": first, "model_roles": roles}})
    names_in_tree = [name for role in ROLES for name in tree["roles"][role]]
    names_in_roles = [name for role in ROLES for name in roles.get(role, [])]
    assert names_in_tree == (names_in_roles if first in names_in_roles else [first, *names_in_roles])
    assert set(names_in_tree) == set(tree["models"])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(anything, anything)
def test_whatever_stands_there_is_converted_or_refused(llm, providers):
    try:
        tree = convert_layout({"llm": llm, "providers": providers})
    except ValueError:
        return
    assert "llm" not in tree
