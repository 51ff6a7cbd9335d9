"""What a prompt shares with the one before is not read again, and no bit of the answer shows it.

The mean log-probability is a sum over all logits of all tokens: two that are equal to the last bit come from equal
logits.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, LLMCancelledError
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.process import WorkerEngine
from agentlab.models.store import find
from agentlab.workers.chat import EngineRequest

pytestmark = pytest.mark.model

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH = 64  # with flash attention: there a prefix that is cut anywhere else does change the last bits
WORDS = ["harbour", "hill", "boat", "light", "storm", "keeper", "stone", "water", "night", "bell", "rope", "sand"]
SCHEMA = {"type": "object", "properties": {"place": {"enum": ["hill", "harbour"]}}, "required": ["place"]}


@pytest.fixture(scope="module")
def engine() -> Iterator[WorkerEngine]:
    try:
        model = find("smollm2-135m", Workspace.locate(os.environ, REPOSITORY))
    except AgentlabError as error:
        pytest.fail(f"{error.message} Run `make setup`.")
    engine = WorkerEngine(EngineConfig(model, context=512, batch=BATCH, flash=True))
    yield engine
    engine.close()


def ask(content: str) -> EngineRequest:
    return EngineRequest([{"role": "user", "content": content}], max_tokens=5, temperature=0.8, seed=3, logprob=True)


def answer(engine: WorkerEngine, request: EngineRequest) -> tuple[str, float | None, int]:
    """(text, mean log-probability, tokens reused)."""
    chunks = list(engine.chat(request))
    return "".join(chunk.text for chunk in chunks), chunks[-1].logprob, chunks[-1].reused_tokens or 0


def fresh(engine: WorkerEngine, request: EngineRequest) -> tuple[str, float | None]:
    """The answer without anything to reuse."""
    engine.close()
    text, logprob, reused = answer(engine, request)
    assert reused == 0
    return text, logprob


def words(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(count)]


def test_an_answer_after_any_prompt_is_the_one_of_a_fresh_start(engine: WorkerEngine) -> None:
    rng = random.Random(5)
    prompt, chain, reused = words(rng, 200), list[list[str]](), 0
    for _ in range(4):
        shared = rng.randint(60, len(prompt))
        prompt = prompt[:shared] + words(rng, rng.randint(0, 60))
        chain.append(prompt)
    answers = [answer(engine, ask(" ".join(one))) for one in chain]
    for one, (text, logprob, reused_tokens) in zip(chain, answers, strict=True):
        assert reused_tokens % BATCH == 0
        reused += reused_tokens
        assert fresh(engine, ask(" ".join(one))) == (text, logprob)
    assert reused > 4 * BATCH


def test_the_same_prompt_again_is_read_from_its_last_batch_on(engine: WorkerEngine) -> None:
    request = ask("The harbour lies below the hill. " * 30)
    first = list(engine.chat(request))[-1]
    second = list(engine.chat(replace(request, seed=4)))[-1]
    assert first.prompt_tokens is not None
    assert second.reused_tokens == (first.prompt_tokens - 1) // BATCH * BATCH
    assert second.prefill_seconds is not None
    assert second.prefill_seconds < (first.prefill_seconds or 0) / 2


def test_neither_a_cancelled_call_nor_a_grammar_leaves_a_trace(engine: WorkerEngine) -> None:
    rng = random.Random(6)
    story = " ".join(words(rng, 150))
    request = ask(story + " What now?")
    expected = fresh(engine, request)

    stopped = engine.chat(replace(ask(story + " Who was it?"), max_tokens=60))
    next(stopped)
    stopped.close()  # type: ignore[attr-defined] # it is a generator
    *text_and_logprob, reused = answer(engine, request)
    assert tuple(text_and_logprob) == expected
    assert reused >= 2 * BATCH

    list(engine.chat(replace(ask(story + " Where?"), schema=SCHEMA, max_tokens=20)))
    *text_and_logprob, reused = answer(engine, request)
    assert tuple(text_and_logprob) == expected
    assert reused >= 2 * BATCH


def test_a_prompt_that_was_left_half_read_is_reused_as_far_as_it_was(engine: WorkerEngine) -> None:
    request = ask(" ".join(words(random.Random(7), 200)))
    expected = fresh(engine, request)
    pid, polls = engine.worker_pid, iter(range(1000))
    list(engine.chat(ask("Good day.")))
    with pytest.raises(LLMCancelledError):
        list(engine.chat(request, cancelled=lambda: next(polls) > 4))  # every 50 ms; a batch takes longer
    *text_and_logprob, reused = answer(engine, request)
    assert tuple(text_and_logprob) == expected
    assert 0 < reused < 200
    assert engine.worker_pid == pid
