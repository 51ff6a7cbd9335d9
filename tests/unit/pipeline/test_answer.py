"""A key is the question: equal for equal questions, and for no others."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.pipeline.answer import PipelineQuestion, canonical, decode_text, encode_text, key_of, sha_of

ASKED = PipelineQuestion(
    messages=(("system", "Be brief."), ("user", "Why is the sky blue?")),
    model="small",
    fingerprint="sha256:00",
    numerics={"flash": True, "kv_type": "f16", "batch": 128, "gpu_layers": 0, "build": "0.3.34 avx2"},
    temperature=0.7,
    top_p=0.9,
    max_tokens=64,
    seed=7,
    stop=("END",),
    schema={"type": "object", "required": ["a"]},
    logprob=True,
)
OTHER: dict[str, Any] = {
    "messages": (("system", "Be brief."), ("user", "Why is the sky blue")),
    "model": "large",
    "fingerprint": "sha256:01",
    "numerics": {**ASKED.numerics, "batch": 64},
    "temperature": 0.2,
    "top_p": None,
    "max_tokens": 65,
    "seed": None,
    "stop": ("EN", "D"),
    "schema": None,
    "logprob": False,
}
# any text, halves of characters included
TEXT = st.text(st.characters(exclude_categories=()), max_size=6)
FEW = st.sampled_from(["", "a", "b", "ab", "é", "\ud83d\ude00", "\U0001f600", '","'])
QUESTIONS = st.builds(
    PipelineQuestion,
    messages=st.lists(st.tuples(FEW, FEW), max_size=2).map(tuple),
    model=FEW,
    fingerprint=FEW,
    numerics=st.dictionaries(FEW, FEW, max_size=1),
    temperature=st.sampled_from([0, 0.0, -0.0, 1, 1.0, 0.7]),
    top_p=st.sampled_from([None, 1, 1.0, 0.5]),
    max_tokens=st.integers(1, 2),
    seed=st.sampled_from([None, 0, 1]),
    stop=st.lists(FEW, max_size=1).map(tuple),
    schema=st.sampled_from([None, {}, {"a": 1, "b": 2}, {"b": 2, "a": 1}]),
    logprob=st.booleans(),
)


@given(QUESTIONS, QUESTIONS)
def test_keys_are_equal_for_equal_questions_only(first: PipelineQuestion, second: PipelineQuestion) -> None:
    same = replace(first, model="") == replace(second, model="")
    assert (key_of(first) == key_of(second)) == (same and json.dumps(first.schema) == json.dumps(second.schema))


@given(QUESTIONS)
def test_a_question_equals_its_copy(original: PipelineQuestion) -> None:
    assert key_of(replace(original, messages=tuple(original.messages), stop=tuple(original.stop))) == key_of(original)


def test_a_model_may_be_called_otherwise() -> None:
    assert key_of(replace(ASKED, model="another name")) == key_of(ASKED)


@pytest.mark.parametrize("field", [field.name for field in fields(PipelineQuestion) if field.name != "model"])
def test_every_other_field_matters(field: str) -> None:
    assert key_of(replace(ASKED, **{field: OTHER[field]})) != key_of(ASKED)


@given(st.dictionaries(TEXT, st.integers(), min_size=2), st.randoms())
def test_the_order_of_numerics_does_not_matter(mapping: dict[str, int], random: Any) -> None:
    items = list(mapping.items())
    random.shuffle(items)
    assert key_of(replace(ASKED, numerics=dict(items))) == key_of(replace(ASKED, numerics=mapping))


def test_the_order_of_a_schema_matters() -> None:
    """A grammar made of it wants the properties in this order, and what is written first decides what follows."""
    one, reordered = ({"properties": {key: {"type": "string"} for key in names}} for names in (("a", "b"), ("b", "a")))
    assert key_of(replace(ASKED, schema=one)) != key_of(replace(ASKED, schema=reordered))


@given(st.lists(st.tuples(TEXT, TEXT)).map(tuple), st.lists(st.tuples(TEXT, TEXT)).map(tuple))
def test_messages_do_not_run_into_each_other(first: Any, second: Any) -> None:
    same = key_of(replace(ASKED, messages=first)) == key_of(replace(ASKED, messages=second))
    assert same == (first == second)


def test_the_key_of_today_is_the_key_of_tomorrow() -> None:
    """Held fixed: another key for the same question would make every stored answer unreachable."""
    assert key_of(ASKED) == "aa4ab412b7841bf16c54a3f3b5c4657c19c2812d577583e95175b1ba0447670f"


def test_a_summary_is_small_and_holds_no_message() -> None:
    summary = replace(ASKED, messages=(("user", "secret " * 10_000),), schema={"enum": ["x" * 9_999]}).summary()
    assert len(canonical(summary)) < 1_000
    assert "secret" not in canonical(summary)
    assert summary["messages"] == [{"role": "user", "sha": sha_of("secret " * 10_000), "chars": 70_000}]


def test_a_number_that_is_not_finite_has_no_key() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        key_of(replace(ASKED, temperature=float("nan")))


@given(TEXT)
def test_every_text_can_be_written_and_read(text: str) -> None:
    assert decode_text(encode_text(text)) == text
