"""A run as shown, and as a file of its own."""

import json

import pytest

from agentlab.errors import UsageError
from agentlab.pipeline.history.export import export, show
from agentlab.runs.document import Code
from agentlab.runs.redact import MASK, Redactor
from tests.unit.pipeline.workshop import Workshop

ANSWERS = {"draft": "a <b>draft</b> | of `it`", "final": "the end \U0001f600"}


def test_every_text_of_the_run_is_shown(workshop: Workshop) -> None:
    view = show(workshop.run("one", ANSWERS), workshop.store)
    texts = [block.text for block in view.blocks() if isinstance(block, Code)]
    assert texts == ["the sky", "a <b>draft</b> | of `it`", "the end \U0001f600"]
    assert [(call.model, call.source, call.seconds) for call in view.steps[0].calls] == [("small", "model", 0.75)]


def test_a_long_batch_is_shown_in_part_and_exported_whole(workshop: Workshop) -> None:
    run = workshop.run("many", ANSWERS, given=["the sky", "the sea", "the sun"])
    view = show(run, workshop.store, most_steps=2)
    assert ([step.id for step in view.steps], list(view.inputs), view.left_out) == (
        ["0001:draft", "0001:final"],
        ["0001", "0002"],
        4,
    )
    assert "4 more steps" in str(view.blocks()[-1])
    assert len(json.loads(export(run, workshop.store, "json", Redactor()))["steps"]) == 6


def test_json_is_for_programs(workshop: Workshop) -> None:
    data = json.loads(export(workshop.run("one", ANSWERS), workshop.store, "json", Redactor()))
    assert (data["schema"], data["id"], data["inputs"]) == (1, "one", {"": "the sky"})
    assert [step["output"] for step in data["steps"]] == list(ANSWERS.values())
    assert data["config"]["base_pipeline"]["stages"]["draft"]["temperature"] == 0.7


def test_html_needs_nothing_beside_it_and_runs_nothing(workshop: Workshop) -> None:
    page = export(workshop.run("one", ANSWERS), workshop.store, "html", Redactor())
    assert "a &lt;b&gt;draft&lt;/b&gt; | of `it`" in page
    assert "<b>" not in page
    assert "src=" not in page
    assert "default-src 'none'" in page


def test_markdown_cannot_be_broken_out_of(workshop: Workshop) -> None:
    run = workshop.run("one", {**ANSWERS, "final": "```\n# not a heading\n```"})
    assert "````\n```\n# not a heading\n```\n````" in export(run, workshop.store, "md", Redactor())


@pytest.mark.parametrize("form", ["json", "md", "html"])
def test_secrets_are_masked(workshop: Workshop, form: str) -> None:
    run = workshop.run("one", {**ANSWERS, "final": "the key is hunter2hunter2"})
    text = export(run, workshop.store, form, Redactor(["hunter2hunter2"]))
    assert "hunter2" not in text
    assert MASK in text


@pytest.mark.parametrize("form", ["json", "md", "html"])
def test_half_a_character_is_no_hindrance(workshop: Workshop, form: str) -> None:
    run = workshop.run("one", {**ANSWERS, "final": "half \ud83d of one"})
    assert "half ? of one" in export(run, workshop.store, form, Redactor())


def test_a_text_that_is_lost_is_said_to_be_lost(workshop: Workshop) -> None:
    run = workshop.run("one", ANSWERS)
    workshop.lose(run, ANSWERS["final"])
    assert "text missing" in export(run, workshop.store, "md", Redactor())
    assert show(run, workshop.store).steps[1].output is None


def test_a_form_that_is_not_there(workshop: Workshop) -> None:
    with pytest.raises(UsageError, match="pdf") as caught:
        export(workshop.run("one", ANSWERS), workshop.store, "pdf", Redactor())
    assert "json, md, html" in str(caught.value.hint)
