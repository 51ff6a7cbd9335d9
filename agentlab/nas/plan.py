"""What a study is going to do, for `--dry-run` and the first line on the screen."""

from agentlab.nas.config import NasConfig
from agentlab.nas.series import Series
from agentlab.runs.document import Block, Document, Table


class NasPlan(Document):
    """The answer of `nas --dry-run`."""

    series: str
    trials: int
    searched: list[str]
    proposers: str
    parameters: int
    memory_bytes: int
    language_model: str
    proposals: int
    max_cost_usd: float

    def blocks(self) -> list[Block]:
        """One fact a row."""
        rows = [
            ("series", self.series),
            ("trials", str(self.trials)),
            ("proposers", self.proposers),
            ("searched", ", ".join(self.searched)),
            ("trial 0", f"{self.parameters:,} weights, about {self.memory_bytes / 2**20:.0f} MiB to train"),
            ("language model", self.language_model),
        ]
        if self.proposals:
            rows.append(("its calls", f"about {self.proposals} to propose, and one for every near tie"))
            rows.append(
                ("its cost", f"at most {self.max_cost_usd:g} USD where a model has a price; local models are free")
            )
        return [Table(("plan", ""), rows)]


def describe_series(series: Series) -> str:
    """One sentence on what was read."""
    first, last = str(series.dates[0])[:16], str(series.dates[-1])[:16]
    notes = f" {' '.join(note.rstrip('.') + '.' for note in series.notes)}" if series.notes else ""
    return (
        f"{series.source}: {len(series.values):,} rows, {series.channels} columns ({', '.join(series.names[:8])}"
        f"{', …' if series.channels > 8 else ''}), one row per {series.frequency}, {first} to {last}.{notes}"
    )


def describe_models(config: NasConfig) -> str:
    """The language models that may answer, in the order they are asked."""
    names = [f"{name} ({config.llm.models[name].id})" for name in config.llm.candidates("nas.propose")]
    return " then ".join(names) or "none: the classical optimiser proposes alone"
