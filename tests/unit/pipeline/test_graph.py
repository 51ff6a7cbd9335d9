"""Stages become steps: what each visit needs, and where a circle is."""

from typing import Any

from agentlab.pipeline import graph
from agentlab.pipeline.stage_config import Stage


def stage(id_: str, **fields: Any) -> Stage:
    return Stage.model_validate({"id": id_, "model": "m", **fields})


def test_a_stage_reads_the_one_before_it_and_the_first_reads_the_input() -> None:
    stages = [stage("a"), stage("b"), stage("c", input_from=["a", "input"])]
    assert graph.sources(stages) == {"a": ("input",), "b": ("a",), "c": ("a", "input")}


def test_a_stage_needs_what_its_templates_mention_as_well() -> None:
    stages = [stage("a"), stage("b", input_from="input", prompt="{{ stages.a.output }}")]
    assert [step.needs for step in graph.unroll(stages)] == [frozenset(), frozenset({"a"})]


def test_an_aggregation_and_a_condition_count_as_mentions() -> None:
    last = stage(
        "d",
        input_from="input",
        samples=2,
        aggregation="{{ stages.b.output }}",
        when="stages.c.skipped",
    )
    steps = graph.unroll([stage("b", input_from="input"), stage("c", input_from="input"), last])
    assert steps[-1].needs == {"b", "c"}


def test_a_loop_of_one_stage_is_visited_one_after_another() -> None:
    loop = {"condition": "'done' in output", "max_visits": 3}
    steps = graph.unroll([stage("a"), stage("b", repeat_until=loop), stage("c")])
    assert [step.id for step in steps] == ["a", "b", "b@2", "b@3", "c"]
    assert [sorted(step.needs) for step in steps] == [[], ["a"], ["a", "b"], ["a", "b@2"], ["b@3"]]
    assert [step.gate for step in steps] == [None, None, "b", "b@2", None]


def test_a_loop_over_several_stages_repeats_all_of_them() -> None:
    loop = {"condition": "'yes' in output", "start": "write", "max_visits": 2}
    steps = graph.unroll([stage("write"), stage("check", repeat_until=loop), stage("end", input_from="write")])
    assert [step.id for step in steps] == ["write", "check", "write@2", "check@2", "end"]
    needs = {step.id: step.needs for step in steps}
    assert needs["write@2"] == {"check"}
    assert needs["check@2"] == {"write@2", "check"}
    assert needs["end"] == {"write@2"}
    assert steps[0].block == ("write", "check")
    assert steps[-1].block == ()


def test_a_circle_is_told_in_the_order_in_which_it_runs() -> None:
    needs = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"a"}), "d": frozenset({"a"})}
    assert graph.circle(needs) == ("a", "b", "c", "a")
    assert graph.circle({"a": frozenset(), "b": frozenset({"a"})}) == ()
    assert graph.circle({"a": frozenset({"a"})}) == ("a", "a")
