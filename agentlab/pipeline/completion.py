"""A step's end from its candidates. What has to be asked for that, by a judge or for a synthesis, is asked here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentlab.errors import AgentlabError
from agentlab.llm.structured import Rejected, fits
from agentlab.pipeline.aggregation.base import CHARACTERS, VERDICT_TOKENS, Chosen, StageCandidate
from agentlab.pipeline.answer import PipelineAnswer
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import PipelineStep
from agentlab.pipeline.settings import drawing_of, engine_of
from agentlab.pipeline.state import Ended, PipelineItem
from agentlab.pipeline.step_questions import FAILURES, PipelineCall, derive_seed, messages

Ask = Callable[[PipelineCall], PipelineAnswer]
CallResults = Mapping[str, PipelineAnswer | AgentlabError]


def complete_step(
    step: PipelineStep, item: PipelineItem, call_results: CallResults, config: PipelineConfig, ask: Ask
) -> Ended:
    """How the step ends. Candidates that failed are left out; `on_error` decides when none is left.

    Raises:
        AgentlabError: with `on_error: fail`, what went wrong.
    """
    failed = {call: answer for call, answer in call_results.items() if isinstance(answer, AgentlabError)}
    answers = [answer for answer in call_results.values() if isinstance(answer, PipelineAnswer)]
    try:
        if not answers:
            raise next(iter(failed.values()))
        chosen = _choose_answer(step, item, answers, config, ask)
    except FAILURES as error:
        return _fall_back(step, item, error)
    explanation = chosen.why
    if failed:
        explanation = {**explanation, "failed": {call: error.message for call, error in failed.items()}}
    return _build_end(step, item, chosen.text, explanation)


def _build_end(step: PipelineStep, item: PipelineItem, answer: str, explanation: Mapping[str, Any]) -> Ended:
    output = f"{item.step_input(step)}\n\n{answer}" if step.stage.output_mode == "input_plus_answer" else answer
    return Ended("done", answer, output, _json(answer, step), explanation)


def _fall_back(step: PipelineStep, item: PipelineItem, error: AgentlabError) -> Ended:
    explanation = {"error": {"kind": error.kind, "message": error.message}}
    match step.stage.on_error:
        case "skip":
            return Ended("skipped", why=explanation)
        case "default":
            return replace(_build_end(step, item, step.stage.default, explanation), status="default")
    raise error


def _json(text: str, step: PipelineStep) -> Any:
    """The value of an answer where the stage has a schema."""
    if step.stage.response_schema is None:
        return None
    value = fits(text, step.stage.response_schema)
    return None if isinstance(value, Rejected) else value


def _choose_answer(
    step: PipelineStep, item: PipelineItem, answers: Sequence[PipelineAnswer], config: PipelineConfig, ask: Ask
) -> Chosen:
    aggregation = step.stage.aggregation
    if aggregation is None:
        return Chosen(answers[0].text, {})
    models = [answer.model for answer in answers]
    candidates = [
        StageCandidate(
            model=answer.model,
            sample=models[: index + 1].count(answer.model),
            text=answer.text,
            json=_json(answer.text, step),
            logprob=answer.logprob,
            tokens=answer.completion_tokens or len(answer.text) // CHARACTERS,
        )
        for index, answer in enumerate(answers)
    ]
    return aggregation.choose(candidates, _Scene(step, item, config, ask, aggregation.asked or ""))


@dataclass(frozen=True, slots=True)
class _Scene:
    """Implements `aggregation.base.AggregationScene`."""

    step: PipelineStep
    item: PipelineItem
    config: PipelineConfig
    answer: Ask
    model: str  # that an aggregation asks; "" where it asks nobody

    @property
    def schema(self) -> Mapping[str, Any] | None:
        return self.step.stage.response_schema

    @property
    def question(self) -> str:
        return messages(self.step, self.item, 1.0)[-1][1]

    @property
    def values(self) -> Mapping[str, Any]:
        return self.item.values(self.step, self.item.step_input(self.step))

    @property
    def context(self) -> int:
        entry = self.config.models[self.model]
        if entry.provider == "gguf":
            return engine_of(self.config, self.model).context
        return self.config.llm.models[entry.model or ""].context or 8_192

    def seed(self, name: str) -> int:
        return derive_seed(self.config.seed, f"{self.step.id}/{name}", 0)

    def ask(self, name: str, prompt: str, schema: Mapping[str, Any]) -> str:
        return self._reply(name, prompt, schema, temperature=0.0, max_tokens=VERDICT_TOKENS)

    def write(self, name: str, prompt: str) -> str:
        return self._reply(name, prompt, self.schema, stop=self.step.stage.stop)

    def _reply(
        self,
        name: str,
        prompt: str,
        schema: Mapping[str, Any] | None,
        stop: tuple[str, ...] = (),
        **drawing_changes: Any,
    ) -> str:
        call = PipelineCall(
            id=self.item.id(f"{self.step.id}/={name}"),  # no model is called so
            stage=self.step.stage,
            models=(self.model,),
            prompt=lambda _: (("user", prompt),),
            drawings={self.model: replace(drawing_of(self.config, self.step.stage, self.model), **drawing_changes)},
            seed=self.seed(name),
            schema=schema,
            stop=stop,
        )
        return self.answer(call).text
