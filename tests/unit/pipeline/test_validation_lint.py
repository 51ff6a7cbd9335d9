"""Advice on a pipeline that would run, but dearly or for nothing."""

import pytest

from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.validation import lint


def stages(*stage_fields):
    return [Stage.model_validate({"id": f"s{number}", **fields}) for number, fields in enumerate(stage_fields, 1)]


def remarks(*stage_fields, temperature=0.7):
    return lint(stages(*stage_fields), lambda _: temperature)


FIRST = {"model": "m", "input_from": "input"}
LAST = {"model": "other", "input_from": ["s1", "s2"]}


def test_a_good_pipeline_gets_no_advice():
    assert not remarks(
        {**FIRST, "prompt": "{{ input }}\n\nSummarise."},
        {**FIRST, "prompt": "{{ input }}\n\nList the names."},
        LAST,
    )


@pytest.mark.parametrize(
    ("first", "second", "phrase"),
    [
        ({"prompt": "Sum up: {{ input }}"}, {"prompt": "List: {{ input }}"}, "their prompts differ before the input"),
        (
            {"system": "You sum up."},
            {"system": "You list."},
            "their system messages differ",
        ),
        (
            {"system": "A", "prompt": "{% if params.a %}{{ input }}{% endif %}"},
            {"prompt": "x{{ input }}"},
            "differ and their prompts differ",
        ),
    ],
)
def test_a_shared_document_belongs_first(first, second, phrase):
    ((stage, sentence),) = remarks({**FIRST, **first}, {**FIRST, **second}, LAST)
    assert stage == "s2"
    assert sentence.startswith("s1 and s2 pass the same input to m, but ")
    assert phrase in sentence


@pytest.mark.parametrize(
    "second",
    [
        {"model": "other", "input_from": "input", "prompt": "List: {{ input }}"},
        {"model": "m", "input_from": "s1", "prompt": "List: {{ input }}"},
        {"model": "m", "input_from": "input", "prompt": "List: {{ item.text }}"},
        {"model": "m", "input_from": "input", "prompt": "Sum up: {{ input }}, briefly"},
    ],
)
def test_another_model_another_input_or_the_same_start_is_fine(second):
    assert not remarks({**FIRST, "prompt": "Sum up: {{ input }}"}, second, LAST)


def test_models_of_a_multi_stage_count_each():
    ((_, sentence),) = remarks(
        {"models": ["a", "b"], "aggregation": "concat", "prompt": "1 {{ input }}"},
        {"model": "b", "input_from": "input", "prompt": "2 {{ input }}"},
        LAST,
    )
    assert "pass the same input to b" in sentence


@pytest.mark.parametrize("fields", [{"model": "m", "samples": 3}, {"models": ["m", "m", "m"]}])
def test_several_answers_at_temperature_0_are_one(fields):
    ((stage, sentence),) = remarks({**fields, "aggregation": "concat"}, temperature=0)
    assert stage == "s1"
    assert "the same answer 3 times" in sentence
    assert not remarks({**fields, "aggregation": "concat"}, temperature=0.1)
    assert not remarks({"models": ["m", "n"], "aggregation": "concat"}, temperature=0)


def test_texts_of_a_schema_need_an_end():
    text = {"type": "string"}
    schema = {
        "type": "object",
        "properties": {
            "why": text,
            "vote": {"enum": ["A"], **text},
            "names": {"type": "array", "items": {"type": ["string", "null"]}},
            "short": {**text, "maxLength": 9},
            "maxLength": {"anyOf": [text, {"type": "null"}]},
        },
    }
    ((_, sentence),) = remarks({"model": "m", "response_schema": schema})
    assert "(/why, /names/items, /maxLength/0)" in sentence
    del schema["properties"]["why"], schema["properties"]["names"], schema["properties"]["maxLength"]
    assert not remarks({"model": "m", "response_schema": schema})


@pytest.mark.parametrize(
    "third",
    [
        {"input_from": ["s1", "s2"]},
        {"input_from": "s2", "prompt": "{{ stages.s1.output }}"},
        {"input_from": "s2", "system": "{{ stages['s1'].json }}"},
        {"input_from": "s2", "when": "not stages.s1.skipped"},
        {"input_from": "s2", "repeat_until": {"condition": "stages.s1.json.ok"}},
    ],
)
def test_every_way_of_reading_an_answer_counts(third):
    assert not remarks(FIRST, {"model": "n", "input_from": "input"}, {"model": "n", **third})


@pytest.mark.parametrize(
    "stage_fields",
    [
        [{"model": "m", "when": "params.go"}],
        [{"model": "m", "when": "params.go"}, {"model": "n"}],
        [{"model": "m", "when": "params.go"}, {"model": "n", "input_from": ["input", "s1"], "when": "params.stop"}],
    ],
)
def test_a_pipeline_that_may_come_to_nothing(stage_fields):
    ((stage, sentence),) = remarks(*stage_fields)
    assert stage == f"s{len(stage_fields)}"
    assert sentence.startswith("every stage may be skipped")


@pytest.mark.parametrize(
    "stage_fields",
    [
        [{"model": "m"}, {"model": "n", "when": "params.go"}],
        [{"model": "m", "when": "params.go"}, {"model": "n", "input_from": ["input", "s1"]}],
    ],
)
def test_one_stage_that_always_answers_is_enough(stage_fields):
    assert not remarks(*stage_fields)


def test_an_answer_that_nobody_reads():
    ((stage, sentence),) = remarks(FIRST, {"model": "n", "input_from": "input"}, {"model": "n", "input_from": "s2"})
    assert stage == "s1"
    assert "no stage reads the answer of s1" in sentence


def test_a_critic_whose_answer_ends_a_loop_is_read():
    critic = {"model": "n", "repeat_until": {"condition": "'DONE' in output", "start": "s1"}}
    assert not remarks(
        {"model": "m", "prompt": "{{ input }}{{ previous.s2.output }}"}, critic, {"model": "m", "input_from": "s1"}
    )
