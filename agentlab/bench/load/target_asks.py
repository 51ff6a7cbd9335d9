"""How a target is asked: a model at its provider, without retries and without cache; a strategy through the router."""

import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from agentlab import errors
from agentlab.bench.config import BenchConfig, Target
from agentlab.bench.load.config import FaultsConfig
from agentlab.bench.load.schedule import LoadStage, Prompts
from agentlab.bench.load.sending import Ask
from agentlab.llm import providers
from agentlab.llm.budget import RouterBudget, estimate, priced_usage
from agentlab.llm.config import LLMConfig
from agentlab.llm.types import WIRE, ChatModel, Delta, ModelRequest, Usage
from agentlab.runs.context import Context

if TYPE_CHECKING:
    from agentlab.llm.router import Router

TASK = "bench.load"
_BEFORE_BREAKING = 2  # pieces of an answer that is made to break off


class Asks:
    """The connections of one run. `close` frees them."""

    def __init__(self, config: BenchConfig, llm: LLMConfig, context: Context, usage: Usage) -> None:
        """`usage` is what earlier sessions of the run consumed."""
        self._config, self._llm, self._context = config, llm, context
        self._provider_context = providers.ProviderContext(context.env, context.workspace, llm.defaults.timeout)
        self._built: dict[str, ChatModel] = {}
        self._router: Router | None = None
        self.budget = RouterBudget(llm.budget.per_run_usd, usage)

    def of(self, target: Target, stage: LoadStage) -> Ask:
        """The way to ask this target the questions of a stage.

        Raises:
            MissingError: a key or a file is not there.
        """
        prompts = Prompts(stage, self._config.load)
        if target.model is None:
            return self._through_router(target, prompts)
        return self._directly(target.model, prompts)

    def _directly(self, name: str, prompts: Prompts) -> Ask:
        model, limit = self._model(name), self._config.load.output_tokens
        config, temperature = self._llm.models[name], self._llm.sampling(TASK)[0]
        budget, price = self.budget, config.price

        async def ask(index: int) -> AsyncIterator[Delta]:
            messages, seed = prompts.of(index), prompts.seed(index)
            request = ModelRequest(config.id, messages, temperature=temperature, max_tokens=limit, seed=seed)
            cost = estimate(price, messages, limit)
            budget.reserve(cost)
            usage, answered = Usage(), False
            try:
                async for delta in model.stream(request):
                    if delta.usage is not None:
                        usage = delta.usage
                    yield delta
                answered = True
            finally:
                budget.settle(cost, priced_usage(usage, price), answered=answered)

        return ask

    def _through_router(self, target: Target, prompts: Prompts) -> Ask:
        router, limit = self._open_router(), self._config.load.output_tokens

        async def ask(index: int) -> AsyncIterator[Delta]:
            WIRE.set(None)  # several requests may be sent: the caller's time is what counts
            options = target.options(max_tokens=limit, seed=prompts.seed(index), thoughts=True)
            live = router.stream(prompts.of(index), TASK, options=options)
            async for delta in live:
                yield delta
            yield Delta(finish=live.completion.finish, usage=live.completion.usage)

        return ask

    def _model(self, name: str) -> ChatModel:
        provider = self._llm.models[name].provider
        if provider not in self._built:
            config, faults = self._llm.providers[provider], self._config.load.faults
            model = providers.build(provider, config, self._provider_context)
            self._built[provider] = FaultyModel(model, faults, self._config.seed) if faults.share else model
        return self._built[provider]

    def _open_router(self) -> "Router":
        if self._router is None:
            from agentlab.llm.router import Router

            faulty = self._llm.used_models() if self._config.load.faults.share else ()
            models = {name: self._model(name) for name in faulty}
            budget_left = max(0.0, self._llm.budget.per_run_usd - (self.budget.usage.cost_usd or 0.0))
            budget = self._llm.budget.model_copy(update={"per_run_usd": budget_left})
            config = self._llm.model_copy(update={"budget": budget})
            env, workspace, stop = self._context.env, self._context.workspace, self._context.stop
            self._router = Router(config, env=env, workspace=workspace, models=models, stop=stop, in_callers_loop=True)
        return self._router

    async def close(self) -> None:
        if self._router is not None:
            await self._router.aclose()
        for model in self._built.values():
            await model.close()


class FaultyModel:
    """A model of which some requests fail, drawn from a seed in the order in which they come."""

    def __init__(self, model: ChatModel, faults: FaultsConfig, seed: int) -> None:
        self._model, self._faults = model, faults
        self._draw = random.Random(seed)  # noqa: S311 - faults on request, no secret

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        """The model's answer, or the error that was drawn; `LLMTruncatedError` comes after some pieces of it."""
        kind = self._draw.choice(self._faults.kinds) if self._draw.random() < self._faults.share else None
        if kind is not None and kind != "LLMTruncatedError":
            raise _error(kind)
        count = 0
        async with aclosing(self._model.stream(request)) as deltas:  # type: ignore[type-var] # providers are generators
            async for delta in deltas:
                if kind is not None and count == _BEFORE_BREAKING:
                    raise _error(kind)
                count += bool(delta.text)
                yield delta

    async def close(self) -> None:
        await self._model.close()


def _error(kind: str) -> errors.RemoteError:
    error: errors.RemoteError = getattr(errors, kind)("Injected by load.faults.")
    return error
