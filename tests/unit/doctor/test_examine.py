"""Looking at folders leaves no trace."""

from pathlib import Path

from agentlab.doctor.examine import write_problem


def test_a_folder_that_exists_or_could_be_made_can_be_written(tmp_path: Path) -> None:
    assert write_problem(tmp_path) is None
    assert write_problem(tmp_path / "a" / "b") is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    assert "not a folder" in (write_problem(tmp_path / "models" / "x") or "")


def test_a_folder_of_the_kernel_is_a_problem() -> None:
    assert write_problem(Path("/proc/self")) is not None


def test_a_path_that_cannot_even_be_looked_at_is_a_problem(tmp_path: Path) -> None:
    assert "too long" in (write_problem(tmp_path / ("x" * 5000)) or "")
