"""What one call may say besides its messages and its task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentlab.llm.provider_config import Strategy
from agentlab.llm.types import Tool


@dataclass(frozen=True, slots=True)
class Options:
    """None and empty leave it to the config."""

    strategy: Strategy | None = None
    model: str | None = None  # only this model of the config is asked
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int = 0
    top_p: float | None = None
    stop: tuple[str, ...] = ()  # texts that end the answer
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"  # as of `types.ModelRequest`
    json_only: bool = False  # the answer has to be some JSON object
    json_schema: Mapping[str, Any] | None = None  # of the answer, without a pydantic model; it is checked all the same
    cache: bool | None = None  # whether an answer from the response cache will do
    seconds: float | None = None  # that the whole call may take, if less than the config allows
    # A listener is shown what a model thinks before it answers. After that, no other model can take its place.
    thoughts: bool = False
    fail_fast: bool = False  # a model whose breaker is open is neither waited for nor tried before its pause is over


PLAIN = Options()
