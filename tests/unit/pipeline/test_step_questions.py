"""The questions of a step: their ids, their seeds, their messages."""

from typing import Any

import pytest

from agentlab.errors import ConfigError
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import PipelineStep, unroll
from agentlab.pipeline.state import Ended, PipelineItem
from agentlab.pipeline.step_questions import calls, derive_seed, messages

MODELS = {"m": {"file": "m.gguf"}, "n": {"file": "n.gguf", "overrides": {"temperature": 0.3}}}


def config(*stages: dict[str, Any], **fields: Any) -> PipelineConfig:
    return PipelineConfig.model_validate({"models": MODELS, "base_pipeline": {"stages": list(stages)}, **fields})


def first(given: PipelineConfig) -> PipelineStep:
    return unroll(given.stages)[0]


ITEM = PipelineItem("", "why?", {"id": 7}, {"tone": "kind"})


def test_one_answer_is_called_by_its_stage_and_several_by_model_and_number() -> None:
    one = config({"id": "a", "model": "m"})
    assert [call.id for call in calls(first(one), ITEM, "m", one)] == ["a"]
    many = config({"id": "a", "models": ["m", "n", "m"], "samples": 2, "aggregation": "concat"})
    assert [c.id for c in calls(first(many), ITEM, "m", many)] == ["a/m", "a/m#2", "a/m#3", "a/m#4"]
    assert [c.id for c in calls(first(many), ITEM, "n", many)] == ["a/n", "a/n#2"]


def test_every_sample_has_a_seed_of_its_own() -> None:
    setup = config({"id": "a", "model": "m", "samples": 3, "aggregation": "concat"})
    seeds = [call.seed for call in calls(first(setup), ITEM, "m", setup)]
    assert len(set(seeds)) == 3
    assert seeds == [call.seed for call in calls(first(setup), ITEM, "m", setup)]
    fixed = config({"id": "a", "model": "m", "samples": 3, "aggregation": "concat", "seed": 2**32 - 1})
    assert [call.seed for call in calls(first(fixed), ITEM, "m", fixed)] == [2**32 - 1, 0, 1]


def test_another_seed_of_the_run_gives_other_seeds() -> None:
    assert derive_seed(0, "a", 0) != derive_seed(1, "a", 0)
    assert derive_seed(0, "a", 0) != derive_seed(0, "b", 0)
    assert 0 <= derive_seed(0, "a", 0) < 2**32


def test_a_stage_then_a_model_then_the_defaults_say_how_an_answer_is_drawn() -> None:
    stage = {"id": "a", "model": "m", "fallback_models": ["n"], "max_tokens": 9}
    setup = config(stage, defaults={"temperature": 0.9, "max_tokens": 99})
    call = next(calls(first(setup), ITEM, "m", setup))
    assert call.models == ("m", "n")
    assert [call.drawings[name].temperature for name in "mn"] == [0.9, 0.3]
    assert [call.drawings[name].max_tokens for name in "mn"] == [9, 9]


def test_messages_come_from_templates_and_an_empty_system_message_is_left_out() -> None:
    setup = config({"id": "a", "model": "m", "prompt": "{{ item.id }} {{ params.tone }} {{ input }}"})
    assert messages(first(setup), ITEM, 1.0) == (("user", "7 kind why?"),)
    spoken = config({"id": "a", "model": "m", "system": "Be {{ params.tone }}."})
    assert messages(first(spoken), ITEM, 1.0) == (("system", "Be kind."), ("user", "why?"))


def test_a_part_of_the_input_is_what_the_prompt_shows() -> None:
    setup = config({"id": "a", "model": "m", "prompt": "<{{ input }}>"})
    assert messages(first(setup), PipelineItem("", "abcdefgh", {}, {}), 0.5) == (("user", "<ab\n[...]\ngh>"),)


def test_a_later_stage_reads_an_earlier_answer() -> None:
    setup = config({"id": "a", "model": "m"}, {"id": "b", "model": "m"})
    one = PipelineItem("", "why?", {}, {})
    one.record_end(first(setup), Ended("done", "so", "so"))
    assert messages(unroll(setup.stages)[1], one, 1.0) == (("user", "so"),)


@pytest.mark.parametrize(
    ("prompt", "text", "message"),
    [
        ("{{ input }}", "", "The prompt of stage a is empty: its input (input) is empty."),
        (" {{ input }}\n", " \n", "The prompt of stage a is empty: its input (input) is empty."),
        (
            "{% if input == 'z' %}x{% endif %}",
            "y" * 99,
            f"The prompt of stage a is empty: its template renders to an empty prompt for {'y' * 60!r}.",
        ),
    ],
)
def test_a_stage_without_a_question_fails(prompt: str, text: str, message: str) -> None:
    setup = config({"id": "a", "model": "m", "system": "Be kind.", "prompt": prompt})
    with pytest.raises(ConfigError) as caught:
        messages(first(setup), PipelineItem("", text, {}, {}), 1.0)
    assert caught.value.message == message
    assert "on_error" in (caught.value.hint or "")
