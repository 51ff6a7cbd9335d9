"""What a pipeline does that costs more than it has to, or means nothing. Advice only, nothing is an error. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentlab.pipeline import graph
from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.templates import compiled

# Where a template first uses `input`: in braces, or in a tag.
_INPUT = re.compile(r"\{[{%][^{}%]*\binput\b")
_BOUNDING = ("maxLength", "enum", "const", "format")  # what ends a text
_MOST_PATHS = 3


@dataclass(frozen=True, slots=True)
class Remark:
    """A piece of advice about a stage."""

    stage: str
    sentence: str


def lint(stages: Sequence[Stage], temperature: Callable[[Stage], float]) -> list[Remark]:
    """Advice on a list of stages that has been checked, in their order.

    Args:
        stages: of one mode.
        temperature: what a stage samples with, models and defaults considered.
    """
    found = [
        *_shared_documents(stages),
        *(remark for stage in stages for remark in _equal_samples(stage, temperature(stage))),
        *(remark for stage in stages for remark in _endless_texts(stage)),
        *_unread(stages),
        *_maybe_nothing(stages),
    ]
    places = {stage.id: place for place, stage in enumerate(stages)}
    return sorted(found, key=lambda remark: places[remark.stage])


def _shared_documents(stages: Sequence[Stage]) -> Iterator[Remark]:
    """Stages that give one model the same input behind different beginnings: it reads that input again every time."""
    read = graph.sources(stages)
    first: dict[tuple[str, tuple[str, ...]], tuple[Stage, str]] = {}
    told: set[str] = set()
    for stage in stages:
        place = _INPUT.search(stage.prompt)
        if place is None:
            continue
        before = stage.prompt[: place.start()]
        for model in dict.fromkeys(stage.asked):
            other, start = first.setdefault((model, read[stage.id]), (stage, before))
            if (stage.system, before) == (other.system, start) or stage.id in told:
                continue
            told.add(stage.id)
            parts = [
                *(
                    ["their system messages, which come before everything, differ"]
                    if stage.system != other.system
                    else []
                ),
                *(["their prompts differ before the input"] if before != start else []),
            ]
            yield Remark(
                stage.id,
                f"{other.id} and {stage.id} show {model} the same input, but {' and '.join(parts)}: begin both prompts "
                "with {{ input }} and put what is to be done behind it, then it is read once",
            )


def _equal_samples(stage: Stage, temperature: float) -> Iterator[Remark]:
    most = max(stage.asked.count(model) for model in stage.asked) * stage.samples
    if temperature == 0 and most > 1:
        yield Remark(
            stage.id, f"at temperature 0 a model gives the same answer {most} times; set a temperature, or ask it once"
        )


def _endless_texts(stage: Stage) -> Iterator[Remark]:
    paths = list(_unbounded(stage.response_schema or {}, "")) if stage.response_schema else []
    if paths:
        more = f" and {len(paths) - _MOST_PATHS} more" if len(paths) > _MOST_PATHS else ""
        shown = ", ".join(path or "/" for path in paths[:_MOST_PATHS])
        yield Remark(
            stage.id,
            f"texts without maxLength in response_schema ({shown}{more}): a small model may repeat itself in them "
            "until max_tokens, and the JSON stays open",
        )


def _unbounded(schema: Any, path: str) -> Iterator[str]:
    """The places in a schema where a text may have any length."""
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from _unbounded(part, f"{path}/{index}")
    if not isinstance(schema, Mapping):
        return
    kinds = schema.get("type")
    if (kinds == "string" or (isinstance(kinds, list) and "string" in kinds)) and not any(
        k in schema for k in _BOUNDING
    ):
        yield path
    for key in ("properties", "$defs", "definitions"):
        for name, part in (schema.get(key) or {}).items():
            yield from _unbounded(part, f"{path}/{name}")
    for key in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "additionalProperties"):
        yield from _unbounded(schema.get(key), path if key.endswith("Of") else f"{path}/{key}")


def _unread(stages: Sequence[Stage]) -> Iterator[Remark]:
    """Stages but the last whose answer goes nowhere. That of a loop's last stage goes into its condition."""
    used = {name for names in graph.sources(stages).values() for name in names}
    for stage in stages:
        earlier = {name for _, source in graph.templates(stage) for name in compiled(source).previous}
        used |= (graph.mentioned(stage) | earlier) - {stage.id}
    for stage in stages[:-1]:
        if stage.id not in used and stage.repeat_until is None:
            yield Remark(stage.id, f"nobody reads the answer of {stage.id}: name it in input_from or in a template")


def _maybe_nothing(stages: Sequence[Stage]) -> Iterator[Remark]:
    """A pipeline of whose stages each may be skipped: by its `when`, or because all that it reads may be."""
    read, certain = graph.sources(stages), {graph.INPUT}
    for stage in stages:
        if stage.when is None and certain & {*read[stage.id]}:
            certain.add(stage.id)
    if certain == {graph.INPUT}:
        yield Remark(
            stages[-1].id, "every stage may be skipped, and then the answer is empty: leave one without `when`"
        )
