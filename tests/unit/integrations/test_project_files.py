"""An agent's folder: nothing outside of it, nothing hidden, nothing endless."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import AgentlabError, DataError, MissingFileError, UsageError
from agentlab.integrations import project_files
from agentlab.integrations.project_files import ProjectFiles


@pytest.fixture
def files(tmp_path: Path) -> ProjectFiles:
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / ".git").mkdir()
    (tmp_path / "outside.txt").write_text("secret")
    (project / ".env").write_text("KEY=secret")
    (project / "src" / "main.py").write_text("print()")
    (project / "README.md").write_text("Hello")
    (project / "link.txt").symlink_to(tmp_path / "outside.txt")
    return ProjectFiles(project)


def test_what_is_written_is_listed_and_read(files):
    files.write("docs/new/page.md", "café")
    assert files.listing() == ["README.md", "docs/new/page.md", "src/main.py"]
    assert files.read("docs/new/page.md") == "café"
    files.write("README.md", "Bye")
    assert files.read("./README.md") == "Bye"


FORBIDDEN = ["../outside.txt", "/etc/passwd", "src/../../outside.txt", "link.txt", ".env", ".git/hooks/pre-commit", ""]


@pytest.mark.parametrize("name", [*FORBIDDEN, ".", "..", "a\0b", "src/../.env", "x/../../project/.env"])
def test_nothing_outside_and_nothing_hidden(files, name):
    with pytest.raises(UsageError):
        files.read(name)
    with pytest.raises(UsageError):
        files.write(name, "x")
    assert (files.root.parent / "outside.txt").read_text() == "secret"


@given(name=st.text(alphabet="./\\~ab\0", max_size=12))
def test_no_name_leads_outside(tmp_path_factory, name):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "project").mkdir()
    with contextlib.suppress(AgentlabError):
        ProjectFiles(outside / "project").write(name, "x")
    assert [path.name for path in outside.iterdir()] == ["project"]


def test_a_long_file_is_cut_and_a_long_text_refused(files, monkeypatch):
    monkeypatch.setattr(project_files, "MOST_READ", 5)
    (files.root / "long.txt").write_text("äöü" * 100)
    assert files.read("long.txt") == "äö"
    with pytest.raises(UsageError, match="at most"):
        files.write("long.txt", "x" * (project_files.MOST_WRITTEN + 1))


def test_what_is_no_text_or_no_file(files):
    (files.root / "picture.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(DataError):
        files.read("picture.png")
    with pytest.raises(MissingFileError):
        files.read("src")
    with pytest.raises(UsageError, match="folder"):
        files.write("src", "x")


def test_a_long_listing_ends(files, monkeypatch):
    monkeypatch.setattr(project_files, "MOST_LISTED", 1)
    assert files.listing() == ["README.md"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere"):
        ProjectFiles(tmp_path / "nowhere")
