"""From what a caller says to a question, and from its outcome to a completion, by way of the run's record."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import BaseModel

from agentlab.errors import AllModelsFailedError, BadRequestError, ContextOverflowError, SchemaError, UnknownNameError
from agentlab.llm import structured
from agentlab.llm.budget import tokens_of
from agentlab.llm.config import LLMConfig
from agentlab.llm.options import Options
from agentlab.llm.provider_config import Strategy
from agentlab.llm.question import RouterCandidate, RouterOutcome, RouterQuestion, Value, candidate_of, key_of
from agentlab.llm.recorder import RunRecorder, attempt_from, error_from, outcome_data, usage_from
from agentlab.llm.structured import Rejected
from agentlab.llm.types import Completion, Message, ModelRequest, ToolCall

_MOST_CHARACTERS_PER_TOKEN = 8  # a prompt whose characters by this exceed a window cannot fit, whatever the tokenizer


@dataclass(frozen=True, slots=True)
class RouterCall:
    """A question, and how it is to be put. `call_id` tells it from the same question asked elsewhere in the run."""

    question: RouterQuestion
    strategy: Strategy
    call_id: str

    @property
    def key(self) -> str:
        """What its answer is recorded under."""
        return key_of(
            {
                "task": self.question.task,
                "call": self.call_id,
                "candidates": [[candidate.name, candidate.id] for candidate in self.question.candidates],
                "request": asdict(self.question.request),
                "strategy": self.strategy,
            }
        )


def build_call(
    config: LLMConfig,
    messages: Sequence[Message],
    task: str,
    schema: type[BaseModel] | None,
    options: Options,
    call_id: str,
) -> RouterCall:
    """The question of a call.

    Raises:
        AllModelsFailedError: no model is configured for the task.
        UnknownNameError: `options.model` is not in the config.
        BadRequestError: no model of the task can do what is asked; the schema is not valid; the temperature is negative
            or not finite.
        ContextOverflowError: the prompt cannot fit into any of their windows.
    """
    if options.temperature is not None and not 0 <= options.temperature < math.inf:
        raise BadRequestError(f"The temperature {options.temperature} is not a finite number of at least 0.")
    temperature, max_tokens = config.sampling(task)
    json_schema = options.json_schema if schema is None else structured.schema_of(schema)
    request = ModelRequest(
        model="",
        messages=tuple(messages),
        schema=json_schema,
        temperature=temperature if options.temperature is None else options.temperature,
        max_tokens=options.max_tokens or max_tokens,
        seed=options.seed,
        json_only=options.json_only,
        tools=options.tools,
        tool_choice=options.tool_choice,
        stop=options.stop,
        top_p=options.top_p,
    )
    value: Value | None = structured.object_checker if options.json_only else None
    if schema is not None:
        value = structured.checker(schema)
    elif json_schema is not None:
        value = structured.schema_checker(json_schema)
    cached, strategy = config.manner(task)
    question = RouterQuestion(
        task=task,
        request=request,
        value=value,
        candidates=_within(options.seconds, _candidates(config, task, options.model, request)),
        start=0.0,
        cached=cached if options.cache is None else options.cache,
        thoughts=options.thoughts,
        fail_fast=options.fail_fast,
    )
    return RouterCall(question, options.strategy or strategy, call_id)


def _candidates(config: LLMConfig, task: str, model: str | None, request: ModelRequest) -> tuple[RouterCandidate, ...]:
    if model is not None and model not in config.models:
        raise UnknownNameError("model", model, list(config.models))
    names = config.candidates(task) if model is None else (model,)
    if not names:
        raise AllModelsFailedError(
            f"No language model is configured for {task}.", hint="Choose one, for example with --set llm=embedded."
        )
    candidates = tuple(candidate_of(config, name) for name in names)
    if request.tools:
        candidates = tuple(candidate for candidate in candidates if "tools" in candidate.caps)
        if not candidates:
            hint = "Use a model that does, or check the models' `caps`."
            raise BadRequestError(f"None of the models for {task} supports tools.", hint=hint)
    minimum = sum(len(message.content) for message in request.messages) / _MOST_CHARACTERS_PER_TOKEN  # tokens
    fitting = tuple(candidate for candidate in candidates if candidate.context is None or candidate.context > minimum)
    if not fitting:
        raise ContextOverflowError(
            f"The prompt for {task}, about {tokens_of(request.messages)} tokens, exceeds its models' context window.",
            hint="Shorten the prompt, or use a model with a larger context window.",
        )
    return fitting


def _within(seconds: float | None, candidates: tuple[RouterCandidate, ...]) -> tuple[RouterCandidate, ...]:
    if seconds is None:
        return candidates
    return tuple(replace(candidate, total=min(candidate.total, seconds)) for candidate in candidates)


def replay_call(recorder: RunRecorder | None, router_call: RouterCall) -> Completion[Any] | None:
    """What the record says the call came to, None if it knows nothing; a failure is raised again."""
    data = recorder.replay(router_call.key) if recorder else None
    if data is None:
        return None
    if data["error"]:
        raise error_from(data["error"])
    text, finish = data["text"], data["finish"]
    calls = tuple(ToolCall(**call) for call in data["tool_calls"])
    value: Any = text
    question = router_call.question
    calling = calls and question.request.tools and not text.strip()
    if question.value is not None and not calling:
        value = question.value(text, finish == "length")
        if isinstance(value, Rejected):
            raise SchemaError(f"The recorded answer to {question.task} is no longer valid: {value.problems[0]}.")
    attempts = tuple(attempt_from(attempt) for attempt in data["attempts"])
    usage = usage_from(data["usage"])
    return Completion(value, text, data["model"], usage, attempts, True, calls, finish, None)


def settle_call(recorder: RunRecorder | None, router_call: RouterCall, outcome: RouterOutcome) -> Completion[Any]:
    """The completion, recorded; an error is recorded and raised."""
    if recorder and outcome.attempts:
        task = router_call.question.task
        recorder.record(router_call.key, router_call.call_id or task, outcome_data(task, outcome))
    if outcome.error is not None:
        raise outcome.error
    return Completion(
        outcome.value,
        outcome.text,
        outcome.model,
        outcome.usage,
        outcome.attempts,
        outcome.cached,
        outcome.tool_calls,
        outcome.finish,
        outcome.timing,
    )
