"""What a training of personas says while it runs, and what it came to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from agentlab.persona.config import BASE_NAME
from agentlab.runs.document import (
    AnswerDocument,
    Block,
    Bounded,
    BoundedShare,
    Column,
    Figure,
    Heading,
    Plain,
    Report,
    Table,
    Text,
    columns_of,
    mebibytes,
    number,
    table,
)
from agentlab.runs.events import Event, Narration
from agentlab.runs.figures import COLOURS, MARKERS, legend_below, new_figure, svg, whole_numbers
from agentlab.runs.run import OpenRun
from agentlab.tasks.labelled import Labelled
from agentlab.train.data_report import DataReport

_SHOWN = (
    "name", "conversations", "held_out", "before", "eval_loss", "gain", "best", "tokens_per_second", "seconds",
    "peak_bytes", "adapter",
)  # fmt: skip
_CURVES = "plots/losses.svg"


class Gain(Bounded):
    """How much lower the loss on held-out conversations became, in nats per learnt token."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Point(Plain):
    """A loss at a step."""

    step: int
    loss: float


class PersonaResult(Plain):
    """One adapter."""

    name: Annotated[str, Column("persona")]
    adapter: Annotated[str, Column("adapter", help="Folder of the adapter.")]
    conversations: Annotated[int, Column("trained on", help="Number of training conversations.")]
    held_out: Annotated[int, Column("held out", help="Number of held-out conversations.")]
    supervised_tokens: int
    steps: int
    best_step: int
    train_loss: list[Point]
    eval_losses: list[Point]
    before: Annotated[
        float | None,
        Column("loss before", ".3f", "Loss of the base model on held-out conversations, in nats per token."),
    ]
    eval_loss: Annotated[float | None, Column("loss after", ".3f", "Loss of the adapter on the same conversations.")]
    gain: Annotated[Gain | None, Column("gain, 95 %", str, "Drop in held-out loss, paired by conversation.")]
    tokens_per_second: Annotated[float | None, Column("tokens/s", ".0f")]
    seconds: Annotated[float, Column("seconds", ".0f")]
    peak_bytes: Annotated[int | None, Column("peak MiB", mebibytes)]

    @property
    def best(self) -> Annotated[str, Column("best step")]:
        return f"{self.best_step} of {self.steps}"

    @property
    def verdict(self) -> str:
        """Whether the loss on held-out conversations fell."""
        if self.gain is None:
            return f"{self.name} was trained; no conversations were held out, so the gain is unknown."
        losses = f"held-out loss went from {number(self.before, 3)} to {number(self.eval_loss, 3)} nats per token"
        interval = (
            f"({self.gain.level:.0%} interval {self.gain.low:.3f} to {self.gain.high:.3f}, bootstrap over the "
            f"{self.held_out} held-out conversations)"
        )
        if self.gain.low > 0:
            return f"{self.name} learned from its conversations: {losses}, {self.gain.value:.3f} lower {interval}."
        if self.gain.high < 0:
            return f"{self.name} became worse: {losses}, {-self.gain.value:.3f} higher {interval}."
        return f"{self.name}: no gain shown; {losses}, difference {self.gain.value:.3f} {interval}."


class PersonaSample(Plain):
    """What base and personas answer to one question; `prompted` is the base, told what a persona is told."""

    question: str
    base: str
    personas: dict[str, str]
    prompted: dict[str, str]


class PersonasResult(AnswerDocument):
    """The answer of `agentlab train-persona`.

    `labelled`: the base task by every normalisation; None in runs of earlier versions.
    """

    base: str
    precision: str
    personas: list[PersonaResult]
    separability: BoundedShare | None
    chance: float | None
    matrix: dict[str, dict[str, float]]
    base_task: BoundedShare | None
    after: dict[str, BoundedShare]
    samples: list[PersonaSample]
    labelled: Labelled | None = None

    def blocks(self) -> list[Block]:
        return [*map(Text, self.verdict), *self.tables()]

    def tables(self) -> list[Block]:
        trainings = table(
            self.personas,
            columns_of(PersonaResult, *_SHOWN),
            "Conversations, held-out loss, speed and memory of each training run",
        )
        return [trainings, *self._forgotten()]

    @property
    def verdict(self) -> list[str]:
        """Whether each persona has learned, and whether they can be told apart."""
        sentences = [persona.verdict for persona in self.personas]
        if self.separability is not None and self.chance is not None:
            share = self.separability
            sentences.append(
                f"{share} of {share.count} held-out conversations are most probable under the right persona "
                f"({share.level:.0%} interval; chance level {self.chance:.0%})."
            )
        return sentences

    def _forgotten(self) -> list[Block]:
        if self.base_task is None:
            return []
        after = ", ".join(f"{name} {share}" for name, share in self.after.items())
        task_text = Text(f"Accuracy on the base task (n = {self.base_task.count}): base {self.base_task}; {after}.")
        return [task_text, *(self.labelled.blocks() if self.labelled else ())]

    def details(self) -> list[Block]:
        blocks: list[Block] = []
        if self.matrix:
            names = [*self.matrix, BASE_NAME]
            matrix_rows: list[tuple[str, ...]] = []
            for persona, logprobs in self.matrix.items():
                matrix_rows.append((persona, *(number(logprobs[name], 3) for name in names)))
            caption = "Mean log-probability of held-out turns (rows) under each persona (columns)"
            blocks += [Heading("Separability"), Table(("turns of", *names), matrix_rows, caption=caption)]
        if self.samples:
            blocks.append(Heading("Sample answers"))
        for sample in self.samples:
            rows = [(BASE_NAME, sample.base)]
            for name, answer in sample.personas.items():
                if name in sample.prompted:
                    rows.append((f"base, prompted as {name}", sample.prompted[name]))
                rows.append((name, answer))
            blocks.append(Table(("model", "answer"), rows, caption=sample.question))
        return blocks


def persona_report(run: OpenRun, result: PersonasResult, data: Sequence[DataReport], measured_in: str) -> Report:
    """Draw the losses into the run folder, and say what they show; `measured_in` is the type of the measured losses."""
    run.write_text(_CURVES, loss_curves(result.personas))
    types = (
        f"The table shows losses measured after training, in {measured_in}; the plot shows those during training, "
        f"in {result.precision}; they may differ in the second digit."
    )
    blocks: list[Block] = [
        *result.tables(),
        Figure(_CURVES, "Loss by step: training (faint) and held-out conversations"),
        *([Text(types)] if measured_in != result.precision else []),
        *result.details(),
    ]
    for row, report in zip(result.personas, data, strict=True):
        blocks += [Heading(f"Conversations of {row.name}"), *report.blocks()]
    names, first = ", ".join(persona.name for persona in result.personas), result.personas[0]
    conversations = sum(persona.conversations + persona.held_out for persona in result.personas)
    return Report(
        title=f"Train {names} on {Path(result.base).name}",
        verdict=result.verdict,
        facts={"model": result.base, "data": f"{conversations} conversations", "precision": result.precision},
        body=blocks,
        next_step=f"agentlab adapters show {first.adapter}",
    )


def loss_curves(personas: Sequence[PersonaResult]) -> str:
    """Training losses as faint lines, held-out losses with markers."""
    figure, axes = new_figure()
    for index, persona in enumerate(personas):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        axes.plot([p.step for p in persona.train_loss], [p.loss for p in persona.train_loss], color=colour, alpha=0.3)
        if held_out := persona.eval_losses:
            steps, losses = [p.step for p in held_out], [p.loss for p in held_out]
            axes.plot(steps, losses, color=colour, marker=marker, label=f"{persona.name}, held out")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    whole_numbers(axes)
    legend_below(figure)
    return svg(figure)


def narrate(event: Event) -> Narration | None:
    """A line for each scoring of held-out conversations; steps move the bar."""
    data = event.data
    match event.type:
        case "base.imported":
            return Narration(line=f"  {event.id} imported as a trainable checkpoint, {data['seconds']:.0f} s")
        case "data.checked":
            counts = f"{data['conversations']} conversations, {data['held_out']} held out"
            return Narration(line=f"  {event.id}: {counts}, {data['supervised']} tokens to train on")
        case "train.step":
            return Narration(detail=f"{event.id}: loss {data['loss']:.3f}", done=data["step"], total=data["steps"])
        case "train.eval":
            best = ", best so far" if data["best"] else ""
            return Narration(line=f"  {event.id}: step {data['step']}, held-out loss {data['loss']:.4f}{best}")
        case "persona.trained":
            return Narration(line=f"  {event.id}: written to {data['adapter']}")
        case "persona.measured":
            return Narration(detail=f"measuring {event.id}", done=data["done"], total=data["total"])
    return None
