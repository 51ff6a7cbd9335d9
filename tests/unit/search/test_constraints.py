"""Rules between parameters: three declarative forms, no evaluation of text."""

import pytest
from pydantic import TypeAdapter, ValidationError

from agentlab.errors import ConfigError
from agentlab.search.constraints import Constraint
from agentlab.search.space import SearchSpace, SpaceConfig

RULES = TypeAdapter(list[Constraint])


@pytest.mark.parametrize(
    ("raw", "good", "bad"),
    [
        ({"divides": ["a", "b"]}, {"a": 2, "b": 8}, {"a": 3, "b": 8}),
        ({"divides": ["a", "b"]}, {"a": 2, "b": 0}, {"a": 0, "b": 8}),
        ({"at_most": ["a", "b"]}, {"a": 2, "b": 2}, {"a": 3, "b": 2}),
        ({"forbids": {"a": ["x"], "b": [1, 2]}}, {"a": "x", "b": 3}, {"a": "x", "b": 2}),
        ({"forbids": {"a": [1]}}, {"a": True}, {"a": 1}),
    ],
)
def test_a_rule_holds_or_says_what_is_wrong(raw, good, bad):
    rule = RULES.validate_python([raw])[0]
    assert rule.violation(good) is None
    assert "a" in rule.violation(bad)
    assert set(rule.names) <= {"a", "b"}
    assert rule.violation({}) is None  # inactive parameters break no rule


@pytest.mark.parametrize(
    "raw", [{"eval": "a < b"}, {"divides": ["a"]}, {"divides": ["a", "b"], "at_most": ["a", "b"]}, "a < b"]
)
def test_anything_else_is_refused(raw):
    with pytest.raises(ValidationError):
        RULES.validate_python([raw])


def test_a_rule_may_speak_of_a_config_value_outside_the_space():
    config = SpaceConfig.model_validate({"label": {"type": "int", "low": 1, "high": 96}})
    rules = RULES.validate_python([{"at_most": ["label", "input"]}])
    space = SearchSpace.of(config, rules, {"input": 48})
    assert space.problems({"label": 60}) == ["label = 60 is above input = 48"]
    with pytest.raises(ConfigError, match="input"):
        SearchSpace.of(config, rules)


def test_rules_read_back_what_they_dump():
    rules = RULES.validate_python([{"divides": ["a", "b"]}, {"at_most": ["a", "b"]}, {"forbids": {"a": [1]}}])
    assert RULES.validate_python(RULES.dump_python(rules, mode="json")) == rules
