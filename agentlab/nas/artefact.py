"""The exported winner of a search: a folder that stands alone and forecasts wherever agentlab is installed.

model.safetensors   weights; written last, so a folder that has them is complete
config.yaml         data, model and training of the trial, without the path of its series
scaler.json         how a table becomes the network's input: columns, targets, mean, deviation, dates, gaps
card.json           where it comes from and how good it was
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch  # noqa: TID253 - this module is only imported by code that has a trained network
from pydantic import Field, FiniteFloat, StringConstraints, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor  # noqa: TID253 - as above

from agentlab import __version__
from agentlab.config.base import StrictModel
from agentlab.config.validation_messages import complaint
from agentlab.config.yaml_tree import read_yaml, write_yaml
from agentlab.errors import ConfigError, MissingFileError, ModelFileError
from agentlab.nas.config import TrialConfig
from agentlab.nas.informer.model import Informer, InformerShape
from agentlab.nas.series import Scaler, Series
from agentlab.nas.time_features import Frequency, time_features
from agentlab.runs.atomic import read_text, storage_errors
from agentlab.runs.folder import Folder

WEIGHTS, CONFIG, SCALER, CARD = "model.safetensors", "config.yaml", "scaler.json", "card.json"
MAX_WEIGHTS = 1 << 30
MAX_TEXT = 1 << 20
_MAX_SHOWN = 5  # problems in a message
_AGAIN = "Export it again: agentlab nas export RUN --out DIR"

Name = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
Deviation = Annotated[FiniteFloat, Field(gt=0)]


class _Scaling(StrictModel):  # of scaler.json
    columns: tuple[Name, ...] = Field(min_length=1, max_length=512)
    targets: tuple[Name, ...] = Field(min_length=1, max_length=512)
    mean: tuple[FiniteFloat, ...]
    std: tuple[Deviation, ...]
    frequency: str
    time_features: int
    date_column: str
    date_format: str | None
    gaps: Literal["error", "ffill", "interpolate"]


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """A trained network with all it takes to forecast. `targets` numbers the forecast columns among `names`.

    Raises:
        ValueError: the parts do not go together; the message says which.
    """

    trial: TrialConfig
    names: tuple[str, ...]
    targets: tuple[int, ...]
    scaler: Scaler
    frequency: Frequency
    weights: Mapping[str, Tensor]
    card: Mapping[str, Any]

    def __post_init__(self) -> None:
        problems = [*_table_problems(self)] or [*_weight_problems(self.weights, _expected_weights(self))]
        if problems:
            rest_note = f"; and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
            raise ValueError("; ".join(problems[:_MAX_SHOWN]) + rest_note)

    @classmethod
    def of(cls, trial: TrialConfig, series: Series, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> Self:
        """What a search exports. To the card come the series, its fingerprint and the version of agentlab."""
        data = trial.data.model_copy(update={"path": None, "columns": series.names, "frequency": str(series.frequency)})
        about = {
            "created_by": f"agentlab {__version__}",
            "series": f"{series.source}, {len(series.values)} rows, one per {series.frequency}",
            "fingerprint": series.fingerprint,
        }
        return cls(
            trial=trial.model_copy(update={"data": data}),
            names=series.names,
            targets=series.targets,
            scaler=series.scaler,
            frequency=series.frequency,
            weights={name: value.detach().cpu().contiguous() for name, value in weights.items()},
            card={**about, **card},
        )

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(self.names[index] for index in self.targets)

    @property
    def time_channels(self) -> int:
        return int(time_features(np.array(["1970-01-01"], dtype="datetime64[s]"), self.frequency).shape[1])

    def network(self) -> Informer:
        """The trained network on the CPU, ready to score. Torch's global generator is left as it was found."""
        with torch.random.fork_rng(devices=[]):
            model = _build(self)
        model.load_state_dict(dict(self.weights))
        return model.eval()


def _build(artefact: Artefact) -> Informer:
    return Informer(artefact.trial, InformerShape(len(artefact.names), artefact.time_channels, artefact.targets))


def _expected_weights(artefact: Artefact) -> dict[str, Tensor]:
    """Every weight of the network and buffer beside them (BatchNorm counts its batches), without their memory."""
    with torch.device("meta"):
        return _build(artefact).state_dict()


def _table_problems(artefact: Artefact) -> list[str]:
    names, targets, scaler, data = artefact.names, artefact.targets, artefact.scaler, artefact.trial.data
    channels = len(names)
    expected_targets = tuple(range(channels)) if data.features == "M" else (channels - 1,)
    checks = {
        "duplicate column names": len(set(names)) < channels,
        f"the date column {data.date_column!r} is among the series columns": data.date_column in names,
        f"features {data.features} does not match the targets": targets != expected_targets,
        f"expected {channels} means and standard deviations, got shapes {scaler.mean.shape} and {scaler.std.shape}": (
            scaler.mean.shape != (channels,) or scaler.std.shape != (channels,)
        ),
        "every mean must be finite, and every standard deviation finite and positive": not (
            np.isfinite(scaler.mean).all() and np.isfinite(scaler.std).all() and (scaler.std > 0).all()
        ),
    }
    return [problem for problem, is_wrong in checks.items() if is_wrong]


def _weight_problems(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    problems = [f"weight {name} is missing" for name in expected if name not in weights]
    for name, value in weights.items():
        if name not in expected:
            problems.append(f"unexpected weight {name[:100]!r}")
        elif value.shape != expected[name].shape:
            problems.append(f"weight {name} has shape {[*value.shape]}, expected {[*expected[name].shape]}")
        elif value.dtype != expected[name].dtype:
            problems.append(f"weight {name} is {value.dtype}, expected {expected[name].dtype}")
        elif not torch.isfinite(value).all():
            problems.append(f"weight {name} contains a non-finite value")
    return problems


def write_artefact(folder: Folder, artefact: Artefact) -> None:
    """Write the four files, the weights last. An earlier winner in the folder is no longer one from the first write on.

    Raises:
        ValueError: the card is not plain JSON data.
        StorageError: the folder cannot be written.
    """
    data = artefact.trial.data
    scaling = _Scaling(
        columns=artefact.names,
        targets=artefact.target_names,
        mean=tuple(artefact.scaler.mean.tolist()),
        std=tuple(artefact.scaler.std.tolist()),
        frequency=str(artefact.frequency),
        time_features=artefact.time_channels,
        date_column=data.date_column,
        date_format=data.date_format,
        gaps=data.gaps,
    )
    json.dumps(dict(artefact.card), allow_nan=False)  # before anything is touched
    weights = folder.file(WEIGHTS)
    with storage_errors(weights):
        weights.unlink(missing_ok=True)
    folder.write_text(CONFIG, write_yaml(artefact.trial.model_dump(mode="json")))
    folder.write_json(SCALER, scaling.model_dump(mode="json"))
    folder.write_json(CARD, dict(artefact.card))
    folder.write_bytes(WEIGHTS, save_weights(dict(artefact.weights)))


def read_artefact(path: Path) -> Artefact:
    """Read an exported folder, which may come from anybody.

    Raises:
        MissingFileError: there is no such folder, or a file of it is missing.
        ModelFileError: a file is damaged, too large, or does not go with the others; the message says how.
    """
    for name in (WEIGHTS, CONFIG, SCALER, CARD):
        if not (path / name).is_file():
            raise MissingFileError(
                f"{path} is not an exported model: {name} is missing.",
                hint="Pass a run, or a folder written by `agentlab nas export RUN --out DIR`.",
            )
    try:
        return _assemble_artefact(path)
    except (ValueError, OSError) as error:
        raise ModelFileError(f"Cannot load the exported model {path}: {error}.", hint=_AGAIN) from error
    except ConfigError as error:
        raise ModelFileError(f"Cannot load the exported model {path}: {error.message}", hint=_AGAIN) from error


def _assemble_artefact(path: Path) -> Artefact:
    with _file_errors(CONFIG):
        trial = TrialConfig.model_validate(read_yaml(read_text(path / CONFIG, MAX_TEXT), CONFIG).data)
    with _file_errors(SCALER):
        scaling = _Scaling.model_validate_json(read_text(path / SCALER, MAX_TEXT), strict=True)
    frequency = Frequency.parse(scaling.frequency)
    for key in ("columns", "frequency", "date_column", "date_format", "gaps"):
        if getattr(scaling, key) != getattr(trial.data, key):
            raise ValueError(f"{SCALER} and {CONFIG} disagree on {key}")
    if unknown := [name for name in scaling.targets if name not in scaling.columns]:
        raise ValueError(f"{SCALER}: target {unknown[0]!r} is not one of the columns")
    artefact = Artefact(
        trial=trial,
        names=scaling.columns,
        targets=tuple(scaling.columns.index(name) for name in scaling.targets),
        scaler=Scaler(mean=np.array(scaling.mean), std=np.array(scaling.std)),
        frequency=frequency,
        weights=_weights(path / WEIGHTS),
        card=_card(read_text(path / CARD, MAX_TEXT)),
    )
    if artefact.time_channels != scaling.time_features:
        raise ValueError(f"{SCALER}: expected {artefact.time_channels} time features at frequency {frequency}")
    return artefact


@contextmanager
def _file_errors(name: str) -> Iterator[None]:
    """What pydantic says of a file, as a ValueError that names it."""
    try:
        yield
    except ValidationError as error:
        complaints = error.errors(include_input=False, include_url=False)[:_MAX_SHOWN]
        raise ValueError(f"{name}: {'; '.join(map(complaint, complaints))}") from error


def _card(text: str) -> dict[str, Any]:
    try:
        card = json.loads(text)
        json.dumps(card, allow_nan=False)  # Python's reader lets NaN and 1e999 through
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{CARD}: not valid JSON ({str(error)[:200]})") from error
    if not isinstance(card, dict):
        raise ValueError(f"{CARD}: expected a JSON object")
    return card


def _weights(path: Path) -> dict[str, Tensor]:
    if (size := path.stat().st_size) > MAX_WEIGHTS:
        raise ValueError(f"{WEIGHTS} has {size} bytes; the limit is {MAX_WEIGHTS}")
    try:
        return dict(load_weights(path.read_bytes()))
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{WEIGHTS} is damaged: {str(error)[:200]}") from error
