"""The report of a training of personas."""

from collections.abc import Sequence

from agentlab.persona.curves import loss_curves
from agentlab.persona.result import PersonasResult
from agentlab.runs.document import Block, Figure, Heading
from agentlab.runs.report import write_report
from agentlab.runs.run import Run
from agentlab.train.data_report import DataReport

_CURVES = "plots/losses.png"


def write_persona_report(run: Run, result: PersonasResult, data: Sequence[DataReport]) -> None:
    """Draw the losses and write report.md and report.html."""
    run.write_bytes(_CURVES, loss_curves(result.personas))
    blocks: list[Block] = [
        *result.blocks(),
        Figure(_CURVES, "Loss over the steps: in training (faint) and on held-out conversations"),
        *result.details(),
    ]
    for row, report in zip(result.personas, data, strict=True):
        blocks += [Heading(f"Conversations of {row.name}"), *report.blocks()]
    write_report(run, f"Personas {run.id}", blocks)
