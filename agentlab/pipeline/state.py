"""What is known of one input on its way through the steps. Pure: everything here follows from the answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentlab.answers.quote import headed
from agentlab.pipeline.graph import INPUT, Step, step_id
from agentlab.pipeline.stage_config import MOST_VISITS
from agentlab.pipeline.templates import condition

# over: its loop was left before this visit; default: its models failed and `default` stands in.
Status = Literal["done", "skipped", "over", "default", "failed"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended: its own answer, and the text that it hands on."""

    status: Status
    answer: str = ""
    output: str = ""
    json: Any = None
    why: Mapping[str, Any] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        return {"output": self.output, "answer": self.answer, "json": self.json, "skipped": self.status == "skipped"}


_NOTHING = Ended("skipped")


class Item:
    """One input, with the ends of its steps."""

    __slots__ = ("_fields", "_params", "ended", "failed", "name", "text")

    def __init__(self, name: str, text: str, fields: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """`name` begins the ids of its calls; it is empty when there is one input only."""
        self.name = name
        self.text = text
        self._fields, self._params = fields, params
        self.ended: dict[str, Ended] = {}
        self.failed: Exception | None = None

    def id(self, of: str) -> str:
        """The id of a step or call within the run."""
        return f"{self.name}:{of}" if self.name else of

    def seen(self, name: str, step: Step, latest: int | None = None) -> Ended:
        """A stage's end as seen from a step: its latest visit that took place, up to `latest`."""
        last = step.visit if name in step.block else MOST_VISITS
        for number in range(last if latest is None else latest, 0, -1):
            end = self.ended.get(step_id(name, number))
            if end is not None and end.status != "over":
                return end
        return _NOTHING

    def given(self, step: Step) -> str:
        """The input of a step. Several answers stand under the names of their stages; skipped ones are left out."""
        found = [(name, self.text if name == INPUT else self.seen(name, step).output) for name in step.sources]
        if len(found) == 1:
            return found[0][1]
        present = [(name, text) for name, text in found if name == INPUT or self.seen(name, step).status != "skipped"]
        return headed(present)

    def values(self, step: Step, given: str) -> dict[str, Any]:
        """What the templates of a step may use; `given` is its input."""
        names = {id_.partition("@")[0] for id_ in self.ended}
        return {
            "input": given,
            "item": self._fields,
            "params": self._params,
            "stages": {name: self.seen(name, step).shown() for name in names},
            "previous": {name: self.seen(name, step, step.visit - 1).shown() for name in step.block},
        }

    def verdict(self, step: Step) -> Status | None:
        """Why a step is passed over: its loop is over, what it reads was skipped, or `when` does not hold.

        Raises:
            AgentlabError: a condition cannot be evaluated.
        """
        if step.gate is not None and self._left(step):
            return "over"
        if INPUT not in step.sources and all(self.seen(name, step).status == "skipped" for name in step.sources):
            return "skipped"
        when = step.stage.when
        if when is not None and not condition(when).holds(self.values(step, self.given(step))):
            return "skipped"
        return None

    def _left(self, step: Step) -> bool:
        """Whether the loop of a later visit was left, by the condition that its gate states."""
        assert step.gate is not None
        end = self.ended[step.gate]
        return end.status == "over" or bool(end.why.get("until"))

    def finished(self, step: Step, end: Ended) -> None:
        """Note how a step ended; at the end of a loop, whether its condition holds."""
        loop = step.stage.repeat_until
        if loop is not None and end.status not in ("over", "failed"):
            values = self.values(step, "") | {"output": end.answer, "json": end.json, "visit": step.visit}
            holds = end.status == "skipped" or condition(loop.condition).holds(values)
            end = Ended(end.status, end.answer, end.output, end.json, {**end.why, "until": holds})
        self.ended[step.id] = end

    def final(self, steps: tuple[Step, ...]) -> str:
        """The answer of the pipeline: that of the last stage that was not skipped."""
        for step in reversed(steps):
            end = self.ended.get(step.id)
            if end is not None and end.status in ("done", "default"):
                return end.output
        return ""
