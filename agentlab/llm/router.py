"""The router: every command's way to language models. It knows who is asked, in which order, and what it may cost.

Requests are sent from one loop, whoever calls (`event_loop`). What the caller's thread does is look into the run's
record before and write to it afterwards, so that a run folder has one writer.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import replace
from functools import cached_property
from typing import Any, Self, TypeVar, overload

from agentlab.config.trust import EXPAND
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError, DataError, LLMCancelledError
from agentlab.llm import completions
from agentlab.llm.budget import RetryBudget, RouterBudget
from agentlab.llm.completions import RouterCall
from agentlab.llm.config import LLMConfig
from agentlab.llm.connections import Connections
from agentlab.llm.event_loop import CallersLoop, Live, LoopThread
from agentlab.llm.guard import ModelGuard, ProviderGuard, Slots
from agentlab.llm.ledger import Ledger
from agentlab.llm.ledger.arm import Arm, AttemptSample
from agentlab.llm.options import PLAIN, Options
from agentlab.llm.provider_config import Cap, ProviderLimits
from agentlab.llm.question import Observer, ResponseCache, RouterOutcome, RouterQuestion, RouterServices, Sink
from agentlab.llm.recorder import RunRecorder
from agentlab.llm.strategies import HedgeBudget, Strategist
from agentlab.llm.structured import M
from agentlab.llm.types import ChatModel, Completion, Embeddings, Message, ModelRequest, Tier, Usage
from agentlab.runs.redact import Redactor, texts_of
from agentlab.runs.stop import StopFlag

__all__ = ["Options", "Router"]

LOG = logging.getLogger("agentlab.llm")
R = TypeVar("R")
_TIERS: tuple[Tier, ...] = ("pick", "edit", "full")  # from the least that can be asked to the most
_POLL_SECONDS = 0.1
_DAY = 86_400.0
_CLOSED = "The router was closed during the call."


class Router:
    """Answers through the models of a config. Use as a context manager, or call `close`."""

    def __init__(
        self,
        config: LLMConfig,
        *,
        env: Mapping[str, str],  # with the workspace's `.env`; keys are read from here
        workspace: Workspace,  # where model files and the ledger lie
        recorder: RunRecorder | None = None,  # remembers calls, and answers those that it knows
        stop: StopFlag | None = None,  # asked while `complete_sync` waits
        models: Mapping[str, ChatModel] | None = None,  # stand-ins by name in `config.models`, for tests
        ledger: Ledger | None = None,  # by default the workspace's, if the config wants one
        on_sample: Callable[[AttemptSample], None] | None = None,  # hears of every attempt when it is over
        rng: random.Random | None = None,  # draws for `adaptive` and spreads waiting times
        in_callers_loop: bool = False,
    ) -> None:
        """Open nothing yet. Raises ConfigError if an address or the name of a model holds a secret.

        With `in_callers_loop`, requests are sent from the loop of the caller, who then has one loop and closes with
        `aclose`; by default from a thread with a loop, for callers from anywhere.
        """
        self.config = config
        keys = [key for provider in config.providers.values() if (key := getattr(provider, "key_name", None))]
        self._redactor = Redactor.of(env, keys)
        self._refuse_secret_addresses(env)
        self._connections = Connections(config, env, workspace, self._redactor, models or {})
        self._recorder = recorder
        self._stop = stop
        self._path = workspace.state / "llm.sqlite"
        self._given_ledger = ledger
        self._on_sample = on_sample
        self._rng = rng or random.Random()  # noqa: S311 - who is asked, and when; no secret
        self._event_loop: LoopThread | CallersLoop = CallersLoop() if in_callers_loop else LoopThread()
        limits = {name: getattr(provider, "limits", ProviderLimits()) for name, provider in config.providers.items()}
        providers = {name: ProviderGuard(limit) for name, limit in limits.items()}
        self.guards = {name: ModelGuard(providers[model.provider]) for name, model in config.models.items()}
        self._slots = {name: Slots(limit.concurrency) for name, limit in limits.items()}
        self._budget = RouterBudget(
            config.budget.per_run_usd,
            recorder.total_usage() if recorder else Usage(),
            day=config.budget.per_day_usd,
            spent_today=lambda: self.ledger.spent_since(time.time() // _DAY * _DAY),
            today=lambda: int(time.time() // _DAY),
        )

    @cached_property
    def ledger(self) -> Ledger:
        """What is remembered of calls; opened when it is first needed."""
        if self._given_ledger is not None:
            return self._given_ledger
        if not self.config.ledger.enabled:
            from agentlab.llm.ledger.memory import MemoryLedger

            return MemoryLedger()
        from agentlab.llm.ledger.sqlite import SqliteLedger

        return SqliteLedger(self._path, self.config.ledger.keep_days, LOG.warning)

    @cached_property
    def _strategist(self) -> Strategist:
        services = RouterServices(
            client_of=self._connections.model,
            embedder=self._connections.embedder,
            guards=self.guards,
            slots=self._slots,
            budget=self._budget,
            redactor=self._redactor,
            retries=self.config.defaults.retries,
            retry_budget=RetryBudget(),
            random=self._rng,
            observe=Observer(self.ledger, run=self._recorder.run if self._recorder else "", on_sample=self._on_sample),
            cache=ResponseCache(self.config, self.ledger),
        )
        return Strategist(self.config, services, self.arm, HedgeBudget(self.config.defaults.hedge))

    # -- what is there ------------------------------------------------------------------------------------------

    def available(self, task: str) -> bool:
        return bool(self.config.candidates(task))

    def tier(self, task: str) -> Tier | None:
        """How much can be asked of every model that may answer the task; None when there is none."""
        names = self.config.candidates(task)
        return min((self.config.models[name].tier for name in names), key=_TIERS.index, default=None)

    def can(self, task: str, cap: Cap) -> bool:
        names = self.config.candidates(task)
        return bool(names) and all(cap in self.config.caps(name) for name in names)

    def check(self) -> None:
        """See that the keys and files of all models with a role are there, before work starts.

        Raises:
            MissingError, UnknownNameError: what is not.
        """
        for name in self.config.used_models():
            self._connections.model(name)

    @property
    def usage(self) -> Usage:
        """What all calls consumed so far, those of earlier sessions of the run included."""
        return self._budget.usage

    def arm(self, task: str, model: str) -> Arm:
        return self.ledger.arm(task, model, time.time())

    def feedback(self, task: str, model: str, quality: float) -> None:
        """Say how good an answer was, 0 to 1: `adaptive` and the comparison of answers learn from it."""
        self.ledger.quality(time.time(), task, model, quality)

    # -- asking -------------------------------------------------------------------------------------------------

    @overload
    async def complete(
        self, messages: Sequence[Message], task: str, schema: None = None, *, call_id: str = ..., options: Options = ...
    ) -> Completion[str]: ...

    @overload
    async def complete(
        self, messages: Sequence[Message], task: str, schema: type[M], *, call_id: str = ..., options: Options = ...
    ) -> Completion[M]: ...

    async def complete(
        self,
        messages: Sequence[Message],
        task: str,
        schema: type[M] | None = None,
        *,
        call_id: str = "",
        options: Options = PLAIN,
    ) -> Completion[Any]:
        """Ask for an answer, as text or as a checked value of `schema`.

        `call_id` names the call within the run: the same question under another id is asked again. A call that the
        recorder knows is answered from there, failures included.

        Raises:
            AllModelsFailedError: no candidate answered usefully; `failures` has one line per attempt.
            BadRequestError, ContentFilterError: the request itself was refused.
            BudgetExceededError: the next attempt would cost too much.
            LLMCancelledError: the router was closed.
        """
        router_call = self._build_call(messages, task, schema, options, call_id)
        recorded_answer = completions.replay_call(self._recorder, router_call)
        if recorded_answer is not None:
            return recorded_answer
        return completions.settle_call(self._recorder, router_call, await self._run_on_loop(self._answer(router_call)))

    async def _run_on_loop(self, coroutine: Coroutine[Any, Any, R]) -> R:
        try:
            return await self._event_loop.run(coroutine)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise LLMCancelledError(_CLOSED) from None

    def stream(self, messages: Sequence[Message], task: str, *, options: Options = PLAIN) -> Live:
        """Ask for an answer and hear it while it comes. It is not recorded in the run.

        Reading it raises as `complete` does, and LLMTruncatedError when it broke off after its first piece.
        """

        async def ask(sink: Sink) -> Completion[str]:
            router_call = self._build_call(messages, task, None, options, "")
            return completions.settle_call(None, router_call, await self._run_on_loop(self._answer(router_call, sink)))

        return Live(ask)

    async def embed(
        self, texts: Sequence[str], task: str = "embed", *, options: Options = PLAIN
    ) -> tuple[str, Embeddings]:
        """The vectors of texts, and the name of the model that made them. Errors as of `complete`."""
        from agentlab.llm import embedding  # most programs need no vectors

        self._refuse_secrets(embedding.request_of(texts))
        names = [options.model] if options.model else self.config.candidates(task)
        return await self._run_on_loop(embedding.embed(self.config, self._strategist.services, names, task, texts))

    @overload
    def complete_sync(
        self, messages: Sequence[Message], task: str, schema: None = None, *, call_id: str = ..., options: Options = ...
    ) -> Completion[str]: ...

    @overload
    def complete_sync(
        self, messages: Sequence[Message], task: str, schema: type[M], *, call_id: str = ..., options: Options = ...
    ) -> Completion[M]: ...

    def complete_sync(
        self,
        messages: Sequence[Message],
        task: str,
        schema: type[M] | None = None,
        *,
        call_id: str = "",
        options: Options = PLAIN,
    ) -> Completion[Any]:
        """`complete` for synchronous callers. A signal gets through while it waits.

        Raises:
            Interrupted: a stop was requested; the call is given up and will be asked again on resume.
        """
        router_call = self._build_call(messages, task, schema, options, call_id)
        recorded_answer = completions.replay_call(self._recorder, router_call)
        if recorded_answer is not None:
            return recorded_answer
        outcome = self._wait(self._event_loop.submit(self._answer(router_call)))
        return completions.settle_call(self._recorder, router_call, outcome)

    def _build_call(
        self, messages: Sequence[Message], task: str, schema: type[Any] | None, options: Options, call_id: str
    ) -> RouterCall:
        router_call = completions.build_call(self.config, messages, task, schema, options, call_id)
        self._refuse_secrets(router_call.question.request)
        return router_call

    def _refuse_secret_addresses(self, env: Mapping[str, str]) -> None:
        """See that no address or name of a model holds a secret word for word; variables are seen to in the config."""
        for name, model in self.config.models.items():
            address = f"{model.id} {getattr(self.config.providers[model.provider], 'base_url', '')}"
            variable = self._redactor.variable_in(address)
            if variable and variable not in env.get(EXPAND, "").split(","):
                raise ConfigError(
                    f"The id or the address of models.{name} contains the value of {variable}; secrets are never sent.",
                    hint=f"Remove it, or allow it with {EXPAND}={variable}.",
                )

    def _refuse_secrets(self, request: ModelRequest) -> None:
        """See that no text of a request, its tools and their calls included, holds a secret."""
        for _, text in texts_of(request):
            if variable := self._redactor.variable_in(text):
                raise DataError(
                    f"The prompt contains the value of {variable}; secrets are never sent.",
                    hint="Remove it from the prompt, or unset the variable if its value is not a secret.",
                )

    async def _answer(self, router_call: RouterCall, sink: Sink | None = None) -> RouterOutcome:
        question: RouterQuestion = replace(router_call.question, start=asyncio.get_running_loop().time())
        return await self._strategist.answer(question, router_call.strategy, sink)

    def _wait(self, future: Future[RouterOutcome]) -> RouterOutcome:
        """Wait in slices, so that a signal handler of this thread runs and its request to stop is seen."""
        try:
            while not wait([future], timeout=_POLL_SECONDS).done:
                if self._stop is not None:
                    self._stop.check()
            return future.result()
        except CancelledError:
            raise LLMCancelledError(_CLOSED) from None
        finally:
            future.cancel()  # does nothing when it is done

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel calls in flight and free connections and processes, within seconds. Safe to call twice."""
        self._event_loop.close(self._connections.close)
        self._forget()

    async def aclose(self) -> None:
        await self._event_loop.aclose(self._connections.close)
        self._forget()

    def _forget(self) -> None:
        """Write down what the ledger still holds, unless it is the caller's."""
        if self._given_ledger is None and "ledger" in self.__dict__:
            self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
