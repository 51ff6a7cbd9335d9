"""What can be told about the check of models."""

from pydantic import Field

from agentlab.config.base import StrictModel


class CheckConfig(StrictModel):
    """How models are checked."""

    requests: int = Field(
        3,
        ge=1,
        le=100,
        description="Small requests to each model, one after the other, and one before them to warm up.",
    )
    max_tokens: int = Field(16, ge=1, le=1024, description="Tokens of each answer, at most.")
    models_at_once: int = Field(4, ge=1, le=64, description="Models that are asked at the same time.")
