"""Which fields of two questions differ."""

from dataclasses import replace

from agentlab.pipeline.answer import PipelineQuestion
from agentlab.pipeline.branches.why import FieldChange, field_changes

ASKED = PipelineQuestion(
    (("system", "Be brief."), ("user", "Why?")), "small", "sha256:0", {"batch": 128}, 0.7, None, 64, 7
)


def _told(second: PipelineQuestion) -> list[str]:
    return [change.describe() for change in field_changes(ASKED.summary(), second.summary())]


def test_the_same_question_has_no_changes() -> None:
    assert _told(replace(ASKED)) == []


def test_every_changed_field_is_told() -> None:
    changed = replace(ASKED, temperature=0.2, numerics={"batch": 64}, seed=None, messages=(("user", "Why?"),))
    assert _told(changed) == [
        "numerics.batch 128 → 64",
        "temperature 0.7 → 0.2",
        "seed 7 → –",
        "message 1 changed",
        "message 2 was removed",
    ]


def test_reasons_follow_the_message() -> None:
    change = FieldChange(field="message 2", first={}, second={}, reasons=["the input of the run changed"])
    assert change.describe() == "message 2 changed: the input of the run changed"
