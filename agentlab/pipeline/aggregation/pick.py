"""Aggregations that ask nobody: concat, best_of, first_valid and templates. Pure."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from agentlab.config.keys import Key
from agentlab.errors import BadRequestError, MalformedReplyError
from agentlab.llm.structured import Rejected, fits
from agentlab.pipeline.aggregation.base import (
    Aggregation,
    AggregationScene,
    Chosen,
    Source,
    StageCandidate,
    find_match,
    pattern_problem,
)
from agentlab.pipeline.templates import compile_template


class Concat(Aggregation):
    """All answers, one after another."""

    method: Literal["concat"] = "concat"
    separator: str = Field("\n\n", max_length=200, description="Separator between answers.")

    def choose(self, candidates: Sequence[StageCandidate], scene: AggregationScene) -> Chosen:
        del scene
        text = self.separator.join(candidate.text for candidate in candidates)
        return Chosen(text, {"method": "concat", "candidates": len(candidates)})


class BestOf(Aggregation):
    """The answer its own model was surest of: highest mean log-probability per token. Local models only."""

    method: Literal["best_of"] = "best_of"
    logprobs = True

    def choose(self, candidates: Sequence[StageCandidate], scene: AggregationScene) -> Chosen:
        """Of equals, the earlier one. Models of different vocabularies are compared by it only roughly."""
        del scene
        marks: list[float] = []
        for candidate in candidates:
            if candidate.logprob is None:
                raise BadRequestError(
                    f"best_of needs the log-probability of every answer, but {candidate.model} does not report it.",
                    hint="Use local models only, or another aggregation, such as judge.",
                )
            marks.append(candidate.logprob)
        best = max(range(len(marks)), key=marks.__getitem__)
        return Chosen(candidates[best].text, {"method": "best_of", "logprobs": marks, "chosen": best})


class FirstValid(Aggregation):
    """The first answer that fits `response_schema` (or `pattern`, or else is not empty)."""

    method: Literal["first_valid"] = "first_valid"
    pattern: str | None = Field(
        None, max_length=500, description="Regular expression that must match somewhere in a valid answer."
    )

    def problems(self) -> Iterator[tuple[Key, str]]:
        if self.pattern is not None and (problem := pattern_problem(self.pattern)):
            yield ("pattern",), problem

    def choose(self, candidates: Sequence[StageCandidate], scene: AggregationScene) -> Chosen:
        reasons: list[str] = []
        for index, candidate in enumerate(candidates):
            reason = self._invalid(candidate.text, scene)
            if reason is None:
                return Chosen(candidate.text, {"method": "first_valid", "refused": reasons, "chosen": index})
            reasons.append(reason)
        raise MalformedReplyError(
            f"None of the {len(candidates)} answers is valid; reason for the last one: {reasons[-1]}.",
            hint="Check the answers, or raise max_tokens or samples.",
        )

    def _invalid(self, text: str, scene: AggregationScene) -> str | None:
        if scene.schema is not None and isinstance(value := fits(text, scene.schema), Rejected):
            return value.problems[0]
        if self.pattern is not None and find_match(self.pattern, text) is None:
            return f"it does not match {self.pattern!r}"
        return "it is empty" if not text.strip() else None


class Custom(Aggregation):
    """A template over `candidates` (each with model, sample, output, json) and all that a prompt may use."""

    method: Literal["template"] = "template"
    template: Source = Field(min_length=1, description="Template that renders the stage's answer.")
    templates = ("template",)

    def choose(self, candidates: Sequence[StageCandidate], scene: AggregationScene) -> Chosen:
        rows = [{"model": c.model, "sample": c.sample, "output": c.text, "json": c.json} for c in candidates]
        text = compile_template(self.template).render({**scene.values, "candidates": rows})
        return Chosen(text, {"method": "template", "candidates": len(candidates)})
