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


def test_a_model_is_found_by_catalogue_name_file_name_stem_or_path(place: Workspace) -> None:
    embedded, own = put(place.models / FILE), put(place.models / "own.gguf")
    assert find(EMBEDDED, place) == embedded
    assert find(FILE, place) == embedded
    assert find("own", place) == find("own.gguf", place) == find("models/own.gguf", place) == own
    assert find(str(own), place) == own


def test_the_workspace_comes_before_the_cache(place: Workspace) -> None:
    cached = put(place.cache / "models" / FILE)
    assert find(EMBEDDED, place) == cached
    here = put(place.models / FILE)
    assert find(EMBEDDED, place) == here


def test_a_checkpoint_is_a_folder_with_a_config(place: Workspace) -> None:
    put(place.models / "tuned" / "config.json", b"{}")
    put(place.models / "tuned" / "model.safetensors", b"12345")
    put(place.models / "notes" / "readme.txt")
    put(place.models / ".making-1-x" / "config.json")
    entry = list_models(place)[0]
    assert (entry.name, entry.kind, entry.bytes, entry.place) == ("tuned", "checkpoint", 7, "workspace")
    assert len(list_models(place)) == 1
    assert find("tuned", place) == place.models / "tuned"


def test_a_catalogued_model_that_is_absent_names_the_command(place: Workspace) -> None:
    with pytest.raises(MissingFileError) as caught:
        find(EMBEDDED, place)
    assert f"agentlab models pull {EMBEDDED}" in (caught.value.hint or "")


def test_an_unknown_name_is_answered_with_what_is_there(place: Workspace) -> None:
    put(place.models / "own.gguf")
    with pytest.raises(UnknownNameError) as caught:
        find("owm", place)
    assert "own" in (caught.value.hint or "")


def test_a_path_to_nothing_is_missing(place: Workspace) -> None:
    with pytest.raises(MissingFileError):
        find("models/none.gguf", place)


@pytest.mark.parametrize("name", ["own", "own.gguf"])
def test_a_model_is_removed_by_either_name(place: Workspace, name: str) -> None:
    own = put(place.models / "own.gguf")
    assert remove(name, place).path == own
    assert not own.exists()


@pytest.mark.parametrize("name", ["..", "../outside", "../outside.gguf", ".", "", "/", "outside.gguf", ".gitkeep"])
def test_removing_never_leaves_the_models_folder(place: Workspace, name: str) -> None:
    outside = put(place.root / "outside.gguf")
    put(place.root / "config.json")
    put(place.models / ".gitkeep", b"")
    for hostile in (name, str(outside)):
        with pytest.raises(UnknownNameError):
            remove(hostile, place)
    assert outside.exists()
    assert (place.models / ".gitkeep").exists()


def test_removing_a_link_keeps_what_it_points_to(place: Workspace) -> None:
    outside = put(place.root / "elsewhere" / "config.json").parent
    place.models.mkdir()
    (place.models / "linked").symlink_to(outside)
    remove("linked", place)
    assert not (place.models / "linked").is_symlink()
    assert (outside / "config.json").exists()


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b'{"model_type": 3}', b'{"name": "a web page"}', b"\xff"])
def test_a_folder_that_does_not_prove_to_be_a_checkpoint_is_not_removed(place: Workspace, config: bytes) -> None:
    source = put(place.models / "site" / "main.py")
    put(place.models / "site" / "config.json", config)
    with pytest.raises(UsageError, match="names no model"):
        remove("site", place)
    assert source.exists()
    put(place.models / "site" / "config.json", b'{"model_type": "llama"}')
    own = put(place.models / "site" / "thesis" / "chapter.tex")
    with pytest.raises(UsageError, match="holds a folder, thesis"):
        remove("site", place)
    own.unlink()
    own.parent.rmdir()
    assert remove("site", place).path == source.parent
    assert not source.parent.exists()


def test_the_cache_is_never_removed_from(place: Workspace) -> None:
    cached = put(place.cache / "models" / FILE)
    with pytest.raises(UnknownNameError):
        remove(EMBEDDED, place)
    assert cached.exists()
