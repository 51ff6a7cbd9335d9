"""The index follows the runs, is cheap to keep, and loses nothing when it is damaged."""

import multiprocessing
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentlab.pipeline.branches.digest import tree
from agentlab.pipeline.history import reading
from agentlab.pipeline.history.index import PipelineHistory
from agentlab.pipeline.history.listing import history_list
from tests.unit.pipeline.workshop import Workshop, stages

ANSWERS = {"draft": "the sky scatters blue light", "final": "because of scattering"}


@contextmanager
def _history(workshop: Workshop, warnings: list[str] | None = None) -> Iterator[PipelineHistory]:
    """A history that must not warn, unless somebody listens."""
    messages = [] if warnings is None else warnings
    with PipelineHistory(workshop.index, workshop.runs_dir, workshop.store, messages.append) as history:
        yield history
    assert warnings is not None or messages == [], messages


def _names(workshop: Workshop, warnings: list[str] | None = None) -> list[str]:
    with _history(workshop, warnings) as history:
        return [run.id for run in history.digests()]


def test_a_run_is_listed_with_what_it_did(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    workshop.run("two", ANSWERS, parent="one", stages=stages(final={"temperature": 0.5}))
    with _history(workshop) as history:
        one, two = history.digests()
    assert (one.id, one.parent, one.status, one.excerpt) == ("one", None, "completed", "the sky")
    assert [(share.stage, share.calls, share.asked) for share in one.shares] == [("draft", 1, 1), ("final", 1, 1)]
    assert (two.parent, [(share.stage, share.asked) for share in two.shares]) == ("one", [("draft", 0), ("final", 1)])
    node = tree([one, two]).nodes[1]
    assert ([change.key for change in node.changed], node.reused) == (
        ["base_pipeline.stages.final.temperature"],
        ["draft"],
    )


def test_a_batch_is_one_line(workshop: Workshop) -> None:
    workshop.run("many", ANSWERS, given=["the sky", "the sea", "the sun"])
    with _history(workshop) as history:
        (many,) = history.digests()
        hits = history.search("sea")
    assert [(share.stage, share.calls) for share in many.shares] == [("draft", 3), ("final", 3)]
    assert [(hit.run, hit.step) for hit in hits] == [("many", "0002:input")]


def test_inputs_and_outputs_are_searched(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS, given="why is it blue?")
    with _history(workshop) as history:
        assert [hit.step for hit in history.search("scatter")] == ["final", "draft"]
        assert [hit.step for hit in history.search("why")] == ["input"]
        assert history.search("scatter", limit=1)[0].snippet == "because of »scattering«"


def test_what_did_not_change_is_not_read_again(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.run("one", ANSWERS)
    workshop.run("two", ANSWERS)
    assert _names(workshop) == ["one", "two"]
    folders_read: list[str] = []
    original = reading.read_manifest
    monkeypatch.setattr(
        reading, "read_manifest", lambda folder: (folders_read.append(folder.name), original(folder))[1]
    )
    workshop.run("three", ANSWERS)
    assert _names(workshop) == ["one", "two", "three"]
    assert folders_read == ["three"]


def test_a_run_at_work_is_followed(workshop: Workshop) -> None:
    with workshop.open("live", config={"input": "the sky"}) as run:
        run.start({})
        with _history(workshop) as history:
            assert [(live.status, live.shares) for live in history.digests()] == [("running", ())]
            run.emit("stage.finished", "draft", sha=workshop.put(run, "rayleigh"), status="done", why={})
            history.refresh()
            assert [hit.run for hit in history.search("rayleigh")] == ["live"]
    with _history(workshop) as history:  # its process is gone, and its files are as they were
        assert [live.status for live in history.digests()] == ["interrupted"]


def test_a_removed_run_and_its_texts_are_forgotten(workshop: Workshop) -> None:
    one = workshop.run("one", ANSWERS)
    workshop.run("two", {"draft": ANSWERS["draft"] + "!", "final": "it is the sea"}, given="the sea")
    assert _names(workshop) == ["one", "two"]
    shutil.rmtree(one.path)
    with _history(workshop) as history:
        assert [run.id for run in history.digests()] == ["two"]
        assert history.search("because") == []
        assert [hit.run for hit in history.search("scatters")] == ["two"]


def test_runs_of_other_commands_and_folders_are_left_out(workshop: Workshop, tmp_path: Path) -> None:
    workshop.run("one", ANSWERS)
    workshop.open("study", command="nas").close()
    (workshop.runs_dir / "broken").mkdir()
    (workshop.runs_dir / ".creating-1").mkdir()
    (workshop.runs_dir / "notes.txt").write_text("mine")
    assert _names(workshop) == ["one"]
    with PipelineHistory(workshop.index, tmp_path / "other", workshop.store, print) as history:
        assert (history.digests(), history.search("scatter")) == ([], [])
    assert _names(workshop) == ["one"]


def test_texts_that_are_no_unicode_are_listed_and_found(workshop: Workshop) -> None:
    workshop.run("one", {**ANSWERS, "final": "half \ud83d of scattering\0end"})
    with _history(workshop) as history:
        assert [hit.step for hit in history.search("half")] == ["final"]


def test_a_run_whose_events_are_damaged_is_listed_without_stages(workshop: Workshop) -> None:
    one = workshop.run("one", ANSWERS)
    (one.path / "events.jsonl").write_text("damage\n{}\n")
    with _history(workshop) as history:
        assert [(run.id, run.shares) for run in history.digests()] == [("one", ())]
        assert [hit.step for hit in history.search("sky")] == ["input"]


@pytest.mark.parametrize("damage", [b"this is no database, but a text", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_index_is_made_anew_with_one_warning(workshop: Workshop, damage: bytes) -> None:
    workshop.run("one", ANSWERS)
    assert _names(workshop) == ["one"]
    workshop.index.write_bytes(damage)
    warnings: list[str] = []
    assert _names(workshop, warnings) == ["one"]
    assert len(warnings) == 1
    assert "damaged" in warnings[0]
    assert workshop.index.with_name("history.sqlite.damaged").read_bytes() == damage
    assert _names(workshop) == ["one"]


def test_damage_in_the_middle_is_noticed_when_it_is_read(workshop: Workshop) -> None:
    for number in range(10):
        workshop.run(f"r{number:02}", {"draft": f"word{number} " * 500, "final": "the end"}, given=f"{number}")
    assert len(_names(workshop)) == 10
    size = workshop.index.stat().st_size
    with workshop.index.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    warnings: list[str] = []
    with _history(workshop, warnings) as history:
        assert len(history.digests()) == 10
        assert [hit.run for hit in history.search("word7")] == ["r07"]
    assert len(warnings) == 1


def test_another_version_of_the_index_is_set_aside(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    assert _names(workshop) == ["one"]
    db = sqlite3.connect(workshop.index)
    db.execute("PRAGMA user_version = 99")
    db.close()
    warnings: list[str] = []
    assert _names(workshop, warnings) == ["one"]
    assert len(warnings) == 1
    assert workshop.index.with_name("history.sqlite.damaged").is_file()


def test_a_locked_index_costs_one_warning(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlab.pipeline.history.index._BUSY_SECONDS", 0.05)
    workshop.run("one", ANSWERS)
    assert _names(workshop) == ["one"]
    workshop.run("two", ANSWERS)
    connection = sqlite3.connect(workshop.index, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    warnings: list[str] = []
    with _history(workshop, warnings) as history:
        assert [run.id for run in history.digests()] == ["one"]
        assert [hit.run for hit in history.search("because")] == ["one"]
    assert len(warnings) == 1
    assert "newest runs may be missing" in warnings[0]
    connection.execute("ROLLBACK")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    assert _names(workshop, warnings) == ["one", "two"]  # from the runs themselves
    connection.close()
    assert len(warnings) == 2
    assert _names(workshop) == ["one", "two"]


def test_an_index_that_cannot_be_kept_lives_in_memory(workshop: Workshop) -> None:
    workshop.run("one", ANSWERS)
    shutil.rmtree(workshop.store.answers)
    workshop.index.parent.rmdir()
    workshop.index.parent.write_text("a file is in the way of the folder")
    warnings: list[str] = []
    with _history(workshop, warnings) as history:
        assert [run.id for run in history.digests()] == ["one"]
        assert [hit.step for hit in history.search("sky")] == ["input", "draft"]
    assert len(warnings) == 1
    assert "reading the runs instead" in warnings[0]


def test_the_list_can_be_cut_and_filtered(workshop: Workshop) -> None:
    for name in ("one", "two", "three"):
        workshop.run(name, ANSWERS)
    workshop.open("new").close()
    with _history(workshop) as history:
        runs = history.digests()
    newest = history_list(runs, status="completed", limit=2)
    assert ([run.id for run in newest.runs], newest.left_out) == (["two", "three"], 1)
    assert [(run.calls, run.asked) for run in newest.runs] == [(2, 0), (2, 0)]
    assert [run.id for run in history_list(runs, status="interrupted").runs] == ["new"]
    assert "No pipeline run has the status 'failed'." in str(history_list(runs, status="failed").blocks()[0])
    assert "No pipeline runs yet" in str(history_list([]).blocks()[0])


def test_a_thousand_indexed_runs_are_listed_and_drawn_within_a_second(workshop: Workshop) -> None:
    first = workshop.run("r0000", ANSWERS)
    for number in range(1, 1000):
        copy = workshop.runs_dir / f"r{number:04}"
        shutil.copytree(first.path, copy)
        text = (copy / "manifest.json").read_text()
        (copy / "manifest.json").write_text(text.replace('"parent": null', f'"parent": "r{number // 2:04}"'))
    with _history(workshop):
        pass
    seconds = []
    for _ in range(3):  # the quickest counts: others may keep the machine busy
        start = time.perf_counter()
        with _history(workshop) as history:
            runs = history.digests()
            assert len(tree(runs).blocks()) == len(history_list(runs).blocks()) == 1
            assert len(history.search("scattering")) == 20
        seconds.append(time.perf_counter() - start)
    assert len(runs) == 1000
    assert min(seconds) < 1.0, "too slow"


def test_two_processes_may_make_the_index_at_once(workshop: Workshop) -> None:
    for number in range(5):
        workshop.run(f"r{number}", ANSWERS)
    start = multiprocessing.get_context("spawn")
    processes = [start.Process(target=_names, args=(workshop,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(_names(workshop)) == 5
