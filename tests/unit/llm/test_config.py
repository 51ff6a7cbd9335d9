"""The mapping `llm:`: what may stand there, what the shipped presets say, and what a mistake is answered with."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from agentlab.llm.config import LLMConfig

PRESETS = Path(__file__).resolve().parents[3] / "configs" / "llm"


def load(tree, **env):
    return LLMConfig.model_validate(tree, context={"env": env})


def problems(tree):
    with pytest.raises(ValidationError) as caught:
        load(tree)
    return "\n".join(problem["msg"] for problem in caught.value.errors())


def preset(name, **env):
    return load(yaml.safe_load((PRESETS / f"{name}.yaml").read_text()), **env)


def small(**changes):
    tree = {
        "providers": {"here": {"kind": "gguf", "model_path": "smollm2-135m"}},
        "models": {"small": {"provider": "here", "id": "x"}},
        "roles": {"primary": ["small"]},
    }
    return {**tree, **changes}


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_loads_without_any_variable_and_says_what_it_costs(path):
    config = preset(path.stem)
    assert bool(config.candidates("nas.propose")) == (path.stem != "none")
    assert "\n# Cost: " in path.read_text()


def test_the_environment_names_models_that_a_preset_leaves_open():
    assert preset("openrouter").models["planner"].id == "anthropic/claude-3.5-sonnet"
    config = preset("openrouter", PLANNER_MODEL="openai/gpt-4-turbo", EVALUATOR_MODEL="openai/gpt-3.5-turbo")
    model_ids = [config.models[config.candidates(task)[0]].id for task in ("nas.propose", "nas.evaluate")]
    assert model_ids == ["openai/gpt-4-turbo", "openai/gpt-3.5-turbo"]


def test_a_key_stays_the_name_of_a_variable():
    config = preset("openrouter", OPENROUTER_API_KEY="sk-secret-secret-secret")
    assert "sk-secret" not in config.model_dump_json()
    tree = small(providers={"here": {"kind": "openai_compat", "base_url": "https://x.org", "api_key": "sk-123456"}})
    assert "never the key itself" in problems(tree)


def test_a_resolved_config_reads_back_as_itself():
    config = preset("openrouter", PLANNER_MODEL="openai/gpt-4-turbo")
    assert load(config.model_dump(mode="json")) == config


def test_the_safety_net_of_a_local_model_is_its_own():
    assert preset("embedded").total("embedded") == 300
    assert preset("openrouter").total("planner") == 200


def test_candidates_follow_the_roles():
    tree = small(models={name: {"provider": "here", "id": name} for name in "abcd"})
    tree["roles"] = {"fallback": ["d"], "reserve": ["c"], "duplicate": ["b"], "primary": ["a"]}
    tree["tasks"] = {"judge": {"roles": ["reserve", "duplicate"]}}
    assert load(tree).candidates("anything") == ("a", "b", "c", "d")
    assert load(tree).candidates("judge") == ("c", "b")


def test_two_names_of_one_model_are_asked_once():
    tree = small(models={name: {"provider": "here", "id": "x" if name in "ac" else name} for name in "abc"})
    tree["roles"] = {"primary": ["a", "b"], "reserve": ["c"]}
    assert load(tree).candidates("anything") == ("a", "b")


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            small(models={"small": {"provider": "hare", "id": "x"}}),
            "models.small.provider: there is no provider named 'hare' (did you mean 'here'?)",
        ),
        (small(roles={"primary": ["smal"]}), "roles.primary: there is no model named 'smal' (did you mean 'small'?)"),
        (small(roles={}), "no role names a model"),
        (small(roles={"primary": ["smal"]}, tasks={"judge": {"roles": ["primary"]}}), "did you mean 'small'?"),
        (small(roles={"primary": ["small"], "fallback": ["small"]}), "small is already in primary"),
        (small(tasks={"judge": {"roles": ["reserve"]}}), "tasks.judge.roles: no model has these roles"),
        (small(providers={"here": {"kind": "gguff", "model_path": "x"}}), "no provider kind 'gguff'"),
        (small(providers={"here": {"kind": "gguf", "model_path": "x", "base_url": "y"}}), "Extra inputs"),
        (small(providers={"here": {"kind": "scripted", "mode": "replies"}}), "must be used together"),
        (small(providers={"here": {"kind": "openai_compat", "base_url": "http://x.org"}}), "unencrypted"),
        (small(models={"small": {"provider": "here", "id": "${NO_SUCH_MODEL}"}}), "NO_SUCH_MODEL is not set"),
        (small(defaults={"timeout": {"total": 0}}), "greater than 0"),
    ],
)
def test_a_mistake_is_named(tree, words):
    assert words in problems(tree)


def test_all_wrong_names_are_reported_at_once():
    message = problems(small(roles={"primary": ["a"], "reserve": ["b"]}))
    assert "'a'" in message
    assert "'b'" in message


def test_reading_a_config_and_routing_to_a_script_load_no_http_client():
    code = (
        "import sys, agentlab.llm.types, agentlab.llm.config, agentlab.llm.router, agentlab.llm.providers.scripted;"
        "print([name for name in ('httpx', 'numpy', 'torch', 'llama_cpp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
