"""What `agentlab llm-bench` can be told: whom to measure, and how; and what a target's name stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from agentlab.bench.load.config import LoadConfig
from agentlab.bench.mock.script import parse
from agentlab.bench.quality.config import QualityConfig
from agentlab.config.base import StrictModel, machine_field, preset_field
from agentlab.errors import ConfigError, UnknownNameError
from agentlab.llm.config import LLMConfig
from agentlab.llm.provider_config import Strategy
from agentlab.runs.comparability import Basis

if TYPE_CHECKING:
    from agentlab.llm.options import Options

Measure = Literal["load", "check", "quality"]
Script = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
STRATEGY = "strategy:"  # how a target names a strategy of the router instead of a model


class CheckConfig(StrictModel):
    """How models are checked."""

    requests: int = Field(
        3,
        ge=1,
        le=100,
        description="Number of small requests per model, sent one at a time after a warm-up request.",
    )
    max_tokens: int = Field(16, ge=1, le=1024, description="Maximum tokens per answer.")
    models_at_once: int = Field(4, ge=1, le=64, description="Models checked at the same time.")


@dataclass(frozen=True, slots=True)
class Target:
    """`model` or `strategy` is set, never both; `name` is what a config calls it."""

    name: str
    model: str | None = None
    strategy: Strategy | None = None

    def options(self, **settings: Any) -> "Options":
        """What a call to this target says. The response cache is left out: it would answer for the model."""
        from agentlab.llm.options import Options

        return Options(model=self.model, strategy=self.strategy, cache=False, **settings)


def targets_of(names: Sequence[str], llm: LLMConfig) -> tuple[Target, ...]:
    """The targets of these names, each once; without a name, every model that some role names.

    Raises:
        ConfigError: the config has no model.
        UnknownNameError: a name is neither a model's nor a strategy's.
    """
    if not llm.models:
        raise ConfigError(
            "No language model is configured: `llm` is empty.",
            hint="Choose one, for example with --set llm=embedded.",
        )
    targets = []
    for name in dict.fromkeys(names or llm.used_models()):
        if name in llm.models:
            targets.append(Target(name, model=name))
        elif strategy := strategy_of(name):
            targets.append(Target(name, strategy=strategy))
        else:
            raise UnknownNameError("target", name, list(llm.models))
    return tuple(targets)


def strategy_of(target: str) -> Strategy | None:
    """The strategy that a target names; None for a model."""
    name = target.removeprefix(STRATEGY)
    return next((strategy for strategy in get_args(Strategy) if strategy == name), None) if name != target else None


class BenchConfig(StrictModel):
    """One `agentlab llm-bench` run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed for prompts, arrivals and injected errors.")
    measure: Measure = Field(
        "load", description="load: speed under load; check: whether every model answers; quality: quality of answers."
    )
    targets: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="Names of models from `llm`, or strategies such as strategy:best_of_two; empty means every "
        "model with a role.",
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
        False, description="Record the measurements in the workspace's ledger, for the strategy `adaptive`."
    )
    priors_for: tuple[str, ...] = machine_field(
        (),
        max_length=64,
        description="Tasks to record the measurements for, such as nas.propose; empty means the benchmark's own task.",
    )
    llm: LLMConfig = preset_field("llm", LLMConfig(), description="Models: a name in configs/llm, or a mapping.")

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
                known_names = strategies if target.startswith(STRATEGY) else list(self.models())
                error = UnknownNameError("target", target, known_names)
                raise ValueError(f"{error.message.rstrip('.')} ({(error.hint or '').rstrip('.')})")
        return self

    def models(self) -> tuple[str, ...]:
        return self.mock or tuple(self.llm.models)

    def chosen_targets(self) -> tuple[str, ...]:
        return self.targets or self.mock or self.llm.used_models()


_LOAD = (
    "mode", "concurrency", "rates", "sweep_over", "requests", "prompt_tokens", "output_tokens", "prefix_cache", "slo",
    "faults",
)  # fmt: skip
_QUALITY = ("types", "per_type", "items_seed", "judge")
MEASURED = Basis(keys=("measure", *(f"load.{key}" for key in _LOAD), *(f"quality.{key}" for key in _QUALITY)))
