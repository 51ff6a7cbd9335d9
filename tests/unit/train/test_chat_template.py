"""A template is tried once, before any conversation: does it write answers, and does a token of its own end them."""

import pytest

from agentlab.errors import ModelFileError
from agentlab.train.chat_template import ChatTemplate, TemplateRefusesError
from agentlab.train.conversations import ConversationTurn
from tests.unit.train.chats import CHATML, LLAMA, MISTRAL, bytewise

QUESTION = ConversationTurn("user", "Q")


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
    chat_template = ChatTemplate(tokenizer)
    assert (chat_template.tail, chat_template.end) == (tail, end)
    assert tokenizer.decode([chat_template.end_token]) == end.strip()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        (CHATML.replace("<|im_end|>", "### "), "never learns to stop"),
        (MISTRAL.replace("{{ eos_token }}", ""), "writes '' and no end-of-turn token"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "omits answers"),
        ("{{ raise_exception('closed') }}", "rejects a question-answer pair: closed"),
        ("{% for m in messages %}{{ m.content.nothing.more }}{% endfor %}", "rejects a question-answer pair"),
        ("{{ ''.__class__.__mro__ }}", "rejects a question-answer pair"),
        ("{% for", "rejects a question-answer pair"),
        ("{{ 1 / 0 }}", "pair: division by zero"),
        ("{% for i in range(10**9) %}{% endfor %}", "pair: Range too big"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "pair: maximum recursion"),
        ("{{ 'a' * 10**11 }}", "takes more than 512 MiB"),
        ("{{ ('a' * 2 * 10**9) | length }}", "takes more than 512 MiB"),
        ("{% break %}", "rejects a question-answer pair"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused_at_once(template, message):
    with pytest.raises(ModelFileError, match=message):
        ChatTemplate(bytewise(template))


def test_the_day_is_the_same_every_day():
    template = ChatTemplate(bytewise("{{ strftime_now('%Y-%m-%d %H:%M') }} " + CHATML))
    assert template.render([QUESTION]).startswith("2025-01-01 00:00")


def test_what_a_template_cannot_take_is_its_own_error():
    template = ChatTemplate(bytewise("{% if messages | length == 1 %}{{ raise_exception('no') }}{% endif %}" + CHATML))
    with pytest.raises(TemplateRefusesError, match="no"):
        template.render([QUESTION])
