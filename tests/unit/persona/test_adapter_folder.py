"""The adapter's folder: whole or not at all, and never somebody else's."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import UsageError
from agentlab.lora.catalogue import find
from agentlab.persona.adapter_folder import page_of, write_product

CARD: dict[str, Any] = {
    "name": "a",
    "run": "run-1",
    "base": {"path": "models/base"},
    "data": {"system": "You are a sceptic.\nYou ask for proof."},
    "metrics": {"loss_before": 3.5, "eval_loss": 2.25},
}


def trained(folder: Path) -> Path:
    """A folder as a training leaves it."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "optimizer.safetensors").write_bytes(b"not part of it")
    return folder


def test_an_adapter_gets_its_card_and_a_page(tmp_path: Path) -> None:
    out, workspace = tmp_path / "adapters" / "a", Workspace(tmp_path, tmp_path)
    write_product(trained(tmp_path / "t"), out, CARD, page_of(out, workspace, CARD))
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "card.json",
    ]
    assert json.loads((out / "card.json").read_text()) == CARD
    page = (out / "README.md").read_text()
    assert "3.500 before training, 2.250 after" in page
    assert "    You are a sceptic.\n    You ask for proof.\n" in page
    assert "system message" not in page_of(out, workspace, CARD | {"data": {"system": None}})
    assert list((tmp_path / "adapters").iterdir()) == [out]


def test_the_page_s_commands_find_the_adapter_where_it_lies(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path)
    for out, called in (
        (workspace.adapters / "terse", "terse"),
        (tmp_path / "mine" / "a", f"{tmp_path}/mine/a"),
        (tmp_path / "my own" / "a", f"'{tmp_path}/my own/a'"),
    ):
        write_product(trained(tmp_path / f"t-{out.name}-{len(called)}"), out, CARD, page_of(out, workspace, CARD))
        assert f"`agentlab adapters show {called}`" in (out / "README.md").read_text()
        assert find(shlex.split(called)[0], workspace) == out


def test_a_run_replaces_what_it_has_made(tmp_path: Path) -> None:
    out, source = tmp_path / "a", trained(tmp_path / "t")
    write_product(source, out, CARD, "first")
    write_product(source, out, CARD, "second")
    assert (out / "README.md").read_text() == "second"


def test_but_never_what_another_run_has_made_in_the_meantime(tmp_path: Path) -> None:
    out, source = tmp_path / "a", trained(tmp_path / "t")
    write_product(source, out, CARD, "first")
    with pytest.raises(UsageError, match="already exists"):
        write_product(source, out, CARD | {"run": "run-2"}, "second")
    assert (out / "README.md").read_text() == "first"
    assert sorted(tmp_path.iterdir()) == [out, source]


def test_nor_a_file_that_somebody_has_put_beside_it(tmp_path: Path) -> None:
    out, source = tmp_path / "a", trained(tmp_path / "t")
    write_product(source, out, CARD, "first")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"'notes\.txt'"):
        write_product(source, out, CARD, "second")
    assert (out / "notes.txt").read_text() == "mine"


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out, source = tmp_path / "a", trained(tmp_path / "t")
    write_product(source, out, CARD, "first")
    (source / "adapter_model.safetensors").unlink()
    with pytest.raises(OSError, match="adapter_model"):
        write_product(source, out, CARD, "second")
    assert (out / "README.md").read_text() == "first"
