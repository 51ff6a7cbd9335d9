"""The picture of a training: losses over the steps."""

from collections.abc import Sequence

from agentlab.persona.result import PersonaResult
from agentlab.runs.figures import COLOURS, MARKERS, new_figure, png, whole_numbers


def loss_curves(personas: Sequence[PersonaResult]) -> bytes:
    """Training losses as faint lines, held-out losses with markers; PNG."""
    figure, axes = new_figure()
    for place, persona in enumerate(personas):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        axes.plot([p.step for p in persona.train_loss], [p.loss for p in persona.train_loss], color=colour, alpha=0.3)
        held_out = persona.eval_losses
        if held_out:
            steps, losses = [p.step for p in held_out], [p.loss for p in held_out]
            axes.plot(steps, losses, color=colour, marker=marker, label=f"{persona.name}, held out")
    axes.set_xlabel("step")
    axes.set_ylabel("loss per token (natural logarithm)")
    whole_numbers(axes)
    if any(persona.eval_losses for persona in personas):
        axes.legend(frameon=False, fontsize=8)
    return png(figure)
