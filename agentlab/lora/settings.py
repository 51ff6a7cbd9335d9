"""The `adapter_config.json` of a PEFT adapter folder: what it says about scale, targets and base model.

Scales follow PEFT: rank and alpha of a module come from the first key of `rank_pattern` and `alpha_pattern` that
matches its name as `(.*\\.)?(key)$`, a regular expression, and otherwise from `r` and `lora_alpha`.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentlab.errors import DataError, MissingFileError
from agentlab.patterns import is_costly
from agentlab.runs.atomic import read_text

CONFIG_FILE = "adapter_config.json"
MOST_RANK = 8192
DAMAGED = "Copy or train the adapter again."
_MOST_BYTES = 4 << 20
_MOST_MATCHES = 1 << 22  # of patterns with modules, some seconds of work
_MATCH_SECONDS = 5.0  # all patterns together; one from a stranger's file may take for ever on a short name

# Key -> what an adapter that sets it does beyond adding a low-rank matrix.
_BEYOND = {
    "use_dora": "is a DoRA adapter, which also rescales the base model's weights",
    "lora_bias": "has LoRA biases (lora_bias)",
    "modules_to_save": "replaces whole modules (modules_to_save)",
    "trainable_token_indices": "replaces token embeddings (trainable_token_indices)",
    "target_parameters": "changes bare parameters (target_parameters)",
    "layer_replication": "repeats layers of the base model (layer_replication)",
    "alora_invocation_tokens": "is only active after its invocation tokens (aLoRA)",
    "use_qalora": "is a QA-LoRA adapter",
    "use_bdlora": "is a block-diagonal LoRA adapter",
    "arrow_config": "routes between adapters (arrow_config)",
    "kasa_config": "is a KaSA adapter",
    "monteclora_config": "is a MonteCLoRA adapter",
}
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")

_Number = TypeVar("_Number", int, float)
_Text = Annotated[str, Field(max_length=4096)]
_Rank = Annotated[int, Field(ge=1, le=MOST_RANK)]
_Alpha = Annotated[float, Field(ge=-1e6, le=1e6)]  # some hundreds in practice; far more overflows in what is computed


class AdapterSettings(BaseModel):
    """The keys of the file that determine the change an adapter makes."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    base_model_name_or_path: _Text | None = None
    revision: _Text | None = None
    task_type: _Text | None = None
    r: _Rank
    lora_alpha: _Alpha
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    target_modules: _Text | list[_Text] | None = None
    exclude_modules: Any = None
    layers_to_transform: Any = None
    rank_pattern: dict[Annotated[str, Field(max_length=512)], _Rank] | None = None
    alpha_pattern: dict[Annotated[str, Field(max_length=512)], _Alpha] | None = None

    @property
    def base(self) -> tuple[str, str]:
        """Name and revision of the base model; empty where the file does not say."""
        return (self.base_model_name_or_path or "").rstrip("/"), self.revision or ""

    @property
    def suffixes(self) -> list[str] | None:
        """The ends of the names of all modules it targets; None where something else decides, too."""
        plain = not self.exclude_modules and self.layers_to_transform is None
        return self.target_modules if plain and isinstance(self.target_modules, list) else None

    def scale(self, rank: int, alpha: float) -> float:
        """What a product of factors is multiplied with: alpha / r, rank-stabilised alpha / sqrt(r)."""
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def ranks(self, modules: Iterable[str]) -> dict[str, int]:
        """The rank of each module. Errors: as `alphas`."""
        return _assign(modules, self.rank_pattern or {}, self.r)

    def alphas(self, modules: Iterable[str]) -> dict[str, float]:
        """The alpha of each module.

        Raises:
            DataError: a pattern is no regular expression, or takes too long.
        """
        return _assign(modules, self.alpha_pattern or {}, self.lora_alpha)


def read_settings(folder: Path) -> AdapterSettings:
    """Read and check the settings of an adapter folder.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged, or the adapter is more than a low-rank matrix per module.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise MissingFileError(
            f"{folder} is not an adapter folder: it has no {CONFIG_FILE}.",
            hint="Use a folder written by PEFT or `agentlab train-persona`.",
        )
    try:
        config = json.loads(read_text(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"Cannot read {path}: {error}.", hint=DAMAGED) from error
    if not isinstance(config, dict):
        raise DataError(f"{path} is not a JSON object.", hint=DAMAGED)
    _refuse(folder, config)
    try:
        return AdapterSettings.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: {where[:200]}: {first['msg']}.", hint=DAMAGED) from error


def _refuse(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise DataError(
            f"{folder} is a PEFT adapter of type {str(config.get('peft_type'))[:40]!r}, not LORA.",
            hint="Only LoRA adapters can be combined as matrices.",
        )
    beyond = [text for key, text in _BEYOND.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        beyond.append("trains biases (bias is not none)")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
        beyond.append(f"belongs to a modified base model (init_lora_weights {start[:40]!r})")
    if beyond:
        raise DataError(
            f"{folder} {', and '.join(beyond)}, so it is not a plain low-rank change.",
            hint="Train a plain LoRA adapter, or convert this one to plain LoRA with PEFT first.",
        )


def _assign(modules: Iterable[str], patterns: Mapping[str, _Number], default: _Number) -> dict[str, _Number]:
    import regex  # only where there are patterns to match: it takes a while to load

    names = list(modules)
    if len(names) * len(patterns) > _MOST_MATCHES or any(map(is_costly, patterns)):
        raise DataError(
            f"The {len(patterns)} keys of rank_pattern or alpha_pattern are too many to match against "
            f"{len(names)} modules, or one of them has nested groups.",
            hint="Use module names as keys.",
        )
    deadline = time.monotonic() + _MATCH_SECONDS
    try:
        compiled = [(regex.compile(rf"(.*\.)?({key})$"), value) for key, value in patterns.items()]
        return {name: _first_match(name, compiled, default, deadline) for name in names}
    except (regex.error, RecursionError, OverflowError, TimeoutError) as error:
        raise DataError(
            f"A key of rank_pattern or alpha_pattern cannot be matched: {str(error)[:200] or 'it takes too long'}.",
            hint="Use module names as keys.",
        ) from error


def _first_match(name: str, compiled: Sequence[tuple[Any, _Number]], default: _Number, deadline: float) -> _Number:
    """Raises TimeoutError after the deadline."""
    matching = (value for pattern, value in compiled if pattern.match(name, timeout=_seconds_left(deadline)))
    return next(matching, default)


def _seconds_left(deadline: float) -> float:
    return max(1e-3, deadline - time.monotonic())
