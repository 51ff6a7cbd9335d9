"""What the key `llm:` of every command may hold: providers, their models, and who is asked first.

    providers  how an endpoint or a local file is reached; keys by variable name
    models     a provider's model under a name of our own, and how much can be asked of it
    roles      primary, duplicate, reserve, fallback: the order in which models are tried
    tasks      exceptions for single tasks, such as `nas.evaluate`

An empty mapping (the preset `none`) means that no language model is used.
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from agentlab.config.base import EnvText, SecretRef, StrictModel, budget_field
from agentlab.llm.endpoint import check_base_url
from agentlab.llm.types import Tier

RoleName = Literal["primary", "duplicate", "reserve", "fallback"]
ROLES: tuple[RoleName, ...] = ("primary", "duplicate", "reserve", "fallback")

BaseUrl = Annotated[EnvText, AfterValidator(check_base_url)]
Name = Annotated[EnvText, Field(min_length=1, max_length=200)]


class OpenAICompatProvider(StrictModel):
    """Any endpoint that speaks OpenAI's chat completions: OpenRouter, OpenAI, vLLM, llama.cpp, Ollama, LM Studio."""

    kind: Literal["openai_compat"]
    base_url: BaseUrl = Field(description="Up to and without /chat/completions; https, or http on this machine.")
    api_key: SecretRef | None = Field(None, description="The variable that holds the key: ${OPENROUTER_API_KEY}.")


class GgufProvider(StrictModel):
    """A GGUF file that runs here, in a process of its own."""

    kind: Literal["gguf"]
    model_path: Name = Field(description="A catalogue name such as smollm2-135m, or the path of a GGUF file.")
    context: int = Field(2048, ge=128, le=1_048_576, description="Tokens of prompt and answer together.")
    total: float = Field(
        300, gt=0, le=86_400, description="Seconds for one answer. A safety net: the limit of an answer is its tokens."
    )


class ScriptedProvider(StrictModel):
    """A fake for demonstrations and tests; no model is asked."""

    kind: Literal["scripted"]
    mode: Literal["replies", "first", "random", "adversarial", "garbage", "stuck", "refuse"] = Field(
        "first",
        description="replies: those listed, in turn; first, random, adversarial: the schema's first, any or last "
        "choice; garbage: no JSON; stuck: never answers; refuse: connection refused.",
    )
    replies: tuple[str, ...] = Field((), description="The answers of mode `replies`, starting over at the end.")
    seed: int = Field(0, ge=0, description="Seed of mode `random`.")

    @model_validator(mode="after")
    def _replies_and_mode(self) -> "ScriptedProvider":
        if (self.mode == "replies") != bool(self.replies):
            raise ValueError("`replies` and `mode: replies` belong together")
        return self


class PluginProvider(StrictModel):
    """A provider that an installed package brings, through the entry-point group `agentlab.providers`."""

    kind: str = Field(min_length=1)
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Read by the plug-in, and only there.")

    @model_validator(mode="before")
    @classmethod
    def _is_no_slip(cls, given: object) -> object:
        if isinstance(given, dict) and set(given) - {"kind", "options"}:
            raise ValueError(
                f"there is no provider kind {given.get('kind')!r}; known are {', '.join(SHIPPED_KINDS)}; "
                "one from a plug-in has `options` and nothing else"
            )
        return given


SHIPPED_KINDS = ("openai_compat", "gguf", "scripted")


def _kind_of(given: object) -> str:
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    return kind if isinstance(kind, str) and kind in SHIPPED_KINDS else "plugin"


Provider = Annotated[
    Annotated[OpenAICompatProvider, Tag("openai_compat")]
    | Annotated[GgufProvider, Tag("gguf")]
    | Annotated[ScriptedProvider, Tag("scripted")]
    | Annotated[PluginProvider, Tag("plugin")],
    Discriminator(_kind_of),
]


class Price(StrictModel):
    """USD per million tokens; used where the provider does not report what a call cost."""

    input: float = Field(ge=0, description="USD per million tokens of the prompt.")
    output: float = Field(ge=0, description="USD per million tokens of the answer.")


class ModelConfig(StrictModel):
    """One model of a provider."""

    provider: str = Field(description="A name in `providers`.")
    id: Name = Field(description="The provider's name for it, such as anthropic/claude-3.5-sonnet.")
    tier: Tier = Field("full", description="pick: one letter; edit: one flat change; full: a whole JSON document.")
    context: int | None = Field(None, ge=128, description="Tokens of prompt and answer together; null is unknown.")
    price: Price | None = Field(None, description="Null is unknown, which is not free.")


class RolesConfig(StrictModel):
    """Who is asked, by name in `models`; the first of `primary` first, the last of `fallback` last."""

    primary: tuple[str, ...] = Field((), description="Asked first.")
    duplicate: tuple[str, ...] = Field((), description="As good as the primary, at another provider.")
    reserve: tuple[str, ...] = Field((), description="Asked when those fail.")
    fallback: tuple[str, ...] = Field((), description="The last resort, such as a local model.")


class TaskConfig(StrictModel):
    """What differs for one task."""

    roles: tuple[RoleName, ...] | None = Field(None, min_length=1, description="Only these roles, in this order.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is the most likely answer.")
    max_tokens: int | None = Field(None, ge=1, le=131_072, description="Tokens of the answer, at most.")


class Timeout(StrictModel):
    """Four clocks, in seconds. A local model has only a safety net, `providers.NAME.total`."""

    connect: float = Field(5, gt=0, le=600, description="Until the connection stands.")
    first_token: float = Field(30, gt=0, le=3600, description="Until the answer begins.")
    idle: float = Field(20, gt=0, le=3600, description="Silence within the answer.")
    total: float = Field(200, gt=0, le=86_400, description="For the call, retries and other models included.")


class DefaultsConfig(StrictModel):
    """What holds for every task that says nothing else."""

    timeout: Timeout = Field(Timeout(), description="When to give a provider up.")
    retries: int = Field(1, ge=0, le=5, description="Further tries at the same model, for errors that may pass.")
    temperature: float = Field(0, ge=0, le=2, description="0 is the most likely answer.")
    max_tokens: int = Field(256, ge=1, le=131_072, description="Tokens of the answer, at most.")


class BudgetConfig(StrictModel):
    """What paid models may cost."""

    per_run_usd: float = budget_field(1.0, ge=0, description="USD for all calls of a run, earlier sessions included.")


class LLMConfig(StrictModel):
    """The language models of a command."""

    providers: dict[str, Provider] = Field(default_factory=dict, description="Endpoints and local files.")
    models: dict[str, ModelConfig] = Field(default_factory=dict, description="Their models, under names of our own.")
    roles: RolesConfig = Field(RolesConfig(), description="The order in which models are tried.")
    tasks: dict[str, TaskConfig] = Field(default_factory=dict, description="Exceptions for single tasks.")
    defaults: DefaultsConfig = Field(DefaultsConfig(), description="Clocks, retries and sampling.")
    budget: BudgetConfig = Field(BudgetConfig(), description="What it may cost.")

    @model_validator(mode="after")
    def _names_exist(self) -> "LLMConfig":
        problems = [*self._broken_names(), *self._unused()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _broken_names(self) -> Iterator[str]:
        for name, model in self.models.items():
            if model.provider not in self.providers:
                yield f"models.{name}.provider: {_unknown('provider', model.provider, self.providers)}"
        for role in ROLES:
            for name in getattr(self.roles, role):
                if name not in self.models:
                    yield f"roles.{role}: {_unknown('model', name, self.models)}"

    def _unused(self) -> Iterator[str]:
        if self.models and not self.used():
            yield "roles: no role names a model, so none would ever be asked"
            return
        for task in self.tasks:
            if self.models and not self.candidates(task):
                yield f"tasks.{task}.roles: no model has these roles"

    def candidates(self, task: str) -> tuple[str, ...]:
        """Names of the models for a task, in the order in which they are tried, each once."""
        exception = self.tasks.get(task)
        roles = (exception.roles if exception else None) or ROLES
        return tuple(dict.fromkeys(name for role in roles for name in getattr(self.roles, role)))

    def used(self) -> tuple[str, ...]:
        """Names of all models that some role names: the ones a run may ask."""
        return tuple(dict.fromkeys(name for role in ROLES for name in getattr(self.roles, role)))

    def sampling(self, task: str) -> tuple[float, int]:
        """Temperature and maximum number of answer tokens of a task."""
        exception = self.tasks.get(task) or TaskConfig()
        temperature, max_tokens = exception.temperature, exception.max_tokens
        return (
            self.defaults.temperature if temperature is None else temperature,
            self.defaults.max_tokens if max_tokens is None else max_tokens,
        )

    def total(self, name: str) -> float:
        """Seconds after which a call has to be over if this model is the one that answers."""
        provider = self.providers[self.models[name].provider]
        return provider.total if isinstance(provider, GgufProvider) else self.defaults.timeout.total


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = tuple(known)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return f"there is no {what} named {name!r} ({hint})"
