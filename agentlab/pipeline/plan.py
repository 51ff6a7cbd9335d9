"""What a pipeline is going to do: the order, what is loaded and unloaded for it, and the memory that takes."""

from collections.abc import Collection, Mapping, Sequence

from agentlab.pipeline.loaded_models import MemoryBudget
from agentlab.pipeline.schedule.types import Evict, Load, Schedule
from agentlab.pipeline.schedule.types import RunJob as Do
from agentlab.pipeline.units import Unit
from agentlab.runs.document import AnswerDocument, Block, Plain, Table, Text, mebibytes

_ACTIONS = {"take over": "reuse"}  # what `action` is called in tables


class PlanStep(Plain):
    """One step of the plan; `resident_bytes` is planned to be in memory after it.

    `action`: take over (the stage `what`, from the parent), load, unload, ask, or ask remote.
    """

    action: str
    what: str
    model: str
    answers: int
    resident_bytes: int


class PlannedModel(Plain):
    """One local model, and the parts of its estimate in bytes."""

    model: str
    file: str
    context: int
    planned_bytes: int
    weights: int
    cache: int
    compute: int
    process: int
    gpu: int
    source: str


class PipelinePlan(AnswerDocument):
    """The answer of `pipeline plan` and of `--dry-run`. With 0 `inputs`, none was given, and one is counted."""

    inputs: int
    steps: list[PlanStep]
    models: list[PlannedModel]
    loads: int
    peak_bytes: int
    budget_bytes: int
    method: str
    remarks: list[str]

    def blocks(self) -> list[Block]:
        steps = [
            (
                str(n),
                _ACTIONS.get(s.action, s.action),
                s.what,
                s.model,
                str(s.answers or ""),
                mebibytes(s.resident_bytes),
            )
            for n, s in enumerate(self.steps, 1)
        ]
        models = [(m.model, m.file, str(m.context), *map(mebibytes, _parts(m)), m.source) for m in self.models]
        best = "the minimum" if self.method == "exact" else "heuristic: too many stages for an exact search"
        inputs = f"{self.inputs} input{'s' if self.inputs != 1 else ''}" if self.inputs else "For one input"
        loads = f"{self.loads} model load{'s' if self.loads != 1 else ''}"
        memory = f"at most {mebibytes(self.peak_bytes)} of {mebibytes(self.budget_bytes)} MiB of memory"
        columns = ("model", "file", "context", "planned MiB", "weights", "cache", "buffers", "process", "GPU", "from")
        blocks: list[Block] = [Table(("", "", "what", "model", "answers", "MiB after step"), steps)]
        blocks += [Table(columns, models)] if models else []
        return [
            *blocks,
            Text(f"{inputs}: {loads} ({best}), {memory}."),
            *(Text(f"remark: {remark}") for remark in self.remarks),
        ]


def _parts(model: PlannedModel) -> tuple[int, ...]:
    return (model.planned_bytes, model.weights, model.cache, model.compute, model.process, model.gpu)


def plan_of(
    schedule: Schedule,
    units: Sequence[Unit],
    models: Sequence[PlannedModel],
    budget: MemoryBudget,
    remarks: Sequence[str],
    inputs: int,
    taken_stages: Collection[str] = (),
) -> PipelinePlan:
    """The plan as it is shown, for so many `inputs`; 0 is not known yet. Steps that neither ask nor load are left out.

    `taken_stages`: those whose answers a rerun takes over from its parent; `schedule` is without them.
    """
    by_id = {unit.id: unit for unit in units}
    stages = dict.fromkeys(unit.step.stage.id for unit in units if unit.step.stage.id in taken_stages)
    steps = [PlanStep(action="take over", what=name, model="", answers=0, resident_bytes=0) for name in stages]
    for step, resident in zip(schedule.steps, schedule.resident_bytes(), strict=True):
        plan_step = _step(step, by_id, max(inputs, 1), resident)
        if plan_step is not None:
            steps.append(plan_step)
    return PipelinePlan(
        inputs=inputs,
        steps=steps,
        models=list(models),
        loads=schedule.loads,
        peak_bytes=schedule.peak,
        budget_bytes=budget.ram,
        method=schedule.method,
        remarks=list(remarks),
    )


def _step(step: Load | Evict | Do, units: Mapping[str, Unit], inputs: int, resident: int) -> PlanStep | None:
    match step:
        case Load(model):
            return PlanStep(action="load", what="", model=model, answers=0, resident_bytes=resident)
        case Evict(model):
            return PlanStep(action="unload", what="", model=model, answers=0, resident_bytes=resident)
        case Do(name):
            unit = units[name]
            if unit.model is None:
                return None
            action = "ask" if unit.local else "ask remote"
            step_name = f"{unit.step.id} ({unit.step.stage.aggregation.method})" if unit.whole else unit.step.id  # type: ignore[union-attr] # who asks to aggregate has a method
            return PlanStep(
                action=action, what=step_name, model=unit.model, answers=unit.calls * inputs, resident_bytes=resident
            )
