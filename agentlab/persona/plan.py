"""What a training is going to do, and what is to be said of its conversations: `--dry-run` and `--check`."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agentlab import machine
from agentlab.persona.base_model import BaseFile
from agentlab.persona.config import PersonaConfig
from agentlab.persona.data import Source
from agentlab.runs.document import Block, Document, Heading, Table, Text
from agentlab.train.data_report import DataReport
from agentlab.train.prepare import survey

if TYPE_CHECKING:
    from agentlab.train.estimate import TrainingMemory


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
