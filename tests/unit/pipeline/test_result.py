"""What events of a run come to: per stage, per model, and what is said while it goes on."""

from typing import Any

from agentlab.pipeline.result import ItemResult, PipelineResult, model_results, narrate, silent, stage_results
from agentlab.runs.document import Code, Text
from agentlab.runs.events import Event

ANSWER = {
    "finish": "stop",
    "model": "m",
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "reused_tokens": 60,
    "prefill_seconds": 0.4,
    "decode_seconds": 2.0,
    "logprob": None,
    "cost_usd": None,
}


def event(type_: str, id_: str, **data: Any) -> Event:
    return Event(0, 0.0, type_, id_, data)


def answered(id_: str, source: str = "model", **answer: Any) -> Event:
    return event("call.answered", id_, **{"from": source}, answer={**ANSWER, **answer}, sha="", key="")


def test_only_what_a_model_answered_counts_for_speed() -> None:
    (row,) = stage_results(["a"], [answered("a/m"), answered("0002:a@2/m#2"), answered("a/n:7b", "cache")])
    assert (row.answers, row.asked, row.failed) == (3, 2, 0)
    assert row.prefill_rate == 80 / 0.8
    assert row.decode_rate == 40 / 4.0


def test_what_nobody_counted_is_unknown() -> None:
    (row,) = stage_results(["a"], [answered("a", prompt_tokens=None, prefill_seconds=None, reused_tokens=None)])
    assert row.prompt_tokens is None
    assert row.prefill_rate is None


def test_failures_are_counted() -> None:
    (row,) = stage_results(["a"], [event("call.failed", "a", kind="X", message="", model="m", rung="none")])
    assert (row.answers, row.failed) == (0, 1)


def test_loads_of_a_model_add_up_and_its_peak_is_the_highest() -> None:
    load = {"seconds": 0.5, "resident_bytes": 10, "estimate_bytes": 12}
    events = [
        event("model.loaded", "m", **load),
        event("model.evicted", "m", seconds=0.1, peak_bytes=30),
        event("model.loaded", "m", **{**load, "resident_bytes": 11}),
        event("model.evicted", "m", seconds=0.1, peak_bytes=20),
    ]
    (row,) = model_results(events)
    assert (row.loads, row.load_seconds, row.resident_bytes, row.peak_bytes) == (2, 1.0, 11, 30)


def result(*items: ItemResult) -> PipelineResult:
    return PipelineResult(items=list(items), stages=[], models=[], loads=0, reused=0)


def test_one_answer_is_all_that_is_shown() -> None:
    assert result(ItemResult(name="", answer="so")).blocks() == [Code("so")]


def test_of_a_batch_the_failures_are_shown() -> None:
    blocks = result(ItemResult(name="0001", answer="a"), ItemResult(name="0002", answer="", error="late")).blocks()
    assert blocks[0] == Text("1 of 2 inputs were answered; see outputs.jsonl.")


def test_an_answer_is_told_in_a_line_and_one_of_a_batch_only_on_request() -> None:
    alone, batch = narrate(answered("draft")), narrate(answered("0003:draft"))
    assert alone is not None
    assert alone.line == "  draft: m, 20 tokens, 10/s, 60 of 100 prompt tokens cached"
    assert batch is not None
    assert (batch.line, batch.detail) == (None, "0003:draft")


def test_a_model_name_with_a_colon_makes_no_batch() -> None:
    narration = narrate(answered("draft/qwen:7b", "cache"))
    assert narration is not None
    assert narration.line == "  draft/qwen:7b: reused from an earlier run"


def test_text_is_passed_on_as_it_comes() -> None:
    narration = narrate(event("call.text", "draft", text="The "))
    assert narration is not None
    assert narration.piece == "The "
    assert narrate(event("call.text", "0001:draft", text="The ")) is None


def test_a_model_that_never_answered_is_told_with_the_reason() -> None:
    events = [event("call.failed", "a", model="m", message="it died (SIGILL)\nlog", kind="", rung="none")] * 3
    assert silent(events) == ["The model m answered 0 of 3 calls: it died (SIGILL)"]
    assert silent([*events, answered("a")]) == []
    result = PipelineResult(items=[], stages=[], models=[], loads=0, reused=0, silent=silent(events))
    assert Text(silent(events)[0]) in result.blocks()
    assert Text(silent(events)[0]) in result.tables()
    narration = narrate(event("model.silent", "", said=silent(events)[0]))
    assert narration is not None
    assert "0 of 3" in (narration.line or "")
    settled = event("engine.settled", "m", flash=False, repack=False, why="repacked weights: it dies (SIGILL)")
    assert "fallback settings" in (getattr(narrate(settled), "line", None) or "")
