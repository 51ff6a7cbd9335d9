"""The conversations of each persona: found, read, and looked at before a training; and the plan of it."""

import os.path
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentlab import machine
from agentlab.config.presets import shipped_folder
from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, RunMismatchError
from agentlab.models.base_model import BaseFile
from agentlab.persona.config import Persona, PersonaConfig
from agentlab.runs.document import Block, Document, Heading, Table, Text
from agentlab.runs.events import Event, noted, require_unchanged
from agentlab.train.data_report import Data, DataReport, Prepared, prepare, read_data, survey
from agentlab.train.masks import Example

if TYPE_CHECKING:
    from agentlab.train.estimate import TrainingMemory

CHECKED = "data.checked"  # the event that says on what a persona is trained


@dataclass(frozen=True, slots=True)
class Source:
    """One persona's conversations as they were read."""

    persona: Persona
    data: Data

    @property
    def name(self) -> str:
        return self.persona.name

    @property
    def system(self) -> str | None:
        """The system message of most conversations; None where most have none."""
        first = (each.turns[0] for each in self.data.learnt.conversations)
        said = Counter(turn.content if turn.role == "system" else None for turn in first)
        ((system, count),) = said.most_common(1)
        return system if 2 * count > said.total() else None

    @property
    def hashes(self) -> Mapping[str, str | None]:
        """SHA-256 of the files as they were read; None where nothing is held out in a file of its own."""
        held_out = self.data.held_out
        return {"sha256": self.data.learnt.sha256, "eval_sha256": None if held_out is None else held_out.sha256}

    def prepared(self, tokenizer: Any, config: PersonaConfig, pause: Callable[[], object] = lambda: None) -> Prepared:
        """Examples of it; see `train.data_report.prepare`."""
        training = config.training
        return prepare(
            self.data,
            tokenizer,
            max_length=training.max_length,
            eval_fraction=training.eval_fraction,
            seed=config.seed,
            pause=pause,
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
    there = os.path.exists(path)  # noqa: PTH110 - unlike Path.exists, it does not raise where a folder is closed
    if not there and not Path(name).is_absolute() and shipped.is_file():
        return shipped
    if not there:
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
        **source.hashes,
    }


def check_unchanged(sources: Sequence[Source], events: Sequence[Event]) -> None:
    """See that a run goes on with the files that its events name.

    Raises:
        RunMismatchError: one has changed since.
    """
    for source in sources:
        before, files = noted(events, CHECKED, source.name), (source.data.learnt, source.data.held_out)
        for (key, now), file in zip(source.hashes.items(), files, strict=True):
            if file is not None:
                error = RunMismatchError(
                    f"{file.path} is not what it was when the training of {source.name} began.",
                    hint="Put the file back as it was, or begin a new run to train on the new one.",
                )
                require_unchanged(before, error, **{key: now})


def held_out(prepared: Mapping[str, Prepared]) -> dict[str, Sequence[Example]]:
    """Held-out examples by persona."""
    return {name: each.split.held_out for name, each in prepared.items()}


class PersonaPlan(Document):
    """The answer of `train-persona --dry-run` and `--check`. Tokens are counted once the base is imported."""

    base: str
    imports: bool
    together: bool
    rank: int
    epochs: float
    precision: str | None
    memory_bytes: int | None
    checkpointing: bool | None
    data: dict[str, DataReport]

    def blocks(self) -> list[Block]:
        """One fact a row, then each persona's conversations."""
        imported = ", imported first (half a minute, once)" if self.imports else ""
        count = len(self.data)
        how = (
            "one adapter" if count == 1 else f"{count} adapters, {'in the same steps' if self.together else 'in turn'}"
        )
        rows = [
            ("base", self.base + imported),
            ("trains", f"{how}, rank {self.rank}, {self.epochs:g} epochs"),
        ]
        if self.memory_bytes is not None:
            twice = ", activations computed twice to save some" if self.checkpointing else ""
            rows.append(("memory", f"about {self.memory_bytes / (1 << 30):.1f} GiB in {self.precision}{twice}"))
        found: list[Block] = [Table(("plan", ""), rows)]
        for name, seen in self.data.items():
            found += [Heading(name), *seen.blocks()]
        if self.imports:
            found.append(Text("Tokens are counted once the base is there: it brings the tokenizer."))
        return found


def plan_of(config: PersonaConfig, base: BaseFile, sources: Sequence[Source]) -> PersonaPlan:
    """The plan; with the base's tokenizer where it is there, everything but the model is checked.

    Raises:
        DataError: a conversation cannot be masked, or is too long.
    """
    tokenizer: Any = None
    if base.path.is_dir():
        from agentlab.train.base import load_tokenizer

        tokenizer = load_tokenizer(base.path)
    data = {source.name: _report(source, tokenizer, config) for source in sources}
    precision, memory = (None, None) if tokenizer is None else _memory(base, config, data.values())
    return PersonaPlan(
        base=str(base.path),
        imports=tokenizer is None,
        together=config.together,
        rank=config.lora.r,
        epochs=config.training.epochs,
        precision=precision,
        memory_bytes=memory.total if memory else None,
        checkpointing=memory.checkpointing if memory else None,
        data=data,
    )


def _memory(base: BaseFile, config: PersonaConfig, data: Iterable[DataReport]) -> tuple[str, "TrainingMemory"]:
    """The precision, and what the run is estimated to take."""
    from agentlab.train.base import resolve_precision
    from agentlab.train.estimate import read_shape, run_memory

    precision = resolve_precision(config.training.precision)
    return precision, run_memory(
        read_shape(base.path),
        config.lora,
        config.training,
        precision,
        [seen.train.tokens for seen in data if seen.train.tokens],
        together=config.together,
        device=machine.device(),
        memory=machine.gpu_memory() or machine.memory().total,
    )


def _report(source: Source, tokenizer: Any, config: PersonaConfig) -> DataReport:
    if tokenizer is None:
        return survey(source.data, eval_fraction=config.training.eval_fraction, seed=config.seed)
    return source.prepared(tokenizer, config).report
