"""What can be told about the measurement of quality."""

from pydantic import Field

from agentlab.config.base import StrictModel
from agentlab.tasks.items import TASK_TYPES, TaskType


class QualityConfig(StrictModel):
    """Which items are asked, and who judges open answers."""

    types: tuple[TaskType, ...] = Field(
        TASK_TYPES, min_length=1, description="Kinds of tasks: exact, json, code, classify, follow; open needs a judge."
    )
    per_type: int = Field(12, ge=1, le=50, description="Items per kind; open has only twelve.")
    items_seed: int = Field(
        0, ge=0, lt=2**32, description="Seed for the items. Only runs with the same items can be compared."
    )
    at_once: int = Field(
        1,
        ge=1,
        le=64,
        description="Concurrent requests; higher is faster, but requests then slow each other down.",
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature; 0 means greedy decoding.")
    judge: str | None = Field(
        None,
        description="Judge of open answers; null means the first model with the role duplicate, if any.",
    )
