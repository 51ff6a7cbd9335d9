"""One question of a pipeline, and the failures after which somebody else may be asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentlab.errors import ConfigError, GateError, MissingFileError, MissingKeyError, ModelFileError, RemoteError
from agentlab.pipeline.settings import Drawing
from agentlab.pipeline.stage_config import Stage

# After these another model may be asked, and `on_error` decides when none is left. ConfigError: a template meets an
# answer that lacks what it uses.
FAILURES = (RemoteError, ModelFileError, MissingFileError, MissingKeyError, GateError, ConfigError)

Messages = tuple[tuple[str, str], ...]
Tell = Callable[[str], None]  # hears the text of an answer, piece by piece


@dataclass(frozen=True, slots=True)
class Call:
    """One question.

    Attributes:
        id: within the run; see `work.call_id`.
        models: who is asked, and who stands in, in that order.
        prompt: the messages, of the share of the input that they show.
        drawings: how the answer is drawn from each of the models.
        stop: texts that end the answer.
    """

    id: str
    stage: Stage
    models: tuple[str, ...]
    prompt: Callable[[float], Messages]
    drawings: Mapping[str, Drawing]
    seed: int
    schema: Mapping[str, Any] | None = None
    logprob: bool = False
    stop: tuple[str, ...] = ()
