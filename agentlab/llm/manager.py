"""The plain face of the router, for programs that have one prompt at a time and want an answer, not exceptions.

manager = LLMManager("config/llm_settings.yaml")
response = await manager.generate_response("Hello, how are you?")
if response.success:
    print(response.content, response.model_name, response.response_time)
"""

import atexit
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from agentlab.errors import AgentlabError
from agentlab.llm.config import LLMConfig
from agentlab.llm.ledger.arm import AttemptSample
from agentlab.llm.load import load_llm
from agentlab.llm.provider_config import Strategy
from agentlab.llm.router import Options, Router
from agentlab.llm.types import Message, Usage
from agentlab.session import surroundings

TASK = "chat"


@dataclass(frozen=True, slots=True)
class ModelTally:
    """One model since the process began."""

    name: str
    last_response_time: float | None = None  # seconds of its latest answer, from the request to the last token
    success_count: int = 0
    error_count: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)  # `error_count` by kind of the error
    usage: Usage = field(default_factory=Usage)  # of all attempts; None is unknown

    def with_sample(self, sample: AttemptSample) -> "ModelTally":
        usage = self.usage + sample.usage
        if sample.error is None:
            return replace(self, last_response_time=sample.total, success_count=self.success_count + 1, usage=usage)
        errors = {**self.errors, sample.error: self.errors.get(sample.error, 0) + 1}
        return replace(self, error_count=self.error_count + 1, errors=errors, usage=usage)


class Tallies:
    """What the models of one process did, counted while it happens, beside what the ledger remembers.

    Every model by name, also those that were never asked.
    """

    def __init__(self, models: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._models = {name: ModelTally(name) for name in models}

    def all(self) -> dict[str, ModelTally]:
        with self._lock:
            return dict(self._models)

    def count(self, sample: AttemptSample) -> None:
        with self._lock:
            self._models[sample.model] = self._models[sample.model].with_sample(sample)


def fastest(tallies: Iterable[ModelTally]) -> ModelTally | None:
    """The one whose latest answer was the quickest; None when none of them has answered."""
    timed = [(tally.last_response_time, tally) for tally in tallies if tally.last_response_time is not None]
    return min(timed, key=lambda item: item[0], default=(None, None))[1]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, or why there is none: then `content` and `model_name` are empty and `error` is a sentence."""

    success: bool
    content: str
    model_name: str
    response_time: float  # seconds, of the whole call
    error: str | None = None


def strategy_of(use_fastest: bool, use_parallel: bool) -> Strategy:
    """What the two switches mean: comparing answers goes before speed, and without either the roles are in order."""
    return "best_of_two" if use_parallel else "fastest" if use_fastest else "fallback"


class LLMManager:
    """Answers through the models of a config file. May be used from any loop, one after the other or several.

    `close` or `aclose` frees connections and local models; so does leaving it as a context manager, and the end of the
    process.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        """Load a YAML file or a preset in `configs/llm/`, or else the embedded model's config; nothing is opened yet.

        Raises:
            ConfigError: every problem of the file, one per line.
            UnknownNameError: there is no such preset.
        """
        context = surroundings(os.environ, Path.cwd())
        self.config: LLMConfig = load_llm(None if path is None else str(path), (), context)
        self._tallies = Tallies(self.config.models)
        self.router = Router(self.config, env=context.env, workspace=context.workspace, on_sample=self._tallies.count)
        atexit.register(self.close)

    async def generate_response(self, prompt: str, use_fastest: bool = True, use_parallel: bool = False) -> Response:
        """Answer a prompt. Models that fail are replaced; if all do, the response says so.

        Args:
            prompt: what the user says.
            use_fastest: start with the primary model that is expected to answer soonest, else with the first one.
            use_parallel: ask two primary models at the same time and take the better answer.
        """
        strategy = strategy_of(use_fastest, use_parallel)
        start = time.perf_counter()
        try:
            answer = await self.router.complete([Message("user", prompt)], TASK, options=Options(strategy=strategy))
        except AgentlabError as error:
            message = f"{error.message} {error.hint}" if error.hint else error.message
            return Response(False, "", "", time.perf_counter() - start, message)
        return Response(True, answer.text, answer.model, time.perf_counter() - start)

    def get_fastest_model(self) -> ModelTally | None:
        """The model whose latest answer to this process was the quickest, a primary one if one has answered yet."""
        tallies = self.statistics()
        primary = [tallies[name] for name in self.config.roles.primary]
        return fastest(primary) or fastest(tallies.values())

    def statistics(self) -> dict[str, ModelTally]:
        return self._tallies.all()

    def close(self) -> None:
        """Cancel calls in flight, free connections and processes, write down what the ledger holds."""
        self.router.close()
        atexit.unregister(self.close)

    async def aclose(self) -> None:
        await self.router.aclose()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
