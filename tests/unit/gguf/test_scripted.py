"""The scripted engine behaves like a model that knows its lines."""

import pytest

from agentlab.errors import LLMCancelledError, WorkerDiedError
from agentlab.workers.chat import ChatEngine, EngineRequest
from tests.unit.gguf.scripted import ScriptedEngine

ASK = EngineRequest([{"role": "user", "content": "how are you"}])


def test_it_streams_its_lines_in_turn_and_starts_over() -> None:
    engine: ChatEngine = ScriptedEngine(["one two", "three"])
    answers = [list(engine.chat(ASK)) for _ in range(3)]
    assert ["".join(chunk.text for chunk in chunks) for chunks in answers] == ["one two", "three", "one two"]
    last = answers[0][-1]
    assert (last.finish, last.prompt_tokens, last.completion_tokens) == ("stop", 3, 2)


def test_it_stops_at_the_token_limit() -> None:
    chunks = list(ScriptedEngine(["a b c d"]).chat(EngineRequest(ASK.messages, max_tokens=2)))
    assert "".join(chunk.text for chunk in chunks) == "a b "
    assert chunks[-1].finish == "length"


def test_a_scripted_fault_is_raised_and_the_next_call_works() -> None:
    engine = ScriptedEngine([WorkerDiedError("it died"), "fine"])
    with pytest.raises(WorkerDiedError):
        list(engine.chat(ASK))
    assert next(iter(engine.chat(ASK))).text == "fine"
    assert len(engine.requests) == 2


def test_it_can_be_cancelled() -> None:
    polls = iter([False, False, True])
    with pytest.raises(LLMCancelledError):
        list(ScriptedEngine(["a b c"]).chat(ASK, cancelled=lambda: next(polls)))


def test_a_script_is_not_empty() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ScriptedEngine([])


def test_it_is_loaded_ahead_of_its_first_call_or_by_it() -> None:
    engine = ScriptedEngine(["fine"])
    assert not engine.loaded
    assert engine.load() == engine.load()
    assert engine.loaded
    engine.close()
    assert not engine.loaded
    list(engine.chat(ASK))
    assert engine.loaded
    assert engine.measured() is None


def test_its_last_piece_knows_what_a_real_one_knows() -> None:
    last = list(ScriptedEngine(["fine"]).chat(EngineRequest(ASK.messages, logprob=True)))[-1]
    assert (last.reused_tokens, last.prefill_seconds, last.decode_seconds, last.logprob) == (0, 0.0, 0.0, -1.0)
    assert list(ScriptedEngine(["fine"]).chat(ASK))[-1].logprob is None
