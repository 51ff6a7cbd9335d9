"""What is wrong between the parts of a pipeline's config: names that lead nowhere, circles, votes without a rule. Pure.

Each problem comes with its place, so that the message can name file, line and column.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from agentlab.config.keys import Key
from agentlab.errors import AgentlabError, ConfigError, UnknownNameError
from agentlab.pipeline import graph
from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.templates import compiled, condition

if TYPE_CHECKING:
    from agentlab.pipeline.config import PipelineConfig

Problem = tuple[Key, str]


def problems(config: "PipelineConfig") -> Iterator[Problem]:
    """Everything, in the order of the file."""
    given = [name for name in ("input", "input_file", "inputs") if getattr(config, name) is not None]
    for name in given[1:]:
        yield (name,), f"{' and '.join(given)} exclude each other"
    yield from _models(config)
    if not config.stages:
        yield (f"{config.mode}_pipeline",), f"mode {config.mode} runs {config.mode}_pipeline.stages, which is not given"
    for name, part in (("base_pipeline", config.base_pipeline), ("manual_pipeline", config.manual_pipeline)):
        if part is not None:
            for place, sentence in stage_problems(part.stages, config):
                yield (name, "stages", *place), sentence


def _models(config: "PipelineConfig") -> Iterator[Problem]:
    for name, entry in config.models.items():
        if entry.provider == "router" and entry.model not in config.llm.models:
            yield ("models", name, "model"), _unknown("model of `llm`", entry.model or "", list(config.llm.models))
        kv_type = entry.overrides.kv_type or config.defaults.kv_type or "f16"
        flash = entry.overrides.flash_attn if entry.overrides.flash_attn is not None else config.defaults.flash_attn
        if kv_type != "f16" and flash is False:
            yield ("models", name), f"kv_type {kv_type} needs flash_attn: true, as llama.cpp has it"


def stage_problems(stages: Sequence[Stage], config: "PipelineConfig") -> Iterator[Problem]:
    """What is wrong with one list of stages; places begin with the index of the stage."""
    names = [stage.id for stage in stages]
    for index, stage in enumerate(stages):
        if stage.id == graph.INPUT:
            yield (str(index), "id"), "`input` means the run's own input; choose another id"
        elif stage.id in names[:index]:
            yield (str(index), "id"), f"two stages are called {stage.id}"
    broken = list(_templates(stages))
    yield from broken
    for index, stage in enumerate(stages):
        for place, sentence in _one(index, stage, stages, config, readable=not broken):
            yield (str(index), *place), sentence
    yield from _loops(stages, readable=not broken)


def _templates(stages: Sequence[Stage]) -> Iterator[Problem]:
    for index, stage in enumerate(stages):
        for place, source, make in [
            *((place, source, compiled) for place, source in graph.templates(stage)),
            *((place, source, condition) for place, source in graph.conditions(stage)),
        ]:
            try:
                make(source)
            except ConfigError as error:
                yield (str(index), *place), error.message


def _one(
    index: int, stage: Stage, stages: Sequence[Stage], config: "PipelineConfig", *, readable: bool
) -> Iterator[Problem]:
    """Problems of one stage, whose place is left to the caller."""
    read = graph.sources(stages)
    yield from _references(index, stage, stages, mentioned=graph.mentioned(stage) if readable else frozenset())
    if len(set(read[stage.id])) < len(read[stage.id]):
        yield ("input_from",), "a stage is named twice"
    for place, name in _asked(stage):
        if name not in config.models:
            yield place, _unknown("model", name, list(config.models))
    yield from _aggregation(stage, config)
    if stage.response_schema is not None:
        from agentlab.llm.schemas import validator_of

        try:
            validator_of(stage.response_schema)
        except AgentlabError as error:
            yield ("response_schema",), error.message.rstrip(".")


def _references(index: int, stage: Stage, stages: Sequence[Stage], mentioned: frozenset[str]) -> Iterator[Problem]:
    names, read = [s.id for s in stages], graph.sources(stages)
    before = names[:index]
    for name in dict.fromkeys((*read[stage.id], *sorted(mentioned))):
        place = ("input_from",) if name in read[stage.id] else ("prompt",)
        if name in (graph.INPUT, *before):
            continue
        if name not in names:
            yield place, _unknown("stage", name, [graph.INPUT, *before])
        elif way := graph.circle({s.id: frozenset(read[s.id]) - {graph.INPUT} for s in stages}):
            yield place, f"a circle: {' reads '.join(way)}"
        else:
            yield place, f"{stage.id} reads {name}, which comes after it; move {name} up"


def _asked(stage: Stage) -> Iterator[tuple[Key, str]]:
    """(place, model) of every model a stage may ask."""
    for number, name in enumerate(stage.asked):
        yield ("model",) if stage.model is not None else ("models", str(number)), name
    for number, name in enumerate(stage.fallback_models):
        yield ("fallback_models", str(number)), name
    how = stage.aggregation
    if how is not None and how.asks is not None and how.asked is not None:
        yield ("aggregation", how.asks), how.asked


def _aggregation(stage: Stage, config: "PipelineConfig") -> Iterator[Problem]:
    how = stage.aggregation
    if how is None:
        return
    for place, problem in chain(how.problems(), how.misfits(stage.asked, schema=stage.response_schema is not None)):
        yield ("aggregation", *place), problem if isinstance(problem, str) else _sentence(problem)
    asked = (*stage.asked, *stage.fallback_models) if how.logprobs else ()
    remote = [name for name in asked if name in config.models and config.models[name].provider == "router"]
    if remote:
        yield ("aggregation",), f"{how.method} needs token probabilities, which {remote[0]} does not tell"


def _loops(stages: Sequence[Stage], *, readable: bool) -> Iterator[Problem]:
    names = [stage.id for stage in stages]
    looped: dict[str, str] = {}
    for index, stage in enumerate(stages):
        if stage.repeat_until is None:
            continue
        start = stage.repeat_until.start or stage.id
        if start not in names[: index + 1]:
            yield (
                (str(index), "repeat_until", "start"),
                _unknown("stage before it", start, names[: index + 1]),
            )
            continue
        for name in names[names.index(start) : index + 1]:
            if name in looped:
                yield (str(index), "repeat_until"), f"{name} already belongs to the loop that ends in {looped[name]}"
            looped.setdefault(name, stage.id)
    found = graph.blocks(stages)
    for index, stage in enumerate(stages if readable else ()):
        first, last = found.get(stage.id, (0, -1))
        inside = names[first : last + 1]
        for place, source in graph.templates(stage):
            for name in sorted(compiled(source).previous - set(inside)):
                hint = f"it is in no loop with {name}" if inside else "it is in no loop"
                yield (str(index), *place), f"previous.{name} is an earlier visit's answer, and {stage.id}: {hint}"


def _unknown(kind: str, name: str, known: list[str]) -> str:
    return _sentence(UnknownNameError(kind, name, known))


def _sentence(error: AgentlabError) -> str:
    return f"{error.message.rstrip('.')}" + (f" ({error.hint.rstrip('.')})" if error.hint else "")
