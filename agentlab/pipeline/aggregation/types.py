"""Plain data of aggregation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Pairs of role and content, as in `agentlab.pipeline.answer.Asked`.
Messages = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer of a stage.

    Attributes:
        model: its name in the config.
        sample: counted from 1 within the model.
        json: the value that fits `response_schema`; None without a schema, or when the text does not fit.
        logprob: mean log-probability per token, natural logarithm; None where nobody tells.
    """

    model: str
    sample: int
    text: str
    json: Any | None = None
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The stage's answer, and how it came about: plain JSON that is written into the run."""

    text: str
    why: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tie:
    """Candidates with equal weight behind them: the places of the first of each group, in their order."""

    places: tuple[int, ...]
    why: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked for an aggregation. `id` is unique within the step; the reply has to fit `schema`."""

    id: str
    messages: Messages
    schema: Mapping[str, Any]
