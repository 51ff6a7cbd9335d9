"""What `agentlab llm show` answers: the routing that a config means. Pure."""

from collections.abc import Mapping
from typing import Annotated

from agentlab.llm.config import LLMConfig
from agentlab.llm.ledger.statistics import UNKNOWN
from agentlab.llm.provider_config import ROLES
from agentlab.runs.document import AnswerDocument, Block, Column, Heading, Text, columns_of, table

OTHERS = "(any other)"


class ProviderLine(AnswerDocument):
    """One provider. `key` names the variable, never its value; `key_set` is None where no key is needed.

    `problem` says what is wrong with its local files, None where all are there.
    """

    name: Annotated[str, Column("provider")]
    kind: Annotated[str, Column("kind")]
    place: str | None
    adapter: str | None
    problem: str | None
    key: str | None
    key_set: bool | None
    rpm: Annotated[int | None, Column("rpm", help="Requests per minute.", missing=UNKNOWN)]
    tpm: Annotated[int | None, Column("tpm", help="Tokens per minute.", missing=UNKNOWN)]
    concurrency: Annotated[int | None, Column("at once", help="Concurrent requests.")]

    @property
    def address(self) -> Annotated[str, Column("at")]:
        return f"{self.place or '–'}{f' with {self.adapter}' if self.adapter else ''}"

    @property
    def key_state(self) -> Annotated[str | None, Column("key")]:
        return self.key and f"{self.key} ({'set' if self.key_set else 'not set'})"


class RouterModelLine(AnswerDocument):
    """One model; prices in USD per million tokens, None is unknown."""

    name: Annotated[str, Column("model")]
    provider: Annotated[str, Column("provider")]
    id: Annotated[str, Column("id")]
    roles: Annotated[list[str], Column("roles", lambda roles: ", ".join(roles) or "none: never used")]
    tier: Annotated[str, Column("tier")]
    context: Annotated[int | None, Column("context", help="Tokens.", missing=UNKNOWN)]
    price_input: float | None
    price_output: float | None
    caps: Annotated[list[str], Column("can", lambda caps: ", ".join(caps) or "plain text")]

    @property
    def price(self) -> Annotated[str | None, Column("USD per Mtok", missing=UNKNOWN)]:
        return None if self.price_input is None else f"{self.price_input:g} in, {self.price_output:g} out"


class TaskLine(AnswerDocument):
    """How a task is put; `models` in the order in which they are tried."""

    name: Annotated[str, Column("task")]
    strategy: Annotated[str, Column("strategy")]
    models: Annotated[list[str], Column("models, in order", ", ".join)]
    temperature: Annotated[float, Column("temperature", "g")]
    max_tokens: Annotated[int, Column("tokens")]
    cache: Annotated[bool, Column("cache", lambda cache: "yes" if cache else "no")]


class Routing(AnswerDocument):
    """Who is asked what, and what it may take. Times in seconds, money in USD."""

    source: str
    providers: list[ProviderLine]
    models: list[RouterModelLine]
    tasks: list[TaskLine]
    timeout: dict[str, float]
    retries: int
    hedge: float
    per_run_usd: float
    per_day_usd: float | None
    ledger: bool

    def blocks(self) -> list[Block]:
        if not self.models:
            return [Text(f"{self.source} has no model: every decision is made without a language model.")]
        return [
            Heading("Tasks"),
            table(self.tasks, columns_of(TaskLine, *TaskLine.model_fields)),
            Heading("Models"),
            table(
                self.models,
                columns_of(RouterModelLine, "name", "provider", "id", "roles", "tier", "context", "price", "caps"),
            ),
            Heading("Providers"),
            table(
                self.providers,
                columns_of(ProviderLine, "name", "kind", "address", "key_state", "rpm", "tpm", "concurrency"),
            ),
            *(Text(f"Not usable: {line.problem}") for line in self.providers if line.problem),
            Heading("Limits"),
            Text(self._limits()),
        ]

    def _limits(self) -> str:
        clocks = ", ".join(f"{name.replace('_', ' ')} {seconds:g} s" for name, seconds in self.timeout.items())
        day = "no daily limit" if self.per_day_usd is None else f"{self.per_day_usd:g} USD per day"
        hedge = f"; up to {self.hedge:.0%} of calls are hedged with a second model" if self.hedge else ""
        memory = "calls are recorded in the ledger" if self.ledger else "nothing is kept between processes"
        return f"{clocks}; retries {self.retries}{hedge}; {self.per_run_usd:g} USD per run, {day}; {memory}."


def routing(source: str, config: LLMConfig, env: Mapping[str, str], absent: Mapping[str, str]) -> Routing:
    """The resolved routing of a config. `env` is asked only whether a key is set; `absent`: see `load.absent`."""
    return Routing(
        source=source,
        providers=[_provider(name, config, env, absent.get(name)) for name in config.providers],
        models=[_model(name, config) for name in config.models],
        tasks=[_task(name, config) for name in (*config.tasks, OTHERS)] if config.models else [],
        timeout=config.defaults.timeout.model_dump(),
        retries=config.defaults.retries,
        hedge=config.defaults.hedge,
        per_run_usd=config.budget.per_run_usd,
        per_day_usd=config.budget.per_day_usd,
        ledger=config.ledger.enabled,
    )


def _provider(name: str, config: LLMConfig, env: Mapping[str, str], problem: str | None) -> ProviderLine:
    provider = config.providers[name]
    reference = getattr(provider, "api_key", None)
    key = None if reference is None else reference.removeprefix("${").removesuffix("}")
    limits = getattr(provider, "limits", None)
    return ProviderLine(
        name=name,
        kind=provider.kind,
        place=getattr(provider, "base_url", None) or getattr(provider, "model_path", None),
        adapter=getattr(provider, "adapter", None),
        problem=problem,
        key=key,
        key_set=None if key is None else bool(env.get(key, "").strip()),
        **{name: getattr(limits, name, None) for name in ("rpm", "tpm", "concurrency")},
    )


def _model(name: str, config: LLMConfig) -> RouterModelLine:
    model = config.models[name]
    return RouterModelLine(
        name=name,
        provider=model.provider,
        id=model.id,
        roles=[role for role in ROLES if name in getattr(config.roles, role)],
        tier=model.tier,
        context=model.context,
        price_input=model.price.input if model.price else None,
        price_output=model.price.output if model.price else None,
        caps=list(config.caps(name)),
    )


def _task(name: str, config: LLMConfig) -> TaskLine:
    cache, strategy = config.manner(name)
    temperature, max_tokens = config.sampling(name)
    return TaskLine(
        name=name,
        strategy=strategy,
        models=list(config.candidates(name)),
        temperature=temperature,
        max_tokens=max_tokens,
        cache=cache,
    )
