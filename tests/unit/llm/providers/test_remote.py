"""A word that a model refuses is left out from then on; anything else that is refused stays refused."""

import pytest

from agentlab.errors import BadRequestError
from agentlab.llm.providers.remote import RefusableFields

WORDS = {"max_tokens": "max_completion_tokens", "top_p": None, "temperature": None}
BODY = {"model": "m", "max_tokens": 9, "temperature": 0.0, "top_p": 0.5}


@pytest.mark.parametrize(
    ("complaint", "expected_body"),
    [
        (
            "HTTP 400: Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            {"model": "m", "max_completion_tokens": 9, "temperature": 0.0, "top_p": 0.5},
        ),
        ("HTTP 400: `temperature` is deprecated for this model.", {"model": "m", "max_tokens": 9, "top_p": 0.5}),
        (
            "HTTP 400: `temperature` and `top_p` cannot both be specified for this model.",
            {"model": "m", "max_tokens": 9, "temperature": 0.0},
        ),
        (
            "HTTP 422: [{'loc': ['body', 'top_p'], 'msg': 'Extra inputs are not permitted'}]",
            {"model": "m", "max_tokens": 9, "temperature": 0.0},
        ),
    ],
)
def test_a_refused_word_is_learnt(complaint, expected_body):
    dialect = RefusableFields(WORDS)
    assert dialect.put(BODY) == BODY
    assert dialect.learn(BODY, BadRequestError(complaint))
    assert dialect.put(BODY) == expected_body
    assert dialect.put({**BODY, "model": "other"}) == {**BODY, "model": "other"}


def test_the_same_refusal_again_teaches_nothing_so_asking_comes_to_an_end():
    dialect, refusal = RefusableFields(WORDS), BadRequestError("`temperature` is deprecated for this model.")
    assert dialect.learn(BODY, refusal)
    assert not dialect.learn(dialect.put(BODY), refusal)


@pytest.mark.parametrize(
    "complaint",
    [
        "temperature: must be at most 2",
        "max_tokens is too large: this model gives at most 4096 tokens",
        "this model does not support tools",
        "messages: unsupported role",
    ],
)
def test_another_complaint_is_not_taken_for_a_refusal(complaint):
    dialect = RefusableFields(WORDS)
    assert not dialect.learn(BODY, BadRequestError(complaint))
    assert dialect.put(BODY) == BODY
