"""What is tried after a failure: what harms least first, and never without end."""

import pytest

from agentlab.errors import (
    AgentlabError,
    ContextOverflowError,
    LLMTimeoutError,
    ModelFileError,
    SchemaError,
    WorkerDiedError,
)
from agentlab.gguf.worker_errors import out_of_memory
from agentlab.pipeline.settings import Engine, Rung, RungFailure, next_rung, shorten_text
from agentlab.pipeline.stage_config import Stage

STAGE = Stage(id="a", model="m")
NO_MEMORY = ModelFileError("llama.cpp cannot load m.gguf: failed to allocate buffer of size 1234")


def engine(gpu_layers: int = 0) -> Engine:
    return Engine(context=2048, batch=128, gpu_layers=gpu_layers, flash=True, kv_type="f16")


def climbed(error: AgentlabError, rung: Rung, stage: Stage = STAGE, **details: object) -> list[str]:
    """What is changed, one after another, while the error stays."""
    changes = []
    while (following := next_rung(rung, RungFailure(error, **details), stage)) is not None:  # type: ignore[arg-type] # fields
        changes.append(following.change)
        rung = following
        assert len(changes) < 100
    return changes


def test_the_example_is_a_want_of_memory() -> None:
    assert out_of_memory(NO_MEMORY)
    assert not out_of_memory(SchemaError("no"))


def test_want_of_memory_gives_up_little_by_little() -> None:
    assert climbed(NO_MEMORY, Rung(engine(), 64), others=True) == [
        "no other model loaded",
        "batch size 64",
        "batch size 32",
        "an 8-bit KV cache",
        "a context of 1024",
        "a context of 512",
        "a context of 256",
    ]


def test_a_gpu_gets_fewer_layers_first() -> None:
    assert climbed(NO_MEMORY, Rung(engine(-1), 64))[:7] == [
        "32 GPU layers",
        "16 GPU layers",
        "8 GPU layers",
        "4 GPU layers",
        "2 GPU layers",
        "1 GPU layers",
        "0 GPU layers",
    ]


def test_an_answer_that_breaks_off_may_be_longer_once() -> None:
    assert climbed(SchemaError("not JSON"), Rung(engine(), 64), cut=True) == ["twice as many tokens", "a new seed"]
    assert climbed(SchemaError("not JSON"), Rung(engine(), 64)) == ["a new seed", "a new seed"]


def test_a_crash_is_tried_once_more() -> None:
    assert climbed(WorkerDiedError("it crashed"), Rung(engine(), 64)) == ["a new process"]


def test_a_fault_of_the_engine_is_answered_by_its_plain_settings() -> None:
    died = WorkerDiedError("The process that holds m died: llama.cpp crashed (SIGSEGV).")
    assert climbed(died, Rung(engine(), 64)) == ["default engine settings", "a new process"]
    killed = WorkerDiedError("The process that holds m died: it was killed (SIGKILL).")
    assert climbed(killed, Rung(engine(), 64)) == ["a new process"]


@pytest.mark.parametrize("error", [LLMTimeoutError("late"), ContextOverflowError("long")])
def test_what_would_fail_again_is_not_tried_again(error: AgentlabError) -> None:
    assert climbed(error, Rung(engine(), 64)) == []


def test_a_long_prompt_gets_a_larger_context_up_to_what_the_model_was_trained_with() -> None:
    stage = Stage(id="a", model="m", overflow="grow")
    assert climbed(ContextOverflowError("long"), Rung(engine(), 64), stage, trained=5000) == [
        "a context of 4096",
        "a context of 5000",
    ]


def test_or_it_loses_its_middle() -> None:
    stage = Stage(id="a", model="m", overflow="truncate")
    changes = climbed(ContextOverflowError("long"), Rung(engine(), 64), stage)
    assert changes[:2] == ["80% of the input", "64% of the input"]
    assert len(changes) == 31


def test_shortening_keeps_both_ends() -> None:
    assert shorten_text("abcdefghij", 0.4) == "ab\n[...]\nij"
    assert shorten_text("abc", 1.0) == "abc"
    assert shorten_text("abc", 0.01) == "\n[...]\n"
