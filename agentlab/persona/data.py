"""The conversations of each persona: found, read, and looked at before anything is trained."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.config.presets import shipped_folder
from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError
from agentlab.persona.config import Persona, PersonaConfig
from agentlab.train.masks import Example
from agentlab.train.prepare import Data, Prepared, prepare, read_data


@dataclass(frozen=True, slots=True)
class Source:
    """One persona's conversations as they were read."""

    persona: Persona
    data: Data

    @property
    def name(self) -> str:
        """The persona's."""
        return self.persona.name

    def digest(self) -> str:
        """SHA-256 of the file that is learnt from."""
        return f"sha256:{hashlib.sha256(self.data.path.read_bytes()).hexdigest()}"

    def prepared(self, tokenizer: Any, config: PersonaConfig) -> Prepared:
        """Examples of it; see `train.prepare.prepare`."""
        training = config.training
        return prepare(
            self.data,
            tokenizer,
            max_length=training.max_length,
            eval_fraction=training.eval_fraction,
            seed=config.seed,
        )


def read_sources(config: PersonaConfig, workspace: Workspace) -> tuple[Source, ...]:
    """The files of all personas.

    Raises:
        MissingFileError, DataError: a file is absent or not what it should be.
    """
    return tuple(_source(persona, workspace) for persona in config.personas)


def _source(persona: Persona, workspace: Workspace) -> Source:
    held_out = None if persona.eval_data is None else _there(persona.eval_data, workspace)
    return Source(persona, read_data(_there(persona.data, workspace), held_out))


def _there(name: str, workspace: Workspace) -> Path:
    """A data file: from the workspace, or one that is shipped with the presets."""
    path = workspace.resolve(name)
    shipped = shipped_folder().parent / name
    if not path.is_file() and not Path(name).is_absolute() and shipped.is_file():
        return shipped
    if not path.is_file():
        raise MissingFileError(
            f"There is no file of conversations {path}.", hint="One conversation per line: see docs/train-persona.md."
        )
    return path


def summary(source: Source, prepared: Prepared) -> Mapping[str, Any]:
    """What an event says of a persona's data."""
    return {
        "conversations": len(prepared.split.train),
        "held_out": len(prepared.split.held_out),
        "supervised": sum(each.learnt for each in prepared.split.train),
        "sha256": source.digest(),
    }


def held_out(prepared: Mapping[str, Prepared]) -> dict[str, Sequence[Example]]:
    """Held-out examples by persona."""
    return {name: each.split.held_out for name, each in prepared.items()}
