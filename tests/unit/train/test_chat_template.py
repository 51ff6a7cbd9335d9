"""A template is tried once, before any conversation: does it write answers, and does a token of its own end them."""

import pytest
from transformers.utils import chat_template_utils

from agentlab.errors import ModelFileError
from agentlab.hf.clock import OneDay
from agentlab.train import chat_template
from agentlab.train.chat_template import ChatTemplate, TemplateRefusesError
from agentlab.train.conversations import Turn
from tests.unit.train.chats import CHATML, LLAMA, MISTRAL, bytewise

QUESTION = Turn("user", "Q")


@pytest.mark.parametrize(
    ("template", "eos", "tail", "end"),
    [
        (CHATML, "<|im_end|>", "<|im_end|>\n", "<|im_end|>"),
        (LLAMA, "</s>", "<|eot_id|>", "<|eot_id|>"),  # its own marker, and not the tokenizer's end of text
        (MISTRAL, "</s>", "</s>", "</s>"),
        (MISTRAL.replace("{{ eos_token }}", " {{ eos_token }} "), "</s>", " </s> ", " </s>"),
    ],
)
def test_the_end_of_a_turn_is_what_the_template_writes_behind_an_answer(template, eos, tail, end):
    tokenizer = bytewise(template, eos=eos)
    found = ChatTemplate(tokenizer)
    assert (found.tail, found.end) == (tail, end)
    assert tokenizer.decode([found.end_token]) == end.strip()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        (CHATML.replace("<|im_end|>", "### "), "never learns to stop"),
        (MISTRAL.replace("{{ eos_token }}", ""), "writes '', and no token of its own"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "leaves answers out"),
        ("{{ raise_exception('closed') }}", "refuses a question and its answer: closed"),
        ("{% for m in messages %}{{ m.content.nothing.more }}{% endfor %}", "refuses a question and its answer"),
        ("{{ ''.__class__.__mro__ }}", "refuses a question and its answer"),
        ("{% for", "refuses a question and its answer"),
        ("{{ 1 / 0 }}", "answer: division by zero"),
        ("{% for i in range(10**9) %}{% endfor %}", "answer: Range too big"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "answer: maximum recursion"),
        ("{{ 'a' * 10**11 }}", "answer: MemoryError"),
        ("{{ ('a' * 2 * 10**9) | length }}", "answer: MemoryError"),
        ("{% break %}", "refuses a question and its answer"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused_at_once(template, message):
    with pytest.raises(ModelFileError, match=message):
        ChatTemplate(bytewise(template))


ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 9 ** (9 ** 9) }}",  # a constant: computed before anything is rendered
]


@pytest.mark.parametrize("endless", ENDLESS)
def test_a_template_that_runs_for_ever_is_stopped(endless, monkeypatch):
    monkeypatch.setattr(chat_template, "_SECONDS", 0.2)
    with pytest.raises(ModelFileError, match=r"takes more than 0\.2 seconds"):
        ChatTemplate(bytewise(endless))


def test_the_day_is_the_same_every_day_and_the_same_as_when_the_model_answers():
    clock = chat_template_utils.datetime
    template = ChatTemplate(bytewise("{{ strftime_now('%Y-%m-%d %H:%M') }} " + CHATML))
    day = OneDay.now().strftime("%Y-%m-%d %H:%M")
    assert template.render([QUESTION]).startswith(day)
    assert chat_template_utils.datetime is clock


def test_the_clock_goes_on_after_a_refusal():
    clock = chat_template_utils.datetime
    template = ChatTemplate(bytewise("{% if messages | length == 1 %}{{ raise_exception('no') }}{% endif %}" + CHATML))
    with pytest.raises(TemplateRefusesError):
        template.render([QUESTION])
    assert chat_template_utils.datetime is clock
