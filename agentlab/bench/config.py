"""What `agentlab llm-bench` can be told: whom to measure, and under which load."""

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from agentlab.bench.check import CheckConfig
from agentlab.bench.mock.script import parse
from agentlab.bench.quality import QualityConfig
from agentlab.config.base import StrictModel, budget_field, machine_field, preset_field
from agentlab.errors import UnknownNameError
from agentlab.llm.config import LLMConfig, Strategy

STRATEGY = "strategy:"  # how a target names a strategy of the router instead of a model

MAX_IN_FLIGHT = 512  # requests; each has a connection, and many systems allow a process 1024 open files

MAX_PIECES = 10_000_000  # of a stage; each has a time, kept until the stage is over

Mode = Literal["closed", "poisson", "constant", "sweep"]
Measure = Literal["load", "check", "quality"]
# What can be injected: the kinds of error that a caller has to live with.
FaultKind = Literal[
    "LLMTimeoutError", "LLMConnectionError", "LLMTruncatedError", "RateLimitedError", "ServerFaultError"
]

Concurrency = Annotated[int, Field(ge=1, le=MAX_IN_FLIGHT)]
Rate = Annotated[float, Field(gt=0, le=10_000)]
Script = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class SloConfig(StrictModel):
    """The latency objective: a request is good if it meets every bound that is set."""

    ttft_ms: float | None = Field(None, gt=0, description="Time to the first token, in ms from the scheduled send.")
    itl_ms: float | None = Field(None, gt=0, description="Mean time per further token, in ms.")
    e2e_ms: float | None = Field(None, gt=0, description="Time to the last token, in ms from the scheduled send.")
    share: float = Field(0.9, gt=0, le=1, description="Share of requests that have to be good; a sweep aims at it.")

    @property
    def given(self) -> bool:
        """Whether some bound is set."""
        return any(bound is not None for bound in (self.ttft_ms, self.itl_ms, self.e2e_ms))


class FaultsConfig(StrictModel):
    """Errors injected on this side of the wire, drawn from the seed: the same requests fail every time."""

    share: float = Field(0.0, ge=0, le=1, description="Share of the requests that fail; 0 injects nothing.")
    kinds: tuple[FaultKind, ...] = Field(get_args(FaultKind), min_length=1, description="Kinds to draw from.")


class LoadConfig(StrictModel):
    """How many requests, how fast, how long, and what is asked."""

    mode: Mode = Field(
        "closed",
        description="closed: so many at a time; poisson, constant: so many per second, whatever the answers do; sweep: "
        "look for the highest load that meets the objective.",
    )
    concurrency: tuple[Concurrency, ...] = Field(
        (1, 2, 4), min_length=1, max_length=32, description="Requests at a time; one stage each (mode closed)."
    )
    rates: tuple[Rate, ...] = Field(
        (), max_length=32, description="Requests per second; one stage each (modes poisson and constant)."
    )
    sweep_over: Literal["rate", "concurrency"] = Field(
        "rate", description="What mode sweep raises: requests per second (Poisson), or requests at a time."
    )
    requests: int = Field(50, ge=1, le=100_000, description="Requests of a stage, at most.")
    warmup: int = Field(2, ge=0, le=1000, description="Requests before a target's first stage, which are not counted.")
    max_seconds: float = budget_field(
        120, gt=0, le=86_400, description="Seconds for all stages together; what is still open then is cut off."
    )
    prompt_tokens: int = Field(64, ge=8, le=100_000, description="About how long a prompt is, in tokens.")
    output_tokens: int = Field(64, ge=1, le=16_384, description="Tokens of an answer, at most.")
    prefix_cache: bool = Field(
        False, description="All prompts begin alike, so that the server may reuse it; else each begins differently."
    )
    tokenizer: str | None = machine_field(
        None, description="The model's tokenizer.json, to count answers exactly; null takes the count of the server."
    )
    slo: SloConfig = Field(SloConfig(), description="The latency objective.")
    faults: FaultsConfig = Field(FaultsConfig(), description="Errors injected on request.")
    ceiling_seconds: float = Field(
        2.0, ge=0, le=30, description="Seconds to measure how fast this client is, on a mock server; 0: not at all."
    )

    @model_validator(mode="after")
    def _rates_and_mode(self) -> "LoadConfig":
        open_loop = self.mode in ("poisson", "constant")
        if open_loop and not self.rates:
            raise ValueError(f"mode {self.mode} needs `rates`, in requests per second")
        if self.mode == "sweep" and self.sweep_over == "concurrency" and not self.slo.given:
            raise ValueError("a sweep over concurrency needs an objective: set slo.ttft_ms, slo.itl_ms or slo.e2e_ms")
        if self.requests * self.output_tokens > MAX_PIECES:
            raise ValueError(f"a stage of more than {MAX_PIECES:,} tokens would not fit into memory: lower `requests`")
        if self.rates and not open_loop:
            raise ValueError(f"`rates` belong to the modes poisson and constant, not to {self.mode}")
        return self


class BenchConfig(StrictModel):
    """One `agentlab llm-bench` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed of prompts, arrivals and injected errors.")
    measure: Measure = Field(
        "load", description="load: speed under load; check: does every model answer; quality: how good the answers are."
    )
    targets: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="Names of models of `llm`, or strategies such as strategy:best_of_two; empty is every model a role "
        "names.",
    )
    mock: tuple[Script, ...] = Field(
        (),
        max_length=16,
        description="Scripts of the built-in mock server to measure instead of `llm`, such as ok-ttft200-itl10-n100.",
    )
    load: LoadConfig = Field(LoadConfig(), description="How the speed is measured.")
    check: CheckConfig = Field(CheckConfig(), description="How availability is checked.")
    quality: QualityConfig = Field(QualityConfig(), description="How the answers are judged.")
    save_priors: bool = machine_field(
        False, description="Tell the workspace's ledger what was measured, for the strategy `adaptive`."
    )
    priors_for: tuple[str, ...] = machine_field(
        (), max_length=64, description="Tasks it is told for, such as nas.propose; empty is the task of the benchmark."
    )
    llm: LLMConfig = preset_field("llm", LLMConfig(), description="A name in configs/llm, or such a mapping.")

    @field_validator("targets", "mock")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)}: named more than once")
        return names

    @field_validator("mock")
    @classmethod
    def _scripts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            parse(name)
        return names

    @model_validator(mode="after")
    def _targets_exist(self) -> "BenchConfig":
        for target in self.targets:
            if target not in self.models() and strategy_of(target) is None:
                strategies = [f"{STRATEGY}{name}" for name in get_args(Strategy)]
                known = strategies if target.startswith(STRATEGY) else list(self.models())
                error = UnknownNameError("target", target, known)
                raise ValueError(f"{error.message.rstrip('.')} ({(error.hint or '').rstrip('.')})")
        return self

    def models(self) -> tuple[str, ...]:
        """Names of the models there are."""
        return self.mock or tuple(self.llm.models)

    def chosen(self) -> tuple[str, ...]:
        """Names of what is measured."""
        return self.targets or self.mock or self.llm.used()


def strategy_of(target: str) -> Strategy | None:
    """The strategy that a target names; None for a model."""
    name = target.removeprefix(STRATEGY)
    return next((known for known in get_args(Strategy) if known == name), None) if name != target else None
