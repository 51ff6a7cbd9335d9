"""What the models of one process did: counted while it happens, beside what the ledger remembers."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from agentlab.llm.ledger.sample import Sample
from agentlab.llm.types import Usage


@dataclass(frozen=True, slots=True)
class ModelTally:
    """One model since the process began.

    Attributes:
        last_response_time: seconds that its latest answer took, from the request to the last token; None without one.
        errors: how often each kind of error occurred; their sum is `error_count`.
        usage: tokens and cost of all attempts; None is unknown.
    """

    name: str
    last_response_time: float | None = None
    success_count: int = 0
    error_count: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    usage: Usage = Usage()  # noqa: RUF009 - frozen

    def with_sample(self, sample: Sample) -> "ModelTally":
        """After one more attempt."""
        usage = self.usage + sample.usage
        if sample.error is None:
            return replace(self, last_response_time=sample.total, success_count=self.success_count + 1, usage=usage)
        errors = {**self.errors, sample.error: self.errors.get(sample.error, 0) + 1}
        return replace(self, error_count=self.error_count + 1, errors=errors, usage=usage)


class Tallies:
    """Every model by name, also those that were never asked."""

    def __init__(self, models: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._models = {name: ModelTally(name) for name in models}

    def all(self) -> dict[str, ModelTally]:
        """As they stand."""
        with self._lock:
            return dict(self._models)

    def count(self, sample: Sample) -> None:
        """One more attempt."""
        with self._lock:
            self._models[sample.model] = self._models[sample.model].with_sample(sample)


def fastest(tallies: Iterable[ModelTally]) -> ModelTally | None:
    """The one whose latest answer was the quickest; None when none of them has answered."""
    timed = [(tally.last_response_time, tally) for tally in tallies if tally.last_response_time is not None]
    return min(timed, key=lambda item: item[0], default=(None, None))[1]
