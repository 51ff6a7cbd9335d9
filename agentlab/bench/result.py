"""The answer of `agentlab llm-bench`, as data."""

from agentlab.bench.check.result import CheckResult
from agentlab.bench.config import Measure
from agentlab.bench.load.result import LoadResult
from agentlab.bench.load.tables import summary
from agentlab.bench.quality.result import QualityResult
from agentlab.runs.document import Block, Document


class BenchResult(Document):
    """A finished run; one of `load`, `check` and `quality` is there, as `measure` says."""

    measure: Measure
    load: LoadResult | None = None
    check: CheckResult | None = None
    quality: QualityResult | None = None

    def blocks(self) -> list[Block]:
        """What the terminal shows."""
        if self.load is not None:
            return summary(self.load)
        part = self.check or self.quality
        return part.blocks() if part else []
