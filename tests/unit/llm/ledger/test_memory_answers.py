"""Answers survive the way into the file and back; what is too large or no answer does not."""

from dataclasses import replace

import pytest

from agentlab.llm.ledger.memory import MOST_BYTES, RecentAnswers, decode_answer, encode_answer
from agentlab.llm.types import ToolCall


def test_an_answer_comes_back_as_it_was(answer):
    full_answer = replace(answer("Grüße\0"), tool_calls=(ToolCall("1", "add", '{"a": 1}'),), finish="tool_calls")
    assert decode_answer(encode_answer(full_answer)) == full_answer


def test_only_small_answers_of_unicode_are_kept(answer):
    assert encode_answer(answer("x" * (MOST_BYTES - 1000)))
    assert encode_answer(answer("x" * (MOST_BYTES + 1))) is None
    assert encode_answer(answer("é" * (MOST_BYTES // 2 + 1))) is None
    assert encode_answer(answer("lone \ud83d")) is None


@pytest.mark.parametrize("body", [b"", b"\xff", b"null", b'{"text": 1}', b"[" * 10_000])
def test_whatever_else_lies_there_is_no_answer(body):
    assert decode_answer(body) is None


def test_the_newest_stay_when_there_are_too_many_or_too_large_ones(answer):
    store, body = RecentAnswers(), encode_answer(answer())
    for number in range(1_500):
        store.put(str(number), body)
    assert store.get("499") is None
    assert store.get("500") == answer()
    large = encode_answer(answer("x" * 200_000))
    for number in range(100):
        store.put(f"large {number}", large)
    assert store.get("1499") is None
    assert [store.get(f"large {number}") is not None for number in (0, 16, 17, 99)] == [False, False, True, True]
