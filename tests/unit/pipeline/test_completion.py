"""A step's end from its candidates: who is left out, what an error becomes, and who is asked to decide."""

from collections.abc import Mapping
from typing import Any

import pytest

from agentlab.errors import AgentlabError, LLMTimeoutError
from agentlab.pipeline.answer import PipelineAnswer
from agentlab.pipeline.completion import complete_step
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import unroll
from agentlab.pipeline.state import Ended, PipelineItem
from agentlab.pipeline.step_questions import PipelineCall


def end(
    given: Mapping[str, str | AgentlabError], *, replies: tuple[str, ...] = (), model: str = "m", **fields: Any
) -> tuple[Ended, list[PipelineCall]]:
    """How a stage ends that got these candidates, and what was asked for that."""
    stage = {"id": "a", **({} if "models" in fields else {"model": "m"}), **fields}
    config = PipelineConfig.model_validate(
        {"models": {"m": {"file": "m.gguf"}}, "base_pipeline": {"stages": [stage]}, "seed": 3}
    )
    judge_calls: list[PipelineCall] = []

    def ask(call: PipelineCall) -> PipelineAnswer:
        judge_calls.append(call)
        return PipelineAnswer(replies[len(judge_calls) - 1], "stop", "m")

    answers = {
        name: text
        if isinstance(text, AgentlabError)
        else PipelineAnswer(text, "stop", model, logprob=-float(len(text)))
        for name, text in given.items()
    }
    return complete_step(unroll(config.stages)[0], PipelineItem("", "why?", {}, {}), answers, config, ask), judge_calls


LATE = LLMTimeoutError("too late")


def test_a_single_answer_is_the_stage_s_answer() -> None:
    assert end({"a": "so"})[0] == Ended("done", "so", "so", None, {})


def test_the_input_may_be_handed_on_with_the_answer() -> None:
    outcome, _ = end({"a": "so"}, output_mode="input_plus_answer")
    assert (outcome.answer, outcome.output) == ("so", "why?\n\nso")


def test_an_answer_with_a_schema_has_a_value() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert end({"a": '{"n": 7}'}, response_schema=schema)[0].json == {"n": 7}


def test_candidates_that_failed_are_left_out_and_named() -> None:
    outcome, _ = end({"a/m": "x", "a/m#2": LATE, "a/m#3": "y"}, samples=3, aggregation="concat")
    assert outcome.answer == "x\n\ny"
    assert outcome.why["failed"] == {"a/m#2": "too late"}


@pytest.mark.parametrize(
    ("fields", "status", "output"),
    [({"on_error": "skip"}, "skipped", ""), ({"on_error": "default", "default": "none"}, "default", "none")],
)
def test_when_all_have_failed_on_error_decides(fields: dict[str, Any], status: str, output: str) -> None:
    outcome, _ = end({"a": LATE}, **fields)
    assert (outcome.status, outcome.output) == (status, output)
    assert outcome.why["error"]["kind"] == "LLMTimeoutError"


def test_without_on_error_the_failure_goes_on() -> None:
    with pytest.raises(LLMTimeoutError):
        end({"a": LATE})


def test_a_judge_is_asked_in_both_orders() -> None:
    aggregation = {"method": "judge", "model": "m"}
    outcome, judge_calls = end(
        {"a/m": "good", "a/m#2": "bad"}, samples=2, aggregation=aggregation, replies=('{"best": "A"}', '{"best": "B"}')
    )
    assert [call.id for call in judge_calls] == ["a/=judge.1", "a/=judge.2"]
    first, second = (call.prompt(1.0)[-1][1] for call in judge_calls)
    assert first.index("good") < first.index("bad") or second.index("good") < second.index("bad")
    assert outcome.answer == ("good" if first.index("good") < first.index("bad") else "bad")
    assert all(call.drawings["m"].temperature == 0 for call in judge_calls)


def test_a_tied_vote_is_judged_over_the_tied_only() -> None:
    aggregation = {"method": "vote", "extract": {"kind": "number"}, "ties": "judge", "judge": "m"}
    candidates = {"a/m": "it is 1", "a/m#2": "it is 2", "a/m#3": "no idea"}
    outcome, judge_calls = end(
        candidates, samples=3, aggregation=aggregation, replies=('{"best": "A"}', '{"best": "A"}')
    )
    assert all("no idea" not in call.prompt(1.0)[-1][1] for call in judge_calls)
    assert outcome.why["tie_rule"] == "judge"
    assert outcome.answer == "it is 1"  # the judge wavered: the earlier one


def test_a_synthesis_shows_all_candidates_and_writes_the_answer() -> None:
    aggregation = {"method": "synthesis", "model": "m", "candidate_tokens": 16}
    outcome, synthesis_calls = end(
        {"a/m": "one " * 60, "a/m#2": "two"}, samples=2, aggregation=aggregation, replies=("both",)
    )
    prompt = synthesis_calls[0].prompt(1.0)[-1][1]
    assert "two" in prompt
    assert prompt.count("one ") < 60
    assert outcome.answer == "both"


def test_best_of_and_first_valid_and_a_template() -> None:
    assert end({"a/m": "long", "a/m#2": "ok"}, samples=2, aggregation="best_of")[0].answer == "ok"
    valid = {"method": "first_valid", "pattern": "^o"}
    assert end({"a/m": "long", "a/m#2": "ok"}, samples=2, aggregation=valid)[0].answer == "ok"
    listed = "{% for c in candidates %}{{ c.sample }}:{{ c.output }} {% endfor %}"
    assert end({"a/m": "x", "a/m#2": "y"}, samples=2, aggregation=listed)[0].answer == "1:x 2:y "
