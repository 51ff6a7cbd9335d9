"""What a rerun takes over, and what it refuses to change."""

from typing import Any

import pytest

from agentlab.errors import RunMismatchError, UnknownNameError
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.parent import check_unchanged, following


def config(*stages: dict[str, Any]) -> PipelineConfig:
    made = [{"model": "m", **stage} for stage in stages]
    return PipelineConfig.model_validate({"models": {"m": {"file": "m.gguf"}}, "base_pipeline": {"stages": made}})


FORK = ({"id": "a"}, {"id": "b"}, {"id": "c", "input_from": "a"}, {"id": "d", "input_from": ["b", "c"]})


def test_what_follows_from_a_stage_runs_again() -> None:
    stages = config(*FORK).stages
    assert following(stages, "b") == {"b", "d"}
    assert following(stages, "a") == {"a", "b", "c", "d"}


def test_a_mention_in_a_template_is_a_dependence() -> None:
    stages = config({"id": "a"}, {"id": "b", "input_from": "input", "prompt": "{{ stages.a.output }}"}).stages
    assert following(stages, "a") == {"a", "b"}


def test_stages_of_a_loop_run_again_together() -> None:
    loop = {"condition": "true", "start": "a"}
    stages = config({"id": "a"}, {"id": "b", "repeat_until": loop}, {"id": "c", "input_from": "a"}).stages
    assert following(stages, "b") == {"a", "b", "c"}


def test_an_unknown_stage_is_named() -> None:
    with pytest.raises(UnknownNameError):
        following(config(*FORK).stages, "z")


def test_a_change_before_the_first_stage_is_refused() -> None:
    changed = config({"id": "a", "max_tokens": 5}, *FORK[1:])
    with pytest.raises(RunMismatchError, match="a was changed"):
        check_unchanged(config(*FORK), changed, "b")
    check_unchanged(config(*FORK), changed, "a")
