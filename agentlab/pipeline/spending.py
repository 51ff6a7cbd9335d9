"""What the router knows of a pipeline's run: what it has spent. The answers themselves are the pipeline's to keep."""

from typing import Any

from agentlab.llm.types import Usage
from agentlab.pipeline.memo import ANSWERED
from agentlab.runs.run import Run


class Spending:
    """Implements `CallRecorder`. Nothing is replayed: an endpoint that was down may be back."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> str:
        """Id of the run."""
        return self._run.id

    def replay(self, key: str) -> dict[str, Any] | None:
        """Nothing."""
        del key
        return None

    def record(self, key: str, id: str, data: dict[str, Any]) -> None:  # noqa: A002 - the protocol's name
        """Nothing: every answer becomes an event with its cost."""

    def spent(self) -> Usage:
        """What the run's remote answers have cost so far, those of earlier sessions included."""
        told = [
            event.data["answer"]
            for event in self._run.events
            if event.type == ANSWERED and event.data["from"] == "model" and event.data["answer"]["cost_usd"] is not None
        ]
        usages = (Usage(each["prompt_tokens"], each["completion_tokens"], each["cost_usd"]) for each in told)
        return sum(usages, Usage())
