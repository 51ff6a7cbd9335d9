"""An objective of a study: how far x is from its target."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentlab.search.types import TrialResult
from agentlab.study.executor import Objective, Report
from agentlab.study.state import StudyCandidate


def square(setup: Mapping[str, Any], report: Report) -> Objective:
    def measure(batch: Sequence[StudyCandidate]) -> list[TrialResult]:
        return [TrialResult("finished", float((one.params["x"] - setup["target"]) ** 2)) for one in batch]

    return measure
