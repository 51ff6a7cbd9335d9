"""What the events of a run tell, and that a stranger's folder does no harm."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.pipeline.branches.trace import Trace, item_of, stage_of, step_of, trace
from agentlab.runs.events import Event

IDS = ["draft", "draft/qwen:7b", "draft/qwen#2", "draft@2/=judge.1", "0003:draft", "0003:draft@12/a.b:c#3"]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def _event(number: int, type: str, id: str, **data: Any) -> Event:  # noqa: A002 - as in events.jsonl
    return Event(number, 0.0, type, id, data)


@pytest.mark.parametrize(
    ("call", "item", "step"),
    [
        ("draft", "", "draft"),
        ("draft/qwen:7b", "", "draft"),
        ("draft/qwen#2", "", "draft"),
        ("draft@2/=judge.1", "", "draft@2"),
        ("0003:draft", "0003", "0003:draft"),
        ("0003:draft@12/a.b:c#3", "0003", "0003:draft@12"),
    ],
)
def test_the_parts_of_an_id(call: str, item: str, step: str) -> None:
    assert (item_of(call), step_of(call), stage_of(call)) == (item, step, "draft")


def test_the_last_word_on_a_step_holds() -> None:
    run_trace = trace(
        [
            _event(0, "stage.finished", "draft", sha="1", status="failed", why={}, seconds=1.0),
            _event(1, "stage.finished", "draft", sha="2", status="done", why={"chosen": 0}),
        ]
    )
    assert [(step.sha, step.status, step.seconds) for step in run_trace.steps.values()] == [("2", "done", None)]


def test_calls_of_a_stage_and_of_one_of_its_steps() -> None:
    run_trace = trace([_event(n, "call.answered", id_, key="k", sha="s") for n, id_ in enumerate(IDS)])
    assert list(run_trace.of("draft").calls) == IDS
    assert list(run_trace.of("0003:draft").calls) == ["0003:draft"]
    assert run_trace.of("draf") == Trace()
    assert [call.id for call in run_trace.calls_by_step()["draft"]] == IDS[:3]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["call.answered", "call.failed", "stage.finished", "run.started"]),
            st.sampled_from(IDS) | st.text(max_size=5),
            st.dictionaries(st.sampled_from(["key", "sha", "from", "asked", "answer", "why", "seconds"]), JSON),
        )
    )
)
def test_any_shape_of_data_is_read(events: list[tuple[str, str, dict[str, Any]]]) -> None:
    run_trace = trace([Event(n, 0.0, type_, id_, data) for n, (type_, id_, data) in enumerate(events)])
    assert set(run_trace.calls) == {id_ for type_, id_, _ in events if type_ == "call.answered"}
    for call in run_trace.calls.values():
        assert isinstance(call.sha, str)
        assert stage_of(call.id) in call.id
