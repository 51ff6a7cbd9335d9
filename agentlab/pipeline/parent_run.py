"""The run that a rerun begins with, and what of it is taken over."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentlab.config.load import load_resolved
from agentlab.errors import MissingFileError, RunMismatchError, UnknownNameError
from agentlab.pipeline import graph
from agentlab.pipeline.branches.trace import stage_of
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.known_answers import FINISHED
from agentlab.pipeline.registry import asked_models
from agentlab.pipeline.settings import drawing_of, engine_of
from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.templates import Template, compile_template, condition
from agentlab.runs.events import Event, first_event_data
from agentlab.runs.journal import read_events

_INPUTS = ("input", "input_file", "inputs")


@dataclass(frozen=True, slots=True)
class Parent:
    """What a rerun begins with."""

    run: str  # the parent's name
    path: Path
    inherited: tuple[Event, ...] = ()  # its events of the stages that do not follow from the first one that runs again
    taken: frozenset[str] = frozenset()  # the stages of these that came to their end in it: nobody is asked for them
    inputs: Path | None = None  # the folder whose copy of the inputs holds here; None when the rerun has its own
    gone: bool = False  # its folder was removed; what it knew is looked for in the store


def parent_of(config: PipelineConfig, env: Mapping[str, str], *, resumed: bool = False) -> Parent:
    """The parent of a config with a `branch`. A run that is `resumed` goes on without it when it was removed.

    Raises:
        UnknownNameError: there is no such stage.
        RunMismatchError: something that decides the answers of a stage that is taken over was changed.
        MissingFileError: the parent is not there.
        ConfigError, RunUnreadableError: the parent cannot be read.
    """
    assert config.branch is not None
    path, first = Path(config.branch.run), config.branch.stage
    repeated_stages = following(config.stages, first)
    if not (path / "config.yaml").is_file():
        if resumed:
            return Parent(path.name, path, gone=True)
        raise MissingFileError(
            f"The parent run {path}, whose answers this run reuses, does not exist.",
            hint="Remove `branch`; answers stored in the workspace are still reused.",
        )
    before = load_resolved(PipelineConfig, path / "config.yaml", (), env=env)
    check_unchanged(before, config, first)
    events = tuple(read_events(path / "events.jsonl"))
    inherited = tuple(event for event in events if stage_of(event.id) not in repeated_stages)
    count = first_event_data(events, "inputs.taken").get("count", 0)
    same = all(getattr(before, name) == getattr(config, name) for name in _INPUTS)
    return Parent(path.name, path, inherited, _ended_stages(inherited, before.stages, count), path if same else None)


def _ended_stages(events: Sequence[Event], stages: Sequence[Stage], inputs: int) -> frozenset[str]:
    """The stages whose every visit ended for every input without a failure, which would be asked again."""
    ended_steps = {
        event.id
        for event in events
        if event.type == FINISHED and not {"error", "failed"} & {*(event.data.get("why") or ())}
    }
    counts = Counter(stage_of(step) for step in ended_steps)
    visits = {step.stage.id: step.visit for step in graph.unroll(stages)}
    return frozenset(name for name, number in visits.items() if inputs and counts[name] == number * inputs)


def following(stages: Sequence[Stage], first: str) -> frozenset[str]:
    """The stage and everything that depends on it: through `input_from`, a template, or a loop they share.

    Raises:
        UnknownNameError: there is no such stage.
    """
    names = [stage.id for stage in stages]
    if first not in names:
        raise UnknownNameError("stage", first, names)
    read, looped = graph.sources(stages), graph.blocks(stages)
    affected_stages = {first}
    for _ in stages:
        for stage in stages:
            same = {s.id for s in stages if s.id in looped and looped.get(s.id) == looped.get(stage.id)}
            if affected_stages & ({*read[stage.id]} | graph.mentioned_stages(stage) | same):
                affected_stages.add(stage.id)
    return frozenset(affected_stages)


def check_unchanged(parent: PipelineConfig, child: PipelineConfig, first: str) -> None:
    """See that a rerun changes nothing that decides the answers it takes over.

    Raises:
        RunMismatchError: it does; the stage that was changed is the one to begin with.
    """
    repeated_stages = following(child.stages, first)
    before = {stage.id: stage for stage in parent.stages}
    kept_stages = [stage for stage in child.stages if stage.id not in repeated_stages]
    for name in _INPUTS if kept_stages else ():
        if getattr(parent, name) != getattr(child, name):
            raise RunMismatchError(
                f"`{name}` changed, but the parent's answer for {kept_stages[0].id} would be reused.",
                hint="Start a new run; stored answers are reused.",
            )
    for stage in kept_stages:
        old = dict(_deciding(parent, before[stage.id])) if stage.id in before else {}
        changed = next((name for name, value in _deciding(child, stage) if old.get(name) != value), None)
        if changed is not None:
            of = "" if changed == stage.id else f", which affects the answer of {stage.id}"
            way_out = f", or override it only from stage {first} on." if of else "."
            raise RunMismatchError(
                f"{changed} changed{of}, but the rerun does not start until {first}.",
                hint=f"Start the rerun at {stage.id}: --from {stage.id}{way_out}",
            )


def _deciding(config: PipelineConfig, stage: Stage) -> Iterator[tuple[str, object]]:
    """What decides the answers of a stage, in words and as it is. Time does not, and context only what a judge sees."""
    judge = _judge(stage)
    yield stage.id, stage
    yield f"the input of {stage.id}", graph.sources(config.stages)[stage.id]
    texts: list[Template] = [compile_template(source) for _, source in graph.templates(stage)]
    texts += [condition(source) for _, source in graph.conditions(stage)]
    if any("params" in text.names for text in texts):
        yield "params", config.params
    for name in sorted(asked_models([stage], config)):
        entry, drawing = config.models[name], drawing_of(config, stage, name)
        yield f"the model {name}", (entry.provider, entry.file, entry.model)
        yield f"the sampling settings of {name}", (drawing.temperature, drawing.top_p, drawing.max_tokens)
        if entry.provider == "gguf":
            engine = engine_of(config, name)
            yield "models_directory", config.models_directory
            yield f"the engine settings of {name}", (engine.batch, engine.gpu_layers, engine.flash, engine.kv_type)
            context: int | None = engine.context
        else:
            remote_model = config.llm.models[entry.model or ""]
            provider = config.llm.providers[remote_model.provider].model_dump(exclude={"api_key", "limits", "total"})
            yield f"llm.models.{entry.model}", (remote_model.provider, remote_model.id, provider)
            context = remote_model.context
        if name == judge:
            yield f"the context size of {name}", context
    if _draws(config, stage):
        yield "seed", config.seed


def _draws(config: PipelineConfig, stage: Stage) -> bool:
    """Whether the run's seed decides its answers: the likeliest ones have none, and a judge sees them shuffled."""
    if _judge(stage) is not None:
        return True
    if stage.seed is not None:
        return False
    names = asked_models([stage], config)
    remote = any(config.models[name].provider == "router" for name in names)
    return remote or any(drawing_of(config, stage, name).temperature > 0 for name in names)


def _judge(stage: Stage) -> str | None:
    aggregation = stage.aggregation
    return aggregation.asked if aggregation is not None and aggregation.judges else None
