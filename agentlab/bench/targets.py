"""What is measured under a name: one model of the config, or a strategy over its models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from agentlab.errors import ConfigError, UnknownNameError
from agentlab.llm.config import LLMConfig, Strategy

if TYPE_CHECKING:
    from agentlab.llm.options import Options


STRATEGY = "strategy:"  # how a target names a strategy of the router instead of a model


@dataclass(frozen=True, slots=True)
class Target:
    """`model` or `strategy` is set, never both; `name` is what a config calls it."""

    name: str
    model: str | None = None
    strategy: Strategy | None = None

    def options(self, **more: Any) -> "Options":
        """What a call to this target says. The response cache is left out: it would answer for the model."""
        from agentlab.llm.options import Options

        return Options(model=self.model, strategy=self.strategy, cache=False, **more)


def targets_of(names: Sequence[str], llm: LLMConfig) -> tuple[Target, ...]:
    """The targets of these names, each once; without a name, every model that some role names.

    Raises:
        ConfigError: the config has no model.
        UnknownNameError: a name is neither a model's nor a strategy's.
    """
    if not llm.models:
        raise ConfigError(
            "There is no language model to ask: `llm` is empty.",
            hint="Choose one, for example with --set llm=embedded.",
        )
    found = []
    for name in dict.fromkeys(names or llm.used()):
        if name in llm.models:
            found.append(Target(name, model=name))
        elif strategy := strategy_of(name):
            found.append(Target(name, strategy=strategy))
        else:
            raise UnknownNameError("target", name, list(llm.models))
    return tuple(found)


def strategy_of(target: str) -> Strategy | None:
    """The strategy that a target names; None for a model."""
    name = target.removeprefix(STRATEGY)
    return next((known for known in get_args(Strategy) if known == name), None) if name != target else None
