"""An aggregation: the longest answer."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from agentlab.pipeline.aggregation.base import Aggregation, AggregationScene, Chosen, StageCandidate


class Longest(Aggregation):
    """The longest answer."""

    method: Literal["longest"] = "longest"
    most: int = Field(100, description="Longer ones do not count.")

    def choose(self, candidates: Sequence[StageCandidate], scene: AggregationScene) -> Chosen:
        texts = [candidate.text for candidate in candidates if len(candidate.text) <= self.most]
        return Chosen(max(texts, key=len), {"method": "longest", "asked": scene.question})
