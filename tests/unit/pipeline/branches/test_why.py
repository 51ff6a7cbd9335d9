"""Why a call was asked again, or was not."""

import pytest

from agentlab.errors import UnknownNameError
from agentlab.pipeline.answer import PipelineQuestion, key_of
from agentlab.pipeline.branches.why import explain_stage
from agentlab.runs.document import Code
from agentlab.runs.store import list_runs
from tests.unit.pipeline.workshop import Workshop, stages

ANSWERS = {"draft": "a draft", "final": "the end"}


def _lines(workshop: Workshop, run: str, stage: str) -> list[str]:
    view = explain_stage(workshop.record(run), stage, list_runs(workshop.runs_dir).runs)
    code = view.blocks()[-1]
    assert isinstance(code, Code)
    return code.text.split("\n")


def test_the_first_run_of_all_has_nothing_to_be_compared_with(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    assert _lines(workshop, "one", "draft") == ["draft: cache miss, model called", "  no earlier run made this call"]


def test_a_hit_names_the_run_that_asked(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    workshop.run("two", ANSWERS)
    workshop.run("three", ANSWERS)
    assert _lines(workshop, "three", "final") == ["final: cache hit (from store); answered in one"]


def test_a_hit_whose_run_was_removed(workshop: Workshop) -> None:
    one = workshop.run("one", ANSWERS)
    workshop.run("two", ANSWERS)
    one.path.rename(workshop.root / "elsewhere")
    assert _lines(workshop, "two", "draft") == ["draft: cache hit (from store); original run was deleted"]


def test_a_changed_setting_is_named(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    workshop.run("two", ANSWERS, parent="one", stages=stages(draft={"temperature": 0.2}))
    assert _lines(workshop, "two", "draft") == [
        "draft: cache miss, model called; compared with one",
        "  temperature 0.7 → 0.2",
    ]
    # the draft came to the same text, so what follows is known
    assert _lines(workshop, "two", "final") == ["final: cache hit (from store); answered in one"]


def test_a_text_from_another_stage_is_traced_to_it(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    workshop.run("two", {**ANSWERS, "draft": "another"}, parent="one", stages=stages(draft={"temperature": 0.2}))
    assert _lines(workshop, "two", "final") == [
        "final: cache miss, model called; compared with one",
        "  message 2 changed: it includes the output of stage draft, which changed",
    ]


def test_a_changed_input_and_a_changed_template_are_named(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    workshop.run("two", ANSWERS, given="the sea", stages=stages(final={"system": "Be kind."}))
    assert _lines(workshop, "two", "draft")[1:] == ["  message 1 changed: the input of the run changed"]
    assert _lines(workshop, "two", "final")[1:] == [
        "  message 1 changed: its template base_pipeline.stages.final.system changed"
    ]


def test_items_of_a_batch_are_compared_with_themselves(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS, given=["the sky", "the sea"])
    workshop.run("two", ANSWERS, given=["the sky", "the sun"], parent="one")
    assert _lines(workshop, "two", "draft") == [
        "0001:draft: cache hit (from store); answered in one",
        "0002:draft: cache miss, model called; compared with one",
        "  message 1 changed: the input of the run changed",
    ]


def test_the_parent_is_compared_with_even_if_a_later_run_is_nearer(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    workshop.run("near", ANSWERS, stages=stages(draft={"temperature": 0.3, "prompt": "On {{ input }}"}))
    changed = stages(draft={"temperature": 0.2, "prompt": "On {{ input }}"})
    workshop.run("two", ANSWERS, parent="one", stages=changed)
    assert _lines(workshop, "two", "draft")[0] == "draft: cache miss, model called; compared with one"
    workshop.run("three", ANSWERS, stages=stages(draft={"temperature": 0.4, "prompt": "On {{ input }}"}))
    assert _lines(workshop, "three", "draft")[0] == "draft: cache miss, model called; compared with two"


def test_the_same_question_asked_again_on_purpose(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    workshop.run("two", ANSWERS, cache="refresh")
    assert _lines(workshop, "two", "draft")[1] == (
        "  one made the same call, but cache: refresh does not reuse answers"
    )


def test_the_same_question_whose_answer_was_lost(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    for path in workshop.store.answers.rglob("*.json"):
        path.unlink()
    workshop.run("two", ANSWERS)
    assert "its answer is no longer in the store" in _lines(workshop, "two", "draft")[1]


def test_attempts_that_failed_are_told(workshop: Workshop) -> None:
    with workshop.open("one", config={"base_pipeline": {"stages": stages()}}) as run:
        run.emit("call.failed", "draft", kind="WorkerDiedError", message="It died.", model="small", rung="batch 64")
        run.emit("call.failed", "draft", kind="LLMTimeoutError", message="Too slow.", model="small", rung="none")
        run.emit("stage.finished", "draft", sha=workshop.put(run, ""), status="skipped", why={})
    assert _lines(workshop, "one", "draft") == [
        "draft: skipped",
        "draft: failed",
        "  small failed: WorkerDiedError: It died.; next: batch 64",
        "  small failed: LLMTimeoutError: Too slow.",
    ]


def test_a_stage_that_is_not_there(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    with pytest.raises(UnknownNameError, match="drafd") as caught:
        _lines(workshop, "one", "drafd")
    assert "draft" in str(caught.value.hint)


def test_runs_that_cannot_be_read_are_passed_over(workshop: Workshop) -> None:
    one = workshop.run("one", ANSWERS)
    workshop.run("two", ANSWERS, parent="one", stages=stages(draft={"temperature": 0.2}))
    (one.path / "events.jsonl").write_text("damage\n{}\n")
    assert _lines(workshop, "two", "draft")[1] == "  no earlier run made this call"


@pytest.mark.parametrize("method", ["judge", "synthesis"])
def test_an_aggregation_asks_again_because_the_candidates_changed(workshop: Workshop, method: str) -> None:
    multi = {"id": "draft", "models": ["small", "large"], "aggregation": {"method": method, "model": "large"}}
    last = {"judge": "draft/=judge.1", "synthesis": "draft/=synthesis"}[method]
    for name, answer in (("one", "a draft"), ("two", "another draft")):
        with workshop.open(name, config={"base_pipeline": {"stages": [multi]}}) as run:
            for call, text in (("draft/small", answer), ("draft/large", "the same"), (last, answer)):
                question = PipelineQuestion(
                    (("user", f"{call} {answer}"),), "large", "sha256:large", {}, 0.0, None, 8, 7
                )
                data = {"key": key_of(question), "sha": workshop.put(run, text), "from": "model"}
                run.emit("call.answered", call, **data, asked=question.summary(), answer={})
    assert _lines(workshop, "two", "draft")[-2:] == [
        f"{last}: cache miss, model called; compared with one",
        "  message 1 changed: it includes the candidates, which changed",
    ]


def test_an_aggregation_asks_again_because_it_is_told_otherwise(workshop: Workshop) -> None:
    for name, criteria, input_text in (("one", "", "the sky"), ("two", "Which is shorter?", "the sea")):
        aggregation = {"method": "judge", "model": "large", "criteria": criteria}
        multi = {"id": "draft", "models": ["small", "large"], "prompt": "{{ input }}", "aggregation": aggregation}
        with workshop.open(name, config={"base_pipeline": {"stages": [multi]}, "input": input_text}) as run:
            question = PipelineQuestion(
                (("user", f"{input_text} {criteria}"),), "large", "sha256:large", {}, 0.0, None, 8, 7
            )
            data = {"key": key_of(question), "sha": workshop.put(run, "A"), "from": "model"}
            run.emit("call.answered", "draft/=judge.1", **data, asked=question.summary(), answer={})
    assert _lines(workshop, "two", "draft")[1:] == [
        "  message 1 changed: base_pipeline.stages.draft.aggregation.criteria changed and the input of the run changed"
    ]


def test_several_stages_that_changed_are_named_together(workshop: Workshop) -> None:
    three = [*stages(), {**stages()[1], "id": "last", "prompt": "{{ stages.draft.output }} {{ input }}"}]
    answers = {**ANSWERS, "last": "so it is"}
    workshop.run("one", answers, stages=three)
    changed_stages = [{**stage, "seed": 8} for stage in three]
    workshop.run("two", {**answers, "draft": "another", "final": "an end"}, given="the sea", stages=changed_stages)
    assert _lines(workshop, "two", "last")[1:] == [
        "  message 2 changed: it includes the output of stages final and draft, which changed"
    ]
