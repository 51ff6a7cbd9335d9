"""Who answers when personas are talked to: names of adapters and models become a config of language models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab import machine
from agentlab.config.base import escape
from agentlab.config.workspace import Workspace
from agentlab.errors import UsageError
from agentlab.llm.config import LLMConfig
from agentlab.llm.provider_config import GgufProvider
from agentlab.llm.providers.local import adapter_place
from agentlab.lora.card import read_card
from agentlab.lora.catalogue import find as find_adapter
from agentlab.models import store
from agentlab.persona.base_model import find_base, imported
from agentlab.train.adapter_base import base_of, same_base

_LIBRARIES = {"hf": 700 << 20, "gguf": 200 << 20}  # bytes of a worker beside its weights
_ENDING = ".gguf"


@dataclass(frozen=True, slots=True)
class Speaker:
    """One who answers. `model` is its name in the config, None whoever that asks; `system` is what it was trained with.

    `bytes` is about what it takes on this machine.
    """

    name: str
    model: str | None = None
    system: str | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Cast:
    """Speakers and the config that they are asked through; `together`: all of them fit into the memory at a time."""

    config: LLMConfig
    speakers: tuple[Speaker, ...]
    together: bool = True


@dataclass(frozen=True, slots=True)
class _Voice:
    """A local model: a provider of the config, with paths as they are."""

    speaker: Speaker
    provider: Mapping[str, Any]


def cast_of(
    config: LLMConfig,
    adapters: Sequence[str],
    model: str | None,
    workspace: Workspace,
    importing: Callable[[str], object],
) -> Cast:
    """The speakers that a command line means.

    Args:
        config: whom to ask without adapters, and how in any case.
        adapters: PEFT folders and GGUF files, by name in `adapters/` or by path; each one is a speaker.
        model: of the config, or of this machine; of adapters it is the base, which else their card or config tells.
        workspace: where names are looked up.
        importing: told the name of a GGUF base that has to be made a checkpoint first, which takes half a minute, once.

    Raises:
        UsageError: a name is unknown, or a base does not belong to an adapter.
        MissingFileError: a base is not on this machine.
    """
    if not adapters:
        if model is None or model in config.models:
            return Cast(config, (Speaker(model or "", model),))
        path = store.find(model, workspace)
        return _cast(config, [_voice(store.stem_of(path.name) or str(path), path, None, None)])
    voices: dict[str, _Voice] = {}
    for name in dict.fromkeys(adapters):
        voice = _with_adapter(name, model, config, workspace, importing)
        if voice.speaker.name in voices:
            raise UsageError(f"Two adapters are called {voice.speaker.name}.", hint="Give one folder another name.")
        voices[voice.speaker.name] = voice
    return _cast(config, list(voices.values()))


def _with_adapter(
    name: str, model: str | None, config: LLMConfig, workspace: Workspace, importing: Callable[[str], object]
) -> _Voice:
    place = adapter_place(name, workspace)
    file = place if place.suffix == _ENDING or place.is_dir() else place.with_name(f"{place.name}{_ENDING}")
    if file.is_file():
        return _voice(file.stem, store.find(model or _gguf_of(config, file), workspace), file, None)
    folder = find_adapter(name, workspace)
    base = find_base(str(base_of(folder, model, workspace)), workspace)
    if not base.path.is_dir():
        importing(store.stem_of(base.name))
    card, path = read_card(folder), imported(base)
    if str(path) != card.base.path and same_base(folder, path, any_base=True) is False:
        raise UsageError(
            f"{folder.name} was trained on another base model than {path}: the fingerprints differ.",
            hint="Name the right one with --model; `agentlab models list` shows all.",
        )
    return _voice(folder.name, path, folder, card.data.system)


def _gguf_of(config: LLMConfig, file: Path) -> str:
    """The first GGUF model of a config: a GGUF adapter does not say which file it is for."""
    found = (each.model_path for each in config.providers.values() if isinstance(each, GgufProvider))
    name = next(found, None)
    if name is None:
        raise UsageError(f"{file.name} does not say which model it is for.", hint="Name a GGUF file with --model.")
    return name


def _voice(name: str, base: Path, adapter: Path | None, system: str | None) -> _Voice:
    kind, weights = ("gguf", [base]) if base.is_file() else ("hf", list(base.glob("*.safetensors")))
    provider = {"kind": kind, "model_path": escape(str(base))}
    if adapter is not None:
        provider["adapter"] = escape(str(adapter))
    needed = sum(part.stat().st_size for part in weights) + _LIBRARIES[kind]
    return _Voice(Speaker(name, name, system, needed), provider)


def _cast(config: LLMConfig, voices: Sequence[_Voice]) -> Cast:
    """One model for each voice, with the settings of `config`."""
    speakers = tuple(voice.speaker for voice in voices)
    names = [speaker.name for speaker in speakers]
    together = len(names) == 1 or sum(each.bytes for each in speakers) <= machine.memory().available
    tree = {
        **config.model_dump(include={"defaults", "budget", "ledger"}),
        "providers": {voice.speaker.name: voice.provider for voice in voices},
        "models": {name: {"provider": name, "id": "local", "price": {"input": 0, "output": 0}} for name in names},
        "roles": {"primary": names},
        "threads": machine.threads(config.threads, workers=len(names) if together else 1),
    }
    return Cast(LLMConfig.model_validate(tree, context={"env": {}}), speakers, together)
