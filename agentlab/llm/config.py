"""What the key `llm:` of every command may hold: providers, their models, and who is asked first.

    providers  how an endpoint or a local file is reached; keys by variable name
    models     a provider's model under a name of our own, and how much can be asked of it
    roles      primary, duplicate, reserve, fallback: the order in which models are tried
    tasks      exceptions for single tasks, such as `nas.evaluate`

An empty mapping (the preset `none`) means that no language model is used.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from pydantic import Field, model_validator

from agentlab.config.base import StrictModel, budget_field, machine_field
from agentlab.llm.provider_config import (
    ROLES,
    Cap,
    Name,
    Price,
    Provider,
    RoleName,
    RolesConfig,
    Strategy,
    describe_unknown_name,
)
from agentlab.llm.types import Tier


class ChatModelConfig(StrictModel):
    """One model of a provider."""

    provider: str = Field(description="A name in `providers`.")
    id: Name = Field(description="The provider's name for the model, such as anthropic/claude-3.5-sonnet.")
    tier: Tier = Field(
        "full", description="Supported answer format. pick: one letter; edit: one flat change; full: a JSON document."
    )
    context: int | None = Field(
        None, ge=128, description="Context window: prompt and answer tokens together; null means unknown."
    )
    price: Price | None = Field(None, description="null means unknown, not free.")
    caps: tuple[Cap, ...] | None = Field(
        None, description="Its capabilities, if fewer than its provider's: tools, schema, json, embeddings."
    )


class TaskConfig(StrictModel):
    """Settings of one task."""

    strategy: Strategy | None = Field(None, description="How the task chooses among its models.")
    cache: bool | None = Field(None, description="Whether answers may come from the response cache.")
    roles: tuple[RoleName, ...] | None = Field(None, min_length=1, description="Only these roles, in this order.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 always takes the most likely token.")
    max_tokens: int | None = Field(None, ge=1, le=131_072, description="Maximum tokens per answer.")


class Timeout(StrictModel):
    """Four timeouts, in seconds. A local model has only a safety net, `providers.NAME.total`."""

    connect: float = Field(5, gt=0, le=600, description="Time until the connection is open.")
    first_token: float = Field(30, gt=0, le=3600, description="Time until the answer begins.")
    idle: float = Field(20, gt=0, le=3600, description="Longest pause within the answer.")
    total: float = Field(200, gt=0, le=86_400, description="Time for the whole call, with retries and fallbacks.")


class Weights(StrictModel):
    """Preferences: utility = quality - latency - cost, each times its weight."""

    quality: float = Field(1.0, ge=0, le=100, description="Weight of the share of good answers.")
    latency: float = Field(0.2, ge=0, le=100, description="Weight of log(1 + seconds / 10).")
    cost: float = Field(0.3, ge=0, le=100, description="Weight of log(1 + USD / 0.01).")


class DefaultsConfig(StrictModel):
    """The defaults of every task."""

    strategy: Strategy = Field(
        "fallback",
        description="single: the first model, then those in role fallback; fallback: all roles in order; fastest: the "
        "quickest primary first; best_of_two, best_of_n: several primaries at once, judged by a duplicate; adaptive: "
        "by learned quality, latency and cost.",
    )
    answers: int = Field(3, ge=2, le=8, description="Number of answers that `best_of_n` compares.")
    weights: Weights = Field(default_factory=Weights, description="Weights of the `adaptive` strategy.")
    hedge: float = Field(
        0, ge=0, le=0.5, description="Share of calls that may ask a second model when the first is slow to answer."
    )
    cache: bool = Field(False, description="Answer repeated requests from the response cache.")
    timeout: Timeout = Field(default_factory=Timeout, description="When to give up on a provider.")
    retries: int = Field(1, ge=0, le=5, description="Retries per model after transient errors.")
    temperature: float = Field(0, ge=0, le=2, description="0 always takes the most likely token.")
    max_tokens: int = Field(256, ge=1, le=131_072, description="Maximum tokens per answer.")


class RouterBudgetConfig(StrictModel):
    """Spending limits for paid models."""

    per_run_usd: float = budget_field(1.0, ge=0, description="USD for all calls of a run, earlier sessions included.")
    per_day_usd: float | None = budget_field(
        None, ge=0, description="USD for all calls from this workspace per day (UTC), as recorded in its ledger."
    )


class LedgerConfig(StrictModel):
    """The workspace's memory of calls, statistics, spend and answers: `.agentlab/llm.sqlite`."""

    enabled: bool = Field(True, description="false: nothing is kept between processes.")
    keep_days: int = Field(30, ge=1, le=3650, description="Days to keep individual calls and cached answers.")


class LLMConfig(StrictModel):
    """The language models of a command."""

    providers: dict[str, Provider] = Field(default_factory=dict, description="Endpoints and local files.")
    models: dict[str, ChatModelConfig] = Field(
        default_factory=dict, description="Models from these providers, under names of your choice."
    )
    roles: RolesConfig = Field(default_factory=RolesConfig, description="The order in which models are tried.")
    tasks: dict[str, TaskConfig] = Field(default_factory=dict, description="Settings for individual tasks.")
    defaults: DefaultsConfig = Field(default_factory=DefaultsConfig, description="Timeouts, retries and sampling.")
    budget: RouterBudgetConfig = Field(default_factory=RouterBudgetConfig, description="Spending limits.")
    ledger: LedgerConfig = machine_field(default_factory=LedgerConfig, description="Data kept between runs.")
    threads: int | None = machine_field(
        None,
        ge=1,
        le=1024,
        description="Threads per local model; null means half of OMP_NUM_THREADS or, if unset, of the cores.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_roles_layout(cls, tree: object) -> object:
        if not (isinstance(tree, dict) and "llm" in tree):
            return tree
        from agentlab.llm.roles_layout import convert_layout  # brings YAML and takes 50 ms, which few configs need

        return convert_layout(tree)

    @model_validator(mode="after")
    def _names_exist(self) -> "LLMConfig":
        problems = [*self._broken_names(), *self._circles()] or [*self._find_unused()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _broken_names(self) -> Iterator[str]:
        for name, model in self.models.items():
            if model.provider not in self.providers:
                yield f"models.{name}.provider: {describe_unknown_name('provider', model.provider, self.providers)}"
        for role in ROLES:
            for name in getattr(self.roles, role):
                if name not in self.models:
                    yield f"roles.{role}: {describe_unknown_name('model', name, self.models)}"

    def _circles(self) -> Iterator[str]:
        """A model that is named twice would be asked again after it failed."""
        met: dict[str, RoleName] = {}
        for role in ROLES:
            for name in getattr(self.roles, role):
                if name in met:
                    yield (
                        f"roles.{role}: {name} is already in {met[name]}, so its fallback leads back to itself; "
                        "name each model once (duplicates are part of the chain)"
                    )
                met.setdefault(name, role)

    def _find_unused(self) -> Iterator[str]:
        if self.models and not self.used_models():
            yield "roles: no role names a model, so there is no model to use"
            return
        for task in self.tasks:
            if self.models and not self.candidates(task):
                yield f"tasks.{task}.roles: no model has these roles"

    def candidates(self, task: str) -> tuple[str, ...]:
        """Names of the models for a task, in the order of trial; of two names for one model only the first."""
        exception = self.tasks.get(task)
        roles = (exception.roles if exception else None) or ROLES
        first: dict[tuple[str, str], str] = {}
        for name in self._names_with_roles(roles):
            model = self.models[name]
            first.setdefault((model.provider, model.id), name)
        return tuple(first.values())

    def used_models(self) -> tuple[str, ...]:
        """Names of all models that some role names: the ones a run may ask."""
        return tuple(dict.fromkeys(self._names_with_roles(ROLES)))

    def _names_with_roles(self, roles: Iterable[str]) -> Iterator[str]:
        return chain.from_iterable(getattr(self.roles, role) for role in roles)

    def sampling(self, task: str) -> tuple[float, int]:
        """Temperature and maximum number of answer tokens of a task."""
        return self._task_setting(task, "temperature"), self._task_setting(task, "max_tokens")

    def manner(self, task: str) -> tuple[bool, Strategy]:
        """Whether a task may be answered from the response cache, and its strategy."""
        return self._task_setting(task, "cache"), self._task_setting(task, "strategy")

    def _task_setting(self, task: str, name: str) -> Any:
        """The task's own word, or that of `defaults`."""
        task_value = getattr(self.tasks.get(task), name, None)
        return getattr(self.defaults, name) if task_value is None else task_value

    def total(self, name: str) -> float:
        """Seconds after which a call has to be over if this model is the one that answers."""
        provider = self.providers[self.models[name].provider]
        return float(getattr(provider, "total", self.defaults.timeout.total))

    def caps(self, name: str) -> tuple[Cap, ...]:
        model = self.models[name]
        return self.providers[model.provider].caps if model.caps is None else model.caps
