"""What a collection must keep: the texts of every run, wherever its folder lies."""

from pathlib import Path

import pytest

from agentlab.errors import RunUnreadableError
from agentlab.pipeline.answer import sha_of
from agentlab.pipeline.branches.needed import needed
from agentlab.pipeline.store import gc
from tests.unit.pipeline.workshop import Workshop

ANSWERS = {"draft": "a draft", "final": "the end"}


def test_what_runs_name_survives_a_collection(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    workshop.store.put("nobody's")
    named = needed([workshop.runs_dir, workshop.runs_dir])
    assert named == {sha_of("a draft"), sha_of("the end")}
    assert gc(workshop.store, named, 0.0, now=1e12).objects == 1
    assert workshop.store.text(sha_of("the end")) == "the end"


def test_all_folders_count_and_one_that_is_gone_needs_nothing(workshop: Workshop, tmp_path: Path) -> None:
    workshop.run("one", ANSWERS)
    workshop.runs_dir.rename(tmp_path / "elsewhere")
    workshop.run("two", {**ANSWERS, "final": "another end"}, cache="refresh")
    named = needed([workshop.runs_dir, tmp_path / "elsewhere", tmp_path / "gone"])
    assert named == {sha_of(text) for text in ("a draft", "the end", "another end")}


@pytest.mark.parametrize("file", ["events.jsonl", "manifest.json"])
def test_a_damaged_run_might_need_anything(workshop: Workshop, file: str) -> None:
    (workshop.run("one", ANSWERS).path / file).write_text("damage\n{}\n")
    with pytest.raises(RunUnreadableError, match="Nobody knows which texts one needs") as caught:
        needed([workshop.runs_dir])
    assert f"agentlab runs rm one --runs-dir {workshop.runs_dir}" in str(caught.value.hint)
    assert "nothing was deleted" in str(caught.value.hint).lower()


def test_what_is_no_run_needs_nothing(workshop: Workshop) -> None:
    """A runs folder may hold other things: the hint to remove a damaged run must not name those."""
    workshop.run("one", ANSWERS)
    (workshop.runs_dir / "models").mkdir()
    study = workshop.open("study", command="nas")
    study.close()
    (study.path / "events.jsonl").write_text("damage\n{}\n")
    assert len(needed([workshop.runs_dir])) == 2
