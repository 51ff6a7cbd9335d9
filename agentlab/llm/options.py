"""What one call may say besides its messages and its task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentlab.llm.provider_config import Strategy
from agentlab.llm.types import Tool


@dataclass(frozen=True, slots=True)
class Options:
    """None and empty leave it to the config.

    Attributes:
        strategy: how the models of the task are put to use.
        model: only this model of the config is asked.
        stop: texts that end the answer.
        tools, tool_choice: as in `types.ModelRequest`.
        json_only: the answer has to be some JSON object.
        json_schema: a JSON schema for the answer, where there is no pydantic model; it is checked all the same.
        cache: whether an answer from the response cache will do.
        seconds: the whole call may take, if that is less than what the config allows.
        thoughts: a listener is shown what a model thinks before it answers; a model whose thoughts were shown is not
            replaced by another one.
        fail_fast: a model whose breaker is open is neither waited for nor tried before its pause is over.
    """

    strategy: Strategy | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int = 0
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    json_only: bool = False
    json_schema: Mapping[str, Any] | None = None
    cache: bool | None = None
    seconds: float | None = None
    thoughts: bool = False
    fail_fast: bool = False


PLAIN = Options()
