"""Names of what is measured: models of the config, and strategies over them."""

import pytest

from agentlab.bench.config import Target, strategy_of, targets_of
from agentlab.errors import UnknownNameError
from tests.unit.bench.conftest import llm_of


def test_without_names_every_model_of_a_role_is_a_target():
    assert [target.name for target in targets_of((), llm_of(["a", "b"]))] == ["a", "b"]


def test_models_and_strategies_are_told_apart_and_each_is_there_once():
    llm = llm_of(["single", "b"])
    assert targets_of(["strategy:single", "single", "single"], llm) == (
        Target("strategy:single", strategy="single"),
        Target("single", model="single"),
    )


@pytest.mark.parametrize("name", ["c", "strategy:best", "strategy:"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UnknownNameError):
        targets_of([name], llm_of(["a"]))


def test_a_call_leaves_the_response_cache_out():
    options = Target("a", model="a").options(max_tokens=5)
    assert (options.model, options.strategy, options.cache, options.max_tokens) == ("a", None, False, 5)


def test_a_strategy_is_named_by_its_prefix():
    names = ("strategy:best_of_two", "best_of_two", "strategy:best_of_too")
    assert [strategy_of(name) for name in names] == ["best_of_two", None, None]
