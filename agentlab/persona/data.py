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
from agentlab.runs.document import AnswerDocument, Block, Heading, Table, Text
from agentlab.runs.events import Event, first_event_data, has_changed
from agentlab.train.data_report import Data, DataReport, Prepared, prepare, read_data, survey
from agentlab.train.masks import Example

if TYPE_CHECKING:
    from agentlab.train.estimate import TrainingMemory

CHECKED = "data.checked"  # the event that says on what a persona is trained


@dataclass(frozen=True, slots=True)
class PersonaSource:
    """One persona's conversations as they were read."""

    persona: Persona
    data: Data

    @property
    def name(self) -> str:
        return self.persona.name

    @property
    def system(self) -> str | None:
        """The system message of most conversations; None where most have none."""
        first = (conversation.turns[0] for conversation in self.data.learnt.conversations)
        system_counts = Counter(turn.content if turn.role == "system" else None for turn in first)
        ((system, count),) = system_counts.most_common(1)
        return system if 2 * count > system_counts.total() else None

    @property
    def hashes(self) -> Mapping[str, str | None]:
        """SHA-256 of the files as they were read; None where nothing is held out in a file of its own."""
        held_out = self.data.held_out
        return {"sha256": self.data.learnt.sha256, "eval_sha256": None if held_out is None else held_out.sha256}

    def prepare_examples(
        self, tokenizer: Any, config: PersonaConfig, pause: Callable[[], object] = lambda: None
    ) -> Prepared:
        length, fraction = config.training.max_length, config.training.eval_fraction
        return prepare(self.data, tokenizer, max_length=length, eval_fraction=fraction, seed=config.seed, pause=pause)


def read_sources(config: PersonaConfig, workspace: Workspace) -> tuple[PersonaSource, ...]:
    """The files of all personas.

    Raises:
        MissingFileError, DataError: a file is absent or not what it should be.
    """
    return tuple(_source(persona, workspace) for persona in config.personas)


def _source(persona: Persona, workspace: Workspace) -> PersonaSource:
    held_out = None if persona.eval_data is None else _find_data_file(persona.eval_data, workspace)
    return PersonaSource(persona, read_data(_find_data_file(persona.data, workspace), held_out))


def _find_data_file(name: str, workspace: Workspace) -> Path:
    """A data file: from the workspace, or one that is shipped with the presets."""
    path, shipped = workspace.resolve(name), shipped_folder().parent / name
    if os.path.exists(path):  # noqa: PTH110 - unlike Path.exists, it does not raise where a folder is closed
        return path
    if not Path(name).is_absolute() and shipped.is_file():
        return shipped
    hint = "Pass a JSONL file with one conversation per line; see docs/train-persona.md."
    raise MissingFileError(f"The conversation file {path} does not exist.", hint=hint)


def summary(source: PersonaSource, prepared: Prepared) -> Mapping[str, Any]:
    """What an event says of a persona's data."""
    return {
        "conversations": len(prepared.split.train),
        "held_out": len(prepared.split.held_out),
        "supervised": sum(example.learnt for example in prepared.split.train),
        **source.hashes,
    }


def check_unchanged(sources: Sequence[PersonaSource], events: Sequence[Event]) -> None:
    """See that a run goes on with the files that its events name.

    Raises:
        RunMismatchError: one has changed since.
    """
    for source in sources:
        before, files = first_event_data(events, CHECKED, source.name), (source.data.learnt, source.data.held_out)
        for (key, now), file in zip(source.hashes.items(), files, strict=True):
            if file is not None and has_changed(before, **{key: now}):
                raise RunMismatchError(
                    f"{file.path} has changed since the training of {source.name} started.",
                    hint="Restore the file, or start a new run to train on the new one.",
                )


def held_out(prepared: Mapping[str, Prepared]) -> dict[str, Sequence[Example]]:
    """Held-out examples by persona."""
    return {name: persona_data.split.held_out for name, persona_data in prepared.items()}


class PersonaPlan(AnswerDocument):
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
        imported = ", imported first (takes half a minute, only once)" if self.imports else ""
        several = f"{len(self.data)} adapters, {'in the same steps' if self.together else 'in turn'}"
        adapters = "one adapter" if len(self.data) == 1 else several
        trains = f"{adapters}, rank {self.rank}, {self.epochs:g} epochs"
        rows = [("base", self.base + imported), ("training", trains)]
        if self.memory_bytes is not None:
            twice = " with gradient checkpointing" if self.checkpointing else ""
            rows.append(("memory", f"about {self.memory_bytes / (1 << 30):.1f} GiB in {self.precision}{twice}"))
        blocks: list[Block] = [Table(("plan", ""), rows)]
        for name, report in self.data.items():
            blocks += [Heading(name), *report.blocks()]
        if self.imports:
            blocks.append(Text("Tokens are counted once the base, which includes the tokenizer, is imported."))
        return blocks


def plan_of(config: PersonaConfig, base: BaseFile, sources: Sequence[PersonaSource]) -> PersonaPlan:
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
    from agentlab.train.base import resolve_precision
    from agentlab.train.estimate import read_shape, run_memory

    precision = resolve_precision(config.training.precision)
    return precision, run_memory(
        read_shape(base.path),
        config.lora,
        config.training,
        precision,
        [report.train.tokens for report in data if report.train.tokens],
        together=config.together,
        device=machine.device(),
        memory=machine.gpu_memory() or machine.memory().total,
    )


def _report(source: PersonaSource, tokenizer: Any, config: PersonaConfig) -> DataReport:
    if tokenizer is None:
        return survey(source.data, eval_fraction=config.training.eval_fraction, seed=config.seed)
    return source.prepare_examples(tokenizer, config).report
