"""What can be told about a load: how many requests, how fast, and what is asked."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from agentlab.config.base import StrictModel, budget_field, machine_field

MAX_IN_FLIGHT = 512  # requests; each has a connection, and many systems allow a process 1024 open files

MAX_PIECES = 10_000_000  # of a stage; each has a time, kept until the stage is over

Mode = Literal["closed", "poisson", "constant", "sweep"]
# What can be injected: the kinds of error that a caller has to live with.
FaultKind = Literal[
    "LLMTimeoutError", "LLMConnectionError", "LLMTruncatedError", "RateLimitedError", "ServerFaultError"
]

Concurrency = Annotated[int, Field(ge=1, le=MAX_IN_FLIGHT)]
Rate = Annotated[float, Field(gt=0, le=10_000)]


class SloConfig(StrictModel):
    """The latency objective: a request is good if it meets every bound that is set."""

    ttft_ms: float | None = Field(None, gt=0, description="Maximum time to first token, in ms from the scheduled send.")
    itl_ms: float | None = Field(None, gt=0, description="Maximum mean time per output token after the first, in ms.")
    e2e_ms: float | None = Field(None, gt=0, description="Maximum time to last token, in ms from the scheduled send.")
    share: float = Field(
        0.9, gt=0, le=1, description="Share of requests that must meet the objective; a sweep uses it as its criterion."
    )

    @property
    def has_bounds(self) -> bool:
        return any(bound is not None for bound in (self.ttft_ms, self.itl_ms, self.e2e_ms))


class FaultsConfig(StrictModel):
    """Errors injected on this side of the wire, drawn from the seed: the same requests fail every time."""

    share: float = Field(0.0, ge=0, le=1, description="Share of the requests that fail; 0 injects nothing.")
    kinds: tuple[FaultKind, ...] = Field(get_args(FaultKind), min_length=1, description="Kinds of errors to draw from.")


class LoadConfig(StrictModel):
    """How many requests, how fast, how long, and what is asked."""

    mode: Mode = Field(
        "closed",
        description="closed: a fixed number at a time; poisson, constant: a fixed rate regardless of answers; sweep: "
        "look for the highest load that meets the objective.",
    )
    concurrency: tuple[Concurrency, ...] = Field(
        (1, 2, 4), min_length=1, max_length=32, description="Concurrent requests, one stage per number (mode closed)."
    )
    rates: tuple[Rate, ...] = Field(
        (), max_length=32, description="Requests per second, one stage per rate (modes poisson and constant)."
    )
    sweep_over: Literal["rate", "concurrency"] = Field(
        "rate", description="Load that the sweep increases: requests per second (Poisson) or concurrent requests."
    )
    requests: int = Field(50, ge=1, le=100_000, description="Maximum requests per stage.")
    warmup: int = Field(2, ge=0, le=1000, description="Warm-up requests before a target's first stage, not counted.")
    max_seconds: float = budget_field(
        120,
        gt=0,
        le=86_400,
        description="Time limit for all stages together, in seconds; open requests are then cut off.",
    )
    prompt_tokens: int = Field(64, ge=8, le=100_000, description="Approximate length of a prompt, in tokens.")
    output_tokens: int = Field(64, ge=1, le=16_384, description="Maximum tokens per answer.")
    prefix_cache: bool = Field(
        False, description="Prompts share a prefix, which the server may cache; otherwise each begins differently."
    )
    tokenizer: str | None = machine_field(
        None, description="The model's tokenizer.json, to count answers exactly; null uses the server's count."
    )
    slo: SloConfig = Field(SloConfig(), description="The latency objective.")
    faults: FaultsConfig = Field(FaultsConfig(), description="Deliberately injected errors.")
    ceiling_seconds: float = Field(
        2.0, ge=0, le=30, description="Seconds to measure the client's own limit on a mock server; 0 skips it."
    )

    @model_validator(mode="after")
    def _rates_and_mode(self) -> "LoadConfig":
        open_loop = self.mode in ("poisson", "constant")
        if open_loop and not self.rates:
            raise ValueError(f"mode {self.mode} needs `rates`, in requests per second")
        if self.mode == "sweep" and self.sweep_over == "concurrency" and not self.slo.has_bounds:
            raise ValueError("a sweep over concurrency needs an objective: set slo.ttft_ms, slo.itl_ms or slo.e2e_ms")
        if self.requests * self.output_tokens > MAX_PIECES:
            raise ValueError(f"a stage of more than {MAX_PIECES:,} tokens would not fit in memory: lower `requests`")
        if self.rates and not open_loop:
            raise ValueError(f"`rates` apply only to the modes poisson and constant, not to {self.mode}")
        return self
