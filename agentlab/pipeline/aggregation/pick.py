"""Aggregations that ask nobody: concat, best_of, first_valid and templates. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentlab.errors import BadRequestError, MalformedReplyError
from agentlab.llm.structured import Rejected
from agentlab.pipeline.aggregation.fit import fits
from agentlab.pipeline.aggregation.pattern import found
from agentlab.pipeline.aggregation.types import Candidate, Chosen
from agentlab.pipeline.stage_config import Concat, FirstValid
from agentlab.pipeline.templates import Template


def concat(candidates: Sequence[Candidate], config: Concat) -> Chosen:
    """All answers, one after another."""
    text = config.separator.join(candidate.text for candidate in candidates)
    return Chosen(text, {"method": "concat", "candidates": len(candidates)})


def best_of(candidates: Sequence[Candidate]) -> Chosen:
    """The answer with the highest mean log-probability per token; of equals, the earlier one.

    Models of different vocabularies are compared by it only roughly.

    Raises:
        BadRequestError: some have none.
    """
    marks: list[float] = []
    for candidate in candidates:
        if candidate.logprob is None:
            raise BadRequestError(
                f"best_of needs the log-probability of every answer, and {candidate.model} does not tell it.",
                hint="Use local models only, or another aggregation, such as judge.",
            )
        marks.append(candidate.logprob)
    best = max(range(len(marks)), key=marks.__getitem__)
    return Chosen(candidates[best].text, {"method": "best_of", "logprobs": marks, "chosen": best})


def first_valid(candidates: Sequence[Candidate], config: FirstValid, schema: Mapping[str, Any] | None) -> Chosen:
    """The first answer that fits the schema and holds the pattern; without both, the first that is not empty.

    Raises:
        MalformedReplyError: there is none.
    """
    reasons: list[str] = []
    for place, candidate in enumerate(candidates):
        reason = _invalid(candidate.text, config.pattern, schema)
        if reason is None:
            return Chosen(candidate.text, {"method": "first_valid", "refused": reasons, "chosen": place})
        reasons.append(reason)
    raise MalformedReplyError(
        f"None of {len(candidates)} answers is valid. The last one: {reasons[-1]}.",
        hint="Look at the answers, or raise max_tokens or samples.",
    )


def _invalid(text: str, pattern: str | None, schema: Mapping[str, Any] | None) -> str | None:
    if schema is not None and isinstance(value := fits(text, schema), Rejected):
        return value.problems[0]
    if pattern is not None and found(pattern, text) is None:
        return f"nothing in it matches {pattern!r}"
    return "it is empty" if not text.strip() else None


def custom(candidates: Sequence[Candidate], template: Template, values: Mapping[str, Any]) -> Chosen:
    """What a template makes of `candidates` and of all that a prompt may use.

    Raises:
        ConfigError: the template cannot be rendered.
    """
    shown = [{"model": c.model, "sample": c.sample, "output": c.text, "json": c.json} for c in candidates]
    text = template.render({**values, "candidates": shown})
    return Chosen(text, {"method": "template", "candidates": len(candidates)})
