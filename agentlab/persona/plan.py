"""What a training is going to do, and what is to be said of its conversations: `--dry-run` and `--check`."""

from collections.abc import Sequence
from typing import Any

from agentlab.persona.base_model import BaseFile
from agentlab.persona.config import PersonaConfig
from agentlab.persona.data import Source
from agentlab.runs.document import Block, Document, Heading, Table, Text
from agentlab.train.data_report import DataReport
from agentlab.train.prepare import survey


class PersonaPlan(Document):
    """The answer of `train-persona --dry-run` and `--check`. Tokens are counted once the base is imported."""

    base: str
    imports: bool
    together: bool
    rank: int
    epochs: float
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
    return PersonaPlan(
        base=str(base.path),
        imports=tokenizer is None,
        together=config.together,
        rank=config.lora.r,
        epochs=config.training.epochs,
        data={source.name: _report(source, tokenizer, config) for source in sources},
    )


def _report(source: Source, tokenizer: Any, config: PersonaConfig) -> DataReport:
    if tokenizer is None:
        return survey(source.data, eval_fraction=config.training.eval_fraction, seed=config.seed)
    return source.prepared(tokenizer, config).report
