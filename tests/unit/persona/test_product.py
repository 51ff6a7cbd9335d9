"""The adapter's folder: whole or not at all, and never somebody else's."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import UsageError
from agentlab.persona.product import check_free, page_of, write_product

CARD: dict[str, Any] = {
    "name": "a",
    "run": "run-1",
    "base": {"path": "models/base"},
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
    out = tmp_path / "adapters" / "a"
    write_product(trained(tmp_path / "t"), out, CARD, page_of("a", CARD))
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "card.json",
    ]
    assert json.loads((out / "card.json").read_text()) == CARD
    assert "3.500 before training, 2.250 after" in (out / "README.md").read_text()
    assert list((tmp_path / "adapters").iterdir()) == [out]


def test_a_run_may_replace_what_it_has_made(tmp_path: Path) -> None:
    out, source = tmp_path / "a", trained(tmp_path / "t")
    write_product(source, out, CARD, "first")
    check_free(out, "run-1")
    write_product(source, out, CARD, "second")
    assert (out / "README.md").read_text() == "second"


@pytest.mark.parametrize("run", [None, "run-2"])
def test_but_nobody_else_s(tmp_path: Path, run: str | None) -> None:
    out = tmp_path / "a"
    write_product(trained(tmp_path / "t"), out, CARD, "")
    with pytest.raises(UsageError, match="is there already"):
        check_free(out, run)


def test_a_folder_without_a_card_is_somebody_s(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError):
        check_free(tmp_path / "a", "run-1")
    check_free(tmp_path / "b", None)


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out, source = tmp_path / "a", trained(tmp_path / "t")
    write_product(source, out, CARD, "first")
    (source / "adapter_model.safetensors").unlink()
    with pytest.raises(OSError, match="adapter_model"):
        write_product(source, out, CARD, "second")
    assert (out / "README.md").read_text() == "first"
