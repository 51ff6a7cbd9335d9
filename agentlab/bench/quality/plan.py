"""What a measurement of quality is going to ask."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentlab.bench.config import Target, targets_of
from agentlab.bench.quality.config import QualityConfig
from agentlab.errors import UnknownNameError
from agentlab.llm.config import LLMConfig
from agentlab.tasks.generate import generate
from agentlab.tasks.items import TaskItem


@dataclass(frozen=True, slots=True)
class QualityPlan:
    """What is going to be asked: `items` of each target, and of `judge` every open answer twice."""

    items: tuple[TaskItem, ...]
    targets: tuple[Target, ...]
    judge: str | None

    @property
    def requests(self) -> int:
        """Requests at most, those to the judge included."""
        opens = sum(item.type == "open" for item in self.items) if self.judge else 0
        return len(self.targets) * (len(self.items) + 2 * opens)


def plan_quality(config: QualityConfig, llm: LLMConfig, targets: Sequence[str] = ()) -> QualityPlan:
    """Check everything that can be checked before somebody is asked.

    `targets`: names of models, or strategies such as `strategy:best_of_two`; empty means every model that a role names.

    Raises:
        ConfigError: the config has no model.
        UnknownNameError: a target or the judge is not there.
    """
    if config.judge is not None and config.judge not in llm.models:
        raise UnknownNameError("model for quality.judge", config.judge, list(llm.models))
    items = generate(tuple(dict.fromkeys(config.types)), config.per_type, config.items_seed)
    return QualityPlan(items, targets_of(targets, llm), judge_of(config.judge, llm))


def judge_of(chosen: str | None, llm: LLMConfig) -> str | None:
    """The judging model: the one that is named, else the first duplicate; None leaves open answers unscored."""
    return chosen or next(iter(llm.roles.duplicate), None)
