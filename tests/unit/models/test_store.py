"""Names and paths of model files, in the workspace first and then in the cache."""

from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, UnknownNameError, UsageError
from agentlab.models.catalogue import EMBEDDED, lookup
from agentlab.models.store import find, list_models, remove

FILE = lookup(EMBEDDED).file


def put(path: Path, content: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_model_is_found_by_catalogue_name_file_name_stem_or_path(own_workspace: Workspace) -> None:
    embedded, local_model = put(own_workspace.models / FILE), put(own_workspace.models / "own.gguf")
    assert find(EMBEDDED, own_workspace) == embedded
    assert find(FILE, own_workspace) == embedded
    assert (
        find("own", own_workspace)
        == find("own.gguf", own_workspace)
        == find("models/own.gguf", own_workspace)
        == local_model
    )
    assert find(str(local_model), own_workspace) == local_model


def test_the_workspace_comes_before_the_cache(own_workspace: Workspace) -> None:
    cached = put(own_workspace.cache / "models" / FILE)
    assert find(EMBEDDED, own_workspace) == cached
    workspace_file = put(own_workspace.models / FILE)
    assert find(EMBEDDED, own_workspace) == workspace_file


def test_a_checkpoint_is_a_folder_with_a_config(own_workspace: Workspace) -> None:
    put(own_workspace.models / "tuned" / "config.json", b"{}")
    put(own_workspace.models / "tuned" / "model.safetensors", b"12345")
    put(own_workspace.models / "notes" / "readme.txt")
    put(own_workspace.models / ".making-1-x" / "config.json")
    entry = list_models(own_workspace)[0]
    assert (entry.name, entry.kind, entry.bytes, entry.place) == ("tuned", "checkpoint", 7, "workspace")
    assert len(list_models(own_workspace)) == 1
    assert find("tuned", own_workspace) == own_workspace.models / "tuned"


def test_a_catalogued_model_that_is_absent_names_the_command(own_workspace: Workspace) -> None:
    with pytest.raises(MissingFileError) as caught:
        find(EMBEDDED, own_workspace)
    assert f"agentlab models pull {EMBEDDED}" in (caught.value.hint or "")


def test_an_unknown_name_is_answered_with_what_is_there(own_workspace: Workspace) -> None:
    put(own_workspace.models / "own.gguf")
    with pytest.raises(UnknownNameError) as caught:
        find("owm", own_workspace)
    assert "own" in (caught.value.hint or "")


def test_a_path_to_nothing_is_missing(own_workspace: Workspace) -> None:
    with pytest.raises(MissingFileError):
        find("models/none.gguf", own_workspace)


@pytest.mark.parametrize("name", ["own", "own.gguf"])
def test_a_model_is_removed_by_either_name(own_workspace: Workspace, name: str) -> None:
    local_model = put(own_workspace.models / "own.gguf")
    assert remove(name, own_workspace).path == local_model
    assert not local_model.exists()


@pytest.mark.parametrize("name", ["..", "../outside", "../outside.gguf", ".", "", "/", "outside.gguf", ".gitkeep"])
def test_removing_never_leaves_the_models_folder(own_workspace: Workspace, name: str) -> None:
    outside = put(own_workspace.root / "outside.gguf")
    put(own_workspace.root / "config.json")
    put(own_workspace.models / ".gitkeep", b"")
    for hostile in (name, str(outside)):
        with pytest.raises(UnknownNameError):
            remove(hostile, own_workspace)
    assert outside.exists()
    assert (own_workspace.models / ".gitkeep").exists()


def test_removing_a_link_keeps_what_it_points_to(own_workspace: Workspace) -> None:
    outside = put(own_workspace.root / "elsewhere" / "config.json").parent
    own_workspace.models.mkdir()
    (own_workspace.models / "linked").symlink_to(outside)
    remove("linked", own_workspace)
    assert not (own_workspace.models / "linked").is_symlink()
    assert (outside / "config.json").exists()


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b'{"model_type": 3}', b'{"name": "a web page"}', b"\xff"])
def test_a_folder_that_does_not_prove_to_be_a_checkpoint_is_not_removed(
    own_workspace: Workspace, config: bytes
) -> None:
    source = put(own_workspace.models / "site" / "main.py")
    put(own_workspace.models / "site" / "config.json", config)
    with pytest.raises(UsageError, match="does not set model_type"):
        remove("site", own_workspace)
    assert source.exists()
    put(own_workspace.models / "site" / "config.json", b'{"model_type": "llama"}')
    chapter = put(own_workspace.models / "site" / "thesis" / "chapter.tex")
    with pytest.raises(UsageError, match="contains the folder thesis"):
        remove("site", own_workspace)
    chapter.unlink()
    chapter.parent.rmdir()
    assert remove("site", own_workspace).path == source.parent
    assert not source.parent.exists()


def test_the_cache_is_never_removed_from(own_workspace: Workspace) -> None:
    cached = put(own_workspace.cache / "models" / FILE)
    with pytest.raises(UnknownNameError):
        remove(EMBEDDED, own_workspace)
    assert cached.exists()
