"""What the router's loops learn goes into the ledger."""

import time

from agentlab.llm.ledger.protocol import Ledger
from agentlab.llm.ledger.sample import Sample
from agentlab.llm.question import Candidate
from agentlab.llm.types import Timing, Usage


class Observer:
    """Implements `question.Observe`."""

    def __init__(self, ledger: Ledger, *, run: str) -> None:
        """`run` is the id of the run that asks; empty without one."""
        self._ledger = ledger
        self._run = run

    def attempt(self, task: str, candidate: Candidate, error: str | None, usage: Usage, timing: Timing) -> None:
        """One attempt is over."""
        self._ledger.record(
            Sample(
                time.time(),
                task,
                candidate.name,
                candidate.provider,
                error,
                usage,
                timing.first,
                timing.total,
                self._run,
            )
        )

    def quality(self, task: str, model: str, value: float) -> None:
        """How good an answer was."""
        self._ledger.quality(time.time(), task, model, value)
