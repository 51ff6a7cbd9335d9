"""Two runs side by side."""

from agentlab.pipeline.branches.diff import diff, unified_diff
from agentlab.runs.document import Code, Heading, Table
from tests.unit.pipeline.workshop import Workshop, stages


def test_what_changed_in_config_and_texts(workshop: Workshop) -> None:
    first = workshop.run("one", {"draft": "blue\nis it", "final": "the end"})
    changed = stages(draft={"temperature": 0.2})
    second = workshop.run("two", {"draft": "grey\nis it", "final": "the end"}, parent="one", stages=changed)
    view = diff(first, second, workshop.store)
    assert [(c.key, c.first, c.second) for c in view.config] == [("base_pipeline.stages.draft.temperature", 0.7, 0.2)]
    assert [(stage.step, stage.state) for stage in view.stages] == [("draft", "changed"), ("final", "same")]
    assert view.stages[0].lines == ["--- one", "+++ two", "@@ -1,2 +1,2 @@", "-blue", "+grey", " is it"]
    assert [type(block) for block in view.blocks()] == [Heading, Table, Heading, Table, Heading, Code]


def test_a_stage_of_one_run_only(workshop: Workshop) -> None:
    first = workshop.run("one", {"draft": "d", "final": "f"})
    second = workshop.run("two", {"draft": "d"}, stages=stages()[:1])
    assert [stage.state for stage in diff(first, second, workshop.store).stages] == ["same", "only in first"]
    assert [stage.state for stage in diff(second, first, workshop.store).stages] == ["same", "only in second"]


def test_a_run_does_not_differ_from_itself(workshop: Workshop) -> None:
    run = workshop.run("one", {"draft": "d", "final": "f"})
    view = diff(run, run, workshop.store)
    assert view.config == []
    assert {stage.state for stage in view.stages} == {"same"}


def test_a_text_that_is_lost_is_said_to_be_lost(workshop: Workshop) -> None:
    first = workshop.run("one", {"draft": "d", "final": "f"})
    second = workshop.run("two", {"draft": "e", "final": "g"}, given="the sea")
    workshop.lose(first, "d")
    draft = diff(first, second, workshop.store).stages[0]
    assert (draft.state, draft.lines, draft.note) == ("changed", [], "text missing in one")


def test_long_texts_are_compared_in_part() -> None:
    first, second = "\n".join(f"a{n}" for n in range(5_000)), "\n".join(f"b{n}" for n in range(5_000))
    lines = unified_diff(first, second, ("one", "two"))
    assert len(lines) == 201
    assert lines[-1].startswith("… and ")
    assert max(map(len, unified_diff("x" * 100_000, "y", ("one", "two")))) < 2_100
