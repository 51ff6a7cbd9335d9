"""One pass over calibration text, a decoder layer after the other, for all that quantizers and pruners ask.

In memory are the hidden states of all windows and the statistics of one layer. Both are written after each layer, so a
pass that was killed goes on behind the last one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when a model is compressed
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor  # noqa: TID253 - as above

from agentlab import machine
from agentlab.compress.architecture import INPUTS, Check, layer_name, layers_of
from agentlab.errors import DataError, ModelFileError, UsageError
from agentlab.runs.atomic import make_folder, write_bytes

_AT_ONCE = 1024  # tokens of a forward pass
_HIDDEN = "hidden.safetensors"
_ORIGIN = "agentlab.calibration.1"  # one entry, because safetensors writes several in random order


@dataclass(frozen=True, slots=True, eq=False)
class LayerStatistics:
    """Of one decoder layer over all calibration tokens."""

    squares: Mapping[str, Tensor]  # X^T X / n of every input by its key (see `INPUTS`), (inputs, inputs), float32
    channels: Tensor  # mean size of every channel of the MLP, float32
    influence: float  # 1 - the cosine of what goes into the layer and what comes out (arXiv 2403.03853)


@dataclass(frozen=True, slots=True)
class CalibrationStatistics:
    """A finished pass: a file for each layer, read when it is asked for."""

    folder: Path
    layers: int

    def layer(self, index: int, device: Any = "cpu") -> LayerStatistics:
        """The statistics of a layer, on a device.

        Raises:
            ModelFileError: the file is missing or damaged.
        """
        path = _layer_file(self.folder, index)
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                squares = {layer_input.key: file.get_tensor(layer_input.key) for layer_input in INPUTS}
                return LayerStatistics(squares, file.get_tensor("sizes"), float(file.get_tensor("influence")))
        except (SafetensorError, OSError) as error:
            raise ModelFileError(
                f"{path} is damaged: {str(error)[:200]}.", hint=f"Delete {self.folder}; it will be recomputed."
            ) from error

    def influences(self) -> list[float]:
        return [self.layer(index).influence for index in range(self.layers)]


def memory_needed(config: Any, windows: int, length: int) -> int:
    """Bytes that a pass and the methods after it take beside the model, at most about."""
    hidden, heads, inner = _widths(config)
    inverse = 3 * 8 * max(hidden, inner, heads) ** 2  # of the widest input, in float64
    rows = max(1, _AT_ONCE // length) * length
    passing = 4 * windows * length * hidden + 4 * rows * (6 * hidden + 2 * heads + 4 * inner)
    return passing + inverse + statistics_bytes(config) // int(config.num_hidden_layers)


def statistics_bytes(config: Any) -> int:
    """Of all layers on the disk, at most about."""
    hidden, heads, inner = _widths(config)
    return 4 * (2 * hidden**2 + heads**2 + inner**2) * int(config.num_hidden_layers)


def _widths(config: Any) -> tuple[int, int, int]:
    """Of the residual stream, of all heads together, of the MLP."""
    hidden = int(config.hidden_size)
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    return hidden, int(config.num_attention_heads * head), int(config.intermediate_size)


def calibrate(
    model: Any, windows: Tensor, folder: Path, origin: str, *, memory: int | None, check: Check
) -> CalibrationStatistics:
    """Compute the statistics of all layers below `folder`, or what is missing of them.

    Args:
        model: in evaluation mode, of an architecture that `check_architecture` knows.
        windows: tokens, int64 (windows, length).
        origin: names model and text; what a folder holds of another one is computed again.
        memory: bytes that may be taken beside the model; None for what is free.

    Raises:
        UsageError: it would take more memory.
        DataError: an input is not finite.
        StorageError: the disk is full or not ours.
    """
    needed = memory_needed(model.config, *windows.shape)
    available = machine.memory().available if memory is None else memory
    if needed > available:
        raise UsageError(
            f"Calibration needs {needed / 2**20:.0f} MiB in addition to the model, but only "
            f"{available / 2**20:.0f} MiB are available.",
            hint="Use fewer or shorter calibration windows.",
        )
    make_folder(folder)
    layers = layers_of(model)
    done, hidden = _last(folder, origin)
    if done == len(layers):
        return CalibrationStatistics(folder, done)
    with torch.inference_mode():
        arguments = _arguments(model, windows[:1].to(model.device))
        if hidden is None:
            hidden = model.get_input_embeddings()(windows.to(model.device))
        hidden = hidden.to(model.device)
        for index in range(done, len(layers)):
            check()
            write_bytes(_layer_file(folder, index), save(_measure(layers[index], hidden, arguments[index], index)))
            remaining = hidden[:0] if index + 1 == len(layers) else hidden
            content = save({"hidden": remaining.cpu()}, metadata={_ORIGIN: f"{index + 1} {origin}"})
            write_bytes(folder / _HIDDEN, content)
    return CalibrationStatistics(folder, len(layers))


def _measure(layer: Any, hidden: Tensor, arguments: Mapping[str, Any], index: int) -> dict[str, Tensor]:
    """The statistics of a layer; `hidden` (windows, length, hidden) goes in and holds afterwards what comes out."""
    sums: dict[str, Tensor] = {}
    tokens = hidden.shape[0] * hidden.shape[1]

    def note(key: str, value: Tensor) -> None:
        sums[key] = sums[key] + value if key in sums else value

    def register_hook(key: str, module: str) -> Any:
        def hook(_: Any, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
            if not torch.isfinite(rows).all():
                raise DataError(
                    f"On the calibration text, the input of {layer_name(index, module)} is not finite.",
                    hint="Load the model in float32, or check whether its weights are damaged.",
                )
            note(key, rows.T @ rows / tokens)
            if key == "channels":
                note("sizes", rows.abs().sum(0) / tokens)

        return layer.get_submodule(module).register_forward_pre_hook(hook)

    handles = [register_hook(layer_input.key, layer_input.readers[0]) for layer_input in INPUTS]
    try:
        step = max(1, _AT_ONCE // hidden.shape[1])
        for start in range(0, len(hidden), step):
            before = hidden[start : start + step]
            after = layer(before, **arguments)
            after = after[0] if isinstance(after, tuple) else after
            alike = torch.cosine_similarity(before.float(), after.float(), dim=-1)
            note("influence", (1 - alike).double().sum() / tokens)
            hidden[start : start + step] = after
    finally:
        for handle in handles:
            handle.remove()
    return {key: value.cpu().contiguous() for key, value in sums.items()}


def _arguments(model: Any, window: Tensor) -> list[dict[str, Any]]:
    """What the model calls each of its layers with, beside the hidden states, for windows of this length."""
    layers, arguments = layers_of(model), []

    def instead(hidden: Tensor, *_: Any, **kwargs: Any) -> Tensor:
        arguments.append(kwargs)
        return hidden

    for layer in layers:
        layer.forward = instead
    try:
        model.model(input_ids=window, use_cache=False)
    finally:
        for layer in layers:
            del layer.forward
    return arguments


def _layer_file(folder: Path, index: int) -> Path:
    return folder / f"layer-{index:04d}.safetensors"


def _last(folder: Path, origin: str) -> tuple[int, Tensor | None]:
    """How many layers are done, and what came out of the last one."""
    try:
        with safe_open(folder / _HIDDEN, framework="pt") as file:
            done, _, whose = (file.metadata() or {}).get(_ORIGIN, "").partition(" ")
            if whose == origin and all(_layer_file(folder, index).is_file() for index in range(int(done))):
                return int(done), file.get_tensor("hidden").clone()
    except (SafetensorError, OSError):
        pass  # there is none, or half of one
    return 0, None
