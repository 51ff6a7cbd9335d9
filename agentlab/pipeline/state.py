"""What is known of one input on its way through the steps. Pure: everything here follows from the answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agentlab.answers.quote import join_under_headings
from agentlab.pipeline.graph import INPUT, PipelineStep, step_id
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

    def template_values(self) -> dict[str, Any]:
        return {"output": self.output, "answer": self.answer, "json": self.json, "skipped": self.status == "skipped"}


_NOTHING = Ended("skipped")


class PipelineItem:
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
        return f"{self.name}:{of}" if self.name else of

    def latest_end(self, name: str, step: PipelineStep, latest: int | None = None) -> Ended:
        """A stage's end as seen from a step: its latest visit that took place, up to `latest`."""
        last = step.visit if name in step.block else MOST_VISITS
        for number in range(last if latest is None else latest, 0, -1):
            end = self.ended.get(step_id(name, number))
            if end is not None and end.status != "over":
                return end
        return _NOTHING

    def step_input(self, step: PipelineStep) -> str:
        """The input of a step. Several answers stand under the names of their stages; skipped ones are left out."""
        outputs = [(name, self.text if name == INPUT else self.latest_end(name, step).output) for name in step.sources]
        if len(outputs) == 1:
            return outputs[0][1]
        skipped = {name for name in step.sources if name != INPUT and self.latest_end(name, step).status == "skipped"}
        return join_under_headings([(name, text) for name, text in outputs if name not in skipped])

    def values(self, step: PipelineStep, input_text: str) -> dict[str, Any]:
        """What the templates of a step may use."""
        names = {id_.partition("@")[0] for id_ in self.ended}
        return {
            "input": input_text,
            "item": self._fields,
            "params": self._params,
            "stages": {name: self.latest_end(name, step).template_values() for name in names},
            "previous": {name: self.latest_end(name, step, step.visit - 1).template_values() for name in step.block},
        }

    def verdict(self, step: PipelineStep) -> Status | None:
        """Why a step is passed over: its loop is over, what it reads was skipped, or `when` does not hold.

        Raises:
            AgentlabError: a condition cannot be evaluated.
        """
        if step.gate is not None:
            gate = self.ended[step.gate]
            if gate.status == "over" or gate.why.get("until"):
                return "over"
        if INPUT not in step.sources and all(self.latest_end(name, step).status == "skipped" for name in step.sources):
            return "skipped"
        when = step.stage.when
        if when is not None and not condition(when).holds(self.values(step, self.step_input(step))):
            return "skipped"
        return None

    def record_end(self, step: PipelineStep, end: Ended) -> None:
        """Note how a step ended; at the end of a loop, whether its condition holds."""
        loop = step.stage.repeat_until
        if loop is not None and end.status not in ("over", "failed"):
            values = self.values(step, "") | {"output": end.answer, "json": end.json, "visit": step.visit}
            holds = end.status == "skipped" or condition(loop.condition).holds(values)
            end = replace(end, why={**end.why, "until": holds})
        self.ended[step.id] = end

    def final(self, steps: tuple[PipelineStep, ...]) -> str:
        """The answer of the pipeline: that of the last stage that was not skipped."""
        for step in reversed(steps):
            end = self.ended.get(step.id)
            if end is not None and end.status in ("done", "default"):
                return end.output
        return ""
