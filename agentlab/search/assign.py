"""The light control: a logged coin decides per trial whether the agent or its control proposes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Arm = Literal["agent", "control"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who proposes this trial, and the probability with which it would be the agent."""

    arm: Arm
    probability: float


def assign(rng: "np.random.Generator", probability: float = 0.5) -> Assignment:
    """Draw the arm of one trial. The draw looks at nothing else, so a randomisation interval is valid."""
    if not 0.0 < probability < 1.0:
        raise ValueError(f"a probability strictly between 0 and 1 leaves both arms a chance, not {probability}")
    return Assignment("agent" if rng.random() < probability else "control", probability)
