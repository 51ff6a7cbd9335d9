"""How a run is named: folder, unique prefix, last six digits, last, last:COMMAND."""

import os
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import RunLockedError, RunUnreadableError, UnknownNameError, UsageError
from agentlab.runs import store
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec

NAMES = ["2026-01-01T00-00-00-nas-aaaaaa", "2026-01-02T00-00-00-nas-bbbbbb", "2026-01-02T00-00-00-debate-cccccc"]


@pytest.mark.parametrize(
    ("query", "index"), [(NAMES[0], 0), ("2026-01-01", 0), ("bbbbbb", 1), ("2026-01-02T00-00-00-d", 2), ("cccccc", 2)]
)
def test_match(query: str, index: int) -> None:
    assert store.match(query, NAMES) == NAMES[index]


def test_ambiguous_prefix_lists_the_candidates() -> None:
    with pytest.raises(UsageError) as caught:
        store.match("2026-01-02", NAMES)
    assert NAMES[1] in str(caught.value.hint)
    assert NAMES[2] in str(caught.value.hint)


@pytest.mark.parametrize("query", ["", "zzz", "aaaaa", "../x"])
def test_unknown_name(query: str) -> None:
    with pytest.raises(UnknownNameError):
        store.match(query, NAMES)


@given(st.sampled_from(NAMES), st.integers(1, 40))
def test_a_prefix_never_finds_a_run_that_does_not_bear_it(name: str, length: int) -> None:
    try:
        assert store.match(name[:length], NAMES).startswith(name[:length])
    except UsageError:
        assert sum(candidate.startswith(name[:length]) for candidate in NAMES) > 1


def _create(folder: Path, command: str, name: str, now: float) -> None:
    OpenRun.create(folder, RunSpec(command, "", "", "h", 0, name=name), RunEnvironment(clock=lambda: now)).close()


def test_last_is_the_newest_and_can_be_limited_to_a_command(tmp_path: Path) -> None:
    _create(tmp_path, "nas", "z-old", 1.0)
    _create(tmp_path, "nas", "a-new", 2.0)
    _create(tmp_path, "debate", "middle", 1.5)
    assert store.find(tmp_path, "last").id == "a-new"
    assert store.find(tmp_path, "last:debate").id == "middle"
    with pytest.raises(UnknownNameError, match="last:evolve"):
        store.find(tmp_path, "last:evolve")


def test_a_run_whose_manifest_is_lost_can_still_be_removed(tmp_path: Path) -> None:
    with OpenRun.create(tmp_path / "my runs", RunSpec("nas", "", "", "h", 0, name="mine"), RunEnvironment()) as run:
        run.start({})
    (run.path / "manifest.json").write_text("{")
    with pytest.raises(RunUnreadableError) as caught:
        store.find(tmp_path / "my runs", "mi")
    (line,) = re.findall("`agentlab runs rm (.*)`", caught.value.hint or "")
    name, _, folder = shlex.split(line)
    store.remove(Path(folder), store.require_whole_name(tmp_path / "my runs", name))
    assert not run.path.exists()


def test_removal_is_not_offered_where_it_would_be_refused(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    with pytest.raises(RunUnreadableError) as caught:
        store.find(tmp_path, "broken")
    assert "rm" not in (caught.value.hint or "")
    with pytest.raises(RunUnreadableError, match="not deleted"):
        store.remove(tmp_path, "broken")


@pytest.mark.parametrize("missing_file", ["lock", "events.jsonl"])
def test_without_manifest_lock_and_events_are_the_proof(tmp_path: Path, missing_file: str) -> None:
    with OpenRun.create(tmp_path, RunSpec("nas", "", "", "h", 0, name="mine"), RunEnvironment()) as run:
        run.start({})
    (run.path / "manifest.json").unlink()
    assert store.is_run(run.path)
    run.path.rename(tmp_path / "other")
    assert not store.is_run(tmp_path / "other")
    (tmp_path / "other").rename(run.path)
    (run.path / missing_file).unlink()
    assert not store.is_run(run.path)


def test_of_a_command_last_is_its_own(tmp_path: Path) -> None:
    _create(tmp_path, "nas", "mine", 1.0)
    _create(tmp_path, "debate", "newer", 2.0)
    assert store.find(tmp_path, "last", "nas").id == "mine"
    assert store.find_to_resume(tmp_path, "last", "nas").id == "mine"
    for name in ("newer", "last:debate"):
        with pytest.raises(UsageError, match="belongs to `debate`"):
            store.find(tmp_path, name, "nas")


def test_no_runs_folder_is_an_empty_list(tmp_path: Path) -> None:
    assert not store.list_runs(tmp_path / "absent").runs


def test_a_name_that_begins_with_last_is_a_name(tmp_path: Path) -> None:
    _create(tmp_path, "nas", "newest", 2.0)
    (tmp_path / "last-try").mkdir()
    assert store.require_whole_name(tmp_path, "last-try") == "last-try"
    assert store.find_to_resume(tmp_path, "last").id == "newest"


@pytest.mark.parametrize("short", ["exp", "exp-abc", "abcdef", "last", "last:nas"])
def test_what_changes_a_run_takes_its_whole_name(tmp_path: Path, short: str) -> None:
    _create(tmp_path, "nas", "exp-abcdef", 1.0)
    with pytest.raises(UsageError, match=r"is short for exp-abcdef; .* full name") as caught:
        store.require_whole_name(tmp_path, short)
    assert caught.value.hint == "Use exp-abcdef."
    assert store.require_whole_name(tmp_path, "exp-abcdef") == "exp-abcdef"
    if short.startswith("last"):
        assert store.find_to_resume(tmp_path, short).id == "exp-abcdef"
    else:
        with pytest.raises(UsageError, match="full name"):
            store.find_to_resume(tmp_path, short)


def test_what_is_no_run_folder_is_found_without_waiting(tmp_path: Path) -> None:
    """A pipe in the place of any file of a run would wait for a writer for ever."""
    _create(tmp_path, "nas", "whole", 1.0)
    for name in ("manifest.json", "events.jsonl", "lock"):
        (tmp_path / name[:4]).mkdir()
        for file_name in ("manifest.json", "events.jsonl"):
            (tmp_path / name[:4] / file_name).write_bytes((tmp_path / "whole" / file_name).read_bytes())
        (tmp_path / name[:4] / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name[:4] / name)
    assert [name for name, _ in store.list_runs(tmp_path).unreadable] == ["mani"]
    assert not any(run.active for run in store.list_runs(tmp_path).runs)
    with pytest.raises(RunUnreadableError, match="it is a pipe, not a file"):
        store.find(tmp_path, "even").events()


def test_of_several_runs_none_is_removed_when_one_is_in_use(tmp_path: Path) -> None:
    _create(tmp_path, "nas", "one", 1.0)
    with OpenRun.create(tmp_path, RunSpec("nas", "", "", "h", 0, name="two"), RunEnvironment()):
        with pytest.raises(RunLockedError, match="two"):
            store.remove(tmp_path, "one", "two")
        assert (tmp_path / "one").exists()
    store.remove(tmp_path, "one", "two")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "word"), [(b"\xff", "decode"), (b"x" * 2000, "larger"), (None, "has no")])
def test_a_file_of_a_run_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, word: str
) -> None:
    _create(tmp_path, "nas", "mine", 1.0)
    monkeypatch.setattr(store, "_MAX_TEXT", 1000)
    if content is not None:
        (tmp_path / "mine" / "result.json").write_bytes(content)
    with pytest.raises(RunUnreadableError, match=word):
        store.find(tmp_path, "mine").text("result.json")


def test_thousands_of_runs_make_a_short_hint() -> None:
    with pytest.raises(UnknownNameError) as caught:
        store.match("zzz", [f"run-{n}" for n in range(5000)])
    assert len(caught.value.hint or "") < 400
    assert "and 4980 more" in (caught.value.hint or "")
