"""What `agentlab llm` answers: the routing that a config means, and what the models have done. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from agentlab.llm.config import ROLES, LLMConfig
from agentlab.llm.ledger.statistics import ModelStatistics
from agentlab.runs.document import Block, Document, Heading, Table, Text

UNKNOWN = "unknown"
OTHERS = "(any other)"


class ProviderLine(Document):
    """One provider. `key` names the variable, never its value; `key_set` is None where no key is needed.

    `problem` says what is wrong with its local files, None where all are there.
    """

    name: str
    kind: str
    place: str | None
    adapter: str | None
    problem: str | None
    key: str | None
    key_set: bool | None
    rpm: int | None
    tpm: int | None
    concurrency: int | None


class ModelLine(Document):
    """One model; prices in USD per million tokens, None is unknown."""

    name: str
    provider: str
    id: str
    roles: list[str]
    tier: str
    context: int | None
    price_input: float | None
    price_output: float | None
    caps: list[str]


class TaskLine(Document):
    """How a task is put; `models` in the order in which they are tried."""

    name: str
    strategy: str
    models: list[str]
    temperature: float
    max_tokens: int
    cache: bool


class Routing(Document):
    """Who is asked what, and what it may take. Times in seconds, money in USD."""

    source: str
    providers: list[ProviderLine]
    models: list[ModelLine]
    tasks: list[TaskLine]
    timeout: dict[str, float]
    retries: int
    hedge: float
    per_run_usd: float
    per_day_usd: float | None
    ledger: bool

    def blocks(self) -> list[Block]:
        """Three tables and the limits; a config without models is one sentence."""
        if not self.models:
            return [Text(f"{self.source} names no model: every decision is made without one.")]
        return [
            Heading("Tasks"),
            Table(("task", "strategy", "models, in order", "temperature", "tokens", "cache"), self._task_rows()),
            Heading("Models"),
            Table(("model", "provider", "id", "roles", "tier", "context", "USD per Mtok", "can"), self._model_rows()),
            Heading("Providers"),
            Table(("provider", "kind", "at", "key", "rpm", "tpm", "at a time"), self._provider_rows()),
            *(Text(f"Not usable: {line.problem}") for line in self.providers if line.problem),
            Heading("Limits"),
            Text(self._limits()),
        ]

    def _task_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                line.name,
                line.strategy,
                ", ".join(line.models),
                f"{line.temperature:g}",
                str(line.max_tokens),
                "yes" if line.cache else "no",
            )
            for line in self.tasks
        ]

    def _model_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                line.name,
                line.provider,
                line.id,
                ", ".join(line.roles) or "none: never asked",
                line.tier,
                _known(line.context),
                UNKNOWN if line.price_input is None else f"{line.price_input:g} in, {line.price_output:g} out",
                ", ".join(line.caps) or "plain text",
            )
            for line in self.models
        ]

    def _provider_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                line.name,
                line.kind,
                f"{line.place or '–'}{f' with {line.adapter}' if line.adapter else ''}",
                "–" if line.key is None else f"{line.key} ({'set' if line.key_set else 'not set'})",
                _known(line.rpm),
                _known(line.tpm),
                "–" if line.concurrency is None else str(line.concurrency),
            )
            for line in self.providers
        ]

    def _limits(self) -> str:
        clocks = ", ".join(f"{name.replace('_', ' ')} {seconds:g} s" for name, seconds in self.timeout.items())
        day = "no limit a day" if self.per_day_usd is None else f"{self.per_day_usd:g} USD a day"
        hedge = f"; a second model besides for {self.hedge:.0%} of the calls" if self.hedge else ""
        memory = "the ledger remembers calls" if self.ledger else "nothing is remembered between processes"
        return f"{clocks}; retries {self.retries}{hedge}; {self.per_run_usd:g} USD a run, {day}; {memory}."


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
        rpm=limits.rpm if limits else None,
        tpm=limits.tpm if limits else None,
        concurrency=limits.concurrency if limits else None,
    )


def _model(name: str, config: LLMConfig) -> ModelLine:
    model = config.models[name]
    return ModelLine(
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


class StatisticsLine(Document):
    """What one model has done. Seconds; None is unknown. `unpriced` attempts are missing from `cost_usd`."""

    model: str
    provider: str
    last_at: str | None
    last_seconds: float | None
    answered: int
    failed: int
    errors: dict[str, int]
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    unpriced: int
    first_p50: float | None
    first_p90: float | None
    total_p50: float | None
    total_p90: float | None


class Statistics(Document):
    """What the workspace's ledger remembers of its models, since it was made."""

    ledger: str
    models: list[StatisticsLine]

    def blocks(self) -> list[Block]:
        """A table, or a sentence when nothing was asked yet."""
        if not self.models:
            return [Text("No language model was asked in this workspace yet.")]
        columns = (
            "model",
            "last answer",
            "took",
            "answers",
            "errors",
            "tokens in",
            "tokens out",
            "spent USD",
            "first token s, p50 / p90",
            "whole answer s, p50 / p90",
        )
        note = "Took: the last answer. p50 / p90: median and 90th percentile over the answers. Times are UTC."
        return [Table(columns, [_statistics_row(line) for line in self.models], note)]


def statistics(ledger: str, models: Sequence[ModelStatistics]) -> Statistics:
    """The answer of `agentlab llm stats`."""
    return Statistics(ledger=ledger, models=[_statistics_line(each) for each in models])


def _statistics_line(each: ModelStatistics) -> StatisticsLine:
    first, total = each.first or (None, None), each.total or (None, None)
    return StatisticsLine(
        model=each.model,
        provider=each.provider,
        last_at=None if each.last_at is None else f"{datetime.fromtimestamp(each.last_at, tz=UTC):%Y-%m-%d %H:%M:%S}",
        last_seconds=each.last_seconds,
        answered=each.answered,
        failed=sum(each.errors.values()),
        errors=dict(each.errors),
        input_tokens=each.usage.input_tokens,
        output_tokens=each.usage.output_tokens,
        cost_usd=each.usage.cost_usd,
        unpriced=each.unpriced,
        first_p50=first[0],
        first_p90=first[1],
        total_p50=total[0],
        total_p90=total[1],
    )


def _statistics_row(line: StatisticsLine) -> tuple[str, ...]:
    kinds = ", ".join(f"{kind} {count}" for kind, count in line.errors.items())
    spent = UNKNOWN if line.cost_usd is None else f"{line.cost_usd:.4f}"
    if line.cost_usd is not None and line.unpriced:
        spent += f" and {line.unpriced} calls of unknown cost"
    return (
        line.model,
        line.last_at or "never",
        UNKNOWN if line.last_seconds is None else f"{line.last_seconds:.2f} s",
        str(line.answered),
        kinds or "0",
        _known(line.input_tokens),
        _known(line.output_tokens),
        spent,
        _pair(line.first_p50, line.first_p90),
        _pair(line.total_p50, line.total_p90),
    )


def _known(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _pair(middle: float | None, most: float | None) -> str:
    return UNKNOWN if middle is None or most is None else f"{middle:.2f} / {most:.2f}"
