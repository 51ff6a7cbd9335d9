"""`agentlab models` at the command line."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentlab.models.catalogue import EMBEDDED, lookup
from cli.main import main

FILE = lookup(EMBEDDED).file


@pytest.fixture
def models(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder of an empty workspace whose cache is empty, too."""
    monkeypatch.setenv("AGENTLAB_CACHE", str(workspace / "cache"))
    (workspace / "models").mkdir()
    return workspace / "models"


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    return document


def test_the_list_shows_what_is_here_and_what_can_be_pulled(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "own.gguf").write_bytes(b"12345")
    assert main(["models", "list", "--json"]) == 0
    result = answer(capsys)["result"]
    assert isinstance(result, dict)
    lines = {line["name"]: line for line in result["models"]}
    assert (lines["own"]["bytes"], lines["own"]["place"]) == (5, "workspace")
    assert (lines[EMBEDDED]["path"], lines[EMBEDDED]["licence"]) == (None, "Apache-2.0")


def test_a_path_is_one_line_for_pipes(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "own.gguf").write_bytes(b"")
    assert main(["models", "path", "own"]) == 0
    assert capsys.readouterr().out == f"{models / 'own.gguf'}\n"


def test_an_absent_model_exits_3_and_names_the_command(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", EMBEDDED, "--json"]) == 3
    error = answer(capsys)["error"]
    assert isinstance(error, dict)
    assert error["kind"] == "MissingFileError"
    assert f"agentlab models pull {EMBEDDED}" in error["hint"]


@pytest.mark.parametrize("command", [["path", "nope"], ["pull", "nope"], ["rm", "nope", "--yes"], ["import", "nope"]])
def test_an_unknown_name_exits_2(models: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main(["models", *command]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "'nope'" in captured.err


def test_an_unknown_dtype_exits_2_before_anything_is_read(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "import", EMBEDDED, "--dtype", "bf16"]) == 2
    assert "bfloat16" in capsys.readouterr().err


def test_import_says_what_it_is_for_and_a_damaged_file_is_not_imported(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "bad.gguf").write_bytes(b"GGUF?")
    assert main(["models", "import", "models/bad.gguf", "--out", "models/bad"]) == 1
    stderr = capsys.readouterr().err
    assert "bad.gguf is not a usable GGUF model" in stderr
    assert "bad.gguf needs no import" in stderr
    assert "as a trainable float32 checkpoint" in stderr
    assert not (models / "bad").exists()


def test_removing_asks_first(models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (models / "own.gguf").write_bytes(b"")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["models", "rm", "own"]) == 2
    assert (models / "own.gguf").exists()
    assert main(["models", "rm", "own", "--yes", "--json"]) == 0
    assert not (models / "own.gguf").exists()


def test_pulling_what_is_there_and_sound_does_nothing(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object) -> Path:
        raise AssertionError("nothing may be fetched")

    (models / FILE).write_bytes(b"")
    monkeypatch.setattr("agentlab.models.pull.fetch", offline)
    monkeypatch.setattr("agentlab.models.pull.verify", lambda *_: None)
    assert main(["models", "pull"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{models / FILE}\n"
    assert "already exists; nothing was downloaded" in printed.err


def test_pulling_what_the_cache_holds_downloads_nothing(
    models: Path, workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object) -> Path:
        raise AssertionError("nothing may be fetched")

    content = b"GGUF"
    row = replace(lookup(EMBEDDED), bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr("agentlab.models.catalogue.CATALOGUE", (row,))
    monkeypatch.setattr("agentlab.models.pull.fetch", offline)
    (workspace / "cache" / "models").mkdir(parents=True)
    (workspace / "cache" / "models" / FILE).write_bytes(content)
    assert main(["models", "pull", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["result"]["origin"] == "cache"
    assert "was copied from the cache; nothing was downloaded" in printed.err
    assert (models / FILE).read_bytes() == content
