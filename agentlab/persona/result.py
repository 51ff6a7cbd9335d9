"""What a training of personas came to."""

from pydantic import BaseModel, ConfigDict

from agentlab.persona.config import BASE_NAME
from agentlab.runs.document import Block, Document, Heading, Table, Text, number
from agentlab.stats.control import Interval

_MIB = 1 << 20


class Figures(BaseModel):
    """Plain data."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Share(Figures):
    """A share of `count` with its interval."""

    value: float
    low: float
    high: float
    level: float
    count: int

    @classmethod
    def of(cls, interval: Interval, count: int) -> "Share":
        """As it is stored."""
        return cls(value=interval.estimate, low=interval.low, high=interval.high, level=interval.level, count=count)

    def __str__(self) -> str:
        """For a table."""
        return f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}]"


class Gain(Figures):
    """How much lower the loss on held-out conversations became, in nats per learnt token, with its interval."""

    value: float
    low: float
    high: float
    level: float

    @classmethod
    def of(cls, interval: Interval) -> "Gain":
        """As it is stored."""
        return cls(value=interval.estimate, low=interval.low, high=interval.high, level=interval.level)

    def __str__(self) -> str:
        """For a table."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Point(Figures):
    """A loss at a step."""

    step: int
    loss: float


class PersonaResult(Figures):
    """One adapter. `before` is the loss of the base on the held-out conversations, `eval_loss` the adapter's, `gain`
    what lies between them, conversation by conversation."""

    name: str
    adapter: str
    conversations: int
    held_out: int
    supervised_tokens: int
    steps: int
    best_step: int
    train_loss: list[Point]
    eval_losses: list[Point]
    before: float | None
    eval_loss: float | None
    gain: Gain | None
    tokens_per_second: float | None
    seconds: float
    peak_bytes: int | None


class Sample(Figures):
    """What base and personas answer to one question; `prompted` is the base, told what a persona is told."""

    question: str
    base: str
    personas: dict[str, str]
    prompted: dict[str, str]


class PersonasResult(Document):
    """The answer of `agentlab train-persona`."""

    base: str
    precision: str
    personas: list[PersonaResult]
    separability: Share | None
    chance: float | None
    matrix: dict[str, dict[str, float]]
    base_task: Share | None
    after: dict[str, Share]
    samples: list[Sample]

    def blocks(self) -> list[Block]:
        """A row per adapter, and whether they can be told apart."""
        rows = [
            (
                p.name,
                str(p.conversations),
                str(p.held_out),
                number(p.before, 3),
                number(p.eval_loss, 3),
                "–" if p.gain is None else str(p.gain),
                f"{p.best_step} of {p.steps}",
                number(p.tokens_per_second, 0),
                f"{p.seconds:.0f}",
                "–" if p.peak_bytes is None else f"{p.peak_bytes / _MIB:.0f}",
                p.adapter,
            )
            for p in self.personas
        ]
        columns = (
            "persona",
            "trained on",
            "held out",
            "loss before",
            "loss after",
            "gain, 95 %",
            "best step",
            "tokens/s",
            "seconds",
            "peak MiB",
            "adapter",
        )
        caption = "Conversations, losses on the held-out ones, speed and memory of each training"
        return [Table(columns, rows, caption), *self._told_apart(), *self._forgotten()]

    def _told_apart(self) -> list[Block]:
        if self.separability is None or self.chance is None:
            return []
        share = self.separability
        return [
            Text(
                f"{share} of {share.count} held-out conversations are likeliest under their own persona "
                f"({share.level:.0%} interval; by chance {self.chance:.0%})."
            )
        ]

    def _forgotten(self) -> list[Block]:
        if self.base_task is None:
            return []
        after = ", ".join(f"{name} {share}" for name, share in self.after.items())
        return [Text(f"Texts classified rightly, {self.base_task.count} of them: base {self.base_task}; {after}.")]

    def details(self) -> list[Block]:
        """What the report shows besides."""
        found: list[Block] = []
        if self.matrix:
            names = [*self.matrix, BASE_NAME]
            rows = [(own, *(number(under[name], 3) for name in names)) for own, under in self.matrix.items()]
            caption = "Mean log-probability of held-out turns (rows) under each persona (columns)"
            found += [Heading("Who speaks like whom"), Table(("turns of", *names), rows, caption=caption)]
        if self.samples:
            found.append(Heading("Side by side"))
        for sample in self.samples:
            rows = [(BASE_NAME, sample.base)]
            for name, said in sample.personas.items():
                if name in sample.prompted:
                    rows.append((f"base, told to be {name}", sample.prompted[name]))
                rows.append((name, said))
            found.append(Table(("who", "answer"), rows, caption=sample.question))
        return found
