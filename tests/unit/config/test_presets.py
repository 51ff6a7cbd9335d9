"""Where a preset's name leads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.config import presets
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError, UnknownNameError


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr("agentlab.config.presets.shipped_folder", lambda: tmp_path / "shipped")
    for root, name, text in (
        ("shipped", "default", "#  Shipped default. \n#  More.\na: 1\n"),
        ("shipped", "demo", "a: 2\n"),
        ("home/configs", "default", "# Mine.\na: 3\n"),
    ):
        path = tmp_path / root / "lab" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Workspace(root=tmp_path / "home", cache=tmp_path)


def test_the_workspace_hides_what_is_shipped(workspace: Workspace) -> None:
    files = presets.named_files("lab", "default", workspace)
    assert [f.path.read_text().splitlines()[0] for f in files] == ["# Mine.", "#  Shipped default. "]
    by_name = {p.name: (p.description, p.shipped) for p in presets.presets("lab", workspace)}
    assert by_name == {"default": ("Mine.", False), "demo": ("", True)}


def test_names_are_listed_and_the_nearest_is_offered(workspace: Workspace) -> None:
    assert presets.preset_names("lab", workspace) == ["default", "demo"]
    assert presets.preset_names("other", workspace) == []
    with pytest.raises(UnknownNameError) as caught:
        presets.named_files("lab", "dem", workspace)
    assert caught.value.hint is not None
    assert "Did you mean demo?" in caught.value.hint


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "", ".hidden", "a\0b", "x" * 65, "C:x", "a\\b", "dem\n"])
def test_a_hostile_name_is_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        presets.named_files("lab", name, workspace)


@given(st.text(max_size=20))
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    workspace = Workspace(root=Path("/nowhere"), cache=Path("/nowhere"))
    with pytest.raises((ConfigError, UnknownNameError)):
        presets.named_files("lab", name, workspace)


@pytest.mark.parametrize("ref", ["a.yaml", "a.yml", "./a", "/x/a", "../a", "~/a", "a\\b"])
def test_a_path_is_told_from_a_name(ref: str) -> None:
    assert presets.is_path(ref)
    assert not presets.is_path("qwen2.5")


def test_a_relative_path_starts_at_its_base() -> None:
    assert presets.path_file("a.yaml", Path("/base")).path == Path("/base/a.yaml")
    assert presets.path_file("/a.yaml", Path("/base")).path == Path("/a.yaml")


def test_a_checkout_lists_its_presets_once() -> None:
    checkout = Workspace(root=presets.shipped_folder().parent, cache=Path("/nowhere"))
    assert [p for p in presets.presets("llm", checkout) if p.name == "embedded"]
    assert len(presets.named_files("llm", "embedded", checkout)) == 1


def test_a_folder_is_no_preset_whatever_its_name(workspace: Workspace) -> None:
    (workspace.configs / "lab" / "folder.yaml").mkdir()
    assert presets.preset_names("lab", workspace) == ["default", "demo"]
