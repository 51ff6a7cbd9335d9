"""Chat templates are strangers' code: whatever one computes, it ends soon, and the next one is rendered."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentlab.workers import templates
from agentlab.workers.templates import TemplateRefusesError, render, render_chat

HI = [{"role": "user", "content": "Hi"}]
PLAIN = "{% for m in messages %}{{ bos_token }}{{ m.content }}{% endfor %}"
LOOPS = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + "{% endfor %}" * 3
DOUBLED = (
    "{% set all = namespace(x=[1], y=[1]) %}"
    "{% for i in range(60) %}{% set all.x = [all.x, all.x] %}{% set all.y = [all.y, all.y] %}{% endfor %}"
    "{{ all.x == all.y }}"  # one comparison, in C
)


def test_a_template_is_rendered_as_transformers_does() -> None:
    from tests.unit.train.chats import CHATML, bytewise

    talk = [*HI, {"role": "assistant", "content": "<b> \ud800 é"}]
    extra = "{% generation %}{{ messages | tojson }}{{ tools }}{% endgeneration %}"
    tokenizer = bytewise(CHATML + extra + "{% for i in [1, 2] %}{% break %}{% endfor %}")
    for prompt in (True, False):
        theirs = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt)
        assert render_chat(tokenizer, talk, prompt=prompt) == theirs


@pytest.mark.parametrize("endless", [LOOPS, DOUBLED])
def test_a_template_that_computes_for_ever_is_stopped_and_the_next_one_rendered(endless: str) -> None:
    began = time.process_time()
    with pytest.raises(TemplateRefusesError, match=r"it takes more than 2 seconds"):
        render(endless, HI, {})
    assert time.process_time() - began < 1  # the time is the other process's
    assert render(PLAIN, HI, {"bos_token": "<s>"}) == "<s>Hi"


@pytest.mark.parametrize(
    "huge",
    [
        "{{ 'a' * 10**10 }}",
        "{{ '%0999999999d' % 1 }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ 'a' | center(10**11) }}",
        "{{ [0] * 10**10 }}",
        "{% set all = namespace(x='aaaa') %}{% for i in range(60) %}{% set all.x = all.x ~ all.x %}{% endfor %}",
    ],
)
def test_a_template_that_wants_all_memory_gets_none(huge: str) -> None:
    with pytest.raises(TemplateRefusesError, match="it takes more than 512 MiB of memory"):
        render(huge, HI, {})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for", "unexpected 'end of template'"),
        ("{% break %}", "outside loop"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ raise_exception('closed') }}", "closed"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "maximum recursion"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_what_goes_wrong_in_a_template_is_said(template: str, message: str) -> None:
    with pytest.raises(TemplateRefusesError, match=message):
        render(template, HI, {})


def test_threads_get_their_own_answers() -> None:
    talks = [[{"role": "user", "content": str(n)}] for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda talk: render(PLAIN, talk, {}), talks)) == [str(n) for n in range(40)]


def test_a_process_that_is_gone_is_replaced() -> None:
    render(PLAIN, HI, {})
    channel = templates._RENDERER._channel
    assert channel is not None
    channel.kill()
    assert render(PLAIN, HI, {}) == "Hi"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_starts_its_own_process() -> None:
    render(PLAIN, HI, {})
    before = templates._RENDERER
    number = os.fork()
    if not number:
        os._exit(0 if templates._RENDERER is not before else 1)
    assert os.waitpid(number, 0)[1] == 0
