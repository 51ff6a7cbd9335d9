"""An adapter on its base model: put in, taken out, and written as a folder in PEFT format."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when an adapter is trained

from agentlab.errors import UsageError
from agentlab.lora.delta import LoraDelta
from agentlab.lora.reading import PREFIX
from agentlab.lora.settings import AdapterSettings
from agentlab.lora.writing import write_adapter
from agentlab.train.base import TrainingBase, quietly
from agentlab.train.config import LoraConfig

_NAME = "default"
_SETTINGS = ("use_cache", "eos_token_id", "bos_token_id", "pad_token_id")  # of a model, that trainers change


@contextlib.contextmanager
def attach_adapter(base: TrainingBase, lora: LoraConfig, seed: int) -> Iterator[Any]:
    """The base as a `PeftModel` with a fresh adapter in float32; afterwards the base is as it was.

    A is drawn from the seed (Kaiming), B is zero: adapters of one base, shape and seed begin with the same A.

    Raises:
        UsageError: a name in `lora.targets` is of no module of the base, or of one that is no linear layer.
    """
    with quietly():
        import peft

    make: Any = peft.LoraConfig  # alpha may be a fraction, whatever its types say
    settings = make(
        r=lora.r,
        lora_alpha=lora.scaled_alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="CAUSAL_LM",
    )
    _check_targets(base, lora)
    with _undo_trainer_changes(base.model):
        with torch.random.fork_rng(), quietly():
            torch.manual_seed(seed)
            try:
                model = peft.get_peft_model(base.model, settings)
            except ValueError as error:
                raise UsageError(
                    f"Cannot load this adapter on {base.path.name}: {str(error)[:300]}", hint=_choice(base.model)
                ) from error
        try:
            if lora.frozen_a:
                for name, parameter in model.named_parameters():
                    if "lora_A" in name:
                        parameter.requires_grad_(False)
            yield model
        finally:
            model.unload()


def trained_weights(model: Any) -> dict[str, torch.nn.Parameter]:
    """The weights of an adapter that learn, by the name that a PEFT folder gives them."""
    return {
        name.replace(f".{_NAME}.weight", ".weight"): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def write_trained(model: Any, weights: Mapping[str, torch.Tensor], base: TrainingBase, folder: Path, note: str) -> None:
    """Write the adapter, with `weights` for those that learn, as the folder `folder`, in place of what is there.

    Its scale is folded into B, as in all adapters that are written here. `note` goes into the header of the weights.

    Raises:
        ValueError: a weight has no place in the folder.
        StorageError: the disk is full, or the folder cannot be written.
    """
    layers = {name.removeprefix(PREFIX): module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    tensor_names = {f"{PREFIX}{name}.lora_{side}.weight" for name, side in product(layers, "AB")}
    if unplaced := sorted(weights.keys() - tensor_names):
        raise ValueError(f"the adapter has no tensor for {unplaced[0]} and {len(unplaced) - 1} others")

    def delta(name: str, module: Any) -> LoraDelta:
        a, b = (
            weights.get(f"{PREFIX}{name}.lora_{side}.weight", getattr(module, f"lora_{side}")[_NAME].weight.detach())
            for side in "AB"
        )
        return LoraDelta(a.cpu(), b.cpu(), module.scaling[_NAME])

    settings = model.peft_config[_NAME]
    origin = AdapterSettings(
        base_model_name_or_path=base.path.name,
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        fan_in_fan_out=settings.fan_in_fan_out,
        target_modules=sorted(settings.target_modules),
    )
    if folder.exists():
        shutil.rmtree(folder)
    write_adapter(
        folder,
        {name: (module.out_features, module.in_features) for name, module in layers.items()},
        ((name, delta(name, module)) for name, module in layers.items()),
        settings.r,
        origin,
        metadata={"agentlab.training": note},
    )


def _check_targets(base: TrainingBase, lora: LoraConfig) -> None:
    """PEFT trains what it finds and says nothing of other names; it takes embeddings, which no folder here holds."""
    if isinstance(lora.targets, str):
        return
    linear = _linear(base.model)

    def fits(target: str) -> bool:
        matches = [name for name, _ in base.model.named_modules() if name == target or name.endswith(f".{target}")]
        return bool(matches) and all(name in linear for name in matches)

    wrong = [repr(target) for target in lora.targets if not fits(target)]
    if wrong:
        raise UsageError(
            f"lora.targets: {base.path.name} has no linear layers named {', '.join(wrong)} (the head is excluded).",
            hint=_choice(base.model),
        )


def _choice(model: Any) -> str:
    names = sorted({name.rpartition(".")[2] for name in _linear(model)})
    return f"Set lora.targets to all-linear, or choose from {', '.join(names)}."


def _linear(model: Any) -> dict[str, Any]:
    """The layers that can have an adapter, by name: all linear ones but the head."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    }


@contextlib.contextmanager
def _undo_trainer_changes(model: Any) -> Iterator[None]:
    configs = [config for config in (model.config, model.generation_config) if config is not None]
    settings = [(config, key) for config, key in product(configs, _SETTINGS) if hasattr(config, key)]
    before = [(config, key, getattr(config, key)) for config, key in settings]
    try:
        yield
    finally:
        model.__dict__.pop("forward", None)  # TRL puts another one there
        if model.is_activation_checkpointing:
            model.activation_checkpointing_disable()
        model.eval().requires_grad_(False)
        for config, key, value in before:
            setattr(config, key, value)
