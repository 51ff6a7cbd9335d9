"""Where the text of a message comes from, and which of these sources differ between two runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agentlab.config.yaml_tree import read_yaml
from agentlab.errors import ConfigError, RunUnreadableError
from agentlab.pipeline.branches.digest import changes, config_of, inputs_of
from agentlab.pipeline.branches.trace import Trace, is_of_aggregation, item_of, stage_of, step_of, trace
from agentlab.pipeline.config import StageList
from agentlab.pipeline.graph import INPUT, sources
from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.templates import compile_template
from agentlab.runs.store import RunRecord

_TEMPLATES = {"system": "system", "user": "prompt"}  # by the role of the message they become


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run that questions are compared with, or the run itself. `asked` are keys that were put to a model in it."""

    record: RunRecord
    trace: Trace
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    asked: frozenset[str]

    @classmethod
    def of(cls, record: RunRecord) -> "PastRun":
        """What the folder tells; a RunUnreadableError if its events are damaged or absent."""
        config, run_trace = config_of(record), trace(record.events())
        asked_keys = frozenset(call.key for call in run_trace.calls.values() if call.source == "model")
        return cls(record, run_trace, config, inputs_of(record, config), asked_keys)


def stages_of(record: RunRecord) -> dict[str, Stage]:
    """The stages of a run by their ids; empty when its config is damaged or of another version."""
    try:
        data = read_yaml(record.text("config.yaml"), "config.yaml").data
        stage_list = StageList.model_validate(data.get(f"{data.get('mode', 'base')}_pipeline"))
    except (ConfigError, RunUnreadableError, ValidationError):
        return {}
    return {stage.id: stage for stage in stage_list.stages}


def reasons(call: str, role: str, now: PastRun, before: PastRun, stages: Mapping[str, Stage]) -> list[str]:
    """Why a message of a call reads otherwise than it did in another run; empty when nothing known differs."""
    step = step_of(call)
    stage = stages.get(stage_of(step))
    if stage is None:
        return []
    causes = list(_changed_keys(stage, role, now, before))
    if is_of_aggregation(call):  # it shows what the stage was asked as well, so the rest applies too
        causes += _changed_rules(stage, now, before)
        if _candidates(now, step) != _candidates(before, step):
            causes.append("it includes the candidates, which changed")
    try:
        used = compile_template(stage.system if role == "system" else stage.prompt)
    except ConfigError:
        return causes
    read = sources(list(stages.values()))[stage.id] if INPUT in used.names else ()
    if INPUT in read and now.inputs.get(item_of(step)) != before.inputs.get(item_of(step)):
        causes.append("the input of the run changed")
    names = dict.fromkeys((*read, *sorted(used.stages | used.previous)))
    changed_stages = [name for name in names if _outputs(now, step, name) != _outputs(before, step, name, like=now)]
    if changed_stages:
        many = "s" if len(changed_stages) > 1 else ""
        causes.append(f"it includes the output of stage{many} {' and '.join(changed_stages)}, which changed")
    return causes


def _changed_keys(stage: Stage, role: str, now: PastRun, before: PastRun) -> Iterator[str]:
    for change in changes(before.config, now.config):
        path = change.key.split(".")
        if path[-2:] == [stage.id, _TEMPLATES.get(role, "prompt")]:
            yield f"its template {change.key} changed"
        elif path[-2:] == [stage.id, "input_from"] or path[0] == "params":
            yield f"{change.key} changed"


def _changed_rules(stage: Stage, now: PastRun, before: PastRun) -> Iterator[str]:
    for change in changes(before.config, now.config):
        if change.key.split(".")[-3:-1] == [stage.id, "aggregation"]:
            yield f"{change.key} changed"


def _candidates(run: PastRun, step: str) -> dict[str, str]:
    """By their calls, in whatever order they ended."""
    return {call.id: call.sha for call in run.trace.calls_by_step().get(step, []) if not is_of_aggregation(call.id)}


def _outputs(run: PastRun, step: str, stage: str, like: PastRun | None = None) -> list[str | None]:
    """The texts that a stage had handed on, in the same item, when a step began."""
    names: list[str] = []
    for name in (like or run).trace.steps:
        if name == step:
            break
        if stage_of(name) == stage and item_of(name) == item_of(step):
            names.append(name)
    return [traced_step.sha if (traced_step := run.trace.steps.get(name)) else None for name in names]
