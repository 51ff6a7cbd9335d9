"""What `agentlab pipeline validate` answers: the stages as they were understood, and what may still go wrong."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from agentlab.config.workspace import Workspace
from agentlab.pipeline import graph
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.registry import asked_models, available
from agentlab.pipeline.settings import drawing_of, engine_of
from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.templates import compile_template
from agentlab.runs.document import AnswerDocument, Block, Text, table

# Where a template first uses `input`: in braces, or in a tag.
_INPUT = re.compile(r"\{[{%][^{}%]*\binput\b")
_BOUNDING = ("maxLength", "enum", "const", "format")  # what ends a text
_MOST_PATHS = 3

Remark = tuple[str, str]  # a stage, and a piece of advice about it


class StageLine(AnswerDocument):
    """One stage. `reads` are stages or `input`; `answers` is how many models give in one visit."""

    mode: str
    stage: str
    reads: list[str]
    models: list[str]
    answers: int
    aggregation: str | None
    visits: int


class Validated(AnswerDocument):
    """A config without errors. `remarks` are about the stages, `warnings` about models that cannot be used here."""

    stages: list[StageLine]
    models: list[str]
    remarks: list[str]
    warnings: list[str]

    def blocks(self) -> list[Block]:
        stages = table(
            self.stages,
            {
                "mode": lambda s: s.mode,
                "stage": lambda s: s.stage,
                "reads": lambda s: ", ".join(s.reads),
                "models": lambda s: ", ".join(s.models),
                "answers": lambda s: s.answers,
                "aggregation": lambda s: s.aggregation,
                "visits": lambda s: s.visits,
            },
        )
        count = len(self.stages)
        sentence = f"The pipeline is valid: {count} stage{'s' if count != 1 else ''} using {', '.join(self.models)}."
        return [Text(sentence), stages, *(Text(line) for line in (*self.remarks, *self.warnings))]


def validate(config: PipelineConfig, workspace: Workspace, env: Mapping[str, str]) -> Validated:
    """Both lists of stages of a checked config. No engine is needed, and model files need not be there."""
    stage_lists = list(_lists(config))
    needed = set(chain.from_iterable(asked_models(stages, config) for _, stages in stage_lists))
    models = available(config.models, config, workspace, env).values()
    trained = {model.name: model.metadata.context_length for model in models if model.metadata is not None}
    stage_remarks = chain.from_iterable(remarks(config, stages) for _, stages in stage_lists)
    return Validated(
        stages=[*chain.from_iterable(_lines(mode, stages) for mode, stages in stage_lists)],
        models=[name for name in config.models if name in needed],
        remarks=[*stage_remarks, *context_remarks(config, trained)],
        warnings=[f"models.{model.name}: {model.problem}" for model in models if model.problem is not None],
    )


def remarks(config: PipelineConfig, stages: Sequence[Stage]) -> list[str]:
    """What is allowed, but hardly meant or slow."""
    advice = lint(stages, lambda stage: drawing_of(config, stage, stage.asked_models[0]).temperature)
    return [f"{stage}: {sentence}" for stage, sentence in advice]


def context_remarks(config: PipelineConfig, trained: Mapping[str, int]) -> list[str]:
    """Which models are given a larger context than they were `trained` with (tokens; 0 is unknown)."""
    return [
        f"models.{name}: n_ctx {context} exceeds the model's training context of {trained_context} tokens; "
        "answers to longer prompts will be poor"
        for name, trained_context in trained.items()
        if 0 < trained_context < (context := engine_of(config, name).context)
    ]


def _lists(config: PipelineConfig) -> Iterator[tuple[str, Sequence[Stage]]]:
    for mode, part in (("base", config.base_pipeline), ("manual", config.manual_pipeline)):
        if part is not None:
            yield mode, part.stages


def _lines(mode: str, stages: Sequence[Stage]) -> Iterator[StageLine]:
    read = graph.sources(stages)
    visits = {step.stage.id: step.visit for step in graph.unroll(stages)}
    for stage in stages:
        yield StageLine(
            mode=mode,
            stage=stage.id,
            reads=list(read[stage.id]),
            models=list(stage.asked_models),
            answers=len(stage.asked_models) * stage.samples,
            aggregation=stage.aggregation.method if stage.aggregation is not None else None,
            visits=visits[stage.id],
        )


def lint(stages: Sequence[Stage], temperature: Callable[[Stage], float]) -> list[Remark]:
    """What a checked list of stages does that costs more than it has to, or means nothing, in their order. Pure.

    It is advice only, nothing is an error. `stages`: of one mode; `temperature`: what a stage samples with, models and
    defaults considered.
    """
    advice = [
        *_shared_documents(stages),
        *chain.from_iterable(_equal_samples(stage, temperature(stage)) for stage in stages),
        *chain.from_iterable(_endless_texts(stage) for stage in stages),
        *_unread(stages),
        *_maybe_nothing(stages),
    ]
    positions = {stage.id: position for position, stage in enumerate(stages)}
    return sorted(advice, key=lambda remark: positions[remark[0]])


def _shared_documents(stages: Sequence[Stage]) -> Iterator[Remark]:
    """Stages that give one model the same input behind different beginnings: it reads that input again every time."""
    read = graph.sources(stages)
    first: dict[tuple[str, tuple[str, ...]], tuple[Stage, str]] = {}
    told_stages: set[str] = set()
    for stage in stages:
        input_match = _INPUT.search(stage.prompt)
        if input_match is None:
            continue
        before = stage.prompt[: input_match.start()]
        for model in dict.fromkeys(stage.asked_models):
            earlier, start = first.setdefault((model, read[stage.id]), (stage, before))
            if (stage.system, before) == (earlier.system, start) or stage.id in told_stages:
                continue
            told_stages.add(stage.id)
            parts = ["their system messages differ"] * (stage.system != earlier.system)
            parts += ["their prompts differ before the input"] * (before != start)
            yield (
                stage.id,
                f"{earlier.id} and {stage.id} pass the same input to {model}, but {' and '.join(parts)}: "
                "start both prompts with {{ input }}, followed by the instruction, so that the input is processed once",
            )


def _equal_samples(stage: Stage, temperature: float) -> Iterator[Remark]:
    equal_answers = max(stage.asked_models.count(model) for model in stage.asked_models) * stage.samples
    if temperature == 0 and equal_answers > 1:
        yield (
            stage.id,
            f"temperature 0 gives the same answer {equal_answers} times; raise the temperature, or sample once",
        )


def _endless_texts(stage: Stage) -> Iterator[Remark]:
    paths = list(_unbounded_paths(stage.response_schema or {}, "")) if stage.response_schema else []
    if paths:
        rest_note = f" and {len(paths) - _MOST_PATHS} more" if len(paths) > _MOST_PATHS else ""
        listed_paths = ", ".join(path or "/" for path in paths[:_MOST_PATHS])
        yield (
            stage.id,
            f"strings without maxLength in response_schema ({listed_paths}{rest_note}): a small model may "
            "repeat itself in them until max_tokens, which leaves the JSON incomplete",
        )


def _unbounded_paths(schema: Any, path: str) -> Iterator[str]:
    """The places in a schema where a text may have any length."""
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from _unbounded_paths(part, f"{path}/{index}")
    if not isinstance(schema, Mapping):
        return
    kinds = schema.get("type")
    is_text = kinds == "string" or (isinstance(kinds, list) and "string" in kinds)
    if is_text and schema.keys().isdisjoint(_BOUNDING):
        yield path
    for key in ("properties", "$defs", "definitions"):
        for name, part in (schema.get(key) or {}).items():
            yield from _unbounded_paths(part, f"{path}/{name}")
    for key in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "additionalProperties"):
        yield from _unbounded_paths(schema.get(key), path if key.endswith("Of") else f"{path}/{key}")


def _unread(stages: Sequence[Stage]) -> Iterator[Remark]:
    """Stages but the last whose answer goes nowhere. That of a loop's last stage goes into its condition."""
    used = set(chain.from_iterable(graph.sources(stages).values()))
    for stage in stages:
        templates = [compile_template(source) for _, source in graph.templates(stage)]
        earlier = chain.from_iterable(template.previous for template in templates)
        used |= graph.mentioned_stages(stage).union(earlier) - {stage.id}
    for stage in stages[:-1]:
        if stage.id not in used and stage.repeat_until is None:
            yield stage.id, f"no stage reads the answer of {stage.id}: name it in input_from or in a template"


def _maybe_nothing(stages: Sequence[Stage]) -> Iterator[Remark]:
    """A pipeline of whose stages each may be skipped: by its `when`, or because all that it reads may be."""
    read, certain = graph.sources(stages), {graph.INPUT}
    for stage in stages:
        if stage.when is None and certain & {*read[stage.id]}:
            certain.add(stage.id)
    if certain == {graph.INPUT}:
        yield (
            stages[-1].id,
            "every stage may be skipped, which would leave the answer empty: keep one stage without `when`",
        )
