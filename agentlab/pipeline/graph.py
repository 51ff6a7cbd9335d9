"""The stages of a pipeline as steps with their needs. Pure.

A step is one visit of a stage. A loop is unrolled: its stages stand here as often as they may be visited, and a later
visit is passed over when the condition held before it. So there is no circle, and memory is planned over all of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.templates import Template, compile_template, condition

INPUT = "input"


@dataclass(frozen=True, slots=True)
class PipelineStep:
    """One visit of a stage."""

    stage: Stage
    visit: int  # counted from 1
    needs: frozenset[str]  # the steps that have to be over before it begins
    sources: tuple[str, ...]  # `input` or the stages whose answers are its input, in their order
    block: tuple[str, ...] = ()  # the stages of the loop it belongs to, itself included; empty outside of loops
    gate: str | None = None  # the step after which the loop may be over, None in the first visit

    @property
    def id(self) -> str:
        return step_id(self.stage.id, self.visit)


def step_id(stage: str, visit: int) -> str:
    """The name of one visit of a stage."""
    return stage if visit == 1 else f"{stage}@{visit}"


def sources(stages: Sequence[Stage]) -> dict[str, tuple[str, ...]]:
    """What each stage reads: `input_from`, or else the stage before it, or for the first one the run's input."""
    read: dict[str, tuple[str, ...]] = {}
    before = INPUT
    for stage in stages:
        input_from = before if stage.input_from is None else stage.input_from
        read[stage.id] = (input_from,) if isinstance(input_from, str) else input_from
        before = stage.id
    return read


def templates(stage: Stage) -> Iterator[tuple[tuple[str, ...], str]]:
    """(place in the stage, source) of every template of a stage."""
    yield ("system",), stage.system
    yield ("prompt",), stage.prompt
    if stage.aggregation is not None:
        for name in stage.aggregation.templates:
            yield ("aggregation", name), getattr(stage.aggregation, name)


def conditions(stage: Stage) -> Iterator[tuple[tuple[str, ...], str]]:
    """(place in the stage, source) of every expression of a stage."""
    if stage.when is not None:
        yield ("when",), stage.when
    if stage.repeat_until is not None:
        yield ("repeat_until", "condition"), stage.repeat_until.condition


def mentioned_stages(stage: Stage) -> frozenset[str]:
    """The stages whose answers its templates and conditions use."""
    parts: list[Template] = [compile_template(source) for _, source in templates(stage)]
    parts += [condition(source) for _, source in conditions(stage)]
    return frozenset(chain.from_iterable(part.stages for part in parts))


def blocks(stages: Sequence[Stage]) -> dict[str, tuple[int, int]]:
    """The place of the first and the last stage of the loop that each stage belongs to, for those in a loop."""
    positions = {stage.id: position for position, stage in enumerate(stages)}
    loop_bounds: dict[str, tuple[int, int]] = {}
    for last, stage in enumerate(stages):
        if stage.repeat_until is not None:
            first = positions.get(stage.repeat_until.start or stage.id, last)
            loop_bounds |= {stages[position].id: (first, last) for position in range(first, last + 1)}
    return loop_bounds


def unroll(stages: Sequence[Stage]) -> tuple[PipelineStep, ...]:
    """The steps of checked stages, each after the stages listed before it; the visits of a loop one after another."""
    read, looped = sources(stages), blocks(stages)
    visits = {id_: _visits(stages[last]) for id_, (_, last) in looped.items()}
    steps: list[PipelineStep] = []
    position = 0
    while position < len(stages):
        first, last = looped.get(stages[position].id, (position, position))
        block = tuple(stage.id for stage in stages[first : last + 1]) if stages[position].id in looped else ()
        for visit in range(1, _visits(stages[last]) + 1):
            gate = step_id(stages[last].id, visit - 1) if visit > 1 else None
            for stage in stages[first : last + 1]:
                used = {*read[stage.id], *mentioned_stages(stage)} - {INPUT, stage.id}
                needs = {step_id(name, visit if name in block else visits.get(name, 1)) for name in used}
                if gate is not None:
                    needs.add(gate)
                steps.append(PipelineStep(stage, visit, frozenset(needs), read[stage.id], block, gate))
        position = last + 1
    return tuple(steps)


def _visits(stage: Stage) -> int:
    return stage.repeat_until.max_visits if stage.repeat_until is not None else 1


def circle(needs: dict[str, frozenset[str]]) -> tuple[str, ...]:
    """A way that leads back to where it began, its first stage repeated at its end; empty without one."""
    done: set[str] = set()

    def walk(path: tuple[str, ...]) -> tuple[str, ...]:
        for name in sorted(needs[path[-1]]):
            if name in path:
                return (*path[path.index(name) :], name)
            if name in needs and name not in done and (cycle := walk((*path, name))):
                return cycle
        done.add(path[-1])
        return ()

    return next((cycle for start in needs if start not in done and (cycle := walk((start,)))), ())
