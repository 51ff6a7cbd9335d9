"""How a run is named: folder, unique prefix, last six digits, last, last:COMMAND."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import RunUnreadableError, UnknownNameError, UsageError
from agentlab.runs import store
from agentlab.runs.run import Edge, Run, RunSpec

NAMES = ["2026-01-01T00-00-00-nas-aaaaaa", "2026-01-02T00-00-00-nas-bbbbbb", "2026-01-02T00-00-00-debate-cccccc"]


@pytest.mark.parametrize(
    ("asked", "found"), [(NAMES[0], 0), ("2026-01-01", 0), ("bbbbbb", 1), ("2026-01-02T00-00-00-d", 2), ("cccccc", 2)]
)
def test_match(asked: str, found: int) -> None:
    assert store.match(asked, NAMES) == NAMES[found]


def test_ambiguous_prefix_lists_the_candidates() -> None:
    with pytest.raises(UsageError) as caught:
        store.match("2026-01-02", NAMES)
    assert NAMES[1] in str(caught.value.hint)
    assert NAMES[2] in str(caught.value.hint)


@pytest.mark.parametrize("asked", ["", "zzz", "aaaaa", "../x"])
def test_unknown_name(asked: str) -> None:
    with pytest.raises(UnknownNameError):
        store.match(asked, NAMES)


@given(st.sampled_from(NAMES), st.integers(1, 40))
def test_a_prefix_never_finds_a_run_that_does_not_bear_it(name: str, length: int) -> None:
    try:
        assert store.match(name[:length], NAMES).startswith(name[:length])
    except UsageError:
        assert sum(other.startswith(name[:length]) for other in NAMES) > 1


def _create(folder: Path, command: str, name: str, now: float) -> None:
    Run.create(folder, RunSpec(command, "", "", "h", 0, name=name), Edge(clock=lambda: now)).close()


def test_last_is_the_newest_and_can_be_limited_to_a_command(tmp_path: Path) -> None:
    _create(tmp_path, "nas", "z-old", 1.0)
    _create(tmp_path, "nas", "a-new", 2.0)
    _create(tmp_path, "debate", "middle", 1.5)
    assert store.find(tmp_path, "last").id == "a-new"
    assert store.find(tmp_path, "last:debate").id == "middle"
    with pytest.raises(UnknownNameError, match="last:evolve"):
        store.find(tmp_path, "last:evolve")


def test_unreadable_run_can_still_be_removed(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    with pytest.raises(RunUnreadableError):
        store.find(tmp_path, "broken")
    store.remove(tmp_path, store.resolve(tmp_path, "broken"))
    assert not (tmp_path / "broken").exists()


def test_no_runs_folder_is_an_empty_list(tmp_path: Path) -> None:
    assert not store.list_runs(tmp_path / "absent").runs
