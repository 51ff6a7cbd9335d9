"""An exported model stands alone: what is written is read back, and what is damaged or made up is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agentlab.errors import MissingFileError, ModelFileError, UsageError
from agentlab.nas.artefact import CARD, CONFIG, SCALER, WEIGHTS, Artefact, read_artefact, write_artefact
from agentlab.nas.config import DataConfig, ModelConfig, TrialConfig
from agentlab.nas.export import export_artefact
from agentlab.nas.series import Series
from agentlab.nas.training import build
from agentlab.runs.folder import Folder

TRIAL = TrialConfig(
    data=DataConfig(path="/somewhere/secret/load.csv", date_column="when", gaps="ffill", input_length=8, horizon=3),
    model=ModelConfig(d_model=8, n_heads=2, e_layers=1, shortcut=True),
)
CARD_DATA = {"run": "first", "seed": 3, "val_mse": 0.4, "test_mse": 0.5}


@pytest.fixture
def artefact(make_series: Callable[..., Series]) -> Artefact:
    series = make_series(rows=60)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = build(TRIAL, series).state_dict()
    return Artefact.of(TRIAL, series, weights, CARD_DATA)


@pytest.fixture
def folder(artefact: Artefact, tmp_path: Path) -> Path:
    path = tmp_path / "winner"
    write_artefact(Folder(path), artefact)
    return path


def test_what_is_written_is_read_back(artefact: Artefact, folder: Path) -> None:
    copy = read_artefact(folder)
    assert copy.trial == artefact.trial
    assert (copy.names, copy.targets, copy.frequency) == (("c0", "c1"), (0, 1), artefact.frequency)
    assert copy.scaler.mean.tobytes() == artefact.scaler.mean.tobytes()
    assert copy.scaler.std.tobytes() == artefact.scaler.std.tobytes()
    assert copy.card == artefact.card
    assert copy.weights.keys() == artefact.weights.keys()
    assert all(torch.equal(copy.weights[name], value) for name, value in artefact.weights.items())
    assert sorted(path.name for path in folder.iterdir()) == sorted((WEIGHTS, CONFIG, SCALER, CARD))


def test_the_folder_says_what_it_needs_and_not_where_its_data_lay(folder: Path) -> None:
    assert json.loads((folder / SCALER).read_text()) | {"mean": [], "std": []} == {
        "columns": ["c0", "c1"], "targets": ["c0", "c1"], "mean": [], "std": [], "frequency": "h", "time_features": 4,
        "date_column": "when", "date_format": None, "gaps": "ffill",
    }  # fmt: skip
    card = json.loads((folder / CARD).read_text())
    assert {"created_by", "series", "fingerprint", *CARD_DATA} <= card.keys()
    assert all("secret" not in (folder / name).read_text() for name in (CONFIG, SCALER, CARD))


def test_one_target_of_many_columns(make_series: Callable[..., Series], tmp_path: Path) -> None:
    trial = TRIAL.model_copy(update={"data": TRIAL.data.model_copy(update={"features": "MS"})})
    series = make_series(rows=60, channels=3, targets=(2,))
    write_artefact(Folder(tmp_path / "ms"), Artefact.of(trial, series, build(trial, series).state_dict(), {}))
    assert read_artefact(tmp_path / "ms").target_names == ("c2",)


def test_building_the_network_leaves_the_global_generator_alone(artefact: Artefact) -> None:
    before = torch.random.get_rng_state()
    assert not artefact.network().training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_writing_again_takes_the_weights_away_first(
    artefact: Artefact, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in the middle must not leave the weights of one winner beside the config of another."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agentlab.runs.folder.write_json", full)
    with pytest.raises(OSError, match="No space"):
        write_artefact(Folder(folder), artefact)
    with pytest.raises(MissingFileError, match=WEIGHTS):
        read_artefact(folder)


def test_a_card_that_is_no_json_touches_nothing(artefact: Artefact, folder: Path) -> None:
    wrong = Artefact.of(TRIAL, _series_of(artefact), artefact.weights, {"val_mse": float("nan")})
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="JSON"):
        write_artefact(Folder(folder), wrong)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def _series_of(artefact: Artefact) -> Series:
    """The least a series has to be for an export."""
    rows = np.zeros((1, 2), dtype=np.float32)
    dates = np.array(["2024-01-01"], dtype="datetime64[s]")
    part: Any = None
    return Series("s", artefact.names, artefact.targets, rows, rows, dates, part, artefact.scaler, artefact.frequency)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"projection.bias": torch.zeros(3)}, r"weight projection.bias has shape \[3\], expected \[2\]"),
        ({"projection.bias": torch.zeros(2, dtype=torch.float64)}, "torch.float64"),
        ({"projection.bias": torch.tensor([0.0, float("nan")])}, "projection.bias contains a non-finite value"),
        ({"extra": torch.zeros(1)}, "unexpected weight 'extra'"),
        ({"projection.bias": None}, "weight projection.bias is missing"),
    ],
)
def test_weights_of_another_network_are_refused(folder: Path, changes: dict[str, Tensor | None], pattern: str) -> None:
    changed = {**load_file(folder / WEIGHTS), **changes}
    save_file({name: value for name, value in changed.items() if value is not None}, folder / WEIGHTS)
    with pytest.raises(ModelFileError, match=pattern):
        read_artefact(folder)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"\x08\x00\x00\x00\x00\x00\x00\x00[[[[[[[[", b"PK\x03\x04"])
def test_damaged_weights_are_refused(folder: Path, damage: bytes) -> None:
    (folder / WEIGHTS).write_bytes(damage)
    with pytest.raises(ModelFileError, match=f"{WEIGHTS} is damaged"):
        read_artefact(folder)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"mean": [0.0]}, r"got shapes \(1,\)"),
        ({"mean": "0"}, "scaler.json: mean"),
        ({"mean": [0.0, None]}, "scaler.json: mean.1"),
        ({"std": [1.0, 0.0]}, "scaler.json: std.1: Input should be greater than 0"),
        ({"std": [1.0, float("nan")]}, "scaler.json: std.1"),
        ({"std": [1.0, float("inf")]}, "scaler.json: std.1"),
        ({"columns": ["c0", "c0"]}, "disagree on columns"),
        ({"columns": []}, "scaler.json: columns"),
        ({"targets": ["c9"]}, "target 'c9' is not one of the columns"),
        ({"targets": ["c0"]}, "does not match the targets"),
        ({"targets": ["c1", "c0"]}, "does not match the targets"),
        ({"frequency": "fortnight"}, "'fortnight' is not a valid time step"),
        ({"frequency": "D"}, "disagree on frequency"),
        ({"time_features": 5}, "expected 4 time features"),
        ({"time_features": "4"}, "scaler.json: time_features"),
        ({"gaps": "error"}, "disagree on gaps"),
        ({"surprise": 1}, "scaler.json: surprise"),
    ],
)
def test_a_scaler_that_cannot_be_is_refused(folder: Path, changes: dict[str, Any], pattern: str) -> None:
    tree = json.loads((folder / SCALER).read_text())
    (folder / SCALER).write_text(json.dumps({**tree, **changes}))
    with pytest.raises(ModelFileError, match=pattern):
        read_artefact(folder)


@pytest.mark.parametrize(
    ("file", "text", "pattern"),
    [
        (SCALER, "", "scaler.json: the whole"),
        (SCALER, "[" * 100_000, "scaler.json: the whole"),
        (SCALER, "{}", "scaler.json: columns: Field required"),
        (CARD, "[" * 100_000, "card.json: not valid JSON"),
        (CARD, '{"test_mse": NaN}', "card.json: not valid JSON"),
        (CARD, '{"test_mse": 1e999}', "card.json: not valid JSON"),
        (CARD, "[1]", "card.json: expected a JSON object"),
        (CARD, " " * (1 << 20) + "{}", "larger than 1 MiB"),
        (CONFIG, "data: {horizon: 0}", "config.yaml: data.horizon"),
        (CONFIG, "data: !!python/object/apply:os.getcwd []", "config.yaml:1:7"),
        (CONFIG, "data: {horizon: .nan}", "numbers must be finite"),
        (CONFIG, "surprise: 1", "config.yaml: surprise"),
        (CONFIG, "{}", "disagree on columns"),
    ],
)
def test_hostile_text_is_refused(folder: Path, file: str, text: str, pattern: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(ModelFileError, match=pattern):
        read_artefact(folder)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, SCALER, CARD])
def test_a_file_that_is_missing_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(MissingFileError, match=name):
        read_artefact(folder)


def test_parts_that_do_not_go_together_are_no_artefact(artefact: Artefact) -> None:
    weights = {name: value for name, value in artefact.weights.items() if name != "projection.bias"}
    with pytest.raises(ValueError, match=r"weight projection\.bias is missing"):
        Artefact.of(TRIAL, _series_of(artefact), weights, {})


def test_an_export_is_a_copy_without_strangers(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "link").symlink_to("/etc/hostname")
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "new", tmp_path / "empty"):
        assert export_artefact(folder, target) == target
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new", "winner"]


def test_an_export_never_overwrites(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for name in ("file", "full"):
        with pytest.raises(UsageError, match="already exists"):
            export_artefact(folder, tmp_path / name)


def test_a_failed_export_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(ModelFileError):
        export_artefact(folder, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["winner"]
