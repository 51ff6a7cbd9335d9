import pytest

from agentlab.errors import ConfigError, UnknownNameError
from agentlab.llm.config import LLMConfig
from agentlab.llm.serve import names


def config(*models: str) -> LLMConfig:
    return LLMConfig.model_validate(
        {
            "providers": {"p": {"kind": "scripted"}},
            "models": {name: {"provider": "p", "id": name} for name in models},
            "roles": {"primary": models},
        }
    )


def test_every_strategy_has_a_name():
    assert list(names.STRATEGIES) == [
        "agentlab/single",
        "agentlab/fallback",
        "agentlab/fastest",
        "agentlab/best-of-two",
        "agentlab/best-of-n",
        "agentlab/adaptive",
    ]


def test_a_name_means_a_strategy_or_a_model():
    assert names.meaning("agentlab", config("a")) == (None, None)
    assert names.meaning("agentlab/best-of-two", config("a", "b")) == ("best_of_two", None)
    assert names.meaning("a", config("a")) == ("single", "a")


def test_known_says_who_owns_a_name():
    assert names.known_names(config("a"))["a"] == "p"
    assert names.known_names(config("a"))["agentlab/fastest"] == "agentlab"


def test_an_unknown_name_is_compared_with_the_known_ones():
    with pytest.raises(UnknownNameError) as caught:
        names.meaning("agentlab/best_of_two", config("a", "b"))
    assert "agentlab/best-of-two" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["agentlab/best-of-two", "agentlab/best-of-n"])
def test_answers_are_compared_only_where_several_models_give_one(name):
    assert name in names.known_names(config("a", "b"))
    assert name not in names.known_names(config("a"))
    with pytest.raises(UnknownNameError):
        names.meaning(name, config("a"))
    same = config("a", "b").model_dump()
    same["models"]["b"]["id"] = "a"  # one model under two names
    assert name not in names.known_names(LLMConfig.model_validate(same))


def test_a_config_without_models_cannot_be_served():
    with pytest.raises(ConfigError, match="no language model"):
        names.check(LLMConfig())


def test_a_model_cannot_bear_the_name_of_a_strategy():
    with pytest.raises(ConfigError, match="agentlab/single"):
        names.check(config("agentlab/single"))
    names.check(config("mine"))
