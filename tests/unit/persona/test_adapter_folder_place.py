"""Where an adapter can be put is known before it is trained."""

import os
import shlex
from pathlib import Path

import pytest

from agentlab.errors import StorageError, UsageError
from agentlab.models.base_model import BaseFile
from agentlab.persona.adapter_folder import check_free, check_place, hold_folders, is_made_by, room_for
from agentlab.persona.config import PersonaConfig
from agentlab.train.config import LoraConfig


def adapter(folder: Path, run: str | None = "run-1") -> Path:
    """A folder as a run leaves it; without a run, as somebody else does."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    if run is not None:
        (folder / "card.json").write_text(f'{{"run": "{run}"}}')
    return folder


def test_a_free_place_is_below_any_folder(tmp_path: Path) -> None:
    check_place(tmp_path / "not" / "yet" / "there", None, 0)
    assert list(tmp_path.iterdir()) == []
    assert not is_made_by(tmp_path / "a", "run-1")


def test_a_run_s_own_folder_is_its_own(tmp_path: Path) -> None:
    check_place(adapter(tmp_path / "a"), "run-1", 0)
    assert is_made_by(tmp_path / "a", "run-1")


@pytest.mark.parametrize("length", [250, 300])
def test_a_name_that_the_disk_refuses_is_none_of_a_plan_either(tmp_path: Path, length: int) -> None:
    with pytest.raises(UsageError, match="File name too long"):
        check_place(tmp_path / ("a" * length), None, 0)


@pytest.mark.parametrize("run", [None, "run-2"])
def test_but_nobody_else_s(tmp_path: Path, run: str | None) -> None:
    with pytest.raises(UsageError, match="already exists") as caught:
        check_place(adapter(tmp_path / "a"), run, 0)
    assert "--out" in str(caught.value.hint)


def test_an_adapter_may_be_removed_by_a_command_that_can_be_pasted(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "sp ace" / "a")
    with pytest.raises(UsageError) as caught:
        check_place(folder, None, 0)
    assert shlex.split(str(caught.value.hint))[-3:] == ["rm", "-r", str(folder)]


def test_no_command_removes_what_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "runs", tmp_path / "file"):
        with pytest.raises(UsageError, match="already exists") as caught:
            check_place(path, None, 0)
        assert "rm " not in str(caught.value.hint)


@pytest.mark.parametrize("target", ["nowhere", "a"])
def test_a_link_is_no_place(tmp_path: Path, target: str) -> None:
    adapter(tmp_path / "a")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UsageError, match="is a symbolic link"):
        check_place(tmp_path / "link", "run-1", 0)


def test_nothing_is_made_below_a_file_or_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "dangling"):
        with pytest.raises(UsageError, match=f"{name} is not a folder") as caught:
            check_place(tmp_path / name / "sub" / "a", None, 0)
        assert "--out" in str(caught.value.hint)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_closed_folder_is_no_place(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="not writable") as caught:
        check_place(tmp_path / "a", None, 0)
    assert "--out" in str(caught.value.hint)


def test_there_is_room_for_the_adapter(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the adapter needs") as caught:
        check_place(tmp_path / "a", None, 1 << 60)
    assert "--out" in str(caught.value.hint)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no such file system")
def test_nor_where_nothing_can_be_kept() -> None:
    with pytest.raises(StorageError) as caught:
        check_place(Path("/proc/nope"), None, 0)
    assert "--out" in str(caught.value.hint)


def test_the_room_is_that_of_the_weights(tmp_path: Path) -> None:
    """Four bytes for each of rank times inputs and outputs of seven matrices in two layers."""
    from transformers import LlamaConfig

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaConfig(vocab_size=100, num_key_value_heads=2, **sizes).save_pretrained(tmp_path)
    config = PersonaConfig(lora=LoraConfig(r=3))
    sides = (64 + 64) + 2 * (64 + 32) + (64 + 64) + 2 * (64 + 128) + (128 + 64)
    assert room_for(config, BaseFile("tiny", tmp_path)) == 4 * 3 * 2 * sides
    assert room_for(config, BaseFile("none", tmp_path / "not-yet")) == 0


def test_a_place_is_one_run_s_until_its_block_ends(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet" / "mine"
    with hold_folders([folder, folder.with_name("other")]):
        for look in (check_free, lambda path: hold_folders([path]).__enter__()):
            with pytest.raises(UsageError, match="Another run is training the adapter"):
                look(folder)
        check_free(folder.with_name("third"))
    check_free(folder)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("folder", ["x" * 255, "/proc/mine", "/dev/null/mine"])
def test_a_place_that_nothing_can_be_written_to_is_found_by_writing(tmp_path: Path, folder: str) -> None:
    with pytest.raises(StorageError, match="cannot be created"), hold_folders([tmp_path / folder]):
        pytest.fail("it was taken")
