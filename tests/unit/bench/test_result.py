"""What a benchmark says while it runs."""

from agentlab.bench.result import narrate
from agentlab.runs.events import Event


def test_a_finished_stage_is_one_line() -> None:
    data = {"target": "m", "load": "4 at a time", "answered": 9, "requests": 10, "request_rate": 3.14159}
    narration = narrate(Event(0, 0.0, "stage.finished", "s", {**data, "ttft_ms": 61.83, "e2e_ms": 1852.0}))
    assert narration is not None
    assert narration.line == "  m  4 at a time: 9 of 10 answered, 3.142/s, first token 61.8 ms, last 1.85 s"
    silent = narrate(Event(0, 0.0, "stage.finished", "s", {**data, "answered": 0, "ttft_ms": None, "e2e_ms": None}))
    assert silent is not None
    assert silent.line is not None
    assert silent.line.endswith("no answer")
    assert narrate(Event(0, 0.0, "something.else")) is None
