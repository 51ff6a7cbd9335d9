"""What the benchmark can be told, and what it refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from agentlab.bench.config import BenchConfig

LLM = {
    "providers": {"script": {"kind": "scripted"}},
    "models": {name: {"provider": "script", "id": name} for name in ("one", "two", "spare")},
    "roles": {"primary": ["one", "two"]},
}


def test_without_targets_every_model_that_a_role_names_is_measured() -> None:
    assert BenchConfig.model_validate({"llm": LLM}).chosen_targets() == ("one", "two")


def test_targets_are_models_and_strategies() -> None:
    config = BenchConfig.model_validate({"llm": LLM, "targets": ["spare", "strategy:best_of_two"]})
    assert config.chosen_targets() == ("spare", "strategy:best_of_two")


def test_scripts_of_the_mock_server_stand_in_for_the_models() -> None:
    assert BenchConfig.model_validate({"llm": LLM, "mock": ["ok-ttft20", "500"]}).chosen_targets() == (
        "ok-ttft20",
        "500",
    )


@pytest.mark.parametrize(
    ("config_fields", "complaint"),
    [
        ({"targets": ["ona"]}, "no target named 'ona'.*one"),
        ({"targets": ["strategy:best_of_too"]}, "strategy:best_of_two"),
        ({"targets": ["one", "one"]}, "more than once"),
        ({"mock": ["nonsense-9"]}, "does not begin with an action"),
        ({"load": {"mode": "poisson"}}, "needs `rates`"),
        ({"load": {"rates": [1.0]}}, "apply only to the modes poisson and constant"),
        ({"load": {"mode": "sweep", "sweep_over": "concurrency"}}, "needs an objective"),
        ({"load": {"concurrency": []}}, "at least 1 item"),
        ({"load": {"concurrency": [0]}}, "greater than or equal to 1"),
        ({"load": {"faults": {"share": 1.5}}}, "less than or equal to 1"),
        ({"load": {"requests": 100_000, "output_tokens": 1000}}, "would not fit in memory"),
        ({"load": {"unknown": 1}}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused(config_fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        BenchConfig.model_validate({"llm": LLM, **config_fields})
