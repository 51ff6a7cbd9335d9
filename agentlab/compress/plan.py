"""What a compression is going to do, for `--dry-run` and the first line on the screen. Pure."""

from agentlab.compress.config import CompressConfig
from agentlab.compress.goal import WORDS, Goal
from agentlab.models.base_model import BaseFile
from agentlab.runs.document import Block, Document, Table


class CompressPlan(Document):
    """The answer of `compress --dry-run`."""

    base: str
    imports: bool
    goal: str
    measure: str
    text: str
    portfolio: list[str]
    first: int
    trials: int
    sampler: str
    limits: dict[str, float]

    @property
    def summary(self) -> str:
        """One line."""
        limits = "".join(f", at most {limit:g} {unit}" for unit, limit in self.limits.items())
        return f"{self.base}: {self.goal}; {self.trials} recipes, beside a portfolio of {len(self.portfolio)}{limits}"

    def blocks(self) -> list[Block]:
        """One fact a row."""
        limits = ", ".join(f"{limit:g} {unit}" for unit, limit in self.limits.items())
        rows = [
            ("base", f"{self.base}{' (imported first, once)' if self.imports else ''}"),
            ("goal", f"{self.goal} ({self.measure})"),
            ("text", self.text),
            ("begins with", f"the first {self.first} of {len(self.portfolio)} known recipes"),
            ("then", f"{self.sampler}, up to {self.trials} recipes; the rest of the portfolio beside it"),
            ("at most", limits or "no bound on time, energy or CO2"),
        ]
        return [Table(("plan", ""), rows), Table(("portfolio",), [(recipe,) for recipe in self.portfolio])]


def plan_of(config: CompressConfig, base: BaseFile, goal: Goal) -> CompressPlan:
    """The plan of a checked config."""
    text = config.text
    return CompressPlan(
        base=base.path.name,
        imports=not base.path.is_dir(),
        goal=str(goal),
        measure=WORDS[goal.measure],
        text=f"{text.file or 'the help of Python'}: {text.calibration} windows to calibrate on, {text.held_out} held "
        f"out, of {text.length} tokens",
        portfolio=[str(recipe) for recipe in config.recipes],
        first=config.first,
        trials=config.budget.trials,
        sampler=config.sampler,
        limits=dict(config.budget.limits),
    )
